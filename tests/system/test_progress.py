import io
import logging
import os

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


def test_an_error_in_writing_a_message_is_not_lost(monkeypatch):
    def refuse(text):
        raise OSError(28, "No space left on device")

    stream = io.StringIO()
    stream.write = refuse
    monkeypatch.setattr("sys.stderr", stream)
    with pytest.raises(OSError, match="No space left"), log_to_stderr():
        logger.info("a message")
