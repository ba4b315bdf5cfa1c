import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError

zarr = pytest.importorskip("zarr", reason="unavailable: zarr")
RANDOM = np.random.default_rng([0])
SPACE = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
AXES = [{"name": "t", "type": "time", "unit": "millisecond"}, {"name": "c", "type": "channel"}, *SPACE]


def array(*shape, dtype=np.uint16):
    return RANDOM.integers(0, 250, shape).astype(dtype)


def write_ome(group, pixels, axes, scale, version):
    """Write an image of OME-Zarr with two levels."""
    group.create_array("full", data=pixels, chunks=tuple(min(side, 3) for side in pixels.shape))
    group.create_array("half", data=pixels[..., ::2, ::2])
    levels = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": [f * s for s in scale]}]}
        for path, f in (("full", 1), ("half", 2))
    ]
    multiscale = {
        "axes": axes,
        "datasets": levels,
        "coordinateTransformations": [{"type": "scale", "scale": [2.0, 1, 1, 1, 1][: len(scale)]}],
    }
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    if version == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "omero": omero}
    else:
        group.attrs["multiscales"], group.attrs["omero"] = [multiscale], omero


@pytest.mark.parametrize("packed", [None, ".", "a.zarr"])
@pytest.mark.parametrize("version", [2, 3])
def test_an_ome_zarr_is_read_in_full_resolution_with_axes_and_calibration(tmp_path, version, packed):
    pixels = array(3, 2, 4, 5, 6)
    write_ome(
        zarr.create_group(tmp_path / "a.zarr", zarr_format=version), pixels, AXES, [250, 1, 500, 200, 100], version
    )
    path = tmp_path / "a.zarr"
    if packed:
        root = path if packed == "." else tmp_path
        path = Path(shutil.make_archive(str(tmp_path / "b.zarr"), "zip", root, packed))
    with open_sources(path) as (source,):
        assert (source.kind, source.series, source.axes, source.shape) == ("zarr", "", "TCZYX", pixels.shape)
        assert source.dtype == np.uint16
        assert source.calibration.sizes == pytest.approx({"z": 0.5, "y": 0.2, "x": 0.1})
        assert source.calibration.unit == "um"
        assert source.calibration.time_step == pytest.approx(0.5)
        assert source.calibration.channels == ("DAPI", "GFP")
        assert not source.notes
        for index in [(), (2,), (2, 1), (2, 1, 3), (2, 1, 3, 4)]:
            assert np.array_equal(source.read(index), pixels[index])


def test_axes_of_length_1_are_left_out(tmp_path):
    pixels = array(1, 2, 1, 5, 6)
    write_ome(zarr.create_group(tmp_path / "a.zarr"), pixels, AXES, [1, 1, 1, 1, 1], 3)
    with open_sources(tmp_path / "a.zarr") as (source,):
        assert source.axes == "CYX"
        assert np.array_equal(source.read(), pixels[0, :, 0])
        assert np.array_equal(source.read((1, 3)), pixels[0, 1, 0, 3])


