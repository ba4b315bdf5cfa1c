"""Conversion of a dataset's files to canonical images."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dvlae.config.dataset import DatasetSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.data.reading import crop_image, find_images, read_image, unique_names
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder
from dvlae.system.progress import progress

# The name of an image, its pixels (C, ...), and the file that it is from.
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
        The data folder, or that of scikit-image's own images.
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
    if dataset.clean is None:
        return _without_clean(noisy_frames, folder)
    clean_files = find_images(dataset.clean, root, "clean")
    return _in_pairs(noisy_frames, _frames(clean_files, dataset, clean_files), folder)


def _without_clean(noisy_frames: Iterator[Frame], folder: Path) -> list[Image]:
    rows: list[Image] = []
    for name, noisy, path in noisy_frames:
        _check_channels(rows, noisy, path)
        rows.append(_write(folder, name, noisy, None))
    return rows


def _in_pairs(noisy_frames: Iterator[Frame], clean_frames: Iterator[Frame], folder: Path) -> list[Image]:
    """Write each noisy frame and the clean frame in the same place."""
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
        _check_channels(rows, noisy, path)
        if clean.shape != noisy.shape:
            raise UserError(f"{clean_path}: found shape {clean.shape}, allowed: {noisy.shape} like {path}")
        rows.append(_write(folder, name, noisy, clean))
    return rows


def _with_mean(noisy_frames: Iterator[Frame], folder: Path) -> list[Image]:
    """Write the noisy frames, and their mean as the clean image of all of them."""
    clean = folder / "clean" / "mean.tif"
    rows: list[Image] = []
    total = np.zeros(())
    for name, noisy, path in noisy_frames:
        if rows and noisy.shape != rows[0].shape:
            raise UserError(
                f"{path}: found shape {noisy.shape}, allowed: {rows[0].shape}, as `clean: mean` needs one shape"
            )
        total = total + noisy.astype(np.float64)
        row = _write(folder, name, noisy, None)
        rows.append(Image(row.name, row.noisy, clean, row.shape))
    if len(rows) < 2:
        raise UserError("clean: found 'mean' for one noisy image, allowed: mean of two or more, a glob, or null")
    write_image(clean, total / len(rows))
    return rows


def _from_simulated(simulated: Path, folder: Path) -> list[Image]:
    rows: list[Image] = []
    # Several noisy frames may share a clean image.
    cleans: dict[Path, Path] = {}
    for image in progress(read_manifest(simulated), description="prepare", unit="image"):
        noisy = check_grey_values(read_canonical(image.noisy), image.noisy)
        _check_channels(rows, noisy, image.noisy)
        if image.clean not in cleans:
            cleans[image.clean] = folder / "clean" / image.clean.name
            write_image(cleans[image.clean], check_grey_values(read_canonical(image.clean), image.clean))
        row = _write(folder, image.name, noisy, None)
        rows.append(Image(row.name, row.noisy, cleans[image.clean], row.shape))
    return rows


def _frames(files: list[Path], dataset: DatasetSettings, loop: Iterable[Path]) -> Iterator[Frame]:
    """Read files one by one, in a loop over them that may show progress; crop and check their frames."""
    for path, stem in zip(loop, unique_names(files), strict=True):
        frames = read_image(path, dataset.axes, dataset.channel)
        digits = len(str(len(frames) - 1))
        for number, frame in enumerate(frames):
            name = stem if len(frames) == 1 else f"{stem}_{number:0{digits}d}"
            what = path if len(frames) == 1 else f"{path}, image {number}"
            yield name, check_grey_values(crop_image(frame, dataset.crop, path), what), path


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


def _check_channels(rows: list[Image], image: np.ndarray, path: Path) -> None:
    if rows and len(image) != rows[0].shape[0]:
        raise UserError(
            f"{path}: found {len(image)} channels, allowed: {rows[0].shape[0]} like the other images "
            "(`channel: grey` makes one of red, green and blue)"
        )


def _write(folder: Path, name: str, noisy: np.ndarray, clean: np.ndarray | None) -> Image:
    noisy_path, clean_path = (folder / kind / f"{name}.tif" for kind in ("noisy", "clean"))
    write_image(noisy_path, noisy)
    if clean is None:
        return Image(name, noisy_path, None, noisy.shape)
    write_image(clean_path, clean)
    return Image(name, noisy_path, clean_path, noisy.shape)
