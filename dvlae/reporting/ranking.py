"""The order of trained models by the error of their estimates, without clean images: ``dvlae rank``."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from dvlae.config.settings import PredictionSettings
from dvlae.data.canonical import read_mask
from dvlae.data.defects.frames import read_filled
from dvlae.data.manifest import Image, read_manifest, spread_evenly
from dvlae.evaluation.diagnosis import judge
from dvlae.evaluation.noise_samples import NoiseSample, estimate_noise
from dvlae.evaluation.risk import Denoise, MeasuredNoise, estimate_risks
from dvlae.inference.direct import denoise_directly
from dvlae.inference.estimates import denoise
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_to
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file
from dvlae.system.progress import progress
from dvlae.system.wording import count

# Parts of images that models are compared on, and their largest sides in pixels.
MIN_PARTS = 8
MAX_IMAGES = 16
MAX_SIDES = {"z": 8, "y": 256, "x": 256}
# Of a model without a direct denoiser; more would take minutes.
SAMPLES = 8
# A difference counts if it is this many times its standard error.
MIN_SIGNIFICANCE = 2.0
# In most images, at most this part of the pixel values may have one grey value. It was 1 % where ranks were right, and
# 51 to 88 % of photons that were counted singly, where one was wrong (docs/rank.md).
MAX_COMMONEST = 0.25

logger = logging.getLogger(__name__)


def rank(images: Path, models: Sequence[Path], *, output: Path | None = None, device: str = "auto") -> None:
    """Say which of several models denoises images with the smallest squared error, without clean images.

    Parameters
    ----------
    images, models, device
        As for :func:`compare_models`.
    output
        CSV to make, with the result of :func:`order`; None: nothing is written.

    Raises
    ------
    UserError
        As for :func:`compare_models`, or if there are fewer than two models.
    """
    if len(set(models)) < 2:
        raise UserError(f"rank: found {count(len(set(models)), 'model')}, allowed: two or more that differ")
    table = compare_models(images, {str(folder): folder for folder in models}, device=device)
    if output is not None:
        with atomic_file(output) as path:
            table.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")


def compare_models(images: Path, models: Mapping[str, Path], *, device: str) -> pd.DataFrame:
    """Estimate the squared errors of models on images, and say which is the smallest.

    The estimate is that of :mod:`dvlae.evaluation.risk`. A refined or another direct denoiser is judged by its
    estimate, and any other model by the mean of few samples.

    Parameters
    ----------
    images
        Folder with ``manifest.csv``. At most 16 of its images are used, and of a large image the middle, or several
        parts.
    models
        Folders of trained models, by name.
    device
        Where to compute.

    Returns
    -------
    pandas.DataFrame
        The result of :func:`order`.

    Raises
    ------
    UserError
        If a model cannot be used, the device is missing, or :func:`measure_noise` refuses the images.
    """
    networks = {name: load_to(device, folder) for name, folder in models.items()}
    directions = {network.architecture.noise_direction for network in networks.values()}
    noise = measure_noise(images, directions.pop() if len(directions) == 1 else None)
    chosen, risks = _choose(images), []
    with progress(total=len(chosen), description="rank", unit="image") as bar:
        for image in chosen:
            for number, part in enumerate(_parts(read_filled(image), math.ceil(MIN_PARTS / len(chosen)))):
                # An image of which no pixel counts may contain no numbers.
                if not np.isfinite(part).all():
                    continue
                denoisers = {name: _denoiser(network, f"{image.name} {number}") for name, network in networks.items()}
                risks.append(estimate_risks(part, denoisers, noise))
            bar.update(1)
    table = order(pd.DataFrame(risks))
    correlated = "not correlated" if noise.direction == "none" else f"correlated along {noise.direction}"
    logger.info(f"rank: {count(len(risks), 'part')} of {count(len(chosen), 'image')}, whose noise is {correlated}")
    for line in describe(table):
        logger.info(f"rank: {line}")
    return table


def order(risks: pd.DataFrame) -> pd.DataFrame:
    """Compare each model with the one whose estimated errors are the smallest.

    Parameters
    ----------
    risks
        A row for each part of an image, and a column for each model.

    Returns
    -------
    pandas.DataFrame
        A row for each model, the best one first: ``model``; ``excess``, by how much its squared error is larger than
        that of the best one, in squared grey values, and the ``standard_error`` of this over the parts of images;
        ``larger_in``, the number of parts in which it is larger; and the number of ``parts``.
    """
    best = risks.mean().idxmin()
    excess = risks.sub(risks[best], axis=0)
    table = pd.DataFrame(
        {
            "excess": excess.mean(),
            "standard_error": excess.std() / math.sqrt(len(risks)),
            "larger_in": (excess > 0).sum(),
            "parts": len(risks),
        }
    )
    return table.sort_values("excess", kind="stable").rename_axis("model").reset_index()


def describe(table: pd.DataFrame) -> list[str]:
    """Say in words which model has the smallest error, and how sure that is.

    Parameters
    ----------
    table
        The result of :func:`order`.

    Returns
    -------
    list of str
        A line for each model.
    """
    lines = [f"{table.model[0]}: the smallest estimated error"]
    for row in table[1:].itertuples():
        sure = row.excess > MIN_SIGNIFICANCE * row.standard_error
        difference = f"{_number(row.excess, 3)} ± {_number(row.standard_error, 2)}"
        lines.append(
            f"{row.model}: squared error larger by {difference} squared grey values (larger in {row.larger_in} of "
            f"{row.parts} parts){'' if sure else ', which may be chance'}"
        )
    return lines


def _number(value: float, digits: int) -> str:
    """Write a number with so many digits that count, and without an exponent unless it is small."""
    return f"{float(f'{value:.{digits}g}'):,g}"


def measure_noise(images: Path, direction: str | None) -> MeasuredNoise:
    """Measure the noise that models are compared with.

    Parameters
    ----------
    images
        Folder with ``manifest.csv``.
    direction
        The axis along which the noise is correlated, or ``none``; None: as measured.

    Returns
    -------
    MeasuredNoise
        That of the images which :func:`compare_models` uses.

    Raises
    ------
    UserError
        If it cannot be told from the signal, or is far from Gaussian, as that of single photons.
    """
    samples = [_sample(image) for image in _choose(images)]
    verdict = judge([image[0] for image in samples])
    along = direction or verdict.direction
    noise = None if along is None else MeasuredNoise.of(samples, along)
    if noise is None:
        reason = verdict.reason or "it is not known in each channel"
        raise UserError(f"rank: the noise cannot be told from the signal: {reason}")
    commonest = np.median([channel.commonest for image in samples for channel in image])
    if commonest > MAX_COMMONEST:
        raise UserError(
            f"rank: found {commonest:.0%} of the pixel values at one grey value, as where photons are counted "
            f"singly or grey values are clipped, allowed: {MAX_COMMONEST:.0%}; with such noise a rank would be wrong"
        )
    return noise


def _choose(images: Path) -> list[Image]:
    manifest = read_manifest(images)
    return [manifest[i] for i in spread_evenly(len(manifest), MAX_IMAGES)]


def _sample(image: Image) -> list[NoiseSample]:
    return estimate_noise(read_filled(image), read_mask(image))


def _parts(image: np.ndarray, number: int) -> Iterator[np.ndarray]:
    """Cut parts of limited size out of an image (C, ...), spread evenly along its diagonal."""
    limits = list(MAX_SIDES.values())[1 - image.ndim :]
    kept = [min(side, limit) for side, limit in zip(image.shape[1:], limits, strict=True)]
    rest = [side - part for side, part in zip(image.shape[1:], kept, strict=True)]
    places = [[round(share * free) for free in rest] for share in (np.arange(number) + 0.5) / number]
    for place in {tuple(place): None for place in places}:
        yield image[:, *(slice(start, start + side) for start, side in zip(place, kept, strict=True))]


def _denoiser(network: DVLAE, name: str) -> Denoise:
    """Return a function that denoises, always with the same random numbers, and exact enough for a derivative."""
    if network.direct_denoiser is not None:
        settings = PredictionSettings(estimator="direct", flips=False, shifts=1, precision="32")
        return partial(denoise_directly, network, name=name, settings=settings)
    settings = PredictionSettings(samples=SAMPLES, precision="32")
    return lambda image: denoise(network, image, name=name, seed=0, settings=settings)[0]
