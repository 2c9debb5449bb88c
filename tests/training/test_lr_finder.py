"""The learning-rate finder: a rate that learns, on a model that stays as it was."""

import pytest
import torch
from torch import nn

from vidette.errors import ClassifierError, SettingError
from vidette.training.lr_finder import RateSearch, find_learning_rate
from vidette.training.recipe import TrainSettings


class Points:
    """Two classes of points, apart along every axis; their scale decides which rate is right."""

    def __init__(self, scale=1.0):
        generator = torch.Generator().manual_seed(0)
        self.labels = [i % 2 for i in range(40)]
        self.x = scale * (
            torch.randn(40, 6, generator=generator) + torch.tensor(self.labels).view(-1, 1) * 2 - 1
        )

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return self.x[index], self.labels[index]

    def set_epoch(self, epoch):
        pass


def search(data=None, **more):
    torch.manual_seed(2)
    model = nn.Linear(6, 2)
    settings = TrainSettings(optimizer="sgd", batch_size=8, accelerator="cpu", gradient_clip=0.0)
    kind = {"lowest": 1e-6, "highest": 100.0, "num_steps": 60, **more}
    return model, find_learning_rate(
        model, data or Points(), settings, prepare=lambda x: x, num_classes=2, **kind
    )


def test_the_suggestion_is_where_the_loss_falls_and_the_model_is_not_changed():
    model, found = search()
    torch.manual_seed(2)
    assert torch.equal(model.weight, nn.Linear(6, 2).weight)
    assert len(found.rates) == len(found.losses)
    assert found.rates[0] == pytest.approx(1e-6)
    ratios = {round(b / a, 6) for a, b in zip(found.rates, found.rates[1:], strict=False)}
    assert len(ratios) == 1
    assert 1e-3 < found.suggestion < 3.0
    assert found.losses[found.rates.index(found.suggestion)] < found.losses[0]
    assert search()[1] == found


def test_points_ten_times_as_large_ask_for_a_smaller_rate():
    assert search(Points(10.0))[1].suggestion < 0.2 * search()[1].suggestion


def test_the_search_ends_where_the_loss_explodes():
    _, found = search(Points(10.0), highest=1e6, num_steps=100)
    assert len(found.rates) < 100


def test_clips_that_are_not_finite_are_named():
    data = Points()
    data.x[:] = float("nan")
    with pytest.raises(SettingError, match="the loss became nan"):
        search(data)


@pytest.mark.parametrize("wrong", [{"lowest": 0.0}, {"highest": 1e-7}, {"num_steps": 5}])
def test_a_range_that_cannot_be(wrong):
    with pytest.raises(SettingError, match="expected 0 < lowest < highest"):
        search(**wrong)


def test_what_was_found_is_read_as_it_was_written(tmp_path):
    found = search()[1]
    found.write(tmp_path / "rate.json")
    assert RateSearch.read(tmp_path / "rate.json") == found
    (tmp_path / "rate.json").write_text("{}")
    with pytest.raises(ClassifierError, match="cannot be read"):
        RateSearch.read(tmp_path / "rate.json")


@pytest.mark.parametrize(("epochs", "steps"), [(1, 30), (32, 40), (1000, 100)])
def test_a_search_is_short_beside_the_run(epochs, steps):
    data = Points()
    torch.manual_seed(2)
    settings = TrainSettings(batch_size=8, accelerator="cpu", epochs=epochs)
    found = find_learning_rate(
        nn.Linear(6, 2), data, settings, prepare=lambda x: x, num_classes=2, highest=1e-3
    )
    assert len(found.rates) == steps
