import itertools
import math

import imageio.v3
import numpy as np
import ome_types
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import dvlae.data.outputs.tiff
from dvlae.config.settings import OutputSettings
from dvlae.data.outputs.conversion import Converter
from dvlae.data.outputs.reading import is_output
from dvlae.data.outputs.tiff import MappedFrames, write_source
from dvlae.data.sources import Calibration, SourceInfo

RANDOM = np.random.default_rng([0])
CALIBRATION = Calibration({"z": 0.5, "y": 0.2, "x": 0.1}, "um", 2.5, ("red", "grün"))


def make(path, axes, shape, kind="tiff", dtype="uint16", compression="none", output="float32", **more):
    """Write a source of random values. Return these, in the order of the source, and why the file is another one."""
    info = SourceInfo(axes, shape, kind, dtype, **({"calibration": CALIBRATION} | more))
    frames = RANDOM.normal(100, 20, (info.frames, *info.frame_shape)).astype(np.float32)
    converter = Converter.choose(info, OutputSettings(dtype=output), deviation=False)
    frames.tofile(path.with_suffix(".raw"))
    why, _ = write_source(path, info, MappedFrames(path.with_suffix(".raw"), 0, frames.shape), converter, compression)
    return info.in_source_order(frames), why


ALL_AXES = ["".join(axes) for n in range(1, 6) for axes in itertools.permutations("TSCZYX", n) if "X" in axes]
SIZES = {"T": 4, "S": 3, "C": 2, "Z": 5, "Y": 7, "X": 6}


@settings(max_examples=120, deadline=None)
@given(
    axes=st.sampled_from([axes for axes in ALL_AXES if "Y" in axes or "Z" not in axes]),
    kind=st.sampled_from(["imagej", "ome", "tiff", "png"]),
    compression=st.sampled_from(["none", "zlib", "zstd"]),
    output=st.sampled_from(["float32", "same"]),
)
def test_what_comes_out_has_the_axes_that_went_in(tmp_path_factory, axes, kind, compression, output):
    path = tmp_path_factory.mktemp("out") / "a.tif"
    shape = tuple(SIZES[axis] for axis in axes)
    values, _ = make(path, axes, shape, kind, "uint8", compression, output)
    assert is_output(path)
    found = tifffile.imread(path)
    assert found.shape == (shape if len(shape) > 1 else (1, *shape))
    assert found.dtype == ("float32" if output == "float32" else "uint8")
    expected = values if output == "float32" else np.clip(np.rint(values), 0, 255)
    assert np.array_equal(found.reshape(shape), expected)


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
@pytest.mark.parametrize(("axes", "shape"), [("TYX", (2, 700, 530)), ("YXC", (600, 530, 3)), ("XY", (600, 530))])
def test_very_large_pages_are_written_in_parts(tmp_path, axes, shape, compression, small_bands):
    small_bands(60_000)
    values, _ = make(tmp_path / "a.tif", axes, shape, "tiff", "uint8", compression, "same")
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif").reshape(shape), np.clip(np.rint(values), 0, 255))


def test_an_imagej_stack_stays_one_with_its_calibration_and_labels(tmp_path):
    labels = tuple(f"plane {number}" for number in range(12))
    calibration = Calibration({"z": 0.5, "y": 0.2, "x": 0.1}, "um", 2.5, labels=labels)
    values, why = make(tmp_path / "a.tif", "TCYX", (6, 2, 9, 12), "imagej", calibration=calibration)
    assert why == ""
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej and file.series[0].axes == "TCYX"
        found = file.imagej_metadata
        assert (found["unit"], found["finterval"], found["spacing"]) == ("um", 2.5, 0.5)
        assert tuple(found["Labels"]) == labels
        x, y = (file.pages.first.tags[name].value for name in ("XResolution", "YResolution"))
        assert (x[1] / x[0], y[1] / y[0]) == pytest.approx((0.1, 0.2))
    planes = np.stack(list(imageio.v3.imiter(tmp_path / "a.tif", plugin="pillow")))
    assert np.array_equal(planes, values.reshape(-1, 9, 12))


