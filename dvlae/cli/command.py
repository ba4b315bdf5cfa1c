"""The parts of a command: its arguments, and the function that it calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dvlae.config.messages import validate
from dvlae.system.errors import UserError

# The option --dry-run of commands whose function does not have it.
SHOW_ONLY = "show_only"


@dataclass(frozen=True)
class Argument:
    """An argument of a command.

    Attributes
    ----------
    name
        The name on the command line, for example ``--seed``; for a positional argument, the function's parameter.
    options
        Options for ``argparse``. A ``dest`` that begins with ``settings.`` is a key of the settings, which the value
        overrides.
    convert
        Converts the value from argparse, or its default, for the function. It runs after parsing, so that it may raise
        a :class:`UserError`.
    is_path
        Whether the value is a path, or a list of paths.
    replaces
        Whether the value is a path whose content is replaced or removed.
    """

    name: str
    options: dict[str, Any]
    convert: Callable[[Any], Any] | None = None
    is_path: bool = False
    replaces: bool = False

    @property
    def dest(self) -> str:
        """The name of the value in the result of argparse."""
        return self.options.get("dest", self.name.removeprefix("--").replace("-", "_"))


@dataclass(frozen=True)
class Command:
    """A command, and the function of the package that it calls.

    Attributes
    ----------
    name
        The name on the command line.
    help
        One sentence.
    function
        ``module:name`` of a function whose parameters are the arguments, or a function that calls it if they are not.
        If it returns text, the text is printed.
    example
        The command as it is typed.
    """

    name: str
    help: str
    function: str | Callable[..., str | None]
    example: str

    def run(self, arguments: Sequence[Argument], values: dict[str, Any]) -> None:
        """Call the function, and print what it returns; or print what it would read and change, if that is wanted.

        Parameters
        ----------
        arguments
            The arguments of the command.
        values
            The values from argparse, by their ``dest``.

        Raises
        ------
        UserError
            If a value is not allowed, or an output would replace an input.
        """
        show_only = values.pop(SHOW_ONLY, False)
        changes = {key: values.pop(key) for key in list(values) if key.startswith("settings.")}
        for argument in arguments:
            if argument.convert is not None:
                values[argument.dest] = argument.convert(values[argument.dest])
        _check_paths(arguments, values)
        if changes:
            values["settings"] = _change_settings(values["settings"], changes)
        if show_only:
            print(_describe_paths(arguments, values))
            return
        function = resolve_name(self.function) if isinstance(self.function, str) else self.function
        if (text := function(**values)) is not None:
            print(text)


Commands = dict[Command, list[Argument]]


def _check_paths(arguments: Sequence[Argument], values: dict[str, Any]) -> None:
    """Refuse a path that is replaced if it is, or contains, another one or the working folder."""
    paths = [(argument, path) for argument in arguments for path in _paths(values.get(argument.dest))]
    for argument, path in paths:
        if not argument.replaces:
            continue
        others = [(other.name, str(place), place) for other, place in paths if other is not argument]
        for name, text, place in [*others, ("the working folder", "", Path())]:
            if path.resolve() in (place.resolve(), *place.resolve().parents):
                what = f"{name} {text}".rstrip()
                raise UserError(f"{argument.name}: found {path}, which would replace {what}; allowed: another path")


def _describe_paths(arguments: Sequence[Argument], values: dict[str, Any]) -> str:
    """Say what is at the paths that a command reads and changes, a line for each."""
    lines = []
    for argument in arguments:
        for path in _paths(values.get(argument.dest)) if argument.is_path else []:
            does = "changes" if argument.replaces else "reads"
            if path.is_dir():
                found = f"a folder, files: {sum(file.is_file() for file in path.rglob('*'))}"
            else:
                found = "a file" if path.exists() else "not there"
            lines.append(f"{does:7}  {path}: {found}")
    return "\n".join(lines)


def _paths(value: Any) -> list[Path]:
    """Return the paths in the value of an argument."""
    if isinstance(value, dict):
        value = list(value.values())
    return [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, Path)]


def _change_settings(settings: Any, changes: dict[str, Any]) -> Any:
    """Return the settings with the values that were given, validated like the settings themselves."""
    data = settings.model_dump()
    for path, value in changes.items():
        if value is not None:
            _, *blocks, key = path.split(".")
            reduce(getitem, blocks, data)[key] = value
    return validate(type(settings), data, "command line")
