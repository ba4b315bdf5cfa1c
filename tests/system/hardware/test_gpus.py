"""The GPUs of a machine, counted from device files."""

import platform

import pytest

from dvlae.system.hardware.gpus import VISIBLE_VARIABLES, count_gpus


@pytest.fixture(autouse=True)
def linux(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    for variable in VISIBLE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def create(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def test_no_device_files(tmp_path):
    assert count_gpus(tmp_path) == 0


@pytest.mark.parametrize("visible, count", [(None, 2), ("", 0), ("1", 1), ("0,1", 2), ("0,1,2", 2), ("0,-1", 1)])
def test_visible_nvidia_gpus_are_counted(tmp_path, monkeypatch, visible, count):
    create(tmp_path, "nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus(tmp_path) == count


@pytest.mark.parametrize("driver, count", [(["kfd"], 1), ([], 0)])
def test_amd_gpus_need_the_compute_driver(tmp_path, driver, count):
    create(tmp_path, "dri/card0", "dri/renderD128", *driver)
    assert count_gpus(tmp_path) == count


@pytest.mark.parametrize("machine, count", [("arm64", 1), ("x86_64", 0)])
def test_apple_processors_have_one(monkeypatch, machine, count):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert count_gpus() == count
