"""The energy that a training takes, where the machine tells: of its processor and of its NVIDIA GPU.

Both count what the whole processor or GPU takes, whatever else is running on it. Linux lets only root read the
processor's counter, unless the system's administrator says otherwise.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Counter:
    """A counter of energy.

    Attributes
    ----------
    name
        ``"processor"`` or ``"gpu"``.
    read
        Returns joules since some time.
    limit
        Joules at which it begins again at zero.
    last
        What it showed last.
    """

    name: str
    read: Callable[[], float]
    limit: float = math.inf
    last: float = 0.0

    def advance(self) -> float:
        """Return the joules since the last call, which must be less than the limit."""
        now = self.read()
        spent = now - self.last
        self.last = now
        return spent if spent >= 0 else spent + self.limit


class EnergyMeter:
    """Counts from now on.

    Parameters
    ----------
    devices
        Those that compute, besides the processor.
    """

    def __init__(self, devices: Sequence[torch.device]):
        self.counters = [*_processor_counters(POWERCAP), *_gpu_counters(devices)]
        self.advance()

    @property
    def names(self) -> set[str]:
        """What can be read here."""
        return {counter.name for counter in self.counters}

    def advance(self) -> dict[str, float]:
        """Return the joules since the last call, of all processors and of all GPUs; nothing once one is not told."""
        spent = dict.fromkeys(self.names, 0.0)
        try:
            for counter in self.counters:
                spent[counter.name] += counter.advance()
        except OSError:  # no reason to end a training
            self.counters, spent = [], {}
        return spent


def _processor_counters(powercap: Path) -> list[Counter]:
    """Return the counters of all sockets; none where one cannot be read."""
    counters = []
    for socket in sorted(powercap.glob("intel-rapl:[0-9]*")):  # so named for AMD's, too
        if socket.name.count(":") > 1:  # a part of a socket, which is in it
            continue
        file = socket / "energy_uj"
        try:
            limit = int((socket / "max_energy_range_uj").read_text()) / 1e6
            file.read_text()
        except (OSError, ValueError):
            return []
        counters.append(Counter("processor", lambda file=file: int(file.read_text()) / 1e6, limit))
    return counters


def _gpu_counters(devices: Sequence[torch.device]) -> list[Counter]:
    """Return the counters of NVIDIA GPUs; none where one cannot be read."""
    counters = []
    for device in devices:
        if device.type != "cuda":
            return []
        read = _gpu_energy(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        if read is None:
            return []
        counters.append(Counter("gpu", read))
    return counters


def _gpu_energy(uuid: str) -> Callable[[], float] | None:
    """Return a function that reads the joules of a GPU from NVIDIA's management library; None where that cannot be."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()

    def read() -> float:
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
            raise OSError("the GPU does not tell its energy")
        return millijoules.value / 1e3

    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        return None
    try:
        read()
    except OSError:
        return None
    return read
