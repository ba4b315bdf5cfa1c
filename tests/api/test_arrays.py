import numpy as np
import pytest

from dvlae.api.arrays import as_list, choose_axes, choose_common_axes
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
    import torch
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


@pytest.mark.parametrize(
    "images, words",
    [
        ([], "empty list"),
        ("stack.tif", "found str"),
        ([[1, 2], [3, 4]], "found list"),
        (np.zeros((0, 4)), "at least one pixel"),
        (np.zeros((3, 4), bool), "integers or real numbers"),
        (np.zeros((3, 4), complex), "integers or real numbers"),
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


@pytest.mark.parametrize("shape", [(30, 40, 3), (2, 8, 30, 40)])
def test_axes_that_can_be_several_things_are_asked_for(shape):
    with pytest.raises(UserError, match="axes: found an array of shape"):
        choose_axes(shape, "auto")


def test_the_letters_have_to_be_as_many_as_the_axes():
    with pytest.raises(UserError, match="'YX' for an array of shape"):
        choose_axes((3, 30, 40), "YX")


def test_single_images_may_be_among_stacks():
    assert choose_common_axes([np.zeros((30, 40)), np.zeros((8, 30, 40))], "auto") == "SYX"
