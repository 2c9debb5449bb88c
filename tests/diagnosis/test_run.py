"""One fault at a time is planted; the first finding names it, and what is healthy is called so."""

import copy
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vidette.diagnosis.alternatives import value_alternatives
from vidette.diagnosis.run import diagnose
from vidette.errors import InputMismatchError
from vidette.video.clip import ClipSpec

_spec = importlib.util.spec_from_file_location("diagnosis_conftest", Path(__file__).with_name("conftest.py"))
drawing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(drawing)


def names(found):
    return [finding.name for finding in found.findings if finding.severity != "note"]


def changed(source, change):
    pixels, labels = source
    return drawing.material([np.clip(change(p.astype(float)), 0, 255).astype(np.uint8) for p in pixels], labels)


@pytest.mark.parametrize("labelled", [True, False])
def test_healthy_clips_are_called_healthy(subject, source, labelled):
    pixels, labels = source
    found = diagnose(subject, drawing.material(pixels, labels if labelled else ()))
    assert found.healthy, found.to_dict()["findings"]
    assert [finding.name for finding in found.findings] == ["order_not_used"]  # a note: it averages by design


PICTURES = {
    "dark": lambda p: p * 0.15,
    "noisy": lambda p: p + np.random.default_rng(0).normal(0, 45, p.shape),
    "rotated": lambda p: np.rot90(p, 2, axes=(1, 2)),
    "colour_order": lambda p: p[..., ::-1],
    "black": lambda p: 0 * p,
    "covered": lambda p: 0 * p + 120,
    "frames_identical": lambda p: np.repeat(p[:1], len(p), axis=0),
}


@pytest.mark.parametrize("cause", PICTURES)
def test_faults_of_the_pictures(subject, source, cause):
    assert names(diagnose(subject, changed(source, PICTURES[cause])))[0] == cause


def test_what_brightening_brings_back_is_dark_and_what_it_does_not_is_black(subject, source):
    pixels, labels = source
    dimmed = changed(source, lambda p: 0.04 * p)
    assert names(diagnose(subject, dimmed))[0] == "dark"
    half = drawing.material([0 * p if i % 2 else p for i, p in enumerate(pixels)], labels)
    assert names(diagnose(subject, half))[0] == "black"


def test_darkness_comes_before_the_movement_that_it_hides(subject, source):
    """In few levels neighbouring frames are equal; that follows from the darkness."""
    found = diagnose(subject, changed(source, lambda p: 0.15 * np.repeat(p[:1], len(p), axis=0)))
    assert names(found)[:2] == ["dark", "frames_identical"]
    assert "dark" in found.findings[1].symptom_of


@pytest.mark.parametrize("cause", ["dark", "colour_order"])
def test_activations_alone_tell_without_labels(subject, source, cause):
    made = dataclasses.replace(changed(source, PICTURES[cause]), label_names=())
    assert cause in names(diagnose(subject, made))[:1]


def values(scale, shift):
    return lambda x: x * scale + shift


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
VALUES = {
    "normalisation_missing": values(STD, MEAN),
    "normalisation_doubled": values(1 / STD, -MEAN / STD),
    "value_range": lambda x: ((x * STD + MEAN) * 255 - MEAN) / STD,
}


@pytest.mark.parametrize(
    ("cause", "labelled"),
    [("normalisation_missing", True), ("normalisation_doubled", False), ("value_range", False)],
)
def test_faults_of_the_values(subject, source, with_network, cause, labelled):
    pixels, labels = source
    faulty = with_network(drawing.Before(subject.module, VALUES[cause]))
    found = diagnose(faulty, drawing.material(pixels, labels if labelled else ()))
    assert names(found)[0] == cause
    assert found.findings[0].explains > 0.5


