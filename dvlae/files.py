"""Files and folders that are either whole or not there, and their hashes."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` if the block ends well, else remove it.

    Parameters
    ----------
    path
        The file to make. Its folder is made where it is missing; an older file is replaced.

    Yields
    ------
    Path
        Where to write. It keeps the suffix of ``path``.
    """
    path = Path(path)
    # Two processes may make one file at once, a download that two datasets share for example.
    temporary = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; rename it to ``path`` if the block ends well, else remove it.

    Parameters
    ----------
    path
        The folder to make. An older one is replaced as a whole, once the new one is complete.

    Yields
    ------
    Path
        The folder to fill.
    """
    path = Path(path)
    temporary = path.with_name(f".unfinished-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
