import ctypes
from types import SimpleNamespace

import pytest
import torch

from dvlae.training import energy

GPU = torch.device("cuda", 0)


def add_socket(powercap, name, microjoules, limit=10_000_000):
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder / "energy_uj"


class Nvml:
    """NVIDIA's management library, as far as it is called, with one GPU."""

    def __init__(self, uuid="GPU-1", millijoules=5000, tells=True):
        self.uuid, self.millijoules, self.tells = uuid, millijoules, tells

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        return 0 if uuid.decode() == self.uuid else 2

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, pointer):
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return 0 if self.tells else 3


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    return tmp_path / "powercap"


@pytest.fixture
def nvml(monkeypatch):
    library = Nvml()
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(energy.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1"))
    return library


def test_it_counts_both_sockets_but_not_their_parts_again(powercap):
    files = [add_socket(powercap, f"intel-rapl:{i}", 1_000_000) for i in (0, 1)]
    part = add_socket(powercap, "intel-rapl:0:0", 1_000_000)
    meter = energy.EnergyMeter([torch.device("cpu", 0)])
    for file in (*files, part):
        file.write_text("3000000")
    assert meter.advance() == {"processor": 4.0}
    assert meter.advance() == {"processor": 0.0}


def test_a_counter_that_began_anew_goes_on(powercap):
    file = add_socket(powercap, "intel-rapl:0", 9_000_000)
    meter = energy.EnergyMeter([])
    file.write_text("500000")
    assert meter.advance() == {"processor": 1.5}


def test_a_machine_that_does_not_tell_has_no_counters(powercap):
    assert energy.EnergyMeter([torch.device("cpu", 0)]).advance() == {}


def test_a_counter_that_is_gone_does_not_end_a_training(powercap):
    file = add_socket(powercap, "intel-rapl:0", 1)
    meter = energy.EnergyMeter([])
    file.unlink()
    assert meter.advance() == {} and meter.names == set()


def test_it_counts_the_gpu_that_computes(powercap, nvml):
    meter = energy.EnergyMeter([GPU])
    nvml.millijoules += 2500
    assert meter.advance() == {"gpu": 2.5}


def test_a_gpu_that_does_not_tell_has_no_counter(powercap, nvml):
    nvml.tells = False
    assert energy.EnergyMeter([GPU]).names == set()
    nvml.tells, nvml.uuid = True, "another"
    assert energy.EnergyMeter([GPU]).names == set()


def test_a_machine_without_the_library_has_no_counter(powercap, nvml, monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(energy.ctypes, "CDLL", missing)
    assert energy.EnergyMeter([GPU]).names == set()
