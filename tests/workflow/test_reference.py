"""What stands in results/reference comes out again. `results/reference/NAME` is made with `config/NAME.yaml`."""

import csv
import shutil
import statistics

import pytest
import yaml

from project import REPOSITORY, Project

pytestmark = pytest.mark.workflow

REFERENCE = REPOSITORY / "results/reference"
NAMES = sorted(path.parent.name for path in REFERENCE.glob("*/summary.csv"))
# What the method of a row is called now. It chooses by parts of 8 images, and not by all images any more.
CALLED = {"gaussian": "gaussian-oracle"}


def first_row(name, method):
    """Return the first row of a reference table whose method begins so."""
    with (REFERENCE / name / "summary.csv").open(encoding="utf-8") as file:
        return next(row for row in csv.DictReader(file) if row["method"].startswith(method))


def measure_again(folder, mirror, name, row):
    """Return the PSNR of the first seed of a row, in decibel, from the data on."""
    project = Project(folder)
    shutil.copytree(REPOSITORY / "config", folder / "config", dirs_exist_ok=True)
    configuration = folder / "config" / f"{name}.yaml"
    method = CALLED.get(row["method"])
    settings = yaml.safe_load(configuration.read_text()) | ({"baselines": [method]} if method else {})
    configuration.write_text(yaml.safe_dump(settings))
    table = f"{settings['results']}/{row['dataset']}/{method or row['method']}/seed0/psnr.csv"
    project.snakemake(table, "--configfile", str(configuration), DVLAE_DATA_MIRROR=str(mirror))
    with (folder / table).open(encoding="utf-8") as file:
        return statistics.mean(float(image["psnr"]) for image in csv.DictReader(file))


# Each row once, however many references repeat it.
@pytest.mark.parametrize("name", {first_row(name, "gaussian")["dataset"]: name for name in reversed(NAMES)}.values())
def test_the_gaussian_filter_reaches_what_the_reference_says(name, mirror, tmp_path):
    row = first_row(name, "gaussian")
    assert measure_again(tmp_path, mirror, name, row) == pytest.approx(float(row["psnr"]), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_training_reaches_what_the_reference_says_within_its_spread(name, mirror, tmp_path):
    """Of trainings limited in minutes, that is so on a machine as fast as the one of the reference."""
    row = first_row(name, "dvlae")
    spread = max(0.1, 3 * float(row["psnr_std"] or 0))
    assert measure_again(tmp_path, mirror, name, row) == pytest.approx(float(row["psnr"]), abs=spread)
