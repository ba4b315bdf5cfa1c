"""Train one model on the patches of one dataset."""

import json
import logging
import math
import os
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from dvlae import revision
from dvlae.config.settings import TrainSettings
from dvlae.config.training import TrainingSettings
from dvlae.models.dvlae import build_model
from dvlae.models.files import load_weights, save_model
from dvlae.runs.record import RECORD_NAME, write_run
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, check_folder, contents_beside, exclusive_lock
from dvlae.system.hardware.devices import device_name, tune_malloc, use_fast_arithmetic, use_one_thread
from dvlae.system.hardware.machine import choose_workers, log_workers
from dvlae.system.hardware.reservation import reserved_devices
from dvlae.system.hardware.usage import Usage
from dvlae.system.hashes import sha256
from dvlae.system.software import software
from dvlae.system.wording import count
from dvlae.training.checkpoints import Checkpoints
from dvlae.training.crops import RandomCrops, choose_crop, read_patches, validation_batches
from dvlae.training.displays import Display, Outlook, OutlookLine, ProgressLine, SlowSteps, StepRate, TensorBoard
from dvlae.training.loop import fit
from dvlae.training.objective import Objective
from dvlae.training.optimizers import build_optimizer
from dvlae.training.processes import choose_precision, connect, run_processes
from dvlae.training.schedule import Schedule, steps_per_epoch
from dvlae.training.shared_weights import SharedWeights
from dvlae.training.state import TrainingState
from dvlae.training.workers import Workers, run_workers

MODEL_FILES = contents_beside("model.json", "weights.safetensors", "history.csv", RECORD_NAME)

# In nats per pixel value. With a smaller KL divergence, the signal code carries no image.
COLLAPSED_KL = 1e-3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJob:
    """What each process of a training needs to know: the arguments of :func:`train`, and the patches.

    Attributes
    ----------
    description
        The content of ``patches.json``: ``mean``, ``std`` and ``step`` of each channel, and the hashes of the files.
    start_from
        Folder of the model whose weights are the first ones; None: they are random.
    batch_size
        Crops in a batch where memory does not suffice for those of the settings; None: as many as in the settings.
    rate
        File for the number of steps in a second; this is all that is then written. None: a model is.
    """

    patches: Path
    model: Path
    receptive_field: int
    noise_direction: str
    seed: int
    checkpoints: Path | None
    settings: TrainSettings
    tensorboard: Path | None
    description: dict[str, Any]
    start_from: Path | None = None
    pause_minutes: float | None = None
    outlook: Outlook | None = None
    expected_steps: int | None = None
    batch_size: int | None = None
    rate: Path | None = None

    @property
    def limits(self) -> TrainingSettings:
        """The settings of the training, with the batches that memory suffices for."""
        limits = self.settings.training
        return limits if self.batch_size is None else limits.model_copy(update={"batch_size": self.batch_size})

    def fingerprint(self) -> dict[str, Any]:
        """Return all that the trained model depends on, as plain values.

        Returns
        -------
        dict
            Only a training with the same fingerprint is resumed.
        """
        started = {} if self.start_from is None else {"start_from": sha256(self.start_from / "weights.safetensors")}
        expected = {} if self.expected_steps is None else {"expected_steps": self.expected_steps}
        return (
            started
            | expected
            | {
                "settings": self.settings.identity()
                | self.settings.model_dump(mode="json", include={"device", "devices"}),
                "receptive_field": self.receptive_field,
                "noise_direction": self.noise_direction,
                "seed": self.seed,
                "revision": revision.TRAINING,
                "patches": self.description["sha256"],
            }
        )


