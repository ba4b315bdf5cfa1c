"""Reading of PNG files at their full depth."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dvlae.data.formats.parts import DEFLATE_EXPANSION, PartSource, opacity_notes
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE = 3
# Channels by the type of colour: grey, RGB, palette, grey and alpha, RGB and alpha.
CHANNELS = {0: 1, 2: 3, PALETTE: 3, 4: 2, 6: 4}
WITH_OPACITY = (4, 6)
# The longest of the chunks that are looked at, a palette of 256 colours.
CHUNK_BYTES = 768


@contextmanager
def sources(path: Path) -> Iterator[list[Source]]:
    """Open a PNG file.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    list of Source
        One source.

    Raises
    ------
    UserError
        If the file is not a PNG, is damaged, or contains an animation.
    """
    with errors_named(path), path.open("rb") as file:
        chunks = _chunks_before_pixels(file)
        width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
        if b"acTL" in chunks:
            raise ValueError("it is an animation; save its frames as a TIFF")
        channels = 1 if colour == PALETTE and _is_grey(chunks[b"PLTE"]) else CHANNELS[colour]
        shape = _shape(height, width, channels)

        def part(index: tuple[int, ...]) -> np.ndarray:
            import imagecodecs

            # A single transparent colour would become a channel of its own.
            pixels = imagecodecs.png_decode(path.read_bytes()).reshape(height, width, -1)[..., :channels]
            return pixels.reshape(shape)[index]

        source = PartSource(
            path=path,
            kind="png",
            axes="YXC"[: len(shape)],
            shape=shape,
            dtype=np.dtype(np.uint16 if depth == 16 else np.uint8),
            part=part,
            # Bits are unpacked to bytes.
            expansion=DEFLATE_EXPANSION * 8,
        )
        if colour in WITH_OPACITY:
            opacity = source.read()[..., -1]
            if is_uniform := bool((opacity == opacity[0, 0]).all()):
                channels -= 1
                shape = _shape(height, width, channels)
            source = replace(source, axes="YXC"[: len(shape)], shape=shape, notes=opacity_notes(uniform=is_uniform))
    yield [source]


def _shape(height: int, width: int, channels: int) -> tuple[int, ...]:
    return (height, width) if channels == 1 else (height, width, channels)


def _chunks_before_pixels(file: BinaryIO) -> dict[bytes, bytes]:
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ValueError("it is not a PNG")
    chunks: dict[bytes, bytes] = {}
    name = b""
    while name != b"IDAT":
        header = file.read(8)
        if len(header) < 8:
            raise ValueError("it breaks off before its pixels")
        length, name = struct.unpack(">I4s", header)
        if length <= CHUNK_BYTES:
            chunks[name] = file.read(length)
            length = 0
        file.seek(length + 4, 1)
    return chunks


def _is_grey(palette: bytes) -> bool:
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())
