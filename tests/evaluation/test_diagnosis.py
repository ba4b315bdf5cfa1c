import numpy as np
import pytest

from dvlae.evaluation import diagnosis


def test_noise_along_two_axes_is_warned_of():
    correlation = {"x": [1, 0.5], "y": [1, 0.3]}
    warning = diagnosis.find_contradiction(correlation, "x", "x")
    assert "more than x" in warning and "0.30 along y" in warning


def test_the_length_ends_where_the_correlation_first_is_negligible():
    assert diagnosis.correlation_length([1, 0.5, 0.06, 0.04, 0.2]) == 2
    assert diagnosis.correlation_length([1, 0.5, 0.4]) == 2


@pytest.mark.parametrize(("length", "field"), [(0, 0), (1, 4), (2, 4), (5, 12), (10**6, 304)])
def test_the_suggested_receptive_field_is_the_next_that_can_be_had_from_twice_the_length(length, field):
    assert diagnosis.suggest_receptive_field(length) == field


def test_edges_do_not_count_as_correlated_noise():
    noise = np.random.default_rng(0).normal(size=(1, 100, 100))
    noise[:, 20:23] += 50
    assert np.abs(diagnosis.robust_autocorrelation(noise, "x")[1:10]).max() < 0.1


def test_one_odd_image_turns_no_direction():
    random = np.random.default_rng(0)
    samples = []
    for axis in (-1, -1, -2):
        noisy = 50 + random.normal(size=(1, 80, 90))
        samples.append(diagnosis.estimate_noise(noisy + np.roll(noisy, 1, axis)))
    found, curves = diagnosis.measure_noise(samples, dataset="made up", configured_direction="x")
    assert (found["direction"], found["basis"], found["images"]) == ("x", "estimate", 3)
    assert len(curves) == 1
