"""A classifier on streams: one frame in, one answer out, each frame looked at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from vidette.classifier.scorers import FrameScorer, OnnxFrames, TorchFrames
from vidette.classifier.step_runtime import NotExportedError, StepRunner, TorchStep, exported_step
from vidette.errors import InputMismatchError, SettingError
from vidette.models.base import FrameModel
from vidette.video.motion_crop import clip_pixels
from vidette.video.transforms import pixels_tensor

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier, Runtime
    from vidette.video.clip import ClipSpec

__all__ = ["STATE_POLICIES", "StatePolicy", "Stepper", "StreamState"]

StatePolicy = Literal["window", "carry", "clip"]
STATE_POLICIES: tuple[StatePolicy, ...] = ("window", "carry", "clip")
"""``"window"``: several states a stream, begun afresh in turns: from the first span on, every answer saw at
least one span of frames and less than two; less than about one and an eighth where the states share what is
computed of each frame. ``"carry"``: one state, never begun afresh.
``"clip"``: the last T frames as one clip, their features computed once; for models without a step the only one,
and for a crop that follows motion, which every answer cuts anew from the last T frames, held as large pictures.
"""

_SHARED_STATES = 8
"""Into how many parts the states divide a span where they share the frames' features."""

_VARIED_SPANS = 2
"""From how many times the shortest trained clip the longest one is of another length."""

_Memory = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class StreamState:
    """What is remembered of one stream: a value that no push changes.

    Attributes:
        num_frames: Frames taken so far.
        memory: The model's states, tensors ``(R, ...)``; or the features of the last frames, ``(...)`` each; or
            the frames themselves, uint8 ``(H, W, 3)``.
        ages: For each of the R states the frames that it has seen; below 1: it has not begun.
        frame: The last frame, uint8 ``(H, W, 3)``, None before the first.
        logits: float32 ``(K,)`` after the last frame, None where they were not computed.
    """

    num_frames: int
    memory: _Memory
    ages: tuple[int, ...] = ()
    frame: np.ndarray | None = None
    logits: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"StreamState({self.num_frames} frames, ages {self.ages})"


class _Strategy(Protocol):
    """How frames become answers."""

    @property
    def runtime(self) -> Literal["torch", "onnx"]: ...

    def start(self) -> StreamState: ...

    def advance(self, frames: Sequence[np.ndarray], states: Sequence[StreamState]) -> list[StreamState]: ...

    def answers(self, states: Sequence[StreamState]) -> list[np.ndarray]: ...


