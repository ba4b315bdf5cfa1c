"""Reading of configurations and datasets from their files."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from dvlae.config.dataset import DatasetSettings, EvaluationBlock, EvaluationSettings, SimulateSettings
from dvlae.config.fields import NAME_PATTERN, Images, StrictModel, dataset_name, expand_home, is_file_of_names
from dvlae.config.messages import S, format_value, validate
from dvlae.config.settings import PatchSettings, Settings, TrainSettings
from dvlae.config.yaml_files import count_values, read_yaml
from dvlae.system.errors import UserError

# These folders are next to those of the datasets.
RESERVED_NAMES = {"tables", "figures", "logs", "benchmarks"}


def load_configuration(
    files: Sequence[str | Path], default: str = "config/config.yaml", given: dict[str, Any] | None = None
) -> Settings:
    """Read the configuration of the workflow: the default, and files that override it, as Snakemake does.

    Parameters
    ----------
    files
        The files that Snakemake would be given as ``--configfile``.
    default
        The file that is read first. It may be missing if there are ``files``.
    given
        What overrides the files: the keys and values that Snakemake would be given as ``--config``.

    Returns
    -------
    Settings
        The checked settings.

    Raises
    ------
    UserError
        If a file cannot be read, a setting is wrong, or one would have no effect.
    """
    every = [str(file) for file in files]
    if Path(default).exists():
        every.insert(0, default)
    elif not every:
        raise UserError(
            f"{default}: not found in this folder; go to the one that `dvlae init` made, or give --configfile"
        )
    merged: dict = {}
    for file in every:
        data = read_yaml(file)
        if not isinstance(data, dict):
            # This raises the error.
            validate(Settings, data, file)
        merged = merge_blocks(merged, data)
    check_one_list(every, given)
    return validate(Settings, merge_blocks(merged, given or {}), every, given=given)


def merge_blocks(lower: dict, upper: dict) -> dict:
    """Lay one dictionary over another.

    Parameters
    ----------
    lower, upper
        Blocks, which are merged key by key; other values of ``upper`` replace those of ``lower``.

    Returns
    -------
    dict
        All keys of both.
    """
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = merge_blocks(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def check_one_list(files: Sequence[str], given: dict[str, Any] | None = None) -> None:
    """Refuse keys that would have no effect, because a list of methods is beside or below them.

    Parameters
    ----------
    files
        Configuration files, each of which overrides the ones before it.
    given
        What overrides them all, as in :func:`load_configuration`.

    Raises
    ------
    UserError
        If one of them has ``methods``, and it or a later one ``receptive_fields`` or ``baselines``.
    """
    with_methods = None
    for file, data in [*((file, read_yaml(file)) for file in files), ("--config", given)]:
        if not isinstance(data, dict):
            continue
        if "methods" in data:
            with_methods = None if data["methods"] is None else file
        for key in ("receptive_fields", "baselines"):
            if with_methods is not None and key in data:
                raise UserError(
                    f"{file}: {key}: found {format_value(data[key])}, allowed: no such key, as `methods` in "
                    f"{with_methods} lists all methods"
                )


def load_settings(cls: type[S], text_or_path: str | Path | None) -> S:
    """Read and check settings.

    Parameters
    ----------
    cls
        The settings' class.
    text_or_path
        A YAML or JSON file, or JSON text, which starts with ``{``; None: the defaults.

    Returns
    -------
    cls
        The checked settings.

    Raises
    ------
    UserError
        If the file cannot be read or a setting is wrong.
    """
    data, where = _read_settings(text_or_path)
    return validate(cls, data, where)


class _Evaluation(StrictModel):
    """The block of a dataset's file that says how it is evaluated, and what that depends on."""

    simulate: SimulateSettings | None = None
    evaluation: EvaluationBlock = EvaluationSettings()


# Where the settings of a step whose own file has no blocks are in a complete file.
_WHOLE: dict[type, tuple[type[StrictModel], Callable[[Any], Any]]] = {
    PatchSettings: (TrainSettings, PatchSettings.of),
    EvaluationSettings: (_Evaluation, attrgetter("evaluation")),
}


def load_step(cls: type[S], text_or_path: str | Path | None) -> S:
    """Read and check the settings of a step, which may be part of a complete configuration.

    Parameters
    ----------
    cls
        The settings' class.
    text_or_path
        As for :func:`load_settings`. The blocks of other steps are left out: those of a configuration of the workflow,
        and, where images are evaluated, those of a dataset's file.

    Returns
    -------
    cls
        The checked settings.

    Raises
    ------
    UserError
        If the file cannot be read, a setting of the step is wrong, or a key is unknown.
    """
    data, where = _read_settings(text_or_path)
    others = [*Settings.model_fields, *(DatasetSettings.model_fields if issubclass(cls, EvaluationSettings) else ())]
    whole, part = _WHOLE.get(cls, (cls, None))
    if part is None:
        return validate(cls, data, where, others)
    if isinstance(data, dict) and set(data).intersection(others).difference(cls.model_fields):
        return part(validate(whole, data, where, others))
    return validate(cls, data, where)


def load_blocks(cls: type[S], text_or_path: str | Path | None, names: Collection[str] | None = None) -> dict[str, S]:
    """Read and check settings that have a block for each of some names.

    Parameters
    ----------
    cls
        The class of a block.
    text_or_path
        As for :func:`load_settings`.
    names
        The names that blocks may have. One without a block gets the defaults. None: whatever is named.

    Returns
    -------
    dict
        The checked settings, by name.

    Raises
    ------
    UserError
        If the file cannot be read, a block has another name, or a setting is wrong.
    """
    data, where = _read_settings(text_or_path)
    if not isinstance(data, dict):
        each = "dataset" if names is None else f"of {', '.join(names)}"
        raise UserError(f"{where}: found {format_value(data)}, allowed: a block for each {each}")
    names = list(map(str, data)) if names is None else names
    for name in data:
        if name not in names:
            raise UserError(f"{where}: found {name!r}, allowed: {', '.join(names)}")
    return {name: validate(cls, data.get(name, {}), f"{where}: {name}") for name in names}


def _read_settings(text_or_path: str | Path | None) -> tuple[Any, str]:
    """Return the content of a file or of JSON text, and where it is, for error messages."""
    if text_or_path is None:
        return {}, "settings"
    if str(text_or_path).lstrip().startswith("{"):
        where = "settings"
        try:
            data = json.loads(str(text_or_path))
            count_values(data, {})
        except (ValueError, RecursionError) as error:
            raise UserError(f"settings: not JSON: {error}") from None
    else:
        where = str(text_or_path) or "''"
        data = read_yaml(where)
    return data, where


def _relative_to(dataset: DatasetSettings, folder: Path) -> DatasetSettings:
    """Make the paths in a dataset's file relative to the working folder."""

    def selection(images: Images) -> Images:
        return str(folder / expand_home(images)) if is_file_of_names(images) else images

    changes: dict[str, Any] = {
        name: (block := getattr(dataset, name)).model_copy(update={"images": selection(block.images)})
        for name in ("training", "evaluation")
    }
    if dataset.source.registry is not None:
        changes["source"] = dataset.source.model_copy(
            update={"registry": str(folder / expand_home(dataset.source.registry))}
        )
    return dataset.model_copy(update=changes)


def load_dataset(path_or_name: str, folder: str | Path = "config/datasets") -> tuple[str, DatasetSettings]:
    """Read and check a dataset's file.

    Parameters
    ----------
    path_or_name
        The name of a file in ``folder`` without ``.yaml``, or a path that ends with ``.yaml`` or ``.yml``.
    folder
        The folder of datasets that are given by name.

    Returns
    -------
    name, dataset
        The dataset's name and its settings. Their paths, which are relative to the file, are made relative to the
        working folder.

    Raises
    ------
    UserError
        If there is no such file (the message lists those that exist), a setting in it is wrong, or it is several
        datasets.
    """
    found = load_datasets([path_or_name], folder)
    if len(found) > 1:
        raise UserError(
            f"{path_or_name}: found a sweep of {len(found)} datasets, allowed: one; the workflow runs them all, and "
            "without `sweep` the file is one"
        )
    return next(iter(found.items()))


def load_datasets(paths_or_names: Iterable[str], folder: str | Path = "config/datasets") -> dict[str, DatasetSettings]:
    """Read and check the files of datasets, each of which may be several datasets.

    Parameters
    ----------
    paths_or_names, folder
        As for :func:`load_dataset`.

    Returns
    -------
    dict
        The settings of each dataset by its name.

    Raises
    ------
    UserError
        If a file is missing or wrong, or two datasets have one name.
    """
    datasets: dict[str, DatasetSettings] = {}
    for path_or_name in paths_or_names:
        name, dataset = _load_file(path_or_name, folder)
        for member, settings in dataset.members(name).items():
            if member in datasets:
                raise UserError(f"datasets: found {member!r} twice, allowed: each once")
            datasets[member] = settings
    return datasets


def _load_file(path_or_name: str, folder: str | Path) -> tuple[str, DatasetSettings]:
    name = dataset_name(path_or_name)
    if not NAME_PATTERN.fullmatch(name):
        raise UserError(f"datasets: found {path_or_name!r}, allowed: names of letters, digits, '_', '-' and '.'")
    if name in RESERVED_NAMES:
        raise UserError(f"datasets: found {path_or_name!r}, which is a folder of the results; name the file otherwise")
    path = expand_home(path_or_name) if path_or_name != name else Path(folder) / f"{name}.yaml"
    if not path.is_file():
        there = sorted(file.stem for file in Path(folder).glob("*.yaml"))
        raise UserError(
            f"datasets: found {path_or_name!r}, but there is no file {path}; in {folder}: {', '.join(there) or 'none'}"
        )
    return name, _relative_to(load_settings(DatasetSettings, path), path.parent)
