"""The search for the settings of a method that trains: each candidate for two minutes."""

import logging
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvlae.methods.run import Trial, attempt
from dvlae.system.files import write_json
from dvlae.system.hardware.usage import Usage
from dvlae.system.software import software

logger = logging.getLogger(__name__)

MINUTES = 2.0


def search_method(method: str, images: Path, output: Path, **given: Any) -> None:
    """Let a method train with each of its candidates, and choose the one with the smallest validation loss.

    Parameters
    ----------
    method
        Name of a method file, or its path.
    images
        Folder of canonical images, with ``manifest.csv``.
    output
        The JSON file to write: ``candidates``, each with its ``settings``, ``validation_loss``, ``seconds`` and, if it
        has no loss, the ``reason``; and the settings that are ``chosen``, nothing if no candidate has a loss.
    **given
        As for :meth:`dvlae.methods.run.Trial.of`. Of ``minutes``, each candidate gets at most two.

    Raises
    ------
    UserError
        If there is no such method, or an input cannot be used.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix=".unfinished-search-", dir=output.parent) as temporary:
        trial = Trial.of(method, images, Path(temporary), **given)
        for number, candidate in enumerate(trial.how.candidates):
            changes = {
                "settings": trial.how.settings | candidate,
                "minutes": min(MINUTES, trial.task.minutes),
                "folder": Path(temporary) / str(number),
                "searching": True,
            }
            with Usage() as usage:
                fitted, status, reason = attempt(partial(trial.fit, **changes))
            loss = None if fitted is None else fitted.description.get("validation_loss")
            if fitted is not None and loss is None:
                reason = "it has no validation loss"
            elif fitted is None:
                reason = f"{status}: {reason}"
            rows.append(
                {"settings": candidate, "validation_loss": loss, "seconds": round(usage.seconds, 1), "reason": reason}
            )
            logger.info("%s: %s: %s", trial.name, candidate, f"loss {loss:g}" if loss is not None else reason)
    measured = [row for row in rows if row["validation_loss"] is not None]
    best = min(measured, key=lambda row: row["validation_loss"])["settings"] if measured else {}
    if not measured:
        logger.warning("%s: no candidate has a validation loss; the settings of its file are taken", trial.name)
    write_json(output, {"method": trial.name, "candidates": rows, "chosen": best, **software()})
