"""The loop: chosen on validation, resumable to the same weights, errors with names."""

import json
import math

import pytest
import torch

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.training.batches import BatchMix
from vidette.training.loop import fit
from vidette.training.recipe import AugmentSettings, TrainSettings


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine the threads of such small steps wait for one another most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    folder,
    *,
    epochs=4,
    kill_after=None,
    data=None,
    validation=None,
    model=None,
    resume=False,
    smoke=False,
    mix=None,
    on_foreseen=None,
    **settings,
):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(7)
    model = model or build_model("conv3d_small", num_classes=2, num_frames=4, height=16, width=16)
    values = {"accelerator": "cpu", "batch_size": 8, "early_stopping": 0, "learning_rate": 1e-3, **settings}

    def on_epoch(record, total):
        if kill_after is not None and record.epoch + 1 == kill_after:
            raise KilledError

    data = data or Noise()
    result = fit(
        model,
        data,
        validation or Noise(8, seed=1),
        TrainSettings(epochs=epochs, **values),
        prepare=lambda batch: batch,
        num_classes=2,
        folder=folder,
        mix=BatchMix(AugmentSettings(**(mix or {}))),
        resume=resume,
        smoke=smoke,
        on_epoch=on_epoch,
        on_foreseen=on_foreseen,
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


FINE_TUNED = {
    "ema": {"ema_decay": 0.9, "mix": {"mixup": 0.4, "cutmix": 1.0}, "accumulate": 2, "loss": "focal"},
    "swa": {"swa_start": 0.4, "balanced_sampling": True, "mix": {"mixup": 0.4}},
    "stages": {"unfreeze_epochs": 3, "layer_decay": 0.7, "freeze_batchnorm": True, "ema_decay": 0.9},
}


def small_gru():
    torch.manual_seed(5)
    options = {"backbone": "small", "grid": 1, "hidden": 8}
    return build_model("cnn_gru", num_classes=2, num_frames=4, height=16, width=16, options=options)


@pytest.mark.parametrize("name", FINE_TUNED)
@pytest.mark.parametrize("kill_after", [1, 3])
def test_a_killed_run_with_averages_mixing_and_stages_resumes_to_the_same_weights(name, kill_after, tmp_path):
    settings = FINE_TUNED[name]
    whole, first = run(tmp_path / "a", model=small_gru(), **settings)
    with pytest.raises(KilledError):
        run(tmp_path / "b", model=small_gru(), kill_after=kill_after, **settings)
    resumed, second = run(tmp_path / "b", model=small_gru(), resume=True, **settings)
    assert [r.train_loss for r in first.history] == [r.train_loss for r in second.history]
    assert torch.equal(first.validation_logits, second.validation_logits)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("settings", [{}, *FINE_TUNED.values()], ids=["plain", *FINE_TUNED])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(settings, tmp_path):
    one, _ = run(tmp_path / "a", epochs=2, model=small_gru(), **settings)
    torch.rand(3)
    two, _ = run(tmp_path / "b", epochs=2, model=small_gru(), **settings)
    other, _ = run(tmp_path / "c", epochs=2, model=small_gru(), seed=1, **settings)
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


def test_the_last_weights_are_kept_where_asked(tmp_path):
    validation = Noise(8, seed=1, flip_labels=True)
    _, result = run(tmp_path / "a", epochs=6, learning_rate=3e-3, validation=validation, select_by="last")
    assert result.best_epoch == 5
    assert result.history[5].validation_loss > result.history[0].validation_loss


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


@pytest.mark.parametrize("settings", [{"ema_decay": 0.8}, {"swa_start": 0.5}], ids=str)
def test_the_answers_that_are_scored_are_those_of_the_averaged_weights_that_are_kept(settings, tmp_path):
    validation = Noise(8, seed=1)
    model, result = run(tmp_path / "a", validation=validation, **settings)
    with torch.no_grad():
        logits = model(torch.stack([validation[i][0] for i in range(8)]))
    torch.testing.assert_close(logits, result.validation_logits)
    plain, _ = run(tmp_path / "b")
    assert not torch.equal(model.head.net[2].weight, plain.head.net[2].weight)


def test_two_batches_of_four_learn_what_one_of_eight_does(tmp_path):
    """The second run sees the same clips in the same order; without BatchNorm the weights agree."""

    def learnt(folder, **settings):
        torch.manual_seed(3)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 3 * 16 * 16, 2))
        data = Noise(22)  # the last group is a batch of 4 and one of 2
        data.labels[:6] = [1] * 6  # 3 clips of one class to 1 of the other: weights differ from batch to batch
        return run(folder, data=data, model=model, optimizer="sgd", learning_rate=1e-4, **settings)

    whole, first = learnt(tmp_path / "a", batch_size=8)
    split, second = learnt(tmp_path / "b", batch_size=4, accumulate=2)
    torch.testing.assert_close(whole[1].weight, split[1].weight, rtol=1e-4, atol=1e-6)
    for one, two in zip(first.history, second.history, strict=True):
        assert one.train_loss == pytest.approx(two.train_loss, rel=1e-4)
        assert one.learning_rate == two.learning_rate
    apart, _ = learnt(tmp_path / "c", batch_size=4)
    assert not torch.allclose(whole[1].weight, apart[1].weight, rtol=1e-4, atol=1e-6)


def test_every_epoch_is_augmented_anew(tmp_path):
    """Training clips are told the epoch; a resumed run goes on with the next one."""
    told = []

    class Told(Noise):
        def set_epoch(self, epoch):
            told.append(epoch)
            super().set_epoch(epoch)

    with pytest.raises(KilledError):
        run(tmp_path / "a", data=Told(), kill_after=2)
    run(tmp_path / "a", data=Told(), resume=True)
    assert told == [0, 1, 2, 3]


def test_frozen_batchnorm_is_after_training_what_it_was(tmp_path):
    before = {name: value.clone() for name, value in small_gru().state_dict().items()}
    model, _ = run(tmp_path / "a", model=small_gru(), freeze_batchnorm=True)
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert {name for name in before if "running" in name} <= still
    assert "backbone.net.0.weight" not in still
    assert len(still) == 4 * 5


def test_the_time_to_train_is_foreseen_once(tmp_path):
    told = []
    run(tmp_path / "a", batch_size=4, epochs=3, on_foreseen=told.append)
    assert len(told) == 1
    assert told[0] > 0


def test_a_class_without_training_clips_has_a_weight(tmp_path):
    data = Noise(8)
    data.labels = [0] * 8
    _, result = run(tmp_path / "a", data=data, epochs=1)
    assert math.isfinite(result.history[0].train_loss)
