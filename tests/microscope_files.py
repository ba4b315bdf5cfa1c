"""Minimal files of the formats of microscopes, written byte by byte or by the libraries of their makers."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# ---------------------------------------------------------------------------------------------- PNG


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes, interlaced: int = 0) -> bytes:
    """Return a PNG, whose rows begin with their filter."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def unfiltered(pixels: np.ndarray) -> bytes:
    """Return the rows of a PNG."""
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)


# The passes of Adam7: first column, first row, and the steps between columns and rows.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def adam7(pixels: np.ndarray) -> bytes:
    """Return the rows of an interlaced PNG."""
    passes = [pixels[row::row_step, column::column_step] for column, row, column_step, row_step in ADAM7]
    return b"".join(unfiltered(part) for part in passes if part.size)


# ---------------------------------------------------------------------------------------------- LIF


def lif(images: Mapping[str, tuple[str, Mapping[str, tuple[str, float]], np.ndarray]]) -> bytes:
    """Return a LIF file.

    Parameters
    ----------
    images
        By their names: the axes as stored; for each of them but C, its unit and step; and the pixels. If C is the last
        axis, the file has blue before green before red.
    """
    elements, blocks = "", b""
    for number, (name, (axes, steps, pixels)) in enumerate(images.items()):
        elements += _lif_element(name, number, axes, steps, pixels)
        blocks += _lif_block(f"MemBlock_{number}", (pixels[..., ::-1] if axes[-1] == "C" else pixels).tobytes())
    return _lif_header(elements) + blocks


def _lif_header(elements: str) -> bytes:
    root = (
        f'<Element Name="project"><Data/><Memory Size="0" MemoryBlockID=""/><Children>{elements}</Children></Element>'
    )
    xml = f'<LMSDataContainerHeader Version="2">{root}</LMSDataContainerHeader>'.encode("utf-16-le")
    return struct.pack("<IIBI", 0x70, len(xml) + 5, 0x2A, len(xml) // 2) + xml


def _lif_block(name: str, pixels: bytes) -> bytes:
    text = name.encode("utf-16-le")
    return struct.pack("<IIBQBI", 0x70, len(text) + 14, 0x2A, len(pixels), 0x2A, len(name)) + text + pixels


def _lif_element(name: str, number: int, axes: str, steps: Mapping[str, tuple[str, float]], pixels: np.ndarray) -> str:
    sides, strides = (dict(zip(axes, values, strict=True)) for values in (pixels.shape, pixels.strides))
    places = list(range(sides.get("C", 1)))
    colours = axes[-1] == "C"
    channels = "".join(
        f'<ChannelDescription DataType="{int(pixels.dtype.kind == "f")}" ChannelTag="{place + 1 if colours else 0}" '
        f'Resolution="{8 * pixels.itemsize}" NameOfMeasuredQuantity="" Min="0" Max="255" Unit="" '
        f'LUTName="{["Red", "Green", "Blue"][place]}" IsLUTInverted="0" '
        f'BytesInc="{(places[-1] - place if colours else place) * strides.get("C", 0)}" BitInc="0"/>'
        for place in places
    )
    numbers = {"X": 1, "Y": 2, "Z": 3, "T": 4, "S": 10}
    dimensions = "".join(
        f'<DimensionDescription DimID="{numbers[axis]}" NumberOfElements="{sides[axis]}" Origin="0" '
        f'Length="{step * (sides[axis] - 1)}" Unit="{unit}" BytesInc="{strides[axis]}" BitInc="0"/>'
        for axis, (unit, step) in steps.items()
    )
    return (
        f'<Element Name="{name}"><Data><Image><ImageDescription><Channels>{channels}</Channels>'
        f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
    )


# ---------------------------------------------------------------------------------------------- ND2


def nd2(frames: np.ndarray, loops: Sequence[dict[str, Any]], channels: Sequence[str], step: float | None) -> bytes:
    """Return an ND2 file of version 3.

    Parameters
    ----------
    frames
        (frame, Y, X, component).
    loops
        The loops of the experiment, the outermost first: ``eType`` and ``uLoopPars``.
    channels
        Names of the channels. One for three components: red, green and blue.
    step
        Side of a pixel in micrometres.
    """
    count, height, width, components = frames.shape
    bits = 8 * frames.itemsize
    plane = {"uiCompCount": components // len(channels), "pFluorescentProbe": {"m_sName": "dye"}}
    planes = {f"a{number}": {"sDescription": name} | plane for number, name in enumerate(channels)}
    attributes = {
        "uiWidth": width,
        "uiWidthBytes": width * components * frames.itemsize,
        "uiHeight": height,
        "uiComp": components,
        "uiBpcInMemory": bits,
        "uiBpcSignificant": bits,
        "uiSequenceCount": count,
    }
    metadata = {
        "bCalibrated": step is not None,
        "dCalibration": step or 1.0,
        "sPicturePlanes": {"uiCount": len(channels), "sPlaneNew": planes},
    }
    parts = {
        b"ImageAttributesLV!": _clx({"SLxImageAttributes": attributes}),
        b"ImageMetadataSeqLV|0!": _clx({"SLxPictureMetadata": metadata}),
    }
    if loops:
        parts[b"ImageMetadataLV!"] = _clx({"SLxExperiment": _nested(loops)})
    for number, frame in enumerate(frames):
        parts[b"ImageDataSeq|%d!" % number] = bytes(8) + frame.tobytes()
    return _nd2_file(parts)


def _nested(loops: Sequence[dict[str, Any]]) -> dict[str, Any]:
    inner = {"ppNextLevelEx": {"i0000000000": _nested(loops[1:])}} if len(loops) > 1 else {}
    return dict(loops[0]) | inner


def _nd2_file(parts: dict[bytes, bytes]) -> bytes:
    content = _nd2_chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32)
    table = b""
    for name, part in parts.items():
        table += name + struct.pack("<QQ", len(content), len(part))
        content += _nd2_chunk(name, part, 4072)  # with a time of 8 bytes, pixels begin 4096 bytes after the chunk
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(content))
    return content + _nd2_chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", table + end, 32)


