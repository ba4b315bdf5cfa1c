"""A sweep over kinds of simulated noise, with the receptive field that fits each of them."""

import csv
import io
import json

import pytest
import yaml

from project import SMALL, Project

pytestmark = pytest.mark.workflow

SWEEP = SMALL | {
    "simulate": {"read_noise": 0.0, "bits": None},
    "sweep": {"correlation_length": [0, 2], "photons": [20]},
    "evaluation": {"data_range": 1.0},
}
METHODS = ["dvlae-auto", "noisy"]
SWEPT = ("results/tables/summary.html", "--configfile", "swept.yaml")
FIELDS = {"sweep_length0_photons20": "0", "sweep_length2_photons20": "4"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, forked):
    project = Project(tmp_path_factory.mktemp("swept"))
    project.add_dataset("sweep", SWEEP)
    (project.folder / "swept.yaml").write_text(yaml.safe_dump({"datasets": ["sweep"], "methods": METHODS}))
    project.snakemake(*SWEPT, **forked)
    return project


def rows(project: Project, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(project.read(f"tables/{table}.csv").decode())))


def test_our_method_has_the_receptive_field_that_the_diagnosis_suggests_for_each_noise(swept):
    found = {row["dataset"]: row["receptive_field"] for row in rows(swept, "summary") if row["method"] == "dvlae-auto"}
    assert found == FIELDS
    for dataset, pixels in FIELDS.items():
        model = json.loads(swept.read(f"{dataset}/dvlae-auto/seed0/model/model.json"))
        assert str(model["architecture"]["receptive_field"]) == pixels


def test_the_noise_table_says_what_the_noise_of_each_dataset_is_like(swept):
    found = {row["dataset"]: (row["direction"], row["correlation_length"]) for row in rows(swept, "noise")}
    assert found == {"sweep_length0_photons20": ("none", "0"), "sweep_length2_photons20": ("x", "2")}


def test_nothing_runs_again(swept):
    assert swept.planned(*SWEPT) == {}


def test_the_training_says_how_much_of_its_core_it_had(swept):
    record = json.loads(swept.read("sweep_length2_photons20/dvlae-auto/seed0/model/run.json"))
    assert 0 < record["processor_share"] < 1.5
