import itertools
import json
import shutil
import struct
import xml.etree.ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from dvlae.config import report_names
from dvlae.config.dataset import EvaluationSettings
from dvlae.config.grid import dvlae_method
from dvlae.data.canonical import read_noisy, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.evaluation import target
from dvlae.evaluation.evaluate import evaluate
from dvlae.evaluation.register import Targets, register
from dvlae.methods.run import run_method
from dvlae.reporting import comparison_figures, figures, noise_figures, panels, training_figures
from dvlae.reporting.diagnosis import diagnose
from dvlae.runs.folder import Run, best_run
from dvlae.system.errors import UserError

SETTINGS = EvaluationSettings(register=True, fit="estimate_to_clean", border=4, data_range="auto")


def make_dataset(folder, shapes, with_clean=True):
    random = np.random.default_rng(0)
    rows = []
    for i, shape in enumerate(shapes):
        clean = 100 + 40 * ndimage.gaussian_filter(random.normal(size=shape), 3, axes=range(1, len(shape)))
        noise = ndimage.correlate1d(random.normal(size=shape), [1, 1], axis=-1)
        image = Image(f"c {i}", folder / f"noisy/c {i}.tif", folder / f"clean/{i}.tif" if with_clean else None, shape)
        write_image(image.noisy, clean + noise)
        if with_clean:
            write_image(image.clean, clean)
        rows.append(image)
    write_manifest(folder, rows)
    return folder


def make_run(images, method, field=None, seed=0, error=0.3, epochs=6, settings=SETTINGS, levels=3, targets=None):
    folder = images.parent / method / f"seed{seed}"
    random = np.random.default_rng(seed)
    for image in read_manifest(images):
        noisy = read_noisy(image)
        denoised = ndimage.gaussian_filter(noisy, error, axes=range(1, noisy.ndim))
        write_image(folder / "denoised" / f"{image.name}.tif", denoised)
        if field is not None:
            write_image(folder / "uncertainty" / f"{image.name}.tif", random.random(image.shape))
    if field is not None:
        names = [f"{part}_{name}" for part in ("train", "val") for name in ("elbo", "kl", "log_likelihood", "mse")]
        history = pd.DataFrame(random.normal(size=(epochs, len(names))), columns=names)
        for level, part in itertools.product(range(levels), ("train", "val")):
            history[f"{part}_kl_level{level}"] = 0.1 * 8.0**-level * (1 + random.random(epochs))
        history.insert(0, "step", 50 * np.arange(1, epochs + 1))
        history.insert(1, "minutes", 0.2 * history.step)
        (folder / "model").mkdir()
        history.to_csv(folder / "model" / "history.csv", index=False)
        (folder / "model" / "run.json").write_text(json.dumps({"best_val_elbo": -1.0 - 0.01 * field, "seconds": 60.0}))
        architecture = {"image_channels": 1, "levels": levels, "levels_per_scale": 1, "dimensions": 2}
        (folder / "model" / "model.json").write_text(json.dumps({"architecture": architecture}))
    evaluate(
        images,
        folder / "denoised",
        folder / "psnr.csv",
        dataset=images.parent.name,
        method=method,
        receptive_field=field,
        seed=seed,
        settings=settings,
        targets=targets,
    )
    return folder / "psnr.csv"


def all_figures(images, psnr_csvs, settings=SETTINGS, **others):
    name, output = images.parent.name, images.parent / "figures"
    figures.make_figures(psnr_csvs, output, images={name: images}, settings={name: settings}, **others)
    return output


def names(output):
    return sorted(path.stem for path in output.glob("*.png"))


def titles(figure):
    return [axes.get_title().replace("\n", " ") for axes in figure.axes if axes.get_title()]


def read_panel(images, psnr_csv, settings=SETTINGS):
    return panels.plot_panel(Run.read(psnr_csv), read_manifest(images), Targets(settings))


