"""What is trained, what it learns from, and how one process trains it."""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from dvlae import revision
from dvlae.config.settings import TrainSettings
from dvlae.config.training import TrainingSettings
from dvlae.system.hashes import sha256
from dvlae.training.checkpoints import Checkpoints
from dvlae.training.crops import RandomCrops, ValidationBatch, choose_crop, read_patches, validation_batches
from dvlae.training.displays import Display, Outlook, OutlookLine, ProgressLine, SlowSteps, StepRate, TensorBoard
from dvlae.training.loop import fit
from dvlae.training.objectives.elbo import Objective
from dvlae.training.objectives.refinement import Refinement
from dvlae.training.optimizers import build_optimizer
from dvlae.training.schedule import Schedule, steps_per_epoch
from dvlae.training.shared_weights import SharedWeights
from dvlae.training.state import TrainingState
from dvlae.training.workers import Workers

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


@dataclass(frozen=True)
class TrainingData:
    """The patches of a dataset, and how they are cut.

    Attributes
    ----------
    train, held_out
        Patches, (N, C, ...).
    train_counts, held_out_counts
        0 where a value of the patches does not count, else 1; None: all of them count.
    crop
        Sides of a crop, in pixels.
    """

    train: np.ndarray
    held_out: np.ndarray
    train_counts: np.ndarray | None
    held_out_counts: np.ndarray | None
    crop: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path, names: Collection[str], settings: TrainSettings) -> "TrainingData":
        """Read the patches that :func:`dvlae.data.patches.extract_patches` made.

        Parameters
        ----------
        folder
            The folder.
        names
            What there is, by the names in ``patches.json``.
        settings
            The length of a crop.

        Returns
        -------
        TrainingData
            Memory-mapped.

        Raises
        ------
        UserError
            If a file cannot be read, or the crops do not fit the patches.
        """
        train, held_out = (read_patches(folder / f"{name}.tif") for name in ("train", "val"))
        train_counts, held_out_counts = (
            read_patches(folder / f"{name}.tif") if name in names else None for name in ("train_mask", "val_mask")
        )
        return cls(train, held_out, train_counts, held_out_counts, choose_crop(settings, train.shape[2:]))

    def steps_per_epoch(self, limits: TrainingSettings) -> int:
        """Return how many batches an epoch has.

        Parameters
        ----------
        limits
            The size of a batch.

        Returns
        -------
        int
            As :func:`dvlae.training.schedule.steps_per_epoch`.
        """
        return steps_per_epoch(limits, math.prod(self.train[:, 0].shape), self.crop)

    def crops(self, limits: TrainingSettings, *, seed: int, noise_direction: str) -> RandomCrops:
        """Return the batches to learn from.

        Parameters
        ----------
        limits
            The size of a batch, and whether crops are flipped.
        seed
            Determines the crops.
        noise_direction
            The axis along which they are never flipped.

        Returns
        -------
        RandomCrops
            The batches.
        """
        return RandomCrops(
            self.train,
            crop=self.crop,
            batch_size=limits.batch_size,
            seed=seed,
            noise_direction=noise_direction,
            flips=limits.flips,
            counts=self.train_counts,
        )

    def validation(self, limits: TrainingSettings, stride: Sequence[int]) -> list[ValidationBatch]:
        """Return the batches for validation.

        Parameters
        ----------
        limits
            The size of a batch, and the number of patches.
        stride
            Stride of the model's coarsest level along each axis, in pixels.

        Returns
        -------
        list of ValidationBatch
            The batches.
        """
        return validation_batches(self.held_out, self.held_out_counts, stride, self.crop, limits)


@dataclass(frozen=True)
class TrainingProcess:
    """One process of a training.

    Attributes
    ----------
    job, data
        What is trained, and what it learns from.
    device, fabric
        The device of this process, and its connection to the other devices.
    workers
        The workers that share each batch.
    is_first
        Whether this process writes.
    measure
        Called before the first step.
    """

    job: TrainingJob
    data: TrainingData
    device: torch.device
    fabric: Fabric
    workers: Workers
    is_first: bool
    measure: Callable[[], object]

    def fit(
        self,
        name: str,
        objective: Objective | Refinement,
        limits: TrainingSettings,
        share: float,
        *,
        started: bool,
        earlier: float = 0.0,
    ) -> tuple[TrainingState, Schedule]:
        """Train by an objective, from the checkpoint of an earlier attempt where there is one.

        Parameters
        ----------
        name
            ``"train"`` or ``"refine"``.
        objective
            The networks and their loss.
        limits
            The settings.
        share
            The part of the whole training that this is.
        started
            Whether the first weights are those of a trained model.
        earlier
            Seconds of the training before this one, which count for the pause.

        Returns
        -------
        state
            The state at the end.
        schedule
            What it followed.

        Raises
        ------
        UserError
            If the weights do not stay finite, or TensorBoard is missing.
        """
        job, data = self.job, self.data
        expected = job.expected_steps and math.ceil(job.expected_steps * share)
        schedule = Schedule(limits, data.steps_per_epoch(limits), started, expected)
        self.fabric.to_device(objective)
        shared = SharedWeights(self.workers, objective, limits.batch_size)
        state = TrainingState(objective, build_optimizer(objective.model, limits), limits, shared.owned)
        checkpoints = None
        if job.checkpoints is not None:
            checkpoints = Checkpoints(job.checkpoints, job.fingerprint(), training=name, writes=self.is_first)
            if (saved := checkpoints.load()) is not None:
                state.load_state_dict(saved)
                logger.info(f"{name}: resuming from step {state.steps}, after {state.seconds / 60:.1f} minutes")
        if state.stopped_by is not None:  # A training that was killed after its last step is only written.
            return state, schedule
        crops = data.crops(limits, seed=job.seed, noise_direction=job.noise_direction)
        pause = None if job.pause_minutes is None else 60 * job.pause_minutes - earlier
        with ExitStack() as stack:
            self.measure()
            displays = list(self._displays(name, schedule, state, stack)) if self.is_first else []
            validation = data.validation(limits, objective.stride)
            fit(self.fabric, shared, state, schedule, crops, validation, checkpoints, displays, pause)
        return state, schedule

    def _displays(self, name: str, schedule: Schedule, state: TrainingState, stack: ExitStack) -> Iterator[Display]:
        """Yield what shows the state to the user."""
        job = self.job
        if job.rate is not None:
            yield stack.enter_context(closing(StepRate(job.rate)))
            return
        yield stack.enter_context(closing(ProgressLine(name, schedule, state)))
        if name == "train" and job.outlook is not None:
            yield OutlookLine(schedule, state, job.outlook, math.prod(self.data.crop))
        if self.device.type == "cpu":
            yield SlowSteps(schedule, state, self.workers.count)
        if name == "train" and job.tensorboard is not None:
            yield stack.enter_context(closing(TensorBoard(job.tensorboard, state)))
