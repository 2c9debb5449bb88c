from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vidette.data.cache import ClipCache
from vidette.data.dataset import ClipDataset
from vidette.data.manifest import LabelledClip, read_manifest
from vidette.errors import InputMismatchError, VideoError
from vidette.video.augmentation import Augmentation
from vidette.video.clip import Clip, ClipSpec
from vidette.video.writer import write_video

SPEC = ClipSpec(num_frames=4, height=24, width=32)
CLASSES = ("a", "b", "c")
STRONG = Augmentation(crop_scale_min=0.3, flip=True, colour=0.5)


def read_still(clip: LabelledClip, spec: ClipSpec) -> Clip:
    """A textured picture that its file's content decides, the same in every frame."""
    generator = np.random.default_rng(list(clip.path.read_bytes()))
    picture = generator.integers(40, 200, (spec.height, spec.width, 3), dtype=np.uint8)
    return Clip(np.stack([picture] * spec.num_frames), np.arange(spec.num_frames, dtype=float))


@pytest.fixture
def clips(tmp_path):
    made = []
    for i in range(6):
        path = tmp_path / f"v{i}.mp4"
        path.write_bytes(bytes([i]))
        made.append(LabelledClip(path, CLASSES[i % 3]))
    return made


@pytest.fixture
def cache(tmp_path):
    return ClipCache(tmp_path / "cache", read=read_still)


def test_items_are_pixels_and_label(cache, clips):
    data = ClipDataset(clips, CLASSES, SPEC, cache)
    assert len(data) == 6
    for i, clip in enumerate(clips):
        pixels, label = data[i]
        assert pixels.dtype == torch.uint8
        assert tuple(pixels.shape) == (4, 24, 32, 3)
        assert np.array_equal(pixels.numpy(), read_still(clip, SPEC).pixels)
        assert label == i % 3


def test_labels_are_numbers_in_the_order_of_the_logits(cache, clips):
    assert ClipDataset(clips, ("c", "b", "a"), SPEC, cache).labels == [2, 1, 0, 2, 1, 0]
    assert ClipDataset(clips, (*CLASSES, "unseen"), SPEC, cache).labels == [0, 1, 2, 0, 1, 2]


def test_label_that_the_classes_lack(cache, clips):
    with pytest.raises(InputMismatchError, match=r"v2\.mp4: unknown label 'c'"):
        ClipDataset(clips, ("a", "b"), SPEC, cache)


def test_batches_of_a_loader(cache, clips):
    batches = list(DataLoader(ClipDataset(clips, CLASSES, SPEC, cache), batch_size=4))
    assert [tuple(pixels.shape) for pixels, _ in batches] == [(4, 4, 24, 32, 3), (2, 4, 24, 32, 3)]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 1, 2, 0, 1, 2]


# Augmentation.


def test_no_augmentation_changes_nothing_whatever_the_epoch(cache, clips):
    data = ClipDataset(clips, CLASSES, SPEC, cache)
    before = data[0][0]
    data.set_epoch(5)
    assert torch.equal(data[0][0], before)


def test_every_frame_of_a_clip_is_changed_alike(cache, clips):
    """The tutorial augmented each frame on its own, so that a still picture jumped about."""
    data = ClipDataset(clips, CLASSES, SPEC, cache, augmentation=STRONG)
    changed = 0
    for epoch in range(5):
        data.set_epoch(epoch)
        for i, clip in enumerate(clips):
            pixels = data[i][0]
            assert all(torch.equal(pixels[0], frame) for frame in pixels[1:])
            changed += not np.array_equal(pixels.numpy(), read_still(clip, SPEC).pixels)
    assert changed == 30


def test_augmentation_depends_on_seed_epoch_and_index_alone(cache, clips):
    def pixels(index=2, *, seed=1, epoch=3, warm=()):
        data = ClipDataset(clips, CLASSES, SPEC, cache, augmentation=STRONG, seed=seed)
        data.set_epoch(epoch)
        for i in warm:
            data[i]
        return data[index][0]

    reference = pixels()
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(pixels(warm=(5, 4, 2)), reference)
    assert not torch.equal(pixels(epoch=4), reference)
    assert not torch.equal(pixels(seed=2), reference)


