"""Denoise the images of a dataset with the method of a file, and record how, or why not."""

import errno
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import numpy as np

from dvlae.config.dataset import EvaluationSettings
from dvlae.config.methods import MethodSettings, load_method
from dvlae.data.canonical import read_mask
from dvlae.data.manifest import Image, read_manifest
from dvlae.data.outputs.folder import OutputFolder
from dvlae.data.outputs.reading import NOISY_MARK, NOISY_TEXT, OUTPUT_FILES
from dvlae.evaluation.each_image import choose_image_workers, iterate_images
from dvlae.evaluation.register import Targets
from dvlae.methods import commands
from dvlae.methods.environments import Ready, read_ready
from dvlae.methods.task import Fitted, NotApplicableError, Task, images_with_clean
from dvlae.runs.folder import DONE, RunFolder, read_record
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, check_folder, write_json
from dvlae.system.hardware.devices import choose_device, device_name
from dvlae.system.hardware.machine import choose_workers, usable_cores
from dvlae.system.hardware.usage import Usage
from dvlae.system.parts import WHOLE, Part
from dvlae.system.software import software

logger = logging.getLogger(__name__)

# Memory that BM3D needs for each value of the plane that it filters, measured.
BM3D_BYTES_PER_PLANE_VALUE = 600
# They are no failures of a method.
DISK_ERRORS = (errno.ENOSPC, errno.EROFS)

Result = TypeVar("Result")


class UnavailableError(Exception):
    """A method that cannot be run anywhere. The message is one line."""


STATUSES: dict[type[Exception], str] = {
    UnavailableError: "unavailable",
    NotApplicableError: "not applicable",
    commands.OutOfTimeError: "out of time",
}


class _Undiagnosed(dict):
    """The missing diagnosis of the noise."""

    def __missing__(self, key: str) -> Any:
        raise UserError("--noise: found none, allowed: what `dvlae diagnose` writes, which this method needs")


@dataclass(frozen=True)
class Trial:
    """A method, and the images on which it is tried.

    Attributes
    ----------
    name, how, path
        The method, the content of its file, and the file.
    task
        The images, and what the method may use, with the settings of its file.
    environment, code
        Its environment and its files; None: it needs none.
    """

    name: str
    how: MethodSettings
    path: Path
    task: Task
    environment: Ready | None
    code: Ready | None

    @classmethod
    def of(
        cls,
        method: str,
        images: Path,
        folder: Path,
        *,
        settings: EvaluationSettings,
        targets: Path | None = None,
        noise: Path | None = None,
        noise_direction: str = "none",
        block: int = 1,
        seed: int = 0,
        minutes: float | None = None,
        device: str = "auto",
        environment: Path | None = None,
        code: Path | None = None,
        cores: int | None = None,
    ) -> Self:
        """Collect what a method is given.

        Parameters
        ----------
        method
            Name of a method file, or its path.
        images
            Folder of canonical images, with ``manifest.csv``.
        folder
            A folder for temporary files.
        settings
            How the dataset is evaluated. Oracles choose their parameters by the same evaluation.
        targets
            The output of ``dvlae register`` for the same images and settings. If None, each clean image is registered
            here.
        noise
            The output of ``dvlae diagnose`` for the same images; None: methods that need it fail.
        noise_direction
            Axis along which the noise is correlated, or ``none``.
        block
            Number of neighbouring images that belong together.
        seed
            Seed of a method that draws random numbers.
        minutes
            Time for a method that trains; None: it is refused.
        device
            Where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        environment, code
            What :func:`dvlae.methods.environments.make_environment` and ``download_code`` recorded; None: nothing.
        cores
            Cores that the method may use; None: all that this process may use.

        Returns
        -------
        Trial
            The method and its task.

        Raises
        ------
        UserError
            If there is no such method, or an input cannot be used.
        """
        name, how, path = load_method(method)
        if how.dvlae is not None:
            raise UserError(f"{path}: is our own network, allowed: other methods; see dvlae train")
        if how.trains and how.unavailable is None and minutes is None:
            raise UserError(f"--minutes: found none, but {name} trains for a time")
        if minutes is not None and not 0 < minutes < math.inf:
            raise UserError(f"--minutes: found {minutes:g}, allowed: a number above 0")
        manifest = read_manifest(images)
        if how.trains or how.command is not None:
            workers = choose_workers(name, cores or usable_cores(), cores=cores, repeatable=True)
        else:
            plane = BM3D_BYTES_PER_PLANE_VALUE if (how.function or "").startswith("filters.bm3d") else 0
            workers = choose_image_workers(name, manifest, cores, bytes_per_plane_value=plane)
        task = Task(
            images=manifest,
            targets=Targets(settings, targets),
            noise_direction=noise_direction,
            block=block,
            noise=_Undiagnosed() if noise is None else read_record(noise),
            settings=how.settings,
            seed=seed,
            minutes=minutes or 0.0,
            workers=workers,
            device=choose_device(device).type,
            folder=folder,
        )
        ready = [None if record is None else read_ready(record) for record in (environment, code)]
        return cls(name, how, path, task, *ready)

    def fit(self, **changes: Any) -> Fitted:
        """Let the method learn, or choose its parameters; a command denoises, too.

        Parameters
        ----------
        **changes
            What is different in its task.

        Returns
        -------
        Fitted
            The method, ready to denoise.

        Raises
        ------
        UnavailableError
            If its file says that it cannot be run.
        NotApplicableError
            If it cannot denoise these images, or not here.
        UserError
            If its environment or its files are missing.
        """
        how = self.how
        task = Task(**vars(self.task) | changes)
        if how.unavailable is not None:
            raise UnavailableError(how.unavailable)
        if how.device == "cuda" and task.device != "cuda":
            raise NotApplicableError(f"is run on a GPU only, and the device is {task.device}")
        if how.function is not None:
            return import_module(f"dvlae.methods.{how.function}").fit(task)
        for key, ready in (("environment", self.environment), ("files", self.code)):
            if getattr(how, key) is not None and ready is None:
                raise UserError(f"--{key}: found none, but {self.path} has `{key}`")
            if ready is not None and ready.reason is not None:
                raise UserError(f"{key}: {ready.reason}")
        if how.sees == "clean" and not images_with_clean(task):
            raise NotApplicableError("it sees clean images, and there are none")
        places = commands.Places(
            self.path.parent,
            python=None if self.environment is None else self.environment.path,
            code=None if self.code is None else self.code.path,
        )
        return commands.fit(self.name, how, places, task)


