"""Noisy images sampled from a trained model, and their comparison with real ones."""

import math
from pathlib import Path

import matplotlib
import numpy as np

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import CANONICAL_FILES, read_frame, read_noisy, write_image
from dvlae.data.defects.frames import read_filled
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.evaluation.noise_statistics import NoiseComparison
from dvlae.evaluation.register import Targets
from dvlae.inference.generation import (
    PRIOR_NAME,
    decode,
    sample_code,
    sample_code_from_prior,
    sample_noisy,
    warn_of_prior,
)
from dvlae.inference.posterior import check_whole_input
from dvlae.models.files import load_to
from dvlae.reporting.noise_figures import plot_generated_noise
from dvlae.reporting.style import STYLE, save_figure
from dvlae.system.files import Contents, atomic_folder, contents_beside, write_csv
from dvlae.system.progress import progress

GENERATED_FILES: Contents = CANONICAL_FILES | contents_beside(
    "manifest.csv", "noise.csv", "generated_noise.png", "generated_noise.svg"
)


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
    """Sample new noise on the content of every image of a manifest, and compare it with the real noise.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    output
        Folder to make, with ``manifest.csv``. ``noisy/{image}_{number}.tif`` are the new images and
        ``clean/{image}.tif`` their content, in the units of the input. ``generated_noise.{png,svg}`` and ``noise.csv``
        compare the noise of the first realisation with the real noise.
    realisations
        Number of new noisy images per input image.
    seed
        Determines all samples.
    device
        See :func:`dvlae.system.hardware.devices.choose_device`.
    settings
        How the dataset is evaluated. For images with a clean one, the real noise is the noisy image minus the clean
        one. If None, or without a clean image, it is the noisy image minus the content that the model found, which is
        the definition of generated noise, too.
    targets
        The output of ``dvlae register`` for the same images and settings. If None, each clean image is registered here.

    Raises
    ------
    UserError
        If the model or an image cannot be used, or the device is missing.
    """
    network = load_to(device, model)
    manifest = read_manifest(images)
    aligned = None if settings is None else Targets(settings, targets)
    for image in manifest:
        check_whole_input(network, image.shape, image.name)
    comparison = NoiseComparison(network.mean.flatten().cpu().numpy(), network.std.flatten().cpu().numpy())
    total = realisations * sum(math.prod(image.shape[1:]) for image in manifest)
    with (
        atomic_folder(output, GENERATED_FILES) as folder,
        progress(total=total, description="generate", unit="px", unit_scale=True) as bar,
    ):
        made = []
        for image in manifest:
            noisy, size = read_filled(image), image.shape[1:]
            code = sample_code(network, noisy, name=image.name, seed=seed)
            content = decode(network, code, size)
            for number in range(realisations):
                new = sample_noisy(network, code, size, name=image.name, number=number, seed=seed)
                made.append(_write(folder, f"{image.name}_{number}", image.name, new, content))
                bar.update(math.prod(size))
                if number == 0:
                    target = None
                    if aligned is not None and image.clean is not None:
                        target = aligned.target(image, noisy)
                    comparison.update(noisy, new, content, target)
        write_manifest(folder, made)
        _write_comparison(folder / "noise.csv", comparison)
        _plot_comparison(folder, manifest[len(manifest) // 2], comparison, settings)


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
        Length of the images along each spatial axis, in pixels.
    realisations
        Number of images.
    seed
        Determines all samples.
    device
        See :func:`dvlae.system.hardware.devices.choose_device`.

    Raises
    ------
    UserError
        If the model cannot be used, does not allow the size, or the device is missing.
    """
    network = load_to(device, model)
    check_whole_input(network, (network.architecture.image_channels, *size), "size")
    warn_of_prior("generate", network, [size])
    with atomic_folder(output, GENERATED_FILES) as folder:
        made = []
        for number in progress(range(realisations), description="generate", unit="image"):
            code = sample_code_from_prior(network, size, number=number, seed=seed)
            noisy = sample_noisy(network, code, size, name=PRIOR_NAME, number=number, seed=seed)
            name = f"{PRIOR_NAME}_{number}"
            made.append(_write(folder, name, name, noisy, decode(network, code, size)))
        write_manifest(folder, made)


def _write(folder: Path, name: str, clean_name: str, noisy: np.ndarray, clean: np.ndarray) -> Image:
    """Write a noisy image, and its clean image unless it exists. Return their row of the manifest."""
    noisy_file, clean_file = folder / f"noisy/{name}.tif", folder / f"clean/{clean_name}.tif"
    write_image(noisy_file, noisy)
    if not clean_file.exists():
        write_image(clean_file, clean)
    return Image(name, noisy_file, clean_file, noisy.shape)


def _write_comparison(path: Path, comparison: NoiseComparison) -> None:
    """Write one row per quantity: the autocorrelation at each lag along each axis, the slope of the variance."""
    quantities = comparison.quantities().items()
    rows = [[name, *(f"{value:.4f}" for value in values)] for name, values in quantities]
    write_csv(path, ["quantity", "real", "generated"], rows)


def _plot_comparison(
    folder: Path, image: Image, comparison: NoiseComparison, settings: EvaluationSettings | None
) -> None:
    """Plot the noise of all images, and one of the images next to a generated one."""
    pictures = {
        f"Real: {image.name}": read_noisy(image),
        "Generated": read_frame(folder / f"noisy/{image.name}_0.tif"),
        "Content, denoised": read_frame(folder / f"clean/{image.name}.tif"),
    }
    less = "clean" if image.clean is not None and settings is not None else "content"
    with matplotlib.rc_context(STYLE):
        save_figure(plot_generated_noise(pictures, comparison, f"real (noisy − {less})"), folder / "generated_noise")
