"""Downloads that are verified, retried, and never left incomplete."""

import hashlib
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from dvlae.config.dataset import DatasetSettings
from dvlae.config.fields import MIRROR_VARIABLE
from dvlae.data.reading import check_file
from dvlae.data.registry import Address, read_lock, read_registry, record_hash
from dvlae.data.sources import SUFFIXES
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file, exclusive_lock, write_csv
from dvlae.system.hashes import sha256 as file_sha256
from dvlae.system.progress import progress

# Pooch transfers the files. Its retrieve and Unzip do not serve here. The former retries one address instead of trying
# alternatives in turn. It allows a single hash per file, but two versions of a file may be right. It cannot check an
# image before the file has its final name. Unzip selects members by prefix and ignores missing ones.

logger = logging.getLogger(__name__)

# Seconds between the rounds over all addresses.
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0)
# A connection fails after this time without data.
TIMEOUT_SECONDS = 60.0
CHUNK_BYTES = 2**18


class _Failure(Exception):
    """A failed attempt, with what was found as its text."""


def download(
    dataset: DatasetSettings, data: Path, mirror: Path | None, output: Path, pauses: Sequence[float] = RETRY_PAUSES
) -> None:
    """Download the files of a dataset that are missing, see :func:`download_files`.

    Parameters
    ----------
    dataset
        Settings with a ``source.registry``.
    data, mirror, output, pauses
        As for :func:`download_files`.

    Raises
    ------
    UserError
        If the dataset is not to be downloaded, or a file cannot be.
    """
    if dataset.source.registry is None:
        raise UserError(
            f"source.kind: found {dataset.source.kind!r}, allowed: 'download'; there is nothing to download"
        )
    download_files(Path(dataset.source.registry), data, mirror, output, pauses)


def download_files(
    path: Path, data: Path, mirror: Path | None, output: Path, pauses: Sequence[float] = RETRY_PAUSES
) -> None:
    """Download the files of a registry that are missing.

    The mirror is tried first, then each address in turn, and after a pause all addresses again. A file is accepted only
    if it has the hash of its address, as each address may have a version of its own. A hash that the registry lacks is
    recorded at the first download in a lock file next to the registry, and enforced from then on. A file that exists
    and has the right hash is not downloaded again, so that an interrupted download continues with the next file.

    Parameters
    ----------
    path
        The registry.
    data
        The data folder.
    mirror
        A folder with the same files; the environment variable ``DVLAE_DATA_MIRROR`` takes precedence.
    output
        CSV to make, with the columns file, sha256, bytes and origin, the registry's first address with this hash, or
        without a hash if none has it.
    pauses
        Seconds to wait before each round after the first.

    Raises
    ------
    UserError
        If a file cannot be downloaded from any address. The message describes what was found at each address, and how
        to download the file by hand.
    """
    registry = read_registry(path)
    data = Path(data)
    rows = []
    # Datasets that share a registry download one after the other, and the later ones find the files of the first. The
    # lock is next to the list, because the data folder may be complete and read-only.
    with (
        exclusive_lock(Path(output).with_name(f".lock-{path.stem}")),
        progress(registry.items(), description="download", unit="file") as bar,
    ):
        lock = path.with_suffix(".lock")
        downloads = _Downloads(data, data / f".archives-{path.stem}", lock, _mirror(mirror), pauses, bar)
        for file, addresses in bar:
            sha256 = downloads.provide(file, addresses)
            of_hash = {address.sha256: address.url for address in reversed(addresses)}
            origin = of_hash[sha256 if sha256 in of_hash else ""]
            rows.append([file, sha256, (data / file).stat().st_size, origin])
        shutil.rmtree(downloads.archives, ignore_errors=True)
    write_csv(output, ("file", "sha256", "bytes", "origin"), rows)


def _mirror(mirror: Path | None) -> Path | None:
    """Return the mirror that takes precedence, after checking that it exists."""
    named = os.environ.get(MIRROR_VARIABLE) or mirror
    if not named:
        return None
    if not Path(named).is_dir():
        where = MIRROR_VARIABLE if os.environ.get(MIRROR_VARIABLE) else "data_mirror"
        raise UserError(f"{where}: found {str(named)!r}, allowed: a folder that exists")
    return Path(named)


