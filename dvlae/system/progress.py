"""What a long step shows on standard error: a progress line and messages, for a terminal and for a log file."""

import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

TIME_LEFT_PATTERN = re.compile(r"so far, (?:(\d+):)?(\d+):(\d+) left\]")


class _Lines:
    """A text stream that turns the redrawing of a terminal line into lines of a log."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


class _StderrHandler(logging.Handler):
    """Writes a message as a plain line to the present standard error; a bar on the terminal is redrawn below it."""

    def emit(self, record: logging.LogRecord) -> None:
        # As with `print`, an error in writing ends the command: a full disk must not go unnoticed.
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the messages of the package on standard error while the block runs.

    The modules of the package log to ``logging.getLogger(__name__)``. Who uses them as a library decides what is shown;
    the command line, and a process that it starts, show all from ``INFO`` upward with this.
    """
    logger = logging.getLogger("dvlae")
    handler, level = _StderrHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def progress(
    iterable: Iterable | None = None, *, total: float | None = None, description: str, unit: str = "", **options: Any
) -> tqdm:
    """Show how far a long loop is and how long it will still take, on standard error.

    On a terminal a bar is redrawn in place; in a log file a line is added at most every ten seconds.

    Parameters
    ----------
    iterable, total
        As for :class:`tqdm.tqdm`.
    description
        What is being done, for example ``"predict"``.
    unit
        What is counted, for example ``"image"``.
    **options
        Passed on to :class:`tqdm.tqdm`, for example ``unit_scale=True``.

    Returns
    -------
    tqdm.tqdm
        Which yields the items of ``iterable``.
    """
    options = {"desc": description, "unit": unit, "total": total, **options}
    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    options["bar_format"] = (
        "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} {unit} [{elapsed} so far, {remaining} left]{postfix}"
    )
    return tqdm(iterable, file=_Lines(sys.stderr), mininterval=10, maxinterval=30, ascii=True, **options)


def time_left(line: str) -> int | None:
    """Find how long a loop will still take in a line of its log.

    Parameters
    ----------
    line
        Written by :func:`progress`.

    Returns
    -------
    int or None
        In seconds; None where the line does not say it.
    """
    found = TIME_LEFT_PATTERN.search(line)
    if found is None:
        return None
    hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return 3600 * hours + 60 * minutes + seconds
