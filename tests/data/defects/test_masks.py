import numpy as np
import pytest

from dvlae.data.defects import find_mask

SHAPE = (96, 128)


def noise(*seed, shape=SHAPE, mean=50):
    return np.random.default_rng([18, *seed]).poisson(mean, shape).astype(np.float32)


def test_pixels_that_are_not_numbers_do_not_count():
    image = noise(0)
    image[:, :4] = np.nan
    image[90:] = np.inf
    image[40:43, 50:60] = np.nan
    assert np.array_equal(find_mask(image[None]), np.isfinite(image))


def test_a_pixel_counts_only_if_it_is_a_number_in_all_channels():
    image = noise(1, shape=(2, *SHAPE))
    image[0, :5] = np.nan
    image[1, :, 7] = np.nan
    assert np.array_equal(find_mask(image), np.isfinite(image).all(axis=0))


@pytest.mark.parametrize("value", [0, 30, 128])
@pytest.mark.parametrize("border", [np.s_[:4], np.s_[:, -1:], np.s_[:1], np.s_[80:, 70:]])
def test_a_constant_border_does_not_count(border, value):
    image = noise(2, mean=200)
    image[border] = value
    expected = np.ones(SHAPE, bool)
    expected[border] = False
    assert np.array_equal(find_mask(image[None]), expected)


def test_what_is_around_a_round_field_of_view_does_not_count():
    y, x = np.mgrid[:96, :128]
    inside = np.hypot(y - 48, x - 64) < 45
    assert np.array_equal(find_mask(np.where(inside, noise(3), 0)[None]), inside)


def test_the_corners_of_a_rotated_image_do_not_count():
    from scipy import ndimage

    image = ndimage.rotate(noise(4), 10, order=0, cval=0)
    mask = find_mask(image[None])
    assert np.array_equal(mask, image > 0)


def snake(seed):
    """Return an image with a border that leads through the image and comes back to the first rows."""
    image = noise(6, seed, shape=(96, 128))
    image[10:90, :8] = image[80:90, :60] = image[30:90, 50:60] = 0
    image[20:23, 90:93] = seed
    return image


@pytest.mark.parametrize("seed", [0, 1])
def test_the_border_of_a_large_image_is_found_in_bands(small_bands, seed):
    volume = np.stack([snake(seed)] * 3 + [np.zeros((96, 128), np.float32)])
    masks = find_mask(snake(seed)[None]), find_mask(volume[None])
    small_bands()
    assert 0.1 < np.mean(masks[0] == 0) < 0.3
    assert np.array_equal(find_mask(snake(seed)[None]), masks[0])
    assert np.array_equal(find_mask(volume[None]), masks[1])


def test_planes_without_an_image_do_not_count():
    volume = noise(5, shape=(6, 40, 50))
    volume[:2] = 0
    assert np.array_equal(find_mask(volume[None]), volume > 0)


@pytest.mark.parametrize("mean", [0.001, 0.01, 0.1, 1])
def test_counted_photons_have_no_border(mean):
    for seed in range(10):
        assert find_mask(noise(6, seed, mean=mean)[None]) is None


def test_a_background_clipped_at_zero_has_no_border():
    for seed in range(5):
        signal = 20 * np.hypot(*np.mgrid[-48:48, -64:64]) / 60
        image = (noise(7, seed, mean=10 + signal) - 20).clip(0)
        mask = find_mask(image[None])
        assert mask is None


def test_a_clipped_object_at_the_border_counts():
    image = noise(8)
    image[:30, 20:50] = 255
    assert find_mask(image[None]) is None


@pytest.mark.parametrize("image", [np.zeros(SHAPE), np.full(SHAPE, 9.0), noise(9), noise(10, shape=(300,))])
def test_all_pixels_of_a_blank_or_whole_frame_count(image):
    assert find_mask(image[None]) is None


@pytest.mark.parametrize("height", [1, 2, 3])
def test_a_few_lines_have_a_border_only_where_it_is_long(height):
    for seed in range(40):
        image = np.random.default_rng(seed).poisson(50, (1, height, 64)).astype(np.float32)
        image[:, :, 0] = 20
        assert find_mask(image) is None
    image[:, :, :8] = 20
    assert np.array_equal(find_mask(image), image[0] != 20)


def test_a_trace_has_a_mask_too():
    trace = noise(11, shape=(300,))
    trace[:40] = 0
    trace[-3:] = np.nan
    assert np.flatnonzero(~find_mask(trace[None])).tolist() == [*range(40), 297, 298, 299]
