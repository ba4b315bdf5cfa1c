import doctest
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from dvlae.axes import AXES
from dvlae.evaluation import metrics


@pytest.fixture
def sem_data():
    folder = Path(os.environ.get("DVLAE_DATA_MIRROR", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / "sem_line_drift.csv").exists():
        pytest.skip("unavailable: the SEM images and their drift; name their folder in DVLAE_DATA_MIRROR")
    return folder


def row_noise(shape, seed=1):
    white = np.random.default_rng(seed).normal(size=shape)
    return ndimage.correlate1d(white, [0.5, 1.0, 0.5], axis=-1).astype(np.float32)


def test_the_examples_in_the_docstrings_hold():
    failed, tried = doctest.testmod(metrics)
    assert failed == 0 and tried > 0


def test_psnr_is_20_db_where_the_error_is_a_tenth_of_the_range(clean):
    assert metrics.psnr(clean, clean + 25.5, data_range=255) == pytest.approx(20, abs=1e-4)


def test_psnr_of_equal_images_is_infinite(clean):
    assert metrics.psnr(clean, clean, data_range=1) == float("inf")


def test_psnr_averages_the_error_over_channels():
    true = np.zeros((2, 4, 4))
    test = np.stack([np.full((4, 4), 0.0), np.full((4, 4), np.sqrt(2.0))])
    assert metrics.psnr(true, test, data_range=1) == pytest.approx(0, abs=1e-9)


def test_ssim_of_a_volume_is_the_mean_over_its_planes():
    true, test = np.random.default_rng(0).normal(size=(2, 2, 5, 20, 30))
    planes = [metrics.ssim(true[:, z], test[:, z], data_range=4) for z in range(5)]
    assert metrics.ssim(true, test, data_range=4) == pytest.approx(np.mean(planes))


@pytest.mark.parametrize(("shape", "empty"), [((10,), True), ((10, 11), True), ((3, 11, 11), False)])
def test_ssim_is_nan_where_its_window_does_not_fit(shape, empty):
    true, test = np.random.default_rng(0).random((2, 1, *shape))
    assert np.isnan(metrics.ssim(true, test, data_range=1)) == empty


def test_ssim_of_a_trace_falls_with_noise():
    true = np.sin(np.arange(500) / 9).reshape(1, -1)
    noise = np.random.default_rng(0).normal(size=true.shape)
    values = [metrics.ssim(true, true + level * noise, data_range=2) for level in (0, 0.1, 0.5)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]


def test_ssim_is_one_for_equal_images_and_falls_with_noise(clean):
    noisy = clean + row_noise(clean.shape)
    assert metrics.ssim(clean, clean, data_range=10) == pytest.approx(1)
    assert metrics.ssim(clean, noisy, data_range=10) < 0.9


def test_si_psnr_is_that_of_the_best_scale_over_the_range_of_the_clean_image():
    true = np.array([[0.0, 0.0, 4.0, 4.0]])
    test = np.array([[1.0, 3.0, 5.0, 7.0]])
    # Without their means, -2 -2 2 2 and -3 -1 1 3; the best factor is 16 / 20, the error 0.4 -1.2 1.2 -0.4.
    assert metrics.si_psnr(true, test) == pytest.approx(10 * np.log10(4**2 / 0.8))
    assert metrics.si_psnr(true, 5 - 2 * test) == pytest.approx(10 * np.log10(4**2 / 0.8))


def test_si_psnr_is_the_mean_over_channels():
    true, test = np.random.default_rng(0).normal(size=(2, 2, 9, 9))
    values = [metrics.si_psnr(true[[i]], test[[i]]) for i in range(2)]
    assert metrics.si_psnr(true, test) == pytest.approx(np.mean(values))


def test_si_psnr_of_equal_images_is_infinite_and_of_constant_ones_nan(clean):
    assert metrics.si_psnr(clean, clean) == float("inf")
    assert np.isnan(metrics.si_psnr(np.ones((1, 4)), np.arange(4.0)[None]))
    assert np.isnan(metrics.si_psnr(np.arange(4.0)[None], np.ones((1, 4))))


@pytest.mark.parametrize("level", [0.0, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("shape", [(1, 176, 201), (2, 183, 190)])
def test_ms_ssim_is_that_of_torchmetrics(shape, level):
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    random = np.random.default_rng(0)
    true = 3 + ndimage.gaussian_filter(random.normal(size=shape), (0, 3, 3))
    test = true + level * random.normal(size=shape)
    planes = [torch.from_numpy(image)[:, None] for image in (test, true)]
    expected = float(multiscale_structural_similarity_index_measure(*planes, data_range=0.5))
    assert metrics.ms_ssim(true, test, data_range=0.5) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_of_opposite_images_is_zero_and_of_a_volume_the_mean_over_its_planes():
    true, test = np.random.default_rng(0).normal(size=(2, 1, 2, 176, 180))
    assert metrics.ms_ssim(true, -true, data_range=4) == 0
    planes = [metrics.ms_ssim(true[:, z], test[:, z], data_range=4) for z in range(2)]
    assert metrics.ms_ssim(true, test, data_range=4) == pytest.approx(np.mean(planes))


@pytest.mark.parametrize("shape", [(400,), (175, 400), (3, 400, 175)])
def test_ms_ssim_is_nan_where_its_window_does_not_fit(shape):
    assert np.isnan(metrics.ms_ssim(*np.random.default_rng(0).random((2, 1, *shape)), data_range=1))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.3, -1.7), (-4.6, 0.4)])
