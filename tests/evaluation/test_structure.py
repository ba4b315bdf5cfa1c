import math

import numpy as np
import pytest
from scipy import ndimage

from dvlae.evaluation.structure import band_centres, band_power, kept_band, kept_power, removed_details


def texture(shape=(1, 256, 300), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def blurred(image, sigma):
    return ndimage.gaussian_filter(image, sigma, axes=range(1, image.ndim), mode="wrap")


@pytest.mark.parametrize("shape", [(1, 4000), (2, 100, 131), (1, 5, 64, 80)])
def test_white_noise_has_the_same_power_in_all_bands(shape):
    power = band_power(texture(shape), texture(shape))
    assert power.mean() == pytest.approx(1, abs=0.1)
    assert power == pytest.approx(np.ones(len(power)), abs=0.5)


def test_a_wave_is_in_the_band_of_its_frequency():
    wave = np.cos(2 * np.pi * 0.2 * np.arange(300)) * np.ones((1, 256, 1))
    power = band_power(wave, wave)
    assert band_centres(len(power))[np.argmax(power)] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(1, 8000), (1, 256, 300), (1, 4, 128, 160)])
def test_a_gaussian_filter_keeps_half_the_power_up_to_its_known_frequency(sigma, shape):
    estimate = ndimage.gaussian_filter(texture(shape), sigma, axes=(-2, -1)[-len(shape) + 1 :], mode="wrap")
    # The square of its transfer function is exp(-(2 pi sigma f)^2).
    expected = math.sqrt(math.log(2)) / (2 * math.pi * sigma)
    assert kept_band(estimate, texture(shape)) == pytest.approx(expected, rel=0.07)


def test_neither_gain_nor_noise_of_an_estimate_changes_what_it_keeps():
    estimate = blurred(texture(), 2)
    expected = kept_band(estimate, texture())
    assert kept_band(3 * estimate + 7, texture()) == pytest.approx(expected)
    assert kept_band(estimate + 0.1 * texture(seed=1), texture()) == pytest.approx(expected, rel=0.05)


def test_all_is_kept_of_the_clean_image_and_nothing_in_a_flat_one():
    assert kept_band(texture(), texture()) == 0.5
    assert kept_band(np.zeros((1, 64, 64)), texture((1, 64, 64))) == 0
    assert np.all(kept_power(np.zeros((1, 64, 64)), texture((1, 64, 64))) == 0)


@pytest.mark.parametrize("clean", [np.ones((1, 64, 64)), texture((1, 7, 90)), texture((1, 3))])
def test_a_clean_image_without_structure_or_waves_has_no_band(clean):
    assert math.isnan(kept_band(clean, clean))


def test_pure_noise_has_no_details_and_removed_details_are_found():
    clean, noise = blurred(texture(), 1), texture(seed=1)
    assert abs(removed_details(noise, clean)) < 0.01
    details = clean - blurred(clean, 2.0)
    share = removed_details(noise / noise.std() + details / details.std(), clean)
    assert share == pytest.approx(math.sqrt(0.5), abs=0.02)
    assert removed_details(-details, clean) < -0.95


def test_removed_details_are_told_where_pixels_count():
    clean = blurred(texture(), 1)
    mask = np.zeros(clean.shape[1:], bool)
    mask[:, :150] = True
    removed = np.where(mask, texture(seed=1), clean - blurred(clean, 2))
    assert abs(removed_details(removed, clean, mask)) < 0.02


def test_where_nothing_was_removed_or_no_detail_is_there_the_correlation_is_not_told():
    assert math.isnan(removed_details(np.zeros((1, 9, 9)), texture((1, 9, 9))))
    assert math.isnan(removed_details(texture((1, 9, 9)), np.ones((1, 9, 9))))
