"""Methods that are commands: they read images from a folder, and write estimates into another."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile

from dvlae.config.methods import MethodSettings, fill_places
from dvlae.data.canonical import read_clean, read_noisy
from dvlae.data.manifest import Image
from dvlae.methods.task import Fitted, NotApplicableError, Task
from dvlae.system.errors import UserError
from dvlae.system.files import write_json
from dvlae.system.wording import list_names

logger = logging.getLogger(__name__)

# For a command to end after it was asked to, before it is killed.
SECONDS_TO_END = 10.0
# What a command prints goes to the log of its step.
STANDARD_ERROR = 2
# Libraries that compute read their number of threads from these variables.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# They would lead another interpreter to our own packages.
OWN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class OutOfTimeError(Exception):
    """A command took longer than it may. The message is one line."""


@dataclass(frozen=True)
class Places:
    """Where the files of a command are.

    Attributes
    ----------
    here
        Folder of the method file.
    python
        Interpreter of the method's environment; None: this one.
    code
        Folder of what was downloaded for it; None: nothing.
    """

    here: Path
    python: Path | None = None
    code: Path | None = None


def fit(name: str, how: MethodSettings, places: Places, task: Task) -> Fitted:
    """Run the command of a method, which denoises all images.

    Parameters
    ----------
    name
        The method.
    how
        Its file.
    places
        Where its files are.
    task
        The images, and what it may use. The settings are written into a file for the command.

    Returns
    -------
    Fitted
        A function that reads the estimates, and what the command recorded.

    Raises
    ------
    NotApplicableError
        If the command says that it cannot denoise these images.
    OutOfTimeError
        If it takes longer than it may.
    UserError
        If it fails, or writes something else than it should.
    """
    assert how.command is not None
    folder = task.folder.absolute()
    noisy, denoised = folder / "noisy", folder / "denoised"
    denoised.mkdir(parents=True)
    for image in task.images:
        _write(noisy, image, read_noisy(image))
        if "{clean}" in how.command and image.clean is not None:
            _write(folder / "clean", image, read_clean(image))
    channels, *sides = task.images[0].shape
    settings = dict(task.settings) | {
        "axes": ("C" if channels > 1 else "") + "ZYX"[-len(sides) :],
        "searching": task.searching,
        "noise_direction": task.noise_direction,
        "receptive_field": task.noise.get("receptive_field"),
        "noise": dict(task.noise),
    }
    write_json(folder / "settings.json", settings)
    record = folder / "record.json"
    values = {
        "python": places.python or sys.executable,
        "here": places.here.absolute(),
        "code": places.code and places.code.absolute(),
        "noisy": noisy,
        "clean": folder / "clean",
        "denoised": denoised,
        "seed": task.seed,
        "minutes": f"{task.minutes:g}",
        "threads": task.workers,
        "device": task.device,
        "settings": folder / "settings.json",
        "record": record,
    }
    line = fill_places(how.command, {place: _quote(str(value)) for place, value in values.items()})
    # A method file is code, so the user sees what it runs.
    logger.warning("%s: runs %s", name, line)
    allowed = task.minutes + how.prediction_minutes
    variables = dict(os.environ) if places.python is None else other_environment()
    variables |= dict.fromkeys(THREAD_VARIABLES, str(task.workers))
    status = _run(line, variables, 60 * allowed)
    found = _read_record(record)
    if (reason := found.pop("not_applicable", None)) is not None:
        raise NotApplicableError(str(reason))
    if status is None:
        parts = f"{task.minutes:g} for training and {how.prediction_minutes:g} for the rest"
        raise OutOfTimeError(f"ended after {allowed:g} minutes: {parts}")
    if status:
        raise UserError(
            f"the command ended with exit status {status}; what it printed says why (in the workflow, in the log of "
            "run_method)"
        )
    return Fitted(lambda image: _read(denoised, image), found)


def _write(folder: Path, image: Image, values: np.ndarray) -> None:
    """Write an image (C, ...) without the axis of a single channel."""
    folder.mkdir(exist_ok=True)
    frame = values[0] if len(values) == 1 else values
    # A trace has no photometric interpretation.
    tifffile.imwrite(folder / f"{image.name}.tif", frame, photometric="minisblack" if frame.ndim > 1 else None)


def _read(folder: Path, image: Image) -> np.ndarray:
    """Read an estimate (C, ...)."""
    path = folder / f"{image.name}.tif"
    if not path.is_file():
        there = [file.name for file in sorted(folder.iterdir())]
        raise UserError(f"the command wrote no {path.name}, but {list_names(there) if there else 'nothing'}")
    try:
        values = tifffile.imread(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the command wrote a {path.name} that cannot be read ({error})") from None
    expected = image.shape[1:] if image.shape[0] == 1 else image.shape
    if values.shape != expected:
        raise UserError(f"the command wrote {path.name} of shape {values.shape}, allowed: {expected}")
    if values.dtype.kind not in "buif":
        raise UserError(f"the command wrote {path.name} with values of the type {values.dtype}, allowed: real numbers")
    return values.astype(np.float32).reshape(image.shape)


def _quote(text: str) -> str:
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)


def other_environment() -> dict[str, str]:
    """Return the environment variables for the interpreter of another environment.

    Returns
    -------
    dict
        Those of this process, without those that lead to its packages.
    """
    return {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}


def _run(line: str, variables: Mapping[str, str], seconds: float) -> int | None:
    """Run a line of the shell and return its exit status; None if it was ended because it took too long."""
    process = subprocess.Popen(
        line, shell=True, env=variables, stdin=subprocess.DEVNULL, stdout=STANDARD_ERROR, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Ctrl-C and the end of this process do not reach the command, which has a session of its own.
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """End a running process and all that it started."""
    root = psutil.Process(process.pid)
    alive = [root, *root.children(recursive=True)]
    for name in ("SIGTERM", "SIGKILL"):
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.terminate() if name == "SIGTERM" else each.kill()
        if hasattr(os, "killpg"):
            # Those whose parent has ended are in its group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, getattr(signal, name))
        _, alive = psutil.wait_procs(alive, SECONDS_TO_END)
    process.wait()


def _read_record(path: Path) -> dict[str, Any]:
    """Return what a command wrote about itself; nothing if it wrote nothing."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(found, dict):
            raise ValueError("no object with names and values")
    except ValueError as error:
        raise UserError(f"the command wrote a {{record}} that is not JSON ({error})") from None
    return found
