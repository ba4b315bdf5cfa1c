"""Simulation of noise with known properties on clean images."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dvlae.axes import AXES
from dvlae.config.dataset import DatasetSettings, SimulateSettings
from dvlae.data.canonical import CANONICAL_FILES, write_frames
from dvlae.data.files import find_images, numbered_name
from dvlae.data.manifest import Image, write_manifest
from dvlae.data.prepare import source_folder
from dvlae.data.reading import Stack, open_stacks
from dvlae.data.sources import SourceInfo
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, check_outside
from dvlae.system.hashes import hash_files
from dvlae.system.progress import progress


def correlate(noise: np.ndarray, kernel: list[float], axis: int) -> np.ndarray:
    """Filter noise along an axis with a kernel of unit energy, so that white noise keeps its variance.

    Parameters
    ----------
    noise
        White noise, along ``axis`` longer by ``len(kernel) - 1`` than the result.
    kernel
        Weight of the current entry, of the one before it, and so on; scaled to unit energy.
    axis
        The axis to filter along.

    Returns
    -------
    array
        The filtered noise, shorter by ``len(kernel) - 1`` along ``axis``, as the first entries have no predecessors.
    """
    weights = np.asarray(kernel, dtype=np.float64)
    weights = weights / np.linalg.norm(weights)
    length = noise.shape[axis] - len(weights) + 1
    out = np.zeros(())
    for lag, weight in enumerate(weights):
        start = len(weights) - 1 - lag
        out = out + weight * np.take(noise, np.arange(start, start + length), axis)
    return out


def simulate_noise(
    clean: np.ndarray, settings: SimulateSettings, noise_direction: str, rng: np.random.Generator
) -> np.ndarray:
    """Add the noise of a scanning microscope to a clean image.

    Photons are counted (Poisson). The counting noise is filtered along the noise direction, as by a scanner's
    amplifier. Then white read noise and the offset are added, and the values are clipped and rounded. The noise of the
    channels is independent.

    Parameters
    ----------
    clean
        (C, ...) with one to three spatial axes, not negative, in units of the white level.
    settings
        Photons, kernel, read noise, offset and bits.
    noise_direction
        ``"x"``, ``"y"``, ``"z"`` or ``"none"`` (the kernel is not used then).
    rng
        Random number generator.

    Returns
    -------
    (C, ...) float32 array
        Integers from 0 to 2^bits - 1; if ``bits`` is None, values in units of the white level.

    Examples
    --------
    The noise of neighbours is correlated along x, and independent along y:

    >>> import numpy as np
    >>> from dvlae.config.dataset import SimulateSettings
    >>> from dvlae.data.simulate import simulate_noise
    >>> settings = SimulateSettings(photons=50, kernel=[1.0, 1.0], read_noise=0.0, bits=None)
    >>> noisy = simulate_noise(np.full((1, 512, 512), 0.5), settings, "x", np.random.default_rng(0))
    >>> noise = noisy[0] - 0.5
    >>> along_x = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    >>> along_y = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    >>> print(f"{along_x:.1f} {abs(along_y):.1f}")
    0.5 0.0
    """
    clean = np.asarray(clean, dtype=np.float64)
    padded, axis = clean, AXES.get(noise_direction)
    if axis is not None:
        # The scan starts before the image, so that the noise of the first pixels is like that of the others.
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
    """Make noisy images from a dataset's clean ones.

    Parameters
    ----------
    dataset
        Settings with ``simulate``. Their ``noisy`` names the clean images. The white level is the largest value of
        integer files and 1.0 of floating-point files.
    data
        The data folder.
    output
        The folder to make: canonical ``noisy/``, ``clean/`` and ``manifest.csv``. The clean images include the offset:
        they are the mean of the noisy ones except for clipping and rounding.

    Raises
    ------
    UserError
        If there is nothing to simulate, a file is missing or unsuitable, or the files are in the output.
    """
    settings = dataset.simulate
    if settings is None:
        raise UserError(
            "simulate: found null in the dataset's settings, allowed: a block; there is nothing to simulate"
        )
    files = find_images(dataset.noisy, source_folder(dataset, data), "noisy")
    check_outside(output, files)
    with atomic_folder(output, CANONICAL_FILES) as folder:
        rows: list[Image] = []
        for stack in open_stacks(files, dataset, progress(files, description="simulate", unit="file")):
            rows += _simulate_stack(stack, dataset.noise_direction, settings, folder)
        write_manifest(folder, rows)


def _simulate_stack(stack: Stack, noise_direction: str, settings: SimulateSettings, folder: Path) -> list[Image]:
    """Write the clean frames of a source, and the noisy frames of each. Return the rows of the manifest."""
    scale = 1.0 if settings.bits is None else 2**settings.bits - 1
    dtype = np.dtype(np.float32 if settings.bits is None else np.min_scalar_type(scale))
    shape, names = stack.frame_shape, [numbered_name(stack.name, number, len(stack)) for number in range(len(stack))]
    clean_path, noisy_path = (folder / kind / f"{stack.name}.tif" for kind in ("clean", "noisy"))
    cleans = ((read_white(stack, number) + settings.offset) * scale for number in range(len(stack)))
    write_frames(clean_path, SourceInfo.of_frames(shape, len(stack)), cleans, np.dtype(np.float32))

    def noisy() -> Iterator[np.ndarray]:
        for number, name in enumerate(names):
            clean = read_white(stack, number)
            for frame in range(settings.frames):
                # The seed contains the name, so that adding or removing an image does not change the others.
                rng = np.random.default_rng([settings.seed, zlib.crc32(name.encode()), frame])
                yield simulate_noise(clean, settings, noise_direction, rng)

    info = SourceInfo.of_frames(shape, len(stack) * settings.frames, dtype.name)
    write_frames(noisy_path, info, noisy(), dtype)
    row = Image(
        "", noisy_path, clean_path, shape, source=str(stack.source.path), source_sha256=hash_files(stack.source.files)
    )
    return [
        replace(
            row,
            name=numbered_name(name, frame, settings.frames, "_frame"),
            frame=number * settings.frames + frame,
            clean_frame=number,
        )
        for number, name in enumerate(names)
        for frame in range(settings.frames)
    ]


def read_white(stack: Stack, number: int) -> np.ndarray:
    """Read a clean frame, in units of the white level.

    Parameters
    ----------
    stack
        The frames of a file.
    number
        The number of the frame.

    Returns
    -------
    (C, ...) float32 array
        The frame.

    Raises
    ------
    UserError
        If a value is negative or not a number.
    """
    dtype = stack.source.dtype
    white = float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0
    frame = stack.frame(number).astype(np.float32) / white
    if not (np.isfinite(frame).all() and frame.min() >= 0):
        raise UserError(
            f"{stack.source.path}: found values that are negative or not numbers, allowed: 0 or more, "
            f"white is {white:g}"
        )
    return frame
