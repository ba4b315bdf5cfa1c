import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dvlae.evaluation import significance as statistics

IMAGES = 30
NO_SEEDS = {"a": 0.0, "b": 0.0, "c": 0.0}


def psnr(**methods):
    """Return the PSNR of methods whose images are of different difficulty."""
    random = np.random.default_rng(1)
    difficulty = random.normal(30, 3, IMAGES)
    return pd.DataFrame({name: difficulty + random.normal(gain, 0.1, IMAGES) for name, gain in methods.items()})


def verdicts(table):
    return {(row.method, row.other): row.verdict for row in table.itertuples()}


def test_a_small_difference_on_every_image_is_seen_though_images_differ_much():
    table = statistics.compare(psnr(a=0.2, b=0.0), NO_SEEDS)
    assert verdicts(table) == {("a", "b"): "better"}
    assert "a is better than b by 0." in table.conclusion[0]


def test_equal_methods_show_no_difference():
    table = statistics.compare(psnr(a=0.0, b=0.0), NO_SEEDS)
    assert table.verdict[0] == "same"
    assert "no difference seen between" in table.conclusion[0]


def test_the_very_same_values_show_no_difference():
    values = psnr(a=0.0)
    table = statistics.compare(values.assign(b=values.a), NO_SEEDS)
    assert (table.effect[0], table.p[0], table.verdict[0]) == (0.0, 1.0, "same")


def test_a_difference_within_the_scatter_of_the_seeds_is_named_so():
    table = statistics.compare(psnr(a=0.2, b=0.0), {"a": 0.15, "b": 0.0})
    assert table.verdict[0] == "seeds"
    assert "within the scatter of the seeds" in table.conclusion[0]


def test_errors_over_seeds_of_two_methods_add_as_squares():
    table = statistics.compare(psnr(a=0.2, b=0.0), {"a": 0.03, "b": 0.04})
    assert table.seed_error[0] == pytest.approx(0.05)


def test_an_unknown_error_over_seeds_decides_nothing():
    assert statistics.compare(psnr(a=0.2, b=0.0), {"a": math.nan, "b": 0.0}).verdict[0] == "better"


def test_five_images_are_too_few():
    table = statistics.compare(psnr(a=5.0, b=0.0)[:5], NO_SEEDS)
    assert table.verdict[0] == "few"
    assert "5 images are too few" in table.conclusion[0]


def test_a_mean_that_a_few_images_carry_is_told_with_their_number():
    values = pd.DataFrame({"a": [20.0, 25.0, 28.0, 35.0], "b": [20.0, 25.5, 28.5, 26.0]})
    table = statistics.compare(values, NO_SEEDS)
    assert table.loc[0, ["method", "ahead", "images"]].tolist() == ["a", 1, 4]
    assert (
        table.conclusion[0]
        == "4 images are too few to tell whether a is better than b (by 2.00 dB on average, and on 1 of 4)"
    )


def test_one_image_has_no_interval():
    table = statistics.compare(psnr(a=5.0, b=0.0)[:1], NO_SEEDS)
    assert table.verdict[0] == "few" and math.isnan(table.effect_low[0])


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        low, high = statistics.bootstrap_interval([random.normal(0.3, 1.0, 40)], np.mean)
        held += low <= 0.3 <= high
    assert 51 <= held <= 60


def test_the_interval_of_a_spread_draws_the_same_images_for_all_methods():
    found, low, high = statistics.spread(psnr(a=0.0, b=0.5, c=1.0))
    assert found == pytest.approx(1.0, abs=0.05)
    assert high - low < 0.15, "the images' own differences, of 3 dB, cancel"
    assert low < found < high


def test_a_single_method_has_no_spread():
    assert all(math.isnan(value) for value in statistics.spread(psnr(a=0.0)))


def test_the_correction_of_holm_is_that_of_his_procedure():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_the_test_is_wilcoxons_signed_rank_test():
    differences = np.array([0.3, -0.1, 0.2, 0.5, 0.4, 0.25, 0.6])
    assert statistics.wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert statistics.wilcoxon(differences) == pytest.approx(2 * 2 / 2**7), "rank sum 1: {} and {1} of 128"


def test_the_same_numbers_give_the_same_table():
    one, other = (statistics.compare(psnr(a=0.1, b=0.0, c=0.0), NO_SEEDS) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)
