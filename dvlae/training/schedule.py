"""What follows from the limits of a training: learning rate, weight of the KL divergence, epochs, and the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dvlae.config.training import TrainingSettings

# Maps what a training waits for to a column of the history, and the sign with which less is better.
LOSSES = {"elbo": ("val_elbo", -1), "mse": ("val_mse", 1)}


def losses(history: Sequence[dict[str, float]], name: str) -> list[float]:
    """Return what each validation gave, so that less is better.

    Parameters
    ----------
    history
        One row for each validation.
    name
        ``"elbo"`` or ``"mse"``.

    Returns
    -------
    list of float
        One number for each row.
    """
    column, sign = LOSSES[name]
    return [sign * row[column] for row in history]


def steps_per_epoch(settings: TrainingSettings, pixels: int, crop: Sequence[int]) -> int:
    """Return how many batches an epoch has.

    Parameters
    ----------
    settings
        The size of a batch, and the least number.
    pixels
        All pixels that are trained on, without their channels.
    crop
        Sides of a training crop, in pixels.

    Returns
    -------
    int
        As many as cover the pixels once, but at least ``min_epoch_steps``.
    """
    return max(settings.min_epoch_steps, math.ceil(pixels / (settings.batch_size * math.prod(crop))))


@dataclass(frozen=True)
class Schedule:
    """The course of a training between its first step and its limits.

    Attributes
    ----------
    settings
        Limits, learning rate and warm-ups.
    steps_per_epoch
        Batches in one pass over the training pixels.
    started
        Whether the first weights are those of a trained model.
    expected_steps
        Number of steps that there is time for, by a measurement; None: not measured.
    """

    settings: TrainingSettings
    steps_per_epoch: int
    started: bool = False
    expected_steps: int | None = None

    @property
    def total_seconds(self) -> float | None:
        """The time limit that the learning rate follows; None if it follows the steps alone.

        Time counts only if no number of steps is set, so that a training limited by steps is reproducible.
        """
        minutes = self.settings.max_minutes
        return None if minutes is None or self.settings.max_steps is not None else 60 * minutes

    @property
    def total_steps(self) -> int:
        """The number of steps at which ``max_steps`` or ``max_epochs`` ends the training."""
        steps = self.settings.max_epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps or steps)

    def ends_epoch(self, step: int, processes: int) -> bool:
        """Return whether an epoch ends with the steps that are computed together.

        Parameters
        ----------
        step
            The first of these steps, from 0.
        processes
            Number of these steps, one for each process.

        Returns
        -------
        bool
            True for the last steps of an epoch.
        """
        return (step + processes) // self.steps_per_epoch > step // self.steps_per_epoch

    def changes_weights(self, step: int, processes: int) -> bool:
        """Return whether the weights change after these steps: enough gradients are added, or an epoch ends.

        Parameters
        ----------
        step, processes
            As for :meth:`ends_epoch`.

        Returns
        -------
        bool
            False where gradients wait for those of more steps.
        """
        # The number of batches of each process in this epoch, including these.
        batches = step % self.steps_per_epoch // processes + 1
        return self.ends_epoch(step, processes) or batches % (self.settings.accumulate // processes) == 0

    def learning_rate(self, step: int, seconds: float, validated: Sequence[float] = ()) -> float:
        """Return the learning rate of a step, after a linear rise: constant or, over the budget, half a cosine.

        Parameters
        ----------
        step
            Number of the step, from 0.
        seconds
            Training time before the step.
        validated
            The loss at each validation before the step, which a plateau is seen from.

        Returns
        -------
        float
            At most the setting ``learning_rate``.

        References
        ----------
        Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, arXiv 1608.03983:
        equation 5, here one cycle without a restart. The rise: Goyal et al., "Accurate, large minibatch SGD: training
        ImageNet in 1 hour", arXiv 1706.02677, 2017.
        """
        highest = self.settings.learning_rate * self._warm_up(self.settings.warm_up_steps, step, seconds)
        if self.settings.schedule == "plateau":
            return highest * self.settings.plateau_factor ** count_plateaus(validated, self.settings.plateau_patience)
        spent = step / self.total_steps
        if self.total_seconds is not None:
            spent = max(spent, seconds / self.total_seconds)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, spent)))
        return highest * cosine

    def learning_rates(self, step: int, seconds: float, history: Sequence[dict[str, float]]) -> dict[str, float]:
        """Return the learning rate of a step for each of :data:`LOSSES`, by its name.

        Parameters
        ----------
        step, seconds
            As for :meth:`learning_rate`.
        history
            One row for each validation before the step.

        Returns
        -------
        dict
            They differ on plateaus only. Only there are the losses looked at.
        """
        waits = self.settings.schedule == "plateau"
        return {name: self.learning_rate(step, seconds, losses(history, name) if waits else ()) for name in LOSSES}

    def kl_weight(self, step: int, seconds: float) -> float:
        """Return the weight of the KL divergence in the loss of a step, which rises from 0 to 1 at the start.

        With full weight from the start the code can stay empty, as the autoregressive decoder needs it least then.

        Parameters
        ----------
        step
            Number of the step, from 0.
        seconds
            Training time before the step.

        Returns
        -------
        float
            From 0 to 1.

        References
        ----------
        Bowman et al., "Generating sentences from a continuous space", CoNLL 2016, arXiv 1511.06349; for ladders:
        Sønderby et al., "Ladder variational autoencoders", NeurIPS 2016, arXiv 1602.02282.
        """
        return 1.0 if self.started else self._warm_up(self.settings.kl_warm_up_steps, step, seconds)

    def _warm_up(self, steps: int, step: int, seconds: float) -> float:
        """Rise from 0 to 1 over this number of steps, or over the first part of a short training; without any, 1."""
        part = self.settings.warm_up_fraction
        total = min(self.total_steps, self.expected_steps or self.total_steps)
        risen = (step + 1) / max(1, min(steps, math.ceil(part * total)))
        if self.total_seconds is not None:
            risen = max(risen, seconds / (part * self.total_seconds))
        return min(1.0, risen)

    def reached_limit(self, steps: int, seconds: float, history: Sequence[dict[str, float]] = ()) -> str | None:
        """Return the name of the setting that ends the training now; None if it continues.

        Parameters
        ----------
        steps, seconds
            Spent until now.
        history
            One row for each validation.

        Returns
        -------
        str or None
            ``"max_minutes"``, ``"max_steps"``, ``"max_epochs"`` or ``"patience"``.
        """
        limits = self.settings
        if limits.max_minutes is not None and seconds >= 60 * limits.max_minutes:
            return "max_minutes"
        if steps >= self.total_steps:
            return "max_steps" if self.total_steps == limits.max_steps else "max_epochs"
        if limits.patience is not None and count_plateaus(losses(history, limits.patience_on), limits.patience):
            return "patience"
        return None


def count_plateaus(validated: Sequence[float], patience: int) -> int:
    """Count how often a training waited in vain; each time it waits anew.

    Parameters
    ----------
    validated
        The loss at each validation.
    patience
        Validations without a smaller loss than ever before that are waited for.

    Returns
    -------
    int
        Number of times that there were more.
    """
    smallest, waited, plateaus = math.inf, 0, 0
    for loss in validated:
        if loss < smallest:
            smallest, waited = loss, 0
        elif waited == patience:
            waited, plateaus = 0, plateaus + 1
        else:
            waited += 1
    return plateaus
