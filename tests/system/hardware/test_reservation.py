import logging
import subprocess
import sys
import threading
import time

import pytest
import torch

from dvlae.system.errors import UserError
from dvlae.system.hardware.reservation import reserve, reserved_devices

# Another process, on a machine with two pretended GPUs: it reserves one, says which, and keeps it until it is ended.
HOLDER = """
import logging, sys
from types import SimpleNamespace
import torch
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_properties = lambda index: SimpleNamespace(uuid=f"pretended-{index}")
from dvlae.system.hardware.reservation import reserved_devices
with reserved_devices("auto") as devices:
    print(*devices, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    """Keep the locks of the tests away from those of real trainings."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("dvlae.system.hardware.reservation.SECONDS_BETWEEN_TRIES", 0.01)


@pytest.fixture
def holder():
    """Return a function that starts a process which keeps a GPU."""
    started = []

    def start() -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_trainings_at_once_get_a_gpu_each_and_a_third_gets_that_of_the_killed_one(holder):
    first, second = holder(), holder()
    devices = {process.stdout.readline().strip(): process for process in (first, second)}
    assert set(devices) == {"cuda:0", "cuda:1"}
    third = holder()
    assert third.stdout.readline().startswith("waiting for 1 of 2 GPUs")
    devices["cuda:1"].kill()
    assert third.stdout.readline().strip() == "cuda:1"


def test_what_is_left_is_free_again():
    for _ in range(2):
        with reserve(["a", "b"], 2) as chosen:
            assert chosen == [0, 1]


def test_all_the_devices_of_a_training_are_reserved_together_or_none(caplog):
    caplog.set_level(logging.INFO)
    chosen = []

    def want_both():
        with reserve(["a", "b"], 2) as both:
            chosen.extend(both)

    with reserve(["b"]):
        waiting = threading.Thread(target=want_both)
        waiting.start()
        while "waiting for 2 of 2" not in caplog.text:
            time.sleep(0.01)
        for _ in range(1000):  # the other one is free, again and again, while they wait
            with reserve(["a"]):
                pass
    waiting.join(timeout=10)
    assert chosen == [0, 1]


def test_two_share_a_gpu_where_that_is_asked_for_but_not_while_another_is_free(monkeypatch):
    monkeypatch.setenv("DVLAE_JOBS_PER_GPU", "2")
    with reserve(["a", "b"]) as first, reserve(["a", "b"]) as second, reserve(["a", "b"]) as third:
        assert (first, second, third) == ([0], [1], [0])


def test_a_wrong_number_of_jobs_is_refused(monkeypatch):
    monkeypatch.setenv("DVLAE_JOBS_PER_GPU", "two")
    with (
        pytest.raises(UserError, match=r"DVLAE_JOBS_PER_GPU .*: found 'two', allowed: a whole number >= 1"),
        reserve(["a"]),
    ):
        pass


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="devices: found 2, but PyTorch sees 1 GPU here"), reserved_devices("cuda", 2):
        pass


def test_a_cpu_is_not_reserved():
    with reserved_devices("cpu") as one, reserved_devices("cpu", 2) as two:
        assert (one, two) == ([torch.device("cpu")], [torch.device("cpu")] * 2)