def test_two_clips_of_one_epoch_are_changed_differently(cache, clips):
    twins = [clips[0], clips[0]]
    data = ClipDataset(twins, CLASSES, SPEC, cache, augmentation=STRONG)
    assert not torch.equal(data[0][0], data[1][0])


def test_augmentation_leaves_the_cache_as_it_was(cache, clips):
    original = read_still(clips[0], SPEC).pixels
    data = ClipDataset(clips, CLASSES, SPEC, cache, augmentation=STRONG)
    for epoch in range(3):
        data.set_epoch(epoch)
        data[0][0].zero_()
    assert np.array_equal(cache.load(clips[0], SPEC).pixels, original)


def test_loader_processes_give_the_same_items(cache, clips):
    data = ClipDataset(clips, CLASSES, SPEC, cache, augmentation=STRONG, seed=4)
    alone = torch.cat([pixels for pixels, _ in DataLoader(data, batch_size=2)])
    shared = torch.cat([pixels for pixels, _ in DataLoader(data, batch_size=2, num_workers=2)])
    assert torch.equal(alone, shared)


# Faults of the tutorial, end to end on real files.


@pytest.fixture
def folder(tmp_path):
    """Two classes told by brightness: ``dark/clip1, 2, 10`` and ``light/...``, 10 frames each."""
    for label, level in (("dark", 30), ("light", 200)):
        for number in (1, 2, 10):
            path = tmp_path / "clips" / label / f"clip{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = np.full((10, 32, 48, 3), level + number, np.uint8)
            frames[:, :, :24] += np.arange(10, dtype=np.uint8)[:, None, None, None] * 4
            write_video(path, frames, fps=10)
    return tmp_path / "clips"


def test_a_skipped_clip_takes_its_label_along(folder, tmp_path):
    """The tutorial dropped an empty clip from the files but not from the labels: all later labels shifted."""
    (folder / "dark" / "clip2.mp4").write_bytes(b"")
    manifest = read_manifest(folder)
    cache = ClipCache(tmp_path / "cache")
    report = cache.prepare(manifest.clips, SPEC, on_damage="skip")
    assert len(report.skipped) == 1
    lost = [i for i, clip in enumerate(manifest.clips) if clip.path.name == "clip2.mp4"][:1]
    assert list(report.skipped) == lost
    data = ClipDataset(
        [clip for i, clip in enumerate(manifest.clips) if i not in lost], manifest.classes, SPEC, cache
    )
    assert len(data) == report.num_clips == 5
    for i in range(5):
        pixels, label = data[i]
        assert manifest.classes[label] == ("light" if pixels.float().mean() > 128 else "dark")


def test_an_unreadable_clip_is_never_replaced_by_another(folder, tmp_path):
    (folder / "dark" / "clip2.mp4").write_bytes(b"")
    manifest = read_manifest(folder)
    data = ClipDataset(manifest.clips, manifest.classes, SPEC, ClipCache(tmp_path / "cache"))
    (broken,) = [i for i, c in enumerate(manifest.clips) if c.label == "dark" and c.path.name == "clip2.mp4"]
    with pytest.raises(VideoError, match=r"clip2\.mp4"):
        data[broken]


def test_frames_come_in_the_order_of_time(folder, tmp_path):
    """The tutorial took frame files in directory order: frame10 before frame2, or as the disk had them."""
    manifest = read_manifest(folder)
    spec = ClipSpec(num_frames=10, height=32, width=48)
    data = ClipDataset(manifest.clips, manifest.classes, spec, ClipCache(tmp_path / "cache"))
    for i in range(len(data)):
        left_half = data[i][0][:, :, :20].float().mean(dim=(1, 2, 3))
        assert (left_half.diff() > 1).all()


def test_clips_come_in_natural_order(folder):
    paths = [clip.path for clip in read_manifest(folder).clips]
    assert [Path(path).stem for path in paths] == ["clip1", "clip2", "clip10"] * 2
