"""Downloads that are checked, retried and never half there."""

import csv
import hashlib
import os
import shutil
import stat
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
import requests

from dvlae.config.dataset import DatasetSettings
from dvlae.data.reading import PNG_SUFFIXES, TIFF_SUFFIXES, read_array
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file
from dvlae.system.files import sha256 as file_sha256
from dvlae.system.progress import progress

MIRROR_VARIABLE = "DVLAE_DATA_MIRROR"
REGISTRY_COLUMNS = ("file", "sha256", "url", "member", "archive_sha256")
# In seconds, between one round over all addresses and the next.
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0)
# A member of an archive is unpacked up to this size, however well it is packed.
ALWAYS_UNPACKED_BYTES = 2**28
# Bytes of a larger member for each that it has in the archive; images pack less.
MAX_EXPANSION = 100
# A connection ends after this long without a byte.
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Address:
    """One row of a registry: a place where a file can be had.

    Attributes
    ----------
    file
        Path below the data folder.
    sha256
        The file's hash; empty where nobody knows it yet. It is then recorded at the first download.
    url
        The file itself, or a ZIP archive that holds it.
    member, archive_sha256
        The file's path in the archive and the archive's hash; empty where there is no archive.
    """

    file: str
    sha256: str
    url: str
    member: str = ""
    archive_sha256: str = ""


class _Failure(Exception):
    """An attempt that did not work; the text says what was found."""


def read_registry(path: str | Path) -> dict[str, list[Address]]:
    """Read a registry of downloads.

    Parameters
    ----------
    path
        CSV with the columns file, sha256, url, and perhaps member and archive_sha256.

    Returns
    -------
    dict
        For each file its addresses, in the registry's order.

    Raises
    ------
    UserError
        Where the registry is missing, has other columns, or a file would lie outside the data folder.
    """
    try:
        with open(path, newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text)
            rows = list(reader)
            columns = reader.fieldnames or []
    except OSError as error:
        raise UserError(f"{path}: {error.strerror.lower()}") from None
    if not set(REGISTRY_COLUMNS[:3]) <= set(columns) <= set(REGISTRY_COLUMNS):
        raise UserError(f"{path}: found the columns {', '.join(columns)}, allowed: {', '.join(REGISTRY_COLUMNS)}")
    registry: dict[str, list[Address]] = {}
    for number, row in enumerate(rows, start=2):
        address = Address(**{key: (value or "").strip() for key, value in row.items() if key})
        name = PurePosixPath(address.file)
        if not address.file or name.is_absolute() or ".." in name.parts:
            raise UserError(
                f"{path}: line {number}: file: found {address.file!r}, allowed: a path below the data folder"
            )
        if not address.url.startswith(("http://", "https://")):
            raise UserError(f"{path}: line {number}: url: found {address.url!r}, allowed: http:// or https://")
        registry.setdefault(address.file, []).append(address)
    if not registry:
        raise UserError(f"{path}: found no files")
    return registry


def lock_of(registry: str | Path) -> Path:
    """Return the file beside a registry that holds the hashes which the registry does not know."""
    return Path(registry).with_suffix(".lock")


def read_lock(path: Path) -> dict[str, str]:
    """Return the hash of each file in a lock file; empty where there is none yet.

    Raises
    ------
    UserError
        Where it cannot be read.
    """
    try:
        with open(path, newline="", encoding="utf-8") as text:
            return {row["file"]: row["sha256"] for row in csv.DictReader(text)}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a table of file,sha256 ({error})") from None


def _record(path: Path, file: str, sha256: str) -> None:
    """Add a hash to a lock file, and say so."""
    rows = read_lock(path) | {file: sha256}
    try:
        with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as text:
            csv.writer(text, lineterminator="\n").writerows([["file", "sha256"], *sorted(rows.items())])
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror.lower()}; the hash of {file} is to be recorded there: {sha256}"
        ) from None
    print(
        f"{file}: nobody knew its sha256; {sha256} is recorded in {path} and held to from now on; keep that file with "
        "the registry",
        file=sys.stderr,
    )


