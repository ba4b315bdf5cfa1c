import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml

import dvlae
from dvlae import revision
from project import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
POST_DEPLOY = REPOSITORY / "workflow/envs/dvlae.post-deploy.sh"
# What the package imports for one thing that it can do.
OPTIONAL = PROJECT["optional-dependencies"]["bm3d"]
# scikit-image imports it for its wavelets, and does not install it.
OF_OTHERS = {"pywavelets"}


def distributions(requirements: list[str]) -> set[str]:
    """Return the normalised names in a list of requirements."""
    return {normalised(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """Return the distributions that the package imports anywhere, in functions, too."""
    packages = set()
    for path in (REPOSITORY / "dvlae").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                packages |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                packages.add(node.module.partition(".")[0])
    installed = packages_distributions()
    # An extra that is not installed here has the name of its package.
    return {normalised(installed.get(name, [name])[0]) for name in packages - sys.stdlib_module_names - {"dvlae"}}


def test_every_package_that_is_imported_is_declared():
    assert imported() - distributions(PROJECT["dependencies"] + OPTIONAL) == set()


def test_every_package_that_is_declared_is_imported():
    assert distributions(PROJECT["dependencies"] + OPTIONAL) - imported() == OF_OTHERS


def test_the_constraints_hold_a_version_of_every_package_that_is_declared():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normalised(line.partition("==")[0]) for line in lines if "==" in line}
    declared = distributions(PROJECT["dependencies"])
    for requirements in PROJECT["optional-dependencies"].values():
        declared |= distributions(requirements)
    assert declared - {"dvlae"} - pinned == set()


def test_no_environment_but_that_of_the_clouds_has_their_clients():
    extras = PROJECT["optional-dependencies"]
    clients = distributions(extras["clouds"]) - {"dvlae"}
    assert clients
    for name in extras.keys() - {"clouds"}:
        assert not clients & distributions(extras[name])
        assert not any("clouds" in requirement for requirement in extras[name])


def test_the_citation_names_the_version_of_the_package():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dvlae.__version__


@pytest.mark.parametrize("step", [name for name in vars(revision) if name.isupper()])
def test_the_changelog_says_what_each_revision_changed(step):
    """All began at 1, of which there is nothing to say."""
    rows = re.findall(rf"^\| `{step}` \| (\d+) \|", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert [int(row) for row in rows] == list(range(2, getattr(revision, step) + 1))


def test_the_package_is_imported_in_a_folder_that_holds_another_of_its_name(tmp_path):
    """The folder of a clone bears the package's name, and a script beside it would find the folder."""
    (tmp_path / "dvlae").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import dvlae; print(dvlae.__version__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == dvlae.__version__, done.stderr


@pytest.fixture
def deploy(tmp_path):
    """Return a function that runs the script of the conda environment, with a python that tells what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin/python").chmod(0o755)

    def deploy(folder, **environment):
        path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
        return subprocess.run(
            ["bash", str(POST_DEPLOY)],
            cwd=folder,
            env=os.environ | {"PATH": path} | environment,
            capture_output=True,
            text=True,
        )

    return deploy


def test_the_conda_environment_gets_the_package_of_the_checkout(deploy, tmp_path):
    asked = f"-m pip install --editable {REPOSITORY} --constraint {REPOSITORY}/constraints.txt\n"
    assert deploy(REPOSITORY).stdout == asked
    assert deploy(tmp_path, DVLAE_CHECKOUT=str(REPOSITORY)).stdout == asked


def test_the_conda_environment_is_refused_outside_a_checkout(deploy, tmp_path):
    done = deploy(tmp_path)
    assert done.returncode == 1 and "DVLAE_CHECKOUT" in done.stderr
