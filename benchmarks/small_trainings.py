"""What the benchmarks that train small networks share: the training of given networks by one worker."""

from collections.abc import Sequence

import numpy as np
import torch

from dvlae.config.training import TrainingSettings
from dvlae.training.crops import RandomCrops, ValidationBatch
from dvlae.training.displays import Display
from dvlae.training.loop import fit
from dvlae.training.objectives.elbo import Objective
from dvlae.training.objectives.refinement import Refinement
from dvlae.training.optimizers import build_optimizer
from dvlae.training.processes import connect
from dvlae.training.schedule import Schedule, steps_per_epoch
from dvlae.training.shared_weights import SharedWeights
from dvlae.training.state import TrainingState
from dvlae.training.workers import Workers


def middle(image: np.ndarray, side: int) -> np.ndarray:
    """Return the middle of an image (C, Y, X)."""
    starts = [(whole - side) // 2 for whole in image.shape[1:]]
    return image[:, *(slice(start, start + side) for start in starts)]


def train_model(
    objective: Objective | Refinement,
    limits: TrainingSettings,
    crops: RandomCrops,
    validation: Sequence[ValidationBatch],
    displays: Sequence[Display] = (),
    expected_steps: int | None = None,
    pause: float | None = None,
) -> TrainingState:
    """Train networks on the processor with the loop of `dvlae train`; return the state at the end or at the pause."""
    state = TrainingState(objective, build_optimizer(objective.model, limits), limits)
    epoch = steps_per_epoch(limits, crops.patches[:, 0].size, crops.crop)
    fit(
        connect([torch.device("cpu")], limits),
        SharedWeights(Workers(), objective, limits.batch_size),
        state,
        Schedule(limits, epoch, expected_steps=expected_steps),
        crops,
        validation,
        None,
        displays,
        pause,
    )
    return state
