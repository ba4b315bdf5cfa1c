"""The record of a training, ``run.json`` in the folder of its model: data, settings, software, machine and duration."""

import json
from pathlib import Path

from dvlae.system.errors import UserError
from dvlae.system.files import write_json

RECORD_NAME = "run.json"
# Format 1 is the same without the key `format`.
FORMAT = 2


def write_run(folder: Path, record: dict) -> None:
    """Write ``run.json`` into a model's folder.

    Parameters
    ----------
    folder
        The model's folder.
    record
        The contents, without ``format``.
    """
    write_json(folder / RECORD_NAME, {"format": FORMAT, **record})


def read_run(folder: Path) -> dict:
    """Read the ``run.json`` of a model's folder, in the current format or an older one.

    Parameters
    ----------
    folder
        The model's folder.

    Returns
    -------
    dict
        The record, in the current format.

    Raises
    ------
    UserError
        If the file is missing, damaged, or has a newer format.
    """
    path = folder / RECORD_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        found = record.get("format", 1)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {folder} is not the folder of a trained model") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the record of a training ({error}); remove {folder} and train again") from None
    if found not in range(1, FORMAT + 1):
        raise UserError(f"{path}: format {found} cannot be read; this version reads 1 to {FORMAT}")
    return record
