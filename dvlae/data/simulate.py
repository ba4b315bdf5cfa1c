"""Noise with known properties on clean images."""

import zlib
from pathlib import Path

import numpy as np

from dvlae.axes import AXES
from dvlae.config.dataset import DatasetSettings, SimulateSettings
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image, write_manifest
from dvlae.data.prepare import source_folder
from dvlae.data.reading import crop_image, find_images, read_array, split_frames, unique_names, white_level
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder
from dvlae.system.progress import progress


def correlate(noise: np.ndarray, kernel: list[float], axis: int) -> np.ndarray:
    """Filter noise along an axis, the kernel scaled to unit energy, so that white noise keeps its variance.

    Parameters
    ----------
    noise
        Noise with ``len(kernel) - 1`` entries more in front along ``axis`` than are to come out.
    kernel
        Share of the current entry, of the one before it, and so on.
    axis
        The axis to filter along.

    Returns
    -------
    array
        The filtered noise, shorter by ``len(kernel) - 1``: each entry has the full kernel behind it.
    """
    weights = np.asarray(kernel, dtype=np.float64)
    weights = weights / np.linalg.norm(weights)
    length = noise.shape[axis] - len(weights) + 1
    out = 0.0
    for lag, weight in enumerate(weights):
        start = len(weights) - 1 - lag
        out = out + weight * np.take(noise, np.arange(start, start + length), axis)
    return out


def simulate_noise(
    clean: np.ndarray, settings: SimulateSettings, noise_direction: str, rng: np.random.Generator
) -> np.ndarray:
    """Record a clean image as a noisy scanner would.

    Photons are counted (Poisson). The noise of the counting is filtered along the noise direction, as a scanner's
    amplifier does. Then come white read noise, the offset, saturation and rounding. The channels' noise is independent.

    Parameters
    ----------
    clean
        (C, ...) with one to three spatial axes, not negative, in units of white: 1.0 is white level.
    settings
        Photons, kernel, read noise, offset and bits.
    noise_direction
        ``"x"``, ``"y"``, ``"z"`` or ``"none"`` (then the kernel is not used).
    rng
        Source of randomness.

    Returns
    -------
    (C, ...) float32 array
        In units of 0 .. 2^bits - 1, whole numbers; where ``bits`` is None, in units of white.
    """
    clean = np.asarray(clean, dtype=np.float64)
    padded, axis = clean, AXES.get(noise_direction)
    if axis is not None:  # the scan starts before the image does: the first pixels' noise is like that of the others
        width = [(0, 0)] * clean.ndim
        width[axis] = (len(settings.kernel) - 1, 0)
        padded = np.pad(clean, width, mode="edge")
    noise = rng.poisson(padded * settings.photons) / settings.photons - padded
    if axis is not None:
        noise = correlate(noise, settings.kernel, axis)
    noisy = clean + noise + rng.normal(0.0, settings.read_noise, clean.shape) + settings.offset
    if settings.bits is not None:
        most = 2**settings.bits - 1
        noisy = np.clip(np.rint(noisy * most), 0, most)
    return noisy.astype(np.float32)


def simulate(dataset: DatasetSettings, data: Path, output: Path) -> None:
    """Make noisy images out of a dataset's clean ones.

    Parameters
    ----------
    dataset
        With ``simulate``; its ``noisy`` names the clean images. White level is the largest value of integer files and
        1.0 in floating-point ones.
    data
        The data folder.
    output
        The folder to make: canonical ``noisy/``, ``clean/`` (offset included, so that it is what the noisy images
        have as their mean but for saturation and rounding) and ``manifest.csv``.

    Raises
    ------
    UserError
        Where the files are missing or unfit.
    """
    settings = dataset.simulate
    if settings is None:
        raise UserError(
            "simulate: found null in the dataset's settings, allowed: a block; there is nothing to simulate"
        )
    files = find_images(dataset.noisy, source_folder(dataset, data), "noisy")
    scale = 1.0 if settings.bits is None else 2**settings.bits - 1
    with atomic_folder(output) as folder:
        rows = []
        for path, stem in zip(progress(files, description="simulate", unit="file"), unique_names(files), strict=True):
            cleans = read_white(path, dataset)
            for number, clean in enumerate(cleans):
                name = stem if len(cleans) == 1 else f"{stem}_{number:0{len(str(len(cleans) - 1))}d}"
                clean_path = folder / "clean" / f"{name}.tif"
                write_image(clean_path, (clean + settings.offset) * scale)
                for frame in range(settings.frames):
                    # by name: an image that is added or taken away does not change the noise of the others
                    rng = np.random.default_rng([settings.seed, zlib.crc32(name.encode()), frame])
                    noisy = simulate_noise(clean, settings, dataset.noise_direction, rng)
                    suffix = "" if settings.frames == 1 else f"_frame{frame:0{len(str(settings.frames - 1))}d}"
                    noisy_path = folder / "noisy" / f"{name}{suffix}.tif"
                    write_image(noisy_path, noisy)
                    rows.append(Image(f"{name}{suffix}", noisy_path, clean_path, noisy.shape))
        write_manifest(folder, rows)


def read_white(path: Path, dataset: DatasetSettings) -> list[np.ndarray]:
    """Read the clean frames of a file, cropped, (C, ...), in units of white.

    Raises
    ------
    UserError
        Where the file is unfit, or a value is negative or not a number.
    """
    array, samples = read_array(path)
    white = white_level(array.dtype)
    frames = split_frames(array, samples, path, dataset.axes, dataset.channel)
    frames = [crop_image(frame, dataset.crop, path) / white for frame in frames]
    for frame in frames:
        if not (np.isfinite(frame).all() and frame.min() >= 0):
            raise UserError(
                f"{path}: found values that are negative or not numbers, allowed: 0 or more, white is {white:g}"
            )
    return frames
