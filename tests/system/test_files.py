import errno
import signal
import subprocess
import sys
import threading

import pytest

from dvlae.system.files import atomic_file, atomic_folder, exclusive_lock

HOLD = """
import sys, time
from dvlae.system.files import exclusive_lock
with exclusive_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_block_waits_for_another_that_holds_the_lock_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    order, holds = [], threading.Event()

    def second():
        holds.wait()
        with exclusive_lock(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with exclusive_lock(tmp_path / "lock"):
        holds.set()
        thread.join(timeout=0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting for it to end" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with exclusive_lock(tmp_path / "lock"):
        pass


def test_a_folder_that_was_left_half_made_is_made_anew(tmp_path):
    (tmp_path / ".unfinished-a").mkdir()
    (tmp_path / ".unfinished-a/old").touch()
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("1000 requested and 24 written")], ids=str
)
def test_a_full_disk_is_put_down_to_the_file(tmp_path, error):
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "a.tif"):
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.tif"))
