"""The versions of what computes."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("dvlae", "torch", "lightning", "numpy", "scipy", "scikit-image", "tifffile")


def software() -> dict:
    """Return the versions of Python and of the packages that compute, and the commit of this one."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Return the commit of the package's own checkout; None where this file is not tracked in one."""
    answers = []
    for command in (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "HEAD"]):
        try:
            result = subprocess.run(
                ["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:  # git is not installed
            return None
        answers.append(result.stdout.strip())
    return answers[1] if all(answers) else None