def test_caffes_values_in_a_plain_network_are_among_what_is_undone():
    pixels = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = ClipSpec(num_frames=2, height=8, width=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    undone = [
        a
        for a in value_alternatives(plain)
        if torch.allclose(a.change((pixels - MEAN) * 255), pixels, atol=1e-4)
    ]
    assert [a.cause for a in undone] == ["normalisation_of_another_network"]


class Remembers(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.last = inner, None
        self.eval()

    def forward(self, x):
        logits = self.inner(x)
        mixed = logits if self.last is None else 0.5 * logits + 0.5 * self.last
        self.last = logits[-1:].clone()
        return mixed


class OverBatch(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.eval()

    def forward(self, x):
        rows = [self.inner(x)[0]]
        for row in self.inner(x)[1:]:
            rows.append(0.5 * rows[-1] + 0.5 * row)
        return torch.stack(rows)


def training_mode(module):
    return copy.deepcopy(module).train()


def refilled(module, *, only_head):
    new = copy.deepcopy(module)
    torch.manual_seed(5)
    for part in [new.head.classify] if only_head else list(new.modules()):
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return new


def with_bias(module):
    new = copy.deepcopy(module)
    with torch.no_grad():
        new.head.classify.bias[1] += 30
    return new


def dead(module):
    new = copy.deepcopy(module)
    norm = [part for part in new.modules() if isinstance(part, nn.BatchNorm2d)][-1]
    nn.init.constant_(norm.bias, -50.0)
    return new


def scaled(module):
    new = copy.deepcopy(module)
    with torch.no_grad():
        new.head.classify.weight.mul_(80)
    return new


NETWORKS = {
    "state_carried_over": Remembers,
    "batch_recurrence": OverBatch,
    "training_mode": training_mode,
    "weights_not_loaded": lambda module: refilled(module, only_head=False),
    "head_random": lambda module: refilled(module, only_head=True),
    "bias_driven": with_bias,
    "dead_features": dead,
    "saturated_logits": scaled,
}


@pytest.mark.parametrize("cause", NETWORKS)
def test_faults_of_the_network(subject, source, with_network, cause):
    made = drawing.material(*source)
    assert names(diagnose(with_network(NETWORKS[cause](subject.module)), made))[0] == cause


def test_a_head_that_is_often_right_is_not_called_new(subject, source, with_network):
    """Trained weights may fit a new layer's rule by chance; its answers then tell."""
    clips = drawing.material(*source)
    x, wanted = subject.prepare(clips.clips), clips.labels(subject.classes)
    rights = {}
    for seed in range(60):
        module = copy.deepcopy(subject.module)
        torch.manual_seed(seed)
        module.head.classify.reset_parameters()
        rights[(with_network(module).logits(x).argmax(1) == wanted).mean()] = module
    for right in (min(rights), max(rights)):
        found = diagnose(with_network(rights[right]), clips)
        assert ("head_random" in names(found)) == (right < 0.75)
    assert min(rights) < 0.75 <= max(rights)


def test_class_names_in_another_order_or_number(subject, source):
    made = drawing.material(*source)
    turned = dataclasses.replace(subject, classes=(*subject.classes[1:], subject.classes[0]))
    assert names(diagnose(turned, made))[0] == "label_map_permuted"
    longer = dataclasses.replace(subject, classes=(*subject.classes, "background"))
    assert names(diagnose(longer, made))[0] == "label_map_length"


def test_classes_that_were_never_seen(subject, source):
    pixels, labels = source
    given = tuple("green" if i % 3 == 0 else label for i, label in enumerate(labels))
    assert names(diagnose(subject, drawing.material(pixels, given)))[0] == "unseen_class"


def test_wrong_answers_without_a_cause_are_not_called_healthy(subject, source):
    pixels, labels = source
    order = np.random.default_rng(0).permutation(len(labels))
    wrong = list(labels)
    for i in order[: round(0.6 * len(labels))]:  # labels at random, which no permutation of the names undoes
        wrong[i] = subject.classes[int(np.random.default_rng(i).integers(len(subject.classes)))]
    modest = dataclasses.replace(subject, network=lambda x: 0.1 * subject.network(x))  # not over-confident
    found = diagnose(modest, drawing.material(pixels, wrong))
    assert names(found) == ["errors_unexplained"]
    accuracy = found.findings[0].numbers["accuracy"]
    weak = dataclasses.replace(modest, statistics={**subject.statistics, "validation_accuracy": 0.3})
    random = [
        subject.classes[int(k)]
        for k in np.random.default_rng(1).integers(len(subject.classes), size=len(labels))
    ]
    assert accuracy < 0.7
    assert names(diagnose(weak, drawing.material(pixels, random))) == ["weak_classifier"]


def test_a_stream_that_turns_dark_is_told_with_its_time(subject, source):
    pixels, _ = source
    stream = [pixels[0] if i < 8 else (pixels[0] * 0.2).astype(np.uint8) for i in range(16)]
    found = diagnose(subject, drawing.material(stream, in_time=True))
    drift = next(finding for finding in found.findings if finding.name == "drift")
    assert drift.numbers["began_seconds"] == 24.0
    assert found.findings[0] is drift


def test_clips_of_training_in_the_source_leak(subject, source):
    pixels, labels = source
    training = drawing.material(*drawing.drawn(18, 1))
    mixed = [*pixels[:9], *[clip.pixels for clip in training.clips[:9]]]
    reference = dataclasses.replace(training, name="training")
    made = drawing.material(mixed, (*labels[:9], *training.label_names[:9]))
    assert names(diagnose(subject, made, reference=reference)) == ["train_test_leak"]


def test_another_take_of_a_still_scene_is_no_leak(subject):
    """A scene in which little moves looks the same in every take; only a copy moves alike."""
    rng = np.random.default_rng(5)
    scenes = rng.uniform(60, 200, (12, 1, 4, 4, 3)).repeat(drawing.SIZE // 4, 2).repeat(drawing.SIZE // 4, 3)

    def take(scene):
        pixels = scene.repeat(drawing.FRAMES, axis=0)
        for t, (row, column) in enumerate(rng.integers(0, drawing.SIZE - 4, (drawing.FRAMES, 2))):
            pixels[t, row : row + 4, column : column + 4] += 6
        return np.clip(pixels, 0, 255).astype(np.uint8)

    first, second = ([take(scene) for scene in scenes] for _ in range(2))
    noisy = [np.clip(p + rng.normal(0, 1, p.shape), 0, 255).astype(np.uint8) for p in first]
    reference = dataclasses.replace(drawing.material(first), name="training")
    assert "train_test_leak" not in names(diagnose(subject, drawing.material(second), reference=reference))
    assert "train_test_leak" in names(diagnose(subject, drawing.material(noisy), reference=reference))


def test_frames_out_of_order(source):
    from vidette.diagnosis.subject import Subject
    from vidette.video.clip import ClipSpec

    pixels = [np.zeros((8, 32, 32, 3), np.uint8) + 40 for _ in range(6)]
    for clip in pixels:
        for t in range(8):
            clip[t, 8:20, 2 * t : 2 * t + 12] = 200
    mixed = [np.ascontiguousarray(p[[5, 0, 3, 7, 1, 6, 2, 4]]) for p in pixels]
    probe = Subject(
        name="mean",
        network=lambda x: x[:, -1].mean((2, 3))[:, :2],
        spec=ClipSpec(num_frames=8, height=32, width=32),
        classes=("a", "b"),
    )
    assert "frames_shuffled" in names(diagnose(probe, drawing.material(mixed)))
    assert "frames_shuffled" not in names(diagnose(probe, drawing.material(pixels)))


def test_the_random_numbers_of_the_caller_are_left_alone(subject, source):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    diagnose(subject, drawing.material(source[0][:6]))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda x: 1 / 0, "ZeroDivisionError"),
        (lambda x: x, "expected class scores"),
        (lambda x: x.mean((1, 2, 3, 4), keepdim=False)[:, None], "two or more"),
        (lambda x: torch.full((len(x), 3), float("nan")), "finite"),
    ],
)
def test_what_cannot_be_diagnosed_is_one_clear_error(subject, source, network, said):
    broken = dataclasses.replace(subject, network=network, module=None)
    with pytest.raises(InputMismatchError, match=said):
        diagnose(broken, drawing.material(*source))
