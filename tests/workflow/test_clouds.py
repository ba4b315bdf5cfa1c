"""Runs through the plugins for Kubernetes, AWS Batch and Google Batch, which talk to a stand-in on this machine."""

import csv
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from cloud import stand_in
from project import BIN, REPOSITORY

pytestmark = [pytest.mark.workflow, pytest.mark.clouds]

PLUGINS = ["executor_plugin_kubernetes", "executor_plugin_aws_batch", "executor_plugin_googlebatch"]
PLUGINS += ["storage_plugin_gcs", "storage_plugin_s3"]
# docs/clusters.md tells users to correct this.
FAULT, CORRECTION = "if self._is_dir is None:", "if not self._is_dir:"
GOOGLE = """
import os
from google.cloud import batch_v1

class Client:
    def create_job(self, request):
        with open(os.environ["SENT"], "w") as file:
            file.write(batch_v1.CreateJobRequest.to_json(request))
        raise RuntimeError("sent")

batch_v1.BatchServiceClient = Client
"""


@pytest.fixture(autouse=True)
def plugins():
    for plugin in PLUGINS:
        pytest.importorskip(f"snakemake_{plugin}", reason="the extra clouds is not installed")


@pytest.fixture
def checkout(project):
    """Return a project that is a checkout: what git knows there is what the plugins send to the jobs."""
    project.configure(device="auto", baselines=["noisy"])
    shutil.copytree(REPOSITORY / "workflow", project.folder / "workflow")
    for command in [["init", "--quiet"], ["add", "."]]:
        subprocess.run(["git", *command], cwd=project.folder, check=True)
    return project


@pytest.fixture
def cloud(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloud")
    # Jobs install the storage's plugins, which are here already.
    (folder / "pip").write_text("#!/bin/sh\n")
    (folder / "pip").chmod(0o755)
    with stand_in(folder, os.pathsep.join([str(folder), str(BIN), os.environ["PATH"]])) as (cloud, environment):
        yield cloud, environment


def run(checkout, profile: str, *words: str, fails: bool | None = False, **environment: str) -> str:
    words = ["--workflow-profile", profile, "--snakefile", "workflow/Snakefile", "--cores", "4", *words]
    words += ["--latency-wait", "5", "--retries", "0", "--seconds-between-status-checks", "1"]
    return checkout.snakemake(*words, fails=fails, **environment)


def test_a_whole_run_on_kubernetes(checkout, cloud):
    cloud, environment = cloud
    run(checkout, "kubernetes", "--envvars", "STORAGE_EMULATOR_HOST", **environment)
    stored = {path.removeprefix("my-bucket/dvlae/results/"): content for path, (content, _) in cloud.objects.items()}
    assert {"tables/summary.md", "figures/calibration_small.png", "small/dvlae-rf4/seed0/psnr.csv"} <= set(stored)
    rows = list(csv.DictReader(stored["tables/provenance.csv"].decode().splitlines()))
    assert all(row["images_sha256"] for row in rows)
    assert not list(checkout.folder.glob("results/small"))
    resources = [job["spec"]["template"]["spec"]["containers"][0]["resources"] for job in cloud.sent]
    gpus = [asked for asked in resources if "nvidia.com/gpu" in asked["requests"]]
    assert len(cloud.sent) == 9 and len(gpus) == 2
    for asked in gpus:
        assert asked["limits"]["nvidia.com/gpu"] == "1"
        assert asked["limits"]["cpu"] == "4000m" and asked["limits"]["memory"] == "8000M"


def test_own_images_and_names_are_read_where_snakemake_runs(checkout, cloud):
    cloud, environment = cloud
    (checkout.folder / "data").mkdir()
    for name in ["a", "b"]:
        iio.imwrite(checkout.folder / f"data/{name}.tif", np.arange(96 * 96, dtype=np.float32).reshape(96, 96))
    (checkout.folder / "config/datasets/names.txt").write_text("a\nb\n")
    own = {"source": {"kind": "files"}, "noisy": "*.tif", "axes": "YX", "noise_direction": "x"}
    checkout.add_dataset("own", own | {"training": {"images": "names.txt"}})
    checkout.configure(datasets=["own"])
    run(checkout, "kubernetes", "--until", "extract_patches", **environment)
    assert "my-bucket/dvlae/results/own/patches/patches.json" in cloud.objects
    assert not cloud.sent


def test_aws_batch_is_asked_for_a_gpu_memory_and_time(checkout, cloud, tmp_path):
    cloud, environment = cloud
    s3_plugin = pytest.importorskip("snakemake_storage_plugin_s3")
    corrected = tmp_path / "corrected"
    shutil.copytree(Path(s3_plugin.__file__).parent, corrected / s3_plugin.__name__)
    source = corrected / s3_plugin.__name__ / "__init__.py"
    assert FAULT in source.read_text(), "corrected by its authors? Then take the correction out of docs/clusters.md"
    source.write_text(source.read_text().replace(FAULT, CORRECTION))
    run(checkout, "aws-batch", "--until", "train", PYTHONPATH=str(corrected), **environment)
    assert "my-bucket/dvlae/results/small/dvlae-rf4/seed0/model/model.json" in cloud.objects
    asked = [
        {each["type"]: each["value"] for each in job["containerProperties"]["resourceRequirements"]}
        for job in cloud.sent
    ]
    assert asked == [{"VCPU": "1", "MEMORY": "4096"}] * 3 + [{"VCPU": "4", "MEMORY": "8192", "GPU": "1"}]
    assert {job["timeout"]["attemptDurationSeconds"] for job in cloud.sent} == {86400}


def test_google_batch_is_asked_for_a_gpu_memory_and_time(checkout, cloud, tmp_path):
    cloud, environment = cloud
    for age, folder in enumerate(["patches", "images", "simulated"]):
        cloud.objects[f"my-bucket/dvlae/results/small/{folder}/a"] = b"", int(time.time()) - 10 * age
    (tmp_path / "client").mkdir()
    (tmp_path / "client/sitecustomize.py").write_text(GOOGLE)
    environment |= {"PYTHONPATH": str(tmp_path / "client"), "SENT": str(tmp_path / "sent.json")}
    run(checkout, "googlebatch", "--until", "train", fails=True, **environment)
    job = json.loads((tmp_path / "sent.json").read_text())["job"]
    machine = job["allocationPolicy"]["instances"][0]
    assert machine["installGpuDrivers"] and machine["policy"]["machineType"] == "n1-standard-8"
    assert machine["policy"]["accelerators"][0]["type"] == "nvidia-tesla-t4"
    task = job["taskGroups"][0]["taskSpec"]
    assert (task["computeResource"]["cpuMilli"], task["computeResource"]["memoryMib"]) == ("4000", "8000")
    assert task["maxRunDuration"] == "86400s"
    assert task["runnables"][-1]["container"]["imageUri"] == "registry.example.org/dvlae:1"