@dataclass(frozen=True)
class _Downloads:
    """The downloads of one registry.

    Attributes
    ----------
    data
        The data folder.
    archives
        Folder for archives, which are kept until all members are unpacked.
    lock
        The file of recorded hashes.
    mirror
        A folder with the same files, or None.
    pauses
        Seconds to wait before each round after the first.
    bar
        The progress bar that counts the files.
    """

    data: Path
    archives: Path
    lock: Path
    mirror: Path | None
    pauses: Sequence[float]
    bar: tqdm

    def provide(self, file: str, addresses: Sequence[Address]) -> str:
        """Make sure that a file is in the data folder; return its hash."""
        target = self.data / file
        incomplete = not all(address.sha256 for address in addresses)
        recorded = read_lock(self.lock).get(file, "") if incomplete else ""
        known = {recorded, *(address.sha256 for address in addresses)} - {""}
        # The file at such an address may be another version than those whose hashes are known.
        unknown = not recorded and any(not (address.sha256 or address.archive_sha256) for address in addresses)
        if target.is_file():
            found = file_sha256(target)
            if found in known:
                return found
            # The user put it there, or a download was interrupted before it recorded the hash.
            if unknown:
                _check_readable(target)
                record_hash(self.lock, file, found)
                return found
            logger.warning(f"{target}: is damaged or another version (sha256 {found}); downloading it again")
        try:
            found = self._fetch(file, addresses, known, set() if unknown else known)
        except _Failure as failure:
            hashes = " or ".join([*sorted(known), *[f"the one in {self.lock}"] * incomplete])
            raise UserError(
                f"{target}: could not be downloaded ({failure}). Run again later, or download it by hand from "
                f"{_places(addresses)} and save it as {target}, or as {file} in a folder that {MIRROR_VARIABLE} names"
                + (f"; its sha256 must be {hashes}" if known and not unknown else "")
            ) from None
        if found not in known:
            record_hash(self.lock, file, found)
        return found

    def _fetch(self, file: str, addresses: Sequence[Address], known: set[str], elsewhere: set[str]) -> str:
        """Try the mirror, then all addresses, round after round; return the hash of the file.

        The hashes that are allowed in the mirror and at an address without one are ``elsewhere``; none: any is.
        """
        target = self.data / file
        problems: dict[str, str] = {}
        if self.mirror:
            in_mirror = self.mirror / file
            try:
                return _accept(target, elsewhere, partial(_copy, in_mirror))
            except _Failure as failure:
                problems[str(in_mirror)] = str(failure)
        for pause in (0.0, *self.pauses):
            time.sleep(pause)
            for address in addresses:
                # The hash of an archive also verifies its members.
                allowed = {address.sha256} - {""} or (set() if address.archive_sha256 else elsewhere)
                try:
                    return _accept(target, allowed, partial(self._from_address, address))
                except _Failure as failure:
                    problems[address.url] = str(failure)
                    logger.warning(f"{address.url}: {failure}")
                    # An archive without a known hash may be a wrong one.
                    if not address.archive_sha256:
                        self._archive_of(address).unlink(missing_ok=True)
        raise _Failure("; ".join(f"{place}: {problem}" for place, problem in problems.items()))

    def _archive_of(self, address: Address) -> Path:
        """Return the path of an archive, of which several files may be members."""
        return self.archives / f"{hashlib.sha256(address.url.encode()).hexdigest()[:16]}.zip"

    def _from_address(self, address: Address, path: Path) -> None:
        """Download a file, or the archive that contains it, to ``path``."""
        if not address.member:
            return self._get(address.url, path)
        archive = self._archive_of(address)
        if not archive.is_file():
            _accept(archive, {address.archive_sha256} - {""}, partial(self._get, address.url))
        try:
            # One member is copied to our own path, so that names in the archive cannot lead out of the folder.
            with zipfile.ZipFile(archive) as file, file.open(address.member) as member, open(path, "wb") as out:
                shutil.copyfileobj(member, out)
        except KeyError:
            raise _Failure(f"the archive has no member {address.member!r}") from None
        # Reading a damaged archive may raise any exception. An OSError with a number is an error of the disk.
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            archive.unlink()
            raise _Failure(f"the archive is damaged ({error})") from None

    def _get(self, url: str, path: Path) -> None:
        """Download a file, and show its progress in bytes after the bar that counts the files."""
        transfer = pooch.HTTPDownloader(_ByteCount(self.bar), chunk_size=CHUNK_BYTES, timeout=TIMEOUT_SECONDS)
        try:
            transfer(url, str(path), None)
        except requests.HTTPError as error:
            assert error.response is not None  # pooch asks the response for its status
            raise _Failure(f"HTTP status {error.response.status_code}") from None
        except requests.ConnectionError:
            raise _Failure("no connection, or it broke off") from None
        except requests.Timeout:
            raise _Failure(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        # A ValueError is raised if the length is not a number.
        except (requests.RequestException, ValueError) as error:
            raise _Failure(f"{type(error).__name__}: {error}".splitlines()[0]) from None


class _ByteCount:
    """The progress that pooch reports: the bytes of one file are shown after the bar that counts the files."""

    def __init__(self, bar: tqdm):
        self.bar, self.total, self.count = bar, 0, 0

    def update(self, count: int) -> None:
        self.count = min(self.count + count, self.total)  # pooch reports complete chunks, the last one, too
        self.bar.set_postfix_str(f" {self.count / 1e6:.1f} of {self.total / 1e6:.1f} MB of this file", refresh=False)
        self.bar.update(0)

    def reset(self) -> None:
        self.count = 0

    def close(self) -> None:
        """Leave the bar open for the next file."""


def _places(addresses: Sequence[Address]) -> str:
    return " or ".join(
        f"{address.url} (an archive: take {address.member} out of it)" if address.member else address.url
        for address in addresses
    )


def _accept(target: Path, allowed: set[str], write: Callable[[Path], None]) -> str:
    """Call ``write(path)`` and keep the file at ``target`` if its hash is allowed; return the hash.

    If no hash is known, an image has to be readable, so that a server's error page is not recorded as right.
    """
    with atomic_file(target) as temporary:
        write(temporary)
        found = file_sha256(temporary)
        size = temporary.stat().st_size
        if allowed and found not in allowed:
            raise _Failure(f"found sha256 {found} of {size} bytes, allowed {' or '.join(sorted(allowed))}")
        if not allowed:
            try:
                _check_readable(temporary)
            except UserError:
                raise _Failure(f"found {size} bytes that are not a {target.suffix} image") from None
    return found


def _check_readable(path: Path) -> None:
    # An archive is downloaded for its members.
    if path.suffix.lower() in SUFFIXES.keys() - {".zip"}:
        check_file(path)


def _copy(source: Path, path: Path) -> None:
    if not source.is_file():
        raise _Failure("no such file")
    shutil.copyfile(source, path)
