import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError
from microscope_files import write_czi

pytest.importorskip("pylibCZIrw", reason="unavailable: pylibCZIrw")
RANDOM = np.random.default_rng([0])


def array(*shape, dtype=np.uint16):
    return RANDOM.integers(0, 250, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_file_has_its_axes_channels_and_calibration(tmp_path, dtype):
    pixels = array(2, 3, 2, 5, 6, dtype=dtype)
    write_czi(tmp_path / "a.czi", [pixels], "TZC", ["DAPI", "GFP"])
    with open_sources(tmp_path / "a.czi") as (source,):
        assert (source.kind, source.series, source.axes, source.shape) == ("czi", "", "TZCYX", (2, 3, 2, 5, 6))
        assert source.dtype == dtype
        assert source.calibration.sizes == pytest.approx({"x": 0.2, "y": 0.1, "z": 1.5})
        assert source.calibration.unit == "um"
        assert source.calibration.channels == ("DAPI", "GFP")
        assert not source.notes
        for index in [(), (1,), (1, 2), (1, 2, 1), (1, 2, 1, 4)]:
            assert np.array_equal(source.read(index), pixels[index])


def test_each_scene_is_a_series(tmp_path):
    scenes = [array(2, 5, 6), array(2, 7, 8)]
    write_czi(tmp_path / "a.czi", scenes, "T")
    with open_sources(tmp_path / "a.czi") as sources:
        assert [(source.series, source.axes) for source in sources] == [("0", "TYX"), ("1", "TYX")]
        for source, pixels in zip(sources, scenes, strict=True):
            assert np.array_equal(source.read(), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_are_red_green_and_blue(tmp_path, dtype):
    pixels = array(5, 6, 3, dtype=dtype)
    write_czi(tmp_path / "a.czi", [pixels], "")
    with open_sources(tmp_path / "a.czi") as (source,):
        assert source.axes == "YXC"
        assert np.array_equal(source.read(), pixels)


def test_planes_that_were_not_recorded_are_said(tmp_path):
    write_czi(tmp_path / "a.czi", [array(3, 2, 5, 6)], "TC", skipped=[(2, 1)])
    with open_sources(tmp_path / "a.czi") as (source,):
        assert source.notes == ("only 5 of 6 planes were recorded; the others are read as 0",)


def test_a_series_that_does_not_begin_at_0_is_read_from_its_beginning(tmp_path):
    pixels = array(3, 5, 6)
    write_czi(tmp_path / "a.czi", [pixels], "T", skipped=[(0,)])
    with open_sources(tmp_path / "a.czi") as (source,):
        assert np.array_equal(source.read(), pixels[1:])


def test_gaps_between_tiles_are_said(tmp_path):
    from pylibCZIrw import czi

    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for number, place in enumerate([(0, 0), (10, 0), (0, 10)]):
            file.write(np.full((10, 10, 1), number + 1, np.uint8), location=place)
    with open_sources(tmp_path / "a.czi") as (source,):
        assert source.notes == ("its tiles cover at most 75% of the image; the rest is read as 0",)
        assert np.array_equal(source.read()[::10, ::10], [[1, 2], [3, 0]])


def test_a_file_that_breaks_off_is_refused(tmp_path):
    write_czi(tmp_path / "whole.czi", [array(2, 5, 6)], "T")
    content = (tmp_path / "whole.czi").read_bytes()
    for kept in (0, 12, 300, len(content) // 2):
        (tmp_path / "a.czi").write_bytes(content[:kept])
        with pytest.raises(UserError, match=r"a\.czi: "), open_sources(tmp_path / "a.czi") as (source,):
            source.read()


@pytest.mark.parametrize(("kind", "words"), [(1, "JPEG, which is lossy"), (4, "JPEG XR, which may be lossy"), (0, "")])
def test_lossy_compression_is_named(tmp_path, kind, words):
    path = tmp_path / "a.czi"
    write_czi(path, [array(5, 6)], "")
    content = bytearray(path.read_bytes())
    # In the directory, an entry ends with its kind of compression before its part of a pyramid.
    place = content.index(b"DV", content.index(b"ZISRAWDIRECTORY")) + 18
    content[place : place + 4] = kind.to_bytes(4, "little")
    path.write_bytes(content)
    with open_sources(path) as (source,):
        assert words in " ".join(source.notes)
        assert bool(source.notes) == bool(words)
