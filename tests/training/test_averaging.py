"""Averages of weights, beside the same sums done by hand."""

import pytest
import torch
from torch import nn

from vidette.errors import SettingError
from vidette.training.averaging import WeightAverage
from vidette.training.recipe import TrainSettings


def tiny():
    return nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))


def put(model, value):
    """Set all weights and running means to ``value``."""
    for tensor in (*model.parameters(), model[1].running_mean):
        tensor.data.fill_(value)


def test_ema_is_the_sum_by_hand():
    model = tiny()
    average = WeightAverage(model, TrainSettings(ema_decay=0.5), epochs=3)
    assert average.model is None
    values = [1.0, 4.0, -2.0, 7.0, 3.0, 3.0, 5.0, 9.0, 2.0]
    expected = values[0]
    for n, value in enumerate(values):
        put(model, value)
        average.after_step()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = value if n == 0 else decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.model[0].weight, torch.full((3, 3), expected))
        torch.testing.assert_close(average.model[1].running_mean, torch.full((3,), expected))
        assert model[0].weight[0, 0].item() == value


def test_swa_is_the_mean_of_the_late_epochs_with_statistics_of_its_own():
    model = tiny()
    average = WeightAverage(model, TrainSettings(swa_start=0.5), epochs=6)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(32, 3, generator=generator) for _ in range(4)]
    for epoch, value in enumerate([100.0, 100.0, 100.0, 1.0, 2.0, 6.0]):
        put(model, value)
        average.after_step()
        average.after_epoch(epoch, iter(batches))
        assert (average.model is None) == (epoch < 3)
    torch.testing.assert_close(average.model[0].weight, torch.full((3, 3), 3.0))
    mean = torch.cat(batches).sum(1).mean() * 3.0
    torch.testing.assert_close(average.model[1].running_mean, mean.expand(3), rtol=1e-4, atol=1e-5)


def test_frozen_batchnorm_keeps_its_statistics_in_swa():
    model = tiny()
    average = WeightAverage(model, TrainSettings(swa_start=0.5, freeze_batchnorm=True), epochs=2)
    put(model, 0.25)
    average.after_epoch(1, iter([torch.rand(8, 3)]))
    assert average.model[1].running_mean.tolist() == [0.25] * 3


@pytest.mark.parametrize("settings", [{"ema_decay": 0.9}, {"swa_start": 0.1}], ids=str)
def test_an_average_goes_on_from_its_state(settings):
    def course(values, *, state=None):
        model = tiny()
        average = WeightAverage(model, TrainSettings(**settings), epochs=4)
        average.load_state_dict(state)
        for value in values:
            put(model, value)
            average.after_step()
            average.after_epoch(3, iter([torch.ones(4, 3)]))
        return average

    whole = course([1.0, 5.0, 2.0, 8.0])
    resumed = course([2.0, 8.0], state=course([1.0, 5.0]).state_dict())
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


def test_no_average_where_none_is_asked():
    average = WeightAverage(tiny(), TrainSettings(), epochs=4)
    average.after_step()
    average.after_epoch(3, iter([]))
    assert average.model is None
    assert average.state_dict() is None


def test_two_averages_at_once_are_refused():
    with pytest.raises(SettingError, match="leave one of them out"):
        TrainSettings(ema_decay=0.9, swa_start=0.5)
