import os
import time

import pytest

from dvlae.config.settings import Settings
from dvlae.runs.disk_space import MIN_ABANDONED_SECONDS, clean
from dvlae.system.errors import UserError
from grid import Grid


@pytest.fixture
def grid(tmp_path):
    """Return results in which one training is finished and the other is not."""
    grid = Grid(tmp_path)
    grid.trained(seed=0)
    grid.measured("dvlae-rf4")
    (grid.results / "small/dvlae-rf4/seed0/denoised").mkdir()
    for path in ("dvlae-rf4/seed0/checkpoints/state.pt", "dvlae-rf4/seed1/checkpoints/state.pt", "patches/train.tif"):
        file = grid.results / "small" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(5000))
    return grid


def files(grid):
    return {str(path.relative_to(grid.results)) for path in grid.results.rglob("*") if path.is_file()}


def test_nothing_is_removed_unless_asked_for(grid):
    before = files(grid)
    text = clean(grid.settings, remove=False, patches=True)
    assert files(grid) == before
    assert "would be removed:" in text
    assert "seed0/checkpoints" in text


def test_checkpoints_of_finished_trainings_are_removed_and_those_of_others_kept(grid):
    before = files(grid)
    clean(grid.settings, remove=True, patches=False)
    assert before - files(grid) == {"small/dvlae-rf4/seed0/checkpoints/state.pt"}


def test_checkpoints_are_kept_until_the_model_was_used(grid):
    (grid.results / "small/dvlae-rf4/seed0/denoised").rmdir()
    before = files(grid)
    clean(grid.settings, remove=True, patches=False)
    assert files(grid) == before


def test_patches_are_kept_while_a_run_is_not_finished(grid):
    clean(grid.settings, remove=True, patches=True)
    assert "small/patches/train.tif" in files(grid)


def test_patches_are_removed_when_every_run_is_finished(grid):
    grid.trained(seed=1)
    grid.measured("dvlae-rf4", 1)
    grid.measured("noisy")
    clean(grid.settings, remove=True, patches=True)
    assert "small/patches/train.tif" not in files(grid)
    assert "small/dvlae-rf4/seed1/model/run.json" in files(grid)


def test_what_killed_jobs_left_is_removed_when_it_is_a_day_old(grid):
    for name, age in (("old", MIN_ABANDONED_SECONDS + 60), ("new", 0)):
        path = grid.results / "small" / f".unfinished-{name}" / "a.tif"
        path.parent.mkdir()
        path.write_bytes(b"")
        for part in (path, path.parent):
            os.utime(part, (time.time() - age,) * 2)
    clean(grid.settings, remove=True, patches=False)
    assert "small/.unfinished-new/a.tif" in files(grid)
    assert not (grid.results / "small/.unfinished-old").exists()


def test_links_out_of_the_results_are_not_followed(grid, tmp_path):
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    (kept / "precious.tif").write_bytes(bytes(10**6))
    grid.trained(seed=1)
    (grid.results / "small/dvlae-rf4/seed1/denoised").mkdir()
    checkpoints = grid.results / "small/dvlae-rf4/seed1/checkpoints"
    (checkpoints / "state.pt").unlink()
    checkpoints.rmdir()
    checkpoints.symlink_to(kept)
    clean(grid.settings, remove=True, patches=True)
    assert (kept / "precious.tif").exists()


def test_each_kind_of_file_is_shown_with_its_size(grid):
    lines = [line.split(maxsplit=2) for line in clean(grid.settings, remove=False, patches=False).splitlines()]
    assert ["10.0", "kB", "checkpoints"] in lines
    assert ["5.0", "kB", "patches"] in lines


def test_no_results_are_named():
    with pytest.raises(UserError, match="results: found 'nowhere', but there is no such folder"):
        clean(Settings(results="nowhere"), remove=True, patches=True)


def test_parts_are_removed_when_the_run_was_measured_after_them(grid):
    for seed, age in ((0, 60), (1, 0)):
        file = grid.results / f"small/dvlae-rf4/seed{seed}/parts/1-of-2/denoised/a.tif"
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(5000))
        for path in (file, *file.parents[:3]):
            os.utime(path, (time.time() - age,) * 2)
    before = files(grid)
    text = clean(grid.settings, remove=True, patches=False)
    assert before - files(grid) == {
        "small/dvlae-rf4/seed0/checkpoints/state.pt", "small/dvlae-rf4/seed0/parts/1-of-2/denoised/a.tif",
    }  # fmt: skip
    assert "10.0 kB  parts" in text
    assert "seed0/parts (its run is finished)" in text
