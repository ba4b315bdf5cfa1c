import mmap
import subprocess
import sys
import time

import pytest

from dvlae.system.hardware import usage
from dvlae.system.hardware.usage import Usage

BUSY = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"


def test_processor_time_is_that_of_the_block_with_the_processes_that_it_started():
    if sys.platform != "linux":
        pytest.skip("unavailable: other systems do not count processes that have ended")
    with Usage() as found:
        exec(BUSY)
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert 1 <= found.processor_seconds < 3
    assert found.seconds >= found.processor_seconds / 2


def test_a_process_that_waits_has_a_small_share_of_the_processor():
    with Usage() as found:
        time.sleep(0.3)
    assert found.share(1) < 0.5
    assert found.share(2) == pytest.approx(found.share(1) / 2, abs=0.001)


def test_nothing_is_known_of_what_was_not_measured():
    assert Usage().share(1) is None


def test_the_peak_is_seen_although_the_memory_is_free_again(monkeypatch):
    monkeypatch.setattr(usage, "SECONDS_BETWEEN_LOOKS", 0.01)
    with Usage() as before:
        pass
    # Not of the memory that this process keeps for later.
    with Usage() as found, mmap.mmap(-1, 600_000_000) as block:
        block[::4096] = b"1" * len(range(0, len(block), 4096))
        time.sleep(0.3)
    assert found.peak_memory_mb > before.peak_memory_mb + 150
