"""The images of a Zarr store: those of OME-Zarr, with axes and calibration, and plain arrays."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dvlae.data.formats.parts import LENGTHS, TIMES, size_notes, unit_name
from dvlae.data.sources import Calibration

LETTERS = {"t": "T", "c": "C", "z": "Z", "y": "Y", "x": "X", "time": "T", "channel": "C"}
# The axes of OME-Zarr before version 0.3, which does not name them.
OLD_AXES = "tczyx"
# A step along an axis, and the short name of its unit.
Step = tuple[float, str]
# What writers say of a step that they do not know.
UNKNOWN: Step = (1.0, "")


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
    notes
        What the user has to know of that.
    """

    name: str
    array: Any
    axes: str
    calibration: Calibration
    notes: tuple[str, ...] = ()


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
    steps = {
        letter: (float(step), unit_name(str(axis.get("unit") or "")))
        for letter, step, axis in zip(letters, factors, axes, strict=True)
        if step > 0 and math.isfinite(step)
    }
    names = tuple(str(channel.get("label", "")) for channel in channels)
    calibration, notes = _calibrate(steps, names)
    return StoredImage(name, array, letters, calibration, notes)


def _calibrate(steps: Mapping[str, Step], channels: tuple[str, ...]) -> tuple[Calibration, tuple[str, ...]]:
    """Return what the steps along the axes say, and sentences about those that say no length and no time."""
    sides = {axis: steps[axis] for axis in "ZYX" if axis in steps}
    if any(unit for _, unit in sides.values()):
        sizes = {axis.lower(): step * LENGTHS[unit] for axis, (step, unit) in sides.items() if unit in LENGTHS}
    else:
        sizes = {axis.lower(): step for axis, (step, _) in sides.items()}
        sizes = {} if set(sizes.values()) <= {1.0} else sizes
    time, unit_of_time = steps.get("T", UNKNOWN)
    calibration = Calibration(
        sizes=sizes,
        unit="um" if any(unit in LENGTHS for _, unit in sides.values()) else "",
        time_step=time * TIMES[unit_of_time] if unit_of_time in TIMES else None,
        channels=channels,
    )
    unknown = {axis: step for axis, step in sides.items() if axis.lower() not in sizes}
    unknown |= {"T": (time, unit_of_time)} if calibration.time_step is None else {}
    left_out = [
        f"{axis.lower()} {step:g} {unit}".strip() for axis, (step, unit) in unknown.items() if (step, unit) != UNKNOWN
    ]
    notes = (f"leaves out steps whose unit is missing or not known: {', '.join(left_out)}",) if left_out else ()
    return calibration, size_notes(calibration) + notes


def _letter(axis: dict[str, Any]) -> str:
    """Return the letter of an axis by its name or by its type; S for one of another kind."""
    found = (LETTERS.get(str(axis.get(key, "")).lower()) for key in ("name", "type"))
    return next(filter(None, found), "S")
