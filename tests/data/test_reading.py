import imageio.v3
import numpy as np
import pytest
import tifffile

from dvlae.config.dataset import CropSettings
from dvlae.data.reading import crop_image, find_images, read_image, unique_names
from dvlae.system.errors import UserError

RANDOM = np.random.default_rng([0])


@pytest.mark.parametrize(
    ("axes", "shape", "frames", "expected"),
    [
        ("X", (30,), 1, (1, 30)),
        ("SX", (4, 30), 4, (1, 30)),
        ("CX", (4, 30), 1, (4, 30)),
        ("SXC", (5, 30, 2), 5, (2, 30)),
        ("ZYX", (5, 8, 9), 1, (1, 5, 8, 9)),
        ("ZCYX", (5, 2, 8, 9), 1, (2, 5, 8, 9)),
        ("CZYX", (2, 5, 8, 9), 1, (2, 5, 8, 9)),
        ("YXZC", (8, 9, 5, 4), 1, (4, 5, 8, 9)),
        ("TZCYX", (3, 5, 2, 8, 9), 3, (2, 5, 8, 9)),
        ("YX", (8, 9), 1, (1, 8, 9)),
        ("CYX", (2, 8, 9), 1, (2, 8, 9)),
        ("YXC", (8, 9, 2), 1, (2, 8, 9)),
        ("SYX", (5, 8, 9), 5, (1, 8, 9)),
        ("TCYX", (5, 2, 8, 9), 5, (2, 8, 9)),
        ("CTSYX", (2, 3, 4, 8, 9), 12, (2, 8, 9)),
        ("XY", (8, 9), 1, (1, 9, 8)),
    ],
)
def test_axes_say_what_becomes_frame_channel_row_and_column(tmp_path, axes, shape, frames, expected):
    array = RANDOM.integers(0, 999, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack" if array.ndim > 1 else None)
    found = read_image(tmp_path / "a.tif", axes)
    assert len(found) == frames
    assert {frame.shape for frame in found} == {expected}
    assert all(frame.dtype == np.float32 for frame in found)


def test_frames_come_in_the_order_of_the_file(tmp_path):
    array = np.arange(3 * 8 * 9, dtype=np.float32).reshape(3, 8, 9)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    assert np.array_equal(np.concatenate(read_image(tmp_path / "a.tif", "TYX")), array)


@pytest.mark.parametrize(
    ("axes", "channel", "said"),
    [
        ("YX", None, "axes: found 'YX', but the file has 3 axes, of shape (8, 9, 3)"),
        ("CYX", None, "axes: found 'CYX', but the last axis of the file, of shape (8, 9, 3), is C"),
        ("TYXC", None, "but the file has 3 axes"),
        ("YXC", 3, "channel: found 3, allowed: 0 to 2"),
    ],
)
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_axes_that_do_not_fit_the_file_are_refused(tmp_path, axes, channel, said, suffix):
    path = tmp_path / f"a.{suffix}"
    imageio.v3.imwrite(path, RANDOM.integers(0, 255, (8, 9, 3)).astype(np.uint8))
    with pytest.raises(UserError) as error:
        read_image(path, axes, channel)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_stack_taken_for_channels_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 40, 40), np.uint8), photometric="minisblack")
    with pytest.raises(UserError, match="which makes 40 channels of 5 x 40 pixels"):
        read_image(tmp_path / "a.tif", "YXC")


def test_grey_is_the_luminance_of_colours_and_leaves_grey_files_alone(tmp_path):
    colours = RANDOM.integers(0, 255, (8, 9, 4)).astype(np.uint8)
    imageio.v3.imwrite(tmp_path / "colours.png", colours)
    imageio.v3.imwrite(tmp_path / "grey.png", colours[..., 0])
    (luminance,) = read_image(tmp_path / "colours.png", "YXC", "grey")
    (grey,) = read_image(tmp_path / "grey.png", "YXC", "grey")
    assert np.allclose(luminance[0], colours[..., :3] @ [0.2125, 0.7154, 0.0721], atol=1e-4)
    assert np.array_equal(grey[0], colours[..., 0])