def test_axes_of_other_kinds_and_old_versions(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    write_ome(group, array(3, 4, 5, 6), [{"name": "angle"}, *[axis["name"] for axis in SPACE]], [1, 1, 1, 1], 2)
    with open_sources(tmp_path / "a.zarr") as (source,):
        assert (source.axes, source.calibration.unit) == ("SZYX", "")


@pytest.mark.parametrize(
    ("units", "scale", "expected", "said"),
    [
        (["ms", "um", "nm", "nm"], (5, 2, 50, 60), ({"z": 2, "y": 0.05, "x": 0.06}, "um", 0.005), ""),
        (["seconds", "micrometers", "µm", "micron"], (5, 2, 3, 4), ({"z": 2, "y": 3, "x": 4}, "um", 5), ""),
        ([None, None, "nanometer", "nanometer"], (1, 1, 50, 60), ({"y": 0.05, "x": 0.06}, "um", None), ""),
        ([None, None, "nanometer", "nanometer"], (5, 2, 50, 60), ({"y": 0.05, "x": 0.06}, "um", None), "z 2, t 5"),
        (["furlong", "um", "um", "um"], (1, 2, 3, 4), ({"z": 2, "y": 3, "x": 4}, "um", None), "t 1 furlong"),
        ([None] * 4, (1, 2, 3, 4), ({"z": 2, "y": 3, "x": 4}, "", None), "no unit (z 2, y 3, x 4)"),
        ([None] * 4, (1, 1, 1, 1), ({}, "", None), ""),
    ],
)
def test_steps_have_units_of_their_own_and_those_without_are_named(tmp_path, units, scale, expected, said):
    axes = [{"name": axis} | ({"unit": unit} if unit else {}) for axis, unit in zip("tzyx", units, strict=True)]
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    # All images have one more factor along the first axis.
    write_ome(group, array(3, 4, 5, 6), axes, [scale[0] / 2, *scale[1:]], 2)
    with open_sources(tmp_path / "a.zarr") as (source,):
        found = source.calibration
        assert found.sizes == pytest.approx(expected[0])
        assert (found.unit, found.time_step) == (expected[1], expected[2] and pytest.approx(expected[2]))
        assert [said in note for note in source.notes] == ([True] if said else [])


def test_each_series_of_bioformats2raw_is_a_series(tmp_path):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    images = {str(number): array(5, 6 + number) for number in range(11)}
    for name, pixels in images.items():
        write_ome(root.create_group(name), pixels, ["y", "x"], [1, 1], 2)
    (tmp_path / "a.zarr" / "OME").mkdir()
    (tmp_path / "a.zarr" / "OME" / "METADATA.ome.xml").touch()
    with open_sources(tmp_path / "a.zarr") as sources:
        assert [source.series for source in sources] == list(images)
        assert [source.shape[1] for source in sources] == list(range(6, 17))


def test_each_image_of_a_plate_is_a_series(tmp_path):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    images = {"A/1/0": array(5, 6), "A/1/1": array(5, 6), "B/2/0": array(7, 8)}
    for name, pixels in images.items():
        write_ome(root.create_group(name), pixels, ["y", "x"], [1, 1], 2)
    labels = root["A/1/0"].create_group("labels/cells")
    write_ome(labels, array(5, 6), ["y", "x"], [1, 1], 2)
    with open_sources(tmp_path / "a.zarr") as sources:
        assert [source.series for source in sources] == list(images)
        for source, pixels in zip(sources, images.values(), strict=True):
            assert np.array_equal(source.read(), pixels)


@pytest.mark.parametrize(
    ("names", "axes"), [(None, ""), (["t", "y", "x"], "TYX"), (["time", "Y", "X"], "TYX"), (["row", "y", "x"], "?YX")]
)
def test_a_plain_array_says_what_its_dimensions_are_or_nothing(tmp_path, names, axes):
    pixels = array(3, 5, 6)
    stored = zarr.create_array(tmp_path / "a.zarr", shape=pixels.shape, dtype=pixels.dtype, dimension_names=names)
    stored[:] = pixels
    with open_sources(tmp_path / "a.zarr") as (source,):
        assert source.axes == axes
        assert np.array_equal(source.read((1,)), pixels[1])


def test_a_folder_of_another_name_is_known_by_its_content(tmp_path):
    zarr.save_array(tmp_path / "scan 7", array(5, 6))
    with open_sources(tmp_path / "scan 7") as (source,):
        assert source.kind == "zarr"


@pytest.mark.parametrize(("options", "said"), [({}, "4 of 8"), ({"shards": (4, 6)}, "1 of 2")])
def test_missing_chunks_are_said(tmp_path, options, said):
    stored = zarr.create_array(tmp_path / "a.zarr", shape=(8, 6), chunks=(2, 3), dtype="u2", fill_value=7, **options)
    stored[:4] = array(4, 6) + 8
    with open_sources(tmp_path / "a.zarr") as (source,):
        assert source.notes == (f"{said} files of pixels are missing, and are read as 7",)
        assert (source.read()[4:] == 7).all()


@pytest.mark.parametrize(
    "codecs",
    [
        {"filters": [{"id": "pickle", "protocol": 5}]},
        {"filters": [{"id": "delta", "dtype": "|u1"}, {"id": "pickle", "protocol": 5}]},
        {"compressor": {"id": "pickle", "protocol": 5}},
    ],
    ids=str,
)
def test_pickled_pixels_are_refused_and_not_run(tmp_path, codecs):
    path = tmp_path / "a.zarr"
    stored = zarr.create_array(path, shape=(2, 3), dtype="u1", zarr_format=2, compressors=None)
    stored[:] = 1
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | codecs))
    trap = b"cos\nsystem\n(S'touch " + bytes(tmp_path / "trapped") + b"'\ntR."
    (path / "0.0").write_bytes(trap)
    with pytest.raises(UserError, match="pickle"), open_sources(path) as (source,):
        source.read()
    assert not (tmp_path / "trapped").exists()


def test_a_damaged_chunk_and_damaged_metadata_are_refused(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.save_array(path, array(50, 60), zarr_format=2)
    (path / "0.0").write_bytes((path / "0.0").read_bytes()[:30])
    with pytest.raises(UserError, match=r"a\.zarr: "), open_sources(path) as (source,):
        source.read()
    (path / ".zarray").write_text("{")
    with pytest.raises(UserError, match=r"a\.zarr: "), open_sources(path):
        pass


def test_an_archive_of_other_files_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").touch()
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in")
    with pytest.raises(UserError, match=r"a\.zip: .*it contains no Zarr store"), open_sources(tmp_path / "a.zip"):
        pass


def test_metadata_that_claim_more_than_the_files_can_contain_are_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**6, 10**6), chunks=(10**3, 10**3), dtype="u2")
    with open_sources(tmp_path / "a.zarr") as (source,):
        with pytest.raises(UserError, match="does not fit into the memory"):
            source.read()
        assert source.read((1,)).shape == (10**6,)


def test_codecs_that_change_numbers_are_named(tmp_path):
    codecs = pytest.importorskip("numcodecs", reason="unavailable: numcodecs")
    for filters, words in (([codecs.BitRound(5)], "BitRound, which is lossy"), ([codecs.Delta("f4")], "")):
        options = {"filters": filters, "zarr_format": 2, "overwrite": True}
        zarr.create_array(tmp_path / "a.zarr", data=array(8, 9, dtype=np.float32), **options)
        with open_sources(tmp_path / "a.zarr") as (source,):
            assert words in " ".join(source.notes)
            assert bool(source.notes) == bool(words)
