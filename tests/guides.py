"""Guides as a reader uses them: files are written, and commands and programs run, from the top of a page to its end."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dvlae import cli

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The first line of a file says where it is.
FILE = re.compile(r"# ([\w/.]+\.(?:yaml|smk))\n")

# What takes minutes, hours or a GPU is made small; all else runs as it stands in the page.
LIMITS = [
    # A training is that of a few steps, and two samples are drawn.
    (r"--minutes [\d.]+", "--minutes 0.01"),
    (r"^(dvlae (?:denoise|init) (?!.*--(?:minutes|model|help|dry-run)))", r"\1--minutes 0.01 "),
    (r"^(dvlae denoise (?!.*--(?:samples|help|dry-run)))", r"\1--samples 2 "),
    (r"\bminutes=[\d.]+", "minutes=0.01"),
    (r"max_minutes: [\d.]+", "max_minutes: 0.01"),
    # What is measured there needs a GPU.
    (r"^dvlae status --estimate ", "dvlae status "),
    # The paper's grid takes days on a GPU, and the other ones hours: what they would run is listed.
    (r"^(snakemake (?:.* )?--configfile config/\w+\.yaml)", r"\1 --dry-run --quiet rules"),
]
# What is not run, and why.
NOT_RUN = {
    "pip install": "installs packages",
    "git clone": "needs an address",
    "source ": "activates an environment",
    "jupyter ": "needs Jupyter; the cells run in a test of their own",
    "make ": "runs these tests, or installs packages",
    "python -m pytest": "runs these tests",
    "python docs/pictures": "trains for minutes",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a block, each in one line and without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if command := re.sub(r"(^|\s)#.*", "", line).strip():
            yield command


def limited(text: str) -> str:
    """Return a command, a program or a file with small limits."""
    for pattern, small in LIMITS:
        text = re.sub(pattern, small, text, flags=re.MULTILINE)
    return text


def run_page(page: Path, monkeypatch) -> list[str]:
    """Do in the working folder what a page says; return the commands and programs that ran."""
    ran: list[str] = []
    variables: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "yaml" and (path := FILE.match(block.text)):
            Path(path[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(path[1]).write_text(limited(block.text), encoding="utf-8")
        elif block.language == "python":
            exec(compile(limited(block.text), page.name, "exec"), variables)
            ran.append(block.text)
        elif block.language == "bash":
            for command in commands(block.text):
                if not command.startswith(tuple(NOT_RUN)):
                    _run(limited(command), monkeypatch)
                    ran.append(command)
    return ran


def _run(command: str, monkeypatch) -> None:
    first, *words = shlex.split(command)
    if first == "cd":
        monkeypatch.chdir(words[0])
    elif first == "dvlae":
        try:
            code = cli.main(words)
        except SystemExit as end:  # as for --help
            code = end.code or 0
        assert code == 0, command
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, shell=True, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
