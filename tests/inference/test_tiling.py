import numpy as np
import pytest
import torch

from dvlae.inference.tiling import Window, make_tiles, padded_shape, views, whole_window

SHAPES = [(37,), (1,), (13, 22), (5, 9, 11)]


@pytest.mark.parametrize("shape", [(70,), (70, 45), (12, 70, 45)])
def test_tiles_cover_the_image_once(shape):
    covered = np.zeros(shape, int)
    for tile in make_tiles(shape, 32):
        covered[tile.slices] += 1
    assert (covered == 1).all()


def test_a_halo_ends_at_the_border_of_the_image():
    assert Window((range(0, 32), range(32, 64))).widen((8, 2), (70, 66)).ranges == (range(0, 40), range(30, 66))


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_mirrors_the_image_at_its_end(shape):
    image = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    stride = (8, 2, 4)[: len(shape)]
    padding = [(0, -side % step) for side, step in zip(shape, stride, strict=True)]
    (view,) = views(image, stride)
    expected = np.pad(image, [(0, 0), *padding], "symmetric")
    np.testing.assert_array_equal(view.extract(whole_window(padded_shape(shape, stride))), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_read_from_a_view_comes_back_to_its_place(shape):
    image = np.random.default_rng(0).random((2, *shape), np.float32)
    for view in views(image, (8, 4, 2)[: len(shape)], range(-len(shape), 0), shifts=8):
        back = np.full(image.shape, np.nan)
        for window in make_tiles(view.shape, 16):
            slices, values = view.to_image(window, torch.from_numpy(view.extract(window))[None])
            back[:, *slices] = values[0]
        np.testing.assert_array_equal(back, image)


def test_views_mirror_each_combination_of_the_axes_once():
    image = np.arange(6.0).reshape(1, 2, 3)
    seen = [view.extract(whole_window(view.shape)) for view in views(image, (1, 1), [-1, -2])]
    for expected in (image, image[..., ::-1], image[:, ::-1], image[:, ::-1, ::-1]):
        assert sum(np.array_equal(expected, one) for one in seen) == 1


def test_views_shift_the_image_against_the_grid_of_the_model():
    image = np.arange(30.0).reshape(1, 5, 6)
    for view in views(image, (2, 4), shifts=4):
        sides = zip(view.shift, image.shape[1:], view.stride, strict=True)
        before = [(put, -(side + put) % stride) for put, side, stride in sides]
        np.testing.assert_array_equal(
            view.extract(whole_window(view.shape)), np.pad(image, [(0, 0), *before], "symmetric")
        )


@pytest.mark.parametrize(("stride", "dimensions"), [(8, 1), (8, 2), (8, 3), (128, 2)])
def test_shifts_are_each_another_place_along_every_axis(stride, dimensions):
    image = np.zeros((1, *[1] * dimensions))
    shifts = np.array([view.shift for view in views(image, (stride,) * dimensions, shifts=8)])
    assert shifts.min() == 0 and shifts.max() < stride
    for along_axis in shifts.T:
        assert len(set(along_axis)) == 8


def test_a_grid_has_no_more_places_than_its_stride():
    assert [view.shift for view in views(np.zeros((1, 3, 3)), (2, 2), shifts=8)] == [(0, 0), (1, 1)]
    assert [view.shift for view in views(np.zeros((1, 3, 3)), (1, 2), shifts=8)] == [(0, 0), (0, 1)]
