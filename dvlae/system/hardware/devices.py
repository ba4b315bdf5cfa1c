"""The device that computes, and settings of the process that make it fast."""

import ctypes
import platform
import re
from functools import cache
from pathlib import Path

import torch

from dvlae.system.errors import UserError

# The names that malloc.h gives to these parameters.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Where Linux describes the processors.
CPUINFO = Path("/proc/cpuinfo")


def choose_device(name: str) -> torch.device:
    """Return the device for the setting ``device``.

    Parameters
    ----------
    name
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Returns
    -------
    torch.device
        A device that PyTorch can use here.

    Raises
    ------
    UserError
        If PyTorch cannot use the device.
    """
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in usable.items() if available)
    if not usable[name]:
        found = ", ".join(kind for kind, available in usable.items() if available)
        raise UserError(f"device: found {name!r}, but PyTorch sees no such device here (it sees: {found}); use 'auto'")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU or a processor, such as ``"NVIDIA H100"``, or the kind of another device.

    Parameters
    ----------
    device
        The device.

    Returns
    -------
    str
        The name; that of a processor as the system gives it, without trademarks.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name() if device.type == "cpu" else device.type


@cache
def processor_name() -> str:
    """Return the name of the processor, or of its architecture where the system does not tell more.

    Returns
    -------
    str
        The name, without trademarks.
    """
    described = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", described, re.MULTILINE)
    return re.sub(r"\((?:R|TM)\)", "", names[0]).strip() if names else platform.processor() or platform.machine()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16. On a processor without them, it is slower than float32.

    Parameters
    ----------
    device
        The device.

    Returns
    -------
    bool
        False if PyTorch is too old to find out.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The oldest PyTorch that we support does not have get_capabilities.
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name, False)) for name in ("avx512_bf16", "amx_bf16"))
    return False


def use_fast_arithmetic() -> None:
    """Choose the fast arithmetic of this process whose rounding is too small to matter here."""
    # Denormal numbers slow a CPU down many times over.
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def use_one_thread() -> None:
    """Let PyTorch compute in the calling thread alone, whatever the environment says.

    Several threads of one operation wait for each other by spinning, so that another busy process slows them down many
    times.
    """
    torch.set_num_threads(1)


def tune_malloc() -> None:
    """Let glibc keep up to 1 GiB of the memory that this process frees; do nothing with another C library.

    By default glibc returns large blocks to the system at once, and the system then provides new ones page by page.
    On the CPU, keeping it makes a training step about 12 % and a prediction about 24 % shorter (benchmarks/malloc.py).
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        # Otherwise blocks of more than 32 MiB are returned whatever the threshold.
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**30)
