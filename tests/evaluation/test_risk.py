"""The error of denoisers without clean images, compared with the error that is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from dvlae.evaluation.noise_samples import estimate_noise
from dvlae.evaluation.risk import MeasuredNoise, estimate_risks

# Without fine texture, which would be taken for noise.
CAMERA = ndimage.gaussian_filter(data.camera()[None, 100:356, 100:356].astype(np.float32), (0, 1.5, 1.5))
AXIS = {"x": -1, "y": -2}


def noise_of(direction, seed=0):
    """Return noise whose variance grows with the signal, correlated along an axis."""
    white = np.random.default_rng(seed).standard_normal(CAMERA.shape)
    if direction != "none":
        white = ndimage.convolve1d(white, [0.8, 0.6, 0, 0, 0], axis=AXIS[direction])
    return (5 + 0.1 * CAMERA) * white


def blur(*sides):
    """Return a denoiser: the mean over a window."""
    return lambda image: ndimage.uniform_filter(image.astype(np.float64), (1, *sides)).astype(np.float32)


DENOISERS = {"nothing": blur(1, 1), "columns": blur(3, 1), "rows": blur(1, 3), "square": blur(5, 5)}


# Of the largest grey values, squares are no numbers of 32 bits.
@pytest.mark.parametrize(("direction", "unit"), [("none", 1), ("x", 1), ("y", 1), ("x", 1e30)])
def test_differences_of_estimated_errors_are_those_of_true_errors(direction, unit):
    noisy = (unit * (CAMERA + noise_of(direction))).astype(np.float32)
    noise = MeasuredNoise.of([estimate_noise(noisy, np.ones(noisy.shape, bool))], direction)
    risks = estimate_risks(noisy, DENOISERS, noise)
    risks = {name: risk / unit**2 for name, risk in risks.items()}
    errors = {name: float(np.mean((denoise(noisy) / unit - CAMERA) ** 2)) for name, denoise in DENOISERS.items()}
    variance = errors["nothing"]
    assert variance > 150
    for name in DENOISERS:
        found, true = risks[name] - risks["square"], errors[name] - errors["square"]
        assert found == pytest.approx(true, abs=0.04 * variance)
    assert min(risks, key=risks.get) == min(errors, key=errors.get)


def test_drawn_noise_has_the_correlation_and_the_variances_that_were_measured():
    levels, variances = np.array([10.0, 20.0]), np.array([4.0, 100.0])
    noise = MeasuredNoise("x", [np.array([1, 0.48])], [(levels, variances)])
    signal = np.full((1, 400, 400), 10.0)
    signal[:, 200:] = 25.0
    drawn = noise.draw(signal, np.random.default_rng(0))[0]
    assert drawn[:200].var() == pytest.approx(4, rel=0.03)
    assert drawn[200:].var() == pytest.approx(100, rel=0.03)
    unit = drawn[:200] / 2
    assert np.mean(unit[:, 1:] * unit[:, :-1]) == pytest.approx(0.48, abs=0.02)
    assert abs(np.mean(unit[:, 2:] * unit[:, :-2])) < 0.02
    assert abs(np.mean(unit[1:] * unit[:-1])) < 0.02


@pytest.mark.filterwarnings("error")
def test_noise_whose_correlation_is_unknown_is_not_told():
    (known,) = estimate_noise((CAMERA + noise_of("x")).astype(np.float32), np.ones(CAMERA.shape, bool))

    def join(*lags):
        samples = [replace(known, correlation=known.correlation | {"x": np.array(each)}) for each in lags]
        return MeasuredNoise.of([[sample] for sample in samples], "x")

    assert join([np.nan, np.nan, np.nan]) is None
    np.testing.assert_array_equal(join([1, 0.5, np.nan]).lags[0], [1, 0.5])
    np.testing.assert_array_equal(join([1, 0.5, np.nan], [1, np.nan, 0.2]).lags[0], [1, 0.5, 0.2])


def test_each_channel_has_its_own_noise():
    noise = MeasuredNoise("none", [np.ones(1)] * 2, [(np.zeros(1), np.full(1, variance)) for variance in (1.0, 9.0)])
    drawn = noise.draw(np.zeros((2, 200, 200)), np.random.default_rng(0))
    assert drawn.std(axis=(1, 2)) == pytest.approx([1, 3], rel=0.02)