def test_one_channel_can_be_kept(tmp_path):
    colours = RANDOM.integers(0, 255, (8, 9, 3)).astype(np.uint8)
    imageio.v3.imwrite(tmp_path / "a.png", colours)
    assert np.array_equal(read_image(tmp_path / "a.png", "YXC", 1)[0][0], colours[..., 1])


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("kept", [0, 30, 500])
def test_a_damaged_file_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    imageio.v3.imwrite(path, RANDOM.integers(0, 255, (40, 50)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cannot be read, is it damaged or incomplete?") as error:
        read_image(path, "YX")
    assert str(path) in str(error.value)


def test_files_are_found_in_natural_order(tmp_path):
    for name in ("im 10.tif", "im 2.tif", "im 1.PNG"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images("im*", tmp_path, "noisy")] == ["im 1.PNG", "im 2.tif", "im 10.tif"]
    assert find_images(str(tmp_path / "im 2.*"), tmp_path / "elsewhere", "noisy") == [tmp_path / "im 2.tif"]
    assert len(find_images(["im 2.tif", "im 1*", "im 10.tif"], tmp_path, "noisy")) == 3


def test_file_names_with_the_signs_of_globs_are_found(tmp_path):
    (tmp_path / "scan [1].tif").touch()
    assert find_images("scan [1].tif", tmp_path, "noisy") == [tmp_path / "scan [1].tif"]


def test_no_matching_file_and_other_kinds_of_file_are_refused(tmp_path):
    (tmp_path / "a.czi").touch()
    with pytest.raises(UserError, match=r"noisy: no file matches '\*.tif' in /"):
        find_images("*.tif", tmp_path, "noisy")
    with pytest.raises(UserError, match=r"a.czi: found a file of kind '.czi', allowed: .tif, .tiff, .png"):
        find_images("*", tmp_path, "noisy")


def test_files_of_one_name_in_several_folders_get_names_of_their_own(tmp_path):
    files = [tmp_path / "day1" / "a.tif", tmp_path / "day2" / "a.tif"]
    assert unique_names(files) == ["day1_a", "day2_a"]
    assert unique_names(files[:1]) == ["a"]
    with pytest.raises(UserError, match="two files differ only in their suffix"):
        unique_names([tmp_path / "a.tif", tmp_path / "a.png"])


def test_a_crop_beyond_the_image_is_refused(tmp_path):
    image = np.arange(12.0).reshape(1, 3, 4)
    assert np.array_equal(crop_image(image, CropSettings(y=[1, 3], x=None), tmp_path), image[:, 1:])
    with pytest.raises(UserError, match=r"crop.x: found \[0, 5\], but the image has 4 pixels along x"):
        crop_image(image, CropSettings(x=[0, 5]), tmp_path)


def test_a_crop_takes_a_part_along_each_axis(tmp_path):
    volume = RANDOM.normal(size=(2, 6, 7, 8))
    cropped = crop_image(volume, CropSettings(z=[1, 3], x=[2, 8]), tmp_path)
    assert np.array_equal(cropped, volume[:, 1:3, :, 2:])
    assert np.array_equal(crop_image(volume[:, 0, 0], CropSettings(x=[2, 8]), tmp_path), volume[:, 0, 0, 2:])
    with pytest.raises(UserError, match=r"crop.z: found \[0, 7\], but the image has 6 pixels along z"):
        crop_image(volume, CropSettings(z=[0, 7]), tmp_path)


def test_a_file_with_several_series_gives_its_first_and_a_warning(tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.ones((8, 9), np.uint8), photometric="minisblack", metadata=None)
        file.write(np.ones((5, 6), np.uint8), photometric="minisblack", metadata=None)
    assert read_image(tmp_path / "a.tif", "YX")[0].shape == (1, 8, 9)
    assert caplog.messages == [f"{tmp_path / 'a.tif'}: takes the first of 2 series of images, (8, 9)"]
