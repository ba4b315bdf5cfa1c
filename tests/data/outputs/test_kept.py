"""What a result keeps of what its source says beside the pixels."""

import logging

import numpy as np
import ome_types
import pytest
import tifffile

from dvlae.config.settings import OutputSettings
from dvlae.data.sources import open_sources
from frames import pass_through

RANDOM = np.random.default_rng([0])
RAMP = np.arange(256, dtype=np.uint8)
RED = np.stack([RAMP, RAMP * 0, RAMP * 0])
GREEN = np.stack([RAMP * 0, RAMP, RAMP * 0])
FIRE = RANDOM.integers(0, 256, (3, 256), dtype=np.uint8)
LABELS = [f"plane {number}" for number in range(6)]
IMAGEJ = {
    "axes": "TCYX", "mode": "composite", "loop": True, "fps": 7.5, "finterval": 2.0, "Info": "Objective = 63x, µ",
    "Labels": LABELS, "LUTs": [RED, GREEN], "Ranges": (1.0, 90.0, 2.0, 80.0), "min": 1.0, "max": 90.0,
    "Overlays": [b"Iout1", b"Iout2"], "ROI": b"Iout0", "Properties": {"a": "b"}, "xorigin": 3,
}  # fmt: skip


def random(*shape, dtype=np.uint16):
    return RANDOM.integers(1, 200, shape).astype(dtype)


def write_imagej(path, **more):
    tifffile.imwrite(path, random(3, 2, 20, 24), imagej=True, metadata=IMAGEJ | more)


def read_imagej(path):
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        return file.imagej_metadata


def resolution(path):
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        x, y = (np.divide(*tags[name].value) for name in ("XResolution", "YResolution"))
        return float(x), float(y), int(tags["ResolutionUnit"].value)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---------------------------------------------------------------------------------------------- resolution


@pytest.mark.parametrize("unit", ["NONE", "INCH", "CENTIMETER"])
@pytest.mark.parametrize(("imagej", "named"), [(False, {}), (True, {}), (True, {"unit": ""})])
def test_a_resolution_and_its_unit_stay(tmp_path, unit, imagej, named):
    metadata = {"axes": "TYX"} | named
    options = {"resolution": (15384.6, 7692.3), "resolutionunit": unit, "imagej": imagej, "metadata": metadata}
    options["photometric"] = "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", random(3, 20, 24), **options)
    path = pass_through(tmp_path, axes="TYX")
    assert resolution(path) == pytest.approx(resolution(tmp_path / "a.tif"))
    if unit == "CENTIMETER":
        with open_sources(path) as (source,):
            side = source.calibration.sizes["x"] * (1 if source.calibration.unit == "um" else 1e4)
            assert side == pytest.approx(1e4 / 15384.6)


def test_a_resolution_without_a_length_is_named_and_one_of_a_screen_is_not(tmp_path, caplog):
    for unit, pixels, words in (("NONE", 10, "no unit"), ("INCH", 300, "inches"), ("INCH", 72, ""), ("NONE", 1, "")):
        caplog.clear()
        tifffile.imwrite(tmp_path / "a.tif", random(20, 24), resolution=(pixels, pixels), resolutionunit=unit)
        folder = tmp_path / f"{unit}{pixels}"
        folder.mkdir()
        (tmp_path / "a.tif").rename(folder / "a.tif")
        pass_through(folder)
        assert words in " ".join(warnings(caplog)) if words else not warnings(caplog)


@pytest.mark.parametrize(("unit", "expected"), [("um", "um"), ("\\u00B5m", "um"), ("Å", "Å"), ("inch", "inch")])
def test_the_unit_of_imagej_stays(tmp_path, unit, expected):
    text = unit.encode("ascii", "backslashreplace").decode()
    metadata = {"axes": "ZYX", "unit": text.replace("\\xc5", "\\u00C5"), "spacing": -0.5}
    tifffile.imwrite(tmp_path / "a.tif", random(3, 20, 24), imagej=True, resolution=(8, 4), metadata=metadata)
    path = pass_through(tmp_path)
    for each in (tmp_path / "a.tif", path):
        with open_sources(each) as (source,):
            assert source.calibration.sizes == {"z": 0.5, "y": 0.25, "x": 0.125}
            assert source.calibration.unit in (expected, "\\u00C5")