@pytest.fixture
def images(tmp_path):
    return make_dataset(tmp_path / "made_up" / "images", [(1, 70, 80), (1, 50, 120), (1, 90, 60)])


@pytest.fixture
def images_without_clean(tmp_path):
    return make_dataset(tmp_path / "no_clean" / "images", [(1, 60, 70), (1, 64, 64)], with_clean=False)


def test_one_command_makes_every_figure_as_png_and_svg(images):
    runs = [make_run(images, "noisy"), make_run(images, "gaussian"), make_run(images, "dvlae-rf4", 4)]
    runs.append(make_run(images, "dvlae-rf40", 40))
    output = all_figures(images, runs)
    expected = ["calibration", "kl_per_level", "panel", "removed_noise", "training_curves"]
    expected = [f"{name}_made_up" for name in [*expected, "paired_psnr", "side_by_side", "spectra"]]
    expected = sorted([*expected, "quality_over_time", "receptive_field"])
    assert names(output) == expected
    for name in expected:
        width, height = struct.unpack(">II", (output / f"{name}.png").read_bytes()[16:24])
        assert min(width, height) > 400
        xml.etree.ElementTree.parse(output / f"{name}.svg")
        assert (output / f"{name}.svg").stat().st_size < 3e6


def test_every_kind_of_figure_can_be_plotted():
    methods = [dvlae_method(field, "nonlinear") for field in (4, 40)]
    planned = report_names.figures({"small": report_names.Contents(methods, measured=True, sampled=True)})
    assert {figure.kind for figure in planned if figure.dataset is None} == set(figures.PLOTS)
    assert {figure.kind for figure in planned if figure.dataset == "small"} == set(figures.PLOTS_OF_DATASET)


def test_a_training_whose_steps_were_all_rolled_back_is_drawn(images):
    psnr_csv = make_run(images, "dvlae-rf4", 4)
    path = psnr_csv.parent / "model" / "history.csv"
    history = pd.read_csv(path).iloc[:1]
    history.loc[:, history.columns.str.startswith("train_")] = np.nan
    history.to_csv(path, index=False)
    assert "training_curves_made_up" in names(all_figures(images, [psnr_csv]))


def test_equal_runs_give_equal_files(images):
    runs = [make_run(images, "noisy")]
    output = all_figures(images, runs)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    all_figures(images, runs)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_all_that_compare_with_clean_images_register_each_image_once_with_a_table(images, tmp_path, monkeypatch):
    registrations, find_shift = [], target.find_shift
    monkeypatch.setattr(target, "find_shift", lambda *pair: registrations.append(pair) or find_shift(*pair))
    table, how = tmp_path / "targets.csv", {"settings": SETTINGS, "targets": tmp_path / "targets.csv"}
    register(images, table, settings=SETTINGS)
    run_method("gaussian", images, tmp_path / "denoised", **how)
    diagnose(images, tmp_path / "noise.json", dataset="made_up", noise_direction="x", **how)
    runs = [make_run(images, method, targets=table) for method in ("noisy", "gaussian")]
    runs.append(make_run(images, "dvlae-rf4", 4, targets=table))
    all_figures(images, runs, targets={"made_up": table})
    assert len(registrations) == len(read_manifest(images)) == 3


def test_figures_with_a_table_of_targets_are_those_without(images, tmp_path):
    runs = [make_run(images, "noisy"), make_run(images, "dvlae-rf4", 4)]
    output = all_figures(images, runs)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    register(images, tmp_path / "targets.csv", settings=SETTINGS)
    all_figures(images, runs, targets={"made_up": tmp_path / "targets.csv"})
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_calibration_draws_what_was_found_beside_what_would_be_right(images):
    run = Run.read(make_run(images, "dvlae-rf4", 4))
    figure = noise_figures.plot_calibration(run, [*read_manifest(images)], Targets(SETTINGS))
    right, found = figure.axes[0].lines
    np.testing.assert_array_equal(right.get_xdata(), right.get_ydata())
    assert (np.diff(found.get_ydata()) >= 0).all()


