"""Train one model on the patches of one dataset."""

import copy
import io
import json
import logging
import math
import os
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import tifffile
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from dvlae import revision
from dvlae.config import TrainingSettings, TrainSettings, sides
from dvlae.data.images import mirrored_axes, spread_evenly
from dvlae.devices import device_name, has_fast_bfloat16, keep_freed_memory, use_fast_arithmetic
from dvlae.energy import EnergyMeter
from dvlae.errors import UserError
from dvlae.files import alone, atomic_file, atomic_folder
from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE, Architecture, Terms
from dvlae.models.files import save_model
from dvlae.models.layers import lay_out, memory_format
from dvlae.optimizers import OPTIMIZERS
from dvlae.processes import Clock, average, side_by_side
from dvlae.progress import progress, say
from dvlae.provenance import software
from dvlae.reservation import reserved_devices
from dvlae.runs import write_run
from dvlae.tensorboard import TensorBoard

WARM_UP_STEPS = 100  # of the learning rate
KL_WARM_UP_STEPS = 500  # at full weight from the start, the code can stay empty: the other decoder needs it least then
LONGEST_WARM_UP = 0.1  # of a training that is limited by steps
EMPTY_CODE = 1e-3  # nats per pixel value: with less information in it, the signal code shows no image
AVERAGE_DECAY = 0.999
LARGEST_GRADIENT_NORM = 5.0
TAUGHT = 0.25  # of a batch, to the direct denoiser: more would make a step more than 1.4 times as long
SHORTEST_EPOCH = 50  # steps
VALIDATION_PATCHES = 32  # at most, spread evenly: validation stays a small part of the time
SECONDS_BETWEEN_CHECKPOINTS = 120
SECONDS_BETWEEN_READINGS = 10  # of the energy
STEPS_BETWEEN_CHECKS = 50  # that all weights are numbers still: each check waits for the device
MOST_RESCUES = 20  # returns to an earlier state, at half the learning rate each


