"""Which device computes, and how."""

import ctypes
import platform

import torch

from dvlae.system.errors import UserError


def choose_device(name: str) -> torch.device:
    """Turn the setting ``device`` into a device that is there.

    Parameters
    ----------
    name
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Raises
    ------
    UserError
        Where a GPU is asked for and none can be used.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    if not there[name]:
        found = ", ".join(kind for kind, available in there.items() if available)
        raise UserError(f"device: found {name!r}, but PyTorch sees no such device here (it sees: {found}); use 'auto'")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, else the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether a device has instructions for bfloat16; on a processor without, convolutions are far slower in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # newer than the oldest PyTorch that serves
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False


def use_fast_arithmetic() -> None:
    """Set what makes this process fast and costs no accuracy that matters here."""
    torch.set_flush_denormal(True)  # denormal numbers slow a CPU down many times over
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def tune_malloc() -> None:
    """Let the C library keep what this process frees, up to 1 GiB at the end of its memory, where it is glibc.

    By default it gives large blocks back to the system at once and gets new ones page by page; for networks whose maps
    cost little to compute, that takes longer than the computation.
    """
    if platform.libc_ver()[0] == "glibc":
        mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        library = ctypes.CDLL(None)
        library.mallopt(mmap_max, 0)  # else blocks of more than 32 MiB are given back, whatever the thresholds
        library.mallopt(trim_threshold, 2**30)
