import sys

import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError
from frames import read_frames
from microscope_files import lif, nd2, write_czi


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"\xff\xd8\xff\xe0", "found a file of kind 'JPEG', whose compression changes noise and fine detail;"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "if there is none, save this one as TIFF or PNG"),
        ("a.JPEG", b"?", "found a file of kind '.jpeg', whose compression"),
        ("a.tif", b"<html>", "found a file of kind 'XML or HTML', allowed: .tif, .tiff, "),
        ("a.tif", b"\x1f\x8b\x08", "found a file of kind 'gzip', allowed: .tif, .tiff, .btf, "),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "'HDF5', allowed: .tif"),
        ("a.oib", b"\xd0\xcf\x11\xe0", "save it as OME-TIFF, for example with Fiji or bfconvert"),
        ("a.xyz", b"1 2 3", "found a file of kind '.xyz', allowed: .tif"),
        ("a", b"1 2 3", "found a file of kind '', allowed: .tif"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n(touch) run\n", "found a file of kind 'PostScript'"),
        ("a.png", b"what", "cannot be read, is it damaged or incomplete? (it is not a PNG)"),
        ("a.png", b"", "found an empty file, allowed: an image"),
        ("a.tif", b"", "found an empty file, allowed: an image"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_helps(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error, open_sources(tmp_path / name):
        pass
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["missing.tif", "missing.zarr", "missing.xyz"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: no such file"), open_sources(tmp_path / name):
        pass


@pytest.mark.parametrize(
    ("name", "module"),
    [("a.czi", "pylibCZIrw.czi"), ("a.lif", "liffile"), ("a.nd2", "nd2"), ("a.zip", "zarr")],
)
def test_without_the_extra_it_is_named(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"?")
    said = r"a\.\w+: found no package .*pip install '\.\[formats\]'"
    with pytest.raises(UserError, match=said), open_sources(tmp_path / name):
        pass


def write(path, pixels):
    """Write pixels (T, Z, C, Y, X) in the format that the suffix says."""
    if path.suffix == ".czi":
        pytest.importorskip("pylibCZIrw", reason="unavailable: pylibCZIrw")
        write_czi(path, [pixels], "TZC")
    elif path.suffix == ".lif":
        pytest.importorskip("liffile", reason="unavailable: liffile")
        steps = {"T": ("s", 1.0), "Z": ("m", 1e-6), "Y": ("m", 1e-7), "X": ("m", 1e-7)}
        path.write_bytes(lif({"one": ("TZCYX", steps, pixels)}))
    elif path.suffix == ".nd2":
        pytest.importorskip("nd2", reason="unavailable: nd2")
        time = {"eType": 1, "uLoopPars": {"uiCount": 3, "dStart": 0.0, "dPeriod": 9.0, "dDuration": 27.0}}
        depth = {"eType": 4, "uLoopPars": {"uiCount": 4, "dZStep": 0.5}}
        frames = pixels.reshape(12, *pixels.shape[2:]).transpose(0, 2, 3, 1)
        path.write_bytes(nd2(np.ascontiguousarray(frames), [time, depth], ["a", "b"], 0.25))
    elif path.suffix == ".zarr":
        zarr = pytest.importorskip("zarr", reason="unavailable: zarr")
        zarr.create_array(path, data=pixels, dimension_names=list("tzcyx"))
    else:
        np.save(path, pixels)


@pytest.mark.parametrize("suffix", [".czi", ".lif", ".nd2", ".npy", ".zarr"])
def test_frames_of_all_formats_are_read_by_the_same_settings(tmp_path, suffix):
    pixels = np.random.default_rng([0]).integers(0, 999, (3, 4, 2, 12, 14)).astype(np.uint16)
    write(tmp_path / f"a{suffix}", pixels)
    axes = {"axes": "TZCYX"} if suffix == ".npy" else {}
    frames = read_frames(tmp_path / f"a{suffix}", **axes)
    assert np.array_equal(frames, pixels.transpose(0, 2, 1, 3, 4))
    assert frames[0].dtype == np.uint16
