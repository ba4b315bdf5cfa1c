"""What the guides say can be done, and what they link to is there."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import tifffile

from dvlae.cli.parser import parse
from guides import DOCS, REPOSITORY, blocks, commands, limited, run_page
from noisy_images import noise, scene
from skips import UNAVAILABLE

GUIDES = {
    "first_stack.md", "direction_and_receptive_field.md", "numbers.md", "how_it_works.md", "reproduce_the_paper.md",
    "python.md", "extend.md",
}  # fmt: skip
# Those in which Snakemake runs.
WITH_SNAKEMAKE = {"first_stack.md", "reproduce_the_paper.md"}
MOST_LINES = 150
MOST_BYTES = 500_000
PAGES = sorted(
    REPOSITORY / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split()
)  # fmt: skip
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NOTEBOOK = DOCS / "from_stack_to_figure.ipynb"


def relative(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the working folder of a reader: some stacks, and the files of the repository that readers change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr("dvlae.training.train.choose_workers", lambda *arguments, **options: 1)
    shutil.copytree(REPOSITORY / "config", "config")
    shutil.copytree(REPOSITORY / "workflow", "workflow")
    Path("scans").mkdir()
    for number, path in enumerate(["stack.tif", "other.tif", "scans/a.tif", "scans/b.tif"]):
        frames = [scene(3 * number + i, (48, 64)) + 12 * noise(3 * number + i, (48, 64), along="x") for i in range(3)]
        tifffile.imwrite(path, np.clip(frames, 0, 255).astype(np.uint8), imagej=True, metadata={"axes": "TYX"})
    return tmp_path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.workflow] * (name in WITH_SNAKEMAKE)) for name in sorted(GUIDES)]
)
def test_what_a_guide_says_can_be_done(folder, monkeypatch, name):
    before = {path: path.read_bytes() for path in folder.rglob("*.tif")}
    ran = run_page(DOCS / name, monkeypatch)
    assert ran or name == "how_it_works.md"
    assert {path: path.read_bytes() for path in before} == before


def test_the_notebook_runs(folder):
    variables: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(limited("".join(cell["source"])), NOTEBOOK.name, "exec"), variables)
    figures = [matplotlib.pyplot.figure(number) for number in matplotlib.pyplot.get_fignums()]
    matplotlib.pyplot.close("all")
    assert len(figures) == 1 and len(figures[0].axes) >= 3


def test_the_notebook_shows_what_its_cells_print_return_and_draw():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    kinds = {kind for output in outputs for kind in output.get("data", {output["output_type"]: None})}
    assert kinds == {"stream", "text/plain", "image/png"}
    assert NOTEBOOK.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_in_pages_are_those_of_the_command_line(page):
    for block in blocks(page):
        for command in commands(block.text) if block.language in {"", "bash"} else []:
            # What a command says begins with its name and a colon.
            if re.match(r"dvlae [\w-]+( |$)", command) and "--help" not in command:
                parse(shlex.split(command)[1:])


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=relative)
def test_a_page_is_short(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) < MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_to_files_and_headings(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def links(page: Path) -> list[str]:
    """Return the links of a page that stay in the repository."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [link for link in LINK.findall(text) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_stands_in_the_index():
    indexed = {link.partition("#")[0] for link in links(DOCS / "README.md")}
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert pages <= indexed


def test_every_picture_is_shown():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert {path for kind in ("png", "svg") for path in DOCS.glob(f"*.{kind}")} <= shown


def test_the_site_is_built_without_warnings_and_loads_nothing(tmp_path):
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")):
        pytest.skip(f"{UNAVAILABLE}the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe|link)[^>]* (?:src|href)="([^"]+)', page.read_text())
        assert not [url for url in loaded if "://" in url or url.startswith("//")], page
    assert (
        "dvlae.fit" in (tmp_path / "api/index.html").read_text() or "fit" in (tmp_path / "api/index.html").read_text()
    )
