import numpy as np
import pytest

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image
from dvlae.evaluation.calibration import NOMINAL_COVERAGE, calibrate, calibrate_run
from dvlae.evaluation.register import Targets
from dvlae.runs.folder import RunFolder

RANDOM = np.random.default_rng(0)
DEVIATIONS = RANDOM.uniform(1, 3, 200_000)
ERRORS = RANDOM.normal(size=200_000) * DEVIATIONS


def test_right_deviations_cover_what_they_should():
    found = calibrate(ERRORS, DEVIATIONS)
    np.testing.assert_allclose(found.coverage, NOMINAL_COVERAGE, atol=0.005)
    np.testing.assert_allclose(found.true, found.predicted, rtol=0.02)
    assert found.ratio == pytest.approx(1, rel=0.01)


def test_deviations_half_as_large_cover_less_and_double_the_ratio():
    found = calibrate(ERRORS, DEVIATIONS / 2)
    # Within half a deviation.
    assert found.coverage[np.isclose(NOMINAL_COVERAGE, 0.6827)] == pytest.approx(0.383, abs=0.005)
    assert found.ratio == pytest.approx(2, rel=0.01)


def test_bins_rise_and_hold_equally_many_values():
    found = calibrate(np.ones(1200), np.arange(1200.0))
    assert (np.diff(found.predicted) > 0).all()
    assert found.predicted[0] == pytest.approx(np.sqrt(np.mean(np.arange(100.0) ** 2)))


def test_a_deviation_of_zero_covers_no_error_but_zero():
    assert calibrate(np.array([0.0, 1.0]), np.zeros(2)).coverage == pytest.approx(0.5)


@pytest.fixture
def run(tmp_path):
    """Write an image of another exposure than its estimate, and a run that is right about its errors."""
    shape = (1, 60, 70)
    clean = 50 + 20 * RANDOM.random(shape)
    deviation = RANDOM.uniform(1, 3, shape)
    image = Image("a", tmp_path / "noisy.tif", tmp_path / "clean.tif", shape)
    estimate = 2 * (clean + deviation * RANDOM.normal(size=shape)) + 30
    write_image(image.noisy, estimate)
    write_image(image.clean, clean)
    write_image(tmp_path / "run/denoised/a.tif", estimate)
    write_image(tmp_path / "run/uncertainty/a.tif", 2 * deviation)
    return tmp_path / "run", image


def test_deviations_follow_the_gain_that_is_fitted_to_the_estimate(run):
    # The fit pulls a noisy estimate to its mean, and the deviations with it: the ratio stays near 1.
    found = calibrate_run(RunFolder(run[0]), [run[1]], Targets(EvaluationSettings(fit="estimate_to_clean")))
    assert found.ratio == pytest.approx(1, rel=0.1)
    assert found.predicted.max() < 3


def test_without_clean_images_or_deviations_there_is_nothing_to_calibrate(run):
    folder, image = run
    targets = Targets(EvaluationSettings())
    assert calibrate_run(RunFolder(folder), [Image("a", image.noisy, None, image.shape)], targets) is None
    (folder / "uncertainty/a.tif").unlink()
    assert calibrate_run(RunFolder(folder), [image], targets) is None
