"""Kill anything at any moment: the next run completes, and its figures are those of a run that nobody disturbed.

A kill in each rule; with ``DVLAE_KILLS=50`` (``make test-faults``) more of them. The rules whose outputs come to their
places in the same way as those of another rule are slow.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from project import BIN, REPOSITORY, SMALL, Project

pytestmark = pytest.mark.workflow

RUN = "small/dvlae-rf4/seed0"
OUTPUTS = {  # of each rule, in the order of the workflow
    "simulate": ["small/simulated"],
    "prepare": ["small/images"],
    "register": ["small/targets.csv"],
    "extract-patches": ["small/patches"],
    "train": [f"{RUN}/model"],
    "predict": [f"{RUN}/denoised"],
    "run-method": ["small/noisy/seed0/denoised"],
    "evaluate": [f"{RUN}/psnr.csv", "small/noisy/seed0/psnr.csv"],
    "tables": ["tables/psnr.csv"],
}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
VICTIMS = ["job", "snakemake", "everything"]  # the out-of-memory killer or scancel, a lost login, Ctrl-C or a power cut
LIKE_OTHERS = ("simulate", "prepare", "register", "evaluate")
KILLS = [
    pytest.param(number, marks=[pytest.mark.slow] * (command in LIKE_OTHERS)) for number, command in enumerate(OUTPUTS)
]
if "DVLAE_KILLS" in os.environ:
    KILLS = range(int(os.environ["DVLAE_KILLS"]))
TABLE = "results/tables/psnr.csv"
ONE = ["--cores", "1", TABLE]  # one thread: on a busy machine, two in networks this small wait for each other
# A training of seconds saves each step, so that kills meet checkpoints; when commands start and end is noted.
COMMAND = f"""#!{sys.executable}
import os, sys, time
from dvlae.cli import main
if sys.argv[1] == "train":
    import dvlae.training.checkpoints
    dvlae.training.checkpoints.SECONDS_BETWEEN_CHECKPOINTS = 0
def note(*words):
    with open("commands.txt", "a") as file:
        print(*words, file=file)
note("start", sys.argv[1], os.getpid())
start = time.monotonic()
code = main()
note("end", sys.argv[1], time.monotonic() - start)
sys.exit(code)
"""


class Killable(Project):
    """A project whose runs can be killed."""

    def __init__(self, folder):
        super().__init__(folder)
        self.configure(
            baselines=["noisy"],
            training={"patch_size": 32, "batch_size": 2, "max_steps": 30, "max_minutes": None},
        )
        self.add_dataset("small", SMALL | {"noisy": ["camera.png", "coins.png"]})
        (folder / "bin").mkdir()
        (folder / "bin/dvlae").write_text(COMMAND)
        (folder / "bin/dvlae").chmod(0o755)

    @property
    def environment(self) -> dict:
        path = os.pathsep.join([str(self.folder / "bin"), str(BIN), os.environ["PATH"]])
        return {"PATH": path, "PYTHONPATH": str(REPOSITORY)}

    def start(self) -> subprocess.Popen:
        """Start Snakemake as the head of a process group of its own."""
        words = [str(BIN / "snakemake"), "--snakefile", str(REPOSITORY / "workflow/Snakefile"), *ONE]
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "killed.txt").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def noted(self, what: str, command: str) -> list[str]:
        """Return what was noted of a command's starts or ends."""
        file = self.folder / "commands.txt"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [value for kind, name, value in lines if (kind, name) == (what, command)]

    def complete(self) -> str:
        """Run Snakemake as a user would: again, after what its one line asks for."""
        printed = self.snakemake(*ONE, fails=None, **self.environment)
        if "--unlock" in printed:
            self.snakemake("--unlock", **self.environment)
            printed = self.snakemake(*ONE, **self.environment)
        return printed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    project = Killable(tmp_path_factory.mktemp("undisturbed"))
    project.snakemake(*ONE, **project.environment)
    return project


def copy_up_to(command: str, undisturbed: Killable, folder) -> Killable:
    """Copy a finished run without what this command and the later ones made."""
    project = Killable(folder)
    for name in ("results", ".snakemake"):
        shutil.copytree(undisturbed.folder / name, folder / name, symlinks=True)
    commands = list(OUTPUTS)
    for later in commands[commands.index(command) :]:
        for output in OUTPUTS[later]:
            path = folder / "results" / output
            path.unlink() if path.is_file() else shutil.rmtree(path)
    return project


def kill_in(project: Killable, command: str, victim: str, signal_number: int, delay: float) -> None:
    """Start a run and kill the victim so many seconds after the command started."""
    process = project.start()
    until = time.monotonic() + 300
    while not project.noted("start", command) and process.poll() is None:
        assert time.monotonic() < until, (project.folder / "killed.txt").read_text()
        time.sleep(0.02)
    assert project.noted("start", command), (project.folder / "killed.txt").read_text()
    time.sleep(delay)
    try:
        if victim == "job":
            os.kill(int(project.noted("start", command)[0]), signal_number)
        elif victim == "snakemake":
            process.send_signal(signal_number)
        else:
            os.killpg(process.pid, signal_number)
    except ProcessLookupError:
        pass  # it had ended before
    process.wait(timeout=300)


@pytest.mark.parametrize("number", KILLS)
def test_after_a_kill_the_next_run_completes_with_the_same_figures(undisturbed, tmp_path, number):
    random = np.random.default_rng([number])
    command = list(OUTPUTS)[number % len(OUTPUTS)]
    victim, signal_number = VICTIMS[random.integers(3)], SIGNALS[random.integers(3)]
    project = copy_up_to(command, undisturbed, tmp_path)
    delay = random.random() * float(undisturbed.noted("end", command)[0])
    kill_in(project, command, victim, signal_number, delay)
    print(f"{signal.Signals(signal_number).name} to {victim} {delay:.2f} s into {command}")
    printed = project.complete()
    assert (project.folder / TABLE).read_bytes() == (undisturbed.folder / TABLE).read_bytes(), printed
    assert [path for path in project.folder.glob("results/**/.unfinished-*") if path.is_dir()] == []
