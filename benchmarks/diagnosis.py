"""Does `vidette diagnose` name the cause? Faults are planted and the first finding is held against them.

Four architectures (frame CNN, CNN + GRU, 3-D CNN, Keras), drawn clips and, with VIDETTE_DATA, real ones; as
many healthy cases as sick ones. A fault of the clips that changes no more than a twentieth of the answers, and
is called healthy, is counted apart. Thresholds were chosen on the kinds marked `tune` in diagnosis_faults.py,
with seeds 0, 4 and 5 on drawn clips, 3 to 5 on real ones (`--split tune`); what counts are other seeds.

    python benchmarks/diagnosis.py [--seeds 6 7] [--data motion things people] [--only "dark"]
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from diagnosis_faults import FAULTS, Fault, NativeClips, Patient, marked, one_of_each

from vidette.classifier.classifier import Classifier
from vidette.diagnosis.material import Material
from vidette.diagnosis.run import diagnose
from vidette.diagnosis.subject import Subject, subject_of_classifier
from vidette.diagnosis.wording import CAUSES
from vidette.evaluation.calibration import fit_temperature
from vidette.evaluation.reference import reference_statistics
from vidette.models import build_model
from vidette.video.clip import ClipSpec, SpanRange
from vidette.video.motion import draw_clip
from vidette.video.transforms import pixels_tensor

DATA = Path(os.environ.get("VIDETTE_DATA", "../shared/data"))
SIZE, FRAMES = 48, 8
LEAST_ACCURACY = 0.75
MOTION = ("left", "right", "up", "approach")
THINGS = ("blue down", "blue up", "red down", "red up")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def drawn_motion(num: int, seed: int) -> NativeClips:
    """Motion in warm light under a bright sky, so that colour and uprightness matter to the activations."""
    frames, fps, labels = [], [], []
    for i in range(num):
        label = MOTION[i % len(MOTION)]
        clip = draw_clip(i // len(MOTION), label, seed=seed, size=(64, 80))
        sky = np.linspace(1.15, 0.75, 64)[:, None, None] * np.array([1.0, 0.85, 0.6])
        frames.append(np.clip(clip.frames * sky, 0, 255).astype(np.uint8))
        fps.append(clip.fps)
        labels.append(label)
    return NativeClips(tuple(frames), tuple(fps), tuple(labels))


def drawn_things(num: int, seed: int) -> NativeClips:
    """A red or blue arrow, up or down, drifting before sky and ground: what the pictures show is the class."""
    frames, labels = [], []
    rows, columns = np.mgrid[0:64, 0:80]
    for i in range(num):
        rng = np.random.default_rng((seed, i, 5))
        label = THINGS[i % len(THINGS)]
        colour = np.array([200, 40, 40] if label.startswith("red") else [40, 60, 200]) + rng.normal(0, 12, 3)
        horizon = rng.uniform(25, 45)
        sky = np.array([150, 180, 215]) + rng.normal(0, 15, 3)
        ground = np.array([110, 95, 60]) + rng.normal(0, 15, 3)
        texture = rng.normal(0, 10, (64, 80, 1))
        background = np.where((rows < horizon)[..., None], sky, ground) + texture
        x, y = rng.uniform(20, 60), rng.uniform(18, 46)
        dx, dy, size = rng.normal(0, 0.5), rng.normal(0, 0.4), rng.uniform(10, 15)
        clip = np.empty((16, 64, 80, 3), np.uint8)
        for t in range(16):
            v = (rows - y - dy * t) / size
            v = v if label.endswith("up") else -v
            inside = (v > -1) & (v < 0.8) & (np.abs(columns - x - dx * t) / size < (v + 1) / 1.9)
            picture = np.where(inside[..., None], colour, background) + rng.normal(0, 3, (64, 80, 1))
            clip[t] = np.clip(picture, 0, 255)
        frames.append(clip)
        labels.append(label)
    return NativeClips(tuple(frames), (12.0,) * num, tuple(labels))


@functools.lru_cache(maxsize=4)
def real_clips(labelled_by: str) -> NativeClips:
    """Gestures at 64x80, labelled by the person (what the pictures show)."""
    from vidette.data.manifest import read_manifest
    from vidette.video.reader import open_video

    manifest = read_manifest(DATA / "gestures" / "gestures.csv")
    spec = ClipSpec(num_frames=1, height=64, width=80)
    frames, fps, labels = [], [], []
    for i, clip in enumerate(manifest.clips):
        with open_video(clip.path) as video:
            pictures = np.stack([frame.pixels for frame in video.frames(spec)])
            rate = video.info.fps
        frames.append(pictures[:48])
        fps.append(rate)
        labels.append(manifest.group_of(i) if labelled_by == "person" else clip.label)
    return NativeClips(tuple(frames), tuple(fps), tuple(labels))


def people(num: int, seed: int) -> NativeClips:
    native = real_clips("person")
    order = np.random.default_rng((17, seed // 1000)).permutation(len(native))
    cut = {0: order[:128], 1: order[128:152], 2: order[152:184], 3: order[184:]}[seed % 1000]
    return native.take(cut[:num])


def part(data: str, which: str, seed: int) -> NativeClips:
    """Training, validation or source clips, or more for training; no two share a scene."""
    if data == "people":
        return people(10**6, 1000 * seed + {"train": 0, "validation": 1, "source": 2, "more": 3}[which])
    draw = drawn_motion if data == "motion" else drawn_things
    number = {"train": 240 if data == "motion" else 160, "validation": 48, "source": 32}[which]
    return draw(number, 3 * seed + {"train": 1000, "validation": 1001, "source": 1002}[which])


ARCHITECTURES = {
    "frame_cnn": ("frame_cnn", {"backbone": "small"}, False),
    "cnn_gru": ("cnn_gru", {"backbone": "small", "grid": 4, "hidden": 64, "readout": "last"}, True),
    "conv3d": ("conv3d_small", {}, True),
    "keras": ("keras_conv3d", {}, True),
}


def train(
    architecture: str,
    native: NativeClips,
    validation: NativeClips,
    *,
    seed: int,
    epochs: int,
    classes=None,
    augment: bool = True,
) -> Classifier:
    name, options, _ = ARCHITECTURES[architecture]
    mean, std = IMAGENET if seed % 2 == 0 or architecture != "keras" else ((0.0,) * 3, (1.0,) * 3)
    spec = ClipSpec(num_frames=FRAMES, height=SIZE, width=SIZE, mean=mean, std=std)
    classes = classes or tuple(sorted(set(native.labels)))
    torch.manual_seed(seed)
    shape = {"num_frames": FRAMES, "height": SIZE, "width": SIZE}
    model = build_model(name, num_classes=len(classes), options=options, **shape)
    clips = native.cut(spec)
    x = torch.from_numpy(np.stack([clip.pixels for clip in clips]))
    y = torch.tensor([classes.index(label) for label in native.labels])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    slow = architecture == "keras"  # has no batch normalisation
    epochs = 2 * epochs if slow else epochs
    steps = epochs * -(-len(x) // 16)
    rate = 2e-3 if slow else 4e-3
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for places in torch.randperm(len(x), generator=generator).split(16):
            if len(places) < 2:
                schedule.step()
                continue
            batch = pixels_tensor(x[places], spec)
            if augment:
                shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
                batch = batch.roll(shift, (3, 4)) * (
                    1 + 0.1 * torch.randn(len(batch), 1, 1, 1, 1, generator=generator)
                )
            loss = nn.functional.cross_entropy(model(batch), y[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    spans = np.array([clip.span_seconds for clip in clips])
    spec = dataclasses.replace(
        spec, trained_spans=SpanRange(float(spans.min()), float(np.median(spans)), float(spans.max()))
    )
    classifier = Classifier(model, name, options, spec, classes)
    held = validation.cut(spec)
    logits = np.concatenate([classifier.logits(held[i : i + 8]) for i in range(0, len(held), 8)])
    truth = np.array([classes.index(label) for label in validation.labels])
    classifier.temperature = fit_temperature(logits, truth)
    statistics = {
        "training_clips": dict(collections.Counter(native.labels)),
        "validation_accuracy": float((logits.argmax(1) == truth).mean()),
        "reference": reference_statistics(classifier, held).to_dict(),
    }
    classifier.training_statistics = json.loads(json.dumps(statistics))
    return classifier


EPOCHS = {"motion": 14, "things": 40, "people": 20}


def patient(architecture: str, data: str, seed: int, cache: Path | None) -> Patient:
    native, validation = part(data, "train", seed), part(data, "validation", seed)
    made = functools.partial(cached, cache, architecture, data, seed)
    base = made("base", lambda: train(architecture, native, validation, seed=seed, epochs=EPOCHS[data]))
    uses_order = ARCHITECTURES[architecture][2] and data == "motion"
    classes = base.classes

    def weak() -> Subject:
        """Of several that are trained briefly, the one nearest to 60 % of its validation clips."""

        def trained() -> Classifier:
            few = native.take(range(len(native) // 3))
            tried = [
                train(architecture, few, validation, seed=seed, epochs=epochs, classes=classes)
                for epochs in (2, 3, 4, 6, 9, 14)
            ]
            return min(tried, key=lambda one: abs(one.training_statistics["validation_accuracy"] - 0.6))

        return subject_of_classifier(made("weak", trained))

    some = native.take(range(min(24, len(native))))

    def over_fitted() -> Subject:
        def trained() -> Classifier:
            few = one_of_each(some)
            return train(architecture, few, validation, seed=seed, epochs=100, augment=False, classes=classes)

        return subject_of_classifier(made("over", trained))

    def imbalanced() -> Subject:
        wide = native.joined(part(data, "more", seed)) if data == "people" else native
        most = [i for i, label in enumerate(wide.labels) if label == classes[0]]
        rare = [next(i for i, label in enumerate(wide.labels) if label == name) for name in classes[1:]]
        few = wide.take([*most[:48], *rare])
        return subject_of_classifier(
            made(
                "imbalanced", lambda: train(architecture, few, validation, seed=seed, epochs=8, classes=classes)
            )
        )

    def shortcut() -> Subject:
        return subject_of_classifier(
            made(
                "shortcut",
                lambda: train(
                    architecture, marked(native, classes), marked(validation, classes), seed=seed, epochs=6
                ),
            )
        )

    extras = {"weak": weak, "imbalanced": imbalanced, "shortcut": shortcut}
    if data != "people":  # one clip each is enough to tell people before their backgrounds apart
        extras["over_fitted"] = over_fitted
    subject = subject_of_classifier(base, name=f"{architecture} on {data}, seed {seed}")
    return Patient(subject.name, subject, part(data, "source", seed), some, uses_order, extras)


def cached(folder: Path | None, architecture: str, data: str, seed: int, kind: str, make) -> Classifier:
    if folder is None:
        return make()
    place = folder / f"{architecture}-{data}-{seed}-{kind}"
    if not place.exists():
        make().save(place, onnx=False)
    return Classifier.load(place, runtime="torch")


def fits(fault: Fault, architecture: str, data: str, patient: Patient) -> bool:
    """Whether a fault can be seen at all in this patient."""
    return {
        "": True,
        "frames": True,
        "order": patient.uses_order,
        "direction": data == "motion" and patient.uses_order,
        "colour": True,
        "framing": data != "motion",
        "normalised": any(patient.subject.spec.mean),
        "any size": architecture in ("frame_cnn", "cnn_gru"),
    }.get(fault.needs, fault.needs in patient.extras)


@dataclasses.dataclass
class Score:
    first: int = 0
    three: int = 0
    n: int = 0
    harmless: int = 0
    seconds: list = dataclasses.field(default_factory=list)
    sick: int = 0
    healthy: int = 0


SAME_ANSWERS = 0.95


def does_no_harm(patient: Patient, fault: Fault, subject: Subject, material: Material) -> bool:
    """Whether a fault of the clips or their order leaves the answers as they were."""
    healthy = patient.material()
    if CAUSES[fault.accepted[0]].family not in ("input", "time") or len(material.clips) != len(healthy.clips):
        return False
    before = patient.subject.logits(patient.subject.prepare(healthy.clips)).argmax(1)
    after = subject.logits(subject.prepare(material.clips)).argmax(1)
    return float((before == after).mean()) >= SAME_ANSWERS


def run(patient: Patient, fault: Fault, seed: int, score: Score, verbose: bool) -> bool | None:
    """Plant a fault and count what is found; None where it did no harm and nothing was found."""
    subject, material, reference = fault.plant(patient, seed)
    found = diagnose(subject, material, reference=reference)
    names = [finding.name for finding in found.findings if finding.severity != "note"]
    if not names and does_no_harm(patient, fault, subject, material):
        score.harmless += 1
        print(f"  --  {patient.name}: {fault.name}: no harm done, called healthy", flush=True)
        return None
    first, three = bool(set(names[:1]) & set(fault.accepted)), bool(set(names[:3]) & set(fault.accepted))
    score.n, score.first, score.three = score.n + 1, score.first + first, score.three + three
    score.seconds.append(found.seconds)
    if verbose or not first:
        print(
            f"  {'ok ' if first else '3  ' if three else 'NO '} {patient.name}: {fault.name}: {names[:5]} "
            f"({found.facts.get('right answers', '')}, {found.facts['activations'][:5]})",
            flush=True,
        )
        if verbose:
            for finding in found.findings[:4]:
                numbers = {k: round(v, 2) for k, v in finding.numbers.items()}
                weight = f"{finding.explains:.2f} {finding.confidence:.2f}"
                print("        ", finding.name, weight, finding.symptom_of[:3], numbers)
    return first


def healthy_case(patient: Patient, variant: int, score: Score) -> None:
    """Healthy clips in several samples: labelled or not, with a reference or without, fewer clips."""
    rng = np.random.default_rng((variant, 99))
    number = int(rng.integers(min(16, len(patient.source)), len(patient.source) + 1))
    native = patient.source.take(sorted(rng.choice(len(patient.source), number, replace=False)))
    material = patient.material(native)
    if variant % 3 == 2:
        material = dataclasses.replace(material, label_names=())
    found = diagnose(patient.subject, material, reference=patient.reference() if variant % 2 else None)
    score.healthy += 1
    score.seconds.append(found.seconds)
    if not found.healthy:
        score.sick += 1
        worst = found.findings[0]
        print(
            f"  SICK {patient.name} ({variant}): {[f.name for f in found.findings if f.severity != 'note']} "
            f"{ {k: round(v, 2) for k, v in worst.numbers.items()} } "
            f"{found.facts.get('right answers', '')}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("tune", "test"), default="test")
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    parser.add_argument("--data", nargs="+", default=None, choices=("motion", "things", "people"))
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), choices=list(ARCHITECTURES))
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--cache", type=Path, default=None, help="Keep trained classifiers here.")
    parser.add_argument("--healthy", type=int, default=None, help="Cases a patient; as many as sick ones.")
    parser.add_argument("--untrained", action="store_true", help="Leave out faults that need another training.")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    seeds = given.seeds or ([0] if given.split == "tune" else [6, 7])
    data = given.data or (["motion", "things"] if given.split == "tune" else ["motion", "things", "people"])
    score, kinds = Score(), collections.defaultdict(list)
    by = collections.defaultdict(Score)
    for source in data:
        if source == "people" and not (DATA / "gestures").is_dir():
            print(f"people: skipped, {DATA / 'gestures'} is not there (set VIDETTE_DATA)")
            continue
        for architecture in given.architectures:
            if architecture == "frame_cnn" and source == "motion":
                continue
            for seed in seeds:
                begun = time.perf_counter()
                one = patient(architecture, source, seed, given.cache)
                accuracy = one.subject.statistics["validation_accuracy"]
                took = time.perf_counter() - begun
                print(f"{one.name}: validation accuracy {accuracy:.0%}, {took:.0f} s", flush=True)
                if accuracy < LEAST_ACCURACY:
                    print("  left out: it is not healthy itself")
                    continue
                count = 0
                for fault in FAULTS:
                    if given.untrained and fault.needs in one.extras:
                        continue
                    if given.only and not any(text in fault.name for text in given.only):
                        continue
                    if (given.split == "tune" and not fault.tune) or not fits(fault, architecture, source, one):
                        continue
                    first = run(one, fault, seed, score, given.verbose)
                    if first is None:
                        continue
                    kinds[fault.name].append(first)
                    by[source, architecture].n += 1
                    by[source, architecture].first += first
                    count += 1
                for variant in range(given.healthy if given.healthy is not None else count):
                    healthy_case(one, variant, score)
    report(score, kinds, by, {fault.name: fault.tune for fault in FAULTS})


def report(score: Score, kinds, by, tuned) -> None:
    print()
    for name, results in kinds.items():
        apart = "" if tuned[name] else "kind kept apart"
        print(f"{name:28s} first {sum(results):3d} of {len(results):3d}   {apart}")
    for (source, architecture), part_score in by.items():
        print(f"{source:8s} {architecture:10s} first {part_score.first} of {part_score.n}")
    for held, name in ((False, "kinds kept apart"), (True, "kinds chosen on")):
        results = [r for kind, rs in kinds.items() for r in rs if tuned[kind] == held]
        if results:
            share = f"{sum(results)} of {len(results)} ({np.mean(results):.1%})"
            print(f"{name}: first finding is the cause in {share}")
    if score.n:
        first, three = score.first / score.n, score.three / score.n
        print(f"all: first {first:.1%}, among three {three:.1%} of {score.n} sick cases, {len(kinds)} kinds")
    if score.harmless:
        first = score.first / (score.n + score.harmless)
        print(
            f"left out above: {score.harmless} planted faults that changed at most "
            f"{1 - SAME_ANSWERS:.0%} of the answers and were called healthy; "
            f"first {first:.1%} with these as misses"
        )
    if score.healthy:
        print(f"healthy called sick: {score.sick} of {score.healthy} ({score.sick / score.healthy:.1%})")
    if score.seconds:
        print(f"seconds a diagnosis: median {np.median(score.seconds):.1f}, longest {max(score.seconds):.1f}")


if __name__ == "__main__":
    main()
