"""How arguments of commands are declared, how their values are read, and the arguments that several commands have."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from dvlae.cli import functions
from dvlae.cli.command import SHOW_ONLY, Argument
from dvlae.config.dataset import DatasetSettings, EvaluationSettings
from dvlae.config.fields import Device, NoiseDirection, StrictModel, expand_home, is_file_of_names
from dvlae.config.loading import load_dataset, load_settings, load_step
from dvlae.config.yaml_files import read_given
from dvlae.system.parts import Part

# How values are read --------------------------------------------------------------------------------------------------


def read_name(text: str) -> str:
    """Read a name.

    Parameters
    ----------
    text
        What was typed.

    Returns
    -------
    str
        The name.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a name")
    return text


def read_receptive_field(text: str) -> int | str:
    """Read a receptive field.

    Parameters
    ----------
    text
        What was typed.

    Returns
    -------
    int or str
        A number of pixels, or ``auto``.
    """
    if text == "auto" or text.isdecimal():
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a whole number of pixels, or auto")


def read_number_or_word(text: str) -> int | str:
    """Read a whole number, or a word such as ``auto``; the settings say which words are allowed.

    Parameters
    ----------
    text
        What was typed.

    Returns
    -------
    int or str
        The number or the word.
    """
    return int(text) if text.removeprefix("-").isdecimal() else text


