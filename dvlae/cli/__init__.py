"""The command line: it parses the arguments, runs a command, and reports errors in one line with an exit code."""

import io
import os
import signal
import sys

from dvlae.cli.commands import COMMANDS
from dvlae.cli.parser import parse
from dvlae.system.errors import UserError
from dvlae.system.progress import log_to_stderr

# The exit codes that shells report for commands ended by Ctrl-C and SIGTERM.
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        The arguments after ``dvlae``; None: those of the process.

    Returns
    -------
    int
        The exit code: 0 for success; 1 for a mistake of the user or a full or unwritable disk, with one line on
        standard error; 130 for an interruption. Wrong arguments end the process with 2. Any other exception is a bug
        and shows its traceback.
    """
    command, values = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file or a console of Windows may have few characters; standard error shows others as numbers already.
        sys.stdout.reconfigure(errors="backslashreplace")
    # NumPy and PyTorch read them when they are imported. Threads of one operation wait for each other by spinning, so
    # another busy process slows them down many times; workers use the cores better. Methods that are compared with may
    # need such threads, which then sleep.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    try:
        with log_to_stderr():
            command.run(COMMANDS[command], values)
    except UserError as error:
        problem = str(error)
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        problem = f"{where}{error.strerror}"
    except KeyboardInterrupt:
        print(f"dvlae {command.name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except SystemExit as end:
        if end.code == EXIT_TERMINATED:
            print(f"dvlae {command.name}: terminated", file=sys.stderr)
        raise
    else:
        return 0
    # The exception and the files that it referred to are gone here, so that a full disk has space for this line.
    print(f"dvlae {command.name}: error: {problem}", file=sys.stderr)
    return 1


def _end(signal_number: int, frame: object) -> None:
    """Exit through the ``finally`` blocks, which remove incomplete files."""
    sys.exit(EXIT_TERMINATED)
