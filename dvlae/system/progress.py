"""Progress and messages on standard error, for a terminal or a log file."""

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

# The environment variable with the number of the open file where warnings are shown, too. The workflow sets it, as it
# writes standard error to logs that nobody may look at.
SCREEN_VARIABLE = "DVLAE_SCREEN"
USUAL_SIZE = {"ncols": 80, "nrows": 24}
TIME_LEFT_PATTERN = re.compile(r"so far, (?:(\d+):)?(\d+):(\d+) left\]")


class _Lines:
    """A text stream that writes each update of a progress bar as a line of a log, but none twice in a row."""

    def __init__(self, stream: TextIO):
        self.stream, self.last = stream, ""

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text not in ("", self.last):
            self.stream.write(text + "\n")
            self.last = text

    def flush(self) -> None:
        self.stream.flush()


class _StderrHandler(logging.Handler):
    """A handler that writes messages as plain lines to standard error, above any progress bar on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        # Unlike in other handlers, an error in writing ends the command, so that a full disk is noticed.
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the messages of the package on standard error while the block runs.

    The modules of the package log to ``logging.getLogger(__name__)``. The command line and the processes that it starts
    show messages of level ``INFO`` and above with this function; users of the library choose themselves.
    """
    logger = logging.getLogger("dvlae")
    level = logger.level
    handlers: list[logging.Handler] = [_StderrHandler(), *_screen()]
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def silence() -> Iterator[None]:
    """Show neither messages nor progress of the package while the block runs."""
    logger = logging.getLogger("dvlae")
    level, handlers = logger.level, logger.handlers
    logger.handlers = []
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)


def _screen() -> list[logging.Handler]:
    """Return a handler for warnings on the screen, if there is one besides standard error."""
    # In other processes, which inherit the environment, the number may be that of any file.
    number = os.environ.pop(SCREEN_VARIABLE, None)
    if number is None:
        return []
    screen = os.fdopen(int(number), "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    handler = logging.StreamHandler(screen)
    handler.setLevel(logging.WARNING)
    return [handler]


def progress(
    iterable: Iterable | None = None, *, total: float | None = None, description: str, unit: str = "", **options: Any
) -> tqdm:
    """Show the progress and the remaining time of a long loop on standard error.

    On a terminal a bar is redrawn in place; in a log file a line is added at most every ten seconds. Nothing is shown
    outside of :func:`log_to_stderr`.

    Parameters
    ----------
    iterable, total
        As for :class:`tqdm.tqdm`.
    description
        The name of the step, for example ``"predict"``.
    unit
        The name of an item, for example ``"image"``.
    **options
        Other options of :class:`tqdm.tqdm`, for example ``unit_scale=True``.

    Returns
    -------
    tqdm.tqdm
        An iterator over the items of ``iterable``.
    """
    shown = any(isinstance(handler, _StderrHandler) for handler in logging.getLogger("dvlae").handlers)
    options = {"desc": description, "unit": unit, "total": total, "disable": not shown, **options}
    count = "{n_fmt}/{total_fmt} {unit}" if unit else "{n_fmt}/{total_fmt}"
    if sys.stderr.isatty():
        # A narrow terminal shows the beginning.
        options["bar_format"] = (
            "{desc}: {percentage:3.0f}% |{bar:10}| {remaining} left, {elapsed} so far, " + count + "{postfix}"
        )
        options |= {"dynamic_ncols": True} if _has_size() else USUAL_SIZE
        return tqdm(iterable, **options)
    options["bar_format"] = "{desc}: {percentage:3.0f}% " + count + " [{elapsed} so far, {remaining} left]{postfix}"
    return tqdm(iterable, file=_Lines(sys.stderr), mininterval=10, maxinterval=30, ascii=True, **options)


def _has_size() -> bool:
    """Return whether the terminal knows its size. Those of some containers and consoles do not."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except OSError:
        return False


def time_left(line: str) -> int | None:
    """Read the remaining time of a loop from a line of its log.

    Parameters
    ----------
    line
        A line written by :func:`progress`.

    Returns
    -------
    int or None
        The remaining seconds; None if the line does not contain them.
    """
    found = TIME_LEFT_PATTERN.search(line)
    if found is None:
        return None
    hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return 3600 * hours + 60 * minutes + seconds
