import logging
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from dvlae.system.hardware import machine
from dvlae.system.hardware.machine import choose_workers, free_cores, free_memory, usable_cores

GIB = 2**30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Return a function that writes files of a system with four cores, in which no control group has a limit."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"), raising=False)
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(os, "process_cpu_count", lambda: 4, raising=False)
    monkeypatch.setattr(psutil, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(machine, "SECONDS_OF_MEASUREMENT", 0.001)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)

    def write(files: dict[str, str]):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


@pytest.fixture
def ticks(monkeypatch):
    """Return a function that sets what /proc/stat says next, for each core: busy and idle ticks."""
    readings: list[dict[int, tuple[int, int]]] = []

    def write(*each: list[tuple[int, int]]):
        total = [(0, 0)] * len(each[0])
        for reading in each:
            readings.append({core: (idle, busy + idle) for core, (busy, idle) in enumerate(total)})
            total = [(a + busy, b + idle) for (a, b), (busy, idle) in zip(total, reading, strict=True)]
            readings.append({core: (idle, busy + idle) for core, (busy, idle) in enumerate(total)})

    monkeypatch.setattr(machine, "_core_times", lambda: readings.pop(0))
    return write


@pytest.fixture
def said(caplog):
    """Return a function that chooses workers for the step ``train``, and returns what was logged."""
    caplog.set_level(logging.INFO, "dvlae")

    def choose(most: int, **options) -> str:
        caplog.clear()
        number = choose_workers("train", most, **options)
        (line,) = caplog.messages
        assert line.startswith(f"train: {number} worker{'s' if number > 1 else ''}; ")
        return line.removeprefix("train: ")

    return choose


