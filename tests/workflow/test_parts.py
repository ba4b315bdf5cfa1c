"""A dataset that several jobs share gives what a single job gives."""

import shutil

import numpy as np
import pytest
import tifffile

from project import REPOSITORY, TINY, Project, jobs

pytestmark = pytest.mark.workflow

TABLE = "results/tables/psnr.csv"
RUNS = [f"small/{method}/seed0" for method in ("dvlae-rf4", "noisy", "gaussian")]
RECORDS = ["prediction.json", "method.json", "evaluation.json"]


def share(project: Project, count: int | None, **changes) -> None:
    """Let so many jobs share each dataset; None: leave the key out."""
    settings = {"samples": 2, "save_samples": 1} | ({} if count is None else {"jobs": count})
    project.configure(prediction=settings, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, forked):
    """Return a finished run in which one job denoises all images."""
    project = Project(tmp_path_factory.mktemp("whole"))
    share(project, None)
    project.snakemake(TABLE, "--cores", "1", **forked)
    return project


def copy(made: Project, project: Project) -> Project:
    for name in ("results", ".snakemake"):
        shutil.copytree(made.folder / name, project.folder / name)
    return project


def without_estimates(project: Project) -> Project:
    for run in RUNS:
        for name in ["samples", "denoised", "uncertainty"]:
            shutil.rmtree(project.folder / "results" / run / name, ignore_errors=True)
        for name in ["psnr.csv", *RECORDS]:
            (project.folder / "results" / run / name).unlink(missing_ok=True)
    return project


@pytest.fixture
def trained(whole, project):
    """Return a run with a model but without estimates."""
    return without_estimates(copy(whole, project))


@pytest.fixture(scope="module")
def halved(whole, tmp_path_factory, forked):
    """Return the finished run of two jobs, which no test changes."""
    project = without_estimates(copy(whole, Project(tmp_path_factory.mktemp("halved"))))
    share(project, 2)
    project.snakemake(TABLE, **forked)
    return project


@pytest.fixture
def shared(halved, project):
    """Return the same as a run that may be changed."""
    share(copy(halved, project), 2)
    return project


def content(project: Project) -> dict[str, bytes]:
    """Return all files of the runs but the records."""
    names = [name for run in RUNS for name in project.files(f"{run}/**/*") if not name.endswith(".json")]
    return {name: project.read(name) for name in names}


def records(project: Project) -> list[dict]:
    names = [f"{run}/{name}" for run in RUNS for name in RECORDS]
    found = [project.json(name) for name in names if (project.folder / "results" / name).exists()]
    times = {"seconds", "processor_seconds", "training_seconds", "prediction_seconds", "prediction_processor_seconds"}
    measured = times | {"peak_memory_mb", "workers"}
    return [{name: value for name, value in record.items() if name not in measured} for record in found]


def test_two_jobs_give_the_same_bytes_and_leave_no_part(whole, halved):
    assert content(halved) == content(whole)
    assert records(halved) == records(whole)
    assert halved.read("tables/psnr.csv") == whole.read("tables/psnr.csv")
    assert not list(halved.folder.glob("results/small/*/*/parts"))
    assert halved.planned(TABLE) == {}


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5])
def test_any_number_of_jobs_gives_the_same_bytes(whole, trained, forked, count):
    share(trained, count)
    trained.snakemake(TABLE, **forked)
    assert content(trained) == content(whole)
    assert records(trained) == records(whole)


def test_one_job_is_planned_as_if_there_were_no_such_key(whole, project):
    share(project, 1)
    assert project.planned(TABLE) == jobs(whole.snakemake(TABLE, "--dry-run", "--forceall"))


def test_each_step_has_as_many_jobs_and_one_that_joins(trained):
    share(trained, 3)
    assert trained.planned(TABLE) == {
        "predict": 3, "run_part_of_method": 6, "evaluate": 9,
        "gather_predictions": 1, "gather_methods": 2, "gather_evaluations": 3, "tables": 1,
    }  # fmt: skip


def test_jobs_on_one_machine_share_its_cores(trained):
    share(trained, 2)
    printed = trained.snakemake(TABLE, "--dry-run", "--printshellcmds", "--cores", "8")
    predictions = [line for line in printed.splitlines() if "dvlae predict" in line]
    assert len(predictions) == 2
    assert all("--cores 4" in line for line in predictions)


@pytest.mark.parametrize("gpus", [1, 2])
def test_each_gpu_computes_one_part_at_a_time(trained, gpus):
    share(trained, 2, device="auto")
    (trained.folder / "sitecustomize.py").write_text(
        f"from dvlae.system.hardware import gpus\ngpus.count_gpus = lambda: {gpus}\n"
    )
    enough = ["--set-threads", "predict=1", "--resources", "mem_mb=100000"]
    trained.snakemake(f"results/{RUNS[0]}/denoised", *enough, PYTHONPATH=f"{trained.folder}:{REPOSITORY}")
    _, (_, first_end), (second_start, _) = trained.spans("predict")  # The first job denoised the whole dataset.
    assert (second_start < first_end - 1) == (gpus == 2)


