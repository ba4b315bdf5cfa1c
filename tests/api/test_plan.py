import logging

import pytest

from dvlae.api.choices import choose_training
from dvlae.api.plan import Plan


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, "dvlae")


def candidates(minutes: float, device: str = "cpu"):
    return choose_training([(1, 300, 400)], device, minutes=minutes, max_steps=None, direct=False)


def choose(minutes: float, rates: dict[int, float]) -> tuple[Plan, list[float]]:
    """Choose on a machine with these steps in a second by the number of channels; return how long was measured, too."""
    measured = []

    def measure(settings, seconds):
        measured.append(seconds)
        return rates[settings.model.channels]

    return Plan.choose(candidates(minutes), measure), measured


# Two quiet cores, one quiet core, and two cores with nine other programs on them (docs/benchmarks.md).
QUIET, ONE_CORE, BUSY = {48: 11.1, 16: 16.0}, {48: 6.88, 16: 10.9}, {48: 0.86, 16: 1.4}


@pytest.mark.parametrize(
    "minutes, rates, channels, steps",
    [
        (10, QUIET, 48, 6660),
        (30, QUIET, 48, 19980),
        (10, ONE_CORE, 48, 4128),
        (1, QUIET, 16, 960),
        (10, BUSY, 16, 840),
        (30, BUSY, 48, 1548),
        (20, BUSY, 16, 1680),
    ],
)
def test_the_network_is_as_large_as_the_machine_has_steps_for(minutes, rates, channels, steps, caplog):
    plan, _ = choose(minutes, rates)
    assert (plan.settings.model.channels, plan.expected_steps) == (channels, steps)
    (line,) = caplog.messages
    assert f"about {steps} steps" in line and f"{channels} channels" in line
    is_slow = minutes >= 5 and channels == 16
    assert ("48 channels would get about" in line) == is_slow


@pytest.mark.parametrize("minutes, rate, helps", [(10, 0.5, "--minutes 17"), (0.1, 10.0, "--minutes 0.9")])
def test_too_few_steps_even_for_the_smallest_network_are_warned_of(minutes, rate, helps, caplog):
    plan, _ = choose(minutes, {48: rate / 2, 16: rate})
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert f"about {plan.expected_steps} steps are too few" in warning and helps in warning


@pytest.mark.parametrize(("rate", "wanted", "refines"), [(1.3, False, True), (1.2, False, False), (1.2, True, True)])
def test_a_denoiser_is_refined_where_there_are_enough_steps_or_it_is_wanted(rate, wanted, refines, caplog):
    plan = Plan.choose(candidates(10), lambda settings, seconds: rate, must_refine=wanted)
    assert plan.refines == refines
    assert ("refines the denoiser in the last 15% of them" in caplog.text) == refines


BOTH = ("nonlinear", "linear")


@pytest.mark.parametrize(
    ("minutes", "rates", "must", "comparable", "decoders", "steps"),
    [
        (30, ONE_CORE, False, True, BOTH, 6192),
        (10, QUIET, False, True, BOTH, 3330),
        (10, ONE_CORE, False, True, BOTH[:1], 4128),
        (30, ONE_CORE, False, False, BOTH[:1], 12384),
        (10, ONE_CORE, True, True, BOTH, 2064),
        (10, ONE_CORE, True, False, BOTH[:1], 4128),
    ],
)
def test_two_decoders_share_the_time_where_it_is_enough_and_they_can_be_compared(
    minutes, rates, must, comparable, decoders, steps, caplog
):
    asked = []

    def can_compare():
        asked.append(True)
        return comparable

    plan = Plan.choose(
        candidates(minutes),
        lambda settings, seconds: rates[settings.model.channels],
        decoders=BOTH,
        must_compare=must,
        can_compare=can_compare,
    )
    assert (plan.decoders, plan.expected_steps) == (decoders, steps)
    assert plan.settings.training.max_minutes == minutes / len(decoders)
    assert ("trains two models" in caplog.text) == (len(decoders) == 2)
    each = "each " if len(decoders) == 2 else ""
    assert f"denoise: {each}trains for {minutes / len(decoders):g} minutes on cpu, about {steps} steps" in caplog.text
    assert len(asked) == (must or steps >= 6000 or len(decoders) == 2), "this reads images"


def test_one_minute_and_one_step_are_in_the_singular(caplog):
    choose(1, {48: 0.01, 16: 0.02})
    line, warning = caplog.messages
    assert "trains for 1 minute on cpu, about 1 step: " in line
    assert "about 1 step is too few for good images; --minutes 417 " in warning


def test_the_measurement_takes_seconds_and_a_twentieth_of_a_short_training():
    assert choose(10, QUIET)[1] == [8]
    assert choose(30, BUSY | {48: 0.1})[1] == [8, 8]
    assert choose(1, QUIET)[1] == [3]


def test_a_plan_is_kept_for_its_device(tmp_path):
    plan = Plan(candidates(10)[1], 840).divided(BOTH)
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json", "cpu") == plan
    assert Plan.read(tmp_path / "plan.json", "cuda") is None
    assert Plan.read(tmp_path / "other.json", "cpu") is None
    (tmp_path / "older.json").write_text('{"settings": {}, "expected_steps": 840}')
    assert Plan.read(tmp_path / "older.json", "cpu") is None


@pytest.mark.parametrize(
    "expected, steps, warned", [(6000, 400, True), (6000, 700, False), (450, 400, False), (None, 2, False)]
)
def test_a_training_that_became_too_slow_is_warned_of_once(expected, steps, warned, caplog):
    Plan(candidates(10)[0], expected).check(steps)
    assert [("--minutes 13" in line) for line in caplog.messages] == [True] * warned
