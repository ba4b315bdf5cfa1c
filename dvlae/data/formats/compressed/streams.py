"""The beginnings of compressed images: how large each is, and whether its compression has changed the pixels."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

JPEG_START, MARKER = b"\xff\xd8", 0xFF
# The markers of JPEG after which the size of the image stands; the others among them begin tables.
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
JPEG_2000_SIZE, JPEG_2000_STYLE = b"\xff\x4f\xff\x51", b"\xff\x52"
JPEG_2000_IRREVERSIBLE = 0
JPEG_XL_START = b"\xff\x0a"
# The boxes that contain the image or its first part, and the bytes before it there.
JPEG_XL_BOXES = {b"jxlc": 0, b"jxlp": 4}
# Widths of JPEG XL as parts of the height.
JPEG_XL_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
# Kinds of channels beside colours: transparency, and those that are described at length.
JPEG_XL_TRANSPARENCY, JPEG_XL_LONG_CHANNELS = 0, (2, 5)
JPEG_XR_START = b"II\xbc"
JPEG_XR_WIDTH, JPEG_XR_HEIGHT = 0xBC80, 0xBC81
PNG_HEADER = b"IHDR"
WEBP_KINDS = (b"VP8 ", b"VP8L", b"VP8X")
LERC_START = b"Lerc2 "
# Types of LERC from this on are real numbers. Whole numbers are exact if they differ by less than 1.
LERC_REAL, LERC_EXACT = 6, 0.5


@dataclass(frozen=True)
class Stream:
    """What the beginning of a compressed image says.

    Attributes
    ----------
    sides
        Rows and columns; 0 rows: they are not known yet. Empty if nothing is known.
    samples
        Numbers in each pixel.
    lossy
        Whether the compression has changed the pixels. None: it may have.
    """

    sides: tuple[int, ...] = ()
    samples: int = 1
    lossy: bool | None = None


def read_jpeg(head: bytes) -> Stream:
    """Read the beginning of a JPEG.

    Parameters
    ----------
    head
        The first bytes.

    Returns
    -------
    Stream
        What it says.
    """
    place = len(JPEG_START)
    while head.startswith(JPEG_START) and place + 10 <= len(head) and head[place] == MARKER:
        if head[place + 1] == MARKER:
            # Markers may be filled up.
            place += 1
            continue
        marker, length = struct.unpack_from(">xBH", head, place)
        if marker in JPEG_FRAMES:
            return Stream(struct.unpack_from(">HH", head, place + 5), head[place + 9], marker not in JPEG_LOSSLESS)
        place += 2 + length
    return Stream(lossy=True)


def read_jpeg_2000(head: bytes) -> Stream:
    """Read the beginning of a JPEG 2000.

    Parameters
    ----------
    head
        The first bytes.

    Returns
    -------
    Stream
        What it says.
    """
    place = head.find(JPEG_2000_SIZE)
    if place < 0 or len(head) < place + 42:
        return Stream()
    right, bottom, left, top = struct.unpack_from(">IIII", head, place + 8)
    (samples,) = struct.unpack_from(">H", head, place + 40)
    style = head.find(JPEG_2000_STYLE, place)
    lossy = head[style + 13] == JPEG_2000_IRREVERSIBLE if 0 <= style < len(head) - 13 else None
    return Stream((bottom - top, right - left), samples, lossy)


def read_png(head: bytes) -> Stream:
    """Read the beginning of a PNG.

    Parameters
    ----------
    head
        The first bytes.

    Returns
    -------
    Stream
        What it says.
    """
    if head[12:16] != PNG_HEADER or len(head) < 24:
        return Stream(lossy=False)
    columns, rows = struct.unpack_from(">II", head, 16)
    return Stream((rows, columns), lossy=False)


def read_webp(head: bytes) -> Stream:
    """Read the beginning of a WebP.

    Parameters
    ----------
    head
        The first bytes.

    Returns
    -------
    Stream
        What it says.
    """
    kind, body = head[12:16], head[20:30]
    if len(body) < 10 or kind not in WEBP_KINDS:
        return Stream()
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return Stream(((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1), lossy=False)
    if kind == b"VP8X":
        columns, rows = (int.from_bytes(body[start : start + 3], "little") + 1 for start in (4, 7))
        return Stream((rows, columns), lossy=b"VP8L" not in head)
    columns, rows = struct.unpack_from("<HH", body, 6)
    return Stream((rows & 0x3FFF, columns & 0x3FFF), lossy=True)


def read_jpeg_xr(head: bytes) -> Stream:
    """Read the beginning of a JPEG XR.

    Parameters
    ----------
    head
        The first bytes.

    Returns
    -------
    Stream
        What it says.
    """
    if not head.startswith(JPEG_XR_START):
        return Stream()
    try:
        (start,) = struct.unpack_from("<I", head, 4)
        (count,) = struct.unpack_from("<H", head, start)
        tags = dict(struct.unpack_from("<H6xI", head, start + 2 + 12 * number) for number in range(count))
    except struct.error:
        return Stream()
    if not {JPEG_XR_WIDTH, JPEG_XR_HEIGHT} <= set(tags):
        return Stream()
    return Stream((tags[JPEG_XR_HEIGHT], tags[JPEG_XR_WIDTH]))


def read_lerc(head: bytes) -> Stream:
    """Read the beginning of a LERC.

    Parameters
    ----------
    head
        The first bytes.

    Returns
    -------
    Stream
        What it says.
    """
    if not head.startswith(LERC_START) or len(head) < 66:
        return Stream()
    (version,) = struct.unpack_from("<i", head, 6)
    place = 14 if version >= 3 else 10
    rows, columns = struct.unpack_from("<ii", head, place)
    samples = struct.unpack_from("<i", head, place + 8)[0] if version >= 4 else 1
    place += (12 if version >= 4 else 8) + 12
    (kind,) = struct.unpack_from("<i", head, place)
    (error,) = struct.unpack_from("<d", head, place + (12 if version >= 6 else 4))
    return Stream((rows, columns), samples, error > (0 if kind >= LERC_REAL else LERC_EXACT))


class _Bits:
    """Numbers of some bits each, the lowest bit first."""

    def __init__(self, head: bytes) -> None:
        self.left, self.count = int.from_bytes(head[:64], "little"), 8 * min(64, len(head))

    def read(self, bits: int) -> int:
        self.count -= bits
        if self.count < 0:
            raise EOFError
        number = self.left & (1 << bits) - 1
        self.left >>= bits
        return number

    def choose(self, *choices: tuple[int, int]) -> int:
        """Read which choice it is, and what is added to it: (least number, bits)."""
        least, bits = choices[self.read(2)]
        return least + self.read(bits)


def read_jpeg_xl(head: bytes) -> Stream:
    """Read the beginning of a JPEG XL.

    Parameters
    ----------
    head
        The first bytes.

    Returns
    -------
    Stream
        What it says. The pixels are taken for exact if their colours were not converted.
    """
    place = 0
    for box, before in JPEG_XL_BOXES.items():
        if not head.startswith(JPEG_XL_START) and box in head:
            place = head.index(box) + len(box) + before
    if head[place : place + 2] != JPEG_XL_START:
        return Stream()
    bits = _Bits(head[place + 2 :])
    sides: tuple[int, ...] = ()
    try:
        sides = _jpeg_xl_sides(bits)
        return Stream(sides, lossy=_has_converted_colours(bits))
    except EOFError:
        return Stream(sides)


def _jpeg_xl_sides(bits: _Bits) -> tuple[int, int]:
    small = bits.read(1)

    def side() -> int:
        return 8 * (bits.read(5) + 1) if small else 1 + bits.choose((0, 9), (0, 13), (0, 18), (0, 30))

    rows = side()
    ratio = JPEG_XL_RATIOS[bits.read(3)]
    return rows, side() if ratio is None else rows * ratio[0] // ratio[1]


def _has_converted_colours(bits: _Bits) -> bool | None:
    """Return whether the colours are those of the eye, which only lossy compression uses."""
    if bits.read(1):
        # All is as usual, and that is lossy.
        return True
    if bits.read(1):
        bits.read(3)
        if bits.read(3):
            # An animation, a preview, or another size where it is shown.
            return None
    _skip_depth(bits)
    bits.read(1)
    for _ in range(bits.choose((0, 0), (1, 0), (2, 4), (1, 12))):
        # Usual transparency has no description of its own.
        if not bits.read(1) and not _skip_channel(bits):
            return None
    return bool(bits.read(1))


def _skip_depth(bits: _Bits) -> None:
    if bits.read(1):
        bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
        bits.read(4)
    else:
        bits.choose((8, 0), (10, 0), (12, 0), (1, 6))


def _skip_channel(bits: _Bits) -> bool:
    """Skip the description of a channel beside the colours. False: it is of a kind that is not known here."""
    kind = bits.choose((0, 0), (1, 0), (2, 4), (18, 6))
    _skip_depth(bits)
    bits.choose((0, 0), (3, 0), (4, 0), (1, 3))
    bits.read(8 * bits.choose((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == JPEG_XL_TRANSPARENCY:
        bits.read(1)
    return kind not in JPEG_XL_LONG_CHANNELS


# How the beginning of each is read.
READERS: dict[str, Callable[[bytes], Stream]] = {
    "JPEG": read_jpeg,
    "JPEG 2000": read_jpeg_2000,
    "JPEG XL": read_jpeg_xl,
    "JPEG XR": read_jpeg_xr,
    "LERC": read_lerc,
    "PNG": read_png,
    "WebP": read_webp,
}


def loss_note(name: str, lossy: bool | None) -> str:
    """Say that compression has changed the noise.

    Parameters
    ----------
    name
        The kind of compression.
    lossy
        Whether it has. None: it may have.

    Returns
    -------
    str
        A sentence for the user; empty if it has not.
    """
    if lossy is False:
        return ""
    which = "which is lossy: it has" if lossy else "which may be lossy: it may have"
    return (
        f"its pixels are compressed with {name}, {which} changed the noise and how that of neighbouring pixels is "
        "correlated; prefer the file that the microscope wrote"
    )
