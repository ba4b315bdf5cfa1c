"""What can be tried of Windows and macOS without one: see `windows.py`."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import dvlae
import windows
from project import REPOSITORY

SETTINGS = {"model": {"levels": 2, "channels": 8, "latent_channels": 4}}
TRAINING = {"patch_size": 16, "batch_size": 2, "max_steps": 3, "max_minutes": None, "workers": 2}
DATASET = {
    "source": {"kind": "files"},
    "noisy": "images",
    "axes": "auto",
    "noise_direction": "x",
    "simulate": {"kernel": [1.0, 0.6]},
}

# What a call needs, so that text is UTF-8 with the same ends of lines on every system.
NEEDED = {"read_text": {"encoding"}, "write_text": {"encoding", "newline"}, "to_csv": {"lineterminator"}}

# Imports all modules, also those of steps that are not run here.
IMPORT_ALL = """
import importlib, pkgutil, sys
import dvlae
for module in pkgutil.walk_packages(dvlae.__path__, "dvlae."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import os
from dvlae.system.hardware import machine
assert machine.sys.platform == sys.argv[1] and sys.platform != "win32" and hasattr(os, "fork")
print("all of them")
"""

RUN = """
import json, sys
from dvlae.cli import main
for words in json.loads(sys.argv[1]):
    print(*words, flush=True)
    if code := main(words):
        sys.exit(code)
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs code in a new process that sees a Windows, and returns what it prints."""
    site = tmp_path / "site"
    site.mkdir()
    path = os.pathsep.join(map(str, [site, Path(windows.__file__).parent, REPOSITORY, *filter(None, sys.path)]))

    def run(code: str, *words: str, system: str = "win32", **environment: str) -> subprocess.CompletedProcess:
        (site / "sitecustomize.py").write_text(
            f"import sys, windows; windows.pretend({system == 'darwin'}); sys.modules['snakemake'] = None\n",
            encoding="utf-8",
        )
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            timeout=400,
        )

    return run


REFUSED = """
import dvlae.training.workers as seen
from pathlib import Path
from dvlae.system.files import atomic_file

def is_refused(act):
    try:
        act()
    except (OSError, AttributeError, ValueError, ImportError):
        return True

def replace_open_file():
    with atomic_file("result") as path:
        opened.append(open(path, "w"))

def replace_mapped_file():
    Path("mapped").write_bytes(b"content")
    with open("mapped", "rb") as file:
        opened.append(seen.mmap.mmap(file.fileno(), 0, access=seen.mmap.ACCESS_READ))
    Path("mapped").unlink()

opened = []
acts = [replace_open_file, replace_mapped_file, lambda: seen.os.memfd_create("a"), lambda: open("a:b", "w")]
acts += [lambda: Path("con").mkdir(), lambda: exec("import fcntl", {"__name__": "dvlae.some"})]
acts += [lambda: seen.subprocess.Popen(["true"], pass_fds=[0])]
print([is_refused(act) for act in acts], is_refused(lambda: open("a-b", "w")))
"""


def test_what_windows_refuses_is_refused_here(run):
    done = run(REFUSED)
    assert done.stdout == f"{[True] * 7} None\n", done.stderr


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_every_module_is_imported_without_what_the_system_lacks_and_without_snakemake(run, system):
    done = run(IMPORT_ALL, system, system=system)
    assert (done.returncode, done.stdout) == (0, "all of them\n"), done.stderr


@pytest.mark.parametrize(("system", "count"), [("win32", None), ("darwin", 9)])
def test_the_steps_run_without_what_the_system_lacks_and_without_snakemake(run, tmp_path, system, count):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in "ab":
        image = 100 + 50 * np.sin(np.arange(48) / rng.uniform(3, 6)) + np.zeros((40, 1))
        tifffile.imwrite(tmp_path / f"images/{name}.tif", image.astype(np.uint8))
    (tmp_path / "mine.yaml").write_text(json.dumps(DATASET), encoding="utf-8")
    training = json.dumps(SETTINGS | {"training": TRAINING})
    prediction = json.dumps({"prediction": {"samples": 2, "save_samples": 1}})
    steps = [
        "simulate mine.yaml --data . --output simulated",
        "prepare mine.yaml --data . --simulated simulated --output prepared",
        "prepare mine.yaml --data . --simulated simulated --output prepared",
        "diagnose prepared --output noise.json",
        "register prepared targets.csv",
        f"extract-patches prepared patches --settings {json.dumps({'patch_size': 16}).replace(' ', '')}",
        "train patches run/model --receptive-field 4 --noise-direction x --device cpu --checkpoints checkpoints "
        f"--settings {training.replace(' ', '')}",
        "predict run/model prepared --denoised run/denoised --uncertainty run/uncertainty --samples run/samples "
        f"--device cpu --remove-checkpoints checkpoints --settings {prediction.replace(' ', '')}",
        "evaluate prepared run/denoised run/psnr.csv --dataset mine --method dvlae-rf4 --receptive-field 4",
        "likelihood run/model prepared --output likelihood.csv --samples 2",
        "run-method gaussian prepared --denoised 1-of-2/denoised --part 1/2",
        "run-method gaussian prepared --denoised 2-of-2/denoised --part 2/2",
        "gather 1-of-2 2-of-2 --output gaussian/denoised gaussian/method.json",
        "tables run/psnr.csv --output tables",
        "figures run/psnr.csv --output figures --images mine=prepared",
        "generate run/model new --kind prior --size 16 24",
    ]
    done = run(RUN, json.dumps([step.split() for step in steps[:count]]), system=system)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train: 2 workers" in done.stderr
    assert {"a.tif", "b.tif"} == {file.name for file in (tmp_path / "run/denoised").iterdir()}
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".unfinished")]
    assert left == []


def needed(call: ast.Call) -> set[str]:
    """Return the options that a call needs as it handles text."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    options = {option.arg: option.value for option in call.keywords}
    if name == "open":
        is_method = isinstance(call.func, ast.Attribute)
        asked = options.get("mode") or next(iter(call.args[0 if is_method else 1 :][:1]), None)
        mode = "".join(re.findall("'([rwxabt+]+)'", ast.unparse(asked))) if asked else ""
        # Other things than files are opened, too, for example archives.
        if "b" in mode or (is_method and (not mode or ast.unparse(call.func) == "zarr.open")):
            return set()
        is_kept = set(mode) & set("wxa") and "devnull" not in ast.unparse(call)
        return {"encoding", "newline"} if is_kept else {"encoding"}
    return {"encoding"} if {"text", "universal_newlines"} & options.keys() else NEEDED.get(name, set())


def test_text_is_utf_8_and_ends_its_lines_in_the_same_way_on_every_system():
    missing = []
    for path in sorted(Path(dvlae.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = {option.arg for option in node.keywords}
                missing += [f"{path}:{node.lineno}: {option}" for option in needed(node) - given]
    assert missing == []


def test_an_argument_of_a_command_that_is_printed_needs_no_utf_8(run):
    """As of a Windows console, or of a file to which it is redirected."""
    code = "import dvlae.methods.search as s, dvlae.cli, sys; s.search_method = lambda *_, **__: 'a − b'\n"
    words = ["search-method", "n2v", "images", "--output", "a.json"]
    done = run(f"{code}sys.exit(dvlae.cli.main({words}))", PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stdout) == (0, "a \\u2212 b\n"), done.stderr