def test_the_frames_of_a_stack_are_divided(project, forked):
    (project.folder / "data").mkdir()
    frames = np.random.default_rng(0).normal(100, 5, (3, 64, 64))
    tifffile.imwrite(project.folder / "data/stack.tif", frames.astype(np.float32), photometric="minisblack")
    project.add_dataset("stack", {
        "source": {"kind": "files"}, "noisy": "stack.tif", "axes": "TYX", "noise_direction": "x",
    })  # fmt: skip
    share(project, 2, datasets=["stack"])
    run = "stack/gaussian/seed0"
    project.snakemake(f"results/{run}/denoised", "--notemp", **forked)
    assert project.files(f"{run}/parts/*/denoised/*") == [
        f"{run}/parts/1-of-2/denoised/stack.frames",
        f"{run}/parts/2-of-2/denoised/stack.frames",
    ]
    assert project.files(f"{run}/denoised/*") == [f"{run}/denoised/stack.tif"]
    assert tifffile.imread(project.folder / "results" / run / "denoised/stack.tif").shape == frames.shape


def test_a_job_that_failed_is_repeated_alone_and_continues_after_its_last_image(whole, trained):
    share(trained, 2)
    # The second part has two images; its job is killed when the first of them is finished.
    (trained.folder / "sitecustomize.py").write_text(
        "import os, pathlib, signal, sys\n"
        "if sys.argv[1:2] == ['predict'] and '2-of-2' in sys.argv:\n"
        "    from dvlae.data.outputs.folder import OutputFolder\n"
        "    write = OutputFolder.write\n"
        "    def kill_after_first(outputs, image, values):\n"
        "        write(outputs, image, values)\n"
        "        if outputs.folder.name == '.unfinished-denoised' and image.name == 'coins':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    OutputFolder.write = kill_after_first\n"
    )
    target = f"results/{RUNS[0]}/denoised"
    python_path = {"PYTHONPATH": f"{trained.folder}:{REPOSITORY}"}
    trained.snakemake(target, "--keep-going", fails=True, **python_path)
    part = trained.folder / "results" / RUNS[0] / "parts"
    assert sorted(path.name for path in part.glob("*/denoised/*.tif")) == ["camera.tif"]
    unfinished = part / "2-of-2/.unfinished-denoised/coins.tif"
    made = unfinished.stat().st_mtime_ns
    assert trained.planned(target) == {"predict": 1, "gather_predictions": 1}
    trained.snakemake(target)
    assert (trained.folder / target / "coins.tif").stat().st_mtime_ns == made
    names = trained.files(f"{RUNS[0]}/*/*.tif")
    assert {name: trained.read(name) for name in names} == {
        name: data for name, data in content(whole).items() if name in names
    }
    assert len(names) == 9


def test_a_changed_setting_repeats_the_parts(shared):
    shared.configure(prediction={"samples": 3, "save_samples": 1, "jobs": 2})
    assert shared.planned(TABLE) == {
        "predict": 2, "gather_predictions": 1, "evaluate": 2, "gather_evaluations": 1, "tables": 1,
    }  # fmt: skip


def test_a_model_that_was_trained_again_is_used(shared, forked):
    share(shared, 2, training=TINY["training"] | {"max_steps": 6})
    shared.snakemake(f"results/{RUNS[0]}/model", **forked)
    assert shared.planned(TABLE) == {
        "predict": 2, "gather_predictions": 1, "evaluate": 2, "gather_evaluations": 1, "tables": 1,
    }  # fmt: skip


def test_a_cluster_gets_each_part_as_a_job_of_its_own(whole, trained, tmp_path_factory):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    folder = tmp_path_factory.mktemp("scheduler")
    # This scheduler notes which jobs a script contains, and runs it at once.
    scheduler, note = folder / "submit.sh", r"""sed -n "s/.*--target-jobs '\([^']*\)'.*/\1/p" $1"""
    scheduler.write_text(f"{note} >> {folder}/sent\nsh $1 >> {folder}/printed 2>&1\necho 1\n")
    words = ["--cluster-generic-submit-cmd", f"sh {scheduler}", "--cluster-generic-status-cmd", "echo success; :"]
    words += ["--seconds-between-status-checks", "1", "--retries", "0"]
    share(trained, 2)
    trained.snakemake(f"results/{RUNS[0]}/psnr.csv", "--workflow-profile", "cluster-generic", *words)
    run = "dataset=small,method=dvlae-rf4,seed=0"
    assert sorted((folder / "sent").read_text().splitlines()) == [
        f"{rule}:{run},scatteritem={part}-of-2" for rule in ("evaluate", "predict") for part in (1, 2)
    ]
    assert trained.read(f"{RUNS[0]}/psnr.csv") == whole.read(f"{RUNS[0]}/psnr.csv")


@pytest.mark.parametrize(("made", "count"), [("whole", 2), ("halved", 3), ("halved", 1)])
def test_finished_results_are_kept_with_another_number_if_they_are_touched(request, project, made, count):
    copy(request.getfixturevalue(made), project)
    before = content(project)
    share(project, count)
    assert project.planned(TABLE)["predict"] == count
    project.snakemake(TABLE, "--touch")
    assert project.planned(TABLE) == {}
    assert content(project) == before
