"""Train one model on the patches of one dataset."""

import json
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from dvlae.config.settings import TrainSettings
from dvlae.config.training import TrainingSettings
from dvlae.models.dvlae import DVLAE, build_model
from dvlae.models.files import HISTORIES, load_weights, save_model
from dvlae.runs.record import RECORD_NAME, write_run
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, check_folder, contents_beside, exclusive_lock
from dvlae.system.hardware.devices import device_name, tune_malloc, use_fast_arithmetic, use_one_thread
from dvlae.system.hardware.machine import choose_workers, log_workers
from dvlae.system.hardware.reservation import reserved_devices
from dvlae.system.hardware.usage import Usage
from dvlae.system.software import software
from dvlae.system.wording import count
from dvlae.training.displays import Outlook
from dvlae.training.job import TrainingData, TrainingJob, TrainingProcess
from dvlae.training.objectives.elbo import Objective
from dvlae.training.objectives.refinement import Refinement, refinement_settings
from dvlae.training.processes import choose_precision, connect, run_processes
from dvlae.training.schedule import Schedule
from dvlae.training.state import TrainingState
from dvlae.training.workers import Workers, run_workers

MODEL_FILES = contents_beside("model.json", "weights.safetensors", *HISTORIES, RECORD_NAME)

# In nats per pixel value. With a smaller KL divergence, the signal code carries no image.
COLLAPSED_KL = 1e-3
# By how much the variance of the model's noise may exceed that of the images, as a part of it: it was up to 0.03 in
# good trainings, and 1.3 where sampled noise did not end where the recording does.
MAX_EXCESS = 0.2

logger = logging.getLogger(__name__)


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
    limits = job.limits
    data = TrainingData.read(job.patches, job.description["sha256"], job.settings)
    is_refined = job.settings.model.refines
    settings = job.settings.before_refinement()
    torch.manual_seed(job.seed)
    model = build_model(settings, job.description, data.crop, job.receptive_field, job.noise_direction)
    if job.start_from is not None:
        load_weights(model, job.start_from)
    is_first = rank + workers.rank == 0
    rest = limits.refine_fraction if is_refined else 0.0
    bound = limits.part(1 - rest)
    objective = Objective(
        model,
        free_bits=bound.free_bits,
        direct_fraction=bound.direct_fraction,
        compiled=bound.compile,
        workers=workers,
        batch_size=bound.batch_size,
    )
    usage = Usage()
    with ExitStack() as measured:
        # The first of the trainings that has steps to take begins the measurement.
        measure = cache(partial(measured.enter_context, usage)) if is_first else lambda: usage
        process = TrainingProcess(job, data, devices[0], connect(devices, limits), workers, is_first, measure)
        state, schedule = process.fit("train", objective, bound, 1 - rest, started=job.start_from is not None)
        trained, states = objective.average, [state]
        if is_refined and state.stopped_by is not None:
            limits = refinement_settings(limits.part(rest), workers.count)
            refinement = Refinement(trained, workers, limits.batch_size)
            refined, _ = process.fit("refine", refinement, limits, rest, started=True, earlier=state.seconds)
            states.append(refined)
            if _fits(state, refined):
                trained = trained.with_direct_denoiser(refinement.average)
    if is_first and job.rate is None:
        _write(job, trained, states, schedule, devices[0], workers.count, usage)


def _fits(state: TrainingState, refined: TrainingState) -> bool:
    """Return whether the noise that a model has learned can be that of its images.

    Their squared error cannot be negative. Its estimate is, by the difference between the variances, if the noise of
    the model is too strong.
    """
    return bool(refined.history[-1]["val_error"] > -MAX_EXCESS * state.history[-1]["val_mse"])


def _write(
    job: TrainingJob,
    model: DVLAE,
    states: Sequence[TrainingState],
    schedule: Schedule,
    device: torch.device,
    workers: int,
    usage: Usage,
) -> None:
    """Write the folder of the model, and log how its training, and that of a refined denoiser, ended."""
    state, *refined = states
    record = {
        **software(),
        **job.fingerprint(),
        "settings": job.settings.record() | job.settings.model_dump(mode="json", include={"device", "devices"}),
        "device": device_name(device),
        "precision": choose_precision(schedule.settings, device),
        "batch_size": schedule.settings.batch_size,
        "workers": workers,
        "processors": os.cpu_count(),
        "seconds": round(sum(each.seconds for each in states), 1),
        # Of the last attempt.
        "processor_share": usage.share(workers),
        "peak_memory_mb": round(usage.peak_memory_mb),
        "attempts": state.attempts,
        "rescues": state.rollbacks,
        "stopped_by": state.stopped_by,
        "steps": state.steps,
        "epochs": round(state.steps / schedule.steps_per_epoch, 4),
        "best_val_elbo": state.best_elbo,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    for each in refined:
        end = {"steps": each.steps, "seconds": round(each.seconds, 1), "stopped_by": each.stopped_by}
        record |= {f"refinement_{name}": value for name, value in end.items()}
    with atomic_folder(job.model, MODEL_FILES) as folder:
        save_model(model, folder, seen=job.description.get("seen"))
        for each, name in zip(states, HISTORIES, strict=False):
            pd.DataFrame(each.history).to_csv(folder / name, index=False, lineterminator="\n")
        write_run(folder, record)
    if refined and model.direct_denoiser is None:
        logger.warning(
            "refine: WARNING: the refined denoiser is left out, and samples denoise: the noise that the model has "
            "learned is stronger than that of the images, so that it would remove more than noise"
        )
    if (kl := state.history[-1]["val_kl"]) < COLLAPSED_KL:
        logger.warning(
            "train: WARNING: the signal code carries no information (posterior collapse), and the denoised images will "
            f"be flat: KL divergence {kl:.1e} nats per pixel value; lower training.learning_rate, or set "
            "training.free_bits"
        )
    for each, name in zip(states, ("train", "refine"), strict=False):
        reason = f"ended by {each.stopped_by}" if each.stopped_by else "then a pause"
        logger.info(f"{name}: {count(each.steps, 'step')} in {each.seconds / 60:.1f} minutes, {reason}")


def _read_description(patches: Path) -> dict[str, Any]:
    try:
        return json.loads((patches / "patches.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{patches}: not a folder of patches ({error}); make it with dvlae extract-patches") from None
