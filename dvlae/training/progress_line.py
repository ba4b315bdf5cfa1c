"""The line that shows how far a training is."""

from dvlae.system.progress import progress
from dvlae.training.schedule import Schedule
from dvlae.training.state import TrainingState


class ProgressLine:
    """Shows how much of the budget is spent, in steps or in seconds, and the last row of the history.

    Parameters
    ----------
    schedule
        Its limits are the budget.
    state
        Where the training begins.
    """

    def __init__(self, schedule: Schedule, state: TrainingState):
        self.rows, seconds = len(state.history), schedule.total_seconds
        self.is_timed = seconds is not None
        total, unit = (schedule.total_steps, "step") if seconds is None else (round(seconds), "s")
        self.bar = progress(total=total, description="train", unit=unit, initial=self._spent(state))

    def _spent(self, state: TrainingState) -> int:
        return int(state.seconds) if self.is_timed else state.steps

    def update(self, state: TrainingState) -> None:
        """Move the line on.

        Parameters
        ----------
        state
            The training, after a step.
        """
        if len(state.history) > self.rows:
            self.rows, row = len(state.history), state.history[-1]
            text = f"step {row['step']}, ELBO {row['val_elbo']:.3f}, signal error {row['val_mse']:.3f}"
            self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(min(self._spent(state), self.bar.total) - self.bar.n)

    def close(self) -> None:
        """End the line: what is printed next is not part of it."""
        self.bar.close()