def download(
    dataset: DatasetSettings, data: Path, mirror: Path | None, output: Path, pauses: Sequence[float] = RETRY_PAUSES
) -> None:
    """Get the files of a dataset that are not there yet.

    The mirror is looked in first; then each address in turn, and after a pause all of them again. What came is taken
    only if its hash is right; a hash that the registry does not know is recorded at the first download in a lock file
    beside it, and held to afterwards. A file that is there already, with the right hash, is not fetched again, so that
    a download which was interrupted goes on where it was.

    Parameters
    ----------
    dataset
        With a ``source.registry``.
    data
        The data folder.
    mirror
        A folder with the same files; the environment variable ``DVLAE_DATA_MIRROR`` wins.
    output
        CSV to make: file, sha256, bytes, and origin, the registry's first address with this hash.
    pauses
        Seconds to wait before the second, third ... round.

    Raises
    ------
    UserError
        Where a file can be had nowhere: what was found at each place, and how to do it by hand.
    """
    if dataset.source.registry is None:
        raise UserError(
            f"source.kind: found {dataset.source.kind!r}, allowed: 'download'; there is nothing to download"
        )
    registry = read_registry(dataset.source.registry)
    lock = lock_of(dataset.source.registry)
    mirror = _mirror(mirror)
    data = Path(data)
    # of this dataset only, as another may be downloaded at the same time; kept until all members are there
    archives = data / f".archives-{Path(dataset.source.registry).stem}"
    rows = []
    with progress(registry.items(), description="download", unit="file") as bar:
        for file, addresses in bar:
            sha256 = _provide(file, addresses, data, archives, mirror, pauses, _Bytes(bar), lock)
            origin = next(address.url for address in addresses if address.sha256 in ("", sha256))
            rows.append([file, sha256, (data / file).stat().st_size, origin])
    shutil.rmtree(archives, ignore_errors=True)
    with atomic_file(output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as text:
        csv.writer(text, lineterminator="\n").writerows([["file", "sha256", "bytes", "origin"], *rows])


def _mirror(mirror: Path | None) -> Path | None:
    """Return the mirror that counts, checked."""
    named = os.environ.get(MIRROR_VARIABLE) or mirror
    if not named:
        return None
    if not Path(named).is_dir():
        where = MIRROR_VARIABLE if os.environ.get(MIRROR_VARIABLE) else "data_mirror"
        raise UserError(f"{where}: found {str(named)!r}, allowed: a folder that exists")
    return Path(named)


class _Bytes:
    """Shows the bytes of the current file behind the bar that counts files, in the way that pooch calls a bar."""

    def __init__(self, bar):
        self.bar, self.total, self.done = bar, 0, 0

    def update(self, count: int) -> None:
        self.done = min(self.done + count, self.total or self.done + count)
        self.bar.set_postfix_str(f" {self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB of this file", refresh=False)
        self.bar.update(0)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """Leave the bar open: more files follow."""


def _provide(
    file: str,
    addresses: Sequence[Address],
    data: Path,
    archives: Path,
    mirror: Path | None,
    pauses: Sequence[float],
    meter: _Bytes,
    lock: Path,
) -> str:
    """Make sure that a file is in the data folder; return its hash."""
    target = data / file
    known = {address.sha256 for address in addresses}
    unknown = "" in known
    if unknown:
        known = (known | {read_lock(lock).get(file, "")}) - {""}
    if target.is_file():
        found = file_sha256(target)
        if found in known:
            return found
        if not known:  # put there by hand, or left by a download that was interrupted before its hash was recorded
            _check_readable(target)
            _record(lock, file, found)
            return found
        print(f"{target}: is damaged or of another version (sha256 {found}); it is fetched again", file=sys.stderr)
    try:
        found = _fetch(target, addresses, known, archives, mirror and mirror / file, pauses, meter)
    except _Failure as failure:
        hashes = " or ".join(sorted(known) + [f"stand in {lock}"] * unknown)
        raise UserError(
            f"{target}: could not be had ({failure}). Run again later, or get it by hand from {_places(addresses)} and "
            f"save it as {target}, or as {file} in a folder that {MIRROR_VARIABLE} names"
            + (f"; its sha256 must be {hashes}" if known else "")
        ) from None
    if found not in known:
        _record(lock, file, found)
    return found


def _places(addresses: Sequence[Address]) -> str:
    return " or ".join(
        f"{address.url} (an archive: take {address.member} out of it)" if address.member else address.url
        for address in addresses
    )


def _fetch(
    target: Path,
    addresses: Sequence[Address],
    known: set[str],
    archives: Path,
    in_mirror: Path | None,
    pauses: Sequence[float],
    meter: _Bytes,
) -> str:
    """Try the mirror, then all addresses, round after round; return the hash of what came, or fail."""
    problems: dict[str, str] = {}
    if in_mirror:
        try:
            return _take(target, known, _copy, in_mirror)
        except _Failure as failure:
            problems[str(in_mirror)] = str(failure)
    for pause in (0.0, *pauses):
        time.sleep(pause)
        for address in addresses:
            try:
                # An archive of the right hash vouches for its members.
                allowed = {address.sha256} - {""} or (set() if address.archive_sha256 else known)
                return _take(target, allowed, _from_address, address, archives, meter)
            except _Failure as failure:
                problems[address.url] = str(failure)
                print(f"{address.url}: {failure}", file=sys.stderr)
    raise _Failure("; ".join(f"{place}: {problem}" for place, problem in problems.items()))


def _take(target: Path, allowed: set[str], write: Callable, *arguments) -> str:
    """Call ``write(*arguments, path)`` and keep the file at ``path`` if its hash is allowed; return the hash.

    Where no hash is known, an image has to be readable: a server's page of regrets must not be recorded as right.
    """
    with atomic_file(target) as temporary:
        write(*arguments, temporary)
        found = file_sha256(temporary)
        if allowed and found not in allowed:
            raise _Failure(
                f"found sha256 {found} of {temporary.stat().st_size} bytes, allowed {' or '.join(sorted(allowed))}"
            )
        if not allowed:
            try:
                _check_readable(temporary)
            except UserError:
                raise _Failure(f"found {temporary.stat().st_size} bytes that are no {target.suffix} image") from None
    return found


def _check_readable(path: Path) -> None:
    if path.suffix.lower() in TIFF_SUFFIXES + PNG_SUFFIXES:
        read_array(path)


def _copy(source: Path, path: Path) -> None:
    if not source.is_file():
        raise _Failure("no such file")
    shutil.copyfile(source, path)


def _from_address(address: Address, archives: Path, meter: _Bytes, path: Path) -> None:
    """Download a file, or the archive that it is a member of, to ``path``."""
    if not address.member:
        return _get(address.url, meter, path)
    archive = archives / f"{hashlib.sha256(address.url.encode()).hexdigest()[:16]}.zip"  # several files may share it
    if not archive.is_file():
        _take(archive, {address.archive_sha256} - {""}, _get, address.url, meter)
    try:
        # reads one member and writes to our own path: names in the archive cannot lead out of the folder
        with zipfile.ZipFile(archive) as file, file.open(address.member) as member, open(path, "wb") as out:
            _check_member(file.getinfo(address.member))
            shutil.copyfileobj(member, out)
    except KeyError:
        raise _Failure(f"the archive has no member {address.member!r}") from None
    except Exception as error:  # of all kinds: a damaged archive leads its reader anywhere
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        archive.unlink()
        raise _Failure(f"the archive is damaged ({error})") from None


def _check_member(member: zipfile.ZipInfo) -> None:
    """Refuse what is no file, or would fill the disk."""
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(f"{member.filename} is a link")
    if member.file_size > max(ALWAYS_UNPACKED_BYTES, MAX_EXPANSION * member.compress_size):
        raise ValueError(f"{member.filename} would be {member.file_size} bytes out of {member.compress_size}")


def _get(url: str, meter: _Bytes, path: Path) -> None:
    meter.reset()
    try:
        pooch.HTTPDownloader(progressbar=meter, chunk_size=2**18, timeout=TIMEOUT_SECONDS)(url, str(path), None)
    except requests.HTTPError as error:
        raise _Failure(f"HTTP status {error.response.status_code}") from None
    except requests.ConnectionError:
        raise _Failure("no connection, or it broke off") from None
    except requests.Timeout:
        raise _Failure(f"no answer within {TIMEOUT_SECONDS:g} s") from None
    except (requests.RequestException, ValueError) as error:  # ValueError: a length that is no number
        raise _Failure(f"{type(error).__name__}: {error}".splitlines()[0]) from None
