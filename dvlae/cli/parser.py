"""The parser of the command line: help in groups, and the nearest known word in answer to an unknown one."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

from dvlae import __version__
from dvlae.cli.command import Argument, Command
from dvlae.cli.commands import COMMANDS, GROUPS
from dvlae.system.errors import did_you_mean

DESCRIPTION = "Remove signal-dependent, row- or column-correlated noise, without any clean image."
EXIT_CODES = {
    "0": "success",
    "1": "a mistake in the input, or a full or unwritable disk: one line says what; or a bug: a traceback",
    "2": "wrong arguments",
    "130": "interrupted by Ctrl-C",
    "143": "terminated",
}
NUMBERS = {int: "a whole number", float: "a number"}
# The names are as long as `extract-patches`, at most.
_INDENT = 20


class Parser(argparse.ArgumentParser):
    """A parser that names the nearest option it knows in answer to an unknown one, and prints its epilog as it is.

    Parameters
    ----------
    description, **options
        As for :class:`argparse.ArgumentParser`.
    """

    def __init__(self, *, description: str, **options: Any):
        self._known: list[str] = []
        self._given: Sequence[str] = ()
        options |= {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(description=textwrap.fill(description, _width()), **options)

    def add(self, argument: Argument, complete_paths: object) -> None:
        """Add an argument of a command.

        Parameters
        ----------
        argument
            The declaration.
        complete_paths
            What the completion of a shell is told about paths.
        """
        options = dict(argument.options)
        if "choices" in options:
            options["type"] = partial(_choose, options["choices"])
        elif options.get("type") in NUMBERS:
            options["type"] = partial(_read_number, options["type"])
        action = self.add_argument(argument.name, **options)
        if argument.is_path:
            action.complete = complete_paths  # type: ignore[attr-defined]

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:  # noqa: D102
        action = super().add_argument(*names, **options)
        self._known += action.option_strings
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: D102
        self._given = list(sys.argv[1:] if args is None else args)
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            # Here, as the parser of all commands, which would say it otherwise, knows no options of this one.
            self.error(f"unknown: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:  # noqa: D102
        given = self._given[: self._given.index("--")] if "--" in self._given else self._given
        names = [word.partition("=")[0] for word in given if word.startswith("-") and not word[1:2].isdecimal()]
        hints = {name: did_you_mean(name, self._known) for name in names if name not in self._known}
        super().error("; ".join([message, *(f"{name}: {hint.rstrip()}" for name, hint in hints.items() if hint)]))


def _read_number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: {NUMBERS[kind]}") from None


def _choose(choices: Iterable[str], text: str) -> str:
    if text not in choices:
        raise argparse.ArgumentTypeError(f"found {text!r}; {did_you_mean(text, choices)}allowed: {', '.join(choices)}")
    return text


def make_parser(complete_paths: object = None) -> Parser:
    """Make the parser of all commands.

    Parameters
    ----------
    complete_paths
        What the completion of a shell is told about paths; None: nothing.

    Returns
    -------
    Parser
        It returns the arguments of one command, and the command itself as ``command``.
    """
    parser = Parser(prog="dvlae", usage="dvlae [--help] [--version] COMMAND ...", description=DESCRIPTION)
    parser.epilog = _describe_commands()
    parser.add_argument("--version", action="version", version=f"dvlae {__version__}")
    # The help lists the commands in groups, which argparse does not have. The completion leaves out what has no help.
    shown = argparse.SUPPRESS if complete_paths is None else "the command"
    commands = parser.add_subparsers(prog="dvlae", metavar="COMMAND", required=True, help=shown)
    for command, arguments in COMMANDS.items():
        example = f"example:\n  {command.example}"
        added = commands.add_parser(command.name, help=command.help, description=command.help, epilog=example)
        added.set_defaults(command=command)
        for argument in arguments:
            added.add(argument, complete_paths)
    return parser


def parse(words: Sequence[str]) -> tuple[Command, dict[str, Any]]:
    """Parse the command line. Wrong arguments end the process with exit code 2.

    Parameters
    ----------
    words
        The arguments after ``dvlae``.

    Returns
    -------
    command : Command
        The command.
    values : dict
        Its values, by their ``dest``.
    """
    parser = make_parser()
    names = [command.name for command in COMMANDS]
    # The options before a command take no value.
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in names:
        parser.error(f"unknown command {name!r}; {did_you_mean(name, names)}allowed: {', '.join(names)}")
    values = vars(parser.parse_args(words))
    return values.pop("command"), values


def _describe_commands() -> str:
    blocks = {title: {command.name: command.help for command in commands} for title, commands in GROUPS.items()} | {
        "exit codes": EXIT_CODES
    }
    texts = ["\n".join([f"{title}:", *(_entry(*entry) for entry in block.items())]) for title, block in blocks.items()]
    texts.insert(-1, "`dvlae COMMAND --help` explains a command and has an example.")
    return "\n\n".join(texts)


def _entry(name: str, text: str) -> str:
    first = f"  {name}".ljust(_INDENT)
    return textwrap.fill(text, _width(), initial_indent=first, subsequent_indent=" " * _INDENT)


def _width() -> int:
    """Return the width of a line of the help, as that of argparse."""
    return max(_INDENT + 20, shutil.get_terminal_size().columns - 2)
