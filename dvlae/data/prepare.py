"""Conversion of a dataset's files to canonical images."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dvlae.config.dataset import DatasetSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.files import find_images, numbered_name
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.data.reading import open_stacks
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder
from dvlae.system.progress import progress

# The name of an image, its pixels (C, ...), and its file.
Frame = tuple[str, np.ndarray, Path]


def source_folder(dataset: DatasetSettings, data: Path) -> Path:
    """Return the folder that the dataset's globs are relative to.

    Parameters
    ----------
    dataset
        The dataset's settings.
    data
        The data folder.

    Returns
    -------
    Path
        The data folder, or the folder of the images in scikit-image.
    """
    if dataset.source.kind != "skimage":
        return Path(data)
    import skimage.data

    return Path(skimage.data.__file__).parent


def prepare(dataset: DatasetSettings, data: Path, simulated: Path | None, output: Path) -> None:
    """Make the canonical images of a dataset.

    Parameters
    ----------
    dataset
        The dataset's settings: the files and how to read them.
    data
        The data folder.
    simulated
        If the dataset has ``simulate``: the folder made by ``dvlae simulate``, which is used instead of the files.
    output
        The folder to make: ``noisy/``, ``clean/`` and ``manifest.csv``.

    Raises
    ------
    UserError
        If no file matches; if an image cannot be read, has other axes or channels, contains values that are not
        numbers, or is constant; if clean and noisy images differ in number or shape.
    """
    with atomic_folder(output) as folder:
        if dataset.simulate is None:
            rows = _from_files(dataset, Path(data), folder)
        elif simulated is None:
            raise UserError(
                "prepare: this dataset's noise is simulated: run `dvlae simulate` and give its folder (--simulated)"
            )
        else:
            rows = _from_simulated(Path(simulated), folder)
        names = [row.name for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"noisy: two images are called {name!r}; each needs its own name")
        write_manifest(folder, rows)


def _from_files(dataset: DatasetSettings, data: Path, folder: Path) -> list[Image]:
    root = source_folder(dataset, data)
    noisy_files = find_images(dataset.noisy, root, "noisy")
    noisy_frames = _frames(noisy_files, dataset, progress(noisy_files, description="prepare", unit="file"))
    if dataset.clean == "mean":
        return _with_mean(noisy_frames, folder)
    if dataset.clean is not None:
        clean_files = find_images(dataset.clean, root, "clean")
        return _in_pairs(noisy_frames, _frames(clean_files, dataset, clean_files), folder)
    rows: list[Image] = []
    for frame in noisy_frames:
        _add(rows, folder, frame, None)
    return rows


def _in_pairs(noisy_frames: Iterator[Frame], clean_frames: Iterator[Frame], folder: Path) -> list[Image]:
    """Write each noisy frame and the clean frame with the same index."""
    rows: list[Image] = []
    for noisy_frame, clean_frame in itertools.zip_longest(noisy_frames, clean_frames):
        if noisy_frame is None or clean_frame is None:
            clean_count, noisy_count = (
                len(rows) + (frame is not None) + sum(1 for _ in others)
                for frame, others in ((clean_frame, clean_frames), (noisy_frame, noisy_frames))
            )
            raise UserError(f"clean: found {clean_count} clean images for {noisy_count} noisy ones, allowed: as many")
        name, noisy, path = noisy_frame
        _, clean, clean_path = clean_frame
        canonical = folder / "clean" / f"{name}.tif"
        _add(rows, folder, noisy_frame, canonical)
        if clean.shape != noisy.shape:
            raise UserError(f"{clean_path}: found shape {clean.shape}, allowed: {noisy.shape} like {path}")
        write_image(canonical, clean)
    return rows


def _with_mean(noisy_frames: Iterator[Frame], folder: Path) -> list[Image]:
    """Write the noisy frames, and their mean as the clean image of all of them."""
    clean = folder / "clean" / "mean.tif"
    rows: list[Image] = []
    total = np.zeros(())
    for frame in noisy_frames:
        _, noisy, path = frame
        if rows and noisy.shape != rows[0].shape:
            raise UserError(
                f"{path}: found shape {noisy.shape}, allowed: {rows[0].shape}, as `clean: mean` needs one shape"
            )
        total = total + noisy.astype(np.float64)
        _add(rows, folder, frame, clean)
    if len(rows) < 2:
        raise UserError("clean: found 'mean' for one noisy image, allowed: mean of two or more, a glob, or null")
    write_image(clean, total / len(rows))
    return rows


def _from_simulated(simulated: Path, folder: Path) -> list[Image]:
    rows: list[Image] = []
    for image in progress(read_manifest(simulated), description="prepare", unit="image"):
        noisy = check_grey_values(read_canonical(image.noisy), image.noisy)
        clean = folder / "clean" / image.clean.name
        _add(rows, folder, (image.name, noisy, image.noisy), clean)
        # Several noisy frames may share a clean image.
        if not clean.exists():
            write_image(clean, check_grey_values(read_canonical(image.clean), image.clean))
    return rows


def _frames(files: list[Path], dataset: DatasetSettings, loop: Iterable[Path]) -> Iterator[Frame]:
    """Read the files one by one, and crop and check their frames. ``loop`` yields the files and may show progress."""
    for stack in open_stacks(files, dataset, loop):
        path = stack.source.path
        for number, frame in enumerate(stack):
            what = path if len(stack) == 1 else f"{path}, image {number}"
            image = check_grey_values(frame.astype(np.float32), what)
            yield numbered_name(stack.name, number, len(stack)), image, path


def check_grey_values(image: np.ndarray, what: Path | str) -> np.ndarray:
    """Refuse an image that cannot be processed.

    Parameters
    ----------
    image
        (C, ...).
    what
        The image, for the error message.

    Returns
    -------
    (C, ...) array
        The same image.

    Raises
    ------
    UserError
        If a value is not a number, or a channel is constant.
    """
    wrong = image.size - np.count_nonzero(np.isfinite(image))
    if wrong:
        raise UserError(f"{what}: found {wrong} pixels that are not numbers (NaN or infinite), allowed: none")
    for number, channel in enumerate(image):
        if channel.min() == channel.max():
            which = f"channel {number} is" if len(image) > 1 else "all pixels are"
            raise UserError(f"{what}: {which} {channel.flat[0]:g}, allowed: an image that is not constant")
    return image


def _add(rows: list[Image], folder: Path, frame: Frame, clean: Path | None) -> None:
    """Write a noisy frame, which needs as many channels as the others, and append its row of the manifest."""
    name, noisy, path = frame
    if rows and len(noisy) != rows[0].shape[0]:
        raise UserError(
            f"{path}: found {len(noisy)} channels, allowed: {rows[0].shape[0]} like the other images "
            "(`channel: grey` makes one of red, green and blue)"
        )
    noisy_path = folder / "noisy" / f"{name}.tif"
    write_image(noisy_path, noisy)
    rows.append(Image(name, noisy_path, clean, noisy.shape))