def test_runs_without_deviations_make_no_calibration(images):
    psnr_csv = make_run(images, "dvlae-rf4", 4)
    for file in (psnr_csv.parent / "uncertainty").iterdir():
        file.unlink()
    assert not any(name.startswith("calibration") for name in names(all_figures(images, [psnr_csv])))


def test_one_receptive_field_makes_no_ablation(images):
    assert "receptive_field" not in names(all_figures(images, [make_run(images, "dvlae-rf4", 4)]))


def test_baselines_alone_make_no_training_curves(images):
    output = all_figures(images, [make_run(images, "noisy"), make_run(images, "gaussian")])
    kinds = ["side_by_side", "paired_psnr", "panel", "removed_noise", "spectra"]
    assert names(output) == sorted([*(f"{kind}_made_up" for kind in kinds), "quality_over_time"])


def test_a_dataset_without_clean_images_has_all_figures(images_without_clean):
    settings = EvaluationSettings()
    runs = [make_run(images_without_clean, f"dvlae-rf{field}", field, settings=settings) for field in (4, 40)]
    assert len(names(all_figures(images_without_clean, runs, settings))) == 6


def test_panel_shows_noisy_denoised_clean_deviation_and_residual(images):
    figure = read_panel(images, make_run(images, "dvlae-rf4", 4))
    assert titles(figure) == [
        "Noisy",
        "Denoised: DVLAE, receptive field 4 px",
        "Clean",
        "Posterior standard deviation",
        "Residual: denoised − clean",
    ]


def test_panel_has_the_psnr_of_the_table_under_the_estimate(images):
    psnr_csv = make_run(images, "dvlae-rf4", 4)
    captions = [text.get_text() for axes in read_panel(images, psnr_csv).axes for text in axes.texts]
    table = pd.read_csv(psnr_csv)
    assert any(f"{value:.2f} dB" in captions[1] for value in table.psnr)
    assert any(f"{value:.2f} dB" in captions[0] for value in table.psnr_noisy)


def test_panel_without_clean_image_shows_what_is_removed(images_without_clean):
    settings = EvaluationSettings()
    psnr_csv = make_run(images_without_clean, "dvlae-rf4", 4, settings=settings)
    figure = read_panel(images_without_clean, psnr_csv, settings)
    assert titles(figure)[-1] == "Removed: noisy − denoised"
    assert "Clean" not in titles(figure)


def test_panel_of_a_method_without_samples_has_no_deviation(images):
    assert "Posterior standard deviation" not in titles(read_panel(images, make_run(images, "gaussian")))


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_panel_takes_several_channels(tmp_path, channels):
    images = make_dataset(tmp_path / "colour" / "images", [(channels, 40, 50)])
    assert len(titles(read_panel(images, make_run(images, "dvlae-rf4", 4)))) == 5


@pytest.mark.parametrize("shape", [(2, 6, 40, 50), (1, 1, 40, 50)])
def test_panel_shows_the_middle_plane_of_a_volume(tmp_path, shape):
    images = make_dataset(tmp_path / "volumes" / "images", [shape])
    figure = read_panel(images, make_run(images, "dvlae-rf4", 4))
    assert len(titles(figure)) == 5
    assert figure.get_suptitle() == "volumes, middle plane of the volume “c 0”"
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape[:2] == (32, 42)  # less the border


def test_panel_draws_a_trace_as_lines_over_each_other_with_the_deviation_around_the_estimate(tmp_path):
    images = make_dataset(tmp_path / "traces" / "images", [(2, 300)])
    figure = read_panel(images, make_run(images, "dvlae-rf4", 4))
    (first, *_), (zoom, *_), (residual, *_) = np.reshape(figure.axes, (3, 2))
    noisy, denoised, clean = (line.get_ydata() for line in first.lines)
    assert len(noisy) == 300 - 2 * SETTINGS.border
    assert residual.lines[-1].get_ydata() == pytest.approx(denoised - clean)
    assert len(zoom.lines[0].get_ydata()) == 73
    assert [text.get_text() for text in figure.legends[0].get_texts()][3] == "± posterior standard deviation"


