"""What ``vidette info`` and ``vidette models`` know."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidette.classifier.classifier import Classifier
from vidette.data.layouts import LayoutOptions, read_layout
from vidette.errors import VidetteError
from vidette.evaluation.reference import find_reference
from vidette.models import MODELS, VideoModel, build_model, model_options
from vidette.video.reader import probe

__all__ = ["describe", "model_rows"]


def describe(path: Path, *, layout: str | None = None, options: LayoutOptions | None = None) -> dict[str, Any]:
    """Return facts about a video, labelled clips in any layout, a run or a classifier.

    Args:
        path: What it is about.
        layout: Of labelled clips; recognised where it is plain.
        options: What their files do not say; of a video, which stream.

    Raises:
        VidetteError: It is none of them, or damaged.
    """
    if str(path) == "imagenet" or (path / "classifier.json").is_file() or (path / "classifier").is_dir():
        return _classifier_facts(path)
    options = options or LayoutOptions()
    if path.is_dir() or layout or path.suffix.lower() in (".csv", ".tsv", ".txt", ".json"):
        manifest = read_layout(path, layout=layout, options=options, min_classes=1)
        return {"kind": "labelled clips", "source": str(path), **_manifest_facts(manifest.describe())}
    facts = {"kind": "video", **dataclasses.asdict(probe(path, stream=options.stream))}
    return {name: str(value) if isinstance(value, Path) else value for name, value in facts.items()}


def _manifest_facts(lines: tuple[str, ...]) -> dict[str, Any]:
    return {str(i + 1): line for i, line in enumerate(lines)}


def _classifier_facts(path: Path) -> dict[str, Any]:
    classifier = Classifier.load(path)
    facts: dict[str, Any] = {
        "kind": "run" if (path / "recipe.toml").is_file() else "classifier",
        "model": classifier.model_name,
        "options": dict(classifier.model_options),
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
        "spec": repr(classifier.spec),
        "classes": list(classifier.classes)
        if len(classifier.classes) <= 50
        else f"{len(classifier.classes)} classes",
        "temperature": classifier.temperature,
        "runtime": classifier.runtime,
    }
    if classifier.spec.trained_spans:
        facts["trained spans (s)"] = dataclasses.asdict(classifier.spec.trained_spans)
    facts.update(classifier.training_statistics)
    reference = find_reference(classifier)
    if reference is not None:
        facts["reference"] = repr(reference)  # thousands of numbers
    results = path / "evaluation.json"
    if results.is_file():
        try:
            facts["test accuracy"] = json.loads(results.read_text(encoding="utf-8"))["test"]["metrics"][
                "accuracy"
            ]
        except (ValueError, KeyError) as error:
            raise VidetteError(f"{results} is damaged ({error}); run vidette evaluate {path}") from error
    return facts


_FRAMES, _SIDE = 16, 112


def model_rows() -> list[dict[str, Any]]:
    """Return one row a model, at its defaults, 16 frames of 112x112 and 10 classes.

    Built without memory for the weights, so that the whole family is counted in a moment.
    """
    rows: list[dict[str, Any]] = []
    for name, kind in MODELS.items():
        with torch.device("meta"):
            model = build_model(name, num_classes=10, num_frames=_FRAMES, height=_SIDE, width=_SIDE)
        rows.append(
            {
                "name": name,
                "what": kind.summary,
                "parameters": sum(p.numel() for p in model.parameters()),
                "gflops_per_clip": _gflops(model),
                "uses_order": kind.uses_order,
                "streaming": model.can_step,
                "backbone": "any timm CNN" if "backbone" in model_options(name) else "none",
                "weights_offline": kind.weights_offline,
                "weights_download": kind.weights_download,
                "licence": kind.licence,
            }
        )
    return rows


def _gflops(model: VideoModel) -> float:
    """Return 10^9 floating-point operations of one clip, a multiplication and an addition counted as two."""
    clip = torch.zeros(1, _FRAMES, 3, _SIDE, _SIDE, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(clip)
    return counter.get_total_flops() / 1e9
