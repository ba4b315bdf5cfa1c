import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from dvlae.config.messages import validate
from dvlae.config.settings import TrainSettings
from dvlae.models.latents import sample_part, sample_randomly, split_parameters
from dvlae.models.layers import BatchNorm, memory_format, to_channels_last
from dvlae.system.errors import UserError
from dvlae.training.objectives.elbo import Objective
from dvlae.training.workers import Workers, run_workers
from untrained import initial
from work import KilledError, add, fail, train_job


def settings(model=(), **training) -> TrainSettings:
    sizes = {"levels": 2, "channels": 8, "latent_channels": 4} | dict(model)
    usual = {"patch_size": 16, "batch_size": 4, "max_steps": 6, "max_minutes": None, "precision": "32"}
    values = {"model": sizes, "training": usual | {"min_epoch_steps": 4} | training, "device": "cpu"}
    return validate(TrainSettings, values, "test")


@pytest.fixture
def folder(patches):
    return patches(validation=5)


def children_of(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children()]


def wait_until(condition, seconds=120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# The workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_workers_exchange_values_and_share_memory(tmp_path, count):
    run_workers(partial(add, tmp_path), count)
    total, lengths = count * (count + 1) / 2, [10**6 * rank for rank in range(count)]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        str(rank): f"{total} {lengths}" for rank in range(count)
    }


@pytest.mark.parametrize("total", [1, 4, 7])
def test_the_shares_of_all_workers_are_all(total):
    shares = [Workers(rank, [None] * 2).share(total) for rank in range(3)]
    assert [number for share in shares for number in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("number", "advice"), [
    (signal.SIGKILL, r" \(perhaps because memory ran out: lower training.workers then\)"), (signal.SIGTERM, ""),
])  # fmt: skip
def test_a_killed_worker_ends_the_others_with_one_line(number, advice):
    before = children_of(os.getpid())
    with pytest.raises(UserError, match=f"^train: a worker was killed by {number.name}{advice}; the same command"):
        run_workers(partial(fail, str(int(number))), 3)
    assert children_of(os.getpid()) == before


def test_the_mistake_that_all_workers_find_is_one_line(capfd):
    with pytest.raises(UserError, match=r"^config.yaml: no$"):
        run_workers(partial(fail, "mistake"), 2)
    assert capfd.readouterr() == ("", "")


def test_a_bug_in_a_worker_shows_its_traceback(capfd):
    with pytest.raises(RuntimeError, match="a worker failed"):
        run_workers(partial(fail, "bug"), 2)
    assert "KeyError: 'bug'" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_a_killed_training(folder, tmp_path, number):
    command = [sys.executable, "-m", "dvlae", "train", str(folder), str(tmp_path / "model"), "--noise-direction", "x"]
    command += ["--receptive-field", "8", "--settings", settings(max_steps=100000, workers=2).model_dump_json()]
    log = tmp_path / "log"
    with (
        open(log, "w") as file,
        subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True) as training,
    ):
        try:
            wait_until(lambda: "train:   0%" in log.read_text())
            (worker,) = children_of(training.pid)
            time.sleep(1)
            # Ctrl-C reaches all processes of a terminal.
            os.killpg(training.pid, number) if number == signal.SIGINT else os.kill(training.pid, number)
            assert training.wait(60) != 0
        finally:
            training.kill()
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"), 60)
    assert "Traceback" not in log.read_text()


# What they learn ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_noise_of_a_part_is_that_of_the_complete_batch(dimensions, dtype):
    parameters = torch.randn(4, 12, *[6] * dimensions).to(dtype).to(memory_format=memory_format(dimensions))
    mean, log_std = split_parameters(parameters)
    torch.manual_seed(1)
    complete = sample_randomly(0, mean, log_std.exp())
    for rows in (slice(0, 2), slice(3, 4), [1, 3]):
        torch.manual_seed(1)
        torch.testing.assert_close(
            sample_part(rows, 4)(0, mean[rows], log_std.exp()[rows]), complete[rows], rtol=0, atol=0
        )
    # Each image has its own noise.
    assert len(set(((complete - mean) / log_std.exp()).float()[:, 0].flatten(1)[:, 0].tolist())) == 4