@pytest.mark.parametrize("kind", ["ome", "tiff", "czi"])
def test_other_sources_become_ome_tiff_with_their_calibration(tmp_path, kind):
    values, why = make(tmp_path / "a.tif", "TCZYX", (3, 2, 4, 9, 12), kind)
    assert why == ("" if kind == "ome" else f"OME-TIFF, as the source is a file of another kind ({kind})")
    pixels = ome_types.from_tiff(tmp_path / "a.tif").images[0].pixels
    assert (pixels.size_t, pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == (3, 2, 4, 9, 12)
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z) == (0.1, 0.2, 0.5)
    assert pixels.physical_size_x_unit.value == "µm"
    assert pixels.time_increment == 2.5
    assert [channel.name for channel in pixels.channels] == ["red", "grün"]
    planes = np.stack(list(imageio.v3.imiter(tmp_path / "a.tif", plugin="pillow")))
    assert np.array_equal(planes, values.reshape(-1, 9, 12))


def test_names_for_which_there_is_no_place_are_named(tmp_path):
    info = SourceInfo("YXC", (9, 12, 3), "zarr", "uint8", Calibration(channels=("a", "b", "c")))
    np.zeros((1, 3, 9, 12), np.float32).tofile(tmp_path / "a.raw")
    converter = Converter.choose(info, OutputSettings(), deviation=False)
    frames = MappedFrames(tmp_path / "a.raw", 0, (1, 3, 9, 12))
    assert write_source(tmp_path / "a.tif", info, frames, converter, "none")[1] == "the names of channels"


def test_colours_stay_in_each_pixel(tmp_path):
    values, _ = make(tmp_path / "a.tif", "YXC", (9, 12, 3), "png", "uint8", output="same", calibration=Calibration())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
    assert np.array_equal(imageio.v3.imread(tmp_path / "a.tif", plugin="pillow"), np.clip(np.rint(values), 0, 255))


@pytest.mark.parametrize(("change", "why"), [
    ({"compression": "zlib"}, "ImageJ stacks are not compressed"),
    ({"dtype": "uint32", "output": "same"}, "ImageJ stacks have no uint32"),
    ({"axes": "CTYX"}, "ImageJ stacks have no axes CTYX"),
])  # fmt: skip
def test_what_an_imagej_stack_cannot_be_is_an_ome_tiff_that_says_why(tmp_path, change, why):
    keys = {"axes": "TCYX", "shape": (3, 2, 9, 12), "kind": "imagej"} | change
    assert make(tmp_path / "a.tif", **keys)[1] == f"OME-TIFF, as {why}"
    assert tifffile.TiffFile(tmp_path / "a.tif").is_ome


def test_more_than_4_gib_become_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(dvlae.data.outputs.tiff, "MAX_CLASSIC_BYTES", 1000)
    values, why = make(tmp_path / "a.tif", "TYX", (3, 9, 12), "imagej")
    assert why == "OME-TIFF, as ImageJ stacks have at most 4 GiB"
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff and file.is_ome
        assert np.array_equal(file.asarray(), values)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16"])
def test_a_type_that_ome_lacks_is_a_plain_tiff_that_says_so(tmp_path, dtype):
    _, why = make(tmp_path / "a.tif", "TYX", (3, 9, 12), "npy", dtype, output="same")
    assert why == f"plain TIFF, as OME-TIFF cannot have the type {dtype} with the axes TYX"
    assert tifffile.imread(tmp_path / "a.tif").dtype == dtype


OME = """<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"
 UUID="urn:uuid:00000000-0000-0000-0000-000000000000"><Instrument ID="Instrument:0"><Objective ID="Objective:0"
 NominalMagnification="63.0"/></Instrument><Image ID="Image:0" Name="other"><Pixels ID="Pixels:0" Type="uint8"
 DimensionOrder="XYZCT" SizeX="3" SizeY="3" SizeZ="1" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/><TiffData/>
</Pixels></Image><Image ID="Image:1" Name="scan µ"><AcquisitionDate>2024-05-01T10:00:00</AcquisitionDate>
<InstrumentRef ID="Instrument:0"/><ObjectiveSettings ID="Objective:0"/><Pixels ID="Pixels:1" Type="uint16"
 DimensionOrder="XYZCT" SizeX="12" SizeY="9" SizeZ="1" SizeC="2" SizeT="3" PhysicalSizeX="0.1" SignificantBits="12"
 BigEndian="true"><Channel ID="Channel:1:0" Name="DAPI" EmissionWavelength="461.0" SamplesPerPixel="1"/>
<Channel ID="Channel:1:1" Name="GFP" SamplesPerPixel="1"/><TiffData IFD="7"/>
<Plane TheZ="0" TheC="0" TheT="1" DeltaT="2.5"/></Pixels></Image></OME>"""


