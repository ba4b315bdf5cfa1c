import json

import numpy as np
import pandas as pd
import pytest

from dvlae.reporting.comparison_figures import (
    MIN_PSNR_SPAN,
    plot_paired_psnr,
    plot_quality_over_time,
    plot_receptive_field,
)
from dvlae.runs.folder import MEASURE_COLUMNS, PSNR_COLUMNS, Run


@pytest.fixture
def make_run(tmp_path):
    """Return a function that makes a run out of the PSNR of its images."""

    def make(method, psnr, seed=0, dataset="set", minutes=10.0, elbo=-1.0, record=None, psnr_limit=None):
        field = int(method.removeprefix("dvlae-rf")) if method.startswith("dvlae-rf") else None
        folder = tmp_path / dataset / method / f"seed{seed}"
        table = pd.DataFrame({"dataset": dataset, "method": method, "receptive_field": field, "seed": seed}, range(1))
        table = table.merge(pd.DataFrame({"image": [f"image {i}" for i in range(len(psnr))], "psnr": psnr}), "cross")
        (folder / "model").mkdir(parents=True)
        table = table.assign(ssim=0.5, psnr_noisy=20.0)
        if psnr_limit is not None:
            table = table.reindex(columns=[*PSNR_COLUMNS, *MEASURE_COLUMNS]).assign(psnr_limit=psnr_limit)
        table.to_csv(folder / "psnr.csv", index=False)
        if record is not None:
            (folder / "method.json").write_text(json.dumps(record))
        if field is not None:
            (folder / "model/run.json").write_text(json.dumps({"seconds": 60 * minutes, "best_val_elbo": elbo}))
        return Run.read(folder / "psnr.csv")

    return make


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_each_image_is_joined_between_all_methods_the_best_on_top(make_run):
    runs = [make_run("gaussian", [27.0, 26.0, 28.0]), make_run("dvlae-rf4", [30.0, 29.0, 31.0])]
    values = plot_paired_psnr(runs).axes[0]
    assert labels(values) == ["dvlae-rf4", "gaussian"]
    assert [line.get_xdata().tolist() for line in values.lines[:3]] == [[30, 27], [29, 26], [31, 28]]


def test_an_estimate_without_any_error_has_no_place(make_run):
    runs = [make_run("gaussian", [27.0, 26.0]), make_run("median", [28.0, 25.0]), make_run("copy", [np.inf, np.inf])]
    assert labels(plot_paired_psnr(runs).axes[0]) == ["gaussian", "median"]
    assert "copy" not in [text.get_text() for text in plot_quality_over_time(runs).axes[1].texts]


def test_methods_of_the_same_receptive_field_are_apart(make_run):
    runs = [make_run(name, [psnr, psnr]) for name, psnr in (("dvlae-rf4", 30.0), ("dvlae-refined", 31.0))]
    assert labels(plot_paired_psnr(runs).axes[0]) == ["dvlae-refined", "dvlae-rf4"]


def test_how_far_a_method_stays_behind_is_paired_and_averaged_over_seeds(make_run):
    runs = [make_run("dvlae-rf4", [30.0, 20.0], 0), make_run("dvlae-rf4", [32.0, 22.0], 1)]
    behind = plot_paired_psnr([*runs, make_run("bm3d", [28.0, 19.0])]).axes[1]
    assert labels(behind) == ["bm3d"]
    assert behind.collections[0].get_offsets()[:, 0].tolist() == [-3, -2]
    interval, mean = behind.lines[1:]
    assert mean.get_xdata() == pytest.approx(-2.5)
    assert interval.get_xdata() == pytest.approx([-3, -2])


def test_noisy_images_are_compared_with_where_there_is_nothing_else(make_run):
    noisy, trained, other = (make_run(name, [20.0, 25.0]) for name in ("noisy", "dvlae-rf4", "gaussian"))
    assert "noisy" in labels(plot_paired_psnr([noisy, trained]).axes[0])
    assert "noisy" not in labels(plot_paired_psnr([noisy, trained, other]).axes[0])


def test_one_method_and_images_without_clean_ones_have_no_pairs(make_run):
    assert plot_paired_psnr([make_run("dvlae-rf4", [30.0, 31.0])]) is None
    assert plot_paired_psnr([make_run("dvlae-rf8", [np.nan, np.nan]), make_run("noisy", [np.nan, np.nan])]) is None


def test_ablation_draws_each_seed_and_the_mean_over_seeds(make_run):
    psnr = {(4, 0): [30.0, 32.0], (4, 1): [31.0, 33.0], (40, 0): [35.0, 35.0], (40, 1): [36.0, 36.0]}
    axes = plot_receptive_field([make_run(f"dvlae-rf{f}", values, s) for (f, s), values in psnr.items()], {}).axes[0]
    mean, seeds = axes.lines
    assert (mean.get_xdata().tolist(), mean.get_ydata().tolist()) == ([4, 40], [31.5, 35.5])
    assert seeds.get_ydata().tolist() == [31, 32, 35, 36]


