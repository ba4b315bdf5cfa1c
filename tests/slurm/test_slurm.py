"""Runs of the workflow through a real Slurm: what the cluster does to jobs, no pretence but the GPUs."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from project import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slurm]

pytest.importorskip("snakemake_executor_plugin_slurm")
pytest.importorskip("snakemake_executor_plugin_cluster_generic")

PROFILE = ["--workflow-profile", "slurm"]
# There is no accounting, nobody waits long for a job of seconds, and two threads slow tiny networks down.
HURRIED = [
    "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3",
    "--seconds-between-status-checks", "3", "--latency-wait", "20", "--set-threads", "train=1", "predict=1",
]  # fmt: skip
TRAINED = "results/small/dvlae-rf4/seed0/model"


@pytest.fixture(scope="module")
def start(slurm, tmp_path_factory):
    """Return a function that starts a run in a new project, beside the other tests."""
    with ThreadPoolExecutor() as others:

        def run(*words: str, **settings):
            project = Project(tmp_path_factory.mktemp("project"))
            project.configure(**{"device": "auto", "baselines": ["noisy"]} | settings)
            return project, others.submit(project.snakemake, *words, **slurm.environment)

        yield run


@pytest.fixture(scope="module", autouse=True)
def out_of_time(start):
    """Start a training that is longer than its first attempt may be. It takes minutes: other tests run meanwhile."""
    return start(
        *PROFILE, *HURRIED, "--retries", "4", "--set-resources", "train:runtime=attempt", "--", TRAINED,
        device="cpu", training={"patch_size": 32, "batch_size": 2, "max_minutes": 1.5},
    )  # fmt: skip


def is_training(job: dict[str, str]) -> bool:
    return "rule_train" in job["Comment"]


def wait_for(condition, minutes: float = 15):
    """Return the condition's value once it is true."""
    until = time.monotonic() + 60 * minutes
    while not (value := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.5)
    return value


def test_a_grid_runs_through_sbatch_and_two_trainings_at_once_have_a_gpu_each(slurm, start):
    project, run = start(*PROFILE, *HURRIED, seeds=[0, 1])

    def two_trainings():
        running = [job for job in slurm.jobs(project.folder) if is_training(job) and job["JobState"] == "RUNNING"]
        assert not run.done(), run.result()
        return running if len(running) == 2 else None

    assert {job["GRES"] for job in wait_for(two_trainings)} == {"gpu:toygpu:1(IDX:0)", "gpu:toygpu:1(IDX:1)"}
    run.result()
    assert "dvlae-rf4" in project.read("tables/summary.csv").decode()
    assert len(slurm.jobs(project.folder)) == 6  # the patches; the noisy images; two trainings; twice denoising


def test_two_jobs_that_share_a_dataset_have_a_gpu_each(slurm, start):
    project, run = start(*PROFILE, *HURRIED, prediction={"samples": 2, "jobs": 2})

    def two_gpus():
        running = [job for job in slurm.jobs(project.folder) if job["JobState"] == "RUNNING"]
        assert not run.done(), run.result()
        used = {job["GRES"] for job in running if job["GRES"].startswith("gpu")}
        return used if len(used) == 2 else None

    assert wait_for(two_gpus) == {"gpu:toygpu:1(IDX:0)", "gpu:toygpu:1(IDX:1)"}  # there is only one training
    run.result()
    assert project.files("small/dvlae-rf4/seed0/denoised/*") == [
        f"small/dvlae-rf4/seed0/denoised/{name}.tif" for name in ("camera", "coins", "moon")
    ]
    # The patches; the training; two denoise, two measure; of the noisy images, two filter and two measure.
    assert len(slurm.jobs(project.folder)) == 10


def test_a_training_that_was_cancelled_from_outside_is_finished_by_the_next_run(slurm, start):
    long = {"patch_size": 32, "batch_size": 2, "max_minutes": 0.5}
    project, run = start(*PROFILE, *HURRIED, "--retries", "0", "--", TRAINED, training=long)
    log = project.folder / "results/logs/train/small/dvlae-rf4/seed0.log"
    wait_for(lambda: log.exists() and "train:" in log.read_text())
    (training,) = (job for job in slurm.jobs(project.folder) if is_training(job))
    slurm.ask("scancel", training["JobId"])
    with pytest.raises(AssertionError, match=r"(?s)Error in rule train"):
        run.result()
    assert not (project.folder / TRAINED).exists()
    project.snakemake(*PROFILE, *HURRIED, "--", TRAINED, **slurm.environment)
    assert project.json("small/dvlae-rf4/seed0/model/run.json")["stopped_by"] == "max_minutes"


def test_any_scheduler_that_takes_a_script_will_do(slurm, start):
    project, run = start(
        "--workflow-profile", "cluster-generic", "--seconds-between-status-checks", "3", "--latency-wait", "20",
        "--set-threads", "train=1", "predict=1", "--", "results/small/dvlae-rf4/seed0/psnr.csv",
    )  # fmt: skip
    run.result()
    jobs = slurm.jobs(project.folder)
    assert len(jobs) == 3
    assert [job["TresPerJob"] for job in jobs] == ["gres:gpu:0", "gres:gpu:1", "gres:gpu:1"]


def test_a_training_that_ran_out_of_time_is_sent_again_with_more_and_goes_on(slurm, out_of_time):
    project, run = out_of_time
    run.result()
    trainings = [job for job in slurm.jobs(project.folder) if is_training(job)]
    assert len(trainings) >= 2
    assert {job["JobState"] for job in trainings[:-1]} == {"TIMEOUT"}
    assert [job["TimeLimit"] for job in trainings] == [f"00:0{1 + index}:00" for index in range(len(trainings))]
    record = project.json("small/dvlae-rf4/seed0/model/run.json")
    assert record["stopped_by"] == "max_minutes"
    assert record["attempts"] >= 2  # only a training that goes on counts them