class Stepper:
    """Runs one classifier on any number of streams, frame by frame.

    The frames of a stream come at the classifier's own rate. An answer is due when T frames have been seen and
    every ``stride_frames`` frames after that; a clip's worth of frames ends with the clip's own logits.

    Args:
        classifier: Its model steps, or else slides over the last T frames.
        runtime: ``"auto"`` takes ONNX Runtime on a CPU where the step can be exported, else torch.
        state: One of :data:`STATE_POLICIES`; ``"window"`` where the model steps, else ``"clip"``, by default.
        stride_frames: Frames from one answer to the next; by default 1 where the model steps, else half a clip.
        folder: Where exported steps are kept; the user's cache by default.

    Attributes:
        classifier: As given.
        state_policy: The policy in use.
        stride_frames: The stride in use.
        notes: Sentences on what is done otherwise than asked or learnt, such as a step that cannot be exported,
            or whole clips of many lengths that are seen cut to one.

    Raises:
        SettingError: The state policy needs a step that the model has not, or a value is out of range.
        ClassifierError: Torch and ONNX Runtime disagree, or ONNX Runtime was asked for and cannot run the step.

    Example:
        >>> from vidette.classifier.classifier import Classifier
        >>> from vidette.models import build_model
        >>> from vidette.video.clip import ClipSpec
        >>> spec = ClipSpec(num_frames=2, height=32, width=32, sampling="window", fps=4.0)
        >>> model = build_model("conv3d_small", num_classes=3, num_frames=2, height=32, width=32)
        >>> stepper = Stepper(Classifier(model, "conv3d_small", {}, spec, ("a", "b", "c")), runtime="torch")
        >>> state, black = stepper.start(), np.zeros((32, 32, 3), np.uint8)
        >>> first, state = stepper.push(black, state)
        >>> second, state = stepper.push(black, state)
        >>> first is None, second.shape
        (True, (3,))
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        runtime: Runtime = "auto",
        state: StatePolicy | None = None,
        stride_frames: int | None = None,
        folder: Path | None = None,
    ) -> None:
        whole, num_frames = _whole_clip_reason(classifier), classifier.spec.num_frames
        steps = whole is None
        self.classifier = classifier
        self.state_policy: StatePolicy = state or ("window" if steps else "clip")
        if self.state_policy not in STATE_POLICIES:
            raise SettingError(f"state is {state!r}; expected one of {', '.join(STATE_POLICIES)}")
        if runtime not in ("auto", "torch", "onnx"):
            raise SettingError(f"runtime is {runtime!r}; expected auto, torch or onnx")
        if not steps and self.state_policy != "clip":
            raise SettingError(
                f"state is {state!r} but {classifier.model_name} has no step ({whole}); "
                "use 'clip' or leave it out"
            )
        self.stride_frames = (
            stride_frames if stride_frames is not None else 1 if steps else max(1, num_frames // 2)
        )
        if self.stride_frames < 1:
            raise SettingError(f"stride_frames is {stride_frames}; expected 1 or more")
        self.notes: tuple[str, ...] = _span_notes(classifier.spec)
        self._strategy = self._new_strategy(runtime, folder)

    @property
    def runtime(self) -> Literal["torch", "onnx"]:
        """What runs the step, or the per-frame part of a model that slides."""
        return self._strategy.runtime

    def start(self) -> StreamState:
        """Return the state of a stream of which nothing was seen."""
        return self._strategy.start()

    def push(self, frame: np.ndarray, state: StreamState) -> tuple[np.ndarray | None, StreamState]:
        """Take the next frame of one stream.

        Args:
            frame: uint8 ``(H, W, 3)``, RGB, as the resizer of the spec gives it: at the spec's size, or where
                it follows motion at the size that is held for the crop.
            state: From :meth:`start` or the push before; not changed.

        Returns:
            Uncalibrated logits, float32 ``(K,)``, or None where no answer is due; and the new state.

        Raises:
            InputMismatchError: The frame has another size or type.
        """
        return self.push_many([frame], [state])[0]

    def push_many(
        self, frames: Sequence[np.ndarray], states: Sequence[StreamState]
    ) -> list[tuple[np.ndarray | None, StreamState]]:
        """Take the next frame of each of several streams, in one batch; see :meth:`push`."""
        if not frames:
            return []
        self._check(frames, states)
        after = self._strategy.advance(frames, states)
        after = [replace(state, frame=frame) for state, frame in zip(after, frames, strict=True)]
        due = [i for i, state in enumerate(after) if self._is_due(state.num_frames)]
        answers = dict(zip(due, self._strategy.answers([after[i] for i in due]), strict=True))
        return [(answers.get(i), state) for i, state in enumerate(after)]

    def finish(self, state: StreamState) -> tuple[np.ndarray | None, int]:
        """Say that a stream has ended.

        Returns:
            The logits of the frames since the last answer, None where there are none; and how often the last
            frame was repeated to make a clip of a stream that was shorter (as a file's clip repeats it).
        """
        repeated = 0
        if state.frame is None:
            return None, repeated
        if state.num_frames < self.classifier.spec.num_frames:
            answer = None
            while answer is None:
                answer, state = self.push(cast(np.ndarray, state.frame), state)
                repeated += 1
            return answer, repeated
        if self._is_due(state.num_frames):
            return None, repeated
        return self._strategy.answers([state])[0], repeated

    def _is_due(self, num_frames: int) -> bool:
        over = num_frames - self.classifier.spec.num_frames
        return over >= 0 and over % self.stride_frames == 0

    def _check(self, frames: Sequence[np.ndarray], states: Sequence[StreamState]) -> None:
        expected = (self.classifier.spec.height, self.classifier.spec.width, 3)
        for frame in frames:
            if frame.dtype != np.uint8 or not self._fits(frame.shape):
                raise InputMismatchError(
                    f"frame is {frame.dtype} {frame.shape}; expected uint8 {expected}: resize it by the spec"
                )
        if len(frames) != len(states):
            raise InputMismatchError(f"{len(frames)} frames but {len(states)} states; expected one a stream")

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether a frame has the spec's size; one that waits for its crop has any."""
        spec = self.classifier.spec
        if spec.follows_motion:
            return len(shape) == 3 and shape[2] == 3 and 0 not in shape
        return shape == (spec.height, spec.width, 3)

    def _new_strategy(self, runtime: Runtime, folder: Path | None) -> _Strategy:
        classifier = self.classifier
        if classifier.spec.follows_motion:
            self.notes += (
                f"the crop follows the motion of the last {classifier.spec.num_frames} frames, so each answer "
                "looks at all of them anew",
            )
            return _Cropping(classifier, runtime)
        if self.state_policy == "clip":
            return _Sliding(classifier, runtime)
        gap = None if self.state_policy == "carry" else _gap_frames(classifier)
        rows = 1 if gap is None else 1 + math.ceil(classifier.spec.num_frames / gap)
        runner: StepRunner | None = None
        on_cpu = classifier.device.type == "cpu"
        if runtime == "onnx" and not on_cpu:
            raise SettingError(f"runtime 'onnx' steps on the CPU, got device {classifier.device}; use 'torch'")
        if runtime == "onnx" or (runtime == "auto" and on_cpu):
            try:
                size = (classifier.spec.height, classifier.spec.width)
                runner = exported_step(classifier, rows=rows, size=size, folder=folder)
            except NotExportedError as error:
                if runtime == "onnx":
                    raise
                self.notes += (f"torch runs the step: {error}",)
        if runner is None:
            runner = TorchStep(classifier.model, rows=rows, device=classifier.device)
        return _Stepping(runner, classifier.spec, gap=gap)


def _gap_frames(classifier: Classifier) -> int:
    """Return how many frames apart a stream's states begin: fewer where a state more costs hardly anything."""
    num_frames = classifier.spec.num_frames
    return math.ceil(num_frames / _SHARED_STATES) if isinstance(classifier.model, FrameModel) else num_frames


def _span_notes(spec: ClipSpec) -> tuple[str, ...]:
    """Say where a classifier that learnt whole clips of very different lengths meets all of them cut to one."""
    spans = spec.trained_spans
    if spec.num_frames == 1 or spec.fps is not None or spans is None or not spans.shortest_seconds > 0:
        return ()
    if spans.longest_seconds < _VARIED_SPANS * spans.shortest_seconds:
        return ()
    fps = (spec.num_frames - 1) / spans.shortest_seconds
    return (
        f"it learnt whole clips of {spans.shortest_seconds:.1f} to {spans.longest_seconds:.1f} s, and live it "
        f"sees {spans.median_seconds:.1f} s at a time; where it answers worse than on clips, train it with "
        f"--sampling window --fps {max(1, round(fps))}",
    )


def _whole_clip_reason(classifier: Classifier) -> str | None:
    """Say why a classifier cannot take a stream frame by frame; None where it can."""
    if classifier.spec.follows_motion:
        return "its crop follows the motion of a whole clip"
    return None if classifier.model.can_step else str(classifier.model.head.needs_whole_clip)


def _frame_tensor(frames: Sequence[np.ndarray], spec: ClipSpec) -> Tensor:
    """Turn one frame of each of N streams into ``(N, C, H, W)``."""
    return _stacked([pixels_tensor(frame[None, None], spec)[0, 0] for frame in frames])


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack; on the CPU by numpy: torch's threads, once awake, spin and take ONNX Runtime's cores."""
    if len(tensors) == 1:
        return tensors[0][None]
    if tensors[0].device.type != "cpu":
        return torch.stack(list(tensors))
    return torch.from_numpy(np.stack([x.numpy() for x in tensors]))


class _Stepping:
    """States that the model's step carries on; where they begin ``gap`` frames apart they take turns."""

    def __init__(self, runner: StepRunner, spec: ClipSpec, *, gap: int | None) -> None:
        self.runner, self.spec, self.num_frames, self.gap = runner, spec, spec.num_frames, gap
        self.runtime: Literal["torch", "onnx"] = runner.runtime
        self._initial = runner.initial()
        self._rows = len(self._initial[0])

    def start(self) -> StreamState:
        return StreamState(0, self._initial, tuple(-(self.gap or 0) * row for row in range(self._rows)))

    def advance(self, frames: Sequence[np.ndarray], states: Sequence[StreamState]) -> list[StreamState]:
        begun = [self._begun_afresh(state) for state in states]
        memory = [_stacked(parts) for parts in zip(*(state.memory for state in begun), strict=True)]
        logits, after = self.runner(_frame_tensor(frames, self.spec), memory)
        rows = logits.float().cpu().numpy()
        return [self._next(state, rows[i], tuple(x[i] for x in after)) for i, state in enumerate(begun)]

    def answers(self, states: Sequence[StreamState]) -> list[np.ndarray]:
        return [cast(np.ndarray, state.logits) for state in states]

    def _begun_afresh(self, state: StreamState) -> StreamState:
        """Empty the rows whose time is over, or whose turn it is to begin."""
        if self.gap is None:
            return state
        over = [age == 0 or age >= self._rows * self.gap for age in state.ages]
        if not any(over):
            return state
        memory = tuple(
            _stacked([new if done else old for old, new, done in zip(kept, empty, over, strict=True)])
            for kept, empty in zip(state.memory, self._initial, strict=True)
        )
        ages = tuple(0 if done else age for age, done in zip(state.ages, over, strict=True))
        return replace(state, memory=memory, ages=ages)

    def _next(self, state: StreamState, logits: np.ndarray, memory: _Memory) -> StreamState:
        ages = tuple(age + 1 for age in state.ages)
        ripe = [age for age in ages if age >= self.num_frames]
        row = ages.index(min(ripe) if ripe else max(ages))
        return StreamState(state.num_frames + 1, memory, ages, logits=logits[row].copy())


class _Sliding:
    """The last T frames as one clip; what is computed of a frame alone is computed once."""

    def __init__(self, classifier: Classifier, runtime: Runtime) -> None:
        self.classifier = classifier
        self.runtime: Literal["torch", "onnx"] = "torch"
        self._frames: FrameScorer = TorchFrames(classifier.model, classifier.device)
        if runtime == "onnx" and classifier.onnx_path is None:
            raise SettingError(
                "runtime is 'onnx' but this classifier has no exported per-frame part; use 'auto' or 'torch'"
            )
        if runtime != "torch" and classifier.onnx_path is not None:
            self.runtime, self._frames = "onnx", OnnxFrames(classifier.onnx_path)

    def start(self) -> StreamState:
        return StreamState(0, ())

    def advance(self, frames: Sequence[np.ndarray], states: Sequence[StreamState]) -> list[StreamState]:
        tensor = _frame_tensor(frames, self.classifier.spec)
        features = self._frames(tensor[:, None])[:, 0]
        return [self._next(state, features[i]) for i, state in enumerate(states)]

    def _next(self, state: StreamState, newest: Tensor) -> StreamState:
        keep = self.classifier.spec.num_frames - 1
        return StreamState(state.num_frames + 1, (*state.memory[max(0, len(state.memory) - keep) :], newest))

    def answers(self, states: Sequence[StreamState]) -> list[np.ndarray]:
        if not states:
            return []
        clips = torch.stack([torch.stack(state.memory) for state in states])
        return list(self.classifier.logits_of_features(clips))


class _Cropping(_Sliding):
    """The last T frames as large pictures, cropped to their motion and looked at anew for each answer."""

    def advance(self, frames: Sequence[np.ndarray], states: Sequence[StreamState]) -> list[StreamState]:
        pairs = zip(frames, states, strict=True)
        return [self._next(state, torch.from_numpy(np.ascontiguousarray(frame))) for frame, state in pairs]

    def answers(self, states: Sequence[StreamState]) -> list[np.ndarray]:
        if not states:
            return []
        spec = self.classifier.spec
        clips = [clip_pixels([frame.numpy() for frame in state.memory], spec) for state in states]
        return list(self.classifier.logits_of_features(self._frames(pixels_tensor(np.stack(clips), spec))))