def test_panel_magnifies_a_short_part_of_a_long_trace(tmp_path):
    images = make_dataset(tmp_path / "traces" / "images", [(1, 5000)])
    figure = read_panel(images, make_run(images, "gaussian"))
    assert len(figure.axes[1].lines[0].get_ydata()) == panels.MAX_ZOOM_LENGTH


def test_panel_of_traces_without_clean_ones_shows_what_is_removed(tmp_path):
    images = make_dataset(tmp_path / "traces" / "images", [(1, 300)], with_clean=False)
    settings = EvaluationSettings()
    figure = read_panel(images, make_run(images, "gaussian", settings=settings), settings)
    assert figure.axes[2].get_ylabel() == "Removed:\nnoisy − denoised"


def test_panel_takes_names_that_look_like_formulas(tmp_path):
    images = make_dataset(tmp_path / "made_up" / "images", [(1, 40, 50)])
    only = read_manifest(images)[0]
    odd = Image("cost $x$ and $y^$", only.noisy, only.clean, only.shape)
    write_manifest(images, [odd])
    assert names(all_figures(images, [make_run(images, "noisy")])) == [
        "panel_made_up",
        "removed_noise_made_up",
        "spectra_made_up",
    ]


def test_panel_shows_the_image_with_the_median_gain(images):
    psnr_csv = make_run(images, "gaussian")
    table = pd.read_csv(psnr_csv)
    gain = table.psnr - table.psnr_noisy
    median = table.image[gain.sort_values().index[1]]
    assert median in read_panel(images, psnr_csv).get_suptitle()


def test_the_run_shown_is_a_trained_one_even_where_a_baseline_is_better(images):
    runs = [Run.read(make_run(images, "gaussian", error=0.7)), Run.read(make_run(images, "dvlae-rf4", 4, error=0.1))]
    assert runs[0].psnr.psnr.mean() > runs[1].psnr.psnr.mean()
    assert best_run(runs).method == "dvlae-rf4"


def test_noise_of_real_correlation_is_drawn_as_such(images):
    run = Run.read(make_run(images, "gaussian"))
    figure = noise_figures.plot_removed_noise([run], read_manifest(images), Targets(SETTINGS))
    along_x, along_y = (axes.lines[-1].get_ydata() for axes in figure.axes)
    assert along_x[:3] == pytest.approx([1, 0.5, 0], abs=0.06)
    assert along_y[:3] == pytest.approx([1, 0, 0], abs=0.06)


@pytest.mark.parametrize(("shapes", "axes"), [([(1, 700), (1, 40)], "x"), ([(1, 8, 50, 60), (1, 40, 50, 90)], "xyz")])
def test_noise_of_traces_and_volumes_is_drawn_along_each_of_their_axes(tmp_path, shapes, axes):
    images = make_dataset(tmp_path / "made_up" / "images", shapes)
    run = Run.read(make_run(images, "gaussian"))
    figure = noise_figures.plot_removed_noise([run], read_manifest(images), Targets(SETTINGS))
    assert [plot.texts[0].get_text() for plot in figure.axes] == [f"along {name}" for name in axes]
    assert figure.axes[0].lines[-1].get_ydata()[:3] == pytest.approx([1, 0.5, 0], abs=0.2)
    assert len(figure.axes[-1].lines[-1].get_ydata()) == (16 if axes == "x" else 5)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_each_of_any_number_of_methods_has_its_plots_the_best_first(images, count):
    runs = [Run.read(make_run(images, f"m{i}", error=0.2 + 0.2 * i)) for i in reversed(range(count))]
    runs.append(Run.read(make_run(images, "noisy", error=0)))
    shown = read_manifest(images), Targets(SETTINGS)
    expected = sorted((run.method for run in runs[:-1]), key={r.method: -r.psnr.psnr.mean() for r in runs}.get)
    removed, spectra = noise_figures.plot_removed_noise(runs, *shown), noise_figures.plot_spectra(runs, *shown)
    assert [plot.get_title(loc="left") for plot in removed.axes if plot.get_visible()][::2] == expected
    assert [plot.get_title(loc="left") for plot in spectra.axes if plot.get_visible()] == expected
    side_by_side = titles(comparison_figures.plot_side_by_side(runs, *shown))
    assert [title.split()[0] for title in side_by_side] == ["noisy", "clean", *expected]
    best = next(run for run in runs if run.method == expected[0])
    assert side_by_side[2] in [f"{expected[0]} {value:.2f} dB" for value in best.psnr.psnr]


