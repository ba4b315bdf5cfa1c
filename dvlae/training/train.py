"""Train one model on the patches of one dataset."""

import json
import logging
import math
import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import tifffile
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from dvlae import revision
from dvlae.config.fields import sides
from dvlae.config.settings import TrainingSettings, TrainSettings
from dvlae.data.manifest import spread_evenly
from dvlae.models.dvlae import DVLAE, Architecture
from dvlae.models.files import save_model
from dvlae.models.layers import memory_format, to_channels_last
from dvlae.runs.record import write_run
from dvlae.system.devices import device_name, has_fast_bfloat16, tune_malloc, use_fast_arithmetic
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, exclusive_lock
from dvlae.system.reservation import reserved_devices
from dvlae.system.software import software
from dvlae.training.callbacks import Checkpoints, Energy, ProgressLine
from dvlae.training.crops import RandomCrops
from dvlae.training.module import DVLAETraining
from dvlae.training.processes import run_processes
from dvlae.training.tensorboard import TensorBoard

# In nats per pixel value: with less information in it, the signal code carries no image.
COLLAPSED_KL = 1e-3

MAX_GRADIENT_NORM = 5.0

MIN_EPOCH_STEPS = 50
# With these, spread evenly, validation stays a small part of the time.
MAX_VALIDATION_PATCHES = 32


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
) -> None:
    """Train a model and write its folder: ``weights.safetensors``, ``model.json``, ``history.csv``, ``run.json``.

    Parameters
    ----------
    patches
        Folder that :func:`dvlae.data.patches.extract_patches` made.
    model
        Folder to make.
    receptive_field
        Of the autoregressive decoder, in pixels.
    noise_direction
        ``"x"``, ``"y"``, ``"z"`` or ``"none"``.
    seed
        Fixes the first weights, the batches and the latent noise.
    checkpoints
        Folder of the unfinished training, to resume from. It stays, as a workflow that is killed now has not recorded
        the model and asks for it again; `dvlae predict` removes it. None: nothing is saved before the end.
    settings
        Model, limits and device.
    tensorboard
        Folder for TensorBoard's events; None: none are written.

    Raises
    ------
    UserError
        Where the device or TensorBoard is missing, the patches are unreadable, or the loss is not a number any more.
    """
    description = _read_description(patches)
    lock = model.with_name(f".lock-training-{model.name}")
    with exclusive_lock(lock), reserved_devices(settings.device, settings.devices) as devices:
        work = partial(
            _train,
            devices=devices,
            patches=patches,
            description=description,
            model=model,
            receptive_field=receptive_field,
            noise_direction=noise_direction,
            seed=seed,
            checkpoints=checkpoints,
            settings=settings,
            tensorboard=tensorboard,
        )
        if len(devices) == 1:
            work(0)
        else:
            run_processes(work, len(devices))


def _train(
    rank: int,
    *,
    devices: list[torch.device],
    patches: Path,
    description: dict,
    model: Path,
    receptive_field: int,
    noise_direction: str,
    seed: int,
    checkpoints: Path | None,
    settings: TrainSettings,
    tensorboard: Path | None,
) -> None:
    """Do the work of :func:`train` on one of these devices; rank 0 writes the results."""
    use_fast_arithmetic()
    tune_malloc()
    limits = settings.training
    train_patches, val_patches = (_read_patches(patches / f"{name}.tif") for name in ("train", "val"))
    crop = sides(limits.patch_size, train_patches.ndim - 2)
    pixels = math.prod(train_patches[:, 0].shape)
    steps_per_epoch = max(MIN_EPOCH_STEPS, math.ceil(pixels / (limits.batch_size * math.prod(crop))))
    torch.manual_seed(seed)
    training = DVLAETraining(
        build_model(settings, description, crop, receptive_field, noise_direction), limits, seed, steps_per_epoch
    )
    fingerprint = {
        "settings": settings.model_dump(mode="json"),
        "receptive_field": receptive_field,
        "noise_direction": noise_direction,
        "seed": seed,
        "revision": revision.TRAINING,
        "patches": description["sha256"],
    }
    callbacks: list[lightning.Callback] = [Energy(), ProgressLine()]
    if tensorboard is not None and rank == 0:
        callbacks.append(TensorBoard(tensorboard))
    if checkpoints is not None:
        callbacks.append(saver := Checkpoints(checkpoints, fingerprint))
        if (state := saver.load()) is not None:
            training.resume(state)
            print(f"train: going on from step {training.steps}, after {training.seconds / 60:.1f} minutes")
    crops = RandomCrops(
        train_patches,
        crop=crop,
        batch_size=limits.batch_size,
        seed=seed,
        noise_direction=noise_direction,
        steps_per_epoch=steps_per_epoch,
        step=training.steps,
        rank=rank,
        processes=len(devices),
    )
    if training.stopped_by is None:  # else it was killed between its last step and here
        validation = _validation_batches(val_patches, training.model, limits)
        _trainer(devices, settings, callbacks).fit(training, DataLoader(crops, batch_size=None), validation)
    if rank > 0:
        return
    with atomic_folder(model) as folder:
        save_model(training.average, folder)
        pd.DataFrame(training.history).to_csv(folder / "history.csv", index=False)
        write_run(folder, _describe_run(training, fingerprint, devices[0]))
    if training.history[-1]["val_kl"] < COLLAPSED_KL:
        print(
            "train: WARNING: the signal code carries no information (posterior collapse), and the denoised images will "
            f"be flat: KL divergence {training.history[-1]['val_kl']:.1e} nats per pixel value; lower "
            "training.learning_rate, or set training.free_bits"
        )
    print(f"train: {training.steps} steps in {training.seconds / 60:.1f} minutes, ended by {training.stopped_by}")


