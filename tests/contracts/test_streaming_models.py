"""What every model with a step keeps: frame by frame it gives the clip's own answer."""

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from vidette.classifier.onnx import open_session
from vidette.errors import InputMismatchError, SettingError
from vidette.models import MODELS, build_model

K, T, SIZE = 4, 6, 32

STEPPING = {
    **{name: (name, {}) for name in ("frame_cnn", "cnn_rnn", "cnn_lstm", "cnn_gru")},
    **{name: (name, {}) for name in ("shift", "transformer", "conv3d_causal")},
    **{name: (name, {}) for name in ("keras_frame_cnn", "keras_cnn_lstm")},
    "frame_cnn max": ("frame_cnn", {"pooling": "max"}),
    "frame_cnn attention": ("frame_cnn", {"pooling": "attention"}),
    "cnn_lstm stacked last": ("cnn_lstm", {"layers": 2, "readout": "last", "difference": False}),
    "cnn_gru attention": ("cnn_gru", {"readout": "attention"}),
    "shift resnet18": ("shift", {"backbone": "resnet18", "shift_fraction": 0.25}),
    "shift lite0 stages": (
        "shift",
        {"backbone": "tf_efficientnet_lite0", "shift_places": "stages", "pooling": "attention"},
    ),
    "transformer short memory": ("transformer", {"attention_frames": 3, "readout": "last"}),
    "conv3d_causal max": ("conv3d_causal", {"pooling": "max", "grid": 1}),
    "frame_cnn difference": ("frame_cnn", {"input": "difference"}),
    "cnn_gru rgb+difference": ("cnn_gru", {"input": "rgb+difference"}),
    "shift difference": ("shift", {"input": "difference"}),
    "transformer rgb+difference": ("transformer", {"input": "rgb+difference"}),
    "conv3d_causal rgb+difference": ("conv3d_causal", {"input": "rgb+difference"}),
}
WHOLE_CLIPS = {
    **{name: (name, {}) for name in ("conv3d_small", "r3d_18", "mc3_18", "r2plus1d_18", "s3d")},
    "keras_conv3d": ("keras_conv3d", {}),
    "change": ("change", {"backbone": "small"}),
    "flow_fisher": ("flow_fisher", {"words": 8}),
    "cnn_tcn": ("cnn_tcn", {"backbone": "small"}),
    "cnn_gru motion": ("cnn_gru", {"input": "motion", "backbone": "small"}),
    "cnn_gru bidirectional": ("cnn_gru", {"bidirectional": True, "backbone": "small"}),
    "shift both ways": ("shift", {"causal": False, "backbone": "small"}),
    "transformer both ways": ("transformer", {"causal": False, "backbone": "small"}),
    "conv3d_small difference": ("conv3d_small", {"input": "difference"}),
}


@pytest.fixture(scope="module", params=STEPPING)
def model(request, awaken):
    return awaken(*STEPPING[request.param], num_classes=K, shape=(T, SIZE, SIZE))


