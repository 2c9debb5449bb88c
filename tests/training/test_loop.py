"""The loop: chosen on validation, resumable to the same weights, errors with names."""

import json
import math

import pytest
import torch

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.training.loop import fit
from vidette.training.recipe import TrainSettings


class Noise:
    """Clips whose class is their brightness; augmentation depends on (epoch, index) only."""

    def __init__(self, count=24, seed=0, flip_labels=False):
        generator = torch.Generator().manual_seed(seed)
        self.labels = [i % 2 for i in range(count)]
        self.x = torch.rand(count, 4, 3, 16, 16, generator=generator) + torch.tensor(self.labels).view(
            -1, 1, 1, 1, 1
        )
        self.flip_labels = flip_labels
        self.epoch = 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        noise = torch.randn(1, generator=torch.Generator().manual_seed(self.epoch * 1000 + index))
        label = 1 - self.labels[index] if self.flip_labels else self.labels[index]
        return self.x[index] + 0.1 * noise, label

    def set_epoch(self, epoch):
        self.epoch = epoch


class KilledError(Exception):
    pass


def run(
    folder, *, epochs=4, kill_after=None, validation=None, model=None, resume=False, smoke=False, **settings
):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(7)
    model = model or build_model("conv3d_small", num_classes=2, num_frames=4, height=16, width=16)
    values = {"accelerator": "cpu", "batch_size": 8, "early_stopping": 0, "learning_rate": 1e-3, **settings}

    def on_epoch(record, total):
        if kill_after is not None and record.epoch + 1 == kill_after:
            raise KilledError

    data = Noise()
    result = fit(
        model,
        data,
        validation or Noise(8, seed=1),
        TrainSettings(epochs=epochs, **values),
        prepare=lambda batch: batch,
        labels=data.labels,
        folder=folder,
        resume=resume,
        smoke=smoke,
        on_epoch=on_epoch,
    )
    return model, result


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_run_resumes_to_the_same_weights(schedule, optimizer, tmp_path):
    whole, first = run(tmp_path / "a", schedule=schedule, optimizer=optimizer)
    with pytest.raises(KilledError):
        run(tmp_path / "b", kill_after=2, schedule=schedule, optimizer=optimizer)
    resumed, second = run(tmp_path / "b", resume=True, schedule=schedule, optimizer=optimizer)
    assert [r.epoch for r in second.history] == [0, 1, 2, 3]
    assert [r.train_loss for r in first.history] == [r.train_loss for r in second.history]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path):
    one, _ = run(tmp_path / "a", epochs=2)
    two, _ = run(tmp_path / "b", epochs=2)
    other, _ = run(tmp_path / "c", epochs=2, seed=1)
    assert all(torch.equal(one.state_dict()[n], v) for n, v in two.state_dict().items())
    assert not all(torch.equal(one.state_dict()[n], v) for n, v in other.state_dict().items())


def test_the_model_holds_the_weights_that_were_best_on_validation(tmp_path):
    """On validation with turned labels every epoch of learning is worse, so the best is an early one."""
    validation = Noise(8, seed=1, flip_labels=True)
    model, result = run(tmp_path / "a", epochs=6, learning_rate=3e-3, validation=validation)
    losses = [r.validation_loss for r in result.history]
    assert result.best_epoch == losses.index(min(losses)) < 5
    validation.set_epoch(5)
    x, y = zip(*[validation[i] for i in range(8)], strict=True)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(torch.stack(x)), torch.tensor(y))
    assert float(loss) < max(losses[3:])


def test_early_stopping_waits_as_long_as_asked(tmp_path):
    validation = Noise(8, seed=1, flip_labels=True)
    _, result = run(tmp_path / "a", epochs=30, learning_rate=3e-3, validation=validation, early_stopping=3)
    assert len(result.history) == result.best_epoch + 1 + 3


def test_it_learns_and_writes_one_line_an_epoch(tmp_path):
    _, result = run(tmp_path / "a", epochs=8, learning_rate=3e-3)
    assert result.history[-1].validation_accuracy == 1.0
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(8))
    assert all(math.isfinite(line["train_loss"]) for line in lines)


def test_smoke_is_one_batch_of_each_stage(tmp_path):
    _, result = run(tmp_path / "a", epochs=8, smoke=True)
    assert len(result.history) == 1
    assert len(result.validation_labels) == 8


def test_a_loss_that_explodes_is_named(tmp_path):
    with pytest.raises(SettingError, match="lower the learning rate"):
        run(tmp_path / "a", learning_rate=1e38, optimizer="sgd", gradient_clip=0.0, epochs=30)


def test_a_device_that_is_not_there_is_named(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SettingError, match="cannot train on gpu"):
        run(tmp_path / "a", accelerator="gpu")


def test_mixed_precision_runs_and_learns(tmp_path):
    # Not the 3-D CNN: torch 2.15's bfloat16 convolution on the CPU gives NaN gradients on 1x1 maps.
    model = build_model(
        "cnn_gru", num_classes=2, num_frames=4, height=16, width=16, options={"backbone": "small"}
    )
    _, result = run(tmp_path / "a", epochs=8, learning_rate=3e-3, precision="bf16-mixed", model=model)
    assert result.history[-1].validation_accuracy == 1.0


def test_class_weights_balance_a_rare_class(tmp_path):
    from vidette.training.loop import _class_weights

    weights = _class_weights([0] * 9 + [1], TrainSettings(), device=torch.device("cpu"))
    assert torch.allclose(weights, torch.tensor([10 / 18, 5.0]))
    assert _class_weights([0, 1], TrainSettings(class_weights=False), device=torch.device("cpu")) is None
