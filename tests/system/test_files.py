import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from dvlae.system import files
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file, atomic_folder, check_folder, contents_beside, exclusive_lock, remove_files

HOLD = """
import sys, time
from dvlae.system.files import exclusive_lock
with exclusive_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_block_waits_for_another_that_holds_the_lock_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
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
    assert caplog.messages == [f"waiting for another dvlae process that is writing here ({tmp_path / 'lock'})"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def holder(tmp_path):
    """Return a process that holds a lock until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_ends_with_its_process(tmp_path, holder, caplog):
    caplog.set_level(logging.INFO)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "lock").exists()
    with exclusive_lock(tmp_path / "lock"):
        pass
    assert caplog.messages == []


def test_a_block_that_waits_goes_on_when_the_holder_is_killed(tmp_path, holder, caplog):
    caplog.set_level(logging.INFO)
    killing = threading.Timer(0.2, holder.kill)
    killing.start()
    with exclusive_lock(tmp_path / "lock"):
        assert holder.wait() == -signal.SIGKILL
    assert len(caplog.messages) == 1


def test_many_blocks_hold_a_lock_one_after_the_other(tmp_path):
    """The lock's file is removed and made again all the time, and no two blocks may lock different files."""
    inside, counts = [], []

    def hold(number):
        for _ in range(20):
            with exclusive_lock(tmp_path / "lock"):
                inside.append(number)
                time.sleep(0.001)
                counts.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(8)))
    assert counts == [1] * 160
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_used_without_them(tmp_path, monkeypatch, caplog):
    def refuse(self, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("dvlae.system.files.FileLock.acquire", refuse)
    with exclusive_lock(tmp_path / "lock"):
        pass
    assert "this file system has no locks" in caplog.text


def test_a_lock_in_a_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("dvlae.system.files.FileLock.acquire", refuse)
    with pytest.raises(PermissionError), exclusive_lock(tmp_path / "lock"):
        pass


def test_a_folder_that_was_left_half_made_is_made_anew(tmp_path):
    (tmp_path / ".unfinished-a").mkdir()
    (tmp_path / ".unfinished-a/old").touch()
    with atomic_folder(tmp_path / "a", {}) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("1000 requested and 24 written")], ids=str
)
def test_a_full_disk_is_put_down_to_the_file(tmp_path, error):
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "a.tif"):
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.tif"))


@pytest.mark.parametrize("make", [atomic_file, partial(atomic_folder, contents={})])
@pytest.mark.parametrize("place", ["file/below", "file/further/below", ".", "a/.."])
def test_a_place_where_nothing_can_be_made_is_named_before_anything_is_computed(tmp_path, monkeypatch, make, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"allowed: (a folder|a path)"), make(place):
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_does_not_replace_a_folder_nor_a_folder_a_file(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: found a folder, allowed: a file"), atomic_file(tmp_path / "folder"):
        raise AssertionError
    with pytest.raises(UserError, match="file: found a file, allowed: a folder"), atomic_folder(tmp_path / "file", {}):
        raise AssertionError


IMAGES = {"list.csv": lambda file: file.read_text() == "mine", "noisy/*.tif": lambda file: True}


@pytest.mark.parametrize("name", ["x" * 251 + ".tif", "é" * 125 + ".tiff"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    with atomic_file(tmp_path / name) as temporary:
        assert temporary.suffix == Path(name).suffix
        temporary.touch()
    with atomic_folder(tmp_path / "of" / name, {}) as folder:
        (folder / "a").touch()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
    assert (tmp_path / "of" / name / "a").exists()


@pytest.mark.parametrize(
    "other", ["notes.txt", "a.tif", "noisy/below/a.tif", "noisy/a.png", ".git/config", "c/list.csv"]
)
def test_a_folder_with_other_files_is_not_replaced(tmp_path, other):
    for name in ("list.csv", "noisy/a.tif", "noisy/.snakemake_timestamp"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    with atomic_folder(tmp_path / "out", IMAGES) as folder:
        (folder / "list.csv").write_text("mine")
    (tmp_path / "out" / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / other).touch()
    with (
        pytest.raises(UserError, match=f"out: contains {other}, which this command has not written"),
        atomic_folder(tmp_path / "out", IMAGES),
    ):
        raise AssertionError
    assert (tmp_path / "out" / other).exists()
    (tmp_path / "out" / other).unlink()
    with atomic_folder(tmp_path / "out", IMAGES):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_a_file_that_only_has_the_name_of_one_is_kept(tmp_path):
    (tmp_path / "list.csv").write_text("yours")
    with pytest.raises(UserError, match=r"contains list\.csv"), atomic_folder(tmp_path, IMAGES):
        raise AssertionError
    beside = contents_beside("main.json", "a.tif")
    (tmp_path / "a.tif").touch()
    with pytest.raises(UserError, match=r"contains a\.tif"):
        check_folder(tmp_path, beside | IMAGES)
    (tmp_path / "main.json").touch()
    (tmp_path / "list.csv").unlink()
    check_folder(tmp_path, beside)


def test_a_link_to_a_folder_stays_and_leads_to_what_is_made(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with atomic_folder(tmp_path / "out", {}) as folder:
        (folder / "a").touch()
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]


def test_files_of_others_stay_where_files_are_removed(tmp_path):
    for name in ("state.pt", ".unfinished-1-state.pt", "notes.txt"):
        (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "folder" / name).touch()
    remove_files(tmp_path / "folder", ["state.pt", ".unfinished-*"])
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["notes.txt"]
    remove_files(tmp_path / "folder", ["notes.txt"])
    assert not (tmp_path / "folder").exists()


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(UserError, match="/dev/null: found a device"), atomic_file("/dev/null"):
        raise AssertionError


@pytest.fixture
def locked(monkeypatch):
    """Return a function that lets another program of Windows have new files open for so many renames."""

    def lock(renames: int):
        failures = iter(range(renames))

        def replace(old, new):
            if next(failures, None) is not None:
                raise PermissionError(errno.EACCES, "Access is denied", str(old), None, str(new))
            os.replace(old, new)

        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setattr(files, "SECONDS_BETWEEN_MOVES", (0, 0))

    return lock


def test_on_windows_a_file_that_is_open_for_a_moment_is_replaced_a_moment_later(tmp_path, locked):
    locked(2)
    with atomic_file(tmp_path / "new") as temporary:
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_on_windows_a_file_that_stays_open_in_another_program_is_named(tmp_path, locked):
    locked(3)
    with pytest.raises(PermissionError) as refused, atomic_file(tmp_path / "new") as temporary:
        temporary.touch()
    assert refused.value.filename == str(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