class RandomCrops(IterableDataset):
    """Batches of random crops, each a function of (seed, step) alone. Each iteration is the rest of an epoch.

    Parameters
    ----------
    patches
        (N, C, ...), in memory or memory-mapped; ... are one to three spatial axes.
    crop
        Sides of a crop along them, in pixels.
    batch_size
        Crops in a batch.
    seed
        Of this training.
    noise_direction
        Flips keep it, and the order of pixels along it, as they are: with noise along ``x``, an image is flipped along
        ``y`` only.
    steps_per_epoch
        Batches in an epoch.
    step
        Where to start, for a training that is resumed.
    rank, processes
        Of so many processes that share the batches, the one with this rank yields every so-manieth.
    """

    def __init__(
        self,
        patches: np.ndarray,
        *,
        crop: Sequence[int],
        batch_size: int,
        seed: int,
        noise_direction: str,
        steps_per_epoch: int,
        step: int = 0,
        rank: int = 0,
        processes: int = 1,
    ):
        self.patches, self.crop, self.batch_size = patches, crop, batch_size
        self.rank, self.processes = rank, processes
        self.seed, self.steps_per_epoch, self.step = seed, steps_per_epoch, step
        self.flipped_axes = sorted(mirrored_axes(len(crop), noise_direction))

    def batch(self, step: int) -> Tensor:
        """Return the batch of this step, (batch_size, C, *crop), in the patches' own units."""
        random = np.random.default_rng([self.seed, step])
        count, _, *sides = self.patches.shape
        crops = []
        for _ in range(self.batch_size):
            corner = [random.integers(side - length + 1) for side, length in zip(sides, self.crop, strict=True)]
            window = tuple(slice(at, at + length) for at, length in zip(corner, self.crop, strict=True))
            crop = self.patches[random.integers(count), :, *window]
            axes = [axis for axis in self.flipped_axes if random.random() < 0.5]
            crops.append(np.flip(crop, axes))
        return torch.from_numpy(np.stack(crops)).to(memory_format=memory_format(len(self.crop)))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield this process's batches up to the end of this epoch."""
        end = (self.step // self.steps_per_epoch + 1) * self.steps_per_epoch
        for step in range(self.step, end, self.processes):
            self.step = step + self.processes
            yield self.batch(step + self.rank)


def floating(module: nn.Module) -> list[Tensor]:
    """Return a module's weights and batch statistics, to be changed in place."""
    return [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]


class DVLAETraining(lightning.LightningModule):
    """The training of one :class:`~dvlae.models.dvlae.DVLAE`: optimiser, schedule, moving average, limits, history.

    Parameters
    ----------
    model
        The networks, trained in place.
    settings
        Limits, learning rate and sizes.
    seed
        With the step, it alone fixes the latent noise of that step.
    steps_per_epoch
        Batches in one pass over the training pixels.
    """

    def __init__(self, model: DVLAE, settings: TrainingSettings, seed: int, steps_per_epoch: int):
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.settings, self.seed, self.steps_per_epoch = settings, seed, steps_per_epoch
        self.steps, self.seconds, self.attempts = 0, 0.0, 1
        self.history: list[dict] = []
        self.best_elbo, self.best_epoch = -math.inf, 0
        self.stopped_by: str | None = None
        self.optimizer_state: dict | None = None
        self.rescues = 0
        self.joules: dict[str, float] = {}
        self._good: dict | None = None
        self._compiled: Callable | None = None
        self._sums: dict[str, Tensor] = {}
        self._validation: list[dict[str, Tensor]] = []

    @property
    def most_steps(self) -> int:
        """Steps at which ``max_steps`` or ``max_epochs`` ends the training."""
        steps = self.settings.max_epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps or steps)

    def spent(self, step: int) -> float:
        """Return the part of the budget that is spent at this step, 0 to 1: what the learning rate follows.

        Time counts only where no number of steps is set, so that what is limited by steps can be repeated exactly.
        """
        spent = step / self.most_steps
        if self.settings.max_steps is None and self.settings.max_minutes is not None:
            spent = max(spent, self.seconds / (60 * self.settings.max_minutes))
        return min(1.0, spent)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser; a resumed training gets its state back."""
        optimizer = OPTIMIZERS[self.settings.optimizer](self.model.parameters(), lr=self.settings.learning_rate)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        return optimizer

    def training_step(self, batch: Tensor) -> Tensor:
        """Compute the loss of one batch (N, C, ...)."""
        # Several processes compute as many steps at once, each its own; the last sets the learning rate for all.
        step, last = self.steps + self.global_rank, self.steps + self.trainer.world_size - 1
        # Seeded by the step: a resumed training draws what the uninterrupted one would have drawn.
        torch.manual_seed(int(np.random.SeedSequence([self.seed, step, 1]).generate_state(1)[0]))
        if self._good is None or self.steps % STEPS_BETWEEN_CHECKS < self.trainer.world_size:
            self.secure()
        rate = self.settings.learning_rate * 0.5**self.rescues * 0.5 * (1 + math.cos(math.pi * self.spent(last)))
        for group in self.optimizers().param_groups:
            group["lr"] = rate * self._warm_up(WARM_UP_STEPS, last)
        terms = self._forward(batch)
        terms.direct = self._teach(self.model.direct_denoiser, batch)
        self._terms = _values(terms, self.settings.free_bits)
        return terms.annealed_loss(self._warm_up(KL_WARM_UP_STEPS, step), self.settings.free_bits)

    def _forward(self, batch: Tensor) -> Terms:
        if self._compiled is not None:
            try:
                return self._compiled(batch)
            except Exception as error:  # whatever a missing compiler or an unknown processor raises
                say(f"train: torch.compile failed, going on without ({str(error).strip().splitlines()[0]})")
                self._compiled = None
        return self.model(batch)

    def _teach(self, network: DirectDenoiser | None, batch: Tensor) -> Tensor | None:
        """Return the loss of a direct denoiser on part of a batch; the averaged model teaches, which will be saved."""
        if network is None:
            return None
        return self.average.eval().teach(network, batch[: math.ceil(TAUGHT * len(batch))])

    def _warm_up(self, steps: int, step: int) -> float:
        """Rise from 0 to 1 over so many steps, or over the first part of a short training."""
        return min(1.0, (step + 1) / min(steps, math.ceil(LONGEST_WARM_UP * self.most_steps)))

    def configure_gradient_clipping(self, optimizer, gradient_clip_val: float, gradient_clip_algorithm=None) -> None:
        """Clip the direct denoiser's gradients apart, so that the rest learns the same with it as without."""
        direct = list(self.model.direct_denoiser.parameters()) if self.model.direct_denoiser is not None else []
        ours = {id(parameter) for parameter in direct}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in ours]
        for part in (rest, direct):
            nn.utils.clip_grad_norm_(part, gradient_clip_val)

    def on_train_batch_end(self, outputs, batch: Tensor, batch_idx: int) -> None:
        """Count the steps, one a process, follow with the moving average, stop at a limit."""
        # Nothing here, nor in a step, waits for the device.
        processes = self.trainer.world_size
        if processes > 1:  # the weights are equal in all, and from here on so is the rest of the state
            average([*filter(torch.is_floating_point, self.model.buffers()), *self._terms.values()])
        for name, value in self._terms.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._sums["steps"] = self._sums.get("steps", 0) + 1
        for step in range(self.steps, self.steps + processes):  # the averaged weights follow, early on quickly
            torch._foreach_lerp_(self._averaged, self._current, max(1 - AVERAGE_DECAY, 9 / (9 + step)))
        self.steps += processes
        now = time.monotonic()
        self.seconds += now - self._now
        if processes > 1:
            self.seconds = self._clock.agree(self.seconds)
        self._now = now
        s = self.settings
        if s.max_minutes is not None and self.seconds >= 60 * s.max_minutes:
            self.stopped_by = "max_minutes"
        elif self.steps >= self.most_steps:
            self.stopped_by = "max_steps" if self.most_steps == s.max_steps else "max_epochs"
        elif s.patience is not None and len(self.history) - self.best_epoch > s.patience:
            self.stopped_by = "patience"
        self.trainer.should_stop = self.stopped_by is not None

    def on_fit_start(self) -> None:
        """Translate the model where that is asked for; start the clock of the time budget."""
        if self.settings.compile:
            self._compiled = torch.compile(self.model.forward)
        self._averaged, self._current = floating(self.average), floating(self.model)  # where they are now
        self._clock = Clock() if self.trainer.world_size > 1 else None
        self._now = time.monotonic()

    def validation_step(self, batch: Tensor) -> None:
        """Evaluate the averaged weights on one batch (N, C, ...)."""
        # The same latent noise at every validation: epochs can then be compared.
        with torch.random.fork_rng(devices=[batch.device] if batch.is_cuda else []):
            torch.manual_seed(len(self._validation))
            terms = self.average.eval()(batch)
            terms.direct = self._teach(self.average.direct_denoiser, batch)
            self._validation.append(_values(terms, self.settings.free_bits))

    def on_validation_epoch_start(self) -> None:
        """Validate nothing but good weights."""
        self.secure()

    def on_validation_epoch_end(self) -> None:
        """Add one row to the history."""
        steps = self._sums.pop("steps", 1)
        row = {
            "step": self.steps,
            "epoch": round(self.steps / self.steps_per_epoch, 4),
            "minutes": round(self.seconds / 60, 4),
            "learning_rate": self.optimizers().param_groups[0]["lr"],
        }
        row |= {f"train_{name}": float(total) / steps for name, total in self._sums.items()}
        names = self._validation[0]
        row |= {f"val_{name}": float(np.mean([float(v[name]) for v in self._validation])) for name in names}
        self.history.append(row)
        self._sums, self._validation = {}, []
        if row["val_elbo"] > self.best_elbo:
            self.best_elbo, self.best_epoch = row["val_elbo"], len(self.history)

    def secure(self) -> None:
        """Remember this state as good; or, where a weight is no number any more, return to the last good one.

        The learning rate is halved at each return. Very deep ladders do need it now and then.

        Raises
        ------
        UserError
            Where that did not help many times.
        """
        finite = [tensor.isfinite().all() for tensor in self.average.state_dict().values()]
        if torch.stack(finite).all():
            self._good = copy.deepcopy(self._learned())
            return
        self.rescues += 1
        rate = self.settings.learning_rate * 0.5**self.rescues
        if self.rescues > MOST_RESCUES or self._good is None:
            raise UserError(
                f"training: the weights became infinite or NaN {self.rescues} times, the last time before step "
                f"{self.steps}; lower training.learning_rate (now {self.settings.learning_rate})"
            )
        say(
            f"train: before step {self.steps} the weights became infinite or NaN; going on from those of at most "
            f"{STEPS_BETWEEN_CHECKS} steps ago with half the learning rate, at most {rate:.2g}"
        )
        good = copy.deepcopy(self._good)
        self.model.load_state_dict(good["model"])
        self.average.load_state_dict(good["average"])
        self.optimizers().optimizer.load_state_dict(good["optimizer"])
        self._sums = good["sums"]

    def _learned(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizers().optimizer.state_dict(),
            "sums": self._sums,
        }

    def state(self) -> dict:
        """Return all that a resumed training needs."""
        self.secure()
        return self._learned() | {name: getattr(self, name) for name in (*_COUNTERS, "joules")}

    def resume(self, state: dict) -> None:
        """Go on from a :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer_state, self._sums = state["optimizer"], state["sums"]
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.joules = state.get("joules", {})  # older ones did not count them
        self.attempts += 1


_COUNTERS = ("steps", "seconds", "attempts", "history", "best_elbo", "best_epoch", "stopped_by", "rescues")


def _values(terms: Terms, free_bits: float) -> dict[str, Tensor]:
    """Return what the history records; free bits are in the loss, which is minimised, and nowhere else."""
    values = {"loss": terms.annealed_loss(1.0, free_bits)}
    values |= {name: getattr(terms, name) for name in ("elbo", "kl", "log_likelihood", "mse")}
    if terms.direct is not None:
        values["direct"] = terms.direct
    values |= {f"kl_level{level}": kl for level, kl in enumerate(terms.kl_of_levels)}
    return {name: value.detach() for name, value in values.items()}


class Checkpoints(lightning.Callback):
    """Save the unfinished training every two minutes, at least once an epoch, in a folder of its own.

    Parameters
    ----------
    folder
        Where ``state.pt`` and ``settings.json`` stand.
    fingerprint
        All that must be equal for an older state to be resumed.
    """

    def __init__(self, folder: Path, fingerprint: dict):
        self.folder, self.fingerprint = folder, fingerprint
        self.saved_at = 0.0  # seconds of training, which all processes count alike

    def load(self) -> dict | None:
        """Return the state to go on from; None, after saying why, where there is none that fits."""
        settings_file, state_file = self.folder / "settings.json", self.folder / "state.pt"
        if not (settings_file.exists() and state_file.exists()):
            return None
        try:
            older = json.loads(settings_file.read_text())
            if older == self.fingerprint:
                with zipfile.ZipFile(state_file) as archive:  # torch.load does not look at the checksums
                    if (part := archive.testzip()) is not None:
                        raise ValueError(f"the checksum of {part} is wrong")
                return torch.load(state_file, map_location="cpu", weights_only=True)
            changes = "; ".join(_changes(older, self.fingerprint))
            print(f"train: {self.folder} is not resumed, as settings changed since: {changes}; starting anew")
        except Exception as error:  # whatever a damaged file raises: say so, and train from the start
            print(f"train: {self.folder} is damaged and not resumed ({error}); starting anew")
        shutil.rmtree(self.folder, ignore_errors=True)  # else an old half could be taken for one of a new whole
        return None

    def save(self, training: DVLAETraining) -> None:
        """Write the state, whole or not at all; of several processes, the first does."""
        content = training.state()
        self.saved_at = training.seconds
        if training.global_rank > 0:
            return
        state = io.BytesIO()
        torch.save(content, state)
        with atomic_file(self.folder / "state.pt") as path:
            path.write_bytes(state.getbuffer())  # its errors say what is wrong, a full disk; those of torch.save do not
        with atomic_file(self.folder / "settings.json") as path:
            path.write_text(json.dumps(self.fingerprint, indent=2))

    def on_train_start(self, trainer, pl_module: DVLAETraining) -> None:
        """Count from here."""
        self.saved_at = pl_module.seconds

    def on_train_batch_start(self, trainer, pl_module: DVLAETraining, batch: Tensor, batch_idx: int) -> None:
        """Save where the last time is long past, but never between batches whose gradients are added."""
        due = pl_module.seconds - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS
        if due and batch_idx % trainer.accumulate_grad_batches == 0:
            self.save(pl_module)

    def on_validation_end(self, trainer, pl_module: DVLAETraining) -> None:
        """Save at the end of an epoch, but not several times a minute."""
        if pl_module.seconds - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS / 4:
            self.save(pl_module)

    def on_train_end(self, trainer, pl_module: DVLAETraining) -> None:
        """Save the finished training."""
        self.save(pl_module)


def _changes(older: dict, newer: dict, of: str = "") -> Iterator[str]:
    """Say which values differ, as ``training.learning_rate from 0.01 to 0.001``."""
    for key in [*newer, *(key for key in older if key not in newer)]:
        old, new = older.get(key), newer.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{of}{key}.")
        elif old != new:
            yield f"{of}{key} from {old} to {new}"


class Energy(lightning.Callback):
    """Count the energy that a training takes, over all its attempts, where each could read it."""

    def on_fit_start(self, trainer, pl_module: DVLAETraining) -> None:
        """Begin to count."""
        self.meter = EnergyMeter([torch.device(pl_module.device.type, i) for i in trainer.device_ids])
        if pl_module.steps == 0:
            pl_module.joules = dict.fromkeys(self.meter.names, 0.0)
        self.read_at = time.monotonic()

    def on_train_batch_end(self, trainer, pl_module: DVLAETraining, *_) -> None:
        """Read the counters before they can begin anew, but not at every step."""
        if time.monotonic() - self.read_at > SECONDS_BETWEEN_READINGS:
            self._add(pl_module)

    def on_fit_end(self, trainer, pl_module: DVLAETraining) -> None:
        """Read them for the last time."""
        self._add(pl_module)

    def _add(self, training: DVLAETraining) -> None:
        spent = self.meter.advance()
        training.joules = {name: training.joules[name] + spent[name] for name in spent.keys() & training.joules.keys()}
        self.read_at = time.monotonic()


class ProgressLine(lightning.Callback):
    """Show how much of the budget is spent, in steps or in seconds, and the last losses."""

    def on_train_start(self, trainer, pl_module: DVLAETraining) -> None:
        """Open the line."""
        limits = pl_module.settings
        self.by_time = limits.max_steps is None and limits.max_minutes is not None
        total = round(60 * limits.max_minutes) if self.by_time else pl_module.most_steps
        unit = "s" if self.by_time else "step"
        self.bar = progress(total=total, description="train", unit=unit, initial=self._now(pl_module))

    def _now(self, training: DVLAETraining) -> int:
        return int(training.seconds) if self.by_time else training.steps

    def on_train_batch_start(self, trainer, pl_module: DVLAETraining, *_) -> None:
        """Move the line on."""
        self.bar.update(min(self._now(pl_module), self.bar.total) - self.bar.n)

    def on_validation_end(self, trainer, pl_module: DVLAETraining) -> None:
        """Show the last row of the history."""
        row = pl_module.history[-1]
        self.bar.set_postfix_str(
            f"step {row['step']}, ELBO {row['val_elbo']:.3f}, signal error {row['val_mse']:.3f}", refresh=False
        )

    def on_train_end(self, trainer, pl_module: DVLAETraining) -> None:
        """Close the line."""
        self.bar.update(min(self._now(pl_module), self.bar.total) - self.bar.n)
        self.bar.close()

    def on_exception(self, trainer, pl_module: DVLAETraining, exception: BaseException) -> None:
        """Close the line of a training that was cut short: what is printed next is not part of it."""
        if hasattr(self, "bar"):
            self.bar.close()


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
    with alone(lock), reserved_devices(settings.device, settings.devices) as devices:
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
            side_by_side(work, len(devices))


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
    keep_freed_memory()
    limits = settings.training
    train_patches, val_patches = (_read_patches(patches / f"{name}.tif") for name in ("train", "val"))
    crop = sides(limits.patch_size, train_patches.ndim - 2)
    pixels = math.prod(train_patches[:, 0].shape)
    steps_per_epoch = max(SHORTEST_EPOCH, math.ceil(pixels / (limits.batch_size * math.prod(crop))))
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
    if training.history[-1]["val_kl"] < EMPTY_CODE:
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
    return lay_out(model, len(crop))


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
    chosen = spread_evenly(len(patches), VALIDATION_PATCHES)
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
        gradient_clip_val=LARGEST_GRADIENT_NORM,
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
        "rescues": training.rescues,
        "stopped_by": training.stopped_by,
        "steps": training.steps,
        "epochs": round(training.steps / training.steps_per_epoch, 4),
        "best_val_elbo": training.best_elbo,
        "parameters": sum(p.numel() for p in training.model.parameters()),
    }
