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
# What the method of a row is called now in tables of an older version. It chooses by parts of 8 images, and not by all.
CALLED = {name: {"gaussian": "gaussian-oracle"} for name in ("kodak", "sem_ablation")}
# Each reference has one of these methods, which need nothing but a minute.
CHEAP = ("gaussian", "noisy")


def rows(name):
    """Return the rows of a reference table."""
    with (REFERENCE / name / "summary.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cheap_row(name):
    """Return the row of the first of the cheap methods that a reference has."""
    return next(row for method in CHEAP for row in rows(name) if row["method"] == method)


def measure_again(folder, mirror, name, row, **environment):
    """Return the PSNR of the first seed of a row, in decibel, from the data on."""
    project = Project(folder)
    shutil.copytree(REPOSITORY / "config", folder / "config", dirs_exist_ok=True)
    configuration = folder / "config" / f"{name}.yaml"
    settings, method = yaml.safe_load(configuration.read_text()), row["method"]
    if method in CALLED.get(name, {}):
        method = CALLED[name][method]
        configuration.write_text(yaml.safe_dump(settings | {"baselines": [method]}))
    table = f"{settings['results']}/{row['dataset']}/{method}/seed0/psnr.csv"
    project.snakemake(table, "--configfile", str(configuration), DVLAE_DATA_MIRROR=str(mirror), **environment)
    with (folder / table).open(encoding="utf-8") as file:
        return statistics.mean(float(image["psnr"]) for image in csv.DictReader(file))


# Of the references of a dataset, the first one is enough for every day.
DAILY = {cheap_row(name)["dataset"]: name for name in reversed(NAMES)}.values()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in DAILY else pytest.mark.slow) for n in NAMES])
def test_a_method_without_training_reaches_what_the_reference_says(name, mirror, tmp_path, forked):
    row = cheap_row(name)
    assert measure_again(tmp_path, mirror, name, row, **forked) == pytest.approx(float(row["psnr"]), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_training_reaches_what_the_reference_says_within_its_spread(name, mirror, tmp_path):
    """Of trainings limited in minutes, that is so on a machine as fast as the one of the reference."""
    row = next(row for row in rows(name) if row["method"].startswith("dvlae"))
    spread = max(0.1, 3 * float(row["psnr_std"] or 0))
    assert measure_again(tmp_path, mirror, name, row) == pytest.approx(float(row["psnr"]), abs=spread)
