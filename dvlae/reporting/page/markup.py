"""HTML of the parts that a page is made of."""

import base64
import html
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from io import BytesIO

import imagecodecs
import matplotlib
import numpy as np
from matplotlib.figure import Figure

FIGURE_DPI = 160
# Numbers beyond are written with an exponent.
SMALLEST, LARGEST = 1e-3, 1e7
# Of a PNG: the signature, and the first chunk with its length, name, 13 bytes and checksum.
SIGNATURE_BYTES, HEADER_BYTES = 8, 25
PALETTE = 3


def escape(text: object) -> str:
    """Escape text for HTML, also for the value of an attribute.

    Parameters
    ----------
    text
        Anything.

    Returns
    -------
    str
        HTML. A question mark takes the place of what UTF-8 does not have, as in a file name of another encoding.
    """
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"))


def number(value: float, size: float | None = None) -> str:
    """Write a number.

    Parameters
    ----------
    value
        The number.
    size
        What is written with three digits, such as the range of a scale; None: the number.

    Returns
    -------
    str
        The number, with a minus sign if it is negative; very small and very large ones with an exponent.

    Examples
    --------
    >>> number(1502), number(-0.25), number(1000.25, 8)
    ('1502', '−0.250', '1000.25')
    >>> number(0), number(2.5e-9)
    ('0', '2.5e−09')
    """
    size = abs(value) if size is None else size
    if SMALLEST <= size < LARGEST:
        return decimal(value, max(0, 2 - math.floor(math.log10(size))))
    return f"{value:.3g}".replace("-", "−")


def decimal(value: float, digits: int) -> str:
    """Write a number.

    Parameters
    ----------
    value
        The number.
    digits
        How many digits follow the point.

    Returns
    -------
    str
        The number, with a minus sign if it is negative.

    Examples
    --------
    >>> decimal(-0.25, 1), decimal(-0.001, 2)
    ('−0.2', '0.00')
    """
    return f"{value:z.{digits}f}".replace("-", "−")


def data_uri(content: bytes, kind: str) -> str:
    """Return an address that contains a file.

    Parameters
    ----------
    content
        The file.
    kind
        Its MIME type.

    Returns
    -------
    str
        The address.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def encode_png(pixels: np.ndarray, colours: str = "") -> bytes:
    """Encode a picture.

    Parameters
    ----------
    pixels
        (Y, X) or (Y, X, 3), from 0 to 1; what is beyond is clipped.
    colours
        Name of a colour map of Matplotlib for (Y, X); empty: shades of grey.

    Returns
    -------
    bytes
        A PNG with 8 bits. With a colour map it has a palette, which takes a third of the bytes of RGB.
    """
    values = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(values)))
    if not colours:
        return png
    palette = (255 * matplotlib.colormaps[colours](np.arange(256))[:, :3]).round().astype(np.uint8).tobytes()
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, 8, PALETTE, 0, 0, 0)
    return (
        png[:SIGNATURE_BYTES]
        + _chunk(b"IHDR", header)
        + _chunk(b"PLTE", palette)
        + png[SIGNATURE_BYTES + HEADER_BYTES :]
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def image(content: bytes, kind: str, description: str) -> str:
    """Write an image.

    Parameters
    ----------
    content
        The file.
    kind
        Its MIME type.
    description
        What it shows, for those who cannot see it.

    Returns
    -------
    str
        The element.
    """
    return f'<img alt="{escape(description)}" src="{data_uri(content, kind)}">'


def figure(plot: Figure, kind: str, description: str) -> str:
    """Write a figure of Matplotlib.

    Parameters
    ----------
    plot
        The figure.
    kind
        ``svg``, or ``png``, which is smaller for many points.
    description
        What it shows, for those who cannot see it.

    Returns
    -------
    str
        The element.
    """
    content = BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    plot.savefig(content, format=kind, dpi=FIGURE_DPI, metadata=metadata)
    return plotted(content.getvalue(), "image/svg+xml" if kind == "svg" else "image/png", description)


def plotted(content: bytes, kind: str, description: str) -> str:
    """Write a figure that is a file.

    Parameters
    ----------
    content
        The file.
    kind
        Its MIME type.
    description
        What it shows, for those who cannot see it.

    Returns
    -------
    str
        The element, which scrolls where the page is narrow.
    """
    return f'<div class="plot" tabindex="0">{image(content, kind, description)}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], words: int = 1) -> str:
    """Write a table.

    Parameters
    ----------
    columns
        The headings.
    rows
        The cells.
    words
        How many of the first columns are words, which stand to the left.

    Returns
    -------
    str
        The element, which scrolls where the page is narrow.
    """

    def cells(name: str, row: Sequence[object]) -> str:
        return "".join(
            f"<{name}{' class=word' if number < words else ''}>{escape(cell)}</{name}>"
            for number, cell in enumerate(row)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{cells("th", columns)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def sentences(lines: Iterable[str]) -> str:
    """Write a list.

    Parameters
    ----------
    lines
        Plain text.

    Returns
    -------
    str
        The element; empty without lines.
    """
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>\n{items}\n</ul>" if items else ""