@pytest.fixture
def four_cores(monkeypatch):
    """Return a function that sets how many of four cores are free."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)

    def set_free(free: int):
        monkeypatch.setattr(machine, "free_cores", lambda wanted: free)

    set_free(4)
    return set_free


# The cores that may be used -------------------------------------------------------------------------------------------


def test_without_limits_all_cores_of_the_affinity_can_be_used(system):
    assert usable_cores() == 4


@pytest.mark.parametrize(
    ("group", "around", "cores"),
    [
        ("max 100000", "max 100000", 4),
        ("200000 100000", "max 100000", 2),
        ("max 100000", "250000 100000", 2),
        ("20000 100000", "max 100000", 1),
    ],
)
def test_the_quota_of_a_control_group_and_of_those_around_it_limits_the_cores(system, group, around, cores):
    system({"proc/self/cgroup": "0::/kube/pod\n", "cgroup/kube/pod/cpu.max": group, "cgroup/kube/cpu.max": around})
    assert usable_cores() == cores


def test_a_control_group_that_is_the_outermost_one_for_its_container_limits_the_cores(system):
    system({"proc/self/cgroup": "0::/docker/c0ffee\n", "cgroup/cpu.max": "300000 100000\n"})
    assert usable_cores() == 3


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("150000", 1), ("300000", 3)])
def test_the_quota_of_a_control_group_of_version_1_limits_the_cores(system, quota, cores):
    system(
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/slurm/job\n0::/\n",
            "cgroup/cpu/slurm/job/cpu.cfs_quota_us": f"{quota}\n",
            "cgroup/cpu/slurm/job/cpu.cfs_period_us": "100000\n",
        }
    )
    assert usable_cores() == cores


@pytest.mark.parametrize(("text", "cores"), [("2", 2), ("9", 4), ("", 4)])
def test_slurm_limits_the_cores(system, monkeypatch, text, cores):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", text)
    assert usable_cores() == cores


def test_python_limits_the_cores_where_the_user_told_it(system, monkeypatch):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert usable_cores() == 3


# The cores that are free ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle", "free"),
    [
        ([100, 100, 100, 100], 4),
        ([100, 70, 100, 100], 4),
        ([100, 60, 100, 100], 3),
        ([75, 75, 75, 75], 3),  # One program, which the system moves from core to core.
        ([0, 0, 0, 0], 0),
    ],
)
def test_the_idle_time_of_all_cores_is_added_up_and_70_percent_of_one_count_as_a_core(system, ticks, idle, free):
    ticks(*[[(100 - each, each) for each in idle]] * machine.MEASUREMENTS)
    assert free_cores() == free


def test_a_program_that_computes_for_a_moment_occupies_no_core(system, ticks):
    ticks([(100, 0)] * 4, [(0, 100)] * 4)
    assert free_cores() == 4


def test_a_measurement_ends_when_as_many_cores_as_are_wanted_are_free(system, ticks):
    ticks([(100, 0), (100, 0), (0, 100), (0, 100)])
    assert free_cores(2) == 2


def test_what_others_in_the_control_group_use_of_its_quota_is_not_free(system, monkeypatch):
    used = iter(range(1000))
    monkeypatch.setattr(machine, "_used_seconds", lambda group: next(used))  # Far more than the quota.
    system({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "200000 100000"})
    assert free_cores() == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [("cgroup/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"), ("cgroup/cpuacct.usage", "2500000000\n")],
)
def test_both_versions_of_control_groups_say_what_was_used(system, tmp_path, name, content):
    system({name: content})
    assert machine._used_seconds(tmp_path / "cgroup") == 2.5


def test_the_times_are_those_of_the_cores_that_may_be_used(system, monkeypatch):
    monkeypatch.setattr(machine, "_affinity", lambda: {1})
    system({"proc/stat": "cpu  9 9 9 9\ncpu0 9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 3 400 50 6 7 8 1 2\nintr 0\n"})
    assert machine._core_times() == {1: (450, 477)}


def test_on_windows_and_macos_the_times_are_those_of_all_cores(monkeypatch):
    times = namedtuple("times", ["user", "system", "idle"])
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [times(1, 2, 3), times(4, 5, 6)])
    assert machine._core_times() == {0: (3, 6), 1: (6, 15)}


@pytest.mark.parametrize(("load", "free"), [(0.2, 4), (1.0, 3), (8.0, 0)])
def test_where_the_system_has_no_times_its_load_counts(system, monkeypatch, load, free):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load, 0.0, 0.0))
    assert free_cores() == free


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="unavailable: this system binds no process to a core")
def test_a_core_on_which_another_program_computes_is_not_free():
    core = min(os.sched_getaffinity(0))
    bind = f"import os; os.sched_setaffinity(0, {{{core}}}); "
    other = "print('ready', flush=True)\nimport time\nwhile time.monotonic() < end: pass"
    busy = [sys.executable, "-c", f"{bind}import time; end = time.monotonic() + 60\n{other}"]
    measure = [sys.executable, "-c", f"{bind}from dvlae.system.hardware.machine import free_cores; print(free_cores())"]
    with subprocess.Popen(busy, stdout=subprocess.PIPE) as computing:
        assert computing.stdout is not None
        computing.stdout.readline()
        try:
            assert subprocess.run(measure, capture_output=True, text=True, check=True).stdout == "0\n"
        finally:
            computing.kill()


# The memory that is free ----------------------------------------------------------------------------------------------

MEMINFO = f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {8 * 2**20} kB\nBuffers: 1 kB\nCached: 1 kB\n"
MEMINFO += "".join(f"{name}: 1 kB\n" for name in ("Shmem", "Active", "Inactive", "Slab", "SReclaimable"))


def test_the_memory_is_what_the_system_has_available(system):
    system({"proc/meminfo": MEMINFO})
    assert free_memory() == 8 * GIB


def test_a_control_group_leaves_what_it_may_use_and_the_pages_of_files(system):
    system(
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/job/step\n",
            "cgroup/job/memory.max": f"{4 * GIB}\n",
            "cgroup/job/memory.current": f"{3 * GIB}\n",
            "cgroup/job/memory.stat": f"anon 1\nactive_file {GIB}\ninactive_file {GIB // 2}\n",
            "cgroup/job/step/memory.max": "max\n",
            "cgroup/job/step/memory.current": "1\n",
        }
    )
    assert free_memory() == 2.5 * GIB


def test_a_control_group_of_version_1_leaves_what_those_inside_it_do_not_use(system):
    system(
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "4:memory:/job\n",
            "cgroup/memory/job/memory.limit_in_bytes": f"{4 * GIB}\n",
            "cgroup/memory/job/memory.usage_in_bytes": f"{3 * GIB}\n",
            "cgroup/memory/job/memory.stat": f"active_file 7\ntotal_active_file {GIB}\ntotal_inactive_file 0\n",
        }
    )
    assert free_memory() == 2 * GIB


def test_this_machine_has_cores_and_memory():
    assert 1 <= usable_cores() <= os.cpu_count()
    assert 0 <= free_cores() <= usable_cores()
    assert free_memory() > 0
    if Path("/proc/stat").exists():
        assert machine._core_times()


# The number of workers ------------------------------------------------------------------------------------------------


def test_there_are_as_many_workers_as_cores_are_free(said, four_cores):
    assert said(8) == "4 workers; 4 of 4 cores are free"
    four_cores(3)
    assert said(8) == "3 workers; 3 of 4 cores are free"
    four_cores(1)
    assert said(8) == "1 worker; 1 of 4 cores is free"
    four_cores(0)
    assert said(8) == "1 worker; 0 of 4 cores are free"


def test_there_are_no_more_workers_than_there_is_work(said, four_cores):
    assert said(2) == "2 workers; there is work for no more"
    assert said(0) == "1 worker; there is work for no more"


def test_there_are_no_more_workers_than_cores_were_given(said, four_cores):
    assert said(8, cores=2) == "2 workers; 2 of 4 cores may be used"
    assert said(8, cores=9) == "4 workers; 4 of 4 cores are free"
    four_cores(1)
    assert said(8, cores=2) == "1 worker; 1 of 4 cores is free"


def test_a_single_core_is_not_measured(said, four_cores, monkeypatch):
    monkeypatch.delattr(machine, "free_cores")
    assert said(8, cores=1) == "1 worker; 1 of 4 cores may be used"
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    assert said(8) == "1 worker; 1 of 1 core may be used"


def test_the_workers_of_what_has_to_repeat_depend_on_the_cores_that_were_given_alone(said, four_cores, monkeypatch):
    four_cores(0)
    assert said(8, repeatable=True) == "4 workers; 4 cores may be used, busy or not"
    assert said(8, repeatable=True, cores=2) == "2 workers; 2 cores may be used, busy or not"
    assert said(8, repeatable=True, cores=1) == "1 worker; 1 core may be used, busy or not"
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    assert said(8, repeatable=True, cores=2) == "2 workers; 2 cores may be used, busy or not"
    assert said(2, repeatable=True, cores=3) == "2 workers; there is work for no more"


def test_there_are_no_more_workers_than_fit_into_the_memory(said, four_cores, monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 5 * GIB)
    assert said(8, memory=2 * GIB) == "2 workers; 5.0 GiB of memory are free, and a worker needs 2.0 GiB"
    assert said(8, memory=6 * GIB) == "1 worker; 5.0 GiB of memory are free, and a worker needs 6.0 GiB"
    assert said(8, memory=GIB) == "4 workers; 4 of 4 cores are free"
    assert said(1, memory=6 * GIB) == "1 worker; there is work for no more"
