"""Files and folders that are either complete or absent, and locks."""

import csv
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

# The errors on a file system without locks. Some network file systems are mounted without them.
NO_LOCKS_ERRORS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
# Files that Snakemake and desktops add to folders.
ADDED_BY_OTHERS = (".snakemake_timestamp", ".DS_Store", "Thumbs.db", "desktop.ini")

# The files that a command writes into a folder: by name or glob, whether it is such a file.
Contents = dict[str, Callable[[Path], bool]]
SECONDS_BETWEEN_MOVES = (0.1, 0.3, 0.6)
# The longest name of a file on usual file systems.
MAX_NAME_BYTES = 255


def is_too_long(path: Path) -> bool:
    """Return whether no file can have a name, as it is too long for usual file systems.

    Parameters
    ----------
    path
        A path.

    Returns
    -------
    bool
        Whether its last part is too long.
    """
    return len(os.fsencode(path.name)) > MAX_NAME_BYTES


def _beside(path: Path, start: str) -> Path:
    """Return a path that begins with some text before the name of another, whose own name may be as long as allowed."""
    beside = path.with_name(start + path.name)
    if not is_too_long(beside):
        return beside
    return path.with_name(start + hashlib.sha256(os.fsencode(path.name)).hexdigest() + path.suffix)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Provide a temporary path next to ``path``; rename it to ``path`` if the block succeeds, otherwise remove it.

    Parameters
    ----------
    path
        The file to make. Its folder is created if it is missing; an older file is replaced.

    Yields
    ------
    Path
        The path to write to. It has the suffix of ``path``.

    Raises
    ------
    UserError
        If there is something else than a file, or than a folder for it.
    """
    path = Path(path)
    _check_place(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: found {'a folder' if path.is_dir() else 'a device'}, allowed: a file to write")
    # Two processes may make the same file at once, for example a download that two datasets share.
    temporary = _beside(path, f".unfinished-{os.getpid()}-")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _naming(path):
            yield temporary
        _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, contents: Contents, resumable_for: str | None = None) -> Iterator[Path]:
    """Provide a temporary folder next to ``path``; rename it to ``path`` if the block succeeds, otherwise remove it.

    Parameters
    ----------
    path
        The folder to make. An older one is replaced when the new one is complete.
    contents
        The files of an older one that may be lost with it.
    resumable_for
        Everything that the contents depend on. If the block fails, the temporary folder is kept, and the next block
        with the same value finds the files in it. None: the folder is always empty at first.

    Yields
    ------
    Path
        The folder to fill.

    Raises
    ------
    UserError
        If there is something else than a folder, or a folder with other files.
    """
    path = Path(path)
    check_folder(path, contents)
    # The folder that a link leads to is made, and the link stays.
    path = path.resolve() if path.is_symlink() else path
    temporary = _beside(path, ".unfinished-")
    mark = temporary / ".resumable-for"
    with exclusive_lock(_beside(path, ".lock-")), _naming(path):
        if resumable_for is None or not mark.exists() or mark.read_text(encoding="utf-8") != resumable_for:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        if resumable_for is not None:
            mark.write_text(resumable_for, encoding="utf-8", newline="\n")
        try:
            yield temporary
            mark.unlink(missing_ok=True)
            if path.is_dir():
                shutil.rmtree(path)
            _move(temporary, path)
        finally:
            if not mark.exists():
                shutil.rmtree(temporary, ignore_errors=True)


def _move(old: Path, new: Path) -> None:
    """Rename a file or folder. On Windows this is tried again: virus scanners open new files for a moment."""
    for seconds in SECONDS_BETWEEN_MOVES if sys.platform == "win32" else ():
        try:
            old.replace(new)
            return
        except PermissionError:
            time.sleep(seconds)
    try:
        old.replace(new)
    except PermissionError as error:
        error.filename, error.filename2 = str(new), None
        raise


def link_or_copy(file: Path, new: Path) -> None:
    """Make a hard link to a file or, where the file system allows none, a copy.

    Parameters
    ----------
    file
        The file, which nobody changes.
    new
        The path to make. Its folder is created if it is missing.
    """
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, new)
    except OSError:
        # Some file systems have no hard links, and there are none from one file system to another.
        shutil.copyfile(file, new)


def check_outside(output: Path, files: Iterable[Path]) -> None:
    """Refuse to replace a folder that contains files that are read.

    Parameters
    ----------
    output
        A folder to make, which need not exist.
    files
        Files that are read.

    Raises
    ------
    UserError
        If one of them is in the folder.
    """
    folder = output.resolve()
    if (inside := next((file for file in files if folder in file.resolve().parents), None)) is not None:
        raise UserError(f"{output}: contains {inside}, which is read; allowed: an output without files that are read")


def check_folder(path: Path, contents: Contents | None = None) -> None:
    """Refuse a path at which no folder can be made or removed, before anything is computed for it.

    Parameters
    ----------
    path
        The folder, which need not exist.
    contents
        The files that may be in it; None: any.

    Raises
    ------
    UserError
        If there is something else than a folder, than a folder for it, or than these files in it.
    """
    _check_place(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: found a file, allowed: a folder to make")
    if contents is None:
        return
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if (file.is_symlink() or not file.is_dir()) and not _is_one_of(contents, name, file):
            raise UserError(
                f"{path}: contains {name}, which this command has not written and would remove; allowed: a new folder, "
                "an empty one, or one that this command made"
            )


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files of a folder, and the folder if nothing else is in it.

    Parameters
    ----------
    folder
        The folder, which need not exist.
    names
        Names or globs.
    """
    for name in names:
        for file in folder.glob(name):
            file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _is_one_of(contents: Contents, name: str, file: Path) -> bool:
    if file.name in ADDED_BY_OTHERS:
        return True
    depth = name.count("/")
    return any(
        fnmatchcase(name, glob) and glob.count("/") == depth and is_such(file) for glob, is_such in contents.items()
    )


