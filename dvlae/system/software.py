"""The software that computes: its versions, for the records of results, and packages that may be missing."""

import importlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from dvlae.system.errors import UserError

PACKAGES = ("dvlae", "torch", "lightning", "numpy", "scipy", "scikit-image", "tifffile")


def software() -> dict[str, Any]:
    """Return the versions of the software that computes.

    Returns
    -------
    dict
        ``versions`` of Python and of the packages, and the ``git_commit`` of this package.
    """
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Return the commit of this package's own checkout.

    Returns
    -------
    str or None
        The commit; None if git is not installed, or this file is not tracked by git.
    """
    answers = []
    for command in (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "HEAD"]):
        try:
            result = subprocess.run(
                ["git", *command], cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=False
            )
        except FileNotFoundError:
            # Git is not installed.
            return None
        answers.append(result.stdout.strip())
    return answers[1] if all(answers) else None


def optional_module(name: str, extra: str, *, subject: str, use: str) -> ModuleType:
    """Import a module of a package that only an extra installs.

    Parameters
    ----------
    name
        The module.
    extra
        The extra of this package.
    subject
        The file or the option that needs the module, for the message.
    use
        What the package does, for the message.

    Returns
    -------
    module
        The module.

    Raises
    ------
    UserError
        If the package, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{subject}: found no package {error.name!r}, which {use}; {install_line(extra)}") from None


def install_line(extra: str) -> str:
    """Say how the packages of an extra are installed.

    Parameters
    ----------
    extra
        The extra.

    Returns
    -------
    str
        What to do, which works as long as dvlae is in no package index.
    """
    return f"in a clone of dvlae: pip install '.[{extra}]' --constraint constraints.txt"


def workflow_file() -> Path:
    """Return the Snakefile of this package.

    Returns
    -------
    Path
        It is installed with the package, or in the checkout that the package is part of.
    """
    return _shipped("workflow", "workflow") / "Snakefile"


def shipped_methods() -> Path:
    """Return the folder of the method files of this package.

    Returns
    -------
    Path
        It is installed with the package, or in the checkout that the package is part of.
    """
    return _shipped("methods/files", "config/methods")


def shipped_reference() -> Path:
    """Return the folder of the reference results of this package.

    Returns
    -------
    Path
        It is installed with the package, or in the checkout that the package is part of.
    """
    return _shipped("reporting/reference", "results/reference")


def _shipped(installed: str, in_checkout: str) -> Path:
    """Return a folder of the installed package or, if it is not there, of the checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / installed, package.parent / in_checkout) if folder.is_dir())
