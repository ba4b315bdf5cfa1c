import struct

import numpy as np
import pytest
import tifffile

from dvlae.data.pixels import check_memory, check_size, errors_named, open_tiff
from dvlae.system.errors import UserError


def test_a_size_that_the_file_cannot_contain_is_refused_and_one_without_a_bound_is_not(monkeypatch):
    monkeypatch.setattr("dvlae.data.pixels.ALWAYS_READ_BYTES", 2**20)
    check_size(10**9, 100)
    check_size(2**20, 100, 2)
    with pytest.raises(ValueError, match="it claims to contain 6000000 bytes of pixels in a file of 100"):
        check_size(6 * 10**6, 100, 1032)
    with pytest.raises(ValueError, match="it contains no pixels"):
        check_size(0, 100)


def test_what_does_not_fit_into_the_free_memory_is_refused(monkeypatch):
    monkeypatch.setattr("dvlae.data.pixels.free_memory", lambda: 2**30)
    check_memory(2**30)
    with pytest.raises(MemoryError, match="2147483648 bytes, of which 1073741824 are free"):
        check_memory(2**31)


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
