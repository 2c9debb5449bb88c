"""The one resize path and the one tensor path."""

import av
import numpy as np
import pytest
import torch

from vidette.errors import InputMismatchError
from vidette.video.clip import Clip, ClipSpec
from vidette.video.transforms import FrameResizer, clip_tensor, pixels_tensor

RNG = np.random.default_rng(0)


def spec(height: int = 32, width: int = 48, **more) -> ClipSpec:
    return ClipSpec(num_frames=4, height=height, width=width, **more)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 128 + 100 * np.sin(6 * x)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(32, 48), (480, 640), (17, 333), (101, 3), (1, 1), (7, 7)])
def test_every_size_comes_out_at_the_specs(resize, size):
    picture = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    out = FrameResizer(spec(resize=resize))(picture)
    assert out.shape == (32, 48, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous


def test_the_same_size_is_left_alone():
    picture = RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(FrameResizer(spec())(picture), picture)


def test_stretch_keeps_the_whole_picture():
    out = FrameResizer(spec())(smooth(200, 300)).astype(int)
    assert np.abs(out - smooth(32, 48)).max() <= 5


def test_crop_keeps_the_proportions_and_the_centre():
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255
    out = FrameResizer(spec(height=50, width=50, resize="crop"))(picture)
    assert out.min() == 255


def test_pad_keeps_everything_between_black_bars():
    out = FrameResizer(spec(height=60, width=60, resize="pad"))(np.full((100, 300, 3), 200, np.uint8))
    assert np.all(out[:20] == 0)
    assert np.all(out[40:] == 0)
    assert np.all(np.abs(out[20:40].astype(int) - 200) <= 1)


def test_shrinking_does_not_alias():
    """Fine stripes become even grey; two taps a pixel, as some resizers take, leave false stripes."""
    stripes = np.zeros((448, 448, 3), np.uint8)
    stripes[:, ::2] = 255
    out = FrameResizer(spec(height=37, width=37))(stripes)
    assert np.abs(out.astype(int) - 127).max() < 16


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p", "yuv420p10le", "yuv444p", "rgba", "bgr24", "nv12"])
def test_every_pixel_format_gives_the_same_picture(pix_fmt):
    frame = av.VideoFrame.from_ndarray(smooth(120, 160), format="rgb24")
    out = FrameResizer(spec())(frame.reformat(format=pix_fmt)).astype(int)
    expected = FrameResizer(spec())(frame).astype(int)
    if pix_fmt == "gray":
        expected = np.repeat((expected @ [0.299, 0.587, 0.114])[..., None], 3, axis=-1)
    assert np.abs(out - expected).mean() < 4


def test_a_resizer_kept_through_changing_sizes_gives_what_a_new_one_gives():
    kept = FrameResizer(spec())
    for size in ((90, 160), (33, 35), (90, 160)):
        picture = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
        np.testing.assert_array_equal(kept(picture), FrameResizer(spec())(picture))


def test_a_picture_that_is_none():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputMismatchError, match="uint8"):
            FrameResizer(spec())(wrong)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_tensor_follows_mean_std_and_order(order):
    own = spec(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), channel_order=order)
    pixels = RNG.integers(0, 256, (2, 4, 32, 48, 3), dtype=np.uint8)
    channels = pixels if order == "RGB" else pixels[..., ::-1]
    expected = (channels / 255 - np.array(own.mean)) / np.array(own.std)
    for given in (pixels, torch.from_numpy(pixels), pixels[:, :, :, ::1]):
        tensor = pixels_tensor(given, own)
        assert tensor.shape == (2, 4, 3, 32, 48)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        np.testing.assert_allclose(tensor.numpy(), expected.transpose(0, 1, 4, 2, 3), atol=1e-5)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_one_frame_gives_the_same_bits_as_many(order):
    """One frame of a stream takes another way; law 3 holds only where both give the same."""
    own = spec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), channel_order=order)
    pixels = RNG.integers(0, 256, (64, 1, 32, 48, 3), dtype=np.uint8)
    many = pixels_tensor(pixels, own)
    for i in (0, 40):
        one = pixels_tensor(pixels[i : i + 1], own)
        assert torch.equal(one, many[i : i + 1])
        assert one.is_contiguous()


def test_clips_become_the_tensor_of_their_pixels():
    clips = [Clip(RNG.integers(0, 256, (4, 32, 48, 3), dtype=np.uint8), np.arange(4.0)) for _ in range(3)]
    tensor = clip_tensor(clips, spec())
    assert torch.equal(tensor, pixels_tensor(np.stack([clip.pixels for clip in clips]), spec()))
    assert torch.equal(tensor[1:2], clip_tensor(clips[1:2], spec()))


def test_a_clip_that_does_not_fit_is_refused():
    """Code that trained on 16 frames and deployed on 17 must not pass."""
    long = Clip(np.zeros((5, 32, 48, 3), np.uint8), np.arange(5.0))
    with pytest.raises(InputMismatchError, match="clip has 5 frames but this classifier needs 4"):
        clip_tensor([long], spec())
    with pytest.raises(InputMismatchError, match="expected"):
        clip_tensor([Clip(np.zeros((4, 30, 48, 3), np.uint8), np.arange(4.0))], spec())
    with pytest.raises(InputMismatchError):
        clip_tensor([], spec())
