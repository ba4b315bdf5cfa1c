import pytest

from dvlae.config.settings import PredictionSettings
from dvlae.runs.status import MAX_SILENCE_SECONDS, Job, describe_status, survey
from dvlae.system.progress import time_left
from grid import Grid

PROGRESS = "train:  40% 240/600 s [04:00 so far, 06:00 left], step 9, ELBO 0.1, signal error 0.1"


@pytest.fixture
def grid(tmp_path):
    return Grid(tmp_path)


def test_a_grid_that_has_not_begun_waits_for_as_long_as_its_limits_allow(grid):
    first = describe_status(grid.settings).splitlines()[0]
    assert first.endswith(
        "0 of 3 runs finished, 0 running, 0 failed, 3 waiting; about 20 min of training left, 1 at a time"
    )


def test_a_run_is_finished_when_it_is_trained_and_measured(grid):
    grid.trained()
    grid.measured("dvlae-rf4")
    grid.measured("noisy")
    assert grid.states() == {("dvlae-rf4", 0): "finished", ("dvlae-rf4", 1): "waiting", ("noisy", 0): "finished"}


def test_a_run_of_images_without_clean_ones_is_finished_too(grid):
    grid.measured("noisy", values=("", ""))
    assert grid.states()["noisy", 0] == "finished"


def test_a_run_trained_before_there_were_some_of_the_settings_is_finished(grid):
    grid.trained(older=True)
    grid.measured("dvlae-rf4")
    assert grid.states()["dvlae-rf4", 0] == "finished"


def test_a_run_trained_with_other_settings_waits(grid):
    grid.trained(channels=99)
    grid.measured("dvlae-rf4")
    assert grid.states()["dvlae-rf4", 0] == "waiting"


@pytest.mark.parametrize(
    "text, exit_status, silent, state",
    [
        (PROGRESS, 0, 0, "running"),
        ("", 0, 0, "running"),
        ("FooError: a line that a library logged", 0, 0, "running"),
        (PROGRESS, 0, MAX_SILENCE_SECONDS + 1, "waiting"),
        (f"{PROGRESS}\ndvlae train: interrupted", 130, 0, "waiting"),
        (f"{PROGRESS}\ndvlae train: terminated", 143, 0, "waiting"),
        (PROGRESS, 137, 0, "waiting"),
        ("dvlae train: error: device: found 'cuda'", 2, 9999, "failed"),
        ("Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory\n", 1, 0, "failed"),
        ("dvlae train: error: first\nand what a library said on its way out", 2, 0, "failed"),
    ],
)
def test_the_files_beside_the_log_tell_the_state_of_a_job(grid, text, exit_status, silent, state):
    grid.log("train/small/dvlae-rf4/seed0", text, exit_status=exit_status, silent=silent)
    assert grid.states()["dvlae-rf4", 0] == state


def test_a_failure_of_an_earlier_attempt_is_past(grid):
    grid.log("train/small/dvlae-rf4/seed0", "dvlae train: error: no", exit_status=2)
    grid.log("train/small/dvlae-rf4/seed0", PROGRESS, silent=-5)
    assert [job.state for job in survey(grid.settings)[1]] == ["running"]


def test_a_job_is_finished_when_its_benchmark_is_newer_than_its_log(grid):
    grid.log("train/small/dvlae-rf4/seed0", "UserError: an earlier attempt", finished=True)
    assert [job.state for job in survey(grid.settings)[1]] == ["finished"]
    grid.log("train/small/dvlae-rf4/seed0", PROGRESS, silent=-5)
    assert [job.state for job in survey(grid.settings)[1]] == ["running"]


def test_a_job_that_was_stopped_before_the_run_was_measured_is_past(grid):
    grid.trained()
    grid.log("train/small/dvlae-rf4/seed0", PROGRESS, exit_status=137, silent=5)
    assert grid.states()["dvlae-rf4", 0] == "waiting"
    grid.measured("dvlae-rf4")
    assert grid.states()["dvlae-rf4", 0] == "finished"
    assert "\nstopped:" not in describe_status(grid.settings)


def test_what_failed_is_shown_with_its_error_and_its_log(grid):
    grid.log("prepare/small", "reading\ndvlae prepare: error: noisy: no file matches", exit_status=2)
    text = describe_status(grid.settings)
    assert "prepare/small: dvlae prepare: error: noisy: no file matches" in text
    assert "results/logs/prepare/small.log" in text


