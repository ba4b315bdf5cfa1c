import logging
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import tifffile

from dvlae.data.reading import check_file, open_stacks, select_series
from dvlae.system.errors import UserError
from frames import Memory, read_frames, settings

RANDOM = np.random.default_rng([0])


def random(*shape):
    return RANDOM.integers(0, 255, shape).astype(np.uint8)


def refusal(*paths, **keys) -> str:
    with pytest.raises(UserError) as error:
        read_frames(*paths, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("axes", "shape", "frames", "expected"),
    [
        ("X", (30,), 1, (1, 30)),
        ("SX", (4, 30), 4, (1, 30)),
        ("CX", (4, 30), 1, (4, 30)),
        ("ZYX", (5, 8, 9), 1, (1, 5, 8, 9)),
        ("ZCYX", (5, 2, 8, 9), 1, (2, 5, 8, 9)),
        ("CZYX", (2, 5, 8, 9), 1, (2, 5, 8, 9)),
        ("TZCYX", (3, 5, 2, 8, 9), 3, (2, 5, 8, 9)),
        ("YX", (8, 9), 1, (1, 8, 9)),
        ("CYX", (2, 8, 9), 1, (2, 8, 9)),
        ("SYX", (5, 8, 9), 5, (1, 8, 9)),
        ("TCYX", (5, 2, 8, 9), 5, (2, 8, 9)),
        ("CTSYX", (2, 3, 4, 8, 9), 12, (2, 8, 9)),
    ],
)
def test_axes_say_what_becomes_frame_channel_row_and_column(tmp_path, axes, shape, frames, expected):
    array = RANDOM.integers(0, 999, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack" if array.ndim > 1 else None)
    found = read_frames(tmp_path / "a.tif", axes=axes)
    assert len(found) == frames
    assert {frame.shape for frame in found} == {expected}
    assert all(frame.dtype == np.uint16 for frame in found)


def test_frames_come_in_the_order_of_the_file(tmp_path):
    array = np.arange(3 * 8 * 9, dtype=np.float32).reshape(3, 8, 9)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    assert np.array_equal(np.concatenate(read_frames(tmp_path / "a.tif", axes="TYX")), array)


def test_each_frame_is_read_by_itself(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", random(5, 2, 8, 9), photometric="minisblack", metadata={"axes": "TCYX"})
    asked = []
    for stack in open_stacks([tmp_path / "a.tif"], settings()):
        monkeypatch.setattr(stack.source, "read", lambda index: asked.append(index) or np.zeros((2, 8, 9)))
        stack.frame(3)
    assert asked == [(3,)]


def test_a_stack_says_its_axes_after_channel_and_crop(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random(5, 2, 8, 9), photometric="minisblack", metadata={"axes": "TCYX"})
    for stack in open_stacks([tmp_path / "a.tif"], settings(channel=1, crop={"y": [1, -2]})):
        assert (stack.axes, stack.shape, stack.frame_shape) == ("TCYX", (5, 1, 5, 9), (1, 5, 9))
        assert (len(stack), stack.name, stack.dtype) == (5, "a", np.uint8)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_channel_that_is_not_there_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    imageio.v3.imwrite(path, random(8, 9, 3))
    assert refusal(path, channel=3) == f"{path}: channel: found 3, allowed: 0 to 2, as the file has 3"


def test_grey_is_the_luminance_of_colours_and_leaves_grey_files_alone(tmp_path):
    colours = random(8, 9, 4)
    imageio.v3.imwrite(tmp_path / "colours.png", colours)
    imageio.v3.imwrite(tmp_path / "grey.png", colours[..., 0])
    for axes in ("auto", "YXC"):
        (luminance,) = read_frames(tmp_path / "colours.png", axes=axes, channel="grey")
        (grey,) = read_frames(tmp_path / "grey.png", axes=axes, channel="grey")
        assert np.allclose(luminance[0], colours[..., :3] @ [0.2125, 0.7154, 0.0721], atol=1e-4)
        assert luminance.dtype == np.float32
        assert np.array_equal(grey[0], colours[..., 0])


def test_one_channel_can_be_kept(tmp_path):
    colours = random(8, 9, 3)
    imageio.v3.imwrite(tmp_path / "a.png", colours)
    assert np.array_equal(read_frames(tmp_path / "a.png", channel=1)[0][0], colours[..., 1])


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("kept", [0, 30, 500])
def test_a_damaged_file_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    imageio.v3.imwrite(path, random(40, 50))
    path.write_bytes(path.read_bytes()[:kept])
    found = "cannot be read, is it damaged or incomplete?" if kept else "found an empty file"
    assert f"{path}: {found}" in refusal(path)
    with pytest.raises(UserError, match=found.replace("?", r"\?")):
        check_file(path)


def test_complex_numbers_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 9), np.complex64))
    assert "found numbers of type complex64" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("crop", "part"),
    [
        ({"y": [1, 3]}, np.s_[:, 1:3]),
        ({"y": [0, -3]}, np.s_[:, :-3]),
        ({"x": [-4, -1]}, np.s_[:, :, -4:-1]),
        ({"x": [2, 9], "y": [-8, 8]}, np.s_[:, :, 2:]),
        ({"x": None}, np.s_[:]),
    ],
)
def test_a_crop_takes_a_part_along_each_axis(tmp_path, crop, part):
    image = random(8, 9)
    tifffile.imwrite(tmp_path / "a.tif", image)
    assert np.array_equal(read_frames(tmp_path / "a.tif", crop=crop)[0], image[None][part])


