"""A mistake is one clear line; nothing is left half-written; once it is mended, the next run goes on."""

import json

import pytest

from project import SMALL, error_lines

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"sedes": [0]}, ["config/config.yaml: sedes: unknown key", "'seeds'"]),
        ({"seeds": ["0"]}, ["config/config.yaml: seeds[0]: found '0'", "whole number"]),
        ({"receptive_fields": [41]}, ["config/config.yaml: receptive_fields", "41", "40, 42"]),
        ({"datasets": ["smal"]}, ["datasets: found 'smal'", "small"]),
        ({"prediction": {"samples": 0}}, ["config/config.yaml: prediction.samples: found 0"]),
        ({"training": {"patch_size": 30}}, ["config/config.yaml: training.patch_size: found 30", "28 or 32"]),
    ],
    ids=str,
)
def test_a_mistake_in_the_configuration_is_one_line(project, changes, words):
    project.configure(**changes)
    printed = project.snakemake("--quiet", "all", fails=True)
    (line,) = [line for line in printed.splitlines() if not line.startswith("Using workflow specific profile")]
    assert all(word in line for word in words)
    assert not (project.folder / "results").exists()


def test_a_mistake_names_the_file_that_was_laid_over(project):
    (project.folder / "mine.yaml").write_text("seeds: [-1]\n")
    printed = project.snakemake("--configfile", "mine.yaml", fails=True)
    assert "mine.yaml: seeds[0]: found -1" in printed
    assert "config/config.yaml: seeds" not in printed


def test_values_of_the_command_line_have_the_types_of_a_file(project):
    given = ["--config", "seeds=[3, 4]", "training={patch_size: 16, max_minutes: null}"]
    planned = project.snakemake("--dry-run", *given)
    assert all(f"results/small/dvlae-rf4/seed{seed}/model" in planned for seed in (3, 4))
    project.snakemake("results/small/patches", *given)
    # Patches are twice as long as crops; config/config.yaml has crops of 32.
    assert json.loads(project.read("small/patches/patches.json"))["patch_size"] == [32, 32]


def test_a_mistake_on_the_command_line_is_not_blamed_on_a_file(project):
    printed = project.snakemake("--config", "seeds=[one]", fails=True)
    assert "--config: seeds[0]: found 'one', allowed: a whole number >= 0 and < 4294967296" in printed
    assert "config.yaml: seeds" not in printed


def test_a_mistake_in_a_dataset_names_its_file(project):
    project.add_dataset("small", SMALL | {"axes": "YQX"})
    assert "config/datasets/small.yaml: axes" in project.snakemake(fails=True)


def test_a_pattern_that_matches_nothing_can_be_mended(project):
    project.add_dataset("small", SMALL | {"noisy": ["cameraman.png"]})
    (line,) = error_lines(project.snakemake(fails=True))
    assert "cameraman.png" in line
    assert project.files("small/**/*") == []
    project.add_dataset("small", SMALL)
    project.snakemake("results/small/patches")
    assert len(project.files("small/patches/*")) == 3


def test_images_smaller_than_a_patch_are_refused(project):
    project.configure(training={"patch_size": 128})
    (line,) = error_lines(project.snakemake("results/small/patches", fails=True))
    assert "training.patch_size: found 128" in line and "auto" in line
    assert project.files("small/patches/*") == []


def test_a_gpu_that_is_not_there_is_refused(project):
    project.configure(device="cuda")
    model = "results/small/dvlae-rf4/seed0/model"
    (line,) = error_lines(project.snakemake(model, fails=True, CUDA_VISIBLE_DEVICES=""))
    assert "cuda" in line
    assert not (project.folder / model).exists()
    assert project.read("logs/train/small/dvlae-rf4/seed0.log.failed").decode() == f"1 {line}\n"


def test_results_that_cannot_be_written_are_refused(project):
    project.configure(results="config/config.yaml/results")
    printed = project.snakemake(fails=True)
    assert "results: found 'config/config.yaml/results'" in printed
    assert "Traceback" not in printed
