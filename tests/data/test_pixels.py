import struct

import numpy as np
import pytest
import tifffile

from dvlae.data.pixels import errors_named, open_tiff, read_pixels
from dvlae.system.errors import UserError


def test_pixels_are_read_in_the_shape_and_type_of_the_file(tmp_path):
    array = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        pixels = read_pixels(file.series[0])
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, array)


def test_a_large_constant_image_is_read_although_it_packs_densely(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2000, 3000), np.uint8), compression="zlib", rowsperstrip=2000)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert read_pixels(file.series[0]).shape == (2000, 3000)
        monkeypatch.setattr("dvlae.data.pixels.ALWAYS_READ_BYTES", 2**20)
        monkeypatch.setattr("dvlae.data.pixels.MAX_EXPANSION", 100)
        with pytest.raises(ValueError, match="it claims to contain 6000000 bytes of pixels in a file of"):
            read_pixels(file.series[0])


def pages_that_lead_back(path, count, target, bigtiff=False):
    """Write pages of which the last one is followed by an earlier one."""
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for _ in range(count):
            writer.write(np.zeros((4, 5), np.uint8), metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[target].offset, file.pages[-1]
        place = last.offset + file.tiff.tagnosize + len(last.tags) * file.tiff.tagsize
        format_ = file.tiff.offsetformat
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(format_, first))


@pytest.mark.parametrize("count", [1, 3, 300])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_list_of_pages_that_runs_in_a_circle_is_refused(tmp_path, count, bigtiff):
    pages_that_lead_back(tmp_path / "a.tif", count, count // 2, bigtiff)
    with pytest.raises(ValueError, match="runs in a circle"), open_tiff(tmp_path / "a.tif"):
        pass


@pytest.mark.parametrize("kept", [0, 1, 9])
def test_a_list_of_pages_that_breaks_off_is_refused(tmp_path, kept):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for _ in range(2):
            writer.write(np.zeros((4, 5), np.uint8), metadata=None, contiguous=False)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        end = file.pages[1].offset
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: end + kept])
    with pytest.raises(ValueError, match="it breaks off after 1 pages"), open_tiff(tmp_path / "a.tif"):
        pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("wrong\nat line 2"), "wrong"), (KeyError(), "KeyError"), (RecursionError("deep"), "deep")],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_any_kind_becomes_one_line_that_names_the_file(tmp_path, error, reason):
    (tmp_path / "a.tif").touch()
    with pytest.raises(UserError) as caught, errors_named(tmp_path / "a.tif"):
        raise error
    assert str(caught.value) == f"{tmp_path / 'a.tif'}: cannot be read, is it damaged or incomplete? ({reason})"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read (Permission denied)"),
        (OSError(5, "Input/output error"), "cannot be read (Input/output error)"),
        (MemoryError("9 GiB"), "a part of it that is read at once does not fit into the memory (9 GiB)"),
        (NotImplementedError("compression A is not supported"), "compression A is not supported"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_file_that_is_not_damaged_is_not_called_so(tmp_path, error, said):
    (tmp_path / "a.tif").touch()
    with pytest.raises(UserError) as caught, errors_named(tmp_path / "a.tif"):
        raise error
    assert str(caught.value) == f"{tmp_path / 'a.tif'}: {said}"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a.tif: no such file"), errors_named(tmp_path / "a.tif"):
        pass
