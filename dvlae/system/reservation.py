"""Which of several GPUs a process computes on: each its own, unless two are asked to share one."""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import torch

from dvlae.system.devices import choose_device
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

JOBS_PER_GPU_VARIABLE = "DVLAE_JOBS_PER_GPU"
SECONDS_BETWEEN_TRIES = 1.0


@contextmanager
def reserved_devices(name: str, count: int = 1) -> Iterator[list[torch.device]]:
    """Reserve GPUs that no other training or prediction of this user has, waiting for them where need be.

    Parameters
    ----------
    name
        As :func:`dvlae.system.devices.choose_device` takes it. What is no GPU need not be reserved.
    count
        How many devices.

    Yields
    ------
    list of torch.device
        They are free again when the block, or the process, ends, however it ends.

    Raises
    ------
    UserError
        Where there are not as many GPUs, or ``DVLAE_JOBS_PER_GPU`` is no whole number.
    """
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
    """Reserve ``count`` of these devices, and wait until so many are free.

    ``DVLAE_JOBS_PER_GPU`` in the environment says how many processes may have one device; usually it is one.

    Parameters
    ----------
    identities
        What the devices are called, the same in every process. An index would not do: ``CUDA_VISIBLE_DEVICES`` counts
        anew in each.
    count
        How many of them, at most all.

    Yields
    ------
    list of int
        Their places in ``identities``.
    """
    folder = Path(tempfile.gettempdir()) / f"dvlae-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    places = _jobs_per_gpu()
    waiting = False
    while True:
        with ExitStack() as held:
            chosen: list[int] = []
            for place in range(places):  # all devices first, then all a second time
                for index, identity in enumerate(identities):
                    if index in chosen or len(chosen) == count:
                        continue
                    if (file := _lock(folder / f"{identity}-{place}")) is not None:
                        held.enter_context(file)
                        chosen.append(index)
            if len(chosen) == count:
                yield chosen
                return
        if not waiting:
            logger.info(
                f"waiting for {count} of {len(identities)} GPUs: others of your trainings have them "
                f"({JOBS_PER_GPU_VARIABLE}={places + 1} lets {places + 1} share one)"
            )
            waiting = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _jobs_per_gpu() -> int:
    text = os.environ.get(JOBS_PER_GPU_VARIABLE) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{JOBS_PER_GPU_VARIABLE} (environment): found {text!r}, allowed: a whole number >= 1")
    return int(text)


def _lock(path: Path) -> IO | None:
    """Return the open, locked file, or None where another process has it. The system unlocks it when it is closed."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
