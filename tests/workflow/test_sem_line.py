"""The real electron-microscopy images, four of them, from the mirror."""

import csv
import hashlib
import math

import pytest
import yaml

from project import REPOSITORY, Project, jobs

pytestmark = pytest.mark.workflow

IMAGES = 4
SHIPPED = REPOSITORY / "config/datasets/sem_line"


@pytest.fixture(scope="module")
def sem(tmp_path_factory, mirror, forked):
    """Run the shipped dataset, cut down to four pairs and a part of each."""
    project = Project(tmp_path_factory.mktemp("sem"))
    header, *lines = SHIPPED.with_suffix(".csv").read_text().splitlines()
    kept = [line for kind in ("noisy", "clean") for line in [row for row in lines if f"/{kind}/" in row][:IMAGES]]
    (project.folder / "config/datasets/sem_line.csv").write_text("\n".join([header, *kept]) + "\n")
    settings = yaml.safe_load(SHIPPED.with_suffix(".yaml").read_text())
    project.add_dataset("sem_line", settings | {"crop": {"y": [2, 194], "x": [2, 258]}, "training": {"block": 2}})
    project.configure(datasets=["sem_line"])
    project.printed = project.snakemake(DVLAE_DATA_MIRROR=str(mirror), **forked)
    return project


def test_it_runs_from_download_to_figures(sem):
    done = jobs(sem.printed)
    assert (done["download"], done["train"], done["figures"]) == (1, 1, 1)
    assert "simulate" not in done
    assert sem.files("figures/panel_*") == ["figures/panel_sem_line.png", "figures/panel_sem_line.svg"]


def test_the_downloaded_files_are_listed(sem):
    listed = list(csv.DictReader((sem.folder / "data/sem_line.files.csv").open()))
    assert len(listed) == 2 * IMAGES
    assert all((sem.folder / "data" / row["file"]).stat().st_size == int(row["bytes"]) for row in listed)


def test_every_image_is_measured(sem):
    measured = list(csv.DictReader(sem.read("sem_line/dvlae-rf4/seed0/psnr.csv").decode().splitlines()))
    assert len(measured) == IMAGES
    assert all(math.isfinite(float(row["psnr"])) for row in measured)


def test_the_drift_of_each_image_is_recorded_in_full_precision(sem):
    rows = list(csv.DictReader(sem.read("sem_line/targets.csv").decode().splitlines()))
    assert len(rows) == IMAGES
    assert all(row[axis] == repr(float(row[axis])) for row in rows for axis in ("dy", "dx"))
    assert any(abs(float(row["dx"])) > 0.1 for row in rows)


def test_each_evaluation_says_which_targets_it_took(sem):
    expected = hashlib.sha256(sem.read("sem_line/targets.csv")).hexdigest()
    found = csv.DictReader(sem.read("tables/provenance.csv").decode().splitlines())
    assert {row["targets_sha256"] for row in found} == {expected}


def test_the_gaussian_filter_gains_what_it_gains_on_such_noise(sem):
    measured = list(csv.DictReader(sem.read("sem_line/gaussian/seed0/psnr.csv").decode().splitlines()))
    gains = [float(row["psnr"]) - float(row["psnr_noisy"]) for row in measured]
    assert min(gains) > 4


def test_files_that_are_there_are_not_fetched_again(sem):
    (sem.folder / "data/sem_line.files.csv").unlink()
    printed = sem.snakemake("download_all", DVLAE_DATA_MIRROR=str(sem.folder / "data"))
    assert jobs(printed) == {"download": 1, "download_all": 1}
    assert "Nothing to be done" in sem.snakemake()
