"""What the profiles ask for."""

import os
import re

import pytest
import yaml

from cloud import stand_in
from project import REPOSITORY, TINY

pytestmark = pytest.mark.workflow

CLUSTERS = ["slurm", "cluster-generic"]
CLOUDS = {"kubernetes": "gcs", "aws-batch": "s3", "googlebatch": "gcs"}


def profile(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / f"workflow/profiles/{name}/profile.yaml").read_text())


def test_the_default_profile_is_found_by_itself(project):
    assert "workflow/profiles/default" in project.snakemake("results/small/simulated", "--dry-run")


@pytest.mark.parametrize("words, limit", [([], 2), (["--resources", "gpu=1"], 1)])
def test_as_many_jobs_use_gpus_as_the_machine_has(project, tmp_path, words, limit):
    project.configure(device="auto")
    (tmp_path / "sitecustomize.py").write_text("from dvlae.system.hardware import gpus\ngpus.count_gpus = lambda: 2\n")
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    printed = project.snakemake("results/small/simulated", *words, PYTHONPATH=path)
    assert re.search(rf"Provided resources: gpu=\D*{limit}\D", printed)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_run_on_a_cluster_can_be_planned(project, name):
    pytest.importorskip(f"snakemake_executor_plugin_{name.replace('-', '_')}")
    project.configure(device="auto", devices=2, training=TINY["training"] | {"accumulate": 2})
    printed = project.snakemake("--workflow-profile", name, "--dry-run", "--printshellcmds")
    assert "--device auto --devices 2" in printed


def test_limits_of_this_machine_do_not_cut_down_what_is_asked_of_a_cluster(project, tmp_path, forked):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    project.configure(device="auto", devices=2, training=TINY["training"] | {"accumulate": 2, "workers": "auto"})
    model = "results/small/dvlae-rf4/seed0/model"
    project.snakemake("results/small/patches", **forked)
    (tmp_path / "sitecustomize.py").write_text(
        "from dvlae.system.hardware import gpus, machine\n"
        "gpus.count_gpus = lambda: 1\n"
        "machine.free_memory = lambda: 10**9\n"
    )
    # This scheduler notes what the job asks for, and says that it failed.
    scheduler = tmp_path / "submit.sh"
    scheduler.write_text(f"echo $1 $2 $3 > {tmp_path}/asked\necho 1\n")
    words = ["--cluster-generic-submit-cmd", f"sh {scheduler} {{threads}} {{resources.gpu}} {{resources.mem_mb}}"]
    words += ["--cluster-generic-status-cmd", "echo failed; :", "--retries", "0"]
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    project.snakemake(model, "--workflow-profile", "cluster-generic", *words, fails=True, PYTHONPATH=path)
    assert (tmp_path / "asked").read_text().split() == ["2", "2", "8000"]


@pytest.mark.clouds
@pytest.mark.parametrize("name, storage", CLOUDS.items())
def test_a_run_in_a_cloud_can_be_planned(project, tmp_path, name, storage):
    for plugin in [f"executor_plugin_{name.replace('-', '_')}", f"storage_plugin_{storage}", "storage_plugin_gcs"]:
        pytest.importorskip(f"snakemake_{plugin}", reason="the extra clouds is not installed")
    project.configure(device="auto", devices=2, training=TINY["training"] | {"accumulate": 2})
    with stand_in(tmp_path, "") as (_, environment):
        printed = project.snakemake("--workflow-profile", name, "--dry-run", "--printshellcmds", **environment)
    assert "--device auto --devices 2" in printed
    assert f"{profile(name)['default-storage-prefix']}/results/tables/summary.md (send to storage)" in printed


@pytest.mark.parametrize("name", [*CLUSTERS, *CLOUDS])
def test_all_profiles_rerun_and_report_alike(name):
    for key in ["rerun-triggers", "rerun-incomplete", "show-failed-logs"]:
        assert profile(name)[key] == profile("default")[key]


@pytest.mark.parametrize("name", ["cluster-generic", *CLOUDS])
def test_the_profiles_of_clusters_send_and_retry_alike(name):
    for key in ["jobs", "retries", "latency-wait"]:
        assert profile("slurm")[key] == profile(name)[key]


def test_the_profiles_of_clusters_send_the_same_steps_together():
    assert profile("slurm")["groups"] == profile("cluster-generic")["groups"]
