"""Models that exist already, in the workflow."""

import shutil

import pytest

from project import Project, jobs

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def trained(tmp_path_factory, forked):
    """Return a run with one trained model, which is then kept elsewhere."""
    project = Project(tmp_path_factory.mktemp("trained"))
    project.snakemake("results/small/dvlae-rf4/seed0/prediction.json", "--cores", "1", **forked)
    shutil.copytree(project.folder / "results/small/dvlae-rf4/seed0/model", project.folder / "kept/model")
    (project.folder / "kept/checkpoints").mkdir()
    return project


def test_a_model_that_exists_denoises_without_any_training(trained, forked):
    trained.configure(receptive_fields=[], models={"kept": "kept/model"}, results="results/again")
    done = jobs(trained.snakemake("results/again/tables/summary.html", "--cores", "1", **forked))
    assert done["predict"] == 1 and not {"train", "extract_patches"} & set(done)
    assert (
        trained.json("again/small/kept/seed0/prediction.json")["weights_sha256"]
        in trained.read("again/tables/provenance.csv").decode()
    )
    assert trained.files("again/small/kept/seed0/denoised/*.tif")
    assert trained.read("again/tables/summary.csv").decode().count(",kept,") == 1
    # A folder beside the model is not that of an unfinished training.
    assert (trained.folder / "kept/checkpoints").is_dir()


def test_trainings_begin_with_a_model(trained, forked):
    trained.configure(start_from="kept/model", results="results/further")
    trained.snakemake("results/further/small/dvlae-rf4/seed0/model", "--cores", "1", **forked)
    kept = trained.json("small/dvlae-rf4/seed0/prediction.json")["weights_sha256"]
    assert trained.json("further/small/dvlae-rf4/seed0/model/run.json")["start_from"] == kept


def test_a_folder_that_is_no_model_is_one_line(trained):
    trained.configure(models={"kept": "kept/nothing"})
    assert "models: kept: found 'kept/nothing', allowed: a folder made by dvlae train" in trained.snakemake(
        "--dry-run", fails=True
    )