@pytest.mark.parametrize("series", ["1", "scan µ"])
def test_the_ome_metadata_of_the_source_stay(tmp_path, series):
    values, why = make(
        tmp_path / "a.tif", "TCYX", (3, 2, 9, 12), "ome", calibration=Calibration(description=OME), series=series
    )
    assert why == ""
    found = ome_types.from_tiff(tmp_path / "a.tif")
    (image,) = found.images
    assert found.instruments[0].objectives[0].nominal_magnification == 63
    assert (image.name, image.acquisition_date.year) == ("scan µ", 2024)
    assert [(channel.name, channel.emission_wavelength) for channel in image.pixels.channels] == [
        ("DAPI", 461), ("GFP", None),
    ]  # fmt: skip
    assert (image.pixels.type.value, image.pixels.physical_size_x) == ("float", 0.1)
    assert (image.pixels.planes[0].the_t, image.pixels.planes[0].delta_t) == (1, 2.5)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "TCYX"
        assert np.array_equal(file.asarray(), values)


def test_the_ome_metadata_follow_a_crop_and_the_choice_of_a_channel(tmp_path):
    calibration = Calibration(channels=("GFP",), description=OME)
    info = {"calibration": calibration, "series": "1", "starts": {"C": 1, "Y": 2}}
    values, _ = make(tmp_path / "a.tif", "TYX", (3, 4, 5), "ome", **info)
    pixels = ome_types.from_tiff(tmp_path / "a.tif").images[0].pixels
    assert (pixels.size_t, pixels.size_c, pixels.size_y, pixels.size_x) == (3, 1, 4, 5)
    assert [channel.name for channel in pixels.channels] == ["GFP"]
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), values)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_the_same_type_is_rounded_and_clipped_and_the_clipped_values_are_counted(dtype):
    limits = np.iinfo(dtype)
    convert = Converter(np.dtype(dtype), 0)
    values = np.array([1.5 * limits.min - 300, 1.4, 1.6, float(limits.max) * 1.5], np.float32)
    found = convert(values)
    assert found.dtype == dtype
    assert (found[0], found[1], found[2], convert.clipped) == (limits.min, 1, 2, 2)
    assert float(found[3]) == pytest.approx(float(limits.max))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int64", "uint64"])
def test_an_offset_is_added_to_whole_numbers_exactly(dtype):
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    for offset in {0, 7, low, high, high // 2 + 1, -7 if low else 0}:
        convert = Converter(np.dtype(dtype), offset)
        values = np.array([-3.4, -1, 0, 1, 2.6, 100, -100, 2.0**40, -(2.0**40), 2.0**70], np.float32)
        exact = [round(float(value)) + offset for value in values]
        found = convert(values)
        inside = [low <= number <= high for number in exact]
        assert [int(number) for number, there in zip(found, inside, strict=True) if there] == [
            number for number, there in zip(exact, inside, strict=True) if there
        ]
        assert convert.clipped == inside.count(False)
        # Next to a limit of 64 bits, float64 numbers are up to 2048 apart.
        for number, wanted in zip(found, exact, strict=True):
            if not low <= wanted <= high:
                assert abs(int(number) - (high if wanted > high else low)) <= 2048


@pytest.mark.parametrize(("dtype", "output", "expected"), [
    ("uint32", "same", "uint32"), ("uint32", "float32", "float64"), ("float64", "same", "float64"),
])  # fmt: skip
def test_results_come_back_with_the_offset(tmp_path, dtype, output, expected):
    values, _ = make(tmp_path / "a.tif", "YX", (9, 12), "tiff", dtype, output=output, offset=4 * 10**9)
    found = tifffile.imread(tmp_path / "a.tif")
    assert found.dtype == expected
    small = found.astype(np.float64) - 4e9
    assert np.allclose(small, np.rint(values) if expected == "uint32" else values, atol=1e-5)


def test_a_standard_deviation_has_no_offset_and_stays_float32():
    info = SourceInfo("YX", (9, 12), "tiff", "uint16", offset=10**9)
    convert = Converter.choose(info, OutputSettings(dtype="same"), deviation=True)
    assert (convert.dtype, convert.offset) == (np.float32, 0)
    assert math.isclose(convert(np.array([0.25], np.float32))[0], 0.25)