def test_ablation_marks_the_correlation_length_where_it_is_known(make_run):
    runs = [make_run(f"dvlae-rf{f}", [30.0, 31.0], dataset=name) for name in ("one", "two") for f in (4, 40)]
    first, second = plot_receptive_field(runs, {"two": 2.5}).axes
    assert len(first.lines) == len(second.lines) - 1
    assert second.lines[-1].get_xdata() == [2.5, 2.5]


def test_ablation_without_clean_images_draws_the_elbo(make_run):
    runs = [make_run(f"dvlae-rf{f}", [np.nan], elbo=-f / 10) for f in (4, 40)]
    axes = plot_receptive_field(runs, {}).axes[0]
    assert axes.lines[0].get_ydata().tolist() == [-0.4, -4.0]
    assert axes.get_ylabel().startswith("best validation ELBO")


def test_a_small_difference_is_not_drawn_large(make_run):
    runs = [make_run("dvlae-rf4", [30.0]), make_run("dvlae-rf40", [30.01])]
    low, high = plot_receptive_field(runs, {}).axes[0].get_ylim()
    assert high - low == pytest.approx(MIN_PSNR_SPAN)


def test_an_oracle_has_a_dagger_as_in_the_tables(make_run):
    runs = [make_run("gaussian", [27.0, 26.0]), make_run("gaussian-oracle", [28.0, 27.0], record={"oracle": True})]
    paired, timed = plot_paired_psnr(runs), plot_quality_over_time(runs)
    assert labels(paired.axes[0]) == ["gaussian-oracle †", "gaussian"]
    assert paired.get_suptitle().endswith("† oracle")
    assert "† oracle" in [text.get_text() for text in timed.legends[0].get_texts()]
    without = plot_quality_over_time(runs[:1])
    assert "† oracle" not in [text.get_text() for text in without.legends[0].get_texts()]


def times(seconds, prediction_seconds, learned=False):
    return {
        "status": "done", "trains": learned, "training_seconds": seconds, "prediction_seconds": prediction_seconds,
        "megapixels": 0.5,
    }  # fmt: skip


def points(axes):
    return [(*line.get_xdata(), *line.get_ydata()) for line in axes.lines if line.get_marker() != "None"]


def test_each_method_stands_at_the_time_of_its_training_and_of_its_denoising(make_run):
    runs = [make_run("dvlae-rf4", [30.0, 31.0], minutes=5), make_run("noisy", [20.0, 20.0])]
    runs += [make_run("n2v", [32.0, 33.0], seed, record=times(100 + 20 * seed, 2, True)) for seed in (0, 1)]
    runs.append(make_run("gaussian", [27.0, 28.0], record=times(3, 0.1)))
    figure = plot_quality_over_time(runs)
    assert points(figure.axes[0]) == [(110, 32.5), (300, 30.5), (3, 27.5)]
    assert points(figure.axes[1])[::2] == [(4, 32.5), (0.2, 27.5)]
    assert [text.get_text() for text in figure.axes[1].texts] == ["n2v", "dvlae-rf4", "gaussian"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DVLAE", "trained", "not trained"]


def test_only_datasets_with_clean_images_have_a_time(make_run):
    unknown = [make_run("dvlae-rf4", [np.nan], dataset="unknown")]
    assert plot_quality_over_time([*unknown, make_run("noisy", [20.0])]) is None
    figure = plot_quality_over_time([*unknown, make_run("dvlae-rf4", [30.0], dataset="measured")])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["measured", ""]


def test_a_method_whose_time_was_not_recorded_is_named_at_its_height(make_run):
    axes = plot_quality_over_time([make_run("gaussian", [30.0]), make_run("median", [31.0])]).axes[1]
    assert [text.get_text() for text in axes.texts] == ["median", "gaussian"]
    assert all(0 <= text.xyann[1] <= 1 for text in axes.texts)


@pytest.mark.parametrize("limit, shown", [(32.0, True), (45.0, False)])
def test_the_limit_is_drawn_where_it_is_near(make_run, limit, shown):
    legend = plot_quality_over_time([make_run("dvlae-rf4", [30.0], psnr_limit=limit)]).legends[0]
    assert any("noise of the clean images" in text.get_text() for text in legend.get_texts()) == shown


@pytest.mark.parametrize("count", [1, 2, 8, 30])
def test_the_names_of_any_number_of_methods_do_not_overlap(make_run, count):
    figure = plot_quality_over_time([make_run(f"m{i}", [30 + 0.001 * i], record=times(1, 1)) for i in range(count)])
    places = [text.xyann[1] for text in figure.axes[1].texts]
    height = figure.axes[1].get_position().height * figure.get_size_inches()[1]
    assert len(places) == count
    assert min(-np.diff(places), default=1) * height > 0.1
