import re

import numpy as np
import pytest
import torch

from dvlae.api.arrays import as_list, choose_axes, choose_common_axes, describe_arrays, name_arrays
from dvlae.system.errors import UserError


class Lazy:
    """An array that is read part by part."""

    shape, ndim, dtype = (2, 3, 4), 3, np.dtype("u2")

    def __getitem__(self, index):
        return np.zeros(self.shape, self.dtype)[index]


class Convertible:
    """An object that NumPy can convert."""

    def __array__(self, dtype=None, copy=None):
        return np.zeros((3, 4), "u2")


def test_arrays_of_all_kinds_are_taken_and_those_in_files_are_not_read(tmp_path):
    import zarr

    assert as_list(torch.zeros(3, 4))[0].dtype == np.float32
    stored = zarr.create_array(tmp_path / "a.zarr", shape=(2, 3, 4), dtype="u2", chunks=(1, 3, 4))
    assert as_list(stored)[0] is stored
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype="f4", shape=(3, 4))
    lazy = Lazy()
    arrays = as_list([mapped, lazy, Convertible()])
    assert arrays[0] is mapped and arrays[1] is lazy
    assert arrays[2].shape == (3, 4)
    (one,) = as_list(mapped)
    assert one is mapped


class Typed(Convertible):
    """An object that NumPy can convert, which has a type, but no parts."""

    dtype = np.dtype("u2")


@pytest.mark.parametrize("kind", [Convertible, Typed])
def test_all_that_numpy_converts_is_an_array(kind):
    assert as_list(kind())[0].shape == (3, 4)


@pytest.mark.parametrize(
    "array, stored",
    [
        (torch.ones(3, 4, requires_grad=True), "f4"),
        (torch.ones(3, 4, dtype=torch.bfloat16), "f4"),
        (np.ones((3, 4), np.longdouble), "f8"),
        (np.ones((3, 4), bool), "u1"),
    ],
)
def test_numbers_of_other_types_are_converted(tmp_path, array, stored):
    describe_arrays(tmp_path, as_list(array), "YX", "x")
    (path,) = tmp_path.iterdir()
    assert np.load(path).dtype == stored and (np.load(path) == 1).all()


@pytest.mark.parametrize(
    "images, words",
    [
        ([], "empty list"),
        ("stack.tif", "found str"),
        ([[1, 2], [3, 4]], r"images\[0\]: found list, allowed: an array; numpy.array makes one"),
        (np.zeros((0, 4)), "at least one pixel"),
        (np.zeros((3, 4), complex), "integers, real numbers or booleans"),
        (np.float32(1), "at least one pixel"),
    ],
)
def test_what_is_no_image_is_refused(images, words):
    with pytest.raises(UserError, match=words):
        as_list(images)


@pytest.mark.parametrize(
    "shape, dimensions, axes",
    [
        ((9,), None, "X"),
        ((30, 40), None, "YX"),
        ((8, 30, 40), None, "SYX"),
        ((8, 30, 40), 2, "SYX"),
        ((8, 30, 40), 3, "ZYX"),
        ((2, 8, 30, 40), 3, "SZYX"),
        ((8, 40), 1, "SX"),
        ((3, 40), 1, "SX"),
    ],
)
def test_axes_are_the_spatial_ones_and_one_more_counts_images(shape, dimensions, axes):
    assert choose_axes(shape, "auto", dimensions) == axes


@pytest.mark.parametrize(
    "shape, dimensions, words",
    [
        ((30, 40, 3), None, "'SYX' (30 images), 'YXS' (3 images), 'YXC' (3 colours)"),
        ((48, 64, 20), None, "'SYX' (48 images), 'YXS' (20 images), 'YXC' (20 channels)"),
        ((48, 64, 20), 3, "'ZYX' (48 planes), 'YXZ' (20 planes)"),
        ((5, 48, 64, 20), 3, "'SZYX' (48 planes), 'SYXZ' (20 planes)"),
        ((2, 8, 30, 40), None, "'STYX', 'SCYX', 'TCYX'"),
        ((2,) * 6, None, "'STCZYX'"),
    ],
)
def test_axes_that_can_be_several_things_are_asked_for(shape, dimensions, words):
    with pytest.raises(UserError, match=f"several ways; allowed: {re.escape(words)}"):
        choose_axes(shape, "auto", dimensions)


@pytest.mark.parametrize(
    "shape, dimensions, words",
    [((40,), 2, "2 axes (YX), and up to 3 more"), ((30, 40), 3, "3 axes (ZYX)"), ((2,) * 6, 2, "2 axes (YX)")],
)
def test_an_array_that_cannot_be_read_is_not_asked_about(shape, dimensions, words):
    with pytest.raises(UserError, match=f"allowed: {re.escape(words)}"):
        choose_axes(shape, "auto", dimensions)


@pytest.mark.parametrize("shape", [(100, 64, 48), (100, 512, 64), (20, 48, 64)])
def test_stacks_of_images_are_not_asked_about(shape):
    assert choose_axes(shape, "auto") == "SYX"


@pytest.mark.parametrize("axes", [None, 3, "YX"])
def test_the_letters_have_to_be_as_many_as_the_axes(axes):
    with pytest.raises(UserError, match=f"axes: found {axes!r} for an array of shape"):
        choose_axes((3, 30, 40), axes)


def test_single_images_may_be_among_stacks():
    assert choose_common_axes([np.zeros((30, 40)), np.zeros((8, 30, 40))], "auto") == "SYX"


def test_masked_pixels_are_no_numbers_in_the_files(tmp_path):
    values = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    masked = np.ma.array(values, mask=values == 5)
    describe_arrays(tmp_path, [masked, values], "SYX", "x")
    found, other = (np.load(path) for path in sorted(tmp_path.iterdir()))
    assert found.dtype == other.dtype == np.float32
    np.testing.assert_array_equal(found, np.where(values == 5, np.nan, values))
    np.testing.assert_array_equal(other, values)


def test_arrays_of_masked_pixels_alone_are_refused(tmp_path):
    with pytest.raises(UserError, match="found only masked pixels"):
        describe_arrays(tmp_path, [np.ma.masked_all((30, 40))], "YX", "x")


def test_messages_name_an_array_and_its_image(tmp_path):
    assert name_arrays(f"noisy: {tmp_path / 'array 1.npy'}: constant", tmp_path) == "noisy: array 1: constant"
    assert name_arrays("types: array 0.npy, array 1.npy", tmp_path) == "types: array 0, array 1"
    assert name_arrays("array 1_00: constant; array 1_10: constant", tmp_path) == (
        "array 1, image 0: constant; array 1, image 10: constant"
    )