def attempt(work: Callable[[], Result]) -> tuple[Result | None, str, str | None]:
    """Let a method do something that may fail.

    Parameters
    ----------
    work
        What to call.

    Returns
    -------
    result, status, reason
        What it returned, ``done`` and None; or None, what became of it, and why, in one line.
    """
    try:
        return work(), DONE, None
    except tuple(STATUSES) as error:
        return None, STATUSES[type(error)], str(error)
    # A method is code of any origin, and may raise anything.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        text = str(error)
        if not isinstance(error, UserError):
            logger.info("the method failed", exc_info=error)
            text = f"{type(error).__name__}: {error}"
        return None, "failed", text.partition("\n")[0]


def run_method(
    method: str, images: Path, output: Path, *, search: Path | None = None, part: Part = WHOLE, **given: Any
) -> None:
    """Denoise all images of a dataset with the method of a file.

    It writes one TIFF file per source, with the name of the noisy one; of the method ``noisy``, a note instead of
    copies of the noisy images. ``method.json``, next to the folder, records what became of it: ``status`` is ``done``,
    ``failed``, ``out of time``, ``not applicable`` or ``unavailable``. Unless it is ``done``, there is a ``reason``,
    and the folder is empty.

    Parameters
    ----------
    method
        Name of a method file, or its path.
    images
        Folder of canonical images, with ``manifest.csv``.
    output
        Folder to make.
    search
        The output of :func:`dvlae.methods.search.search_method`; None: the settings of the file are taken.
    part
        Denoise only the images of this part; all parts are joined by :func:`dvlae.runs.gather.gather`. A function that
        trains nothing chooses its parameters with all images, so they are the same for every part.
    **given
        As for :meth:`Trial.of`.

    Raises
    ------
    UserError
        If there is no such method, or an input cannot be used.
    """
    output = Path(output)
    check_folder(output, OUTPUT_FILES)
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with TemporaryDirectory(prefix=".unfinished-method-", dir=output.parent) as temporary:
        trial = Trial.of(method, images, Path(temporary) / "task", **given)
        chosen = {} if search is None else read_record(search).get("chosen", {})
        if part != WHOLE and (trial.how.trains or trial.how.function is None):
            raise UserError(
                f"--part: found {part.number}/{part.count}, allowed: 1/1, as {trial.name} cannot be divided"
            )
        settings = trial.how.settings | chosen
        with atomic_folder(output, OUTPUT_FILES) as folder:
            found, status, reason = attempt(lambda: _denoise(trial, settings, part, folder))
            if found is None:
                for file in folder.iterdir():
                    file.unlink()
    record = {
        "method": trial.name,
        "status": status,
        "reason": reason,
        **_describe(trial),
        "settings": settings,
        **(found or {}),
        "seconds": round(time.monotonic() - start, 1),
        **part.record(),
        **software(),
    }
    path = RunFolder(output.parent).method_record
    write_json(path, record)
    if reason is not None:
        again = f"; to try again, remove {path}" if status in ("failed", "out of time") else ""
        logger.warning("%s: %s: %s%s", trial.name, status, reason, again)


