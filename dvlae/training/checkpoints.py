"""The unfinished training on disk, from which an interrupted one goes on."""

import io
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from dvlae.system.files import atomic_file

SECONDS_BETWEEN_CHECKPOINTS = 120

logger = logging.getLogger(__name__)


class Checkpoints:
    """A folder that holds the last saved state of a training.

    Parameters
    ----------
    folder
        Where ``state.pt`` and ``settings.json`` stand.
    fingerprint
        All that must be equal for an older state to be resumed.
    rank
        Of several processes, whose states are equal, the first one writes.
    """

    def __init__(self, folder: Path, fingerprint: dict, rank: int = 0):
        self.folder, self.fingerprint, self.rank = folder, fingerprint, rank
        self.saved_at = 0.0  # seconds of training, which all processes count alike

    def load(self) -> dict | None:
        """Return the state to go on from; None, after saying why, where there is none that fits.

        Returns
        -------
        dict or None
            What :meth:`save` was given, on the CPU.
        """
        settings_file, state_file = self.folder / "settings.json", self.folder / "state.pt"
        if not (settings_file.exists() and state_file.exists()):
            return None
        try:
            older = json.loads(settings_file.read_text())
            if older == self.fingerprint:
                with zipfile.ZipFile(state_file) as archive:  # torch.load does not look at the checksums
                    if (part := archive.testzip()) is not None:
                        raise ValueError(f"the checksum of {part} is wrong")
                state = torch.load(state_file, map_location="cpu", weights_only=True)
                self.saved_at = state["seconds"]
                return state
            changes = "; ".join(_changes(older, self.fingerprint))
            logger.info(f"train: {self.folder} is not resumed, as settings changed since: {changes}; starting anew")
        except Exception as error:  # whatever a damaged file raises: say so, and train from the start
            logger.warning(f"train: {self.folder} is damaged and not resumed ({error}); starting anew")
        shutil.rmtree(self.folder, ignore_errors=True)  # else an old half could be taken for one of a new whole
        return None

    def are_due(self, seconds: float, *, validated: bool) -> bool:
        """Say whether the last checkpoint is old enough: two minutes, or half a minute where an epoch ends.

        Parameters
        ----------
        seconds
            Of training until now.
        validated
            The history has a new row, which is worth keeping.

        Returns
        -------
        bool
            True where :meth:`save` should be called.
        """
        return seconds - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS / (4 if validated else 1)

    def save(self, state: dict) -> None:
        """Write a state, whole or not at all.

        Parameters
        ----------
        state
            Tensors and plain values; ``seconds`` of training is one of them.
        """
        self.saved_at = state["seconds"]
        if self.rank > 0:
            return
        content = io.BytesIO()
        torch.save(state, content)
        with atomic_file(self.folder / "state.pt") as path:
            path.write_bytes(content.getbuffer())  # its errors say what is wrong, those of torch.save do not
        with atomic_file(self.folder / "settings.json") as path:
            path.write_text(json.dumps(self.fingerprint, indent=2))


def _changes(older: dict, newer: dict, of: str = "") -> Iterator[str]:
    """Say which values differ, as ``training.learning_rate from 0.01 to 0.001``."""
    for key in [*newer, *(key for key in older if key not in newer)]:
        old, new = older.get(key), newer.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{of}{key}.")
        elif old != new:
            yield f"{of}{key} from {old} to {new}"