def test_spectra_show_what_a_filter_takes_away_and_how_far_half_of_it_is_kept(images):
    run = Run.read(make_run(images, "gaussian", error=1))
    (plot,) = noise_figures.plot_spectra([run], read_manifest(images), Targets(SETTINGS)).axes
    noisy, clean, denoised, kept = (line.get_ydata() for line in plot.lines)
    assert np.all(clean[-5:] < noisy[-5:]) and np.all(denoised[-5:] < noisy[-5:])
    assert plot.lines[3].get_xdata()[0] == pytest.approx(run.psnr.kept_band.mean())
    assert list(kept) == [0, 1]


def test_all_methods_have_the_same_grey_values_and_colours(images):
    runs = [Run.read(make_run(images, f"m{i}", error=0.3 + i)) for i in range(3)]
    figure = comparison_figures.plot_side_by_side(runs, read_manifest(images), Targets(SETTINGS))
    residuals = [image for axes in figure.axes for image in axes.images if image.get_cmap().name == "PuOr"]
    assert len(residuals) == 4
    assert len({image.get_clim() for image in residuals}) == 1


@pytest.mark.parametrize("shape", [(1, 300), (1, 5, 30, 40), (3, 40, 50)])
@pytest.mark.parametrize("with_clean", [True, False])
def test_methods_are_shown_side_by_side_of_any_kind_of_image(tmp_path, shape, with_clean):
    images = make_dataset(tmp_path / "made_up" / "images", [shape], with_clean)
    runs = [Run.read(make_run(images, name)) for name in ("noisy", "gaussian", "median")]
    figure = comparison_figures.plot_side_by_side(runs, read_manifest(images), Targets(SETTINGS))
    assert len(titles(figure)) == 3 + with_clean
    assert ("clean" if with_clean else "noisy") in figure.get_suptitle()


def test_images_that_are_too_small_have_no_spectra(tmp_path):
    images = make_dataset(tmp_path / "made_up" / "images", [(1, 14, 40)])
    assert (
        noise_figures.plot_spectra([Run.read(make_run(images, "m"))], read_manifest(images), Targets(SETTINGS)) is None
    )


def test_training_curves_say_how_long_the_longest_training_was(images):
    figure = training_figures.plot_training_curves([Run.read(make_run(images, "dvlae-rf4", 4))])
    assert figure.get_suptitle() == "made_up: training, at most 60.0 minutes a run"


def test_seeds_of_one_receptive_field_share_a_colour(images):
    runs = [Run.read(make_run(images, f"dvlae-rf{f}", f, seed)) for f in (4, 40) for seed in (0, 1)]
    colours = [line.get_color() for line in training_figures.plot_training_curves(runs).axes[0].lines[::2]]
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_training_of_one_epoch_is_drawn(images):
    run = Run.read(make_run(images, "dvlae-rf4", 4, epochs=1))
    assert training_figures.plot_training_curves([run]).axes[0].lines[0].get_marker() == "o"


def collapsed(figure):
    """Return the levels that are marked as collapsed."""
    crosses = [line for line in figure.axes[1].lines if line.get_marker() == "x"]
    return [round(place) for line in crosses for place in line.get_xdata()]


