"""The cores and the memory that are free on this machine, and the number of workers that follows from them."""

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

SECONDS_OF_MEASUREMENT = 0.5


def usable_cores() -> int:
    """Return the number of cores that this process may use.

    Returns
    -------
    int
        At least 1: the smallest of the process's affinity, its control group's quota, and ``SLURM_CPUS_PER_TASK``.
    """
    limits = [float(os.cpu_count() or 1)]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    return max(1, int(min(limits)))


def free_cores(seconds: float = SECONDS_OF_MEASUREMENT) -> float:
    """Measure how many of the usable cores other programs leave idle.

    Parameters
    ----------
    seconds
        How long to measure.

    Returns
    -------
    float
        At most :func:`usable_cores`.
    """
    time.sleep(0)
    return float(usable_cores())


def free_memory() -> int:
    """Return how much memory new processes can take.

    Returns
    -------
    int
        In bytes.
    """
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise OSError


def choose_workers(step: str, most: int, *, cores: int | None = None, memory: int = 0, repeatable: bool = False) -> int:
    """Choose how many workers, each with one thread, compute a step, and log the number in one line.

    Parameters
    ----------
    step
        Name of the step, for the message.
    most
        Number of workers that the step has work for.
    cores
        Cores that the user or the workflow gives to the step; None: all that are usable.
    memory
        What one worker needs, in bytes.
    repeatable
        Whether the number must not depend on how busy the machine is.

    Returns
    -------
    int
        At least 1.
    """
    limit = min(most, cores or usable_cores())
    if not repeatable:
        limit = min(limit, round(free_cores()))
    if memory:
        limit = min(limit, free_memory() // memory)
    workers = max(1, limit)
    logger.info(f"{step}: {workers} worker{'s'[: workers != 1]}")
    return workers