def test_find_shift_finds_a_known_drift_under_row_noise(clean, shift):
    noisy = 2 * metrics.shift_image(clean, (-shift[0], -shift[1])) + 30 + row_noise(clean.shape)
    assert metrics.find_shift(noisy, clean) == pytest.approx(shift, abs=0.05)


@pytest.mark.parametrize("shift", [(0.25, -0.5), (2.25, -1.5), (-4.75, 3.0)])
def test_find_shift_is_not_pulled_towards_zero_by_what_drifted_in(shift):
    """Windows of a four times finer image, so that each truly shows what the other does not."""
    fine = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(640, 680)), 24) * 3000
    dy, dx = (round(4 * d) for d in shift)

    def window(top, left):
        return fine[top : top + 600, left : left + 640].reshape(150, 4, 160, 4).mean(axis=(1, 3))[None]

    clean, noisy = window(20, 20), window(20 + dy, 20 + dx)
    found = metrics.find_shift(noisy + 3 * row_noise(noisy.shape), clean)
    assert found == pytest.approx(shift, abs=0.03)


@pytest.mark.parametrize(("shape", "shift"), [((900,), (3.4,)), ((24, 80, 90), (0.0, -2.3, 0.7))])
def test_the_drift_of_traces_and_volumes_is_found(shape, shift):
    random = np.random.default_rng(0)
    clean = 20 * ndimage.gaussian_filter(random.normal(size=(2, *shape)), 2, axes=range(1, len(shape) + 1))
    noisy = metrics.shift_image(clean, tuple(-d for d in shift)) + 0.3 * random.normal(size=clean.shape)
    assert metrics.find_shift(noisy, clean) == pytest.approx(shift, abs=0.1)


def test_shift_image_by_whole_pixels_moves_values_unchanged(clean):
    moved = metrics.shift_image(clean, (2, -3))
    np.testing.assert_allclose(moved[:, 2:, :-3], clean[:, :-2, 3:], atol=1e-4)


def test_find_shift_agrees_with_the_known_drift_of_all_real_pairs(sem_data):
    """The known drift is that of a circular correlation, which is pulled towards 0 by a tenth of a pixel."""
    drift = pd.read_csv(sem_data / "sem_line_drift.csv")
    errors = []
    for row in drift.itertuples():
        files = (sem_data / "sem_line/noisy" / row.noisy_file, sem_data / "sem_line/clean" / row.clean_file)
        noisy, clean = (tifffile.imread(file)[None, 2:440, 2:510, 0].astype(np.float32) for file in files)
        dy, dx = metrics.find_shift(noisy, clean)
        errors.append([dy - row.dy, dx - row.dx])
    assert len(errors) == 50
    assert np.abs(errors).mean() < 0.15
    assert np.abs(errors).max() < 0.3


def test_fit_affine_recovers_gain_and_offset(clean):
    assert metrics.fit_affine(clean, 1.7 * clean - 4) == pytest.approx((1.7, -4), abs=1e-4)


def test_fit_affine_of_a_constant_estimate_is_the_mean_of_the_target(clean):
    assert metrics.fit_affine(np.ones_like(clean), clean) == pytest.approx((0, clean.mean()), abs=1e-6)


def test_autocorrelation_of_filtered_noise_is_its_kernels_own():
    lags = metrics.autocorrelation(row_noise((1, 400, 400)), max_lag=4)
    np.testing.assert_allclose(lags["x"], [1, 2 / 3, 1 / 6, 0, 0], atol=0.02)
    np.testing.assert_allclose(lags["y"], [1, 0, 0, 0, 0], atol=0.02)


@pytest.mark.parametrize("direction", ["x", "y", "z"])
def test_autocorrelation_of_a_volume_is_given_along_all_three_axes(direction):
    white = np.random.default_rng(0).normal(size=(1, 60, 70, 80))
    lags = metrics.autocorrelation(ndimage.correlate1d(white, [0.5, 1.0, 0.5], axis=AXES[direction]), max_lag=2)
    for name in "xyz":
        assert lags[name] == pytest.approx([1, 2 / 3, 1 / 6] if name == direction else [1, 0, 0], abs=0.03)


def test_autocorrelation_of_a_trace_is_along_x_alone():
    lags = metrics.autocorrelation(row_noise((1, 20000)), max_lag=2)
    assert list(lags) == ["x"]
    assert lags["x"] == pytest.approx([1, 2 / 3, 1 / 6], abs=0.03)


def test_autocorrelation_goes_no_further_than_half_an_axis():
    lags = metrics.autocorrelation(np.random.default_rng(0).normal(size=(1, 4, 20, 20)), max_lag=5)
    assert [len(lags[name]) for name in "xyz"] == [6, 6, 3]


def test_autocorrelation_takes_off_the_mean_of_each_channel():
    offsets = np.array([0.0, 100.0]).reshape(2, 1, 1)
    lags = metrics.autocorrelation(row_noise((2, 200, 200)) + offsets, max_lag=1)
    assert lags["y"][1] == pytest.approx(0, abs=0.02)


def test_autocorrelation_of_a_constant_image_is_zero():
    assert not metrics.autocorrelation(np.ones((1, 5, 5)), max_lag=2)["x"].any()