@pytest.mark.parametrize("levels", [1, 3, 14])
def test_any_number_of_levels_is_drawn(images, levels):
    figure = training_figures.plot_kl_per_level([Run.read(make_run(images, "dvlae-rf4", 4, levels=levels))])
    assert len(figure.axes[0].lines) == levels


def test_a_level_that_carries_nothing_is_marked_and_no_other(images):
    psnr_csv = make_run(images, "dvlae-rf4", 4)
    path = psnr_csv.parent / "model" / "history.csv"
    assert collapsed(training_figures.plot_kl_per_level([Run.read(psnr_csv)])) == []
    # 0.01 nats at a position of level 1, which stands for 16 pixels, are 0.000625 a pixel.
    pd.read_csv(path).assign(val_kl_level1=0.0006).to_csv(path, index=False)
    assert collapsed(training_figures.plot_kl_per_level([Run.read(psnr_csv)])) == [1]


def test_a_divergence_of_zero_is_drawn_on_the_logarithmic_axis(images):
    psnr_csv = make_run(images, "dvlae-rf4", 4)
    path = psnr_csv.parent / "model" / "history.csv"
    pd.read_csv(path).assign(val_kl_level2=0.0).to_csv(path, index=False)
    figure = training_figures.plot_kl_per_level([Run.read(psnr_csv)])
    assert figure.axes[0].lines[2].get_ydata().min() > 0
    assert collapsed(figure) == [2]


def test_a_history_without_levels_says_what_to_do(images):
    psnr_csv = make_run(images, "dvlae-rf4", 4, levels=0)
    with pytest.raises(UserError, match=r"val_kl_level0.*train the model again"):
        training_figures.plot_kl_per_level([Run.read(psnr_csv)])


def test_a_run_without_its_images_is_left_out_of_the_figures_that_show_images(images, caplog, monkeypatch):
    runs = [make_run(images, name) for name in ("noisy", "median", "gaussian")]
    shutil.rmtree(runs[2].parent / "denoised")
    shown = figures._Dataset([Run.read(run) for run in runs], read_manifest(images), Targets(SETTINGS))
    pictures = [title.partition(" ")[0] for title in titles(figures.PLOTS_OF_DATASET["side_by_side"](shown))]
    assert sorted(pictures) == ["clean", "median", "noisy"]
    monkeypatch.setattr(report_names, "figures", lambda contents: [])
    all_figures(images, runs)
    assert f"without denoised images; there is no {runs[2].parent / 'denoised'}" in caplog.text


def test_without_any_denoised_image_there_are_the_figures_of_numbers(images):
    run = make_run(images, "dvlae-rf4", 4)
    for name in ("denoised", "uncertainty"):
        shutil.rmtree(run.parent / name)
    shown = figures._Dataset([Run.read(run)], read_manifest(images), Targets(SETTINGS))
    kinds = set(figures.PLOTS_OF_DATASET) - {"calibration"}
    assert {kind for kind in kinds if figures.PLOTS_OF_DATASET[kind](shown)} == {"training_curves", "kl_per_level"}


def test_white_noise_has_no_length_to_mark(images, tmp_path):
    (tmp_path / "noise.json").write_text('{"correlation_length": null}')
    output = all_figures(images, [make_run(images, "noisy")], noise={"made_up": tmp_path / "noise.json"})
    assert "panel_made_up" in names(output)


def test_a_diagnosis_without_the_length_of_the_noise_is_refused(images, tmp_path):
    found = tmp_path / "noise.json"
    found.write_text("{}")
    with pytest.raises(UserError, match=r"noise.json.*dvlae diagnose"):
        all_figures(images, [make_run(images, "noisy")], noise={"made_up": found})


def test_a_dataset_without_images_named_is_refused(images):
    with pytest.raises(UserError, match="add --images made_up=FOLDER"):
        figures.make_figures([make_run(images, "noisy")], images.parent / "figures", images={}, settings={})