def train(
    patches: Path,
    model: Path,
    *,
    receptive_field: int,
    noise_direction: str,
    seed: int,
    checkpoints: Path | None,
    settings: TrainSettings,
    tensorboard: Path | None = None,
    start_from: Path | None = None,
    cores: int | None = None,
    pause_minutes: float | None = None,
    outlook: Outlook | None = None,
    expected_steps: int | None = None,
) -> None:
    """Train a model and write its folder: ``weights.safetensors``, ``model.json``, ``history.csv``, ``run.json``.

    Parameters
    ----------
    patches
        Folder that :func:`dvlae.data.patches.extract_patches` made.
    model
        Folder to make.
    receptive_field
        Receptive field of the autoregressive decoder, in pixels.
    noise_direction
        ``"x"``, ``"y"``, ``"z"`` or ``"none"``.
    seed
        Determines the initial weights, the batches and the latent noise.
    checkpoints
        Folder of the unfinished training, to resume from; None: nothing is saved before the end. The folder is kept,
        because a workflow that is killed before it has recorded the model asks for the model again; `dvlae predict`
        removes it.
    settings
        Model, limits and device.
    tensorboard
        Folder for TensorBoard's events; None: none are written.
    start_from
        Folder of a trained model of the same sizes, whose weights are the first ones; None: they are random. The grey
        values are scaled as those of the patches.
    cores
        Cores that the training may use; None: all that this process may use.
    pause_minutes
        Minutes of training after which the model is written as it is, with a checkpoint. The same call with another
        folder for the model, and without this, goes on from there. None: no pause.
    outlook
        What follows the training; None: nothing is said of it.
    expected_steps
        Number of steps that there is time for, as :func:`measure_rate` tells, so that a training of few steps has a
        shorter warm-up; None: not measured.

    Raises
    ------
    UserError
        If a folder cannot be made, the device or TensorBoard is missing, the patches are unreadable, the model to start
        from has other sizes, the weights do not stay finite, or the memory of the GPU does not suffice for a single
        crop.
    """
    check_folder(model, MODEL_FILES)
    if checkpoints is not None:
        check_folder(checkpoints)
    description = _read_description(patches)
    job = TrainingJob(
        patches,
        model,
        receptive_field,
        noise_direction,
        seed,
        checkpoints,
        settings,
        tensorboard,
        description,
        start_from,
        pause_minutes,
        outlook,
        expected_steps,
    )
    with exclusive_lock(model.with_name(f".lock-training-{model.name}")):
        _train_on_devices(job, cores)


def measure_rate(
    patches: Path,
    *,
    receptive_field: int,
    noise_direction: str,
    settings: TrainSettings,
    seconds: float,
    cores: int | None = None,
) -> float:
    """Measure how many steps in a second a training takes on this machine, as busy as it is.

    Parameters
    ----------
    patches, receptive_field, noise_direction, settings
        As for :func:`train`.
    seconds
        How long the measurement takes; at least one step is taken.
    cores
        As for :func:`train`.

    Returns
    -------
    float
        Steps in a second.

    Raises
    ------
    UserError
        As for :func:`train`.
    """
    with TemporaryDirectory(prefix="dvlae-") as folder:
        rate = Path(folder) / "rate.txt"
        job = TrainingJob(
            patches,
            Path(folder),
            receptive_field,
            noise_direction,
            0,
            None,
            settings,
            None,
            _read_description(patches),
            pause_minutes=seconds / 60,
            rate=rate,
        )
        _train_on_devices(job, cores)
        return float(rate.read_text(encoding="utf-8"))


def _train_on_devices(job: TrainingJob, cores: int | None) -> None:
    """Train in as many processes as there are GPUs, or as there are cores for."""
    with reserved_devices(job.settings.device, job.settings.devices) as devices:
        if len(devices) > 1:
            run_processes(partial(_train, job, devices, workers=Workers()), len(devices))
        elif devices[0].type == "cpu":
            run_workers(partial(_train, job, devices, 0), _choose_workers(job.limits, cores))
        else:
            _train_within_memory(job, devices)


def _train_within_memory(job: TrainingJob, devices: list[torch.device]) -> None:
    """Train on one GPU. If its memory does not suffice, go on with batches of half the size."""
    while True:
        try:
            return _train(job, devices, 0, Workers())
        except torch.cuda.OutOfMemoryError:
            batch_size = job.limits.batch_size // 2
        if batch_size == 0:
            raise UserError(
                "train: the memory of the GPU does not suffice for a single crop; set a smaller model.channels or "
                "training.patch_size, or training.activation_checkpointing"
            )
        # The exception, and all tensors that it referred to, are gone here.
        torch.cuda.empty_cache()
        logger.warning(
            f"train: WARNING: the memory of the GPU does not suffice for {job.limits.batch_size} crops in a batch; "
            f"goes on with {batch_size}"
        )
        job = replace(job, batch_size=batch_size)


def _choose_workers(limits: TrainingSettings, cores: int | None) -> int:
    if limits.workers != "auto":
        log_workers("train", limits.workers, "training.workers says so")
        return limits.workers
    return choose_workers("train", limits.batch_size, cores=cores, repeatable=limits.max_steps is not None)


