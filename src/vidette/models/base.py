"""What every video model is: a per-frame part and a head over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from vidette.errors import InputMismatchError, SettingError

__all__ = ["CodebookHead", "FrameModel", "Head", "State", "VideoModel"]

State: TypeAlias = tuple[Any, ...]
"""What a model remembers of a stream: nested tuples of tensors, each with the batch (streams) first."""


class Head(nn.Module):
    """What looks along time: features ``(N, T, ...)`` to logits ``(N, K)``.

    A head that can also take one frame at a time sets ``needs_whole_clip`` to None and has both methods below.
    """

    needs_whole_clip: str | None = "its filters see several frames at once"
    """Why there is no step; None where there is one."""

    def summary(self, features: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return what is made of features ``(N, T, ...)`` without weights, ``(N, S)``; None: nothing.

        Training on a frozen backbone keeps it instead of the features, which are many times larger.
        """
        return None

    def of_summary(self, summary: Tensor) -> Tensor:
        """Finish what :meth:`summary` began: ``(N, S)`` to logits ``(N, K)``."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> State:
        """Return the state of ``batch`` streams of which nothing has been seen."""
        raise NotImplementedError

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one frame's features of each stream, ``(N, ...)``; return logits ``(N, K)`` and the state."""
        raise NotImplementedError


class CodebookHead(Head):
    """A head whose summary needs something that is learnt first, from training clips without their labels."""

    def learnt_first(self) -> nn.Module:
        """Return the codebook itself."""
        raise NotImplementedError

    def learn_codebook(self, clips: Iterable[Tensor]) -> None:
        """Learn the codebook from the features ``(1, T, ...)`` of training clips."""
        raise NotImplementedError


class VideoModel(nn.Module):
    """Clips to logits in two parts, so that work done frame by frame can be done once and reused.

    ``frame_features`` looks at every frame on its own; ``head`` looks along time. A 3-D CNN has no per-frame
    part: its features are the pixels.

    A model that can step also takes a stream frame by frame. A step's logits are the answer to the frames
    seen so far: stepping T frames ends with the answer to the clip of those T frames. The state is a value,
    passed in and out and never changed, so that one model serves many streams.

    Shapes:
        forward: ``(N, T, C, H, W)`` to logits ``(N, K)``.
        frame_features: ``(N, T, C, H, W)`` to ``(N, T, ...)``.
        head: ``(N, T, ...)`` to ``(N, K)``.

    Example:
        >>> from vidette.models import build_model
        >>> options = {"backbone": "small"}
        >>> model = build_model("cnn_gru", num_classes=4, num_frames=8, height=32, width=32, options=options)
        >>> state = model.initial_state(2)
        >>> logits, state = model.eval().step(torch.zeros(2, 3, 32, 32), state)
        >>> logits.shape
        torch.Size([2, 4])
    """

    uses_order: ClassVar[bool] = True
    name: str = "of no name"
    own_options: Mapping[str, Any] = {}
    """Options beside the given ones that a later build of the same model needs."""
    head: Head

    def frame_features(self, x: Tensor) -> Tensor:
        """Return what is computed of each frame alone, ``(N, T, ...)``."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frame_features(x))

    @property
    def can_step(self) -> bool:
        """Whether the model takes one frame at a time."""
        return self.head.needs_whole_clip is None

    def initial_state(self, batch: int = 1) -> State:
        """Return the state of ``batch`` streams of which nothing has been seen.

        Raises:
            SettingError: The model has no step.
        """
        self._check_can_step()
        return self.head.initial_state(batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one new frame of each stream.

        Args:
            frame: ``(N, C, H, W)``, prepared like the frames of a clip.
            state: From :meth:`initial_state` or the step before; not changed.

        Returns:
            Logits ``(N, K)`` of the frames seen so far, and the new state.

        Raises:
            SettingError: The model has no step.
            InputMismatchError: ``frame`` has another number of dimensions.
        """
        self._check_can_step()
        if frame.dim() != 4:
            raise InputMismatchError(
                f"frame has shape {tuple(frame.shape)}; expected (N, C, H, W), one frame of each stream"
            )
        return self.head.step(self.frame_features(frame[:, None])[:, 0], state)

    def steps(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """Take several new frames of each stream: :meth:`step` over each in turn.

        Args:
            frames: ``(N, T, C, H, W)``.
            state: From :meth:`initial_state` or the step before; not changed.

        Returns:
            Logits ``(N, T, K)``, one answer after each frame, and the new state.

        Raises:
            SettingError: The model has no step.
        """
        self._check_can_step()
        answers: list[Tensor] = []
        for features in self.frame_features(frames).unbind(1):
            logits, state = self.head.step(features, state)
            answers.append(logits)
        return torch.stack(answers, dim=1), state

    def _check_can_step(self) -> None:
        reason = self.head.needs_whole_clip
        if reason is not None:
            raise SettingError(
                f"model {self.name} has no step: {reason}; it runs on sliding windows of whole clips"
            )


class FrameModel(VideoModel):
    """A model whose per-frame part is a 2-D backbone ``(B, C, H, W)`` to ``(B, D, g, g)``."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def frame_features(self, x: Tensor) -> Tensor:
        """Run the backbone on every frame: ``(N, T, C, H, W)`` to ``(N, T, D, g, g)``."""
        n, t = x.shape[:2]
        return self.backbone(x.flatten(0, 1)).unflatten(0, (n, t))
