"""The image files that a user names, which of them are results of earlier commands, and how they are read."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dvlae.api.choices import choose_axes
from dvlae.config.dataset import DatasetSettings
from dvlae.config.fields import expand_home
from dvlae.config.messages import validate
from dvlae.data.files import find_images
from dvlae.system.errors import UserError
from dvlae.system.wording import count

logger = logging.getLogger(__name__)


def find_inputs(patterns: Sequence[str], command: str = "denoise") -> tuple[list[Path], list[Path]]:
    """Find the image files that a user names, and say which results of earlier commands are left out.

    Parameters
    ----------
    patterns
        Files, folders and globs.
    command
        The command, for messages.

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
    left_out = set(results)
    inputs = [file for file in found if file not in left_out]
    if not inputs:
        raise UserError(
            f"FILES: found only results of earlier commands, such as {results[0]}; name a file by itself to denoise it"
        )
    if results:
        logger.info(f"{command}: leaves out results of earlier commands: {name_paths(results)}")
    return inputs, results


def choose_dataset(
    inputs: Sequence[Path],
    command: str,
    *,
    axes: str,
    override_axes: bool,
    channel: int | Literal["grey"] | None,
    series: int | str,
    noise_direction: str,
    together: bool,
    noisy: Sequence[str] | None = None,
) -> DatasetSettings:
    """Choose how image files are read.

    Parameters
    ----------
    inputs
        The files.
    command
        The command, for messages.
    axes, override_axes, channel, series, noise_direction
        What the user says. ``auto`` follows the files, but reads planes, many channels, and pages of unknown meaning as
        images; an unknown direction of the noise is left open.
    together
        Whether planes and channels are read as the files say.
    noisy
        What the settings call the files; None: their names.

    Returns
    -------
    DatasetSettings
        The settings of a dataset. The screen says what is read as images.

    Raises
    ------
    UserError
        If a value is not allowed, or no one choice is right for all files.
    """
    if override_axes and axes == "auto":
        raise UserError("--override-axes: found without --axes, allowed only with it")
    if axes == "auto" and not together:
        axes = choose_axes(inputs, series, command)
        override_axes = axes != "auto"
    keys: dict[str, Any] = {
        "source": {"kind": "files"},
        "noisy": [str(file) for file in inputs] if noisy is None else list(noisy),
        "axes": axes,
        "axes_override": override_axes,
        "channel": channel,
        "series": series,
        "noise_direction": "none" if noise_direction == "auto" else noise_direction,
    }
    return validate(DatasetSettings, keys, "command line")


def name_paths(paths: Sequence[Path], most: int = 4) -> str:
    """Name files, those in the working folder without it.

    Parameters
    ----------
    paths
        Absolute paths.
    most
        How many are named; of more, the number is.

    Returns
    -------
    str
        The names, separated by commas.
    """
    here = Path.cwd()
    named = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths[:most]]
    return ", ".join(named) + (f" and {count(len(paths) - most, 'other')}" if len(paths) > most else "")


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
