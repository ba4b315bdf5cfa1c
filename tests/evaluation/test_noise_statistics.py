import numpy as np
import pytest

from dvlae.evaluation.noise_statistics import (
    SIGNAL_GROUPS,
    NoiseStatistics,
    robust_variance,
    variance_by_signal,
    variance_slope,
)


def simulated(seed: int = 0, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return noise of variance 3 s + 50, smeared along x, and the signal s, 20 to 200."""
    rng = np.random.default_rng(seed)
    signal = np.linspace(20, 200, 128)[:, None] * np.ones((channels, 1, 128))
    white = rng.standard_normal((channels, 128, 129))
    smeared = (white[..., 1:] + 0.5 * white[..., :-1]) / np.sqrt(1.25)
    return np.sqrt(3 * signal + 50) * smeared, signal


def gather(*pairs, channels: int = 1) -> NoiseStatistics:
    statistics = NoiseStatistics([110.0] * channels, [50.0] * channels)
    for noise, signal in pairs:
        statistics.update(noise, signal)
    return statistics


def slope(statistics: NoiseStatistics, channel: int = 0) -> float:
    return variance_slope(*statistics.variance_by_signal(channel))


def group_all(noise, signal, variance=np.var):
    return variance_by_signal(noise.ravel(), signal.ravel(), variance)


def test_slope_of_the_variance_is_found_whatever_the_offset():
    assert slope(gather(*(simulated(seed) for seed in range(4)))) == pytest.approx(3, rel=0.05)


def test_correlation_is_found_along_its_axis_only():
    found = gather(*(simulated(seed) for seed in range(4))).autocorrelation()
    assert found["x"][0] == found["y"][0] == 1
    assert found["x"][1] == pytest.approx(0.5 / 1.25, abs=0.02)
    assert np.abs(found["x"][2:]).max() < 0.03
    assert np.abs(found["y"][1:]).max() < 0.03


def test_groups_of_several_images_are_those_of_all_their_pixels():
    (noise_a, signal_a), (noise_b, signal_b) = simulated(0), simulated(1)
    one_image = np.concatenate([noise_a, noise_b], axis=2), np.concatenate([signal_a, signal_b], axis=2)
    both = gather((noise_a, signal_a), (noise_b, signal_b))
    np.testing.assert_allclose(both.variance_by_signal(0), gather(one_image).variance_by_signal(0))
    assert len(both.variance_by_signal(0)[0]) == SIGNAL_GROUPS


def test_channels_are_kept_apart():
    noise, signal = simulated(channels=2)
    noise[1] *= 2
    statistics = gather((noise, signal), channels=2)
    assert slope(statistics, 1) == pytest.approx(4 * slope(statistics, 0), rel=0.1)


def test_one_grey_value_has_no_slope():
    noise, signal = simulated()
    assert np.isnan(slope(gather((noise, np.full_like(signal, 100.0)))))


def test_grey_values_beyond_the_bins_count_all_the_same():
    noise, signal = simulated()
    signal[..., :4] = 1e6
    assert gather((noise, signal)).sums[0].sum() == signal.size


def test_the_slope_is_that_of_pixels_that_are_not_saturated():
    signal = np.linspace(10, 250, 16)
    variance = np.where(signal < 215, 2 * signal, 100)
    assert variance_slope(signal, variance, (-100, 255)) == pytest.approx(2)
    assert variance_slope(signal, variance) < 1.8
    assert np.isnan(variance_slope(signal, variance, (120, 130)))


def test_kept_and_binned_pixels_have_the_same_groups():
    for one, other in zip(gather(simulated()).variance_by_signal(0), group_all(*simulated()), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02)


def test_edges_do_not_count_as_variance_where_it_is_found_from_medians():
    noise, signal = simulated()
    noise[..., 60:63] += 200
    expected = 3 * group_all(noise, signal)[0] + 50
    np.testing.assert_allclose(group_all(noise, signal, robust_variance)[1], expected, rtol=0.3)
    assert (group_all(noise, signal)[1] > 1.5 * expected).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("pixels", "groups"), [(0, 0), (1, 1), (SIGNAL_GROUPS - 1, 1), (SIGNAL_GROUPS, SIGNAL_GROUPS)])
def test_few_pixels_are_one_group(pixels, groups):
    values = np.arange(pixels, dtype=float)
    signal, variance = variance_by_signal(values, values)
    assert len(signal) == len(variance) == groups and np.isfinite([*signal, *variance]).all()
    assert np.isnan(variance_slope(signal, variance, (0.0, 100.0))) or groups == SIGNAL_GROUPS
