"""New noisy images from a trained model: new noise on the content of given images, or all of it from the prior.

The clean content is a signal code, drawn from the posterior of a noisy image or from the priors of the ladder. The
autoregressive decoder draws the noisy image, the signal decoder shows the clean one. The model's density is continuous,
so grey values are neither rounded nor clipped.
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from dvlae.config import EvaluationSettings
from dvlae.data.images import Image, read_canonical, read_manifest, write_image, write_manifest
from dvlae.figures import STYLE, generated_noise, save
from dvlae.files import atomic_folder
from dvlae.metrics import Target
from dvlae.models.autoregressive_sampling import sample_autoregressively
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_to
from dvlae.models.likelihood import scale_floor
from dvlae.noise import key_of, normal_noise
from dvlae.noise_statistics import NoiseStatistics
from dvlae.posterior import check_image, draw_samples, encode
from dvlae.progress import progress

PIXELS = -1  # the level below all latents: that of the noise of the pixels
PRIOR = "prior"  # name of the images from the prior


@torch.inference_mode()
def encode_content(model: DVLAE, image: np.ndarray, *, name: str, seed: int) -> Tensor:
    """Draw the signal code of a noisy image from the posterior.

    Parameters
    ----------
    model
        In evaluation mode, on the device that shall compute.
    image
        (C, ...) in its own units; any size.
    name, seed
        Fix the sample: it is the first one of :func:`dvlae.prediction.predict`.

    Returns
    -------
    Tensor
        (1, channels, ...), padded to multiples of the model's stride.
    """
    _, features = encode(model, image)
    state, _ = model.ladder_vae.descend(None, features, draw_samples(seed, name, [0]))
    return model.ladder_vae.last_block(state)


@torch.inference_mode()
def imagine_content(model: DVLAE, size: tuple[int, ...], *, number: int, seed: int) -> Tensor:
    """Draw a signal code from the priors, (1, channels, ...), for an image of this size, padded like any other.

    ``number`` and ``seed`` fix it.
    """
    padded = [math.ceil(side / model.stride) * model.stride for side in size]
    return model.ladder_vae.sample_prior((1, *padded), draw_samples(seed, PRIOR, [number]))


@torch.inference_mode()
def show_content(model: DVLAE, code: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Return the clean image of a signal code, (C, ...) of this size, in the units of the training images."""
    return _cut(model.denormalise(model.signal_decoder(code)), size)[0].cpu().numpy()


@torch.inference_mode()
def realise(model: DVLAE, code: Tensor, size: tuple[int, ...], *, name: str, number: int, seed: int) -> np.ndarray:
    """Draw a noisy image of a signal code.

    Parameters
    ----------
    model
        In evaluation mode.
    code
        Signal code, (1, channels, ...).
    size
        Of the image; the code may be larger.
    name, number, seed
        Fix the noise.

    Returns
    -------
    numpy.ndarray
        (C, ...) in the units of the training images, float32; neither rounded nor clipped.
    """
    window = [range(side) for side in size]
    key = key_of(seed, name, number, PIXELS)
    noise = normal_noise([key], 2 * model.architecture.image_channels, window, code.device)
    floor = scale_floor(model.step, model.std)
    x = sample_autoregressively(model.autoregressive_decoder, _cut(code, size), noise, floor)
    return model.denormalise(x)[0].cpu().numpy()


def _cut(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return maps[..., *(slice(side) for side in size)]


def generate_noise(
    model: Path,
    images: Path,
    output: Path,
    *,
    realisations: int,
    seed: int,
    device: str,
    settings: EvaluationSettings | None = None,
) -> None:
    """Draw new noise on the content of every image of a manifest, and compare it to the real noise.

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
        As :func:`dvlae.devices.choose_device` takes it.
    settings
        How the clean images fit the noisy ones: real noise is then noisy less clean, where there is a clean image.
        With None it is noisy less the content that the model found, which is also what generated noise is.

    Raises
    ------
    UserError
        Where the model or an image cannot be used, or the device is missing.
    """
    network = load_to(device, model)
    manifest = read_manifest(images)
    for image in manifest:
        check_image(network, image.shape, image.name)
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
            code = encode_content(network, noisy, name=image.name, seed=seed)
            content = show_content(network, code, size)
            for number in range(realisations):
                new = realise(network, code, size, name=image.name, number=number, seed=seed)
                made.append(_write(folder, f"{image.name}_{number}", image.name, new, content))
                bar.update(math.prod(size))
                if number == 0:
                    _compare(statistics, image, noisy, new, content, settings)
        write_manifest(folder, made)
        _write_statistics(folder / "noise.csv", statistics)
        _draw_comparison(folder, manifest[len(manifest) // 2], statistics, settings)


def generate_from_prior(
    model: Path, output: Path, *, size: tuple[int, ...], realisations: int, seed: int, device: str
) -> None:
    """Draw images from the prior: content and noise.

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
        As :func:`dvlae.devices.choose_device` takes it.

    Raises
    ------
    UserError
        Where the model cannot be used, the size is none for it, or the device is missing.
    """
    network = load_to(device, model)
    check_image(network, (network.architecture.image_channels, *size), "size")
    with atomic_folder(output) as folder:
        made = []
        for number in progress(range(realisations), description="generate", unit="image"):
            code = imagine_content(network, size, number=number, seed=seed)
            noisy = realise(network, code, size, name=PRIOR, number=number, seed=seed)
            name = f"{PRIOR}_{number}"
            made.append(_write(folder, name, name, noisy, show_content(network, code, size)))
        write_manifest(folder, made)


def _write(folder: Path, name: str, clean_name: str, noisy: np.ndarray, clean: np.ndarray) -> Image:
    image = Image(name, folder / f"noisy/{name}.tif", folder / f"clean/{clean_name}.tif", noisy.shape)
    write_image(image.noisy, noisy)
    if not image.clean.exists():
        write_image(image.clean, clean)
    return image


def _compare(
    statistics: Mapping[str, NoiseStatistics],
    image: Image,
    noisy: np.ndarray,
    generated: np.ndarray,
    content: np.ndarray,
    settings: EvaluationSettings | None,
) -> None:
    """Add the noise of a given image, and that of a generated one with its content, to the statistics."""
    if image.clean is not None and settings is not None:
        target = Target.build(noisy, read_canonical(image.clean), settings)
        region, noise = (slice(None), *target.region), target.noise()
        statistics["real"].add(noise, target.noisy - noise)
    else:
        region = (slice(None),)
        statistics["real"].add(noisy - content, content)
    statistics["generated"].add((generated - content)[region], content[region])


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


def _draw_comparison(
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
        save(generated_noise(pictures, statistics, f"real (noisy − {less})"), folder / "generated_noise")
