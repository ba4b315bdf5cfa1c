import doctest
import math

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.evaluation import reference_noise
from dvlae.evaluation.metrics import shift_image
from dvlae.evaluation.reference_noise import count_exposures, estimate_reference_noise, reference_limit
from dvlae.evaluation.register import Targets, register
from dvlae.evaluation.target import Alignment
from noisy_images import noise, scene

SIDES = (280, 300)


def blobs(channels=1):
    return np.stack([scene(seed, SIDES) for seed in range(channels)])


def photograph():
    return data.camera()[None, 100:380, 100:400].astype(float)


def recorded(signal, std, along="none", seed=0):
    return signal + std * np.stack([noise(seed + i, s.shape, along) for i, s in enumerate(signal)])


def estimate(noisy, clean, exposures=1, mask=None, **settings):
    how = EvaluationSettings(**({"data_range": 255} | settings))
    alignment = Alignment.find(noisy, clean, how, mask)
    return estimate_reference_noise(noisy, clean, alignment, mask, exposures), alignment


def test_the_examples_in_the_docstrings_hold():
    failed, tried = doctest.testmod(reference_noise)
    assert failed == 0 and tried > 0


@pytest.mark.parametrize("signal", [blobs, photograph])
@pytest.mark.parametrize("of_noisy, of_clean", [("none", "none"), ("x", "x"), ("x", "none"), ("y", "y"), ("none", "x")])
def test_noise_of_any_direction_is_found_in_the_clean_image(signal, of_noisy, of_clean):
    noisy, clean = recorded(signal(), 20, of_noisy, seed=1), recorded(signal(), 5, of_clean, seed=2)
    assert estimate(noisy, clean)[0] == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("signal", [blobs, photograph])
@pytest.mark.parametrize("photons", [0.3, 1, 5])
def test_noise_of_few_photons_is_found_though_it_differs_from_place_to_place(signal, photons):
    random, rate = np.random.default_rng(0), photons * signal() / 255
    noisy, clean = random.poisson(rate).astype(float), random.poisson(16 * rate) / 16
    assert estimate(noisy, clean)[0] == pytest.approx((clean - rate).std(), rel=0.1)


@pytest.mark.parametrize("fit", ["estimate_to_clean", "clean_to_noisy"])
@pytest.mark.parametrize("along", ["none", "x"])
@pytest.mark.parametrize("drift", [(0.0, 0.0), (1.5, -2.4)])
def test_what_registration_leaves_of_the_noise_is_found_in_the_units_of_the_comparison(fit, along, drift):
    noisy = recorded(shift_image(blobs(), tuple(-d for d in drift)), 20, along, seed=1)
    of_clean = 2 * recorded(np.zeros((1, *SIDES)), 5, along, seed=2)
    found, alignment = estimate(noisy, 2 * blobs() + 9 + of_clean, fit=fit, register=True, border=8)
    left = shift_image(of_clean, tuple(-d for d in alignment.shift))[:, 8:-8, 8:-8].std()
    gain = 1 if alignment.gain_and_offset is None else alignment.gain_and_offset[0]
    assert found == pytest.approx(gain * left, rel=0.1)


@pytest.mark.parametrize("signal", [blobs, photograph])
@pytest.mark.parametrize("along", ["none", "x"])
def test_without_noise_in_the_clean_image_the_limit_is_far_above(signal, along):
    noisy = recorded(signal(), 20, along)
    assert reference_limit(estimate(noisy, signal())[0], 255) > reference_limit(20, 255) + 20


def test_an_image_without_noise_and_structure_has_no_limit():
    assert reference_limit(estimate(recorded(np.zeros((1, *SIDES)), 20), np.zeros((1, *SIDES)))[0], 255) == math.inf


def test_channels_count_the_same():
    signal = blobs(2)
    stds = np.array([2.0, 10.0])[:, None, None]
    clean = signal + stds * recorded(np.zeros_like(signal), 1)
    assert estimate(recorded(signal, 20, seed=5), clean)[0] == pytest.approx(math.sqrt(52), rel=0.1)


def test_what_a_mask_leaves_out_does_not_count():
    mask = np.ones(SIDES, bool)
    mask[:, 200:] = False
    clean = recorded(blobs(), 5, seed=1)
    clean[:, ~mask] += 100 * np.random.default_rng(0).normal(size=np.count_nonzero(~mask))
    assert estimate(recorded(blobs(), 20), clean, mask=mask)[0] == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 20000), (1, 12, 80, 90)])
def test_traces_and_volumes_are_estimated(shape):
    random = np.random.default_rng(0)
    signal = 200 * ndimage.gaussian_filter(random.normal(size=shape), 6)
    noisy, clean = (signal + std * random.normal(size=shape) for std in (20, 5))
    assert estimate(noisy, clean)[0] == pytest.approx(5, rel=0.1)


def test_of_fewer_than_five_lines_nothing_is_told():
    assert math.isnan(estimate(np.ones((1, 4)), np.arange(4.0)[None])[0])


def make_frames(folder, own_mean, frames=9, std=20):
    """Write frames that share a clean image, their own mean or one recorded with as much noise."""
    noisy = [recorded(photograph(), std, seed=i) for i in range(frames)]
    clean = np.mean(noisy, axis=0) if own_mean else recorded(photograph(), std / math.sqrt(frames), seed=99)
    rows = [Image(f"a{i}", folder / f"noisy/{i}.tif", folder / "clean/a.tif", clean.shape) for i in range(frames)]
    for row, frame in zip(rows, noisy, strict=True):
        write_image(row.noisy, frame)
    write_image(rows[0].clean, clean)
    write_manifest(folder, rows)
    return folder


@pytest.mark.parametrize("own_mean", [True, False])
def test_the_mean_of_nine_noisy_images_has_a_third_of_their_noise_whether_they_are_in_it_or_not(tmp_path, own_mean):
    images, settings = make_frames(tmp_path / "images", own_mean), EvaluationSettings(data_range=255)
    assert list(count_exposures(read_manifest(images)).values()) == ([9] if own_mean else [])
    register(images, tmp_path / "targets.csv", settings=settings)
    targets, image = Targets(settings, tmp_path / "targets.csv"), read_manifest(images)[0]
    assert targets.reference_noise(image, None, {}) == pytest.approx(20 / 3, rel=0.1)
