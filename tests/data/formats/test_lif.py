import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError
from microscope_files import lif

pytest.importorskip("liffile", reason="unavailable: liffile")
RANDOM = np.random.default_rng([0])
PIXEL = [("m", 2e-7), ("m", 1e-7)]


def array(*shape, dtype=np.uint16):
    return RANDOM.integers(0, 250, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_has_its_axes_channels_and_calibration(tmp_path, dtype):
    channels = [array(3, 4, 5, 6, dtype=dtype) for _ in range(2)]
    steps = [("s", 1.5), ("m", 5e-7), *PIXEL]
    (tmp_path / "a.lif").write_bytes(lif({"one": ("TZYX", steps, channels)}))
    expected = np.stack(channels, axis=2)
    with open_sources(tmp_path / "a.lif") as (source,):
        assert (source.kind, source.series, source.axes, source.shape) == ("lif", "", "TZCYX", (3, 4, 2, 5, 6))
        assert source.dtype == dtype
        assert source.calibration.sizes == pytest.approx({"z": 0.5, "y": 0.2, "x": 0.1})
        assert source.calibration.unit == "um"
        assert source.calibration.time_step == pytest.approx(1.5)
        assert source.calibration.channels == ("Green", "Red")
        for index in [(), (2,), (2, 1), (2, 1, 1), (2, 1, 1, 4)]:
            assert np.array_equal(source.read(index), expected[index])


def test_each_image_of_a_file_is_a_series(tmp_path):
    images = {"scan 1": ("YX", PIXEL, [array(5, 6)]), "scan 2": ("SYX", [("", 1.0), *PIXEL], [array(3, 4, 5)])}
    (tmp_path / "a.lif").write_bytes(lif(images))
    with open_sources(tmp_path / "a.lif") as sources:
        assert [(source.series, source.axes) for source in sources] == [("scan 1", "YX"), ("scan 2", "SYX")]
        for source, (_, _, (pixels,)) in zip(sources, images.values(), strict=True):
            assert np.array_equal(source.read(), pixels)


def test_blue_green_and_red_in_each_pixel_are_red_green_and_blue(tmp_path):
    pixels = array(5, 6, 3, dtype=np.uint8)
    (tmp_path / "a.lif").write_bytes(lif({"one": ("YXC", PIXEL, [pixels])}))
    with open_sources(tmp_path / "a.lif") as (source,):
        assert (source.axes, source.calibration.channels) == ("CYX", ("Red", "Green", "Blue"))
        assert np.array_equal(source.read(), pixels.transpose(2, 0, 1))


def test_a_scan_of_one_line_keeps_its_axes(tmp_path):
    pixels = array(7, 30)
    (tmp_path / "a.lif").write_bytes(lif({"one": ("TX", [("s", 0.1), PIXEL[1]], [pixels])}))
    with open_sources(tmp_path / "a.lif") as (source,):
        assert source.axes == "TX"
        assert np.array_equal(source.read(), pixels)


def test_a_file_that_breaks_off_is_refused(tmp_path):
    content = lif({"one": ("YX", PIXEL, [array(5, 6)])})
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
