"""What a command is, and how it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from operator import getitem
from typing import Any


@dataclass(frozen=True)
class Argument:
    """An argument of a command.

    Attributes
    ----------
    name
        What the user writes, for example ``--seed``; of a positional argument the function's parameter.
    options
        For ``argparse``. A ``dest`` that begins with ``settings.`` names a key of the settings: a value that is given
        replaces the one in them.
    convert
        Makes what the function takes out of what argparse read. It runs after parsing, so that it may import modules
        and raise a :class:`UserError`, and also where the argument is not given.
    """

    name: str
    options: dict[str, Any]
    convert: Callable[[Any], Any] | None = None

    @property
    def dest(self) -> str:
        """Where argparse puts the value."""
        return self.options.get("dest", self.name.removeprefix("--").replace("-", "_"))


@dataclass(frozen=True)
class Command:
    """A command: a function of the package, and what it is called with.

    Attributes
    ----------
    name
        What the user writes.
    help
        One sentence.
    function
        ``module:name`` of the function that does the work, or a function that calls it, where the arguments are not
        simply its parameters. Text that it returns is printed.
    """

    name: str
    help: str
    function: str | Callable[..., str | None]

    def run(self, arguments: Sequence[Argument], values: dict[str, Any]) -> None:
        """Call the function; print what it returns.

        Parameters
        ----------
        arguments
            Those of the command.
        values
            What argparse read, by their ``dest``.
        """
        changes = {key: values.pop(key) for key in list(values) if key.startswith("settings.")}
        for argument in arguments:
            if argument.convert is not None:
                values[argument.dest] = argument.convert(values[argument.dest])
        if changes:
            values["settings"] = _change_settings(values["settings"], changes)
        function = import_name(self.function) if isinstance(self.function, str) else self.function
        if (text := function(**values)) is not None:
            print(text)


def import_name(path: str) -> Any:
    """Import what a command needs, when it needs it.

    Parameters
    ----------
    path
        ``module:name``.

    Returns
    -------
    object
        What has this name in the module.
    """
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _change_settings(settings: Any, changes: dict[str, Any]) -> Any:
    """Return the settings with those values that were given, checked like the settings themselves."""
    from dvlae.config.messages import validate

    data = settings.model_dump()
    for path, value in changes.items():
        if value is not None:
            _, *blocks, key = path.split(".")
            reduce(getitem, blocks, data)[key] = value
    return validate(type(settings), data, "command line")
