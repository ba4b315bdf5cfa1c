"""The state of a training, which is saved and resumed: weights, their average, optimiser, counters, history."""

import copy
import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dvlae.config.training import TrainingSettings
from dvlae.system.errors import UserError
from dvlae.training.objectives.elbo import Objective
from dvlae.training.objectives.refinement import Refinement

# The check for finite weights waits for the device, so it is not made at every step.
STEPS_BETWEEN_CHECKS = 50

# Maps the names in a saved state to attributes.
_COUNTERS = {name: name for name in ("steps", "seconds", "attempts", "history", "best_elbo", "stopped_by")} | {
    "rescues": "rollbacks"
}

logger = logging.getLogger(__name__)


def float_tensors(module: nn.Module, owned: Collection[str] | None = None) -> list[Tensor]:
    """Return a module's weights and batch statistics, to be changed in place.

    Parameters
    ----------
    module
        A network, or a part of one.
    owned
        Names of the weights to return; None: all. Batch statistics are always returned.

    Returns
    -------
    list of Tensor
        The tensors themselves, not copies.
    """
    left_out = set() if owned is None else {name for name, _ in module.named_parameters()}.difference(owned)
    state = module.state_dict()
    return [tensor for name, tensor in state.items() if tensor.is_floating_point() and name not in left_out]


@dataclass
class TrainingState:
    """The state of a training between two steps.

    Attributes
    ----------
    objective
        The networks and the moving average of their weights, on their device.
    optimizer
        Optimiser of the networks.
    settings
        Decay of the moving average, and how often an earlier state is returned to.
    owned
        Names of the weights that this process changes; None: all.
    steps, seconds, attempts
        Number of batches and training time, over this number of attempts.
    history
        One row for each validation.
    best_elbo
        ELBO of the best validation.
    stopped_by
        Setting that ended the training; None: the training is not finished.
    rollbacks
        Number of returns to an earlier state.
    sums
        Sums of the values of the steps since the last validation; ``steps`` is the number of terms.
    """

    objective: Objective | Refinement
    optimizer: torch.optim.Optimizer
    settings: TrainingSettings
    owned: Collection[str] | None = None
    steps: int = 0
    seconds: float = 0.0
    attempts: int = 1
    history: list[dict[str, float]] = field(default_factory=list)
    best_elbo: float = -math.inf
    stopped_by: str | None = None
    rollbacks: int = 0
    sums: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model: nn.Module = self.objective.model
        self.average: nn.Module = self.objective.average
        self._current, self._averaged = (float_tensors(m, self.owned) for m in (self.model, self.average))
        self._good: dict | None = None

    def set_learning_rates(self, rates: Mapping[str, float]) -> None:
        """Set the learning rates of the next step, which are halved for each rollback.

        Parameters
        ----------
        rates
            The rate of the schedule, by the loss that it follows.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group.get("follows", "elbo")] * 0.5**self.rollbacks

    def update_average(self, steps: int) -> None:
        """Update the averaged weights and batch statistics, before these steps are counted.

        Parameters
        ----------
        steps
            Number of steps, one for each process.

        References
        ----------
        Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30, 1992.
        The decay rises as that of TensorFlow's ``ExponentialMovingAverage`` does with ``num_updates``: it is
        (1 + n) / (10 + n), here with n = step - 1. At first the average therefore covers about the last tenth of the
        steps, and it never contains the random initial weights.
        """
        for step in range(self.steps, self.steps + steps):
            torch._foreach_lerp_(self._averaged, self._current, max(1 - self.settings.average_decay, 9 / (9 + step)))

    def count(self, values: dict[str, Tensor], steps: int, seconds: float) -> None:
        """Count steps, and add up their values for the history.

        Parameters
        ----------
        values
            Means over the steps.
        steps
            Number of steps, one for each process.
        seconds
            Training time until now.
        """
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.sums["steps"] = self.sums.get("steps", 0) + 1
        self.steps += steps
        self.seconds = seconds

    def add_row(self, validation: dict[str, float], steps_per_epoch: int) -> None:
        """Add one row to the history: means over the steps since the last row, and those of a validation.

        If these steps were all rolled back, their means are not numbers.

        Parameters
        ----------
        validation
            Means over the validation crops, by column.
        steps_per_epoch
            Batches in one pass over the training pixels.
        """
        steps = self.sums.pop("steps", 1)
        self.history.append(
            {
                "step": self.steps,
                "epoch": round(self.steps / steps_per_epoch, 4),
                "minutes": round(self.seconds / 60, 4),
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                **{f"train_{name}": float(self.sums.get(name, math.nan)) / steps for name in validation},
                **{f"val_{name}": value for name, value in validation.items()},
            }
        )
        self.sums = {}
        self.best_elbo = max(self.best_elbo, validation.get("elbo", -math.inf))

    def is_check_due(self, processes: int) -> bool:
        """Return whether :meth:`check_finite_or_roll_back` is due: at the start, and after some steps.

        Parameters
        ----------
        processes
            Number of processes that train together.

        Returns
        -------
        bool
            True if the weights should be checked.
        """
        return self._good is None or self.steps % STEPS_BETWEEN_CHECKS < processes

    def check_finite_or_roll_back(self) -> None:
        """Remember this state or, if a weight is not finite, roll back to the last finite state.

        Each rollback halves the learning rates. Very deep ladders need one occasionally.

        Raises
        ------
        UserError
            If the weights were lost too often.
        """
        finite = [tensor.isfinite().all() for tensor in self.average.state_dict().values()]
        if torch.stack(finite).all():
            self._good = self._learned()
            return
        self.rollbacks += 1
        highest = self.optimizer.defaults["lr"]
        if self.rollbacks > self.settings.max_rollbacks or self._good is None:
            raise UserError(
                f"training: the weights became infinite or NaN {self.rollbacks} times, the last time before step "
                f"{self.steps}; lower training.learning_rate (now {highest})"
            )
        logger.warning(
            f"train: before step {self.steps} the weights became infinite or NaN; continuing from those of at most "
            f"{STEPS_BETWEEN_CHECKS} steps ago with half the learning rate, at most {highest * 0.5**self.rollbacks:.2g}"
        )
        self._learn(copy.deepcopy(self._good))

    def _learned(self) -> dict:
        """Return copies. Tensors of the networks are cloned one by one, as all may lie in one block of memory."""
        return {
            "model": {name: tensor.clone() for name, tensor in self.model.state_dict().items()},
            "average": {name: tensor.clone() for name, tensor in self.average.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "sums": dict(self.sums),
        }

    def _learn(self, learned: dict) -> None:
        self.model.load_state_dict(learned["model"])
        self.average.load_state_dict(learned["average"])
        self.optimizer.load_state_dict(learned["optimizer"])
        self.sums = learned["sums"]

    def state_dict(self) -> dict:
        """Return all that a resumed training needs, after a check that the weights are finite.

        Returns
        -------
        dict
            Tensors and plain values.
        """
        self.check_finite_or_roll_back()
        assert self._good is not None  # It is the present state now.
        return self._good | {name: getattr(self, attribute) for name, attribute in _COUNTERS.items()}

    def load_state_dict(self, state: dict) -> None:
        """Resume from a :meth:`state_dict`, in one more attempt.

        Parameters
        ----------
        state
            State of this version or of an older one, which may hold more.
        """
        self._learn(state)
        for name, attribute in _COUNTERS.items():
            setattr(self, attribute, state[name])
        self.attempts += 1
