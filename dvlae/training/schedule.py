"""What follows from the limits of a training: learning rate, weight of the KL divergence, epochs, and the end."""

import math
from dataclasses import dataclass

from dvlae.config.settings import TrainingSettings

# The learning rate rises over this many steps.
WARM_UP_STEPS = 100
# With full weight from the start the code can stay empty, as the autoregressive decoder needs it least then.
KL_WARM_UP_STEPS = 500
# A warm-up takes at most this part of the steps of a training.
MAX_WARM_UP_FRACTION = 0.1


@dataclass(frozen=True)
class Schedule:
    """The course of a training between its first step and its limits.

    Attributes
    ----------
    settings
        Limits and learning rate.
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

    def learning_rate(self, step: int, seconds: float) -> float:
        """Return the learning rate of a step: half a cosine over the budget of steps or of time, after a linear rise.

        Parameters
        ----------
        step
            Number of the step, from 0.
        seconds
            Training time before the step.

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
        spent = step / self.total_steps
        if self.total_seconds is not None:
            spent = max(spent, seconds / self.total_seconds)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, spent)))
        return self.settings.learning_rate * cosine * self._warm_up(WARM_UP_STEPS, step)

    def kl_weight(self, step: int) -> float:
        """Return the weight of the KL divergence in the loss of a step, which rises from 0 to 1 at the start.

        Parameters
        ----------
        step
            Number of the step, from 0.

        Returns
        -------
        float
            From 0 to 1.

        References
        ----------
        Bowman et al., "Generating sentences from a continuous space", CoNLL 2016, arXiv 1511.06349; for ladders:
        Sønderby et al., "Ladder variational autoencoders", NeurIPS 2016, arXiv 1602.02282.
        """
        return 1.0 if self.started else self._warm_up(KL_WARM_UP_STEPS, step)

    def _warm_up(self, steps: int, step: int) -> float:
        """Rise from 0 to 1 over this number of steps, or over the first part of a short training."""
        total = min(self.total_steps, self.expected_steps or self.total_steps)
        return min(1.0, (step + 1) / min(steps, math.ceil(MAX_WARM_UP_FRACTION * total)))

    def reached_limit(self, steps: int, seconds: float, epochs_without_gain: int) -> str | None:
        """Return the name of the setting that ends the training now; None if it continues.

        Parameters
        ----------
        steps, seconds
            Spent until now.
        epochs_without_gain
            Validations since the best one.

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
        if limits.patience is not None and epochs_without_gain > limits.patience:
            return "patience"
        return None
