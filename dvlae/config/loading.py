"""Settings, read from the files of a configuration and of datasets."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvlae.config.dataset import DatasetSettings
from dvlae.config.fields import Images, dataset_name, is_file_of_names
from dvlae.config.messages import S, validate
from dvlae.config.settings import Settings
from dvlae.config.yaml_files import count_values, read_yaml
from dvlae.system.errors import UserError

# A dataset's name becomes a folder and a wildcard.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# These folders stand beside those of the datasets.
RESERVED_NAMES = {"tables", "figures", "logs", "benchmarks"}


def load_configuration(files: Sequence[str | Path], default: str = "config/config.yaml") -> Settings:
    """Read the configuration of the workflow: the default, and files that are laid over it, as Snakemake does.

    Parameters
    ----------
    files
        What Snakemake is given as ``--configfile``.
    default
        Read first. It may be missing where there are ``files``.

    Returns
    -------
    Settings
        The checked settings.

    Raises
    ------
    UserError
        Where a file cannot be read or a setting is wrong.
    """
    every = [str(file) for file in files]
    if not every or Path(default).exists():
        every.insert(0, default)
    merged: dict = {}
    for file in every:
        data = read_yaml(file)
        if not isinstance(data, dict):
            validate(Settings, data, file)  # which says what is wrong with it
        merged = _merged(merged, data)
    return validate(Settings, merged, every)


def _merged(lower: dict, upper: dict) -> dict:
    """Return ``lower`` with the keys of ``upper``: blocks key by key, all else as a whole."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def load_settings(cls: type[S], text_or_path: str | Path | None, key: str | None = None) -> S:
    """Read and check settings.

    Parameters
    ----------
    cls
        The settings' class.
    text_or_path
        A YAML or JSON file, or JSON itself (it starts with ``{``); ``None`` gives the defaults.
    key
        Take only this block of the file.

    Returns
    -------
    cls
        The checked settings.

    Raises
    ------
    UserError
        Where the file cannot be read or a setting is wrong.
    """
    if text_or_path is None:
        return validate(cls, {}, "settings")
    if str(text_or_path).lstrip().startswith("{"):
        where = "settings"
        try:
            data = json.loads(str(text_or_path))
            count_values(data, {})
        except (ValueError, RecursionError) as error:
            raise UserError(f"settings: not JSON: {error}") from None
    else:
        where = str(text_or_path)
        data = read_yaml(where)
    if key is not None:
        data = (data if isinstance(data, dict) else {}).get(key, {})
        where = f"{where}: {key}"
    return validate(cls, data, where)


def _relative_to(dataset: DatasetSettings, folder: Path) -> DatasetSettings:
    """Make the paths in a dataset's file, which are relative to its folder, usable from the working folder."""

    def selection(images: Images) -> Images:
        return str(folder / images) if is_file_of_names(images) else images

    changes: dict[str, Any] = {
        name: (block := getattr(dataset, name)).model_copy(update={"images": selection(block.images)})
        for name in ("training", "evaluation")
    }
    if dataset.source.registry is not None:
        changes["source"] = dataset.source.model_copy(update={"registry": str(folder / dataset.source.registry)})
    return dataset.model_copy(update=changes)


def load_dataset(path_or_name: str, folder: str | Path = "config/datasets") -> tuple[str, DatasetSettings]:
    """Read and check a dataset's file.

    Parameters
    ----------
    path_or_name
        The name of a file in ``folder``, without ``.yaml``, or a path that ends so.
    folder
        Where the named datasets are.

    Returns
    -------
    name, dataset
        The dataset's name and its settings. The paths in them, which are relative to the file, are made relative to
        the working folder.

    Raises
    ------
    UserError
        Where there is no such file (those that exist are listed) or a setting in it is wrong.
    """
    name = dataset_name(path_or_name)
    if not NAME_PATTERN.fullmatch(name):
        raise UserError(f"datasets: found {path_or_name!r}, allowed: names of letters, digits, '_', '-' and '.'")
    if name in RESERVED_NAMES:
        raise UserError(f"datasets: found {path_or_name!r}, which is a folder of the results; name the file otherwise")
    path = Path(path_or_name) if path_or_name != name else Path(folder) / f"{name}.yaml"
    if not path.is_file():
        there = sorted(file.stem for file in Path(folder).glob("*.yaml"))
        raise UserError(
            f"datasets: found {path_or_name!r}, but there is no file {path}; in {folder}: {', '.join(there) or 'none'}"
        )
    return name, _relative_to(load_settings(DatasetSettings, path), path.parent)
