"""What TIFF files say of themselves: their axes, and the size of their pixels."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import tifffile

from dvlae.data.sources import Calibration

MICROMETRES = ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", "\\u00B5m", "\\u00b5m")
UNITS_PER_SECOND = {"s": 1.0, "ms": 1e3, "µs": 1e6, "min": 1 / 60, "h": 1 / 3600, "sec": 1.0, "": 1.0}
MICROMETRES_PER_METRE, MICROMETRES_PER_CENTIMETRE = 1e6, 1e4
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
# tifffile's letters of axes that a file only counts.
COUNTED_AXES = "IQ"
SAMPLES = "S"


def stated_axes(series: tifffile.TiffPageSeries) -> str:
    """Return the axes of a series as far as the file says what they are.

    Parameters
    ----------
    series
        The series.

    Returns
    -------
    str
        One letter of STCZYX for each axis, or ``?`` for one that the file says nothing about.
    """
    axes = ""
    # The last of several axes of one kind is the one that pages contain.
    for letter in reversed(series.axes):
        known = "C" if letter == SAMPLES else letter if letter in "TCZYX" else "?" if letter in COUNTED_AXES else "S"
        axes = ("?" if known in axes and known in "TCZYX" else known) + axes
    return axes


def read_calibration(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, number: int, xml: str | None
) -> Calibration:
    """Read what a file says beside its pixels.

    Parameters
    ----------
    file
        The file.
    series
        A series of it.
    number
        Its number.
    xml
        Its OME metadata; None if it has none.

    Returns
    -------
    Calibration
        What is known.
    """
    if series.kind == "ome" and xml is not None:
        return _from_ome(xml, number)
    if series.kind == "lsm":
        return _from_lsm(file.lsm_metadata or {})
    if series.kind == "stk":
        return _from_stk(file.stk_metadata or {})
    if series.kind == "imagej" or file.imagej_metadata:
        return _from_imagej(series.keyframe, file.imagej_metadata or {})
    return _from_tags(series.keyframe)


def _sizes(values: Mapping[str, Any], factor: float = 1.0) -> dict[str, float]:
    """Return the sizes along z, y and x that are known, in that order."""
    numbers = {axis: _number(values.get(axis)) for axis in "zyx"}
    return {axis: number * factor for axis, number in numbers.items() if number is not None and number > 0}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _unit(text: str) -> str:
    return "um" if text in MICROMETRES else text


def _pixel_sides(page: tifffile.TiffPage) -> dict[str, float]:
    """Return the sides of a pixel along y and x, in the unit of the resolution."""
    sides = {}
    for axis, tag in (("y", Y_RESOLUTION), ("x", X_RESOLUTION)):
        pixels, length = page.tags.valueof(tag, (0, 0))
        if pixels > 0 and length > 0:
            sides[axis] = length / pixels
    return sides


def _from_imagej(page: tifffile.TiffPage, metadata: Mapping[str, Any]) -> Calibration:
    unit = _unit(str(metadata.get("unit", "")))
    # Without a unit, ImageJ counts in pixels.
    sides = {} if unit in ("", "pixel", "pixels") else {"z": metadata.get("spacing"), **_pixel_sides(page)}
    step = _number(metadata.get("finterval"))
    per_second = UNITS_PER_SECOND.get(str(metadata.get("tunit", "s")), 1.0)
    return Calibration(
        sizes=_sizes(sides),
        unit=unit if sides else "",
        time_step=step / per_second if step else None,
        labels=tuple(map(str, metadata.get("Labels", ()))),
    )


def _from_ome(xml: str, index: int) -> Calibration:
    def children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
        return [child for child in element if child.tag.rpartition("}")[2] == name]

    every = [pixels for image in children(ElementTree.fromstring(xml), "Image") for pixels in children(image, "Pixels")]
    if index >= len(every):
        return Calibration(description=xml)
    pixels = every[index]
    step = _number(pixels.get("TimeIncrement"))
    per_second = UNITS_PER_SECOND.get(pixels.get("TimeIncrementUnit", "s"), 1.0)
    units = {axis: _unit(pixels.get(f"PhysicalSize{axis.upper()}Unit", "um")) for axis in "zyx"}
    same = {axis for axis in "zyx" if units[axis] == units["x"]}
    names = [channel.get("Name", "") for channel in children(pixels, "Channel")]
    sizes = _sizes({axis: pixels.get(f"PhysicalSize{axis.upper()}") for axis in same})
    return Calibration(
        sizes=sizes,
        unit=units["x"] if sizes else "",
        time_step=step / per_second if step else None,
        channels=tuple(names) if any(names) else (),
        description=xml,
    )


def _from_lsm(metadata: Mapping[str, Any]) -> Calibration:
    sizes = _sizes({axis: metadata.get(f"VoxelSize{axis.upper()}") for axis in "zyx"}, MICROMETRES_PER_METRE)
    colours = metadata.get("ChannelColors") or {}
    return Calibration(
        sizes=sizes,
        unit="um" if sizes else "",
        time_step=_number(metadata.get("TimeIntervall")) or None,
        channels=tuple(map(str, colours.get("ColorNames", ()))),
    )


def _from_stk(metadata: Mapping[str, Any]) -> Calibration:
    unit = _unit(str(metadata.get("CalibrationUnits", "")))
    distances = [_number(distance) for distance in metadata.get("ZDistance", ())]
    sides = {"z": distances[-1] if distances else None} | {
        axis: metadata.get(f"{axis.upper()}Calibration") for axis in "yx"
    }
    return Calibration(sizes=_sizes(sides) if unit else {}, unit=unit)


def _from_tags(page: tifffile.TiffPage) -> Calibration:
    """Use what scanners of slides write, or a resolution in centimetres: one in inches is for printing."""
    found = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description or "")
    if found:
        return Calibration(_sizes({"y": found[1], "x": found[1]}), "um")
    if page.tags.valueof(RESOLUTION_UNIT) != tifffile.RESUNIT.CENTIMETER:
        return Calibration()
    return Calibration(_sizes(_pixel_sides(page), MICROMETRES_PER_CENTIMETRE), "um")
