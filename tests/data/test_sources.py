import sys

import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"\xff\xd8\xff\xe0", "found a file of kind 'JPEG', whose compression has removed part of the noise;"),
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
        ("a.png", b"", "cannot be read, is it damaged or incomplete? (it is not a PNG)"),
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
    said = r"a\.\w+: found no package .*pip install 'dvlae\[formats\]'"
    with pytest.raises(UserError, match=said), open_sources(tmp_path / name):
        pass
