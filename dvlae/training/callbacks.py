"""What happens around the steps of a training: checkpoints, energy, the progress line."""

import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import lightning
import torch
from torch import Tensor

from dvlae.system.files import atomic_file
from dvlae.system.progress import progress
from dvlae.training.energy import EnergyMeter
from dvlae.training.module import DVLAETraining

SECONDS_BETWEEN_CHECKPOINTS = 120
# The energy counters are read this often.
SECONDS_BETWEEN_READINGS = 10


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
        total = round(60 * limits.max_minutes) if self.by_time else pl_module.total_steps
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
