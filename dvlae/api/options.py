"""Checks of the values that users call functions with."""

import os
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dvlae.config.fields import Device
from dvlae.config.sizes.receptive_field import kernel_and_blocks
from dvlae.system.errors import UserError

MAX_SEED = 2**32 - 1


def check_whole_number(name: str, value: Any, allowed: str, least: int = 0, most: float = np.inf) -> int:
    """Return a whole number of Python or NumPy.

    Parameters
    ----------
    name
        Name of the argument.
    value
        What was given.
    allowed
        What a message says is allowed.
    least, most
        The limits.

    Returns
    -------
    int
        The number.

    Raises
    ------
    UserError
        If it is something else.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    raise UserError(f"{name}: found {value!r}, allowed: {allowed}")


def check_seed(value: Any) -> int:
    """Return a seed.

    Parameters
    ----------
    value
        What was given.

    Returns
    -------
    int
        The seed.

    Raises
    ------
    UserError
        If it is something else.
    """
    return check_whole_number("seed", value, f"a whole number from 0 to {MAX_SEED}", 0, MAX_SEED)


def check_minutes(value: Any) -> float:
    """Return a time.

    Parameters
    ----------
    value
        What was given.

    Returns
    -------
    float
        The time, in minutes.

    Raises
    ------
    UserError
        If it is something else.
    """
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and 0 < value < np.inf:
        return float(value)
    raise UserError(f"minutes: found {value!r}, allowed: a number above 0")


def check_receptive_field(value: Any, direction: str) -> int | str:
    """Return a receptive field.

    Parameters
    ----------
    value
        What was given.
    direction
        The direction of the noise, or ``auto``.

    Returns
    -------
    int or str
        A number of pixels, or ``auto``.

    Raises
    ------
    UserError
        If it is something else, no decoder has it, or there is one without a direction.
    """
    if isinstance(value, str) and value == "auto":
        return value
    field = check_whole_number("receptive field", value, "auto, or a number of pixels")
    if direction == "none" and field:
        raise UserError(f"receptive field: found {field}, allowed: 0, or a noise direction, as the noise has none")
    kernel_and_blocks(field)
    return field


def check_device(value: Any) -> str:
    """Return the name of a kind of device.

    Parameters
    ----------
    value
        What was given.

    Returns
    -------
    str
        The name.

    Raises
    ------
    UserError
        If it is something else.
    """
    if isinstance(value, str) and value in get_args(Device):
        return value
    raise UserError(f"device: found {value!r}, allowed: {', '.join(get_args(Device))}")


def check_flag(name: str, value: Any) -> bool:
    """Return True or False.

    Parameters
    ----------
    name
        Name of the argument.
    value
        What was given.

    Returns
    -------
    bool
        The value.

    Raises
    ------
    UserError
        If it is something else.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise UserError(f"{name}: found {value!r}, allowed: True, False")


def check_folder(name: str, value: Any, allowed: str) -> Path:
    """Return the path of a folder.

    Parameters
    ----------
    name
        Name of the argument.
    value
        What was given.
    allowed
        What a message says is allowed.

    Returns
    -------
    Path
        The path. Whether there is such a folder is not checked.

    Raises
    ------
    UserError
        If it is something else.
    """
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise UserError(f"{name}: found {value!r}, allowed: {allowed}")
