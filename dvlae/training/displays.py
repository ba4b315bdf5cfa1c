"""Displays of a running training: a progress line, and TensorBoard."""

import shutil
from pathlib import Path

from dvlae.system.errors import UserError
from dvlae.system.progress import progress
from dvlae.training.schedule import Schedule
from dvlae.training.state import TrainingState


class ProgressLine:
    """A line with the spent part of the budget, in steps or in seconds, and the last row of the history.

    Parameters
    ----------
    schedule
        Schedule whose limits are the budget.
    state
        State in which the training begins.
    """

    def __init__(self, schedule: Schedule, state: TrainingState):
        self.rows, seconds = len(state.history), schedule.total_seconds
        self.is_timed = seconds is not None
        total, unit = (schedule.total_steps, "step") if seconds is None else (round(seconds), "s")
        self.bar = progress(total=total, description="train", unit=unit, initial=self._spent(state))

    def _spent(self, state: TrainingState) -> int:
        return int(state.seconds) if self.is_timed else state.steps

    def update(self, state: TrainingState) -> None:
        """Update the line.

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
        """End the line, so that the next output begins on a new one."""
        self.bar.close()


class TensorBoard:
    """Writes each new row of the history as events.

    Parameters
    ----------
    folder
        Folder for the events. Those of an earlier training are removed, those of a resumed training are kept.
    state
        State in which the training begins.

    Raises
    ------
    UserError
        If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, state: TrainingState):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard: found true, but TensorBoard is not installed; set it to false, or install it: "
                'pip install --editable ".[tensorboard]" --constraint constraints.txt'
            ) from None
        if state.steps == 0:
            shutil.rmtree(folder, ignore_errors=True)
        # Steps after the last checkpoint are repeated, so their older events are hidden.
        self.writer = SummaryWriter(folder, purge_step=state.steps + 1)
        self.rows = len(state.history)

    def update(self, state: TrainingState) -> None:
        """Write the new rows: ``train_elbo`` and ``val_elbo`` become two curves of one group, ``elbo``.

        Parameters
        ----------
        state
            The training, after a step.
        """
        for row in state.history[self.rows :]:
            for name, value in row.items():
                part, _, rest = name.partition("_")
                tag = f"{rest}/{part}" if part in ("train", "val") else f"training/{name}"
                if name != "step":
                    self.writer.add_scalar(tag, value, row["step"])
            self.writer.flush()
        self.rows = len(state.history)

    def close(self) -> None:
        """Close the file of events."""
        self.writer.close()
