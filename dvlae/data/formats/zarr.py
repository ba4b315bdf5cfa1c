"""Reading of Zarr stores of the versions 2 and 3."""

import math
import warnings
import zipfile
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.data.formats.compressed.streams import loss_note
from dvlae.data.formats.ome_zarr import StoredImage, stored_images
from dvlae.data.formats.parts import PartSource, as_series, optional_module
from dvlae.data.pixels import errors_named
from dvlae.data.sources import ZARR_METADATA, Source

# Codecs that change numbers.
LOSSY = ("bitround", "quantize", "fixedscaleoffset", "zfpy", "jpeg", "jpeg2k", "jpegxl", "jpegxr", "webp", "lerc")


@contextmanager
def sources(path: Path) -> Iterator[list[Source]]:
    """Open a Zarr store.

    Parameters
    ----------
    path
        A folder, or a ZIP archive of one.

    Yields
    ------
    list of Source
        One source for each image of OME-Zarr in its full resolution, and for each array that belongs to none.

    Raises
    ------
    UserError
        If the store is damaged, or the package that reads it is missing.
    """
    zarr = optional_module("zarr", path)
    with ExitStack() as stack:
        # Zarr warns of folders that are none of its own, such as that of the OME-XML.
        with errors_named(path), warnings.catch_warnings(action="ignore", category=UserWarning):
            names = sorted(_names(path))
            store = zarr.storage.ZipStore(path) if path.is_file() else zarr.storage.LocalStore(path, read_only=True)
            root = zarr.open(store, path=_root(names), mode="r")
            stack.callback(store.close)
            found = as_series([_source(path, names, image) for image in stored_images(root)])
        yield found


def _names(path: Path) -> list[str]:
    """Return the names of all files in a store."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _root(names: list[str]) -> str:
    """Return the outermost folder that is a store: an archive may contain the store's folder, and not its content."""
    folders = [folder for folder, _, name in (name.rpartition("/") for name in names) if name in ZARR_METADATA]
    if not folders:
        raise ValueError("it contains no Zarr store")
    return min(folders, key=lambda folder: folder.count("/") + bool(folder))


def _source(path: Path, names: list[str], image: StoredImage) -> PartSource:
    array, letters = image.array, image.axes
    # Axes of length 1 are a habit of writers, not dimensions of the image.
    kept = [axis for axis, side in enumerate(array.shape) if side > 1 or not letters or letters[axis] in "YX"]

    def part(index: tuple[int, ...]) -> np.ndarray:
        places = dict(zip(kept, index, strict=False))
        return array[tuple(places.get(axis, slice(None) if axis in kept else 0) for axis in range(array.ndim))]

    return PartSource(
        path=path,
        files=tuple(path / name for name in names) if path.is_dir() else (path,),
        series=image.name,
        kind="zarr",
        axes="".join(letters[axis] for axis in kept) if letters else "",
        shape=tuple(array.shape[axis] for axis in kept),
        dtype=array.dtype,
        calibration=image.calibration,
        notes=image.notes + _missing_chunks(names, image) + _losses(array),
        part=part,
    )


def _missing_chunks(names: list[str], image: StoredImage) -> tuple[str, ...]:
    """Say how many files of pixels are missing; writers leave out those of which all pixels are equal."""
    first = f"{image.array.path}/".lstrip("/")
    below = names[bisect_left(names, first) : bisect_left(names, first[:-1] + "0") if first else None]  # 0 follows /
    stored = sum(not name.rpartition("/")[2].startswith((".", "zarr.json")) and name[-1] != "/" for name in below)
    sides = image.array.shards or image.array.chunks
    count = math.prod(-(-side // step) for side, step in zip(image.array.shape, sides, strict=True))
    if stored >= count:
        return ()
    return (f"{count - stored} of {count} files of pixels are missing, and are read as {image.array.fill_value}",)


def _losses(array: Any) -> tuple[str, ...]:
    """Return a sentence for each codec of an array that changes numbers."""
    used = [type(codec).__name__ for codec in (*array.filters, *array.compressors)]
    return tuple(loss_note(name, True) for name in used if name.lower() in LOSSY)