def test_a_resolution_in_centimetres_beside_micrometres_is_converted(tmp_path):
    options = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "metadata": {"unit": "um"}}
    tifffile.imwrite(tmp_path / "a.tif", random(20, 24), imagej=True, **options)
    with open_sources(tmp_path / "a.tif") as (source,):
        assert (source.calibration.sizes, source.calibration.unit) == ({"y": 0.5, "x": 0.5}, "um")


def test_a_plane_distance_in_another_unit_is_converted(tmp_path):
    metadata = {"axes": "ZYX", "unit": "nm", "zunit": "um", "spacing": 0.25}
    tifffile.imwrite(tmp_path / "a.tif", random(3, 20, 24), imagej=True, resolution=(0.01, 0.01), metadata=metadata)
    with open_sources(tmp_path / "a.tif") as (source,):
        assert source.calibration.sizes == pytest.approx({"z": 250, "y": 100, "x": 100})


@pytest.mark.parametrize(
    ("name", "unit"),
    [("micrometers", "um"), ("Micron", "um"), ("nanometer", "nm"), ("millimetres", "mm"), ("Angstroms", "Å")],
)
def test_a_unit_may_have_its_full_name_and_is_one_of_ome(tmp_path, name, unit, caplog):
    metadata = {"axes": "ZYX", "unit": name, "spacing": 250, "zunit": "nanometers"}
    tifffile.imwrite(tmp_path / "a.tif", random(3, 20, 24), imagej=True, resolution=(8, 4), metadata=metadata)
    path = pass_through(tmp_path, OutputSettings(compression="zlib"))
    with open_sources(path) as (source,):
        nanometres = {"um": 1e3, "nm": 1, "mm": 1e6, "Å": 0.1}[unit]
        assert source.calibration.sizes == pytest.approx({"z": 250 / nanometres, "y": 0.25, "x": 0.125})
        assert source.calibration.unit == unit
    assert "size" not in " ".join(warnings(caplog))


def test_a_size_whose_unit_ome_lacks_is_named(tmp_path, caplog):
    metadata = {"axes": "TYX", "unit": "furlong"}
    tifffile.imwrite(tmp_path / "a.tif", random(3, 20, 24), imagej=True, resolution=(8, 4), metadata=metadata)
    pass_through(tmp_path, OutputSettings(compression="zlib"))
    assert "the size of pixels, whose unit is 'furlong'" in " ".join(warnings(caplog))


@pytest.mark.parametrize("compression", ["none", "zlib"])
@pytest.mark.parametrize(
    ("unit", "seconds"), [("msec", 0.005), ("ms", 0.005), ("minutes", 300), ("hr", 18000), ("sec", 5), ("", 5)]
)
def test_a_frame_interval_of_imagej_is_in_its_own_unit(tmp_path, unit, seconds, compression):
    metadata = {"axes": "TYX", "finterval": 5} | ({"tunit": unit} if unit else {})
    tifffile.imwrite(tmp_path / "a.tif", random(3, 20, 24), imagej=True, metadata=metadata)
    with open_sources(pass_through(tmp_path, OutputSettings(compression=compression))) as (source,):
        assert source.calibration.time_step == pytest.approx(seconds)


def test_a_frame_interval_in_an_unknown_unit_stays_as_it_is(tmp_path):
    metadata = {"axes": "TYX", "finterval": 5, "tunit": "fortnights"}
    tifffile.imwrite(tmp_path / "a.tif", random(3, 20, 24), imagej=True, metadata=metadata)
    with open_sources(tmp_path / "a.tif") as (source,):
        assert source.calibration.time_step is None
    found = read_imagej(pass_through(tmp_path))
    assert (found["finterval"], found["tunit"]) == (5, "fortnights")