@pytest.fixture(scope="module")
def clips():
    """Noise that grows brighter, so that no two frames are alike to any model."""
    noise = torch.rand(2, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(0.1, 2.0, T).view(1, T, 1, 1, 1)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def stepped(model, clips):
    state, answers = model.initial_state(len(clips)), []
    for frame in clips.unbind(1):
        logits, state = model.step(frame, state)
        answers.append(logits)
    return torch.stack(answers, 1), state


def test_the_two_lists_hold_the_whole_table():
    assert {name for name, _ in (STEPPING | WHOLE_CLIPS).values()} == set(MODELS)


def test_each_step_answers_for_the_frames_so_far(model, clips):
    assert model.can_step
    answers, _ = stepped(model, clips)
    prefixes = torch.stack([model(clips[:, : t + 1]) for t in range(T)], 1)
    assert (answers - prefixes).abs().max() <= 1e-4
    assert (prefixes[:, -1] - prefixes[:, 0]).abs().max() > 1e-2, "answers that never differ test nothing"


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_end_with_the_clips_answer(model, clips, chunk):
    state = model.initial_state(2)
    for start in range(0, T, chunk):
        answers, state = model.steps(clips[:, start : start + chunk], state)
        assert answers.shape == (2, min(chunk, T - start), K)
    assert (answers[:, -1] - model(clips)).abs().max() <= 1e-4


def test_two_interleaved_streams_do_not_mix(model, clips):
    alone = [stepped(model, clip[None])[0] for clip in clips]
    states, answers = [model.initial_state(1), model.initial_state(1)], [[], []]
    for frames in clips.unbind(1):
        for i, frame in enumerate(frames):
            logits, states[i] = model.step(frame[None], states[i])
            answers[i].append(logits)
    for i in range(2):
        assert torch.equal(torch.stack(answers[i], 1), alone[i])


def test_streams_are_joined_and_parted_along_the_first_axis_of_the_state(model, clips):
    """Several sources over one model: every tensor of a state has the streams first."""
    _, both = stepped(model, clips[:, :4])
    parts = [tree_map(lambda tensor, i=i: tensor[i : i + 1], both) for i in range(2)]
    together, _ = model.step(clips[:, 4], both)
    apart = torch.cat([model.step(clips[i : i + 1, 4], parts[i])[0] for i in range(2)])
    assert (together - apart).abs().max() <= 1e-5


def test_a_state_is_a_value(model, clips):
    """Steps do not change it, and it shares no memory with the frames or with another state."""
    _, state = stepped(model, clips[:, :3])
    kept = tree_map(torch.clone, state)
    frame = clips[:, 3].clone()
    first, after = model.step(frame, state)
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(state), tree_leaves(kept), strict=True))
    expected, _ = model.step(clips[:, 4], after)
    for tensor in (frame, first, *tree_leaves(state)):
        tensor.fill_(1e3)
    assert torch.equal(model.step(clips[:, 4], after)[0], expected)
    again, _ = model.step(clips[:, 3], kept)
    assert torch.isfinite(again).all()


def test_features_may_come_from_elsewhere(model, clips):
    """Where a backbone looks at frames alone, ONNX Runtime may compute what the head steps over."""
    features, state = model.frame_features(clips), model.head.initial_state(2)
    for one in features.unbind(1):
        logits, state = model.head.step(one, state)
    assert (logits - model(clips)).abs().max() <= 1e-4


def test_the_state_does_not_grow(model, clips):
    _, state = stepped(model, clips)
    first = tree_leaves(model.initial_state(2))
    assert [x.shape for x in tree_leaves(state)] == [x.shape for x in first]
    assert [x.dtype for x in tree_leaves(state)] == [x.dtype for x in first]


def test_a_clip_is_not_a_frame(model, clips):
    with pytest.raises(InputMismatchError, match="one frame of each stream"):
        model.step(clips, model.initial_state(2))


@pytest.mark.parametrize("variant", WHOLE_CLIPS)
def test_the_others_say_that_they_have_no_step(variant):
    name, options = WHOLE_CLIPS[variant]
    model = build_model(name, num_classes=K, num_frames=8, height=SIZE, width=SIZE, options=options)
    assert not model.can_step
    for call in (model.initial_state, lambda: model.step(torch.zeros(1, 3, SIZE, SIZE), ())):
        with pytest.raises(SettingError, match=f"model {name} has no step: .*sliding windows"):
            call()


class Step(torch.nn.Module):
    """A step with its state as a flat list, as an exporter wants it."""

    def __init__(self, model, layout):
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, frame, *flat):
        logits, state = self.model.step(frame, tree_unflatten(flat, self.layout))
        return logits, *tree_leaves(state)


@pytest.mark.parametrize(
    "variant", ["cnn_lstm stacked last", "shift difference", "transformer", "conv3d_causal"]
)
def test_a_step_exports_to_onnx_with_its_state(variant, clips, tmp_path, awaken):
    model = awaken(*STEPPING[variant], num_classes=K, shape=(T, SIZE, SIZE))
    flat, layout = tree_flatten(model.initial_state(2))
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        Step(model, layout),
        (clips[:, 0], *flat),
        dynamo=True,
        dynamic_shapes=({0: batch}, tuple({0: batch} for _ in flat)),
        verbose=False,
    )
    program.save(tmp_path / "step.onnx", external_data=False)
    session = open_session(tmp_path / "step.onnx")
    names = [given.name for given in session.get_inputs()]
    assert len(names) == 1 + len(flat)
    for n in (2, 1):
        state = [tensor.numpy() for tensor in tree_leaves(model.initial_state(n))]
        for frame in clips[:n].unbind(1):
            logits, *state = session.run(None, dict(zip(names, [frame.numpy(), *state], strict=True)))
        assert (torch.from_numpy(logits) - model(clips[:n])).abs().max() <= 1e-4
