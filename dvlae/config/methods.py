"""Method files: how a way to denoise images is run, what it sees, and what is known of it."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from dvlae.config.fields import (
    Positive,
    StrictModel,
    SuggestedField,
    check_method_name,
    dataset_name,
    expand_home,
)
from dvlae.config.loading import load_settings
from dvlae.system.errors import UserError, did_you_mean
from dvlae.system.software import shipped_methods

PACKAGE = Path(__file__).parents[1]
METHOD_FOLDER = Path("config/methods")
# In a command, ${name} is left to the shell.
PLACE_PATTERN = re.compile(r"(?<!\$)\{([a-z_]+)\}")
PLACES = (
    "python", "here", "code", "noisy", "clean", "denoised", "seed", "minutes", "threads", "device", "settings",
    "record",
)  # fmt: skip
# How a method may be run; each file has one of these keys.
KINDS = ("function", "command", "dvlae", "unavailable")
# Names of our own method, which need no file.
OWN_PATTERN = re.compile(r"dvlae-rf(\d+)(-linear)?")

Text = Annotated[str, Field(min_length=1)]
Values = dict[str, JsonValue]


class OwnSettings(StrictModel):
    """Our own network, with settings laid over those of the configuration."""

    receptive_field: SuggestedField = Field(
        description="of the autoregressive decoder, in pixels; `auto`: what `dvlae diagnose` suggests for each dataset"
    )
    model: Values = Field({}, description="keys of `model`")
    training: Values = Field({}, description="keys of `training`")
    prediction: Values = Field({}, description="keys of `prediction`")


class MethodSettings(StrictModel):
    """A method file. It has one of the keys ``function``, ``command``, ``dvlae`` and ``unavailable``."""

    description: Text = Field(description="what the method is, in one line")
    function: str | None = Field(
        None, description="module of `dvlae.methods` with a function `fit`, for example `filters.scikit_image`"
    )
    command: Text | None = Field(
        None,
        description="line for the shell, which reads the images in `{noisy}` and writes estimates with the same names "
        f"into `{{denoised}}`; places: {', '.join(f'`{{{name}}}`' for name in PLACES)}",
    )
    dvlae: OwnSettings | None = Field(
        None, description="our own network, with settings laid over those of the configuration"
    )
    unavailable: Text | None = Field(None, description="why the method cannot be run; a row of the tables says so")
    environment: Text | None = Field(
        None,
        description="requirements file for pip, relative to this file; its own environment has the interpreter "
        "`{python}`; `null`: that of dvlae",
    )
    files: Text | None = Field(
        None,
        description="registry of files to download into the folder `{code}`, as that of a dataset: CSV with the "
        "columns file, sha256 and url, relative to this file",
    )
    sees: Literal["noisy", "repeats", "pairs", "clean"] = Field(
        "noisy",
        description="what the method learns from or is calibrated by: `noisy` images, `repeats` of frames, noisy "
        "`pairs`, or `clean` images",
    )
    oracle: bool = Field(
        False,
        description="whether it is trained, or its parameters are chosen, with the clean images of the evaluation",
    )
    trains: bool = Field(False, description="whether it trains for `training.max_minutes`")
    seeds: bool = Field(False, description="whether it is run once for each seed; otherwise once, with seed 0")
    device: Literal["any", "cuda"] = Field("any", description="`cuda`: it is run on a GPU only")
    prediction_minutes: Positive = Field(
        10.0, description="time for a command besides that for training, after which it is ended"
    )
    settings: Values = Field({}, description="settings of the method itself")
    candidates: list[Values] = Field(
        [],
        max_length=4,
        description="settings to try for two minutes each, laid over `settings`; those with the smallest validation "
        "loss are taken",
    )
    source: Text | None = Field(None, description="where the settings come from")
    tuned_by: Text | None = Field(None, description="who tuned what, in one line")
    licence: Text | None = Field(None, description="licence of the method's code")
    citation: Text | None = Field(None, description="what to cite for the method")

    @field_validator("function")
    @classmethod
    def _function(cls, value: str | None) -> str | None:
        there = _functions()
        if value is None or value in there:
            return value
        raise ValueError(f"found {value!r}, {did_you_mean(value, there)}allowed: {', '.join(there)}")

    @field_validator("command")
    @classmethod
    def _places(cls, value: str | None) -> str | None:
        names = PLACE_PATTERN.findall(value or "")
        for name in names:
            if name not in PLACES:
                known = ", ".join(f"{{{place}}}" for place in PLACES)
                raise ValueError(f"found {{{name}}}, {did_you_mean(name, PLACES)}allowed: {known}")
        if value is not None and not {"noisy", "denoised"} <= set(names):
            raise ValueError(f"found {value!r}, allowed: a line with {{noisy}} and {{denoised}}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "MethodSettings":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none of them'}, allowed: one of {', '.join(KINDS)}")
        if given != ["command"]:
            for key in ("environment", "files"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: found {getattr(self, key)!r}, allowed: with `command` only")
        if self.command is not None and "{clean}" in self.command and self.sees != "clean":
            raise ValueError(f"sees: found {self.sees!r}, allowed: 'clean', as the command has the place {{clean}}")
        if self.command is not None and "{code}" in self.command and self.files is None:
            raise ValueError("files: found none, allowed: a registry, as the command has the place {code}")
        if self.candidates and not (self.trains and given[0] in ("function", "command")):
            raise ValueError(f"candidates: found {len(self.candidates)}, allowed: where a function or command trains")
        return self

    @property
    def identity(self) -> str:
        """What its results depend on, as JSON."""
        return self.model_dump_json(exclude={"description", "source", "tuned_by", "licence", "citation"})


@cache
def _functions() -> list[str]:
    """Return the modules that have a function `fit`."""
    return [
        file.relative_to(PACKAGE / "methods").with_suffix("").as_posix().replace("/", ".")
        for file in sorted((PACKAGE / "methods").glob("*/[a-z]*.py"))
        if "\ndef fit(" in file.read_text(encoding="utf-8")
    ]


def load_method(path_or_name: str) -> tuple[str, MethodSettings, Path]:
    """Read and check a method file.

    Parameters
    ----------
    path_or_name
        A path that ends with ``.yaml`` or ``.yml``, or the name of a file in ``config/methods/`` of the working folder
        or, if there is none, of this package.

    Returns
    -------
    name, settings, path
        The method's name, the content of its file, and where this is.

    Raises
    ------
    UserError
        If there is no such file (the message names the nearest one), or a setting in it is wrong.
    """
    name = dataset_name(path_or_name)
    try:
        check_method_name(name)
    except ValueError as error:
        raise UserError(f"methods: {error}; our own methods are dvlae-rfN and dvlae-rfN-linear") from None
    if path_or_name != name:
        path = expand_home(path_or_name)
        if not path.is_file():
            raise UserError(f"methods: found {path_or_name!r}, but there is no such file")
    else:
        folders = [METHOD_FOLDER, shipped_methods()]
        found = [folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()]
        if not found:
            there = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
            raise UserError(
                f"methods: found {name!r}, {did_you_mean(name, there)}allowed: dvlae-rfN, a path that ends with .yaml, "
                f"or a file in {METHOD_FOLDER.as_posix()}: {', '.join(there)}"
            )
        path = found[0]
    settings = load_settings(MethodSettings, path)
    for key in ("environment", "files"):
        file = getattr(settings, key)
        if file is not None and not (path.parent / file).is_file():
            raise UserError(f"{path}: {key}: found {file!r}, but there is no file {path.parent / file}")
    return name, settings, path


def fill_places(command: str, values: dict[str, Any]) -> str:
    """Fill in the places of a command.

    Parameters
    ----------
    command
        The line of a method file.
    values
        What to write at each place, ready for the shell.

    Returns
    -------
    str
        The line without places.
    """
    return PLACE_PATTERN.sub(lambda found: str(values[found[1]]), command)