@pytest.mark.parametrize(("unit", "seconds"), [("ns", 5e-9), ("min", 300), ("d", 432000), ("Gs", None)])
def test_a_time_increment_of_ome_is_in_its_own_unit(tmp_path, unit, seconds):
    metadata = {"axes": "TYX", "TimeIncrement": 5, "TimeIncrementUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", random(3, 20, 24), metadata=metadata)
    for path in (tmp_path / "a.ome.tif", pass_through(tmp_path)):
        with open_sources(path) as (source,):
            assert source.calibration.time_step == (seconds and pytest.approx(seconds))
            assert f'TimeIncrementUnit="{unit}"' in source.calibration.description


# ---------------------------------------------------------------------------------------------- ImageJ


def test_an_imagej_hyperstack_keeps_colours_texts_regions_and_how_it_is_shown(tmp_path, caplog):
    write_imagej(tmp_path / "a.tif")
    found, before = read_imagej(pass_through(tmp_path)), read_imagej(tmp_path / "a.tif")
    assert np.array_equal(found.pop("LUTs"), before.pop("LUTs"))
    assert found == before
    assert not warnings(caplog)


def test_one_channel_of_an_imagej_hyperstack_keeps_its_colours(tmp_path, caplog):
    write_imagej(tmp_path / "a.tif")
    found = read_imagej(pass_through(tmp_path, channel=1))
    assert np.array_equal(found["LUTs"], GREEN) or np.array_equal(found["LUTs"], [GREEN])
    assert found["Ranges"] == (2.0, 80.0)
    assert found["Info"] == IMAGEJ["Info"]
    assert found["Labels"] == LABELS[1::2]
    assert not {"Overlays", "ROI"} & set(found)
    assert "a.tif: results do not keep ROI, Overlays of ImageJ, as a part of the image is read" in warnings(caplog)[0]


@pytest.mark.parametrize("luts", [[RED, GREEN], [RED, FIRE]])
def test_what_an_ome_tiff_cannot_have_of_imagej_is_named_and_the_rest_stays(tmp_path, caplog, luts):
    write_imagej(tmp_path / "a.tif", LUTs=luts)
    ome = ome_types.from_tiff(pass_through(tmp_path, OutputSettings(compression="zlib")))
    texts = {key: value for each in ome.structured_annotations.map_annotations for key, value in each.value.items()}
    assert texts["Info"] == IMAGEJ["Info"]
    assert [texts[f"Label {number}"] for number in range(6)] == LABELS
    colours = [channel.color.as_rgb_tuple() for channel in ome.images[0].pixels.channels]
    (message,) = warnings(caplog)
    if luts[1] is GREEN:
        assert colours == [(255, 0, 0), (0, 255, 0)]
        assert message.endswith("results for a cannot keep of the source: ROI of ImageJ, Overlays of ImageJ")
    else:
        assert "LUTs of ImageJ" in message


def test_a_calibration_of_grey_values_is_named_and_stays_where_it_holds(tmp_path, caplog):
    write_imagej(tmp_path / "a.tif", cf=0, c0=-32768.0, c1=1.0, vunit="Gray Value")
    found = read_imagej(pass_through(tmp_path, OutputSettings(dtype="same")))
    assert (found["cf"], found["c0"], found["vunit"]) == (0, -32768.0, "Gray Value")
    assert "calibration of grey values (vunit Gray Value), which is not applied" in warnings(caplog)[0]


def test_labels_are_those_of_the_planes_that_are_read(tmp_path):
    labels = [f"c{c} z{z}" for z in range(4) for c in range(2)]
    metadata = {"axes": "ZCYX", "Labels": labels}
    tifffile.imwrite(tmp_path / "a.tif", random(4, 2, 20, 24), imagej=True, metadata=metadata)
    found = read_imagej(pass_through(tmp_path, crop={"z": [1, 3], "x": [2, 20]}))
    assert found["Labels"] == labels[2:6]


