"""New noisy images from a trained model, written and compared with real ones."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.evaluation.noise_statistics import NoiseStatistics
from dvlae.evaluation.target import Targets
from dvlae.inference.generation import PRIOR_NAME, decode, sample_code, sample_code_from_prior, sample_noisy
from dvlae.inference.posterior import check_whole_input
from dvlae.models.files import load_to
from dvlae.reporting.noise_figures import plot_generated_noise
from dvlae.reporting.style import STYLE, save_figure
from dvlae.system.files import atomic_folder
from dvlae.system.progress import progress


def generate_noise(
    model: Path,
    images: Path,
    output: Path,
    *,
    realisations: int,
    seed: int,
    device: str,
    settings: EvaluationSettings | None = None,
    targets: Path | None = None,
) -> None:
    """Sample new noise on the content of every image of a manifest, and compare it to the real noise.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    output
        Folder to make, itself one with ``manifest.csv``: ``noisy/{image}_{number}.tif`` are the new images,
        ``clean/{image}.tif`` is their content; each in the units of the given images. ``generated_noise.{png,svg}`` and
        ``noise.csv`` compare the noise of the first realisation to the real one.
    realisations
        New noisy images of each given one.
    seed
        Fixes all of them.
    device
        As :func:`dvlae.system.devices.choose_device` takes it.
    settings
        How the clean images fit the noisy ones: real noise is then noisy less clean, where there is a clean image.
        With None it is noisy less the content that the model found, which is also what generated noise is.
    targets
        What ``dvlae register`` wrote for the same images and settings; None: each clean image is registered here.

    Raises
    ------
    UserError
        Where the model or an image cannot be used, or the device is missing.
    """
    network = load_to(device, model)
    manifest = read_manifest(images)
    aligned = None if settings is None else Targets(settings, targets)
    for image in manifest:
        check_whole_input(network, image.shape, image.name)
    statistics = {
        kind: NoiseStatistics(network.mean.flatten().cpu().numpy(), network.std.flatten().cpu().numpy())
        for kind in ("real", "generated")
    }
    total = realisations * sum(math.prod(image.shape[1:]) for image in manifest)
    with (
        atomic_folder(output) as folder,
        progress(total=total, description="generate", unit="px", unit_scale=True) as bar,
    ):
        made = []
        for image in manifest:
            noisy, size = read_canonical(image.noisy), image.shape[1:]
            code = sample_code(network, noisy, name=image.name, seed=seed)
            content = decode(network, code, size)
            for number in range(realisations):
                new = sample_noisy(network, code, size, name=image.name, number=number, seed=seed)
                made.append(_write(folder, f"{image.name}_{number}", image.name, new, content))
                bar.update(math.prod(size))
                if number == 0:
                    _add_noise(statistics, image, noisy, new, content, aligned)
        write_manifest(folder, made)
        _write_statistics(folder / "noise.csv", statistics)
        _plot_comparison(folder, manifest[len(manifest) // 2], statistics, settings)


def generate_from_prior(
    model: Path, output: Path, *, size: tuple[int, ...], realisations: int, seed: int, device: str
) -> None:
    """Sample images from the prior: content and noise.

    Parameters
    ----------
    model
        Folder of a trained model.
    output
        Folder to make: ``noisy/prior_{number}.tif`` and ``clean/prior_{number}.tif`` in the units of the training
        images, and ``manifest.csv``.
    size
        Of the images along each spatial axis, in pixels.
    realisations
        How many.
    seed
        Fixes them.
    device
        As :func:`dvlae.system.devices.choose_device` takes it.

    Raises
    ------
    UserError
        Where the model cannot be used, the size is none for it, or the device is missing.
    """
    network = load_to(device, model)
    check_whole_input(network, (network.architecture.image_channels, *size), "size")
    with atomic_folder(output) as folder:
        made = []
        for number in progress(range(realisations), description="generate", unit="image"):
            code = sample_code_from_prior(network, size, number=number, seed=seed)
            noisy = sample_noisy(network, code, size, name=PRIOR_NAME, number=number, seed=seed)
            name = f"{PRIOR_NAME}_{number}"
            made.append(_write(folder, name, name, noisy, decode(network, code, size)))
        write_manifest(folder, made)


def _write(folder: Path, name: str, clean_name: str, noisy: np.ndarray, clean: np.ndarray) -> Image:
    image = Image(name, folder / f"noisy/{name}.tif", folder / f"clean/{clean_name}.tif", noisy.shape)
    write_image(image.noisy, noisy)
    if not image.clean.exists():
        write_image(image.clean, clean)
    return image


def _add_noise(
    statistics: Mapping[str, NoiseStatistics],
    image: Image,
    noisy: np.ndarray,
    generated: np.ndarray,
    content: np.ndarray,
    targets: Targets | None,
) -> None:
    """Add the noise of a given image, and that of a generated one with its content, to the statistics."""
    if image.clean is not None and targets is not None:
        target = targets.target(image, noisy)
        region, noise = (slice(None), *target.region), target.noise()
        statistics["real"].update(noise, target.noisy - noise)
    else:
        region = (slice(None),)
        statistics["real"].update(noisy - content, content)
    statistics["generated"].update((generated - content)[region], content[region])


def _write_statistics(path: Path, statistics: Mapping[str, NoiseStatistics]) -> None:
    """Write one row a quantity: the autocorrelation at each lag along each axis, the slope of the variance."""
    rows = {}
    for kind, found in statistics.items():
        for axis, lags in found.autocorrelation().items():
            for lag, value in enumerate(lags[1:], start=1):
                rows.setdefault(f"autocorrelation_{axis}_{lag}", {})[kind] = value
        for channel in range(len(found.mean)):
            rows.setdefault(f"variance_slope_channel_{channel}", {})[kind] = found.variance_slope(channel)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["quantity", *statistics])
        writer.writerows([name, *(f"{row[kind]:.4f}" for kind in statistics)] for name, row in rows.items())


def _plot_comparison(
    folder: Path,
    image: Image,
    statistics: Mapping[str, NoiseStatistics],
    settings: EvaluationSettings | None,
) -> None:
    pictures = {
        f"Real: {image.name}": read_canonical(image.noisy),
        "Generated": read_canonical(folder / f"noisy/{image.name}_0.tif"),
        "Content, denoised": read_canonical(folder / f"clean/{image.name}.tif"),
    }
    less = "clean" if image.clean is not None and settings is not None else "content"
    with matplotlib.rc_context(STYLE):
        save_figure(plot_generated_noise(pictures, statistics, f"real (noisy − {less})"), folder / "generated_noise")
