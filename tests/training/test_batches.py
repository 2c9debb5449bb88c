"""Batches: labels stay with their clips, classes are balanced as asked, mixing is drawn from its seed alone."""

from collections import Counter

import pytest
import torch

from vidette.training.batches import BatchMix, evaluation_batches, in_groups, training_batches
from vidette.training.recipe import AugmentSettings, TrainSettings


class Numbered:
    """Clip i is filled with the number i."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.full((2, 4, 4, 3), index, dtype=torch.uint8), self.labels[index]

    def set_epoch(self, epoch):
        pass


LABELS = [0] * 30 + [1] * 8 + [2] * 3


def epoch_of(seed=0, **settings):
    torch.manual_seed(seed)
    batches = list(training_batches(Numbered(LABELS), TrainSettings(batch_size=8, **settings)))
    numbers = torch.cat([inputs[:, 0, 0, 0, 0] for inputs, _ in batches]).tolist()
    return numbers, torch.cat([classes for _, classes in batches]).tolist()


@pytest.mark.parametrize("balanced", [False, True])
def test_a_label_stays_with_its_clip_and_the_order_is_the_seeds(balanced):
    numbers, classes = epoch_of(balanced_sampling=balanced)
    assert classes == [LABELS[number] for number in numbers]
    assert epoch_of(balanced_sampling=balanced)[0] == numbers
    assert epoch_of(1, balanced_sampling=balanced)[0] != numbers


def test_an_epoch_has_every_clip_once():
    """41 clips in batches of 8: the last one would be alone, and is left out."""
    numbers, _ = epoch_of()
    assert len(numbers) == len(set(numbers)) == 40


def test_balanced_sampling_draws_every_class_equally_often_and_clips_of_a_class_too():
    met = set()
    for seed in range(20):
        numbers, classes = epoch_of(seed, balanced_sampling=True)
        counts = Counter(classes)
        assert len(numbers) == 40
        assert max(counts.values()) - min(counts.values()) <= 2  # one odd clip, one left out
        for label, members in ((1, range(30, 38)), (2, range(38, 41))):
            times = [numbers.count(clip) for clip in members]
            assert max(times) - min(times) <= 2
            assert sum(times) == counts[label]
        met |= set(numbers)
    assert met == set(range(41))


def test_balanced_sampling_of_more_classes_than_clips_it_has():
    data = Numbered([0, 5, 9])
    batches = list(training_batches(data, TrainSettings(balanced_sampling=True)))
    assert sorted(batches[0][1].tolist()) == [0, 5, 9]


def test_validation_keeps_all_clips_in_order_and_loader_processes_change_nothing():
    for workers in (0, 2):
        settings = TrainSettings(batch_size=8, num_workers=workers, balanced_sampling=True)
        batches = list(evaluation_batches(Numbered(LABELS), settings))
        assert torch.cat([inputs[:, 0, 0, 0, 0] for inputs, _ in batches]).tolist() == list(range(41))
        assert batches[0][0].dtype == torch.uint8
        assert torch.cat([classes for _, classes in batches]).tolist() == LABELS


def test_groups_take_all_batches():
    assert [len(group) for group in in_groups([(torch.zeros(1), torch.zeros(1))] * 7, 3)] == [3, 3, 1]


# Mixing: clip i is filled with i, so that the share of its neighbour can be read off.


def mixed(number=0, *, epoch=0, seed=0, **settings):
    inputs = torch.arange(1.0, 7.0).view(6, 1, 1, 1, 1).expand(6, 3, 2, 8, 8).contiguous()
    labels = torch.eye(6)
    return BatchMix(AugmentSettings(**settings), seed=seed)(inputs, labels, epoch=epoch, number=number)


@pytest.mark.parametrize("settings", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}], ids=str)
def test_labels_are_mixed_as_the_pictures_are(settings):
    changed = 0
    for number in range(12):
        inputs, labels = mixed(number, **settings)
        assert type(inputs) is torch.Tensor
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
        torch.testing.assert_close(inputs.mean((1, 2, 3, 4)), labels @ torch.arange(1.0, 7.0))
        assert all(torch.equal(inputs[:, 0], inputs[:, t]) for t in range(3))
        changed += not torch.equal(labels, torch.eye(6))
    assert changed >= 8


def test_cutmix_is_a_box_and_mixup_a_blend():
    for number in range(12):
        own = mixed(number, cutmix=1.0)[0][2, 0, 0] == 3
        outside = own.all(dim=0)[None] | own.all(dim=1)[:, None]
        assert torch.equal(own, outside)
    blended = mixed(3, mixup=1.0)[0][2].unique()
    assert len(blended) == 1
    assert 2 <= float(blended) <= 3


def test_mixing_depends_on_seed_epoch_and_number_alone():
    def share(**where):
        return mixed(mixup=1.0, cutmix=1.0, **where)[1][0, 0].item()

    reference = share(number=3, epoch=2, seed=1)
    state = torch.random.get_rng_state()
    assert share(number=3, epoch=2, seed=1) == reference
    assert torch.equal(torch.random.get_rng_state(), state)
    others = [
        share(number=4, epoch=2, seed=1),
        share(number=3, epoch=3, seed=1),
        share(number=3, epoch=2, seed=2),
    ]
    assert reference not in others


def test_without_mixing_a_batch_stays_as_it_is():
    inputs, labels = mixed()
    assert torch.equal(labels, torch.eye(6))
    assert inputs[2].unique().tolist() == [3.0]
