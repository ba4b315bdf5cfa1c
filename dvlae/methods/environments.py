"""What methods from elsewhere need: an environment of their own, and their code. A failure is recorded, not raised."""

import json
import logging
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from dvlae.data.download import download_files
from dvlae.data.registry import read_registry
from dvlae.methods.commands import other_environment
from dvlae.system.errors import UserError
from dvlae.system.files import exclusive_lock, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """What was made for a method, or why it could not be made.

    Attributes
    ----------
    path
        The interpreter of an environment, or the folder of downloaded files.
    reason
        Why there is none, in one line; None: it is there.
    """

    path: Path
    reason: str | None


def read_ready(record: Path) -> Ready:
    """Read what :func:`make_environment` or :func:`download_code` recorded.

    Parameters
    ----------
    record
        The JSON file.

    Returns
    -------
    Ready
        What it says.

    Raises
    ------
    UserError
        If it is no such file.
    """
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return Ready(record.parent / found["path"], found["reason"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record}: not the record of an environment or a download ({error})") from None


def make_environment(requirements: Path, output: Path) -> None:
    """Make a virtual environment with this interpreter, and install packages into it with its own pip.

    Parameters
    ----------
    requirements
        A requirements file for pip. Relative paths in it are relative to its folder.
    output
        The JSON file to write. The environment is in the folder beside it that has its name without the suffix.
    """
    folder = Path(output).with_suffix("").absolute()
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    # Runs of several configurations share the folder of the data.
    with exclusive_lock(folder.with_name(f".lock-{folder.name}")):
        if output.exists() and read_ready(output).reason is None:
            return
        start = time.monotonic()
        logger.warning("environment: installs %s into %s", requirements, folder)
        reason = None
        try:
            venv.EnvBuilder(clear=True, with_pip=True).create(folder)
            reason = _install(python, requirements.absolute())
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"no virtual environment could be made: {error}"
        size = sum(file.lstat().st_size for file in folder.rglob("*"))
        _write_record(output, python, reason, time.monotonic() - start, size)


def download_code(registry: Path, data: Path, output: Path, mirror: Path | None = None) -> None:
    """Download the files of a method, as those of a dataset.

    Parameters
    ----------
    registry
        CSV with the columns file, sha256 and url.
    data
        The data folder.
    output
        The JSON file to write. A list of the files is beside it, with the suffix ``.csv``.
    mirror
        A folder with the same files; the environment variable ``DVLAE_DATA_MIRROR`` takes precedence.
    """
    files = [data / file for file in read_registry(registry)]
    start = time.monotonic()
    reason, size = None, 0
    try:
        download_files(registry, data, mirror, Path(output).with_suffix(".csv"))
        size = sum(file.stat().st_size for file in files)
    except UserError as error:
        reason = str(error).partition("\n")[0]
    folder = Path(os.path.commonpath([file.absolute().parent for file in files]))
    _write_record(output, folder, reason, time.monotonic() - start, size)


def _install(python: Path, requirements: Path) -> str | None:
    """Let the pip of an environment install packages; return why it could not, in one line."""
    words = ["-m", "pip", "install", "--disable-pip-version-check", "--requirement", str(requirements)]
    errors = []
    with subprocess.Popen(
        [str(python), *words],
        cwd=requirements.parent,
        env=other_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                logger.info(line.rstrip())
                errors += [line.strip()] if line.startswith("ERROR:") else []
        finally:
            # Nothing is left to read, or this process is interrupted.
            process.stdout.close()
            if process.wait() and not errors:
                errors.append(f"exit status {process.returncode}")
    return f"pip could not install {requirements.name}: {errors[-1]}" if process.returncode else None


def _write_record(output: Path, path: Path, reason: str | None, seconds: float, size: int) -> None:
    """Record what was made, how long it took and how large it is, and tell the user."""
    place = os.path.relpath(path, Path(output).absolute().parent)
    megabytes = round(size / 1e6, 1)
    write_json(output, {"path": place, "reason": reason, "seconds": round(seconds, 1), "megabytes": megabytes})
    if reason is None:
        logger.warning("%s: made in %.0f s, %.0f MB", output.stem, seconds, megabytes)
    else:
        logger.warning("%s: %s; to try again, remove %s", output.stem, reason, output)
