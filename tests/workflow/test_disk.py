"""A disk that is full or read-only, and files that are damaged: one line, nothing half-done taken for whole."""

import shutil
import subprocess

import pytest

from project import Project, error_lines

pytestmark = pytest.mark.workflow
ONE = ["--cores", "1"]


@pytest.fixture
def disk(tmp_path):
    """Return a project whose results are on a small disk of their own, and a function that mounts it anew."""
    project = Project(tmp_path)
    results = tmp_path / "results"
    results.mkdir()

    def mount(options: str):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(results)], capture_output=True, text=True
        )

    if shutil.which("mount") is None or mount("size=150k").returncode != 0:
        pytest.skip("unavailable: root, to mount a small disk")
    yield project, mount
    subprocess.run(["umount", "--lazy", str(results)], check=True)


def whole(project) -> set[str]:
    """Return the names of the folders and tables that the workflow would take for whole."""
    names = {"simulated", "images", "patches", "model", "denoised", "psnr.csv"}
    return {path.name for path in (project.folder / "results").rglob("*") if path.name in names}


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(disk):
    project, mount = disk
    target = "results/small/dvlae-rf4/seed0/psnr.csv"
    for size, made in [("60k", "images"), ("250k", "patches"), ("600k", "model")]:
        assert mount(f"remount,size={size}").returncode == 0
        printed = project.snakemake(target, *ONE, fails=True)
        (line,) = error_lines(printed)
        assert "No space left on device" in line
        assert "Traceback" not in printed
        assert made not in whole(project)
    mount("remount,size=100m")
    project.snakemake(target, *ONE)
    assert "psnr.csv" in whole(project)


def test_a_disk_that_becomes_read_only_is_one_line(disk):
    project, mount = disk
    mount("remount,size=100m")
    project.snakemake("results/small/images")
    mount("remount,ro")
    printed = project.snakemake("results/small/patches", fails=True)
    assert "results: found 'results', but" in printed
    assert "Traceback" not in printed


@pytest.fixture(scope="module")
def finished(tmp_path_factory, forked):
    project = Project(tmp_path_factory.mktemp("finished"))
    project.snakemake("results/small/dvlae-rf4/seed0/psnr.csv", *ONE, **forked)
    return project


RUN = "results/small/dvlae-rf4/seed0"


def slow(*values: str):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("file", "target", "said"),
    [
        ("results/small/images/noisy/coins.tif", "results/small/patches", "coins.tif: cannot be read"),
        ("results/small/patches/train.tif", f"{RUN}/model", "train.tif: damaged"),
        slow(f"{RUN}/model/weights.safetensors", f"{RUN}/denoised", "weights.safetensors: damaged"),
        slow(f"{RUN}/model/model.json", f"{RUN}/denoised", "not a model that can be read"),
        slow(f"{RUN}/denoised/coins.tif", f"{RUN}/psnr.csv", "coins.tif: cannot be read"),
    ],
)
def test_a_truncated_file_is_named_and_what_follows_is_not_made(finished, tmp_path, file, target, said):
    project = Project(tmp_path)
    for name in ("results", ".snakemake"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    damaged = tmp_path / file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    (line,) = error_lines(project.snakemake(target, "--forcerun", target, *ONE, fails=True))
    assert said in line
    assert not (tmp_path / target).exists()
