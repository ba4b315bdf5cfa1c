"""What the profiles ask for."""

import pytest
import yaml

from .conftest import REPOSITORY, TINY

pytestmark = pytest.mark.workflow

CLUSTERS = ["slurm", "cluster-generic"]


def profile(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / f"workflow/profiles/{name}/profile.yaml").read_text())


def test_the_default_profile_is_found_by_itself(project):
    assert "Provided resources: gpu=" in project.snakemake("results/small/simulated")


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_run_on_a_cluster_can_be_planned(project, name):
    pytest.importorskip(f"snakemake_executor_plugin_{name.replace('-', '_')}")
    project.configure(device="auto", devices=2, training=TINY["training"] | {"accumulate": 2})
    printed = project.snakemake("--workflow-profile", name, "--dry-run", "--printshellcmds")
    assert "--device auto --devices 2" in printed


@pytest.mark.parametrize("name", CLUSTERS)
def test_all_profiles_rerun_and_report_alike(name):
    for key in ["rerun-triggers", "rerun-incomplete", "show-failed-logs"]:
        assert profile(name)[key] == profile("default")[key]


def test_the_profiles_of_clusters_send_the_same_steps_together():
    for key in ["groups", "jobs", "retries", "latency-wait"]:
        assert profile("slurm")[key] == profile("cluster-generic")[key]