def _nd2_chunk(name: bytes, part: bytes, reserved: int) -> bytes:
    return struct.pack("<IIQ", 0x0ABECEDA, reserved, len(part)) + name.ljust(reserved, b"\0") + part


def _clx(values: Mapping[str, Any]) -> bytes:
    """Write nested values as Nikon's CLX Lite variant."""
    content = b""
    for key, value in values.items():
        name = (key + "\0").encode("utf-16-le")
        kind = {bool: 1, int: 3, float: 6, str: 8, dict: 11}[type(value)]
        head = struct.pack("BB", kind, len(key) + 1) + name
        if kind == 11:
            body = _clx(value)
            # The length counts from the beginning of the level; a table of offsets follows it.
            content += head + struct.pack("<IQ", len(value), len(head) + 12 + len(body)) + body + bytes(8 * len(value))
        elif kind == 8:
            content += head + (value + "\0").encode("utf-16-le")
        else:
            content += head + struct.pack({1: "<B", 3: "<I", 6: "<d"}[kind], value)
    return content


# ---------------------------------------------------------------------------------------------- CZI


def write_czi(
    path: Path,
    scenes: Sequence[np.ndarray],
    axes: str,
    channels: Sequence[str] = (),
    skipped: Sequence[tuple] = (),
    compression: str = "uncompressed:",
) -> None:
    """Write a CZI file.

    Parameters
    ----------
    path
        The new file.
    scenes
        The pixels of each: (..., Y, X), or (..., Y, X, 3) as red, green and blue.
    axes
        The axes before Y.
    channels
        Names of the channels.
    skipped
        Places of planes that are left out.
    compression
        As ``create_czi`` takes it.
    """
    from pylibCZIrw import czi

    with czi.create_czi(str(path), compression_options=compression) as file:
        for number, scene in enumerate(scenes):
            for place in np.ndindex(scene.shape[: len(axes)]):
                if place in skipped:
                    continue
                plane = np.atleast_3d(scene[place])[..., ::-1]
                file.write(plane, location=(1000 * number, 5), plane=dict(zip(axes, place, strict=True)), scene=number)
        file.write_metadata("test", dict(enumerate(channels)), scale_x=2e-7, scale_y=1e-7, scale_z=1.5e-6)
