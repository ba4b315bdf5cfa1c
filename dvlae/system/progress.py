"""One progress line for a terminal and for a log file, each readable."""

import re
import sys
from typing import TextIO

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


def log(text: str) -> None:
    """Print a line; a bar on the terminal is redrawn below it."""
    tqdm.write(text, file=sys.stdout)


def progress(iterable=None, *, total=None, description: str, unit: str = "", **options) -> tqdm:
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
    """
    options = {"desc": description, "unit": unit, "total": total, **options}
    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    options["bar_format"] = (
        "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} {unit} [{elapsed} so far, {remaining} left]{postfix}"
    )
    return tqdm(iterable, file=_Lines(sys.stderr), mininterval=10, maxinterval=30, ascii=True, **options)


def time_left(line: str) -> int | None:
    """Return the seconds that a line of a log, written by :func:`progress`, says are left; None where it says none."""
    found = TIME_LEFT_PATTERN.search(line)
    if found is None:
        return None
    hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return 3600 * hours + 60 * minutes + seconds
