"""A real Slurm of one node, with two pretended GPUs, for the tests of this folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Slurm:
    """The cluster, as seen by its user."""

    def __init__(self, folder: Path):
        self.environment = {
            "SLURM_CONF": str(folder / "etc/slurm.conf"),
            "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        }

    def ask(self, *words: str) -> str:
        """Return what one of Slurm's commands prints."""
        environment = os.environ | self.environment
        return subprocess.run(words, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    def jobs(self, folder: Path) -> list[dict[str, str]]:
        """Return what Slurm knows of each job that was sent from a folder."""
        lines = self.ask("scontrol", "show", "job", "--details", "--oneliner").splitlines()
        jobs = [dict(word.partition("=")[::2] for word in line.split()) for line in lines]
        return [job for job in jobs if job.get("WorkDir") == str(folder)]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Start Slurm; skip where it is not installed."""
    for program in ["munged", "slurmctld", "slurmd", "sbatch"]:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed; apt-get install slurmctld slurmd slurm-client munge")
    folder = tmp_path_factory.mktemp("slurm")
    # More processors than there are, so that no job waits for one.
    up = subprocess.run(
        [str(HERE / "slurm-up.sh"), str(folder), "2", "toygpu"],
        env=os.environ | {"SLURM_TOY_CPUS": "32", "SLURM_TOY_MEM_MB": "100000"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    try:
        if up.returncode != 0:
            pytest.skip(f"Slurm does not start here: {up.stdout[-500:]}")
        yield Slurm(folder)
    finally:
        subprocess.run([str(HERE / "slurm-down.sh"), str(folder)], timeout=120)
