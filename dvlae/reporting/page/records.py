"""What the records of a training and of a prediction say, for tables."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvlae.runs.folder import RunFolder, read_json
from dvlae.runs.record import RECORD_NAME, read_run

# All else is what happened.
SETTINGS = ("settings", "receptive_field", "noise_direction", "seed")


@dataclass(frozen=True)
class Records:
    """The records of what made the denoised images.

    Attributes
    ----------
    training
        Of the training of the model; empty if it is not known.
    prediction
        Of the prediction; empty if it is not known.
    """

    training: Mapping[str, Any]
    prediction: Mapping[str, Any]

    @classmethod
    def read(cls, model: Path | None, denoised: Path) -> "Records":
        """Read the records.

        Parameters
        ----------
        model
            Folder made by ``dvlae train``, of which a copy may lack the record; None: unknown.
        denoised
            Folder made by ``dvlae predict``, with the record next to it.

        Returns
        -------
        Records
            What there is.

        Raises
        ------
        UserError
            If a record is damaged.
        """
        known = model is not None and (model / RECORD_NAME).exists()
        return cls(read_run(model) if known and model else {}, read_json(RunFolder(denoised.parent).prediction_record))

    @property
    def minutes(self) -> float | None:
        """The duration of the training; None if it is not known."""
        return self.training["seconds"] / 60 if "seconds" in self.training else None

    @property
    def unchanged(self) -> dict[str, str]:
        """The reasons why images were left as they are, by name of the image."""
        return self._found("unchanged")

    def notes(self, name: str) -> str:
        """Describe what the prediction found in an image.

        Parameters
        ----------
        name
            Name of the image.

        Returns
        -------
        str
            A few words; empty if there was nothing.
        """
        notes = []
        if name in self.unchanged:
            notes.append(f"{self.unchanged[name]}, left as it was")
        if count := self._found("hot_pixels").get(name):
            notes.append(f"{count} hot or dead pixel values")
        if count := self._found("doubtful_pixels").get(name):
            notes.append(f"{count} doubtful pixel values, left as they were")
        if (kind := self._found("unseen").get(name)) is not None:
            notes.append("unlike the training: " + (kind if kind != "other" else "other grey values or noise"))
        if name in self._found("rescaled"):
            notes.append("brought to the scale of the training")
        return "; ".join(notes)

    def _found(self, kind: str) -> dict[str, Any]:
        return self.prediction.get("found", {}).get(kind, {})

    def tables(self) -> tuple[list[list[str]], list[list[str]]]:
        """Return the rows of the table of settings and of that of all else, each with the key and two values.

        Returns
        -------
        settings, others
            The keys, as in the records, and the values of the training and of the prediction; empty where there is
            none. What was found in images is not among them.
        """
        found = self.prediction.get("found")
        columns = [
            dict(_flatten("", {k: v for k, v in record.items() if v is not found or found is None}))
            for record in (self.training, self.prediction)
        ]
        rows = [
            [key, *(column.get(key, "") for column in columns)] for key in dict.fromkeys([*columns[0], *columns[1]])
        ]
        settings = [[row[0].removeprefix("settings."), *row[1:]] for row in rows if row[0].startswith(SETTINGS)]
        return settings, [row for row in rows if not row[0].startswith(SETTINGS)]


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the path of each value, with dots, and the value as in JSON, but text without quotes."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{prefix}{key}.", value)
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)