def _train(job: TrainingJob, devices: list[torch.device], rank: int, workers: Workers) -> None:
    """Train in one process: on the device with this rank, as one of these workers. The first one writes the results."""
    use_fast_arithmetic()
    tune_malloc()
    if devices[0].type == "cpu":
        use_one_thread()
    is_first = rank + workers.rank == 0
    limits = job.limits
    train_patches, val_patches = (read_patches(job.patches / f"{name}.tif") for name in ("train", "val"))
    train_counts, val_counts = (
        read_patches(job.patches / f"{name}.tif") if name in job.description["sha256"] else None
        for name in ("train_mask", "val_mask")
    )
    crop = choose_crop(job.settings, train_patches.shape[2:])
    pixels = math.prod(train_patches[:, 0].shape)
    schedule = Schedule(limits, steps_per_epoch(limits, pixels, crop), job.start_from is not None, job.expected_steps)
    torch.manual_seed(job.seed)
    model = build_model(job.settings, job.description, crop, job.receptive_field, job.noise_direction)
    if job.start_from is not None:
        load_weights(model, job.start_from)
    fabric = connect(devices, limits)
    objective = Objective(
        model,
        free_bits=limits.free_bits,
        direct_fraction=limits.direct_fraction,
        compiled=limits.compile,
        workers=workers,
        batch_size=limits.batch_size,
    )
    fabric.to_device(objective)
    shared = SharedWeights(workers, objective, limits.batch_size)
    state = TrainingState(objective, build_optimizer(model, limits), limits, shared.owned)
    checkpoints = None
    if job.checkpoints is not None:
        checkpoints = Checkpoints(job.checkpoints, job.fingerprint(), writes=is_first)
        if (saved := checkpoints.load()) is not None:
            state.load_state_dict(saved)
            logger.info(f"train: resuming from step {state.steps}, after {state.seconds / 60:.1f} minutes")
    usage = Usage()
    if state.stopped_by is None:  # A training that was killed after its last step is only written.
        crops = RandomCrops(
            train_patches,
            crop=crop,
            batch_size=limits.batch_size,
            seed=job.seed,
            noise_direction=job.noise_direction,
            flips=limits.flips,
            counts=train_counts,
        )
        validation = validation_batches(val_patches, val_counts, model.stride, crop, limits)
        with ExitStack() as stack:
            displays: list[Display] = []
            if is_first:
                stack.enter_context(usage)
            if is_first and job.rate is not None:
                displays.append(stack.enter_context(closing(StepRate(job.rate))))
            elif is_first:
                displays.append(stack.enter_context(closing(ProgressLine(schedule, state))))
                if job.outlook is not None:
                    displays.append(OutlookLine(schedule, state, job.outlook, math.prod(crop)))
                if devices[0].type == "cpu":
                    displays.append(SlowSteps(schedule, state, workers.count))
                if job.tensorboard is not None:
                    displays.append(stack.enter_context(closing(TensorBoard(job.tensorboard, state))))
            pause = None if job.pause_minutes is None else 60 * job.pause_minutes
            fit(fabric, shared, state, schedule, crops, validation, checkpoints, displays, pause)
    if is_first and job.rate is None:
        _write(job, state, schedule, devices[0], workers.count, usage)


def _write(
    job: TrainingJob, state: TrainingState, schedule: Schedule, device: torch.device, workers: int, usage: Usage
) -> None:
    """Write the folder of the model, and log how the training ended."""
    record = {
        **software(),
        **job.fingerprint(),
        "settings": job.settings.record() | job.settings.model_dump(mode="json", include={"device", "devices"}),
        "device": device_name(device),
        "precision": choose_precision(schedule.settings, device),
        "batch_size": schedule.settings.batch_size,
        "workers": workers,
        "processors": os.cpu_count(),
        "seconds": round(state.seconds, 1),
        # Of the last attempt.
        "processor_share": usage.share(workers),
        "peak_memory_mb": round(usage.peak_memory_mb),
        "attempts": state.attempts,
        "rescues": state.rollbacks,
        "stopped_by": state.stopped_by,
        "steps": state.steps,
        "epochs": round(state.steps / schedule.steps_per_epoch, 4),
        "best_val_elbo": state.best_elbo,
        "parameters": sum(p.numel() for p in state.model.parameters()),
    }
    with atomic_folder(job.model, MODEL_FILES) as folder:
        save_model(state.average, folder, seen=job.description.get("seen"))
        pd.DataFrame(state.history).to_csv(folder / "history.csv", index=False, lineterminator="\n")
        write_run(folder, record)
    if (kl := state.history[-1]["val_kl"]) < COLLAPSED_KL:
        logger.warning(
            "train: WARNING: the signal code carries no information (posterior collapse), and the denoised images will "
            f"be flat: KL divergence {kl:.1e} nats per pixel value; lower training.learning_rate, or set "
            "training.free_bits"
        )
    end = f"ended by {state.stopped_by}" if state.stopped_by else "then a pause"
    logger.info(f"train: {count(state.steps, 'step')} in {state.seconds / 60:.1f} minutes, {end}")


def _read_description(patches: Path) -> dict[str, Any]:
    try:
        return json.loads((patches / "patches.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{patches}: not a folder of patches ({error}); make it with dvlae extract-patches") from None
