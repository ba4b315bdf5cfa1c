"""From a user's file through the canonical one to the result, which has to be like the user's file."""

import itertools

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dvlae.config.settings import OutputSettings
from dvlae.data.sources import open_sources
from frames import pass_through

LENGTHS = {"T": [1, 2, 5], "S": [3], "C": [2, 3], "Z": [1, 4], "Y": [9, 16], "X": [11, 20]}
PLANAR = ["".join((*outer, *inner)) for n in range(4) for outer in itertools.permutations("TCZ", n) for inner in ["YX"]]
ODD = ["XYT", "YXT", "TXY", "YTX", "YXZ", "SX", "SCX", "YXC", "TYXC"]


def describe(path):
    with open_sources(path) as (source,):
        sizes = zip(source.axes, source.shape, strict=True)
        return [(axis, size) for axis, size in sizes if size > 1], source.calibration


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from(["imagej", "ome", "tiff"]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    compression=st.sampled_from(["none", "zlib"]),
)
def test_a_result_has_axes_shape_type_and_calibration_of_the_file(tmp_path_factory, data, kind, dtype, compression):
    folder = tmp_path_factory.mktemp("chain")
    axes = data.draw(st.sampled_from(PLANAR if kind != "imagej" else [a for a in PLANAR if a in order("TZCYX")]))
    shape = tuple(data.draw(st.sampled_from(LENGTHS[axis])) for axis in axes)
    values = np.random.default_rng(0).integers(1, 200, shape).astype(dtype)
    metadata = {"axes": axes}
    if kind == "imagej":
        metadata |= {"unit": "um", "finterval": 2.5, "spacing": 0.5}
    elif kind == "ome":
        sizes = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.5}
        metadata |= sizes | {f"{name}Unit": "µm" for name in sizes} | {"TimeIncrement": 2.5, "TimeIncrementUnit": "s"}
    options = {"resolution": (10, 10), "photometric": "minisblack", "metadata": metadata}
    name = "a.ome.tif" if kind == "ome" else "a.tif"
    tifffile.imwrite(folder / name, values, imagej=kind == "imagej", **options)
    before = describe(folder / name)
    assume(all(axis in "TCZYX" for axis, _ in before[0]))
    path = pass_through(folder, OutputSettings(dtype="same", compression=compression), axes=axes)
    after = describe(path)
    assert after[0] == before[0]
    found = tifffile.imread(path)
    assert found.dtype == dtype
    assert np.array_equal(found.squeeze(), values.squeeze())
    if kind != "tiff":
        assert after[1].unit == "um"
        assert after[1].sizes["x"] == pytest.approx(before[1].sizes["x"])
        assert after[1].time_step == (before[1].time_step if "T" in axes or kind == "ome" else after[1].time_step)


def order(axes):
    return ["".join(chosen) for n in range(1, 6) for chosen in itertools.combinations(axes, n)]


@pytest.mark.parametrize("axes", ODD)
@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_a_result_has_the_axes_that_the_settings_give_to_a_file_that_does_not_say_them(tmp_path, axes, compression):
    shape = tuple(LENGTHS[axis][-1] for axis in axes)
    values = np.random.default_rng(0).integers(1, 200, shape).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    path = pass_through(tmp_path, OutputSettings(compression=compression), axes=axes)
    assert np.array_equal(tifffile.imread(path), values)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize(
    ("axes", "read"), [("ZYX", "SYX"), ("CYX", "SYX"), ("ZCYX", "SCYX"), ("ZCYX", "STYX"), ("TZYX", "TSYX")]
)
def test_planes_and_channels_that_are_read_as_images_are_planes_and_channels_again(tmp_path, kind, axes, read):
    shape = tuple({"T": 2, "Z": 4, "C": 3, "Y": 9, "X": 11}[axis] for axis in axes)
    values = np.random.default_rng(0).integers(1, 200, shape).astype(np.uint8)
    options = {"imagej": True} if kind == "imagej" else {"ome": True}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata={"axes": axes}, **options)
    path = pass_through(tmp_path, OutputSettings(dtype="same"), axes=read, axes_override=True)
    with open_sources(path) as (source,):
        assert (source.kind, source.axes) == (kind, axes)
    assert np.array_equal(tifffile.imread(path), values)


@pytest.mark.parametrize("axes", ["CYXS", "TCYXS", "ZCYXS"])
def test_channels_of_several_colours_are_read_as_images_which_is_said_and_are_channels_again(tmp_path, caplog, axes):
    shape = tuple({"T": 2, "Z": 4, "C": 2, "Y": 9, "X": 11, "S": 3}[axis] for axis in axes)
    values = np.random.default_rng(0).integers(1, 200, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", metadata={"axes": axes}, ome=True)
    path = pass_through(tmp_path, OutputSettings(dtype="same"))
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "its 2 channels have several colours each: reads each as an image"
    ]
    with tifffile.TiffFile(path) as file:
        assert (file.is_ome, file.series[0].axes) == (True, axes)
        assert np.array_equal(file.asarray(), values)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize(("axes", "read"), [("TZCYX", "TSCYX"), ("ZCYX", "SCYX")])
def test_planes_stay_planes_where_one_channel_is_chosen(tmp_path, kind, axes, read):
    shape = tuple({"T": 2, "Z": 3, "C": 2, "Y": 9, "X": 11}[axis] for axis in axes)
    values = np.random.default_rng(0).integers(1, 200, shape).astype(np.uint8)
    options = {"imagej": True} if kind == "imagej" else {"ome": True}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata={"axes": axes}, **options)
    path = pass_through(tmp_path, OutputSettings(dtype="same"), axes=read, axes_override=True, channel=1)
    with open_sources(path) as (source,):
        assert (source.kind, source.axes) == (kind, axes.replace("C", ""))
    assert np.array_equal(tifffile.imread(path), values[..., 1, :, :])
