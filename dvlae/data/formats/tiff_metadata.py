"""What TIFF files say of themselves: their axes, and the size of their pixels."""

import base64
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from tifffile import RESUNIT

from dvlae.data.formats.parts import LENGTHS, TIMES, size_notes, unit_name
from dvlae.data.sources import Calibration

MICROMETRES_PER_METRE, MICROMETRES_PER_CENTIMETRE = 1e6, 1e4
# Units of a resolution. Any other is none: the numbers say only how the sides of a pixel compare.
RESOLUTION_UNITS = {RESUNIT.INCH: "inch", RESUNIT.CENTIMETER: "cm"}
# Programs write this resolution if they know none, so ImageJ ignores it.
SCREEN_PIXELS_PER_INCH = 72
# What ImageJ stores as bytes beside colours; its places count in pixels and planes.
IMAGEJ_PLACED = ("ROI", "Overlays", "Plot")
# What ImageJ says of an image that follows from its shape, or is a calibration of our own kind.
IMAGEJ_KNOWN = (
    "ImageJ", "images", "channels", "slices", "frames", "hyperstack", "unit", "yunit", "zunit", "spacing", "Labels",
    "SCIFIO", "axes", "lengths", "units", "bitsPerPixel",
)  # fmt: skip
TIME_STEP, TIME_UNIT = "finterval", "tunit"
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
        One letter of STCZYX for each axis, or ``?`` for one that the file says nothing about. If channels have several
        colours each, C is there twice.
    """
    axes = ""
    # The last of several axes of one kind is the one that pages contain.
    for letter in reversed(series.axes):
        known = "C" if letter == SAMPLES else letter if letter in "TCZYX" else "?" if letter in COUNTED_AXES else "S"
        is_twice = known in axes and known in "TCZYX" and not (letter == "C" and axes.count("C") == 1)
        axes = ("?" if is_twice else known) + axes
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
    if file.fei_metadata:
        return _from_fei(file.fei_metadata.get("Scan", {}))
    if file.sem_metadata:
        return _from_zeiss(file.sem_metadata)
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


def _seconds(step: Any, unit: str) -> float | None:
    """Return a time step in seconds; None if there is none, or if its unit is not known."""
    number, unit = _number(step), unit_name(unit) or "s"
    return number * TIMES[unit] if number and unit in TIMES else None


def _pixel_sides(page: tifffile.TiffPage) -> dict[str, float]:
    """Return the sides of a pixel along y and x, in the unit of the resolution, unless it is that of a screen."""
    sides = {}
    for axis, tag in (("y", Y_RESOLUTION), ("x", X_RESOLUTION)):
        value = page.tags.valueof(tag, (0, 0))
        pixels, length = value if isinstance(value, tuple) and len(value) == 2 else (_number(value) or 0, 1)
        if pixels > 0 and length > 0:
            sides[axis] = length / pixels
    inches = page.tags.valueof(RESOLUTION_UNIT) == RESUNIT.INCH
    return {} if inches and set(sides.values()) == {1 / SCREEN_PIXELS_PER_INCH} else sides


def _resolution_unit(page: tifffile.TiffPage) -> str:
    """Return the unit of length of the resolution of a page; empty if it has none."""
    return RESOLUTION_UNITS.get(page.tags.valueof(RESOLUTION_UNIT), "") if _pixel_sides(page) else ""


def _in_unit(sides: Mapping[str, Any], units: Mapping[str, str], unit: str) -> dict[str, float]:
    """Convert sizes in several units to one, and leave out those that have no length in it."""
    sizes = {}
    for axis, size in _sizes(sides).items():
        own = units.get(axis, unit)
        if own == unit:
            sizes[axis] = size
        elif own in LENGTHS and unit in LENGTHS:
            sizes[axis] = size * LENGTHS[own] / LENGTHS[unit]
    return sizes


def _without_one(sizes: dict[str, float], unit: str) -> dict[str, float]:
    """Leave out sizes that say nothing: without a unit, and all equal to 1."""
    return {} if not unit and set(sizes.values()) <= {1.0} else sizes


def _from_imagej(page: tifffile.TiffPage, metadata: Mapping[str, Any]) -> Calibration:
    tagged = _resolution_unit(page)
    named = str(metadata.get("unit", "")).strip()
    unit = unit_name(named) if named else tagged
    sides = _pixel_sides(page)
    if (tagged, unit) == ("cm", "um"):
        # Some programs write the unit of ImageJ beside a resolution in centimetres.
        sides = {axis: side * MICROMETRES_PER_CENTIMETRE for axis, side in sides.items()}
    units = {axis: unit_name(str(metadata[f"{axis}unit"])) for axis in "zy" if f"{axis}unit" in metadata}
    depth = _number(metadata.get("spacing"))
    sizes = _in_unit({"z": abs(depth) if depth else None, **sides}, units, unit)
    step = _seconds(metadata.get(TIME_STEP), str(metadata.get(TIME_UNIT, "")))
    # A step in an unknown unit stays as it is.
    known = (*IMAGEJ_KNOWN, *([TIME_STEP, TIME_UNIT] if step or TIME_STEP not in metadata else []))
    return Calibration(
        sizes=_without_one(sizes, unit),
        unit=unit if sizes else "",
        time_step=step,
        labels=tuple(map(str, metadata.get("Labels", ()))),
        imagej={
            name: _as_text(value) for name, value in metadata.items() if name not in known and _is_text(name, value)
        },
    )


def _is_text(name: str, value: Any) -> bool:
    """Return whether a value is text or numbers, or bytes of a known kind."""
    return name in IMAGEJ_PLACED or not isinstance(value, bytes)


def _as_text(value: Any) -> Any:
    """Return a value of ImageJ's metadata as JSON can have it; bytes are in base 64."""
    if isinstance(value, list | tuple):
        return [_as_text(each) for each in value]
    if isinstance(value, np.ndarray):
        value = value.tobytes()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def _from_ome(xml: str, index: int) -> Calibration:
    def children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
        return [child for child in element if child.tag.rpartition("}")[2] == name]

    every = [pixels for image in children(ElementTree.fromstring(xml), "Image") for pixels in children(image, "Pixels")]
    if index >= len(every):
        return Calibration(description=xml)
    pixels = every[index]
    units = {axis: unit_name(pixels.get(f"PhysicalSize{axis.upper()}Unit", "um")) for axis in "zyx"}
    names = [channel.get("Name", "") for channel in children(pixels, "Channel")]
    sizes = _in_unit({axis: pixels.get(f"PhysicalSize{axis.upper()}") for axis in "zyx"}, units, units["x"])
    return Calibration(
        sizes=sizes,
        unit=units["x"] if sizes else "",
        time_step=_seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s")),
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
    unit = unit_name(str(metadata.get("CalibrationUnits", "")))
    distances = [_number(distance) for distance in metadata.get("ZDistance", ())]
    sides = {"z": distances[-1] if distances else None} | {
        axis: metadata.get(f"{axis.upper()}Calibration") for axis in "yx"
    }
    return Calibration(sizes=_sizes(sides) if unit else {}, unit=unit)


def _from_fei(scan: Mapping[str, Any]) -> Calibration:
    """Use what electron microscopes of FEI and Thermo Fisher write beside a resolution that says nothing."""
    sides = {"y": scan.get("PixelHeight"), "x": scan.get("PixelWidth")}
    sizes = _sizes(sides, MICROMETRES_PER_METRE)
    return Calibration(sizes, "um" if sizes else "")


def _from_zeiss(metadata: Mapping[str, Any]) -> Calibration:
    """Use what electron microscopes of Zeiss write: for each key its name in the program, a value, and a unit."""
    found = metadata.get("ap_image_pixel_size") or metadata.get("ap_pixel_size")
    _, side, unit = found if found and len(found) == 3 else ("", None, "")
    sizes = _sizes({"y": side, "x": side})
    return Calibration(sizes, unit_name(unit) if sizes else "")


def _from_tags(page: tifffile.TiffPage) -> Calibration:
    """Use what scanners of slides write, or the resolution."""
    found = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description or "")
    if found:
        return Calibration(_sizes({"y": found[1], "x": found[1]}), "um")
    unit, sides = _resolution_unit(page), _pixel_sides(page)
    if unit == "cm":
        return Calibration(_sizes(sides, MICROMETRES_PER_CENTIMETRE), "um")
    sizes = _without_one(_sizes(sides), unit)
    return Calibration(sizes, unit if sizes else "")


def calibration_notes(calibration: Calibration) -> tuple[str, ...]:
    """Return what the user has to know of the size of a pixel and of the grey values.

    Parameters
    ----------
    calibration
        What a TIFF file says.

    Returns
    -------
    tuple of str
        A sentence for each that may not be what it seems.
    """
    notes = size_notes(calibration)
    if "cf" in calibration.imagej:
        unit = f"vunit {calibration.imagej.get('vunit', 'unknown')}"
        notes += (f"has a calibration of grey values ({unit}), which is not applied: reads the numbers as stored",)
    return notes
