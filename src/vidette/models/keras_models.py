"""The three classic forms as Keras networks: frame by frame, CNN + LSTM, 3-D CNN.

Keras puts channels last; these models take and give Vidette's ``(N, T, C, H, W)``. Keras (extra ``keras``) is
imported when the first of them is built, never with this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from vidette.models.along_time import TimePool
from vidette.models.base import Head, State, VideoModel
from vidette.models.keras_network import KerasNetwork, built_on_cpu

__all__ = ["FrameByFrame", "KerasCnnLstm", "KerasConv3d", "KerasFrameCnn"]


def _network(shape: tuple[int | None, ...], layers: Callable[[Any], list[Any]]) -> KerasNetwork:
    """Return layers in a row for inputs of ``shape``, without the batch."""
    return KerasNetwork(
        built_on_cpu(lambda keras: keras.Sequential([keras.Input(shape), *layers(keras.layers)]))
    )


def _frame_layers(layers: Any, *, shrink: int) -> list[Any]:
    """Return the classic CNN of one frame: 3x3 convolutions of 32 and 64, each pooled ``shrink`` times."""
    found: list[Any] = []
    for channels in (32, 64):
        found.append(layers.Conv2D(channels, 3, padding="same", activation="relu", data_format="channels_last"))
        found.append(layers.MaxPooling2D(shrink, padding="same", data_format="channels_last"))
    return found


class FrameByFrame(VideoModel):
    """A Keras network on every frame, then a head: what Keras calls TimeDistributed."""

    def __init__(self, frames: KerasNetwork, head: Head) -> None:
        super().__init__()
        self.frames = frames
        self.head = head

    def frame_features(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        return self.frames(x.movedim(2, -1).flatten(0, 1)).unflatten(0, (n, t))


class _MeanHead(Head):
    """Classify each frame and average: ``(N, T, D)`` to ``(N, K)``."""

    needs_whole_clip = None

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classify = _network((width,), lambda layers: [layers.Dense(num_classes)])
        self.pool = TimePool("mean", num_classes)

    def forward(self, features: Tensor) -> Tensor:
        n, t = features.shape[:2]
        return self.pool(self.classify(self.dropout(features).flatten(0, 1)).unflatten(0, (n, t)))

    def initial_state(self, batch: int) -> State:
        return self.pool.initial_state(next(self.parameters()), batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        return self.pool.step(self.classify(features), state)


class KerasFrameCnn(FrameByFrame):
    """Two convolutions (32, 64) on every frame; a clip's logits are the mean of its frames'.

    Args:
        num_classes: K.
        hidden: Size of the dense layer after the convolutions.
        dropout: Probability of dropping a feature.
        in_channels: C of the frames.
    """

    uses_order: ClassVar[bool] = False

    def __init__(
        self, num_classes: int, *, hidden: int = 128, dropout: float = 0.2, in_channels: int = 3
    ) -> None:
        frames = _network(
            (None, None, in_channels),
            lambda layers: [
                *_frame_layers(layers, shrink=2),
                layers.GlobalAveragePooling2D(data_format="channels_last"),
                layers.Dense(hidden, activation="relu"),
            ],
        )
        super().__init__(frames, _MeanHead(hidden, num_classes, dropout=dropout))


class _LstmHead(Head):
    """Keras's LSTM and a dense layer on its last step: ``(N, T, D)`` to ``(N, K)``."""

    needs_whole_clip = None

    def __init__(self, width: int, num_classes: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.lstm = KerasNetwork(
            built_on_cpu(lambda keras: _built(keras.layers.LSTM(hidden), (None, None, width)))
        )
        self.dropout = nn.Dropout(dropout)
        self.classify = _network((hidden,), lambda layers: [layers.Dense(num_classes)])

    def forward(self, features: Tensor) -> Tensor:
        return self.classify(self.dropout(self.lstm(features)))

    def initial_state(self, batch: int) -> State:
        nothing = next(self.parameters()).new_zeros(batch, self.lstm.layer.units)
        return nothing, nothing

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        with self.lstm.ready(features):
            output, memory = self.lstm.layer.cell(features, list(state), training=False)
        return self.classify(output), tuple(memory)


def _built(layer: Any, shape: tuple[int | None, ...]) -> Any:
    layer.build(shape)
    return layer


class KerasCnnLstm(FrameByFrame):
    """Two convolutions (32, 64) on every frame, flattened, then an LSTM; classifies its last step.

    The classic on 10 frames of 64x64; the size decides the LSTM's width, the number of frames nothing.

    Args:
        num_classes: K.
        height: H in pixels.
        width: W in pixels.
        hidden: Size of the LSTM's state.
        dropout: Before the last layer.
        in_channels: C of the frames.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        height: int,
        width: int,
        hidden: int = 128,
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        frames = _network(
            (height, width, in_channels),
            lambda layers: [
                *_frame_layers(layers, shrink=4),
                layers.Flatten(data_format="channels_last"),
            ],
        )
        flat = int(frames.layer.output_shape[-1])
        super().__init__(frames, _LstmHead(flat, num_classes, hidden=hidden, dropout=dropout))


class _ClipHead(Head):
    """A Keras network on whole clips, channels last: ``(N, T, C, H, W)`` to ``(N, K)``."""

    needs_whole_clip = "its 3-D filters look at several frames at once, later ones too"

    def __init__(self, network: KerasNetwork, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.dropout = nn.Dropout(dropout)
        self.classify = _network((network.layer.output_shape[-1],), lambda layers: [layers.Dense(num_classes)])

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.dropout(self.network(x.movedim(2, -1))))


class KerasConv3d(VideoModel):
    """Three 3-D convolutions (16, 32, 64), each pooled, and a dense layer.

    Args:
        num_classes: K.
        channels: Channels of the first convolution; doubled twice.
        dropout: Before the last layer.
        in_channels: C of the frames.
    """

    def __init__(
        self, num_classes: int, *, channels: int = 16, dropout: float = 0.2, in_channels: int = 3
    ) -> None:
        super().__init__()
        network = _network(
            (None, None, None, in_channels), lambda layers: _clip_layers(layers, channels=channels)
        )
        self.head = _ClipHead(network, num_classes, dropout=dropout)


def _clip_layers(layers: Any, *, channels: int) -> list[Any]:
    found: list[Any] = []
    for i, pool in enumerate(((1, 2, 2), (2, 2, 2), (2, 2, 2))):
        found.append(
            layers.Conv3D(channels * 2**i, 3, padding="same", activation="relu", data_format="channels_last")
        )
        found.append(layers.MaxPooling3D(pool, padding="same", data_format="channels_last"))
    return [*found, layers.GlobalAveragePooling3D(data_format="channels_last")]