@pytest.mark.parametrize("bounds", [[0, 10], [-10, 5], [5, -4], [-1, 3]])
def test_a_crop_beyond_the_image_is_refused(tmp_path, bounds):
    tifffile.imwrite(tmp_path / "a.tif", random(8, 9))
    assert f"crop.x: found {bounds}, but the image has 9 pixels along x" in refusal(
        tmp_path / "a.tif", crop={"x": bounds}
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"noise_direction": "z"}, "noise_direction: found 'z', allowed: x, y, none, as the axes 'YX' have no Z"),
        ({"crop": {"z": [0, 1]}}, "crop.z: found [0, 1], allowed: null, as the axes 'YX' have no Z"),
        ({"channel": 0}, "channel: found 0, allowed: null, as the axes 'YX' have no C"),
        ({"channel": 7}, "channel: found 7, allowed: null, as the axes 'YX' have no C"),
    ],
)
def test_settings_that_do_not_fit_the_axes_of_a_file_are_refused(tmp_path, keys, said):
    tifffile.imwrite(tmp_path / "a.tif", random(8, 9))
    assert refusal(tmp_path / "a.tif", **keys) == f"{tmp_path / 'a.tif'}: {said}"


def test_files_need_as_many_spatial_axes_and_a_volume_may_have_one_plane(tmp_path):
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    tifffile.imwrite(files[0], random(5, 8, 9), imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(files[1], random(8, 9), imagej=True)
    assert "b.tif: found the axes 'YX', but" in refusal(*files)
    assert [frame.shape for frame in read_frames(*files, axes="ZYX")] == [(1, 5, 8, 9), (1, 1, 8, 9)]


def test_a_movie_of_one_frame_is_a_movie(tmp_path):
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    tifffile.imwrite(files[0], random(5, 8, 9), photometric="minisblack")
    tifffile.imwrite(files[1], random(1, 8, 9), photometric="minisblack")
    assert len(read_frames(*files, axes="TYX")) == 6


def test_what_a_user_has_to_know_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    image = random(8, 9)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite")
    assert np.array_equal(read_frames(tmp_path / "a.tif")[0][0], 255 - image)
    assert caplog.messages == [f"{tmp_path / 'a.tif'}: 0 is white in it: reads 255 - value"]


def test_a_name_of_several_series_is_refused_and_the_list_has_no_name_twice(tmp_path):
    class Named(Memory):
        def __init__(self, series):
            super().__init__("YX", (8, 9))
            self.series = series

    sources = [Named("cells"), Named("cells"), Named("beads")]
    with pytest.raises(UserError) as error:
        select_series(sources, "cells", Path("a"))
    assert "series: found 'cells', as 2 series are called" in str(error.value)
    assert "0 (YX 8 x 9 int64), 1 (YX 8 x 9 int64), 2 (beads, YX 8 x 9 int64)" in str(error.value)
    assert select_series(sources, 1, Path("a")) == [sources[1]]
    assert select_series(sources, "beads", Path("a")) == [sources[2]]


def test_a_sentence_about_a_file_is_said_once_for_all_its_series(tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for side in (20, 24):
            file.write(np.zeros((side, side, 3), np.uint8), compression="jpeg", photometric="rgb", metadata=None)
    read_frames(tmp_path / "a.tif", series="all")
    assert len([message for message in caplog.messages if "lossy" in message]) == 1


def test_a_sentence_that_holds_for_many_files_takes_two_lines(tmp_path, caplog):
    paths = [tmp_path / f"{number}.tif" for number in range(5)]
    for path in paths:
        tifffile.imwrite(path, random(20, 24), compression="jpeg")
    read_frames(*paths)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"{paths[0]}: its pixels are compressed with JPEG")
    assert caplog.messages[1].startswith("4 other files: its pixels are compressed with JPEG")