def contents_beside(main: str, *names: str) -> Contents:
    """Return the contents of a folder whose files have fixed names, one of which shows whose folder it is.

    Parameters
    ----------
    main
        The name of this file.
    *names
        The names of the others.

    Returns
    -------
    Contents
        All of them, where this file is.
    """
    return dict.fromkeys((main, *names), lambda file: file.with_name(main).exists())


def _check_place(path: Path) -> None:
    """Refuse a path without a name of its own, or in something that is not a folder."""
    if path.name in ("", ".."):
        raise UserError(f"found {str(path)!r} as an output, allowed: a path that ends with a name")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise UserError(f"{path}: {there} is a file, allowed: a folder")


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV, with the names of the columns in the first line.

    Parameters
    ----------
    path
        The file to make.
    columns
        The names of the columns.
    rows
        The values of each row.
    """
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON.

    Parameters
    ----------
    path
        The file to make.
    value
        Dictionaries, lists, text, numbers and None.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the path of the output to an error in writing, which otherwise has a path only if opening the file failed."""
    try:
        yield
    except OSError as error:
        # NumPy reports a full disk without an error number.
        if error.errno is None and "written" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def reserve_space(path: str | Path, start: int = 0, size: int | None = None) -> None:
    """Allocate the disk space of a file that has not yet its contents.

    Parameters
    ----------
    path
        The file.
    start, size
        The part, in bytes, which may be beyond its end; None: all of a file that has its size.

    Raises
    ------
    OSError
        If the disk is full. Without this, writing into the mapped memory of the file would kill the process.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file, _naming(Path(path)):
            os.posix_fallocate(file.fileno(), start, os.fstat(file.fileno()).st_size if size is None else size)


@contextmanager
def exclusive_lock(lock: str | Path) -> Iterator[None]:
    """Hold a lock, so that no two processes do the same work or write to the same folder.

    The block waits while another process holds the lock, for example a job that a killed workflow left running and
    that the next run starts again. The lock is released when its process ends, even if it is killed.

    Parameters
    ----------
    lock
        The lock's file. It exists only while the lock is held.
    """
    lock = Path(lock)
    _check_place(lock)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _acquired(lock):
        try:
            yield
        finally:
            # Windows refuses to remove an open file; FileLock removes it there itself. A process that has opened the
            # removed file and waits for it opens the next one instead: FileLock compares them.
            with suppress(PermissionError):
                lock.unlink(missing_ok=True)


def _acquired(lock: Path) -> AbstractContextManager[object]:
    # A soft lock is a file that remains if its process is killed, which is worse than no lock.
    file_lock = FileLock(lock, fallback_to_soft=False)
    try:
        return file_lock.acquire(blocking=False)
    except Timeout:
        # FileLock waits forever, too, where no file can be made.
        lock.touch()
        logger.info(f"waiting for another dvlae process that is writing here ({lock})")
        return file_lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS_ERRORS:
            raise
        logger.warning(f"{lock}: this file system has no locks; do not start the same step twice at once")
        return nullcontext()