def build_model(
    settings: TrainSettings, description: dict, crop: Sequence[int], receptive_field: int, noise_direction: str
) -> DVLAE:
    """Build an untrained model for patches with this ``patches.json`` and crops with these sides, in pixels."""
    sizes = settings.model
    architecture = Architecture(
        image_channels=len(description["mean"]),
        channels=sizes.channels,
        latent_channels=sizes.latent_channels,
        levels=sizes.levels,
        levels_per_scale=sizes.levels_per_scale,
        blocks=sizes.blocks,
        components=sizes.components,
        receptive_field=receptive_field,
        noise_direction=noise_direction,
        dimensions=len(crop),
        direct_denoiser=sizes.direct_denoiser or None,
        autoregression=sizes.autoregression,
    )
    model = DVLAE(architecture, description["mean"], description["std"], description["step"])
    model.ladder_vae.recompute = settings.training.activation_checkpointing
    if any(side % model.stride for side in crop):
        raise UserError(
            f"training.patch_size: found {settings.training.patch_size}, but a model with {sizes.levels} levels"
            f"{' and a direct denoiser' if sizes.direct_denoiser else ''} needs a multiple of {model.stride}"
        )
    return to_channels_last(model, len(crop))


def _read_description(patches: Path) -> dict:
    try:
        return json.loads((patches / "patches.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{patches}: not a folder of patches ({error}); make it with dvlae extract-patches") from None


def _read_patches(path: Path) -> np.ndarray:
    """Map patches (N, C, ...) into memory."""
    try:
        return tifffile.memmap(path, mode="r")
    except Exception as error:  # of all kinds: a damaged file leads its reader anywhere
        raise UserError(f"{path}: damaged ({error}); remove the folder, and make it again") from None


def _validation_batches(patches: np.ndarray, model: DVLAE, limits: TrainingSettings) -> DataLoader:
    """Cut a few patches, spread evenly over the held-out ones, to a size that the model takes as it is."""
    chosen = spread_evenly(len(patches), MAX_VALIDATION_PATCHES)
    lengths = [side // model.stride * model.stride for side in patches.shape[2:]]
    cut = np.array(patches[chosen][:, :, *map(slice, lengths)])
    tensor = torch.from_numpy(cut).to(memory_format=memory_format(len(lengths)))
    pixels = limits.batch_size * math.prod(sides(limits.patch_size, len(lengths)))
    return DataLoader(tensor, batch_size=max(1, pixels // math.prod(lengths)))


def _trainer(devices: list[torch.device], settings: TrainSettings, callbacks: list) -> lightning.Trainer:
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # None concerns a user: batches are cut in this very process, it is no job step of Slurm's, the layout of
    # gradients costs little, and the others are between Lightning and PyTorch.
    for text in (
        "does not have many workers",
        "`srun` command is available",
        "Grad strides",
        "LeafSpec",
        "`broadcast_buffers`",
    ):
        warnings.filterwarnings("ignore", f".*{text}")
    device = devices[0]
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[each.index for each in devices] if device.type == "cuda" else len(devices),
        # Batch statistics are averaged here, once a step, not taken over from the first process.
        strategy=DDPStrategy(broadcast_buffers=False) if len(devices) > 1 else "auto",
        use_distributed_sampler=False,  # each process cuts its own batches, and all validate alike
        precision={"bf16": "bf16-mixed", "32": "32-true"}[_precision(settings.training, device)],
        max_epochs=-1,  # the module's own limits end the training
        accumulate_grad_batches=settings.training.accumulate // len(devices),
        gradient_clip_val=MAX_GRADIENT_NORM,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[LightningEnvironment()],  # Slurm's own requeueing would fight the workflow's
    )


def _precision(settings: TrainingSettings, device: torch.device) -> str:
    """Return the setting, or what ``auto`` means on this device."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if has_fast_bfloat16(device) else "32"


def _describe_run(training: DVLAETraining, fingerprint: dict, device: torch.device) -> dict:
    return {
        **software(),
        **fingerprint,
        "device": device_name(device),
        "precision": _precision(training.settings, device),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "seconds": round(training.seconds, 1),
        "joules": {name: round(joules) for name, joules in sorted(training.joules.items())},
        "attempts": training.attempts,
        "rescues": training.rollbacks,
        "stopped_by": training.stopped_by,
        "steps": training.steps,
        "epochs": round(training.steps / training.steps_per_epoch, 4),
        "best_val_elbo": training.best_elbo,
        "parameters": sum(p.numel() for p in training.model.parameters()),
    }
