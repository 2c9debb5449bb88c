"""The loss equals torch's where torch has it, and focal loss follows its formula."""

import pytest
import torch
from torch.nn import functional

from vidette.training.losses import ClipLoss, class_weights
from vidette.training.recipe import TrainSettings

LOGITS = 3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(40) % 5
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.1, 3.0])


def mean_loss(weights=WEIGHTS, **settings):
    loss = ClipLoss(weights, TrainSettings(**settings))
    return loss(LOGITS, loss.one_hot(CLASSES)).sum() / loss.total_weight(CLASSES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [{}, {"loss": "focal", "focal_gamma": 0.0}], ids=str)
def test_it_is_torchs_cross_entropy_with_weights_and_smoothing(kind, smoothing):
    expected = functional.cross_entropy(LOGITS, CLASSES, weight=WEIGHTS, label_smoothing=smoothing)
    torch.testing.assert_close(mean_loss(label_smoothing=smoothing, **kind), expected)


def test_focal_loss_weighs_a_clip_by_how_wrong_it_is():
    p = LOGITS.softmax(1)[torch.arange(40), CLASSES]
    expected = ((1 - p) ** 2.5 * -p.log()).mean()
    value = mean_loss(torch.ones(5), loss="focal", focal_gamma=2.5, label_smoothing=0.0)
    torch.testing.assert_close(value, expected)
    assert value < mean_loss(torch.ones(5), label_smoothing=0.0)


def test_focal_loss_has_a_finite_gradient_where_the_answer_is_certain():
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    loss = ClipLoss(torch.ones(2), TrainSettings(loss="focal", focal_gamma=0.5))
    loss(logits, loss.one_hot(torch.tensor([0, 0]))).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_a_mixed_label_has_the_mean_of_both_losses():
    loss = ClipLoss(WEIGHTS, TrainSettings())
    one, other = loss.one_hot(CLASSES), loss.one_hot((CLASSES + 1) % 5)
    mixed = loss(LOGITS, 0.3 * one + 0.7 * other)
    torch.testing.assert_close(mixed, 0.3 * loss(LOGITS, one) + 0.7 * loss(LOGITS, other))


def test_class_weights_balance_a_rare_class():
    weights = class_weights([0] * 9 + [1], TrainSettings(), num_classes=2)
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 5.0]))
    for off in ({"class_weights": False}, {"balanced_sampling": True}):
        assert class_weights([0, 1, 1], TrainSettings(**off), num_classes=3).tolist() == [1, 1, 1]
    assert torch.isfinite(class_weights([0, 0, 1], TrainSettings(), num_classes=3)).all()
