"""What a command shows: warnings, kept for its page and its record, and errors, in the words of its options."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dvlae.system.errors import UserError

PREFIX_PATTERN = re.compile("^[a-z]+: (warning: )?", re.IGNORECASE)
# What messages about values begin with, and what they say of how a file is read.
NAME_PATTERN = re.compile(
    "^(minutes|seed|samples|noise direction|receptive field|decoder|device)(?=: )"
    "|(^|(?<=: ))(command line: )?(axes|channel|series|noise_direction(?=: found '))(?=: found)"
)
# What a message says of settings of a dataset, and the options of commands that set them.
OPTIONS = {
    "`axes_override: true` follows the settings": "--override-axes follows --axes",
    "set `axes_override: true`": "add --override-axes",
    "`axes_override: true`": "--override-axes",
    "`axes: auto` follows the file": "without --axes, the file is followed",
    "set `training.rescale: true` and `prediction.rescale: true`, or make two datasets": "use a command for each kind",
    "set `training.rescale: true`, or make two datasets": "use a command for each kind",
    "; `training.rescale: true` helps if they have another gain or offset": "",
    "set `prediction.rescale: true`, or --rescale": "use --model with --rescale",
    "allowed: null, as": "leave it out, as",
    "or grey or null": "or grey",
    "training.max_minutes now leaves": "--minutes now leaves",
    "make two datasets": "train on each kind apart",
    "no pixel counts, as `mask` leaves out all of them, or none is a number": (
        "no pixel counts: each is no number (NaN), or part of a border or a mask"
    ),
    "; in a file for `mask`, pixels other than 0 count": "",
    "(NaN, a border, or `mask`)": "(NaN or a border)",
    " of `noisy`": "",
    " of the dataset": "",
}
VALUE_PATTERN = re.compile("`(axes|channel|series)(?:: ([^`]+))?`")
# Settings that no option sets.
SETTING_PATTERN = re.compile("`(training|prediction|evaluation|model|crop|mask|pages)\\b[^`]*`")
IN_WORKFLOW = " (settings of the workflow, which dvlae init writes)"
OPTION_PATTERN = re.compile("--([a-z]+(?:-[a-z]+)*)(?: ([0-9.]+|[A-Z]+|grey)\\b)?")


class Warnings(logging.Handler):
    """The warnings of all steps, each once, in a file, so that they outlast an interruption.

    Attributes
    ----------
    lines
        The warnings.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._path: Path | None = None

    def keep(self, path: Path) -> None:
        """Go on with the warnings in a file, and write later ones into it, too.

        Parameters
        ----------
        path
            The file, which need not exist.
        """
        older = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.lines = list(dict.fromkeys([*older, *self.lines]))
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Add a warning.

        Parameters
        ----------
        record
            A message of the package.
        """
        if (text := record.getMessage()) not in self.lines:
            self.lines.append(text)
        if self._path is not None:
            self._path.write_text("\n".join(self.lines), encoding="utf-8", newline="\n")

    def for_page(self) -> list[str]:
        """Return what a page says of the warnings.

        Returns
        -------
        list of str
            The warnings without the names of the steps, and without those of the diagnosis, which the page has anyway.
        """
        return [PREFIX_PATTERN.sub("", line) for line in self.lines if not line.startswith("diagnose: ")]

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the warnings of the package while the block runs."""
        package = logging.getLogger("dvlae")
        package.addHandler(self)
        try:
            yield
        finally:
            package.removeHandler(self)


@contextmanager
def messages_reworded(reword: Callable[[str], str]) -> Iterator[None]:
    """Reword messages of the package, and an error, while the block runs.

    Parameters
    ----------
    reword
        Takes a message and returns it in other words.

    Raises
    ------
    UserError
        The error that the block raises, in other words.
    """

    def reword_record(record: logging.LogRecord) -> bool:
        record.msg, record.args = reword(record.getMessage()), ()
        return True

    # A filter of a logger does not see the messages of those below it.
    loggers = [logging.getLogger(name) for name in [*logging.root.manager.loggerDict] if name.startswith("dvlae.")]
    for logger in loggers:
        logger.addFilter(reword_record)
    try:
        yield
    except UserError as error:
        raise UserError(reword(str(error))) from error
    finally:
        for logger in loggers:
            logger.removeFilter(reword_record)


@contextmanager
def options_named(command: str) -> Iterator[None]:
    """Name the command, and options instead of settings, in messages and errors while the block runs.

    Parameters
    ----------
    command
        The command that was typed, in place of ``denoise``, whose steps others share.
    """
    with messages_reworded(lambda text: name_options(text, command)):
        yield


def name_options(text: str, command: str) -> str:
    """Let a message name the command, and options instead of settings.

    Parameters
    ----------
    text
        The message.
    command
        The command that was typed.

    Returns
    -------
    str
        The message. Of settings without an option, it says where they are, unless the command writes them.
    """
    text = re.sub("^noisy: ", "FILES: ", re.sub("^denoise: ", f"{command}: ", text))
    for setting, option in OPTIONS.items():
        text = text.replace(setting, option)
    text = VALUE_PATTERN.sub(lambda found: f"--{found[1]} {found[2] or ''}".rstrip(), text)
    text = NAME_PATTERN.sub(lambda found: "--" + re.sub("[ _]", "-", found[0].removeprefix("command line: ")), text)
    text = text.replace("noise_direction: found", "noise direction: found")
    return text + IN_WORKFLOW if command != "init" and SETTING_PATTERN.search(text) else text


def name_arguments(text: str, function: str) -> str:
    """Let a message name the function, and its arguments instead of options and settings.

    Parameters
    ----------
    text
        The message.
    function
        The function of ``dvlae`` that was called.

    Returns
    -------
    str
        The message, such as ``minutes=10 has time for 500``.
    """
    text = name_options(text, function).removeprefix("FILES: ").replace("--overwrite ", "")
    text = text.replace("use --model with --rescale", "set rescale=True")
    return OPTION_PATTERN.sub(lambda found: "=".join(filter(None, [found[1].replace("-", "_"), found[2]])), text)
