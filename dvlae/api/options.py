"""Checks of the values that users call functions with."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dvlae.axes import AXES
from dvlae.config.fields import Autoregression, Device
from dvlae.config.sizes.receptive_field import kernel_and_blocks
from dvlae.system.errors import UserError

STEPS_ALLOWED = "None, or a whole number from 1"
# The kinds of the autoregressive decoder that come into question, the first one where there can be only one, by what a
# user may say.
DECODERS: dict[str, list[Autoregression]] = {
    "auto": ["nonlinear", "linear"],
    "nonlinear": ["nonlinear"],
    "linear": ["linear"],
    "best": ["nonlinear", "linear"],
}
MAX_SEED = 2**32 - 1
MAX_MINUTES = 365 * 24 * 60


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
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if is_number and 0 < value <= MAX_MINUTES:
        return float(value)
    raise UserError(f"minutes: found {value!r}, allowed: a number above 0 and up to {MAX_MINUTES} (a year)")


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


@dataclass(frozen=True)
class Wishes:
    """What a user may say of a training.

    Attributes
    ----------
    noise_direction
        An axis, ``none`` or ``auto``.
    receptive_field
        A number of pixels, or ``auto``.
    minutes
        Time for the training.
    max_steps
        Largest number of batches; None: as many as there is time for.
    seed
        Seed of the training and of the samples.
    device
        Where to compute.
    direct
        Whether a denoiser is refined even if there is little time.
    start_from
        Folder of a trained model whose weights are the first ones, and whose sizes, decoder, direction and receptive
        field the new one has, too; None: the first weights are random.
    decoder
        Kind of the autoregressive decoder: ``nonlinear``, ``linear``, or ``best``: both are trained, half of the time
        each, and the model with the smaller estimated error is kept. ``auto``: ``best`` where there is time for it, and
        else ``nonlinear``.

    Raises
    ------
    UserError
        If a value is not allowed.
    """

    noise_direction: str = "auto"
    receptive_field: int | str = "auto"
    minutes: float = 30.0
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    direct: bool = False
    start_from: Path | None = None
    decoder: str = "auto"

    def __post_init__(self) -> None:
        if self.noise_direction not in (*AXES, "none", "auto"):
            raise UserError(f"noise direction: found {self.noise_direction!r}, allowed: auto, x, y, z, none")
        if self.decoder not in DECODERS:
            raise UserError(f"decoder: found {self.decoder!r}, allowed: {', '.join(DECODERS)}")
        if self.start_from is not None and self.decoder != "auto":
            raise UserError(f"decoder: found {self.decoder}, allowed only without a model to start from, which has one")
        if self.start_from is not None and (self.noise_direction, self.receptive_field) != ("auto", "auto"):
            raise UserError(
                f"noise direction, receptive field: found {self.noise_direction}, {self.receptive_field}, allowed: "
                "auto, as those of the model to start from are kept"
            )
        steps = self.max_steps
        checked = {
            "receptive_field": check_receptive_field(self.receptive_field, self.noise_direction),
            "minutes": check_minutes(self.minutes),
            "max_steps": None if steps is None else check_whole_number("max_steps", steps, STEPS_ALLOWED, 1),
            "seed": check_seed(self.seed),
            "device": check_device(self.device),
        }
        for name, value in checked.items():
            # Numbers of NumPy become those of Python.
            object.__setattr__(self, name, value)

    @property
    def decoders(self) -> list[Autoregression]:
        """The kinds of decoder that come into question, the first one where there can be only one."""
        return DECODERS[self.decoder]
