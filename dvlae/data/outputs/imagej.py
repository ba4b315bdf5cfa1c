"""Results as ImageJ stacks: when they can be ones, and what ImageJ keeps with an image."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from dvlae.data.formats.tiff_metadata import IMAGEJ_PLACED
from dvlae.data.sources import SourceInfo

# The types of ImageJ: 8 and 16 bits with and without sign, and float32.
TYPES = "BHhf"
AXES = "TZCYX"
# What is stored as bytes.
COLOURS = "LUTs"
BINARY = (COLOURS, *IMAGEJ_PLACED)
# Texts that may have any characters.
LONG_TEXTS = ("Info", "Properties")
# Two numbers for each channel, and how channels are shown together.
RANGES, MODE = "Ranges", "mode"
# Limits of what is shown, which belong to grey values.
SHOWN = (RANGES, "min", "max")
# A function of whole numbers, which ImageJ does not apply to others.
FUNCTION = ("cf", "c0", "c1", "c2", "c3", "c4", "vunit")
COLOUR_SHAPE = (3, 256)
# A colour table is rounded to 8 bits.
MAX_ROUNDING = 1
# The units of the resolution that ImageJ writes.
RESOLUTION_UNITS = {"inch": "INCH", "cm": "CENTIMETER"}


def why_not_imagej(info: SourceInfo, axes: str, dtype: np.dtype, compression: str, *, large: bool) -> str:
    """Return why a result cannot be an ImageJ stack or should not be.

    Parameters
    ----------
    info
        The source.
    axes
        Letters of the axes of the result.
    dtype, compression
        How its values are stored.
    large
        Whether it has more than 4 GiB.

    Returns
    -------
    str
        The reason; empty if it should be one.
    """
    if info.kind != "imagej":
        return f"the source is a file of another kind ({info.kind})"
    if compression != "none":
        return "ImageJ stacks are not compressed"
    if dtype.char not in TYPES:
        return f"ImageJ stacks have no {dtype}"
    if [axis for axis in AXES if axis in axes] != list(axes):
        return f"ImageJ stacks have no axes {info.axes}"
    if large:
        return "ImageJ stacks have at most 4 GiB"
    return ""


def imagej_options(info: SourceInfo, axes: str, dtype: np.dtype, *, deviation: bool) -> dict[str, Any]:
    """Return what an ImageJ stack says beside its pixels.

    Parameters
    ----------
    info
        The source.
    axes
        Letters of the axes of the result.
    dtype
        The type of the result.
    deviation
        Whether the values are standard deviations, which have other limits than those of the source.

    Returns
    -------
    dict
        Options of tifffile.
    """
    calibration = info.calibration
    left_out = (SHOWN if deviation else ()) + (FUNCTION if deviation or dtype.kind == "f" else ())
    kept = {name: value for name, value in calibration.imagej.items() if name not in left_out}
    metadata = {
        name: _from_text(value) if name in IMAGEJ_PLACED else _escape(name, value) for name, value in kept.items()
    }
    metadata |= {"axes": axes, "unit": _escape("unit", calibration.unit) or None}
    metadata["spacing"] = calibration.sizes.get("z")
    if calibration.time_step:
        metadata["finterval"] = calibration.time_step
    if COLOURS in kept:
        metadata[COLOURS] = [np.frombuffer(table, np.uint8) for table in _listed(_from_text(kept[COLOURS]))]
    if calibration.labels:
        metadata["Labels"] = list(calibration.labels)
    sizes = [calibration.sizes.get(axis) for axis in "xy"]
    resolution = tuple(1 / size for size in sizes if size)
    return {
        "metadata": {name: value for name, value in metadata.items() if value is not None},
        "resolution": resolution if len(resolution) == 2 else None,
        "resolutionunit": RESOLUTION_UNITS.get(calibration.unit, "NONE"),
    }


def _escape(name: str, value: Any) -> Any:
    """Write characters that are not ASCII as ImageJ does, where it has only ASCII."""
    if not isinstance(value, str) or name in LONG_TEXTS:
        return value
    return "".join(letter if letter.isascii() else f"\\u{ord(letter):04X}" for letter in value)


def _from_text(value: Any) -> Any:
    """Return bytes that are text in base 64."""
    if isinstance(value, list):
        return [_from_text(each) for each in value]
    return base64.b64decode(value)


def select(items: Mapping[str, Any], channel: int | str | None, channels: int, *, cut: bool) -> dict[str, Any]:
    """Return what holds for a part of an image.

    Parameters
    ----------
    items
        What ImageJ keeps with the image (``Calibration.imagej``).
    channel
        The channel that is read. ``grey``: their luminance. None: all of them.
    channels
        The number of channels in the image.
    cut
        Whether pixels or planes are left out, so that the others have other places.

    Returns
    -------
    dict
        The items that still hold.
    """
    kept = {name: value for name, value in items.items() if not (cut and name in IMAGEJ_PLACED)}
    if channel is None or channels == 1:
        return kept
    colours, ranges = _listed(kept.pop(COLOURS, [])), kept.pop(RANGES, [])
    kept.pop(MODE, None)
    if isinstance(channel, int):
        if len(colours) == channels:
            kept[COLOURS] = colours[channel : channel + 1]
        if len(ranges) == 2 * channels:
            kept[RANGES] = ranges[2 * channel : 2 * channel + 2]
    return kept


def as_annotation(items: Mapping[str, Any]) -> dict[str, str]:
    """Return what ImageJ keeps with an image as text.

    Parameters
    ----------
    items
        ``Calibration.imagej``.

    Returns
    -------
    dict of str
        All but what is stored as bytes.
    """
    return {name: str(value) for name, value in items.items() if name not in BINARY}


def plain_colours(items: Mapping[str, Any]) -> list[tuple[int, int, int]] | None:
    """Return the colours of channels whose brightness rises evenly from black to one colour.

    Parameters
    ----------
    items
        ``Calibration.imagej``.

    Returns
    -------
    list of tuple of int or None
        Red, green and blue of each channel. None if there are no tables of colours, or other ones.
    """
    tables = [np.frombuffer(_from_text(text), np.uint8) for text in _listed(items.get(COLOURS, []))]
    found = []
    for table in tables:
        if table.size != np.prod(COLOUR_SHAPE):
            return None
        table = table.reshape(COLOUR_SHAPE).astype(np.float64)
        even = table[:, -1:] * np.linspace(0, 1, COLOUR_SHAPE[1])
        if np.abs(table - even).max() > MAX_ROUNDING:
            return None
        red, green, blue = map(int, table[:, -1])
        found.append((red, green, blue))
    return found or None


def _listed(value: Any) -> list[Any]:
    """Return a list of one item where tifffile gives the only item."""
    return value if isinstance(value, list) else [value]
