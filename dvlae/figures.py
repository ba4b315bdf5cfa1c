"""The pictures: panels, training curves, divergence of each level, calibration, noise, comparisons of methods."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from dvlae.calibration import NOMINAL, calibrate_run
from dvlae.comparison_figures import paired_psnr, receptive_field, training_time, with_several_receptive_fields
from dvlae.config import EvaluationSettings
from dvlae.data.images import AXES, Image, read_canonical, spread_evenly
from dvlae.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, STYLE, Run, best_run, rising_colours, save
from dvlae.errors import UserError
from dvlae.evaluation import evaluated_images, read_estimate
from dvlae.metrics import Target, autocorrelation, find_region
from dvlae.noise_statistics import LONGEST_LAG, NoiseStatistics
from dvlae.progress import progress

IMAGES_FOR_NOISE = 16  # spread evenly: more change the curves by less than the width of a line
WIDEST = 1.42  # inches: five pictures beside each other fill the width of a page
SMALLEST_ZOOM = 64  # pixels
LONGEST_ZOOM = 250  # pixels of a trace: more would run together
MOST_CHANNELS = 3  # of a trace that are drawn, one beside the other
MIDDLE = 128  # pixels: side of the part of a generated image that is shown
COLLAPSED = 0.01  # nats at a position of a level's grid, all its channels together: less says nothing of an image


def make_figures(
    psnr_csvs: list[Path],
    output: Path,
    *,
    images: Mapping[str, Path],
    settings: Mapping[str, EvaluationSettings],
    noise: Mapping[str, Path] | None = None,
) -> None:
    """Write every figure, each as PNG and SVG.

    For each dataset ``panel_{dataset}``, ``removed_noise_{dataset}`` and, where models were trained,
    ``training_curves_{dataset}`` and ``kl_per_level_{dataset}``; with clean images ``paired_psnr_{dataset}`` of two
    methods or more and, with posterior standard deviations, ``calibration_{dataset}``. Over all datasets
    ``receptive_field`` where one has several receptive fields, ``training_time`` where a trained one can be measured.

    Parameters
    ----------
    psnr_csvs
        One file a run; ``denoised/``, ``uncertainty/`` and ``model/history.csv`` are looked for beside it.
    output
        Folder for the pictures.
    images
        Folder of canonical images (with ``manifest.csv``) of each dataset.
    settings
        How each dataset is evaluated.
    noise
        What ``dvlae diagnose`` found in datasets: JSON files with a ``correlation_length`` in pixels.

    Raises
    ------
    UserError
        Where the images of a dataset are not named, or files of a run are missing.
    """
    runs = [Run.read(path) for path in psnr_csvs]
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    for name in datasets:
        if name not in images or name not in settings:
            raise UserError(
                f"figures: found runs on {name!r}, but not where its images are; add --images {name}=FOLDER"
            )
    lengths = {name: _correlation_length(path) for name, path in (noise or {}).items()}
    lengths = {name: length for name, length in lengths.items() if length is not None}
    with matplotlib.rc_context(STYLE):
        for name in progress(datasets, description="figures", unit="dataset"):
            mine = [run for run in runs if run.dataset == name]
            chosen = evaluated_images(images[name], settings[name])
            save(panel(best_run(mine), chosen, settings[name]), output / f"panel_{name}")
            save(removed_noise(mine, chosen, settings[name]), output / f"removed_noise_{name}")
            if trained := [run for run in mine if run.receptive_field is not None]:
                save(training_curves(trained), output / f"training_curves_{name}")
                save(kl_per_level(trained), output / f"kl_per_level_{name}")
                if figure := calibration(best_run(trained), chosen, settings[name]):
                    save(figure, output / f"calibration_{name}")
            if figure := paired_psnr(mine):
                save(figure, output / f"paired_psnr_{name}")
        if compared := with_several_receptive_fields(runs):
            save(receptive_field(compared, lengths), output / "receptive_field")
        if figure := training_time(runs):
            save(figure, output / "training_time")


def _correlation_length(path: Path) -> float | None:
    """Return the length in pixels; None where the noise is not correlated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["correlation_length"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not what dvlae diagnose writes ({error!r}); run it again") from None


# ------------------------------------------------------------------------------------------------ panel


@dataclass(frozen=True)
class Picture:
    """One column of a panel, or one line in that of a trace.

    Attributes
    ----------
    title
        Above it.
    pixels
        (C, Y, X), or (C, X) of a trace.
    kind
        ``"image"``, ``"deviation"`` or ``"residual"``: how it is coloured.
    caption
        Below it; where empty, a colour bar stands there.
    """

    title: str
    pixels: np.ndarray
    kind: str
    caption: str = ""


def panel(run: Run, images: Sequence[Image], settings: EvaluationSettings) -> Figure:
    """Show one image: noisy, denoised, clean, posterior standard deviation, residual; whole, and a part magnified.

    A volume is shown by its middle plane, a trace by lines over each other.

    Parameters
    ----------
    run
        Whose estimate is shown.
    images
        The evaluated images of its dataset. The one with the median gain in PSNR is shown: neither the best nor the
        worst. Without clean images it is the one in the middle.
    settings
        How the dataset is evaluated: all is shown in the units of the clean image, as it is compared.
    """
    image, why = _median_image(run, images)
    pictures = _pictures(run, image, settings)
    what = {2: "trace", 3: "image", 4: "middle plane of the volume"}[len(image.shape)]
    figure = _image_panel(pictures) if pictures[0].pixels.ndim == 3 else _trace_panel(pictures)
    figure.suptitle(f"{run.dataset}, {what} “{image.name}”{why}", fontsize=10, parse_math=False)
    return figure


def _image_panel(pictures: Sequence[Picture]) -> Figure:
    """Draw pictures (C, Y, X) beside each other, each with a part of it below."""
    height, width = pictures[0].pixels.shape[1:]
    rows, columns = _find_detail(next(p for p in reversed(pictures) if p.kind == "image").pixels)

    tall = WIDEST * float(np.clip(height / width, 0.4, 1.6))
    wide = float(np.clip(tall * width / height, 0.85 * WIDEST, WIDEST))
    figure = Figure(figsize=(wide * len(pictures) + 0.2, 2 * tall + 0.85))
    grid = figure.add_gridspec(3, len(pictures), height_ratios=[tall, tall, 0.09])
    limits = _grey_limits([p for p in pictures if p.kind == "image"])
    for column, picture in enumerate(pictures):
        whole, zoom, below = (figure.add_subplot(grid[row, column]) for row in range(3))
        whole.set_title(picture.title)
        _show(whole, picture, limits)
        drawn = _show(zoom, replace(picture, pixels=picture.pixels[:, rows, columns]), limits, like=picture)
        corner, size = (columns.start, rows.start), (columns.stop - columns.start, rows.stop - rows.start)
        whole.add_patch(Rectangle(corner, *size, fill=False, edgecolor=ORANGE, linewidth=1.2))
        for spine in zoom.spines.values():
            spine.set(visible=True, edgecolor=ORANGE, linewidth=1.5)
        below.set_axis_off()
        if picture.kind == "image":
            below.text(
                0.5, 0.5, picture.caption, ha="center", va="center", fontweight="bold", transform=below.transAxes
            )
        else:
            place = below.inset_axes([0.08, 0, 0.84, 1])  # narrower than the picture: its labels need room
            bar = figure.colorbar(drawn, cax=place, orientation="horizontal")
            bar.ax.tick_params(labelsize=7)
            bar.set_label("grey values", fontsize=7)
            bar.outline.set_visible(False)
    return figure


def _trace_panel(pictures: Sequence[Picture]) -> Figure:
    """Draw pictures (C, X) as lines over each other; below, a part of them, and the residual; a column a channel."""
    signals = [p for p in pictures if p.kind == "image"]
    residual = next(p for p in pictures if p.kind == "residual")
    deviation = next((p for p in pictures if p.kind == "deviation"), None)
    channels = min(MOST_CHANNELS, len(residual.pixels))
    (part,) = _find_detail(signals[-1].pixels)
    looks = [("0.7", 0.6), (BLUE, 1.2), (BLACK, 0.8)]  # colour and width of noisy, denoised, clean
    figure = Figure(figsize=(max(7.2, 4 * channels), 5.6))
    plots = figure.subplots(3, channels, squeeze=False)
    for channel, (whole, zoom, rest) in enumerate(plots.T):
        for axes, window in ((whole, slice(None)), (zoom, part)):
            x = np.arange(residual.pixels.shape[1])[window]
            for signal, (colour, width) in zip(signals, looks, strict=False):
                label = ": ".join(filter(None, [signal.title.replace("\n", " "), signal.caption]))
                axes.plot(x, signal.pixels[channel, window], color=colour, linewidth=width, label=label)
            if deviation is not None:
                middle, half = (p.pixels[channel, window] for p in (signals[1], deviation))
                label = "± posterior standard deviation"
                axes.fill_between(x, middle - half, middle + half, color=BLUE, alpha=0.25, linewidth=0, label=label)
        whole.axvspan(part.start, part.stop, facecolor="none", edgecolor=ORANGE, linewidth=1.2)
        for spine in zoom.spines.values():
            spine.set(visible=True, edgecolor=ORANGE, linewidth=1.5)
        rest.axhline(0, color="0.8", linewidth=0.8)
        rest.plot(residual.pixels[channel], color=PURPLE, linewidth=0.6)
        rest.set_xlabel("x (px)")
        if len(residual.pixels) > 1:
            whole.set_title(f"channel {channel}")
    plots[0, 0].set_ylabel("grey values")
    plots[1, 0].set_ylabel("grey values")
    plots[2, 0].set_ylabel(residual.title)
    figure.legend(*plots[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _median_image(run: Run, images: Sequence[Image]) -> tuple[Image, str]:
    """Return the image to show, and in words why it is this one."""
    gain = (run.psnr.psnr - run.psnr.psnr_noisy).set_axis(run.psnr.image).reindex([i.name for i in images])
    if gain.isna().all():
        return images[len(images) // 2], ""
    gain = gain.dropna().sort_values(kind="stable")
    name = gain.index[len(gain) // 2]
    why = f" (median gain of {len(gain)} images)" if len(gain) > 1 else ""
    return next(image for image in images if image.name == name), why


def _pictures(run: Run, image: Image, settings: EvaluationSettings) -> list[Picture]:
    noisy = read_canonical(image.noisy)
    estimate = read_estimate(run.folder / "denoised", image, noisy.shape)
    deviation_file = run.folder / "uncertainty" / f"{image.name}.tif"
    region = find_region(noisy.shape[1:], settings)
    deviation = read_canonical(deviation_file)[:, *region] if deviation_file.exists() else None
    title = f"Denoised: {run.label}".replace(", ", ",\n")
    if image.clean is None:
        noisy, estimate = noisy[:, *region], estimate[:, *region]
        pictures = [Picture("Noisy", noisy, "image"), Picture(title, estimate, "image")]
        residual = Picture("Removed:\nnoisy − denoised", noisy - estimate, "residual")
    else:
        target = Target.build(noisy, read_canonical(image.clean), settings)
        gain, _ = target.gain_and_offset(estimate)
        deviation = None if deviation is None else abs(gain) * deviation
        fitted = target.prepare(estimate)
        pictures = [
            Picture("Noisy", target.prepare(noisy), "image", _describe_score(target, noisy)),
            Picture(title, fitted, "image", _describe_score(target, estimate)),
            Picture("Clean", target.clean, "image", "reference"),
        ]
        residual = Picture("Residual:\ndenoised − clean", fitted - target.clean, "residual")
    if deviation is not None:
        pictures.append(Picture("Posterior\nstandard deviation", deviation, "deviation"))
    pictures.append(residual)
    if noisy.ndim == 4:
        middle = residual.pixels.shape[1] // 2
        return [replace(picture, pixels=picture.pixels[:, middle]) for picture in pictures]
    return pictures


def _describe_score(target: Target, estimate: np.ndarray) -> str:
    psnr, ssim = target.score(estimate)
    return f"{psnr:.2f} dB, SSIM {ssim:.2f}"


def _find_detail(image: np.ndarray) -> tuple[slice, ...]:
    """Return the part with the most structure, a quarter of the sides of an image (C, Y, X), less of a trace (C, X)."""
    grey = ndimage.gaussian_filter(image.mean(axis=0, dtype=np.float64), 2)
    part = min(1.0, max(0.25, SMALLEST_ZOOM / min(grey.shape)))
    longest = LONGEST_ZOOM if grey.ndim == 1 else max(grey.shape)
    sides = [min(longest, max(1, round(part * length))) for length in grey.shape]
    # The least of the slopes: detail in both directions, not one long edge.
    slope = np.min([np.abs(np.gradient(grey, axis=axis)) for axis in range(grey.ndim)], axis=0)
    mean = ndimage.uniform_filter(slope, sides)
    inside = mean[tuple(slice(n // 2, n // 2 + length - n + 1) for n, length in zip(sides, grey.shape, strict=True))]
    corner = np.unravel_index(np.argmax(inside), inside.shape)
    return tuple(slice(int(first), int(first) + side) for first, side in zip(corner, sides, strict=True))


def _grey_limits(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Return what is black and what is white in each channel, from the cleanest picture; colour images share them."""
    pixels = pictures[-1].pixels
    axis = None if len(pixels) == 3 else (1, 2)
    black, white = np.percentile(pixels, [0.2, 99.8], axis=axis, keepdims=True)
    return black, np.where(white > black, white, black + 1)


def _show(axes: Axes, picture: Picture, limits: tuple[np.ndarray, np.ndarray], like: Picture | None = None):
    """Draw a picture, in the colour range of the picture ``like``, of which it is a part."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    reference = (like or picture).pixels
    if picture.kind == "deviation":
        value = np.sqrt(np.mean(picture.pixels**2, axis=0))
        top = np.percentile(np.sqrt(np.mean(reference**2, axis=0)), 99.8)
        return axes.imshow(value, cmap="viridis", vmin=0, vmax=top or 1)
    if picture.kind == "residual":
        top = np.percentile(np.abs(reference.mean(axis=0)), 99.5)
        return axes.imshow(picture.pixels.mean(axis=0), cmap="PuOr", vmin=-(top or 1), vmax=top or 1)
    black, white = limits
    return axes.imshow(_colour(np.clip((picture.pixels - black) / (white - black), 0, 1)), cmap="gray", vmin=0, vmax=1)


def _colour(pixels: np.ndarray) -> np.ndarray:
    """Turn channels (C, Y, X) into what can be seen: three are red, green, blue; two green, magenta; else the first."""
    if len(pixels) == 3:
        return np.moveaxis(pixels, 0, -1)
    if len(pixels) == 2:
        return np.stack([pixels[1], pixels[0], pixels[1]], axis=-1)
    return pixels[0]


# ------------------------------------------------------------------------------------------------ noise


def removed_noise(runs: Sequence[Run], images: Sequence[Image], settings: EvaluationSettings) -> Figure:
    """Draw the autocorrelation of the noise, and of what the methods take away, along every spatial axis.

    What a good method takes away is the noise, all of it and nothing else, so that the curves lie on each other.

    Parameters
    ----------
    runs
        Of one dataset; the best DVLAE run and the baselines are drawn.
    images
        The evaluated images; at most sixteen of them, evenly spread, are averaged.
    settings
        How the dataset is evaluated.
    """
    baselines = [run for run in runs if run.receptive_field is None and run.method != "noisy"]
    trained = [run for run in runs if run.receptive_field is not None]
    drawn = ([best_run(trained)] if trained else []) + baselines
    chosen = [images[i] for i in spread_evenly(len(images), IMAGES_FOR_NOISE)]
    curves = _average_curves(drawn, chosen, settings)
    styles = [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D")]

    lines = {"x": "the same row", "y": "the same column", "z": "through the planes"}
    directions = list(AXES)[: len(images[0].shape) - 1]
    figure = Figure(figsize=(max(7.2, 3.6 * len(directions)), 3.2))
    plots = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    for axes, direction in zip(plots, directions, strict=True):
        axes.axhline(0, color="0.8", linewidth=0.8)
        for i, run in enumerate(drawn):
            colour, marker = styles[i % len(styles)]
            values = curves[run.folder][direction]
            axes.plot(values, color=colour, marker=marker, markersize=3.5, label=f"removed by {run.label}")
        if None in curves:
            noise = {"color": BLACK, "linestyle": "--", "marker": "x", "markersize": 4}
            axes.plot(curves[None][direction], **noise, label="noise (noisy − clean)")
        axes.set_title(f"along {direction} ({lines[direction]})" if len(directions) > 1 else f"along {direction}")
        axes.set_xlabel("distance between two pixels (px)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].set_ylabel("correlation")
    figure.axes[0].legend(fontsize=8)
    number = f"{len(chosen)} image{'s' if len(chosen) > 1 else ''}"
    figure.suptitle(f"{runs[0].dataset}: autocorrelation of the noise and of what is removed, {number}", fontsize=10)
    return figure


def _average_curves(runs: Sequence[Run], images: Sequence[Image], settings: EvaluationSettings) -> dict:
    """Average autocorrelations over images: of what each run removes, by its folder; of the noise, under None."""
    regions = [find_region(image.shape[1:], settings) for image in images]
    curves: dict[Path | None, list] = {}
    for image, region in zip(images, regions, strict=True):
        noisy = read_canonical(image.noisy)
        for run in runs:
            removed = (noisy - read_estimate(run.folder / "denoised", image, noisy.shape))[:, *region]
            curves.setdefault(run.folder, []).append(autocorrelation(removed, LONGEST_LAG))
        if image.clean is not None:
            noise = Target.build(noisy, read_canonical(image.clean), settings).noise()
            curves.setdefault(None, []).append(autocorrelation(noise, LONGEST_LAG))
    return {key: {name: _average([lags[name] for lags in many]) for name in many[0]} for key, many in curves.items()}


def _average(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Average curves as far as the shortest reaches."""
    shortest = min(map(len, curves))
    return np.mean([curve[:shortest] for curve in curves], axis=0)


# ------------------------------------------------------------------------------------------------ calibration


def calibration(run: Run, images: Sequence[Image], settings: EvaluationSettings) -> Figure | None:
    """Draw how well the posterior standard deviation predicts the error.

    Parameters
    ----------
    run
        A trained one.
    images
        The evaluated images of its dataset.
    settings
        How the dataset is evaluated.

    Returns
    -------
    Figure or None
        None without clean images, and without posterior standard deviations.
    """
    measured = calibrate_run(run.folder, images, settings)
    if measured is None:
        return None
    figure = Figure(figsize=(7.2, 3.4))
    coverage, errors = figure.subplots(1, 2)
    coverage.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="right")
    coverage.plot(NOMINAL, measured.covered, color=BLUE, marker="o", markersize=4, label="found", clip_on=False)
    coverage.set(xlim=(0, 1), ylim=(0, 1), xlabel="part that the interval should hold")
    coverage.set_ylabel("part of the clean values in it")
    coverage.set_title("Intervals around the estimate")
    coverage.legend(fontsize=8, loc="upper left")
    top = 1.08 * max(measured.predicted.max(), measured.true.max())
    errors.plot([0, top], [0, top], color="0.6", linestyle="--", linewidth=1)
    errors.plot(measured.predicted, measured.true, color=BLUE, marker="o", markersize=4)
    errors.set(xlim=(0, top), ylim=(0, top), xlabel="posterior standard deviation (grey values)")
    errors.set_ylabel("root mean square error (grey values)")
    errors.set_title("Error where that much is predicted")
    for axes in (coverage, errors):
        axes.set_aspect("equal", adjustable="box")
    within = measured.covered[np.isclose(NOMINAL, 0.6827)][0]
    figure.suptitle(
        f"{run.dataset}, {run.label}: errors are {measured.ratio:.2f} times the posterior standard deviation;\n"
        f"{100 * within:.0f} % of the clean values are within one of it, 68 % would be right",
        fontsize=10,
    )
    return figure


# ------------------------------------------------------------------------------------------------ training


def training_curves(runs: Sequence[Run]) -> Figure:
    """Draw the histories of all trainings on one dataset: ELBO, its two parts, and the error of the signal decoder.

    Parameters
    ----------
    runs
        With ``model/history.csv`` in their folders. Seeds of one receptive field share a colour.

    Raises
    ------
    UserError
        Where a history is missing.
    """
    histories = [(run, _read_history(run)) for run in sorted(runs, key=lambda run: (run.receptive_field, run.seed))]
    fields = sorted({run.receptive_field for run in runs})
    colours = rising_colours(fields)
    quantities = {
        "elbo": "ELBO (nats per value): higher is better",
        "log_likelihood": "log-likelihood of the noisy image (nats per value)",
        "kl": "KL divergence (nats per value)",
        "mse": "signal decoder: squared error (normalised image)",
    }
    figure = Figure(figsize=(7.2, 4.8))
    for axes, (name, title) in zip(figure.subplots(2, 2, sharex=True).flat, quantities.items(), strict=True):
        for run, history in histories:
            colour = colours[run.receptive_field]
            marker = "o" if len(history) == 1 else None
            axes.plot(history.step, history[f"train_{name}"], color=colour, linewidth=0.8, alpha=0.5, marker=marker)
            axes.plot(history.step, history[f"val_{name}"], color=colour, linewidth=1.6, marker=marker)
        axes.set_title(title)
        _limit_to_later_part(axes, [history[f"{part}_{name}"] for _, history in histories for part in ("train", "val")])
    for axes in figure.axes[2:]:
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    handles = [
        Line2D([], [], color=colours[field], linewidth=1.6, label=f"receptive field {field} px") for field in fields
    ]
    handles += [
        Line2D([], [], color="0.3", linewidth=1.6, label="validation (averaged weights)"),
        Line2D([], [], color="0.3", linewidth=0.8, alpha=0.5, label="training"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=8)
    minutes = max(history.minutes.iloc[-1] for _, history in histories)
    figure.suptitle(f"{runs[0].dataset}: training, at most {minutes:.1f} minutes a run", fontsize=10)
    return figure


def _read_history(run: Run) -> pd.DataFrame:
    path = run.folder / "model" / "history.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train the model again") from None


def _limit_to_later_part(axes: Axes, curves: Sequence[pd.Series]) -> None:
    """Let the first epochs run out of the frame, where they would press all others together."""
    later = pd.concat([curve.iloc[len(curve) // 5 :] for curve in curves])
    later = later[np.isfinite(later)]
    if len(later) and later.max() > later.min():
        margin = 0.08 * (later.max() - later.min())
        axes.set_ylim(later.min() - margin, later.max() + margin)


# ------------------------------------------------------------------------------------------------ levels


def kl_per_level(runs: Sequence[Run]) -> Figure:
    """Draw how much information each level of the ladder carries: its KL divergence, during training and at the end.

    A level that ends with less than :data:`COLLAPSED` nats at a position of its grid is marked as collapsed. In nats
    per pixel value, which is what is drawn, that is less for a coarser level, as its grid has fewer positions.

    Parameters
    ----------
    runs
        Of one dataset, with ``model/history.csv`` and ``model/model.json`` in their folders. The best is drawn over
        its training, all at their end.

    Raises
    ------
    UserError
        Where a history is missing, or is of a training that did not record the levels.
    """
    runs = sorted(runs, key=lambda run: (run.receptive_field, run.seed))
    shown = best_run(runs)
    history, limits = _read_divergences(shown), _collapse_limits(shown)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(limits)))

    figure = Figure(figsize=(7.2, 3.7))
    during, end = figure.subplots(1, 2, sharey=True)
    for level, colour in enumerate(colours):
        marker = "o" if len(history) == 1 else None
        curve = _drawn(history[f"val_kl_level{level}"], limits[level])
        during.plot(history.step, curve, color=colour, linewidth=1.4, marker=marker, label=_name_level(level, limits))
    during.set_title(f"during training: receptive field {shown.receptive_field} px, seed {shown.seed}")
    during.set_xlabel("training step")
    during.set_ylabel("KL divergence (nats per pixel value)")
    during.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    during.set_yscale("log")
    handles = during.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(5, len(limits)), fontsize=8)
    _draw_end(end, runs)
    figure.suptitle(f"{shown.dataset}: information in each level of the ladder (validation)", fontsize=10)
    return figure


def _draw_end(axes: Axes, runs: Sequence[Run]) -> None:
    """Draw the last divergence of each level of each run, and below which one a level counts as collapsed."""
    fields = sorted({run.receptive_field for run in runs})
    colours = rising_colours(fields)
    for i, run in enumerate(runs):
        limits, last = _collapse_limits(run), _read_divergences(run).iloc[-1]
        values = np.array([last[f"val_kl_level{level}"] for level in range(len(limits))])
        places = np.arange(len(limits)) + 0.5 * (i + 0.5 - len(runs) / 2) / len(runs)  # side by side
        for these, marker in ((values >= limits, "o"), (values < limits, "x")):
            drawn = _drawn(values, limits)[these]
            axes.plot(places[these], drawn, marker, markersize=4.5, color=colours[run.receptive_field])
        axes.hlines(limits, np.arange(len(limits)) - 0.4, np.arange(len(limits)) + 0.4, colors="0.5", linestyles=":")
    axes.set_title("at its end: every run")
    axes.set_xlabel("level (0 is the finest)")
    axes.set_xlim(-0.6, len(limits) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    point = {"marker": "o", "markersize": 4.5, "linestyle": ""}
    handles = [Line2D([], [], color=colours[field], label=f"receptive field {field} px", **point) for field in fields]
    handles.append(Line2D([], [], color="0.5", linestyle=":", label=f"{COLLAPSED} nats a position of the level's grid"))
    handles.append(Line2D([], [], color="0.5", **point | {"marker": "x"}, label="below it: collapsed"))
    axes.legend(handles=handles, fontsize=7)


def _name_level(level: int, limits: Sequence[float]) -> str:
    return f"level {level}" + {0: " (finest)", len(limits) - 1: " (coarsest)"}.get(level, "") * (len(limits) > 1)


def _read_divergences(run: Run) -> pd.DataFrame:
    """Return a history with one column ``val_kl_level{level}`` a level."""
    history = _read_history(run)
    if "val_kl_level0" not in history:
        path = run.folder / "model" / "history.csv"
        raise UserError(f"{path}: found no column val_kl_level0, as an older version trained it; train the model again")
    return history


def _drawn(divergence, limit):
    """Return where on a logarithmic axis a divergence stands: one that is nearly zero a hundredth below the limit."""
    return np.maximum(divergence, limit / 100)


def _collapse_limits(run: Run) -> np.ndarray:
    """Return the divergence below which each level counts as collapsed, in nats per pixel value, finest first."""
    path = run.folder / "model" / "model.json"
    try:
        sizes = json.loads(path.read_text())["architecture"]
        strides = level_strides(sizes["levels"], sizes["levels_per_scale"])
        values = sizes["image_channels"] * strides ** sizes.get("dimensions", 2)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train the model again") from None
    return COLLAPSED / values


def level_strides(levels: int, levels_per_scale: int) -> np.ndarray:
    """Return how many pixels of the image, along each axis, one position of each level's grid stands for."""
    return 2 ** (np.arange(1, levels + 1) // levels_per_scale)


# ------------------------------------------------------------------------------------------------ generated noise


def generated_noise(pictures: Mapping[str, np.ndarray], statistics: Mapping[str, NoiseStatistics], real: str) -> Figure:
    """Show a part of a real image, of a generated one and of what they have in common; compare their noise.

    Parameters
    ----------
    pictures
        By their titles, each (C, ...), the last one the cleanest. The middle is shown: of a volume the middle plane, of
        a trace its line.
    statistics
        Of the ``real`` and of the ``generated`` noise: their autocorrelation along each axis, their variance against
        the signal.
    real
        What the real noise is, in words.
    """
    axes_of_noise = list(statistics["real"].autocorrelation())
    figure = Figure(figsize=(7.2, 5.0))
    above, below = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    _draw_middles(above.subplots(1, len(pictures), sharex=True, sharey=True), pictures)
    plots = below.subplots(1, len(axes_of_noise) + 1)
    styles = {
        "real": {"color": BLACK, "linestyle": "--", "marker": "x", "label": real},
        "generated": {"color": BLUE, "marker": "o", "label": "generated (noisy − content)"},
    }
    for kind, style in styles.items():
        style = style | {"markersize": 4, "linewidth": 1.2}
        correlation = statistics[kind].autocorrelation()
        for axes, axis in zip(plots, axes_of_noise, strict=False):
            axes.plot(correlation[axis], **style)
            axes.set_title(f"correlation along {axis}")
            axes.set_xlabel("distance (px)")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for channel in range(len(statistics[kind].mean)):
            plots[-1].plot(*statistics[kind].variance_by_signal(channel), **style)
    plots[-1].set_title("variance of the noise")
    plots[-1].set_xlabel("signal (grey values)")
    below.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _draw_middles(plots: Sequence[Axes], pictures: Mapping[str, np.ndarray]) -> None:
    """Draw the middle of each picture (C, ...), all in the same greys, or as lines in the same frame."""
    middles = [Picture(title, _middle(pixels), "image") for title, pixels in pictures.items()]
    for axes, middle in zip(plots, middles, strict=True):
        axes.set_title(middle.title, parse_math=False)
        if middle.pixels.ndim == 2:
            axes.plot(middle.pixels.T, linewidth=0.8)
        else:
            _show(axes, middle, _grey_limits(middles))


def _middle(pixels: np.ndarray) -> np.ndarray:
    """Return the middle :data:`MIDDLE` pixels along x and y of (C, ...), in the middle plane: (C, X) or (C, Y, X)."""
    if pixels.ndim == 4:
        pixels = pixels[:, pixels.shape[1] // 2]
    starts = [max(0, (side - MIDDLE) // 2) for side in pixels.shape[1:]]
    return pixels[:, *(slice(start, start + MIDDLE) for start in starts)]
