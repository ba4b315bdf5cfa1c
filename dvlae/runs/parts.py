"""A dataset divided among several jobs: which images each one works on, and how their results become one.

The images are divided by number, in their order. Each job writes into a folder of its own what a single job would write
into the folder of the run; :func:`gather` joins these.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dvlae.runs.folder import read_json
from dvlae.system.errors import UserError
from dvlae.system.files import write_csv, write_json

# These values of a record may differ between the parts: a program may be updated between two jobs.
VERSIONS = ("versions", "git_commit")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """One of the parts into which a dataset is divided.

    Attributes
    ----------
    number
        Which part, from 1 to ``count``.
    count
        Number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read a part.

        Parameters
        ----------
        text
            For example ``2/4``, or ``2-of-4`` as Snakemake writes it.

        Returns
        -------
        Part
            The part.

        Raises
        ------
        UserError
            If it is no such text, or there is no such part.
        """
        found = re.fullmatch(r"(\d+)(?:/|-of-)(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--part: found {text!r}, allowed: K/N, with K from 1 to N")
        return cls(int(found[1]), int(found[2]))

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this part.

        Parameters
        ----------
        items
            The items of all parts, in order.

        Returns
        -------
        list
            Neighbouring items. The numbers of items of two parts differ by at most 1; there may be none.
        """
        start, stop = (len(items) * number // self.count for number in (self.number - 1, self.number))
        return list(items[start:stop])


def gather(
    parts: Sequence[Path], outputs: Sequence[Path], join_folders: Callable[[Sequence[Path], Path], None]
) -> None:
    """Join what several jobs made of the parts of one dataset. The parts are left as they are.

    Parameters
    ----------
    parts
        The folders of all parts, in order.
    outputs
        What to make. Each has the name that it has in the parts. A table (``.csv``) gets the rows of all parts. A
        record (``.json``) gets the sum of ``seconds``, all devices, one hash of the images, what was found in all of
        them, and the values that are the same in all parts; versions are those of the first part. Everything else is
        a folder.
    join_folders
        Makes a folder out of those of all parts, such as :func:`dvlae.data.outputs.folder.join_folders`.

    Raises
    ------
    UserError
        If something is missing in a part, a file is in two parts, or the parts were made with different settings.
    """
    for output in outputs:
        made = [part / output.name for part in parts]
        for path in made:
            if not path.exists():
                raise UserError(f"{path}: not found; gather after all parts are finished")
        if output.suffix == ".csv":
            _join_tables(made, output)
        elif output.suffix == ".json":
            write_json(output, _join_records(made))
        else:
            join_folders(made, output)


def hash_hashes(hashes: Iterable[str]) -> str:
    """Return one hash of the hashes of several files.

    Parameters
    ----------
    hashes
        SHA-256 of each file, in hexadecimal.

    Returns
    -------
    str
        SHA-256, in hexadecimal.
    """
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _join_tables(tables: Sequence[Path], output: Path) -> None:
    rows: list[list[str]] = []
    columns: list[str] = []
    for table in tables:
        with open(table, newline="", encoding="utf-8") as file:
            found, *more = csv.reader(file)
        if columns and found != columns:
            raise UserError(f"{table}: found columns {found}, allowed: {columns}, as in the first part")
        columns = found
        rows += more
    write_csv(output, columns, rows)


def _join_records(paths: Sequence[Path]) -> dict[str, Any]:
    records = [read_json(path) for path in paths]
    joined = dict(records[0])
    for name in joined:
        values: list[Any] = [record.get(name) for record in records]
        if name == "seconds":
            joined[name] = round(sum(values), 1)
        elif name == "device":
            joined[name] = ", ".join(dict.fromkeys(values))
        elif name == "images_sha256":
            joined[name] = hash_hashes(value for hashes in values for value in hashes)
        elif name == "found":
            joined[name] = {kind: {k: v for value in values for k, v in value[kind].items()} for kind in values[0]}
        elif name not in VERSIONS:
            for path, value in zip(paths, values, strict=True):
                if value != values[0]:
                    raise UserError(f"{path}: {name}: found {value}, allowed: {values[0]}, as in the first part")
    return joined
