"""Checkpoints: the unfinished training on disk, from which an interrupted one is resumed."""

import io
import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from dvlae.system.files import atomic_file, remove_files

SECONDS_BETWEEN_CHECKPOINTS = 120
# The names of its files, and of those that a killed training leaves.
CHECKPOINT_FILES = ("state.pt", "settings.json", "refine-state.pt", "refine-settings.json", ".unfinished-*")

logger = logging.getLogger(__name__)


class Checkpoints:
    """A folder with the last saved state of a training.

    Parameters
    ----------
    folder
        Folder of ``state.pt`` and ``settings.json``, and of the same for the refinement.
    fingerprint
        All that must be equal in an older state for the training to be resumed.
    training
        ``"train"`` or ``"refine"``.
    writes
        Whether this process writes. The states of all processes are equal.
    """

    def __init__(self, folder: Path, fingerprint: dict, *, training: str = "train", writes: bool = True):
        self.folder, self.fingerprint, self.training, self.writes = folder, fingerprint, training, writes
        names = ("settings.json", "state.pt")
        self._files = tuple(folder / (name if training == "train" else f"{training}-{name}") for name in names)
        # In seconds of training, which are the same in all processes.
        self.saved_at = 0.0

    def load(self) -> dict | None:
        """Return the state to resume from; None if there is none, or if it does not match, which is logged.

        Returns
        -------
        dict or None
            Argument of :meth:`save`, on the CPU.
        """
        settings_file, state_file = self._files
        if not (settings_file.exists() and state_file.exists()):
            return None
        try:
            older = json.loads(settings_file.read_text(encoding="utf-8"))
            if older == self.fingerprint:
                with zipfile.ZipFile(state_file) as archive:  # torch.load does not verify the checksums.
                    if (part := archive.testzip()) is not None:
                        raise ValueError(f"the checksum of {part} is wrong")
                state = torch.load(state_file, map_location="cpu", weights_only=True)
                self.saved_at = state["seconds"]
                return state
            changes = "; ".join(_changes(older, self.fingerprint))
            logger.info(
                f"{self.training}: {self.folder} is not resumed, because settings have changed: {changes}; "
                "starting over"
            )
        except Exception as error:  # A damaged file can raise an error of any kind.
            logger.warning(f"{self.training}: {self.folder} is damaged and not resumed ({error}); starting over")
        # Otherwise a file of the old state could be combined with one of the new state.
        remove_files(self.folder, [*(path.name for path in self._files), ".unfinished-*"])
        return None

    def are_due(self, seconds: float, *, validated: bool) -> bool:
        """Return whether a checkpoint is due: after two minutes, or after half a minute at the end of an epoch.

        Parameters
        ----------
        seconds
            Training time until now.
        validated
            Whether the history has a new row.

        Returns
        -------
        bool
            True if :meth:`save` should be called.
        """
        return seconds - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS / (4 if validated else 1)

    def save(self, state: dict) -> None:
        """Write a state atomically.

        Parameters
        ----------
        state
            Tensors and plain values, among them the ``seconds`` of training.
        """
        self.saved_at = state["seconds"]
        if not self.writes:
            return
        content = io.BytesIO()
        torch.save(state, content)
        settings_file, state_file = self._files
        with atomic_file(state_file) as path:
            path.write_bytes(content.getbuffer())  # Its errors are clearer than those of torch.save.
        with atomic_file(settings_file) as path:
            path.write_text(json.dumps(self.fingerprint, indent=2), encoding="utf-8", newline="\n")


def _changes(older: dict, newer: dict, of: str = "") -> Iterator[str]:
    """Yield the values that differ, as ``training.learning_rate from 0.01 to 0.001``."""
    for key in [*newer, *(key for key in older if key not in newer)]:
        old, new = older.get(key), newer.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{of}{key}.")
        elif old != new:
            yield f"{of}{key} from {old} to {new}"