def _describe(trial: Trial) -> dict[str, Any]:
    """Return what a record says of a method, whatever became of it."""
    how, task = trial.how, trial.task
    return {
        "oracle": how.oracle,
        "sees": how.sees,
        "trains": how.trains,
        "seed": task.seed if how.seeds else None,
        "minutes": task.minutes if how.trains else None,
        "device": device_name(choose_device(task.device)),
        "workers": task.workers,
        **how.model_dump(include={"source", "tuned_by", "licence", "citation"}),
        "searched": len(how.candidates),
    }


def _denoise(trial: Trial, settings: Mapping[str, Any], part: Part, folder: Path) -> dict[str, Any]:
    """Write the estimates of the images of a part; return what was found on the way."""
    images = part.share(trial.task.images)
    workers = trial.task.workers
    with Usage() as training:
        fitted = trial.fit(settings=settings)
    found = dict(fitted.description)
    with Usage() as prediction:
        if trial.how.function == "filters.noisy":
            (folder / NOISY_MARK).write_text(NOISY_TEXT, encoding="utf-8", newline="\n")
        else:
            results = OutputFolder(folder, images)
            # What is left to do for a command is to read its files, one after the other.
            threads = workers if trial.how.function is not None else 1
            estimates = iterate_images(fitted.denoise, images, threads, description=trial.name)
            for image, estimate in zip(images, estimates, strict=True):
                results.write(image, _checked(image, estimate))
            results.report.log(trial.name)
    seconds: tuple[float, float | None] = training.seconds, prediction.seconds
    if trial.how.command is not None:
        # A command does all at once, and says how long each took, if it does.
        seconds = (training.seconds, None) if trial.how.trains else (0.0, training.seconds)
    took = found.pop("prediction_seconds", seconds[1])
    processor = prediction.processor_seconds / workers
    if trial.how.command is not None:
        processor = took and took * (training.share(workers) or 1)
    names = found.get("images", trial.task.images if trial.how.trains else None)
    return {
        "oracle": found.pop("oracle", trial.how.oracle),
        "trained_on": len(names) if isinstance(names, list) else names,
        "training_seconds": _rounded(found.pop("training_seconds", seconds[0])),
        "prediction_seconds": _rounded(took),
        "prediction_processor_seconds": _rounded(processor) if choose_device(trial.task.device).type == "cpu" else None,
        "megapixels": round(sum(np.prod(image.shape[1:]) for image in images) / 1e6, 6),
        "processor_share": training.share(workers) if trial.how.trains else None,
        "peak_memory_mb": round(max(training.peak_memory_mb, prediction.peak_memory_mb)),
        "chosen": found,
    }


def _checked(image: Image, estimate: np.ndarray) -> np.ndarray:
    """Return an estimate of an image, (C, ...), if it has its shape and is finite where there are pixels."""
    if estimate.shape != image.shape:
        raise UserError(f"{image.name}: found an estimate of shape {estimate.shape}, allowed: {image.shape}")
    mask = read_mask(image)
    if not np.isfinite(estimate if mask is None else estimate[:, mask]).all():
        raise UserError(f"{image.name}: found an estimate with NaN or infinite values")
    return estimate


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
