"""Dense optical flow against movements that are known, and the counting of movements."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.models.flow_fisher import Codebook, FlowDescriptors
from vidette.models.optical_flow import dense_flow


def texture(size=96, *, seed=0):
    noise = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return 8 * F.avg_pool2d(F.pad(noise, (3,) * 4, mode="circular"), 7, 1) - 4


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, -2), (3, 2), (-5, 3)])
def test_flow_is_the_shift_of_a_textured_picture(right, down):
    before = texture()
    after = torch.roll(before, (down, right), dims=(2, 3))
    inner = dense_flow(before, after)[0, :, 10:-10, 10:-10]
    assert inner.flatten(1).median(1).values.tolist() == pytest.approx([right, down], abs=0.25)


def test_flow_of_each_picture_does_not_depend_on_the_others():
    before, after = torch.cat([texture(), texture(seed=1)]), torch.cat([texture(seed=2), texture(seed=1)])
    together = dense_flow(before, after)
    assert together.shape == (2, 2, 48, 48)
    assert torch.allclose(together[1:], dense_flow(before[1:], after[1:]), atol=1e-5)
    assert together[1].abs().max() < 1e-3


def moving_patch(step, frames=16, size=64):
    clip = torch.zeros(1, frames, 1, size, size)
    patch = texture(16)[0, 0]
    first = torch.zeros(size, size)
    first[8:24, 8:24] = patch
    for t in range(frames):
        clip[0, t, 0] = torch.roll(first, step * t, dims=1)
    return clip


def test_descriptions_tell_a_direction_and_count_only_what_moves():
    describe = FlowDescriptors()
    described, places, counted = describe(moving_patch(2))
    assert described.shape[-1] == FlowDescriptors.size == 288
    assert (described >= 0).all()
    moving = counted[0, :, 0] > 0
    assert 20 <= moving.sum() < 0.7 * len(moving)
    assert places[0, moving, 1].max() < 0.3, "the patch moves in the upper part"
    directions = described[0, moving].mean(0)[:96].view(12, 8).sum(0)
    assert directions.argmax() == 0, "to the right"
    back, _, counted = describe(moving_patch(-2))
    assert back[0, counted[0, :, 0] > 0].mean(0)[:96].view(12, 8).sum(0).argmax() == 4


def test_halves_count_their_own_pieces():
    _, _, counted = FlowDescriptors()(moving_patch(2, frames=32))
    whole, early, late = counted[0].unbind(-1)
    assert torch.equal(whole, early + late)
    assert early.sum() > 0
    assert late.sum() > 0


def test_a_fisher_vector_is_the_gradient_of_the_mixture():
    """Against automatic differentiation of the log-likelihood, before root and length."""
    torch.manual_seed(0)
    book = Codebook(6, projection=3, words=4)
    described, places, counted = torch.rand(1, 50, 6), torch.rand(1, 50, 2) - 0.5, torch.ones(1, 50, 1)
    x = book._projected(described, places)[0].double()
    means, spreads = book.means.double().requires_grad_(), book.spreads.double().requires_grad_()
    log = torch.distributions.Normal(means, spreads).log_prob(x[:, None]).sum(-1) + book.weights.double().log()
    log.logsumexp(1).mean().backward()
    root = book.weights.double().sqrt()[:, None]
    expected = torch.cat(
        [means.grad * spreads / root, spreads.grad * spreads / (root * 2**0.5)], dim=1
    ).flatten()
    expected = expected.detach().sign() * expected.detach().abs().sqrt()
    got = book(described, places, counted)[0, 0].double()
    assert got.norm() == pytest.approx(10, abs=1e-3)
    assert torch.nn.functional.cosine_similarity(got, expected, dim=0) > 0.9999


def test_a_learnt_codebook_is_the_same_again_and_few_clips_are_enough():
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model("flow_fisher", num_classes=2, num_frames=8, height=32, width=32)
        model.head.learn_codebook(iter([moving_patch(2, 8, 32)]))
        models.append(model)
    first, second = (model.head.codebook.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in first.values())


def test_a_clip_in_which_nothing_moves_is_answered():
    model = build_model("flow_fisher", num_classes=2, num_frames=8, height=32, width=32).eval()
    with torch.no_grad():
        assert torch.isfinite(model(torch.zeros(1, 8, 3, 32, 32))).all()


@pytest.mark.parametrize("kind", ["difference", "rgb+difference", "motion"])
def test_another_input_than_pictures_is_refused(kind):
    with pytest.raises(SettingError, match="finds the movement in pictures itself"):
        build_model("flow_fisher", num_classes=2, num_frames=8, height=32, width=32, options={"input": kind})


def test_options_out_of_range_are_refused():
    with pytest.raises(SettingError, match="projection 300; expected 1 to 288"):
        build_model(
            "flow_fisher", num_classes=2, num_frames=8, height=32, width=32, options={"projection": 300}
        )