def test_jobs_that_are_not_of_the_grid_are_left_out(grid):
    grid.log("train/small/dvlae-rf4/seed7", "dvlae train: error: long ago")
    grid.log("prepare/other", "dvlae prepare: error: long ago")
    assert survey(grid.settings)[1] == []


def test_the_best_method_is_named_with_its_mean_over_seeds(grid):
    grid.measured("noisy", values=(20.0, 21.0))
    grid.measured("dvlae-rf4", 0, (30.0, 32.0))
    grid.measured("dvlae-rf4", 1, (30.0, 30.0))
    assert "30.50 dB, dvlae-rf4" in describe_status(grid.settings)


def test_the_time_left_is_that_of_the_running_training_and_the_usual_one_of_those_that_wait(grid):
    grid.settings = grid.settings.model_copy(update={"seeds": [0, 1, 2]})
    grid.trained(seed=0)
    grid.log("train/small/dvlae-rf4/seed1", PROGRESS)
    assert "about 11 min of training left, 1 at a time" in describe_status(grid.settings)


def test_two_trainings_at_once_take_half_the_time(grid):
    for seed in (0, 1):
        grid.log(f"train/small/dvlae-rf4/seed{seed}", PROGRESS)
    assert "about 6 min of training left, 2 at a time" in describe_status(grid.settings)


def test_a_long_list_of_failures_is_cut(grid):
    grid.settings = grid.settings.model_copy(update={"seeds": list(range(25))})
    for seed in range(25):
        grid.log(f"train/small/dvlae-rf4/seed{seed}", "dvlae train: error: no")
    text = describe_status(grid.settings)
    assert text.count("error: no") == 20
    assert "and 5 more" in text


@pytest.mark.parametrize(
    "line, seconds",
    [(PROGRESS, 360), ("x: 1% 1/9 [1:02:03 so far, 10:00:01 left]", 36001), ("x: 0% 0/9 [00:00 so far, ? left]", None)],
)
def test_a_line_of_progress_says_how_long(line, seconds):
    assert time_left(line) == seconds


def share(grid, jobs):
    grid.settings = grid.settings.model_copy(update={"prediction": PredictionSettings(jobs=jobs)})


def test_a_job_of_a_part_belongs_to_its_run(grid):
    share(grid, 2)
    grid.trained()
    grid.log("predict/small/dvlae-rf4/seed0/parts/1-of-2", "predict: 100%", finished=True)
    grid.log("predict/small/dvlae-rf4/seed0/parts/2-of-2", "dvlae predict: error: no", exit_status=2)
    assert grid.states()["dvlae-rf4", 0] == "failed"
    assert "  predict/small/dvlae-rf4/seed0/parts/2-of-2: dvlae predict: error: no" in describe_status(grid.settings)


@pytest.mark.parametrize("jobs, name", [
    (1, "predict/small/dvlae-rf4/seed0/parts/2-of-2"), (3, "predict/small/dvlae-rf4/seed0/parts/2-of-2"),
    (2, "predict/small/dvlae-rf4/seed0"), (1, "gather_predictions/small/dvlae-rf4/seed0"),
])  # fmt: skip
def test_a_job_of_an_earlier_division_is_past(grid, jobs, name):
    share(grid, jobs)
    grid.log(name, "dvlae predict: error: no", exit_status=2)
    assert grid.states()["dvlae-rf4", 0] == "waiting"
    assert survey(grid.settings)[1] == []


def test_a_failed_joining_of_parts_belongs_to_its_run(grid):
    share(grid, 2)
    grid.log("gather_predictions/small/dvlae-rf4/seed0", "dvlae gather: error: no", exit_status=2)
    assert grid.states()["dvlae-rf4", 0] == "failed"


@pytest.mark.parametrize("name, place, parts", [
    ("predict/small/dvlae-rf4/seed0/parts/2-of-3", "small/dvlae-rf4/seed0", 3),
    ("predict/parts/dvlae-rf4/seed0/parts/2-of-3", "parts/dvlae-rf4/seed0", 3),
    ("predict/parts/dvlae-rf4/seed0", "parts/dvlae-rf4/seed0", 1),
    ("prepare/2-of-3", "2-of-3", 1),
    ("tables", "", 1),
])  # fmt: skip
def test_the_name_of_a_log_says_what_its_job_works_on(tmp_path, name, place, parts):
    job = Job(name, "running", "", tmp_path, 0)
    assert (job.place, job.parts) == (place, parts)