# ---------------------------------------------------------------------------------------------- OME


def write_ome(path):
    metadata = {
        "axes": "TCZYX",
        "AcquisitionDate": "2024-05-01T10:00:00",
        "Channel": {"Name": ["DAPI", "GFP"], "Color": [65535, 16711935], "EmissionWavelength": [461.0, 510.0]},
        "Plane": {"DeltaT": [float(n) for n in range(12)], "PositionX": [7.0] * 12},
    }
    tifffile.imwrite(path, random(2, 2, 3, 20, 24), metadata=metadata)


def test_an_ome_tiff_keeps_channels_planes_and_date(tmp_path, caplog):
    write_ome(tmp_path / "a.ome.tif")
    found, before = (ome_types.from_tiff(path).images[0] for path in (pass_through(tmp_path), tmp_path / "a.ome.tif"))
    assert found.acquisition_date == before.acquisition_date
    assert found.pixels.channels == before.pixels.channels
    assert found.pixels.planes == before.pixels.planes
    assert not warnings(caplog)


def test_a_part_of_an_ome_tiff_keeps_its_own_channel_and_planes(tmp_path):
    write_ome(tmp_path / "a.ome.tif")
    found = ome_types.from_tiff(pass_through(tmp_path, channel=1, crop={"z": [1, 3]})).images[0].pixels
    before = ome_types.from_tiff(tmp_path / "a.ome.tif").images[0].pixels
    (channel,) = found.channels
    assert (channel.name, channel.emission_wavelength) == ("GFP", 510)
    assert channel.color == before.channels[1].color
    times = {(plane.the_t, plane.the_z): plane.delta_t for plane in before.planes if plane.the_c == 1}
    assert {(plane.the_t, plane.the_z + 1, plane.the_c): plane.delta_t for plane in found.planes} == {
        (t, z, 0): delta for (t, z), delta in times.items() if z > 0
    }


def test_planes_and_channels_of_an_ome_tiff_that_are_read_as_images_keep_what_it_says_of_them(tmp_path):
    write_ome(tmp_path / "a.ome.tif")
    path = pass_through(tmp_path, axes="TCSYX", axes_override=True, channel=1)
    before, found = (ome_types.from_tiff(each).images[0].pixels for each in (tmp_path / "a.ome.tif", path))
    assert [channel.name for channel in found.channels] == ["GFP"]
    assert {(plane.the_t, plane.the_z): plane.delta_t for plane in found.planes} == {
        (plane.the_t, plane.the_z): plane.delta_t for plane in before.planes if plane.the_c == 1
    }


@pytest.mark.parametrize(
    ("channels", "keys", "named"),
    [
        ([{"label": "DAPI"}, {"label": "GFP"}], {"channel": 1}, ["GFP"]),
        ([{"label": "DAPI"}, {"label": "GFP"}], {"axes": "TSYX", "axes_override": True}, ["DAPI", "GFP"]),
    ],
)
def test_the_names_of_channels_stay_where_they_are_images_or_one_is_chosen(tmp_path, channels, keys, named):
    zarr = pytest.importorskip("zarr", reason="unavailable: zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=random(2, 2, 20, 24))
    axes = [{"name": name} for name in "tcyx"]
    scales = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": []}]}
    group.attrs.update({"multiscales": [scales], "omero": {"channels": channels}})
    found = ome_types.from_tiff(pass_through(tmp_path, **keys)).images[0].pixels
    assert [channel.name for channel in found.channels] == named


def test_what_a_plain_tiff_cannot_have_of_an_ome_tiff_is_named(tmp_path, caplog):
    write_ome(tmp_path / "a.ome.tif")
    pass_through(tmp_path, axes="TCXYZ", axes_override=True)
    assert "cannot keep of the source: the OME metadata" in warnings(caplog)[-1]
