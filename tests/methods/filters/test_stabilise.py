import numpy as np
import pytest

from dvlae.methods.filters.stabilise import Stabiliser

SIGNALS = np.linspace(2, 100, 16)


@pytest.mark.parametrize("signal", [5, 20, 90])
def test_noise_of_each_strength_gets_a_variance_of_one_and_the_mean_leads_back(signal):
    stabiliser = Stabiliser((SIGNALS, 0.5 * SIGNALS + 1))
    rng = np.random.default_rng(0)
    noisy = 0.5 * rng.poisson(2 * signal, 200_000) + rng.standard_normal(200_000)
    transformed = stabiliser.transform(noisy)
    assert transformed.std() == pytest.approx(1, abs=0.06)
    assert stabiliser.signal(transformed.mean()) == pytest.approx(signal, rel=0.01)


def test_dark_estimates_do_not_become_darker():
    stabiliser = Stabiliser((SIGNALS, 2 * SIGNALS))
    noisy = 2 * np.random.default_rng(0).poisson(4, 200_000)
    mean = stabiliser.transform(noisy).mean()
    inverse = np.interp(mean, stabiliser.transform(SIGNALS), SIGNALS)
    assert abs(stabiliser.signal(mean) - 8) < 0.1 < 8 - inverse


def test_noise_that_is_the_same_everywhere_is_only_scaled():
    stabiliser = Stabiliser((SIGNALS, np.full(16, 9.0)))
    values = np.array([-1e6, -3, 50, 1e6])
    transformed = stabiliser.transform(values)
    np.testing.assert_allclose(np.diff(transformed), np.diff(values) / 3)
    np.testing.assert_allclose(stabiliser.signal(transformed), values, atol=1e-6)


@pytest.mark.parametrize("variances", [[4.0, 0.0], [0.0, 0.0], [0.0]])
def test_groups_without_noise_leave_everything_finite_and_in_order(variances):
    stabiliser = Stabiliser((np.arange(len(variances)) * 100.0, np.array(variances)))
    values = np.linspace(-500, 500, 101)
    transformed = stabiliser.transform(values)
    assert np.isfinite(transformed).all()
    assert (np.diff(transformed) > 0).all()
    assert np.isfinite(stabiliser.signal(transformed)).all()
