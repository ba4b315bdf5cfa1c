"""Registries of downloads, and the lock files next to them that record missing hashes."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

from dvlae.system.errors import UserError
from dvlae.system.files import write_csv

logger = logging.getLogger(__name__)

REGISTRY_COLUMNS = ("file", "sha256", "url", "member", "archive_sha256")


@dataclass(frozen=True)
class Address:
    """One row of a registry: an address of a file.

    Attributes
    ----------
    file
        Path in the data folder.
    sha256
        The file's hash; empty if none is published. It is then recorded at the first download.
    url
        Address of the file, or of a ZIP archive that contains it.
    member, archive_sha256
        The file's path in the archive and the archive's hash; empty if there is no archive.
    """

    file: str
    sha256: str
    url: str
    member: str = ""
    archive_sha256: str = ""


def read_registry(path: str | Path) -> dict[str, list[Address]]:
    """Read a registry of downloads.

    Parameters
    ----------
    path
        CSV with the columns file, sha256, url, and optionally member and archive_sha256.

    Returns
    -------
    dict
        The addresses of each file, in the registry's order.

    Raises
    ------
    UserError
        If the registry is missing, has other columns, or a file would lie outside the data folder.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            rows = list(reader)
            columns = reader.fieldnames or []
    except OSError as error:
        raise UserError(f"{path}: {_reason(error)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    if not set(REGISTRY_COLUMNS[:3]) <= set(columns) <= set(REGISTRY_COLUMNS):
        raise UserError(f"{path}: found the columns {', '.join(columns)}, allowed: {', '.join(REGISTRY_COLUMNS)}")
    registry: dict[str, list[Address]] = {}
    for number, row in enumerate(rows, start=2):
        address = Address(**{key: (value or "").strip() for key, value in row.items() if key})
        name = Path(address.file)
        # On Windows a path may have a drive without being absolute, or begin at the root of the current one.
        if not address.file or name.anchor or ".." in name.parts:
            raise UserError(
                f"{path}: line {number}: file: found {address.file!r}, allowed: a path below the data folder"
            )
        if not address.url.startswith(("http://", "https://")):
            raise UserError(f"{path}: line {number}: url: found {address.url!r}, allowed: http:// or https://")
        registry.setdefault(address.file, []).append(address)
    if not registry:
        raise UserError(f"{path}: found no files")
    return registry


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def read_lock(path: Path) -> dict[str, str]:
    """Read the recorded hashes.

    Parameters
    ----------
    path
        The lock file, which need not exist.

    Returns
    -------
    dict
        The hash of each file.

    Raises
    ------
    UserError
        If the lock file cannot be read.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            return {row["file"]: row["sha256"] for row in csv.DictReader(text)}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a table of file,sha256 ({error})") from None


def record_hash(path: Path, file: str, sha256: str) -> None:
    """Add a hash to a lock file, and report it.

    Parameters
    ----------
    path
        The lock file, which need not exist.
    file
        Path in the data folder.
    sha256
        The file's hash.

    Raises
    ------
    UserError
        If the lock file cannot be written.
    """
    rows = read_lock(path) | {file: sha256}
    try:
        write_csv(path, ("file", "sha256"), sorted(rows.items()))
    except OSError as error:
        raise UserError(f"{path}: {_reason(error)}; the hash of {file} is to be recorded there: {sha256}") from None
    logger.info(
        f"{file}: its sha256 is not published; {sha256} is recorded in {path} and enforced from now on: keep that "
        "file with the registry"
    )
