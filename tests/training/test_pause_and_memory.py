"""A training that pauses for a preview, says what is to come, and goes on where the memory of a GPU is short."""

import json
import logging
from dataclasses import replace

import pytest
import torch

import dvlae.training.job
import dvlae.training.train
from dvlae.config.messages import validate
from dvlae.config.settings import TrainSettings
from dvlae.config.training import TrainingSettings
from dvlae.system.errors import UserError
from dvlae.training.displays import Outlook, OutlookLine, StepRate
from dvlae.training.schedule import Schedule
from dvlae.training.train import TrainingJob, _read_description, _train_within_memory, measure_rate, train

MODEL = {"levels": 2, "channels": 8, "latent_channels": 4}


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, "dvlae")


def settings(**training) -> TrainSettings:
    usual = {"patch_size": 16, "batch_size": 4, "max_steps": 6}
    return validate(TrainSettings, {"model": MODEL, "training": usual | training, "device": "cpu"}, "test")


def run(patches, model, checkpoints, pause_minutes=None):
    arguments = {"receptive_field": 8, "noise_direction": "x", "seed": 0, "settings": settings(), "cores": 1}
    train(patches, model, checkpoints=checkpoints, pause_minutes=pause_minutes, **arguments)
    return (model / "weights.safetensors").read_bytes()


def test_a_training_with_a_pause_is_that_without_one(patches, tmp_path, caplog):
    folder = patches()
    # The first step takes longer than this.
    early = run(folder, tmp_path / "early", tmp_path / "checkpoints", pause_minutes=1e-6)
    assert json.loads((tmp_path / "early" / "run.json").read_text())["steps"] == 1
    assert "1 step in 0.0 minutes, then a pause" in caplog.text
    late = run(folder, tmp_path / "late", tmp_path / "checkpoints")
    assert "resuming from step 1" in caplog.text
    assert late == run(folder, tmp_path / "whole", None) != early


class State:
    """What a display sees of a training."""

    def __init__(self, steps: int, seconds: float):
        self.steps, self.seconds = steps, seconds


@pytest.mark.parametrize(
    "limits, more, words, then",
    [
        ({"max_minutes": 10}, {}, "120 steps are done, about 1080 are to come in 9 min", ""),
        ({"max_minutes": 0.99}, {}, "120 steps are done, about 0 are to come in less than a minute", ""),
        ({"max_minutes": None, "max_steps": 300}, {}, "120 steps are done, about 180 are to come in 1.5 min", ""),
        (
            {"max_minutes": 12},
            {"refine_fraction": 0.2, "models": 1},
            "about 1320 are to come in 11 min",
            "refining the denoiser 3 min, training with the other decoder 15 min, ",
        ),
    ],
)
def test_after_a_minute_the_user_is_told_once_what_is_to_come(caplog, limits, more, words, then):
    schedule = Schedule(TrainingSettings(batch_size=4, **limits), 1000)
    # A step of 0.5 s sees 1000 pixels, and a sample of a pixel takes a fifth of the time.
    line = OutlookLine(schedule, State(0, 0.0), Outlook(6_000_000, "stack_denoised.tif", **more), 250)
    for seconds in (30, 59, 60, 61, 200):
        line.update(State(2 * seconds, seconds))
    (record,) = caplog.records
    assert words in record.message
    assert f"; then: {then}denoising 10 min; what will be written: stack_denoised.tif" in record.message


@pytest.mark.parametrize("seconds, rate", [([2.0, 2.5, 3.0, 3.5], 2.0), ([2.0], 0.5)])
def test_the_rate_of_steps_is_that_after_the_first_step(tmp_path, seconds, rate):
    display = StepRate(tmp_path / "rate")
    for number, second in enumerate(seconds):
        display.update(State(number, second))
    display.close()
    assert float((tmp_path / "rate").read_text()) == rate


def test_the_rate_is_measured_without_a_model_a_checkpoint_or_a_word(patches, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(dvlae.training.train, "choose_workers", lambda *arguments, **options: 1)
    folder, arguments = patches(), {"receptive_field": 8, "noise_direction": "x"}
    before = sorted(tmp_path.rglob("*"))
    limits = settings(max_steps=None, max_minutes=10)
    assert 1 < measure_rate(folder, settings=limits, seconds=0.2, **arguments) < 10_000
    assert sorted(tmp_path.rglob("*")) == before and caplog.messages == []


def test_where_memory_is_short_the_rate_is_that_of_smaller_batches(patches, caplog, small_gpu, tmp_path):
    small_gpu(2)
    trial = replace(job(patches(), tmp_path), rate=tmp_path / "rate.txt")
    _train_within_memory(trial, [torch.device("cpu")])
    assert float((tmp_path / "rate.txt").read_text()) > 0
    assert "goes on with 2" in caplog.text


def job(patches, model, checkpoints=None) -> TrainingJob:
    return TrainingJob(patches, model, 8, "x", 0, checkpoints, settings(), None, _read_description(patches))


@pytest.fixture
def small_gpu(monkeypatch):
    """Return a function that lets batches of more than a number of crops run out of memory."""
    fit = dvlae.training.job.fit

    def limit(most: int) -> None:
        def fit_if_small(fabric, shared, state, schedule, crops, *rest):
            if crops.batch_size > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            fit(fabric, shared, state, schedule, crops, *rest)

        monkeypatch.setattr(dvlae.training.job, "fit", fit_if_small)

    return limit


def test_where_memory_is_short_the_batch_is_halved_and_the_screen_says_so(patches, tmp_path, caplog, small_gpu):
    small_gpu(1)
    _train_within_memory(job(patches(), tmp_path / "model"), [torch.device("cpu")])
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert record["batch_size"] == 1 and record["settings"]["training"]["batch_size"] == 4
    warnings = [entry.message for entry in caplog.records if entry.levelno == logging.WARNING]
    assert [text.rsplit(" ", 1)[1] for text in warnings if "memory of the GPU" in text] == ["2", "1"]


def test_a_training_with_smaller_batches_is_resumed_by_the_same_command(patches, tmp_path, caplog, small_gpu):
    small_gpu(2)
    folder = patches()
    _train_within_memory(
        replace(job(folder, tmp_path / "early", tmp_path / "checkpoints"), pause_minutes=1e-6), [torch.device("cpu")]
    )
    _train_within_memory(job(folder, tmp_path / "late", tmp_path / "checkpoints"), [torch.device("cpu")])
    assert "resuming from step 1" in caplog.text
    assert json.loads((tmp_path / "late" / "run.json").read_text())["steps"] == 6


def test_memory_for_not_one_crop_is_one_line(patches, tmp_path, small_gpu):
    small_gpu(0)
    with pytest.raises(UserError, match="does not suffice for a single crop"):
        _train_within_memory(job(patches(), tmp_path / "model"), [torch.device("cpu")])
