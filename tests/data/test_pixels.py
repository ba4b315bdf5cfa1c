import numpy as np
import pytest
import tifffile

from dvlae.data.pixels import errors_named, read_pixels
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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a.tif: no such file"), errors_named(tmp_path / "a.tif"):
        pass
