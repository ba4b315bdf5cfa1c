"""What workers do in the tests: their processes import it from here."""

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import dvlae.training.checkpoints
from dvlae.config.settings import TrainSettings
from dvlae.system.errors import UserError
from dvlae.training.checkpoints import Checkpoints
from dvlae.training.train import TrainingJob, _read_description, _train
from dvlae.training.workers import Workers, run_workers


class KilledError(Exception):
    """Stands for a kill signal in the middle of a training."""


def add(folder: Path, workers: Workers) -> None:
    """Exchange values, add numbers in shared memory, and write what each worker sees."""
    memory = workers.shared_memory(workers.count)
    memory[workers.rank] = workers.rank + 1
    workers.wait()
    values = workers.exchange("x" * (10**6 * workers.rank))
    (folder / str(workers.rank)).write_text(f"{float(memory.sum())} {[len(value) for value in values]}")


def fail(how: str, workers: Workers) -> None:
    """End worker 1 in some way, while the others wait for it."""
    if workers.rank == 1:
        if how == "mistake":
            raise UserError("config.yaml: no")
        if how == "bug":
            raise KeyError(how)
        os.kill(os.getpid(), int(how))
    if how == "mistake":
        raise UserError("config.yaml: no")
    while True:
        workers.wait()
        time.sleep(0.01)


def train_job(
    patches: Path, model: Path, settings: TrainSettings, checkpoints: Path | None, count: int, stop: int | None = None
) -> None:
    """Train with some workers; all save each step. After step ``stop`` worker 0 is killed."""
    job = TrainingJob(patches, model, 8, "x", 0, checkpoints, settings, None, _read_description(patches))
    run_workers(partial(_train_and_stop, job, stop), count)


def _train_and_stop(job: TrainingJob, stop: int | None, workers: Workers) -> None:
    save = Checkpoints.save

    def save_and_stop(self: Checkpoints, state: dict) -> None:
        save(self, state)
        if state["steps"] == stop and workers.rank == 0:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dvlae.training.checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
        patch.setattr(Checkpoints, "save", save_and_stop)
        _train(job, [torch.device("cpu")], 0, workers)
