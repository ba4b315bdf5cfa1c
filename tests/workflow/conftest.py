"""Real runs of the workflow, each in a folder of its own."""

import os
from pathlib import Path

import pytest

from forks import forked_command
from project import REPOSITORY, Project


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture(scope="session")
def forked(tmp_path_factory):
    """Return the environment in which each step starts at once; test_simulated.py starts the real command."""
    with forked_command(tmp_path_factory.mktemp("command")) as environment:
        yield environment


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return the folder with the real electron-microscopy images."""
    folder = Path(os.environ.get("DVLAE_DATA_MIRROR", REPOSITORY.parent / "shared/data"))
    if not (folder / "sem_line").is_dir():
        pytest.skip(f"unavailable: no sem_line in {folder}; DVLAE_DATA_MIRROR names the folder that has it")
    return folder