class Part(Workers):
    """One of several workers, whose exchange returns what was recorded of all."""

    def __init__(self, rank, count, values):
        super().__init__(rank, [None] * (count - 1))
        self.values = values

    def exchange(self, value):
        self.values[self.rank] = value
        return list(self.values.values())


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("direct", "free_bits"), [(None, 0.0), ("mean", 0.0), ("median", 0.05)])
def test_the_loss_of_all_parts_is_that_of_the_batch(count, direct, free_bits):
    batch = torch.randn(4, 1, 32, 32).mul_(20).add_(60)

    def gradients(workers):
        model = to_channels_last(initial(direct_denoiser=direct), 2).train()
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.eval()  # Batch statistics are those of a part.
        objective = Objective(model, free_bits=free_bits, workers=workers, batch_size=len(batch))
        torch.manual_seed(5)
        crops = workers.share(len(batch))
        loss, values = objective(batch[crops.start : crops.stop], 0.7)
        (loss * len(crops) / len(batch)).backward()
        assert len(values) == (8 if direct else 7)
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, values, len(crops)

    complete, values, _ = gradients(Workers())
    recorded: dict = {}
    for rank in range(count):  # The first time, what is exchanged is recorded.
        gradients(Part(rank, count, recorded))
    parts = [gradients(Part(rank, count, recorded)) for rank in range(count)]
    for name, gradient in complete.items():
        total = sum(part[name] for part, *_ in parts if name in part)
        torch.testing.assert_close(total, gradient, rtol=1e-4, atol=1e-6)
    for name, value in values.items():
        mean = sum(of_part[name] * crops for _, of_part, crops in parts) / len(batch)
        torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamax", "accumulate": 2}])
def test_the_same_number_of_workers_gives_the_same_bytes_and_others_nearly_so(folder, tmp_path, changes):
    histories = {}
    for name, count in (("one", 1), ("two", 2), ("two_again", 2), ("three", 3)):
        train_job(folder, tmp_path / name, settings(**changes), None, count)
        histories[name] = pd.read_csv(tmp_path / name / "history.csv").drop(columns="minutes")
        assert json.loads((tmp_path / name / "run.json").read_text())["workers"] == count
    two, again = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("two", "two_again"))
    assert two == again
    pd.testing.assert_frame_equal(histories["two"], histories["two_again"], check_exact=True)
    for name in ("two", "three"):
        np.testing.assert_allclose(histories[name], histories["one"], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("changes", [{"model": {"direct_denoiser": "mean"}}, {"optimizer": "adamax", "accumulate": 2}])
def test_resumed_equals_uninterrupted_bit_for_bit(folder, tmp_path, changes):
    train_job(folder, tmp_path / "whole", settings(**changes), None, 2)
    with pytest.raises(KilledError):
        train_job(folder, tmp_path / "model", settings(**changes), tmp_path / "checkpoints", 2, stop=4)
    train_job(folder, tmp_path / "model", settings(**changes), tmp_path / "checkpoints", 2)
    resumed, whole = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("model", "whole"))
    assert resumed == whole


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 1)])
def test_a_training_is_resumed_with_another_number_of_workers(folder, tmp_path, before, after):
    with pytest.raises(KilledError):
        train_job(folder, tmp_path / "model", settings(), tmp_path / "checkpoints", before, stop=3)
    state = torch.load(tmp_path / "checkpoints" / "state.pt", weights_only=True)
    assert len(state["optimizer"]["state"]) == len(list(initial().parameters()))
    # Not one large block of memory for each tensor.
    assert (tmp_path / "checkpoints" / "state.pt").stat().st_size < 40 * sum(p.numel() for p in initial().parameters())
    train_job(folder, tmp_path / "model", settings(), tmp_path / "checkpoints", after)
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert (record["steps"], record["attempts"], record["workers"]) == (6, 2, after)
