"""What can be done with files of kinds that are not read."""

from collections.abc import Iterable
from pathlib import Path

from dvlae.system.errors import UserError

# The first bytes of files of other kinds.
SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP or AVI",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\xd0\xcf\x11\xe0": "OLE",
    b"SIMPLE  =": "FITS",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\x1f\x8b": "gzip",
    b"<": "XML or HTML",
}
LOSSY = {"JPEG", "JPEG 2000", "WebP or AVI", ".jpg", ".jpeg", ".jp2", ".webp", ".avif", ".heic", ".avi", ".mov", ".mp4"}


def foreign_kind(start: bytes) -> str:
    """Tell the kind of a file that is not read.

    Parameters
    ----------
    start
        Its first bytes.

    Returns
    -------
    str
        The kind; empty if it is unknown.
    """
    return next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), "")


def refusal(path: Path, kind: str, allowed: Iterable[str]) -> UserError:
    """Say that a file is not read, and what helps.

    Parameters
    ----------
    path
        The file.
    kind
        Its kind, or its suffix.
    allowed
        The suffixes of the files that are read.

    Returns
    -------
    UserError
        One line.
    """
    if kind.lower() in LOSSY or kind in LOSSY:
        why = "whose compression has removed part of the noise"
        helps = "take the file that the microscope wrote; if there is none, save this one as TIFF or PNG"
        return UserError(f"{path}: found a file of kind {kind!r}, {why}; {helps}")
    helps = "unpack it" if kind == "gzip" else "save it as OME-TIFF, for example with Fiji or bfconvert"
    return UserError(f"{path}: found a file of kind {kind!r}, allowed: {', '.join(allowed)}; {helps}")
