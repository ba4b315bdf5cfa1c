"""Hashes of files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits, in lower case.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combine_hashes(hashes: Iterable[str]) -> str:
    """Return one SHA-256 for several files, in hexadecimal.

    Parameters
    ----------
    hashes
        The SHA-256 of each file, in order.

    Returns
    -------
    str
        64 hexadecimal digits, in lower case.
    """
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def hash_files(files: Iterable[Path]) -> str:
    """Return one SHA-256 for files that belong together.

    Parameters
    ----------
    files
        Files, and folders, of which all files are meant.

    Returns
    -------
    str
        The hash of a single file, or that of the hashes of several.
    """
    every = [found for file in files for found in ([file] if file.is_file() else sorted(file.rglob("*")))]
    hashes = [sha256(file) for file in every if file.is_file()]
    return hashes[0] if len(hashes) == 1 else combine_hashes(hashes)
