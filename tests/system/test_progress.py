import io
import logging
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from dvlae.system.progress import log_to_stderr, progress, time_left

logger = logging.getLogger("dvlae.system.progress")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_messages_are_lines_on_standard_error_while_they_are_asked_for(capsys):
    with log_to_stderr():
        logger.info("a message")
        logger.warning("a warning")
        logger.debug("a detail")
    logger.info("nobody asked for this")
    assert capsys.readouterr() == ("", "a message\na warning\n")


def test_warnings_are_shown_on_the_screen_too_where_standard_error_is_a_log(capsys, monkeypatch):
    screen, written = os.pipe()
    monkeypatch.setenv("DVLAE_SCREEN", str(written))
    with log_to_stderr():
        logger.info("a message")
        logger.warning("a warning")
        # The processes that it starts do not have this file.
        assert "DVLAE_SCREEN" not in os.environ
    os.close(written)
    assert os.read(screen, 1000) == b"a warning\n"
    assert capsys.readouterr() == ("", "a message\na warning\n")


def test_messages_of_other_packages_are_left_alone(capsys):
    with log_to_stderr():
        logging.getLogger("another").info("of another package")
    assert capsys.readouterr() == ("", "")


def test_in_a_log_file_progress_is_lines(capsys):
    with log_to_stderr(), progress(total=4, description="predict", unit="image") as bar:
        bar.update(1)
        logger.info("a message")
        bar.update(3)
    first, message, last = capsys.readouterr().err.splitlines()
    assert first == "predict:   0% 0/4 image [00:00 so far, ? left]"
    assert message == "a message"
    assert last.startswith("predict: 100% 4/4 image [00:00 so far, 00:00 left]")
    assert time_left(last) == 0


def test_in_a_log_file_no_line_of_progress_stands_twice(capsys):
    with log_to_stderr(), progress(total=2, description="evaluate") as bar:
        bar.update(2)
        bar.refresh()
        bar.refresh()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "evaluate: 100% 2/2 [00:00 so far, 00:00 left]"
    assert len(lines) == len(set(lines)) == 2


def test_without_messages_there_is_no_progress_either(capsys):
    with progress(total=2, description="evaluate") as bar:
        bar.update(2)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_message_stands_above_the_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with log_to_stderr(), progress(total=4, description="predict", mininterval=0):
        logger.info("a message")
    before, after = terminal.getvalue().split("a message\n")
    assert before.rsplit("\r", 1)[1] == "", "the bar is wiped off the line"
    assert after.lstrip("\r").startswith("predict:"), "and is drawn again below it"


SHOW = """
import sys, time
from dvlae.system.progress import log_to_stderr, progress
with log_to_stderr(), progress(total=3, description="train", unit="s", mininterval=0) as bar:
    for _ in range(3):
        bar.set_postfix_str("ELBO 1.234, " + 20 * "a long text ", refresh=False)
        time.sleep(0.01)
        bar.update(1)
"""


@pytest.mark.skipif(os.name == "nt", reason="unavailable: Windows has no terminals for tests")
@pytest.mark.parametrize(
    ("columns", "encoding", "shown"),
    [
        (80, "utf-8", "train:  67% |██████▋   | 00:00 left, 00:00 so far, 2/3 s, ELBO 1.234"),
        (36, "utf-8", "train:  67% |██████▋   | 00:00 left"),
        (0, "utf-8", "train:  67% |██████▋   | 00:00 left, 00:00 so far, 2/3 s, ELBO 1.234"),
        (60, "cp1252", "train:  67% |######6   | 00:00 left, 00:00 so far, 2/3 s, "),
    ],
)
def test_a_terminal_shows_the_time_left_in_one_line_whatever_its_width_and_characters(columns, encoding, shown):
    import pty
    import termios
    import tty

    main, other = pty.openpty()
    tty.setraw(other)
    termios.tcsetwinsize(other, (24 if columns else 0, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, "-c", SHOW], stderr=other, env=environment | {"PYTHONIOENCODING": encoding}
    ) as showing:
        os.close(other)
        written = b""
        with suppress(OSError):  # The end of a terminal.
            while read := os.read(main, 65536):
                written += read
    os.close(main)
    assert showing.returncode == 0
    lines = written.decode(encoding).split("\r")
    assert lines[-1].count("\n") == 1, "one line is left"
    assert any(line.startswith(shown) for line in lines), lines
    assert max(len(line.rstrip("\n")) for line in lines) < (columns or 81)


def test_an_error_in_writing_a_message_is_not_lost(monkeypatch):
    def refuse(text):
        raise OSError(28, "No space left on device")

    stream = io.StringIO()
    stream.write = refuse
    monkeypatch.setattr("sys.stderr", stream)
    with pytest.raises(OSError, match="No space left"), log_to_stderr():
        logger.info("a message")
