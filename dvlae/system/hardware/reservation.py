"""Reservation of GPUs: each process gets its own, unless the user lets several share one."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import choose_device

logger = logging.getLogger(__name__)

JOBS_PER_GPU_VARIABLE = "DVLAE_JOBS_PER_GPU"
SECONDS_BETWEEN_TRIES = 1.0


@contextmanager
def reserved_devices(name: str, count: int = 1) -> Iterator[list[torch.device]]:
    """Reserve GPUs that no other training or prediction of this user has reserved, and wait for them if necessary.

    Parameters
    ----------
    name
        The setting ``device``, as for :func:`dvlae.system.hardware.devices.choose_device`. Only GPUs are reserved.
    count
        Number of devices.

    Yields
    ------
    list of torch.device
        The devices. They are released when the block ends or the process ends, even if it is killed.

    Raises
    ------
    UserError
        If there are fewer GPUs, or several on Windows, or ``DVLAE_JOBS_PER_GPU`` is not a whole number.
    """
    # PyTorch has no NCCL there.
    if count > 1 and sys.platform == "win32":
        raise UserError(f"devices: found {count}, allowed on Windows: 1")
    device = choose_device(name)
    if device.type != "cuda":
        yield [device] * count
        return
    there = range(torch.cuda.device_count())
    if count > len(there):
        raise UserError(f"devices: found {count}, but PyTorch sees {len(there)} GPU{'s'[: len(there) != 1]} here")
    identities = [str(torch.cuda.get_device_properties(index).uuid) for index in there]
    with reserve(identities, count) as indices:
        yield [torch.device("cuda", index) for index in indices]


@contextmanager
def reserve(identities: Sequence[str], count: int = 1) -> Iterator[list[int]]:
    """Reserve ``count`` of these devices, and wait until that many are free.

    The environment variable ``DVLAE_JOBS_PER_GPU`` sets how many processes may share a device (default: 1).

    Parameters
    ----------
    identities
        A name for each device that is the same in every process. An index is not, because ``CUDA_VISIBLE_DEVICES``
        renumbers the devices.
    count
        Number of devices to reserve, at most all.

    Yields
    ------
    list of int
        The indices of the reserved devices in ``identities``.

    Raises
    ------
    UserError
        If ``DVLAE_JOBS_PER_GPU`` is not a whole number.
    """
    # On Windows each user has a folder of temporary files.
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"dvlae-gpus-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    places = _jobs_per_gpu()
    waiting = False
    while True:
        with ExitStack() as held:
            chosen: list[int] = []
            # A device is shared only if none is free: the first places of all devices come first.
            for place in range(places):
                for index, identity in enumerate(identities):
                    if index in chosen or len(chosen) == count:
                        continue
                    with suppress(Timeout):
                        held.enter_context(FileLock(folder / f"{identity}-{place}").acquire(blocking=False))
                        chosen.append(index)
            if len(chosen) == count:
                yield chosen
                return
        if not waiting:
            logger.info(
                f"waiting for {count} of {len(identities)} GPUs: other trainings or predictions of yours use them "
                f"({JOBS_PER_GPU_VARIABLE}={places + 1} lets {places + 1} share one)"
            )
            waiting = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _jobs_per_gpu() -> int:
    text = os.environ.get(JOBS_PER_GPU_VARIABLE) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{JOBS_PER_GPU_VARIABLE} (environment): found {text!r}, allowed: a whole number >= 1")
    return int(text)
