"""The OME metadata of a result: those of its source, with what has changed."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

import numpy as np

from dvlae.data.formats.parts import LENGTHS
from dvlae.data.sources import SourceInfo

# The names of units in OME that differ from ours.
UNITS = {"um": "µm", "inch": "in", "": "pixel"}
PIXEL_TYPES = {"float32": "float", "float64": "double"}


def ome_unit(unit: str) -> str:
    """Return the name of a unit of length in OME.

    Parameters
    ----------
    unit
        The unit of a calibration.

    Returns
    -------
    str
        The name; empty if OME has none.
    """
    return UNITS.get(unit, unit if unit in LENGTHS else "")


def edit_xml(info: SourceInfo, axes: str, shape: tuple[int, ...], dtype: np.dtype) -> bytes | None:
    """Return the OME-XML of the result of a source that has one.

    Parameters
    ----------
    info
        The source.
    axes, shape
        The axes of the result in the order of the file, with S for the colours of a pixel.
    dtype
        Type of the result.

    Returns
    -------
    bytes or None
        The source's XML with other sizes, type and places of the planes. None if it has no XML, or if OME has no names
        for the axes.
    """
    text = info.calibration.description
    if not text or not set(axes) <= set("STCZYX") or dtype.name in ("float16", "int64", "uint64"):
        return None
    root = ElementTree.fromstring(text.encode())
    namespace = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    images = root.findall(f"{namespace}Image")
    image = _find_image(images, info.series, namespace)
    if image is None:
        return None
    for other in images:
        if other is not image:
            root.remove(other)
    root.attrib.pop("UUID", None)
    pixels = image.find(f"{namespace}Pixels")
    assert pixels is not None
    sizes = dict(zip(axes, shape, strict=True))
    samples = sizes.get("S", 1)
    order = "XY" + "".join(axis for axis in reversed(axes) if axis in "TCZ")
    order += "".join(axis for axis in "CZT" if axis not in order)
    new = {axis: sizes.get(axis, 1) * (samples if axis == "C" else 1) for axis in "XYZCT"}
    if {axis: int(pixels.get(f"Size{axis}", "1")) for axis in new} != new:
        _keep_part(root, image, pixels, info.starts, sizes, namespace)
    _keep_channels(pixels, info.starts, sizes.get("C", 1), samples, namespace)
    for axis, size in new.items():
        pixels.set(f"Size{axis}", str(size))
    pixels.set("DimensionOrder", order)
    pixels.set("Type", PIXEL_TYPES.get(dtype.name, dtype.name))
    pixels.set("BigEndian", "false")
    pixels.set("Interleaved", "true" if samples > 1 else "false")
    pixels.attrib.pop("SignificantBits", None)
    _replace_places(pixels, namespace, math.prod(shape) // math.prod(sizes[axis] for axis in "YX") // samples)
    ElementTree.register_namespace("", namespace.strip("{}"))
    return ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)


def _find_image(images: list[Any], series: str, namespace: str) -> Any:
    """Return the image of a series, which has a number, a name, or is the only one."""
    usable = [image for image in images if image.find(f"{namespace}Pixels") is not None]
    if len(usable) == 1:
        return usable[0]
    if series.isdigit() and int(series) < len(images):
        return images[int(series)]
    named = [image for image in usable if image.get("Name") == series]
    return named[0] if len(named) == 1 else None


def _replace_places(pixels: Any, namespace: str, count: int) -> None:
    """Say that all planes are in the file, in order."""
    for name in ("BinData", "TiffData", "MetadataOnly"):
        for element in pixels.findall(f"{namespace}{name}"):
            pixels.remove(element)
    channels = len(pixels.findall(f"{namespace}Channel"))
    place = ElementTree.Element(f"{namespace}TiffData", {"IFD": "0", "PlaneCount": str(count)})
    pixels.insert(channels, place)


def _keep_part(
    root: Any, image: Any, pixels: Any, starts: Mapping[str, int], sizes: Mapping[str, int], namespace: str
) -> None:
    """Keep what belongs to the planes that are left, under their new numbers."""
    # The places of regions count in pixels of the source.
    for parent, name in ((root, "ROI"), (image, "ROIRef")):
        for element in parent.findall(f"{namespace}{name}"):
            parent.remove(element)
    for plane in pixels.findall(f"{namespace}Plane"):
        for axis in "CZT":
            number = int(plane.get(f"The{axis}", "0")) - starts.get(axis, 0)
            if not 0 <= number < sizes.get(axis, 1):
                pixels.remove(plane)
                break
            plane.set(f"The{axis}", str(number))


def _keep_channels(pixels: Any, starts: Mapping[str, int], count: int, samples: int, namespace: str) -> None:
    """Keep the elements of the channels that are left; of one that was computed there is none."""
    elements = pixels.findall(f"{namespace}Channel")
    first = starts.get("C", 0)
    part = elements[first : first + count] if "C" in starts else elements
    kept = part if len(part) == count else []
    for element in elements:
        if element in kept:
            element.set("SamplesPerPixel", str(samples))
        else:
            pixels.remove(element)
    for number in range(count - len(kept)):
        values = {"ID": f"Channel:0:{number}", "SamplesPerPixel": str(samples)}
        pixels.insert(number, ElementTree.Element(f"{namespace}Channel", values))
