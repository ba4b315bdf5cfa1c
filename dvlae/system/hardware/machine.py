"""The cores and the memory that are free on this machine, and the number of workers that follows from them."""

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from dvlae.system.wording import count

# A short measurement is repeated while too few cores are free. Snakemake computes for a moment when it starts a job;
# another program that computes is seen every time.
SECONDS_OF_MEASUREMENT = 0.25
MEASUREMENTS = 6
# The idle time of all cores is added up, as the system moves a program from one core to another. The rest above a whole
# number counts as one more core if it is at least this part of a core.
IDLE_PART = 0.7

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")

logger = logging.getLogger(__name__)


def usable_cores() -> int:
    """Return the number of cores that this process may use.

    Returns
    -------
    int
        At least 1: the smallest of the process's affinity, the quotas of its control groups, and
        ``SLURM_CPUS_PER_TASK``.
    """
    limits: list[float] = [len(_affinity()), *_quotas().values()]
    if hasattr(os, "process_cpu_count"):  # From Python 3.13 on: the user's PYTHON_CPU_COUNT counts, too.
        limits.append(os.process_cpu_count() or 1)
    if (of_task := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdecimal():
        limits.append(int(of_task))
    return max(1, int(min(limits)))


def _affinity() -> set[int]:
    """Return the numbers of the cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of all groups around it.

    In version 1 each controller has groups of its own. A container may see its own group as the outermost one, under
    another path than the host's.
    """
    for line in _read(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
        group = PurePosixPath(path.lstrip("/"))
        yield from (mount / each for each in (group, *group.parents))


def _read(path: Path) -> str:
    """Return the content of a file of the system; nothing if there is no such file, or this user may not read it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _quotas() -> dict[Path, float]:
    """Return how many cores the control groups may use, for those that have a limit."""
    quotas = {}
    for group in _control_groups("cpu"):
        # Version 2 has one file, version 1 two.
        words = (_read(group / "cpu.max") or " ".join(map(_read, _version_1(group)))).split()
        if len(words) == 2 and words[0] not in ("max", "-1"):
            quotas[group] = int(words[0]) / int(words[1])
    return quotas


def _version_1(group: Path) -> tuple[Path, Path]:
    return group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"


def _used_seconds(group: Path) -> float:
    """Return the processor time that the processes of a control group have used; 0 if the system does not say."""
    for line in _read(group / "cpu.stat").splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1e6
    return int(_read(group / "cpuacct.usage") or 0) / 1e9


def share_of_cores(cores: int, jobs: int, most: int) -> int:
    """Return how many cores one of some jobs has that share them.

    Parameters
    ----------
    cores
        The cores that they share.
    jobs
        Number of jobs.
    most
        Cores that a job has work for.

    Returns
    -------
    int
        At least 1.
    """
    return min(max(1, cores // max(1, jobs)), most)


def free_cores(wanted: int | None = None) -> int:
    """Measure how many of the usable cores other programs leave idle.

    Parameters
    ----------
    wanted
        The measurement ends as soon as so many are free; None: all that are usable.

    Returns
    -------
    int
        From 0 to :func:`usable_cores`. The idle time of all cores is added up: 1.7 idle cores count as 2, 1.6 as 1.
    """
    usable, free = usable_cores(), 0
    for _ in range(MEASUREMENTS):
        free = max(free, min(usable, math.floor(_idle_cores(SECONDS_OF_MEASUREMENT) + 1 - IDLE_PART)))
        if free >= (wanted or usable):
            break
    return free


def _idle_cores(seconds: float) -> float:
    """Measure how many cores are idle and, where control groups limit them, how much these leave unused."""
    quotas = _quotas()
    times, used, start = _core_times(), [_used_seconds(group) for group in quotas], time.monotonic()
    time.sleep(seconds)
    later, used_later, elapsed = _core_times(), [_used_seconds(group) for group in quotas], time.monotonic() - start
    cores = times.keys() & later.keys()  # A virtual machine may lose a core.
    differences = [(later[core][0] - times[core][0], later[core][1] - times[core][1]) for core in cores]
    if any(total > 0 for _, total in differences):
        idle_cores = sum(idle / total for idle, total in differences if total > 0)
    else:  # In a sandbox of Linux.
        idle_cores = len(_affinity()) - psutil.getloadavg()[0]
    unused = [
        quota - (after - before) / elapsed
        for quota, before, after in zip(quotas.values(), used, used_later, strict=True)
    ]
    return max(0.0, min([idle_cores, *unused]))


def _core_times() -> dict[int, tuple[float, float]]:
    """Return how long each core on which this process may run has been idle, and the complete time, in one unit."""
    if sys.platform != "linux":
        return {core: (each.idle, sum(each)) for core, each in enumerate(psutil.cpu_times(percpu=True))}
    times: dict[int, tuple[float, float]] = {}
    cores = {f"cpu{core}": core for core in _affinity()}
    for line in _read(PROC / "stat").splitlines():
        name, *words = line.split()
        if name in cores:
            # User, nice, system, idle, waiting for the disk, two kinds of interrupts, taken by other virtual machines.
            ticks = [int(word) for word in words[:8]]
            times[cores[name]] = (ticks[3] + ticks[4], sum(ticks))
    return times


def free_memory() -> int:
    """Return how much memory new processes can take.

    Returns
    -------
    int
        In bytes: what the machine and the control groups of this process have available. Pages of files that can be
        read again count as available.
    """
    return max(0, min([psutil.virtual_memory().available, *_memory_of_groups()]))


def _memory_of_groups() -> Iterator[int]:
    """Yield what each control group with a limit leaves, with the pages of files, which it gives up if necessary."""
    for group in _control_groups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        if limit.strip().isdecimal() and used:
            values = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            # In version 1, the values of a group with those inside it have a prefix.
            pages = [values.get(f"total_{name}", values.get(name, 0)) for name in ("active_file", "inactive_file")]
            yield int(limit) - int(used) + sum(map(int, pages))


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
        Whether the number must not depend on how busy the machine is. It then depends on ``cores`` alone, if they are
        given.

    Returns
    -------
    int
        At least 1.
    """
    usable = usable_cores()
    given = usable if cores is None else cores if repeatable else min(cores, usable)
    workers = max(1, min(most, given))
    if most <= 1 or most < given:
        reason = "there is work for no more"
    elif repeatable:
        reason = f"{count(given, 'core')} may be used, busy or not"
    elif given < usable or usable == 1:
        reason = f"{given} of {count(usable, 'core')} may be used"
    else:
        reason = f"{_count_free(usable, usable)} free"
    if workers > 1 and not repeatable and (free := free_cores(workers)) < workers:
        workers, reason = max(1, free), f"{_count_free(free, usable)} free"
    if memory and workers > 1 and (available := free_memory()) < workers * memory:
        workers = max(1, available // memory)
        reason = f"{available / 2**30:.1f} GiB of memory are free, and a worker needs {memory / 2**30:.1f} GiB"
    log_workers(step, workers, reason)
    return workers


def log_workers(step: str, workers: int, reason: str) -> None:
    """Log the number of workers of a step in one line.

    Parameters
    ----------
    step
        Name of the step.
    workers
        The number.
    reason
        What determined it.
    """
    logger.info(f"{step}: {count(workers, 'worker')}; {reason}")


def _count_free(free: int, usable: int) -> str:
    return f"{free} of {count(usable, 'core')} {'is' if free == 1 else 'are'}"
