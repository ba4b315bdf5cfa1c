"""The image files that a user names, and which of them are results of earlier commands."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvlae.config.fields import expand_home
from dvlae.data.files import find_images
from dvlae.system.errors import UserError


def find_inputs(patterns: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Find the image files that a user names.

    Parameters
    ----------
    patterns
        Files, folders and globs.

    Returns
    -------
    inputs, results
        Absolute paths in natural order: the images, and results that records of earlier commands list. Results are
        images if they are named by themselves, and no other file is: a shell turns a pattern into names.

    Raises
    ------
    UserError
        If nothing matches a pattern but results, or a file is of an unknown kind.
    """
    found = find_images(patterns, Path.cwd(), "FILES")
    named = {Path.cwd() / expand_home(pattern) for pattern in patterns}
    listed = {path for folder in {file.parent for file in found} for path in _listed_results(folder)}
    results = [file for file in found if file.resolve() in listed]
    if len(results) == len(found):
        results = [file for file in found if file not in named]
    inputs = [file for file in found if file not in results]
    if not inputs:
        raise UserError(
            f"FILES: found only results of earlier commands, such as {results[0]}; name a file by itself to denoise it"
        )
    return inputs, results


def _listed_results(folder: Path) -> list[Path]:
    """Return what the records in a folder list, and those of commands that were interrupted while moving results."""
    records = [*folder.glob("*_denoised.json"), *folder.glob("*_denoised_work/finished.json")]
    return [
        (folder / path).resolve()
        for record in records
        if (content := read_record(record)) is not None and "request" in content
        for path in content.get("results", ())
    ]


def read_record(path: Path) -> dict[str, Any] | None:
    """Read what a command wrote about itself.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict or None
        Its content; None if there is none, or it is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
