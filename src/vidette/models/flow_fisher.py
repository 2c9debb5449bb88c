"""Words of movement: optical flow described piece by piece, counted as a Fisher vector, answered by a line."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from vidette.errors import SettingError
from vidette.models.base import CodebookHead, FrameModel
from vidette.models.optical_flow import dense_flow

__all__ = ["Codebook", "FlowDescriptors", "FlowFisher", "FlowFisherHead"]

_DIRECTIONS, _MAPS, _CELLS = 8, 3, 12
_SHARPNESS = 8
"""Power of the cosine by which a vector counts for a direction: half at 22 degrees, little at 45."""
_SMALLEST_SIDE = 16
_STILL = 0.15
"""Pixels a frame that count as standing still."""
_FAINT, _FAINT_SHARE, _STRONG_SHARE = 0.2, 0.15, 0.05
"""A piece moves if its speeds sum to 0.2, and to 0.15 of what the strongest twentieth of the clip reach."""
_FEWEST_PIECES = 20
_EVEN = 1e-2
_TINY = 1e-6
_PLACE = 3.0
"""How much a piece's place counts beside what it looks like."""
_LENGTH = 10.0
_VIEWS = 3
_PIECES_A_CLIP = 100


class FlowDescriptors(nn.Module):
    """Grey clips ``(N, T, 1, H, W)`` to descriptions of small pieces of them.

    A piece is 2x2 cells of the picture over 3 spans of time. In each cell the flow is counted by direction
    (8, weighted by speed), and so are the slopes of its two components, which tell a moving edge from
    a camera that moves. Each of the three histograms is made to sum to 1 and rooted.

    Returns:
        Descriptions ``(N, P, 288)``, places in the picture ``(N, P, 2)`` from -0.5 to 0.5, and 1 for the pieces
        in which something moves, else 0, ``(N, P, 3)``: of the clip, of its first half, of its second.

    Source:
        H. Wang and others, Dense trajectories and motion boundary descriptors for action recognition, IJCV
        2013; here on a fixed grid instead of trajectories.
    """

    size = _MAPS * _DIRECTIONS * _CELLS

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
        self.directions: Tensor
        self.register_buffer("directions", torch.stack([angles.cos(), angles.sin()]))

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, frames = grey.shape[:2]
        flow = dense_flow(grey[:, :-1].flatten(0, 1), grey[:, 1:].flatten(0, 1))
        speed = flow.square().sum(1, keepdim=True).add(_TINY).sqrt()
        flow = flow * ((speed - _STILL).clamp(min=0) / speed)
        maps = [flow, _slopes(flow[:, :1]), _slopes(flow[:, 1:])]
        described = [self._pieces(self._by_direction(each), n, frames) for each in maps]
        rooted = [(each / (each.sum(1, keepdim=True) + _EVEN)).sqrt() for each in described]
        moving = self._pieces(speed * (speed > _STILL), n, frames).sum(1)
        height, width = moving.shape[-2:]
        down, right = torch.meshgrid(
            torch.linspace(-0.5, 0.5, height, device=grey.device),
            torch.linspace(-0.5, 0.5, width, device=grey.device),
            indexing="ij",
        )
        places = torch.stack([right, down], dim=-1).expand(n, moving.shape[1], -1, -1, -1).flatten(1, 3)
        counted = _strongest(moving.flatten(1)).view_as(moving)
        early = (torch.arange(moving.shape[1], device=grey.device) < moving.shape[1] / 2).to(grey.dtype)
        views = torch.stack([torch.ones_like(early), early, 1 - early], dim=-1)
        counted = (counted[..., None] * views[:, None, None]).flatten(1, 3)
        return torch.cat(rooted, dim=1).flatten(2).transpose(1, 2), places, counted

    def _by_direction(self, vectors: Tensor) -> Tensor:
        """Return lengths of vectors ``(B, 2, h, w)`` in the directions nearest to theirs, ``(B, 8, h, w)``."""
        length = vectors.square().sum(1, keepdim=True).add(_TINY).sqrt()
        along = torch.einsum("bchw,cd->bdhw", vectors / length, self.directions)
        return length * along.clamp(min=0).pow(_SHARPNESS)

    def _pieces(self, x: Tensor, n: int, frames: int) -> Tensor:
        """Return averages of ``(N * (T - 1), C, h, w)`` in each piece's cells, ``(N, C * 12, T', h', w')``."""
        cell = max(2, round(min(x.shape[-2:]) / 7))
        x = F.avg_pool2d(x, cell, stride=cell // 2).unflatten(0, (n, frames - 1)).transpose(1, 2)
        x = torch.cat([torch.zeros_like(x[:, :, :1]), x], dim=2)
        span = max(1, frames // 16)
        x = F.avg_pool3d(x, (span, 1, 1))
        shape = [size - 2 for size in x.shape[-3:]]
        corners = [(t, i, j) for t in (0, 1, 2) for i in (0, 2) for j in (0, 2)]
        cells = [x[..., t : t + shape[0], i : i + shape[1], j : j + shape[2]] for t, i, j in corners]
        return torch.cat(cells, dim=1)


def _slopes(x: Tensor) -> Tensor:
    """Return how ``(B, 1, h, w)`` changes along x and y, ``(B, 2, h, w)``; 0 at the edges."""
    along_x = F.pad(x[:, :, :, 2:] - x[:, :, :, :-2], (1, 1, 0, 0))
    along_y = F.pad(x[:, :, 2:] - x[:, :, :-2], (0, 0, 1, 1))
    return torch.cat([along_x, along_y], dim=1)


def _strongest(moving: Tensor) -> Tensor:
    """Return 1 for the pieces ``(N, P)`` that move much for their clip, or are among its first 20; else 0."""
    pieces = moving.shape[1]
    ordered = moving.topk(min(pieces, max(_FEWEST_PIECES, int(_STRONG_SHARE * pieces)))).values
    strong = ordered[:, min(ordered.shape[1] - 1, int(_STRONG_SHARE * pieces))]
    least = (_FAINT_SHARE * strong).clamp(min=_FAINT)
    least = torch.minimum(least, ordered[:, min(pieces, _FEWEST_PIECES) - 1])
    return (moving >= least[:, None]).to(moving.dtype)


class Codebook(nn.Module):
    """Words that descriptions are counted by: a Gaussian mixture behind a projection.

    Until it is learnt it is random. A clip's vector says of each word how far, and how much wider, the clip's
    descriptions lie around it than those it was learnt from do.

    Args:
        size: Numbers a description.
        projection: Numbers that are kept of them, by principal components.
        words: Gaussians.

    Source:
        F. Perronnin and others, Improving the Fisher kernel for large-scale image classification, ECCV 2010.
    """

    def __init__(self, size: int, *, projection: int, words: int) -> None:
        super().__init__()
        self.projection: Tensor
        self.centre: Tensor
        self.means: Tensor
        self.spreads: Tensor
        self.weights: Tensor
        self.register_buffer("projection", torch.randn(size, projection) / math.sqrt(size))
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("means", torch.randn(words, projection + 2) / 4)
        self.register_buffer("spreads", torch.ones(words, projection + 2) / 2)
        self.register_buffer("weights", torch.full((words,), 1 / words))
        self.out_features = 2 * words * (projection + 2)

    def forward(self, described: Tensor, places: Tensor, counted: Tensor) -> Tensor:
        """Return ``(N, V, 2 W (D + 2))`` of descriptions ``(N, P, S)``, counted in V views ``(N, P, V)``."""
        x = self._projected(described, places)
        precision = self.spreads.square().reciprocal()
        inner = x.square() @ precision.T - 2 * (x @ (self.means * precision).T)
        constant = (self.means.square() * precision).sum(1) + 2 * self.spreads.log().sum(1)
        share = (self.weights.log() - (inner + constant) / 2).softmax(-1)[:, None] * counted.mT[..., None]
        share = (share / counted.sum(1).clamp(min=1)[..., None, None]).mT
        zeroth = share.sum(-1, keepdim=True)
        first, second = share @ x[:, None], share @ x.square()[:, None]
        root = self.weights[:, None].sqrt()
        away = (first - zeroth * self.means) / (self.spreads * root)
        spread = second - 2 * self.means * first + (self.means.square() - self.spreads.square()) * zeroth
        wider = spread * precision / (root * math.sqrt(2))
        vector = torch.cat([away, wider], dim=-1).flatten(2)
        vector = vector.sign() * ((vector.abs() + _TINY).sqrt() - math.sqrt(_TINY))
        return _LENGTH * vector / (vector.norm(dim=-1, keepdim=True) + _TINY)

    def _projected(self, described: Tensor, places: Tensor) -> Tensor:
        return torch.cat([(described - self.centre) @ self.projection, _PLACE * places], dim=-1)

    def learn(self, described: Tensor, places: Tensor) -> None:
        """Learn the projection and the words from descriptions ``(P, S)`` and their places ``(P, 2)``."""
        least = max(self.projection.shape[1], self.weights.shape[0]) + 1
        repeated = math.ceil(least / len(described))
        described, places = described.repeat(repeated, 1), places.repeat(repeated, 1)
        parts = PCA(self.projection.shape[1], svd_solver="randomized", random_state=0).fit(described.numpy())
        unit = float(np.sqrt(parts.explained_variance_.mean()).clip(_TINY))
        self.projection.copy_(torch.from_numpy(np.asarray(parts.components_).T / unit))
        self.centre.copy_(torch.from_numpy(parts.mean_))
        mixture = GaussianMixture(
            len(self.weights), covariance_type="diag", reg_covar=1e-3, max_iter=25, random_state=0
        )
        with warnings.catch_warnings():  # words need not have settled to the last digit
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = mixture.fit(self._projected(described, places).numpy())
        self.means.copy_(torch.from_numpy(found.means_))
        self.spreads.copy_(torch.from_numpy(found.covariances_).sqrt())
        self.weights.copy_(torch.from_numpy(found.weights_).clamp(min=_TINY))


class FlowFisherHead(CodebookHead):
    """Grey clips ``(N, T, 1, H, W)`` to logits ``(N, K)``: flow, descriptions, Fisher vector, linear layer."""

    needs_whole_clip = "it counts the movements of a whole clip"

    def __init__(self, num_classes: int, *, projection: int, words: int, dropout: float) -> None:
        super().__init__()
        self.describe = FlowDescriptors()
        self.codebook = Codebook(FlowDescriptors.size, projection=projection, words=words)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(_VIEWS * self.codebook.out_features, num_classes)
        nn.init.normal_(self.classify.weight, std=1e-3)
        nn.init.zeros_(self.classify.bias)

    def learnt_first(self) -> nn.Module:
        """Return the codebook."""
        return self.codebook

    def learn_codebook(self, clips: Iterable[Tensor]) -> None:
        """Learn the codebook from up to 100 moving pieces of each clip ``(1, T, 1, H, W)``."""
        drawn: list[tuple[Tensor, Tensor]] = []
        chance = torch.Generator().manual_seed(0)
        for clip in clips:
            with torch.no_grad():
                described, places, counted = (each[0].cpu() for each in self.describe(clip))
            moving = counted[:, 0].nonzero()[:, 0]
            some = moving[torch.randperm(len(moving), generator=chance)[:_PIECES_A_CLIP]]
            drawn.append((described[some], places[some]))
        described, places = (torch.cat(part) for part in zip(*drawn, strict=True))
        self.codebook.learn(described, places)

    def summary(self, features: Tensor) -> Tensor:
        """Return the Fisher vectors of clips and of their halves, each of length 10, in a row, ``(N, S)``."""
        return self.codebook(*self.describe(features)).flatten(1)

    def of_summary(self, summary: Tensor) -> Tensor:
        """Answer ``(N, S)``."""
        return self.classify(self.dropout(summary))

    def forward(self, features: Tensor) -> Tensor:
        return self.of_summary(self.summary(features))


class _Grey(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


class FlowFisher(FrameModel):
    """What moves where and in which direction, counted over the clip: a classifier for few clips.

    There are no convolutions to train. The words are learnt from the training clips without their labels, and a
    linear layer is all that learns from labels, so that some hundred clips of a few people are enough. Long
    clips of many frames suit it (recipe ``flow``); the camera may move a little.

    Args:
        num_classes: K.
        num_frames: T of the clips, 4 or more.
        height: H of the frames in pixels, 16 or more.
        width: W of the frames in pixels, 16 or more.
        projection: Numbers kept of each description.
        words: Gaussians of the codebook.
        dropout: Probability of dropping a number of the Fisher vector.

    Raises:
        SettingError: The clips are too short or the frames too small.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_frames: int,
        height: int,
        width: int,
        projection: int = 40,
        words: int = 48,
        dropout: float = 0.0,
    ) -> None:
        if num_frames < 4 or min(height, width) < _SMALLEST_SIDE:
            raise SettingError(
                f"model flow_fisher needs 4 frames or more of 16x16 pixels or more, not {num_frames} of "
                f"{width}x{height}: it follows movement over time; use more frames or a larger size"
            )
        if not 1 <= projection <= FlowDescriptors.size:
            raise SettingError(
                f"projection {projection}; expected 1 to {FlowDescriptors.size}, numbers kept of a description"
            )
        super().__init__(
            _Grey(), FlowFisherHead(num_classes, projection=projection, words=words, dropout=dropout)
        )
