"""The workflow where nothing but Snakemake is installed, and as a part of another workflow."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from project import REPOSITORY, TINY, jobs

pytestmark = pytest.mark.workflow

# What the catalogue of standard Snakemake workflows has at hand.
PACKAGES = ["snakemake", "snakefmt"]
IMPORTER = f"""\
configfile: "config.yaml"

module dvlae:
    snakefile: "{REPOSITORY / "workflow/Snakefile"}"
    config: config["denoising"]

use rule * from dvlae as dvlae_*

rule count:
    input: "results/small/noisy/seed0/psnr.csv"
    output: "count.txt"
    shell: "wc {{input}} > {{output}}"

rule all:
    default_target: True
    input: rules.dvlae_all.input, rules.count.output
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return a function that runs a command in a fresh copy of the clone, in an environment of these packages alone."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=True)
    install = [str(folder / "venv/bin/pip"), "install", "--quiet", *PACKAGES]
    found = subprocess.run(
        [*install, "--constraint", str(REPOSITORY / "constraints.txt")], capture_output=True, text=True, timeout=900
    )
    if found.returncode != 0:
        pytest.skip(f"unavailable: no index of Python packages ({found.stderr[-300:]})")
    for part in ("dvlae", "workflow", "config"):
        shutil.copytree(REPOSITORY / part, folder / "clone" / part)
    shutil.copy(REPOSITORY / "pyproject.toml", folder / "clone")  # it says how rules are formatted

    def run(*words: str) -> str:
        done = subprocess.run(
            words,
            cwd=folder / "clone",
            env={"PATH": os.pathsep.join([str(folder / "venv/bin"), "/usr/bin", "/bin"]), "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_the_bare_environment_lacks_what_the_package_computes_with(bare):
    code = "from importlib.util import find_spec; print([m for m in ('dvlae', 'torch', 'numpy') if find_spec(m)])"
    assert bare("python", "-P", "-c", code) == "[]\n"


def test_snakemake_alone_lints_the_workflow(bare):
    assert "Congratulations" in bare("snakemake", "--lint")


def test_snakemake_alone_draws_the_rules(bare):
    assert "train" in bare("snakemake", "--rulegraph", "mermaid-js")


def test_snakemake_alone_plans_the_workflow(bare):
    assert jobs(bare("snakemake", "--dry-run"))["train"] == 1


def test_the_rules_are_formatted(bare):
    bare("snakefmt", "--check", "workflow")


def test_another_workflow_uses_this_one_as_a_module(project):
    (project.folder / "config/config.yaml").unlink()
    (project.folder / "config.yaml").write_text(yaml.safe_dump({"denoising": TINY}))
    (project.folder / "Snakefile").write_text(IMPORTER)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("snakemake")), "--cores", "1", "--dry-run", "--printshellcmds"],
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    planned = jobs(done.stdout + done.stderr)
    assert (planned["dvlae_train"], planned["dvlae_tables"], planned["count"]) == (1, 1, 1)
    assert "--device cpu" in done.stdout + done.stderr
