"""The images of a Zarr store: those of OME-Zarr, with axes and calibration, and plain arrays."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dvlae.data.sources import Calibration

LETTERS = {"t": "T", "c": "C", "z": "Z", "y": "Y", "x": "X", "time": "T", "channel": "C"}
# The axes of OME-Zarr before version 0.3, which does not name them.
OLD_AXES = "tczyx"
MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
SECONDS = {"nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0}


@dataclass(frozen=True)
class StoredImage:
    """An image of a store.

    Attributes
    ----------
    name
        Where in the store it is.
    array
        Its pixels, a ``zarr.Array``.
    axes
        One letter of STCZYX for each axis, or ``?``. Empty if the store says nothing of them.
    calibration
        What the store says of it.
    """

    name: str
    array: Any
    axes: str
    calibration: Calibration


def stored_images(node: Any, name: str = "") -> Iterator[StoredImage]:
    """Find the images of a store.

    Parameters
    ----------
    node
        A ``zarr.Group`` or ``zarr.Array``.
    name
        Where in the store it is.

    Yields
    ------
    StoredImage
        Each image of OME-Zarr in its full resolution, without its labels, and each array that belongs to none.
    """
    attributes = node.attrs.asdict()
    if hasattr(node, "shape"):
        names = getattr(node.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS") or ()
        yield StoredImage(name, node, "".join(LETTERS.get(str(axis).lower(), "?") for axis in names), Calibration())
        return
    attributes = attributes.get("ome", attributes)
    scales = attributes.get("multiscales", [])
    for number, scale in enumerate(scales):
        label = name if len(scales) == 1 else f"{name}/{scale.get('name', number)}"
        yield _scaled_image(label.strip("/"), node, scale, attributes.get("omero", {}).get("channels", ()))
    if not scales:
        for key, child in sorted(node.members(), key=lambda member: (len(member[0]), member[0])):
            yield from stored_images(child, f"{name}/{key}".strip("/"))


def _scaled_image(name: str, group: Any, scale: dict[str, Any], channels: list[dict[str, Any]]) -> StoredImage:
    largest = scale["datasets"][0]
    array = group[largest["path"]]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scale.get("axes", OLD_AXES)]
    letters = "".join(map(_letter, axes))
    factors = np.ones(array.ndim)
    for transformation in (*scale.get("coordinateTransformations", ()), *largest.get("coordinateTransformations", ())):
        factors = factors * np.asarray(transformation.get("scale", 1.0), float)
    units = [axis.get("unit") for axis in axes]
    steps = [
        (letter, float(step), unit)
        for letter, step, unit in zip(letters, factors, units, strict=True)
        if step > 0 and math.isfinite(step)
    ]
    known = all(unit in MICROMETRES for letter, _, unit in steps if letter in "ZYX")
    times = [step * SECONDS[unit] for letter, step, unit in steps if letter == "T" and unit in SECONDS]
    calibration = Calibration(
        sizes={
            axis.lower(): step * MICROMETRES[str(unit)] if known else step
            for axis, step, unit in steps
            if axis in "ZYX"
        },
        unit="um" if known else "",
        time_step=times[0] if times else None,
        channels=tuple(str(channel.get("label", "")) for channel in channels),
    )
    return StoredImage(name, array, letters, calibration)


def _letter(axis: dict[str, Any]) -> str:
    """Return the letter of an axis by its name or by its type; S for one of another kind."""
    found = (LETTERS.get(str(axis.get(key, "")).lower()) for key in ("name", "type"))
    return next(filter(None, found), "S")
