"""Trainings that run at the same time on one machine."""

import pytest

from project import TINY

pytestmark = pytest.mark.workflow

MODELS = [f"results/small/dvlae-rf4/seed{seed}/model" for seed in (0, 1)]


@pytest.fixture
def grid(project):
    project.configure(device="cpu", seeds=[0, 1])
    return project


def test_two_cores_train_two_seeds_at_the_same_time(grid):
    grid.snakemake(*MODELS)
    (_, first_end), (second_start, _) = grid.spans("train")
    assert second_start < first_end


def test_one_core_trains_them_one_after_the_other(grid):
    grid.snakemake(*MODELS, "--cores", "1")
    (_, first_end), (second_start, _) = grid.spans("train")
    assert second_start >= first_end - 1


def test_more_than_the_free_memory_is_asked_for(grid):
    grid.snakemake(MODELS[0], "--resources", "mem_mb=100")
    assert (grid.folder / MODELS[0]).exists()


def test_as_many_trainings_as_fit_into_the_memory(grid):
    grid.snakemake(*MODELS, "--resources", "mem_mb=1000")
    (_, first_end), (second_start, _) = grid.spans("train")
    assert second_start >= first_end - 1


@pytest.mark.parametrize("workers, threads", [("auto", 1), (2, 2)])
def test_the_threads_of_a_training(project, workers, threads):
    project.configure(device="cpu", seeds=[0, 1], training=TINY["training"] | {"workers": workers})
    printed = project.snakemake(MODELS[0], "--dry-run", "--printshellcmds")
    assert f"--cores {threads} --workers {workers}" in printed
