import numpy as np
import pytest
import tifffile

from dvlae.data.canonical import read_frame, read_info, read_mask, to_float32, write_frames, write_image
from dvlae.data.manifest import Image
from dvlae.data.sources import Calibration, SourceInfo
from dvlae.system.errors import UserError

RANDOM = np.random.default_rng([0])
TRACES = [(1, 12), (2, 12), (3, 12), (4, 3)]
IMAGES = [(1, 9, 12), (2, 9, 12), (3, 9, 12), (4, 9, 12), (1, 1, 12), (3, 9, 3)]
VOLUMES = [(1, 5, 9, 12), (2, 5, 9, 12), (3, 5, 9, 3), (2, 1, 9, 12), (1, 1, 9, 12), (4, 2, 1, 12)]
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("shape", TRACES + IMAGES + VOLUMES)
def test_a_canonical_image_reads_back_as_it_was_written(tmp_path, shape):
    image = RANDOM.normal(size=shape).astype(np.float32)
    write_image(tmp_path / "an image.tif", image)
    assert np.array_equal(read_frame(tmp_path / "an image.tif"), image)


def write(path, axes, sizes, dtype="uint8", **more):
    """Write random frames of a source. Return what is known of it, and the frames."""
    info = SourceInfo(axes, sizes, "tiff", dtype, **more)
    frames = [(100 * RANDOM.random(info.frame_shape)).astype(dtype) for _ in range(info.frames)]
    write_frames(path, info, frames, np.dtype(dtype))
    return info, frames


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("axes", "shape"), [("TYX", (5, 9, 12)), ("SCX", (4, 2, 12)), ("ZTCYX", (2, 3, 4, 9, 12))])
def test_each_frame_of_a_file_is_read_by_itself_in_any_type(tmp_path, axes, shape, dtype):
    info, frames = write(tmp_path / "a.tif", axes, shape, dtype)
    assert read_info(tmp_path / "a.tif") == info
    for number, frame in reversed([*enumerate(frames)]):
        assert np.array_equal(read_frame(tmp_path / "a.tif", number), frame.astype(np.float32))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.dtype == dtype


def test_what_is_known_of_the_source_is_read_back(tmp_path):
    calibration = Calibration({"y": 0.1, "x": 0.2}, "um", 2.5, ("a", "ü"), ("1", "2"), "<OME>µ</OME>")
    info, _ = write(tmp_path / "a.tif", "TCYX", (1, 2, 9, 12), calibration=calibration, series="scan 2", offset=10**10)
    assert read_info(tmp_path / "a.tif") == info


def test_noisy_16_bit_images_need_at_most_2_bytes_a_pixel(tmp_path):
    info = SourceInfo("TYX", (20, 200, 300), "tiff", "uint16")
    frames = RANDOM.poisson(3000, (20, 1, 200, 300)).astype(np.uint16)
    write_frames(tmp_path / "a.tif", info, frames, np.dtype(np.uint16))
    assert (tmp_path / "a.tif").stat().st_size < 2 * frames.size


@pytest.mark.parametrize(("dtype", "offset"), [
    ("uint32", 4_000_000_000), ("int64", -(2**62)), ("uint64", 2**64 - 500), ("float64", 1e9 + 0.25),
])  # fmt: skip
def test_the_offset_is_subtracted_with_all_digits(dtype, offset):
    small = np.array([0, 1, 7, 255], np.float64)
    values = (np.array(offset).astype(dtype) + small.astype(dtype)).astype(dtype)
    assert np.array_equal(to_float32(values, offset), small)
    assert np.array_equal(to_float32(values[::-1], offset), small[::-1])


@pytest.mark.parametrize("frames", [1, 3])
def test_a_mask_holds_for_one_frame_or_for_all(tmp_path, frames):
    _, masks = write(tmp_path / "mask.tif", "TYX", (frames, 9, 12))
    image = Image("a_2", tmp_path / "a.tif", None, (4, 9, 12), frame=2, mask=tmp_path / "mask.tif")
    assert np.array_equal(read_mask(image), masks[min(2, frames - 1)][0] != 0)
    assert read_mask(Image("a", tmp_path / "a.tif", None, (4, 9, 12))) is None


def test_a_file_that_is_written_again_is_read_again(tmp_path):
    for value in (1, 2):
        write_image(tmp_path / "a.tif", np.full((1, 9, 12 * value), value))
        assert read_frame(tmp_path / "a.tif").max() == value


def test_a_file_that_is_not_a_canonical_one_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 12), np.uint8))
    with pytest.raises(UserError, match=r"a.tif: cannot be read"):
        read_frame(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"b.tif: no such file"):
        read_frame(tmp_path / "b.tif")
