"""Files and folders that are either whole or not there, and their hashes."""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

logger = logging.getLogger(__name__)


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
        with _naming(path):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, resumable_for: str | None = None) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; rename it to ``path`` if the block ends well, else remove it.

    Parameters
    ----------
    path
        The folder to make. An older one is replaced as a whole, once the new one is complete.
    resumable_for
        All that the contents depend on. Where the block ends badly, the temporary folder is kept, and given again with
        what is in it to the next block that asks for the same. None: it is empty at first.

    Yields
    ------
    Path
        The folder to fill.
    """
    path = Path(path)
    temporary = path.with_name(f".unfinished-{path.name}")
    mark = temporary / ".resumable-for"
    with exclusive_lock(path.with_name(f".lock-{path.name}")), _naming(path):
        if resumable_for is None or not mark.exists() or mark.read_text(encoding="utf-8") != resumable_for:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        if resumable_for is not None:
            mark.write_text(resumable_for, encoding="utf-8")
        try:
            yield temporary
            mark.unlink(missing_ok=True)
            if path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)
        finally:
            if not mark.exists():
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error in writing say which output it was; it knows only where a file could not be opened."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "written" in str(error):  # how NumPy says that the disk is full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def reserve_space(path: str | Path) -> None:
    """Take the disk space of a file that has its size but not yet its contents.

    Raises
    ------
    OSError
        Where the disk has no room: to write into the mapped memory of such a file would kill the process instead.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file, _naming(Path(path)):
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


@contextmanager
def exclusive_lock(lock: str | Path) -> Iterator[None]:
    """Hold a lock, after waiting for the process that holds it: no two do the same work, or write to one folder.

    A killed workflow may leave a job running that the next run starts again. The lock ends with its process.

    Parameters
    ----------
    lock
        A file that is there only while it is held.
    """
    lock = Path(lock)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _open_locked(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _open_locked(lock: Path) -> TextIO:
    """Open and lock a file; anew where the process that held it has removed it meanwhile."""
    while True:
        file = open(lock, "w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info(
                f"another process works here, left over from an earlier run perhaps; waiting for it to end ({lock})"
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # this file system knows no locks
            return file
        if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            return file
        file.close()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
