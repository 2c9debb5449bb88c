"""Untouched weights are told from trained ones, whatever filled them."""

import pytest
import torch
from torch import nn

from vidette.diagnosis.weight_checks import layer_states


def filled(fill):
    torch.manual_seed(0)
    layer = nn.Linear(64, 32)
    fill(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@pytest.mark.parametrize(
    "fill",
    [
        nn.init.xavier_uniform_,
        nn.init.kaiming_uniform_,
        nn.init.xavier_normal_,
        lambda w: nn.init.normal_(w, std=0.02),
    ],
)
def test_initialisations_are_known(fill):
    assert layer_states(filled(fill))[0].untouched


def test_default_layers_are_new_and_a_few_steps_change_that():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.Flatten(), nn.LazyLinear(4))
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    net(x[:2].clone())
    net[1].reset_running_stats()
    assert [state.untouched for state in layer_states(net)] == [True, True]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert [state.untouched for state in layer_states(net)] == [False, False]


def test_a_recurrence_that_was_never_trained():
    assert layer_states(nn.GRU(16, 32))[0].untouched
    trained = nn.GRU(16, 32)
    with torch.no_grad():
        trained.weight_hh_l0.mul_(1.3)
    assert not layer_states(trained)[0].untouched


def test_weights_and_bias_of_different_rules_are_trained_ones():
    """Trained weights of a small head pass for one of many rules sooner or later; the bias must fit too."""
    torch.manual_seed(0)
    head = nn.Linear(64, 4)
    nn.init.uniform_(head.weight, -((3 / 64) ** 0.5), (3 / 64) ** 0.5)
    assert not layer_states(head)[0].untouched
    nn.init.zeros_(head.bias)
    assert layer_states(head)[0].untouched


def test_small_layers_are_not_judged():
    assert not layer_states(nn.Linear(2, 2))[0].untouched
