"""What the profiles ask for."""

import pytest
import yaml

from .conftest import REPOSITORY

pytestmark = pytest.mark.workflow


def profile(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / f"workflow/profiles/{name}/profile.yaml").read_text())


def test_the_default_profile_is_found_by_itself(project):
    assert "Provided resources: gpu=" in project.snakemake("results/small/simulated")


def test_a_run_on_a_cluster_can_be_planned(project):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    printed = project.snakemake("--workflow-profile", "slurm", "--dry-run")
    assert "train" in printed


def test_both_profiles_rerun_and_report_alike(project):
    for key in ["rerun-triggers", "rerun-incomplete", "show-failed-logs"]:
        assert profile("slurm")[key] == profile("default")[key]