def read_first_and_stop(text: str) -> tuple[int, int]:
    """Read a part of an axis.

    Parameters
    ----------
    text
        What was typed, for example ``100:228``.

    Returns
    -------
    tuple of int
        The first pixel, and the one after the last.

    Raises
    ------
    argparse.ArgumentTypeError
        If the text has another form, or the part has no pixels.
    """
    first, _, stop = text.partition(":")
    if not (first.isdecimal() and stop.isdecimal() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: FIRST:STOP, such as 100:228")
    return int(first), int(stop)


def read_selection(words: list[str]) -> str | list[str]:
    """Read a selection of images, as for ``select``.

    Parameters
    ----------
    words
        What was typed.

    Returns
    -------
    str or list of str
        ``all``, a slice or a file of names if it is one such word; else names.
    """
    one = len(words) == 1 and (not is_file_of_names(words[0]) or Path(words[0]).is_file())
    return words[0] if one else words


def _read_seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a whole number from 0 to 2^32 - 1")
    return int(text)


def _read_path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("found '', allowed: a path")
    return expand_home(text)


def _read_named_path(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: DATASET=PATH")
    return name, expand_home(path)


def _read_dataset(text: str) -> DatasetSettings:
    return load_settings(DatasetSettings, text) if text.lstrip().startswith("{") else load_dataset(text)[1]


def _check_cores(cores: int | None) -> int | None:
    if cores is not None:
        functions.check_counts("--cores", cores)
    return cores


# How arguments are declared -------------------------------------------------------------------------------------------


def argument(
    name: str, metavar: str | None, text: str, convert: Callable[[Any], Any] | None = None, **options: Any
) -> Argument:
    """Declare an argument.

    Parameters
    ----------
    name
        The name on the command line.
    metavar
        What stands for the value in the help; None: the choices.
    text
        The help: a phrase.
    convert
        As for :class:`dvlae.cli.command.Argument`.
    **options
        Other options for ``argparse``.

    Returns
    -------
    Argument
        The declaration.
    """
    return Argument(name, {"metavar": metavar, "help": text} | options, convert)


def flag(name: str, text: str, **options: Any) -> Argument:
    """Declare an option without a value, which is False unless it is given.

    Parameters
    ----------
    name, text, **options
        As for :func:`argument`.

    Returns
    -------
    Argument
        The declaration.
    """
    return Argument(name, {"action": "store_true", "help": text} | options)


def path(name: str, metavar: str, text: str, **options: Any) -> Argument:
    """Declare a path.

    Parameters
    ----------
    name, metavar, text, **options
        As for :func:`argument`.

    Returns
    -------
    Argument
        The declaration.
    """
    return replace(argument(name, metavar, text, type=_read_path, **options), is_path=True)


def new_path(name: str, metavar: str, text: str, **options: Any) -> Argument:
    """Declare a path whose content the command replaces or removes.

    Parameters
    ----------
    name, metavar, text, **options
        As for :func:`argument`.

    Returns
    -------
    Argument
        The declaration.
    """
    return replace(path(name, metavar, text, **options), replaces=True)


def output(metavar: str, text: str) -> Argument:
    """Declare ``--output``, a path that the command makes.

    Parameters
    ----------
    metavar, text
        As for :func:`argument`.

    Returns
    -------
    Argument
        The declaration.
    """
    return new_path("--output", metavar, text, required=True)


def named_paths(name: str, metavar: str, text: str, **options: Any) -> Argument:
    """Declare an option with paths that belong to datasets, ``DATASET=PATH``.

    Parameters
    ----------
    name, metavar, text, **options
        As for :func:`argument`.

    Returns
    -------
    Argument
        The declaration.
    """
    return argument(name, metavar, text, dict, type=_read_named_path, nargs="+", **options)


def settings_of(cls: type[StrictModel]) -> Argument:
    """Declare ``--settings``.

    Parameters
    ----------
    cls
        The class of the settings.

    Returns
    -------
    Argument
        The declaration.
    """
    text = "YAML or JSON file, which may be a complete configuration, or JSON (default: the defaults)"
    return argument("--settings", "SETTINGS", text, partial(load_step, cls))


def setting(key: str, metavar: str | None, text: str, **options: Any) -> Argument:
    """Declare an option that overrides a key of the settings.

    Parameters
    ----------
    key
        The key, for example ``prediction.tile``; the option is ``--tile``.
    metavar, text, **options
        As for :func:`argument`.

    Returns
    -------
    Argument
        The declaration.
    """
    name = key.rpartition(".")[2].replace("_", "-")
    return argument(f"--{name}", metavar, text, dest=f"settings.{key}", **options)


# Arguments of several commands ----------------------------------------------------------------------------------------

DEVICES = get_args(Device)
NOISE_DIRECTIONS = get_args(NoiseDirection)
DATASET = argument("dataset", "DATASET", "a dataset's YAML file, or its settings as JSON", _read_dataset)
DATA = path("--data", "DIR", "the data folder", required=True)
IMAGES = path("images", "IMAGES", "folder made by `dvlae prepare`")
MODEL = path("model", "MODEL", "folder made by `dvlae train`")
PSNR_CSVS = path("psnr_csvs", "PSNR_CSV", "tables made by `dvlae evaluate`, in their original folders", nargs="+")
SEED = argument("--seed", "N", "random seed (default: 0)", type=_read_seed, default=0)
SUGGESTION = path("--noise", "JSON", "made by `dvlae diagnose`, for --receptive-field auto: it suggests one")
DEVICE = argument("--device", None, "where to compute (default: auto)", choices=DEVICES, default="auto")
DEVICE_OF_SETTINGS = setting("device", None, "where to compute, instead of the device in the settings", choices=DEVICES)
CORES = argument("--cores", "N", "cores to use (default: all that are free)", _check_cores, type=int)
DRY_RUN = flag("--dry-run", "check the arguments, and only say what would be read and changed", dest=SHOW_ONLY)
EVALUATION = settings_of(EvaluationSettings)
PART = argument("--part", "K/N", "images of part K of N (default: all); see `dvlae gather`", Part.parse, default="1/1")
# How image files are read.
READING = (
    argument(
        "--axes",
        "AXES",
        "axes of each file, of S (images), T, C, Z, Y and X, such as ZYX for volumes (default: what the file says, "
        "with planes as images)",
        default="auto",
    ),
    flag("--override-axes", "use --axes even where a file says otherwise"),
    argument("--channel", "N|grey", "keep one channel, or the luminance of RGB", type=read_number_or_word),
    argument("--series", "N|NAME|all", "which series of images in a file", type=read_number_or_word, default="auto"),
)
REGISTERED = "made by `dvlae register` (default: the clean images are registered again)"
TARGETS = path("--targets", "CSV", f"table {REGISTERED}")
OVERRIDES = "configuration, as for snakemake: overrides config/config.yaml"
CONFIGURATION = (
    argument("--configfile", "FILE", OVERRIDES, dest="files", nargs="+", default=[]),
    argument(
        "--config",
        "KEY=VALUE",
        "keys of the configuration, as for snakemake: overrides all files",
        read_given,
        dest="given",
        nargs="+",
        default=[],
    ),
)
