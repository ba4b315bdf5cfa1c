import itertools
import logging
from types import SimpleNamespace

import pytest

from dvlae.config.training import TrainingSettings
from dvlae.training.displays import SlowSteps
from dvlae.training.schedule import Schedule


@pytest.fixture
def warned(caplog):
    """Return a function that shows a training whose steps take these seconds, and returns what was logged."""
    caplog.set_level(logging.INFO, "dvlae")

    def show(*parts, seconds: float = 0.0, count: int = 2, **limits) -> list[str]:
        caplog.clear()
        training = SimpleNamespace(seconds=seconds)
        display = SlowSteps(Schedule(TrainingSettings(**limits), 50), training, count)
        for step in itertools.chain(*parts):
            training.seconds += step
            display.update(training)
        return caplog.messages

    return show


def steps(seconds: float, step: float) -> list[float]:
    """Return steps of one length that take ``seconds`` together."""
    return [step] * round(seconds / step)


def test_steps_that_take_four_times_as_long_for_half_a_minute_are_said_once(warned):
    assert warned(steps(60, 0.03), steps(50, 0.12), steps(60, 0.03), steps(50, 0.12)) == [
        "train: WARNING: a step takes 4.0 times as long as before, 120 instead of 30 ms, probably because another "
        "program uses the cores; end that program, or interrupt this training and repeat its command: it then goes on "
        "with as many workers as there are free cores. training.max_minutes now leaves time for fewer steps"
    ]


@pytest.mark.parametrize(
    ("limits", "restart", "fewer"),
    [
        ({"count": 1}, False, True),
        ({"max_steps": 5}, False, True),
        ({"max_steps": 5, "max_minutes": None}, False, False),
        ({"workers": 2}, False, True),
        ({"max_minutes": None}, True, False),
    ],
)
def test_only_what_helps_is_said(warned, limits, restart, fewer):
    (line,) = warned(steps(60, 0.03), steps(50, 0.12), **limits)
    assert ("repeat its command" in line, "fewer steps" in line) == (restart, fewer)


def test_steps_of_seconds_are_said_as_soon_as_there_are_enough_of_them(warned):
    assert len(warned(steps(20, 0.03), [6.0] * 12)) == 1


@pytest.mark.parametrize(
    "parts",
    [
        (steps(300, 0.03),),
        (steps(60, 0.03), steps(100, 0.06)),  # Twice as long is no message.
        (steps(60, 0.03), steps(20, 0.12), steps(60, 0.03), steps(20, 0.12), steps(60, 0.03)),  # Neither is a moment.
        ([90.0, 20.0, 1.0], steps(100, 0.03)),  # The first steps compile.
        (steps(30, 0.03), [3600.0], steps(30, 0.03)),  # A paused laptop.
        ([3600.0, *steps(30, 0.03)], [3600.0, 3600.0], steps(30, 0.03)),
        (([0.03] * 49 + [8.0]) * 20,),  # The validation after each epoch.
        (([5.4] * 4 + [60.0]) * 20,),
        ([0.03, 0.05, 0.04, 0.08] * 1000,),
        ([0.03, 0.03, 0.03, 0.2] * 1000,),  # The weights change at every fourth step.
    ],
)
def test_what_is_usual_is_no_message(warned, parts):
    assert warned(*parts) == []


def test_the_time_of_earlier_attempts_is_no_step(warned):
    assert warned(steps(60, 0.03), seconds=3000.0) == []
