import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError
from microscope_files import lif

liffile = pytest.importorskip("liffile", reason="unavailable: liffile")
RANDOM = np.random.default_rng([0])
PIXEL = {"Y": ("m", 2e-7), "X": ("m", 1e-7)}
STEPS = {"T": ("s", 1.5), "Z": ("m", 5e-7)} | PIXEL


def array(*shape, dtype=np.uint16):
    return RANDOM.integers(0, 250, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("stored", ["TZCYX", "CTZYX", "TCZYX", "ZTCYX"])
def test_an_image_has_its_axes_channels_and_calibration(tmp_path, stored, dtype):
    sides = {"T": 3, "Z": 4, "C": 2, "Y": 5, "X": 6}
    pixels = array(*(sides[axis] for axis in stored), dtype=dtype)
    (tmp_path / "a.lif").write_bytes(lif({"one": (stored, STEPS, pixels)}))
    outer = stored.replace("C", "")[:2]
    expected = pixels.transpose([stored.index(axis) for axis in outer + "CYX"])
    with open_sources(tmp_path / "a.lif") as (source,):
        assert (source.kind, source.series, source.axes, source.shape) == ("lif", "", outer + "CYX", expected.shape)
        assert source.dtype == dtype
        assert source.calibration.sizes == pytest.approx({"z": 0.5, "y": 0.2, "x": 0.1})
        assert source.calibration.unit == "um"
        assert source.calibration.time_step == pytest.approx(1.5)
        assert source.calibration.channels == ("Red", "Green")
        assert not source.notes
        for index in [(), (2,), (2, 1), (2, 1, 1), (2, 1, 1, 4)]:
            assert np.array_equal(source.read(index), expected[index])
    with liffile.LifFile(tmp_path / "a.lif") as file:
        assert "".join(file.images[0].dims) == stored
        assert np.array_equal(file.images[0].asarray(), pixels)


def test_each_image_of_a_file_is_a_series(tmp_path):
    images = {"scan 1": ("YX", PIXEL, array(5, 6)), "scan 2": ("SYX", {"S": ("", 1.0)} | PIXEL, array(3, 4, 5))}
    (tmp_path / "a.lif").write_bytes(lif(images))
    with open_sources(tmp_path / "a.lif") as sources:
        assert [(source.series, source.axes) for source in sources] == [("scan 1", "YX"), ("scan 2", "SYX")]
        for source, (_, _, pixels) in zip(sources, images.values(), strict=True):
            assert np.array_equal(source.read(), pixels)


def test_an_image_without_pixels_is_left_out_and_said(tmp_path):
    images = {"empty": ("YX", PIXEL, array(0, 6)), "full": ("YX", PIXEL, array(5, 6))}
    (tmp_path / "a.lif").write_bytes(lif(images))
    with open_sources(tmp_path / "a.lif") as (source,):
        assert np.array_equal(source.read(), images["full"][2])
        assert source.notes == ("leaves out 'empty', which contains lifetimes or nothing",)


def test_blue_green_and_red_in_each_pixel_are_red_green_and_blue(tmp_path):
    pixels = array(5, 6, 3, dtype=np.uint8)
    (tmp_path / "a.lif").write_bytes(lif({"one": ("YXC", PIXEL, pixels)}))
    with open_sources(tmp_path / "a.lif") as (source,):
        assert (source.axes, source.calibration.channels) == ("CYX", ("Red", "Green", "Blue"))
        assert np.array_equal(source.read(), pixels.transpose(2, 0, 1))
    with liffile.LifFile(tmp_path / "a.lif") as file:
        assert np.array_equal(file.images[0].asarray(), pixels)


def test_a_scan_of_one_line_keeps_its_axes(tmp_path):
    pixels = array(7, 30)
    (tmp_path / "a.lif").write_bytes(lif({"one": ("TX", {"T": ("s", 0.1), "X": PIXEL["X"]}, pixels)}))
    with open_sources(tmp_path / "a.lif") as (source,):
        assert source.axes == "TX"
        assert np.array_equal(source.read(), pixels)


def test_a_file_that_breaks_off_is_refused(tmp_path):
    content = lif({"one": ("YX", PIXEL, array(5, 6))})
    for kept in (4, 20, 500, len(content) - 1):
        (tmp_path / "a.lif").write_bytes(content[:kept])
        with pytest.raises(UserError, match=r"a\.lif: "), open_sources(tmp_path / "a.lif"):
            pass


def test_a_description_that_names_other_files_is_refused(tmp_path):
    (tmp_path / "a.lif").write_text(
        '<?xml version="1.0"?><LMSDataContainerHeader Version="2"><Element Name="a"><Memory Size="9">'
        '<Frame File="secret.tif" Offset="0" Size="9"/></Memory></Element></LMSDataContainerHeader>'
    )
    with pytest.raises(UserError, match=r"a\.lif: "), open_sources(tmp_path / "a.lif"):
        pass
