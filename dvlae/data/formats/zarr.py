"""Reading of Zarr stores of the versions 2 and 3, and of OME-Zarr in them."""

import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.data.formats.parts import PartSource, optional_module
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Calibration, Source

MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
SECONDS = {"nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0}
LETTERS = {"t": "T", "c": "C", "z": "Z", "y": "Y", "x": "X", "time": "T", "channel": "C", "unknown": "?"}
# The axes of OME-Zarr before version 0.3, which does not name them.
OLD_AXES = "tczyx"


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
        stack.enter_context(warnings.catch_warnings(action="ignore", category=UserWarning))
        with errors_named(path):
            files = tuple(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else (path,)
            store = zarr.storage.ZipStore(path) if path.is_file() else zarr.storage.LocalStore(path, read_only=True)
            stack.callback(store.close)
            found = [_source(path, files, *image) for image in _images(zarr.open(store, mode="r"), "")]
            if not found:
                raise ValueError("it contains no array")
            if len(found) == 1:
                found[0].series = ""
        yield list[Source](found)


def _images(node: Any, name: str) -> Iterator[tuple[str, Any, list[dict[str, Any]], Calibration]]:
    """Yield name, array, axes and calibration of each image in a node."""
    attributes = node.attrs.asdict()
    if hasattr(node, "shape"):
        names = getattr(node.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS") or ()
        axes = [{"name": axis} if str(axis).lower() in LETTERS else {"type": "unknown"} for axis in names]
        yield name, node, axes, Calibration()
        return
    attributes = attributes.get("ome", attributes)
    scales = attributes.get("multiscales", [])
    for number, scale in enumerate(scales):
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scale.get("axes", OLD_AXES)]
        largest = scale["datasets"][0]
        array = node[largest["path"]]
        channels = tuple(str(channel.get("label", "")) for channel in attributes.get("omero", {}).get("channels", ()))
        factors = _factors(scale, array.ndim) * _factors(largest, array.ndim)
        label = name if len(scales) == 1 else f"{name}/{scale.get('name', number)}".strip("/")
        yield label, array, axes, _calibration(axes, factors, channels)
    if not scales:
        for key, child in sorted(node.members(), key=lambda member: (len(member[0]), member[0])):
            yield from _images(child, f"{name}/{key}".strip("/"))


def _factors(block: dict[str, Any], axes: int) -> np.ndarray:
    product = np.ones(axes)
    for transformation in block.get("coordinateTransformations", ()):
        product = product * np.asarray(transformation.get("scale", 1.0), float)
    return product


def _calibration(axes: list[dict[str, Any]], factors: np.ndarray, channels: tuple[str, ...]) -> Calibration:
    steps = {_letter(axis): (float(step), axis.get("unit")) for axis, step in zip(axes, factors, strict=True)}
    steps = {axis: (step, unit) for axis, (step, unit) in steps.items() if step > 0 and math.isfinite(step)}
    space = {axis.lower(): step for axis, step in steps.items() if axis in "ZYX"}
    known = bool(space) and all(unit in MICROMETRES for _, unit in space.values())
    time, unit = steps.get("T", (0.0, None))
    return Calibration(
        sizes={axis: step * (MICROMETRES[unit] if known else 1.0) for axis, (step, unit) in space.items()},
        unit="um" if known else "",
        time_step=time * SECONDS[unit] if unit in SECONDS else None,
        channels=channels,
    )


def _letter(axis: dict[str, Any]) -> str:
    name = str(axis.get("name", "")).lower()
    return LETTERS.get(name) or LETTERS.get(str(axis.get("type", "")).lower(), "S")


def _source(
    path: Path, files: tuple[Path, ...], name: str, array: Any, axes: list[dict[str, Any]], calibration: Calibration
) -> PartSource:
    if any(getattr(codec, "codec_id", "") == "pickle" for codec in (*array.filters, *array.compressors)):
        raise ValueError("its pixels are packed by pickle, which could run a program")
    missing = array.nchunks - array.nchunks_initialized
    letters = "".join(map(_letter, axes))
    # Axes of length 1 are a habit of writers, not a dimension of the image.
    kept = [axis for axis, side in enumerate(array.shape) if side > 1 or not letters or letters[axis] in "YX"]

    def part(index: tuple[int, ...]) -> np.ndarray:
        places = dict(zip(kept, index, strict=False))
        return array[tuple(places.get(axis, slice(None) if axis in kept else 0) for axis in range(array.ndim))]

    return PartSource(
        path=path,
        files=files,
        series=name,
        kind="zarr",
        axes="".join(letters[axis] for axis in kept) if letters else "",
        shape=tuple(array.shape[axis] for axis in kept),
        dtype=array.dtype,
        calibration=calibration,
        notes=(f"{missing} of {array.nchunks} chunks are missing, and are read as {array.fill_value}",) * bool(missing),
        part=part,
    )
