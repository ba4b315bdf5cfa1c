"""The history of a training for TensorBoard, while it grows. ``history.csv`` holds the same, always."""

import shutil
from pathlib import Path

import lightning

from dvlae.system.errors import UserError


class TensorBoard(lightning.Callback):
    """Write each new row of the history as events.

    Parameters
    ----------
    folder
        Where the events go. What an earlier training left there is removed; a resumed one goes on with it.

    Raises
    ------
    UserError
        Where TensorBoard is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard: found true, but TensorBoard is not installed; set it to false, or install it: "
                'pip install --editable ".[tensorboard]" --constraint constraints.txt'
            ) from None
        self.folder, self.open = folder, SummaryWriter

    def on_fit_start(self, trainer, pl_module) -> None:
        """Open the file of events."""
        if pl_module.steps == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        # Steps after the last checkpoint are trained again: their older events are not shown.
        self.writer = self.open(self.folder, purge_step=pl_module.steps + 1)

    def on_validation_end(self, trainer, pl_module) -> None:
        """Write the last row: ``train_elbo`` and ``val_elbo`` become two curves of one group, ``elbo``."""
        row = dict(pl_module.history[-1])
        step = row.pop("step")
        for name, value in row.items():
            part, _, rest = name.partition("_")
            tag = f"{rest}/{part}" if part in ("train", "val") else f"training/{name}"
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()

    def teardown(self, trainer, pl_module, stage: str) -> None:
        """Close the file."""
        self.writer.close()
