import numpy as np
import pytest
from scipy import ndimage

from dvlae.methods.filters.spectrum import autocovariance, spectrum, variance

EVERYWHERE = np.ones((12, 11), bool)


@pytest.fixture
def noise():
    return ndimage.uniform_filter1d(np.random.default_rng(0).normal(3, 2, size=EVERYWHERE.shape), 3, axis=1)


def test_the_autocovariance_is_the_mean_product_of_the_pairs_that_count(noise):
    counts = np.random.default_rng(1).random(noise.shape) > 0.2
    found = autocovariance(noise, counts, 2)
    centred = np.where(counts, noise - noise[counts].mean(), np.nan)
    assert found.shape == (5, 5)
    assert found[2 + 1, 2 + 2] == pytest.approx(np.nanmean(centred[:-1, :-2] * centred[1:, 2:]))
    assert found[2 - 1, 2 + 2] == pytest.approx(np.nanmean(centred[1:, :-2] * centred[:-1, 2:]))
    assert variance(found) == pytest.approx(noise[counts].var())


def test_the_autocovariance_of_planes_is_that_of_all_pairs_in_a_plane(noise):
    planes = np.stack([noise, noise[::-1]])
    expected = (autocovariance(noise, EVERYWHERE, 2) + autocovariance(noise[::-1], EVERYWHERE, 2)) / 2
    np.testing.assert_allclose(autocovariance(planes, np.stack([EVERYWHERE] * 2), 2), expected)


def test_lags_with_few_pairs_are_left_out(noise):
    found = autocovariance(noise, EVERYWHERE, 16)
    assert found[16, 16 + 11] == 0
    assert found[16, 16 + 9] == 0
    assert found[16, 16 + 4] != 0


def test_without_a_pixel_that_counts_there_is_no_covariance(noise):
    assert not autocovariance(noise, ~EVERYWHERE, 2).any()


@pytest.mark.parametrize("shape", [(8, 8), (9, 30), (64, 17)])
def test_the_spectrum_of_white_noise_is_flat(shape):
    np.testing.assert_allclose(spectrum(np.full((1, 1), 4.0), shape), 4.0 * shape[0] * shape[1])


def test_the_spectrum_is_the_mean_squared_fourier_transform_of_the_noise():
    random, shape = np.random.default_rng(0), (16, 24)
    # At the ends of an axis, the noise goes on at the other one.
    made = ndimage.uniform_filter1d(random.normal(size=(4000, *shape)), 3, axis=2, mode="wrap")
    triangle = np.array([[1, 2, 3, 2, 1]]) / 9
    measured = np.mean(np.abs(np.fft.fft2(made)) ** 2, axis=0)
    np.testing.assert_allclose(spectrum(triangle, shape), measured, atol=0.08 * measured.max())


def test_a_negative_spectrum_is_zero_and_the_variance_stays():
    covariance = np.array([[0.9, 0.9, 1, 0.9, 0.9]])
    power = spectrum(covariance, (10, 40))
    assert power.min() == 0
    assert power.mean() == pytest.approx(400)


def test_lags_of_half_an_image_are_left_out():
    assert spectrum(np.full((33, 33), 0.5), (8, 9)).shape == (8, 9)
