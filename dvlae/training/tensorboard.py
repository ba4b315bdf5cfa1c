"""The history of a training for TensorBoard, while it grows. ``history.csv`` holds the same, always."""

import shutil
from pathlib import Path

from dvlae.system.errors import UserError
from dvlae.training.state import TrainingState


class TensorBoard:
    """Writes each new row of the history as events.

    Parameters
    ----------
    folder
        Where the events go. What an earlier training left there is removed; a resumed one goes on with it.
    state
        Where the training begins.

    Raises
    ------
    UserError
        Where TensorBoard is not installed.
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
        # Steps after the last checkpoint are trained again: their older events are not shown.
        self.writer = SummaryWriter(folder, purge_step=state.steps + 1)
        self.rows = len(state.history)

    def update(self, state: TrainingState) -> None:
        """Write what is new: ``train_elbo`` and ``val_elbo`` become two curves of one group, ``elbo``.

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
