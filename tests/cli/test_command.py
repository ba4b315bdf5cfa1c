import json

import pytest

from dvlae.cli import main
from dvlae.cli.command import SHOW_ONLY
from dvlae.cli.commands import COMMANDS

MINE = json.dumps({"source": {"kind": "files"}, "noisy": "*.tif", "axes": "YX", "noise_direction": "x"})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, which has images of an earlier run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images/noisy").mkdir(parents=True)
    (tmp_path / "images/noisy/a.tif").write_bytes(b"a")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["prepare", MINE, "--data", "data", "--output", "images"], "reads data: not there | changes images: a folder"),
        (
            ["predict", "model", "images", "--denoised", "images/noisy/a.tif", "--uncertainty", "u"],
            "reads model: not there | reads images: a folder | changes images/noisy/a.tif: a file | "
            "changes u: not there",
        ),
        (
            ["gather", "images/noisy", "b", "--output", "c", "d"],
            "reads images/noisy: a folder | reads b: not there | changes c: not there | changes d: not there",
        ),
    ],
)
def test_a_dry_run_says_what_is_read_and_changed_and_changes_nothing(words, told, here, capsys):
    before = sorted(here.rglob("*"))
    assert main([*words, "--dry-run"]) == 0
    lines = capsys.readouterr().out.replace("\\", "/").replace(", files: 1", "").splitlines()
    assert " | ".join(" ".join(line.split()) for line in lines) == told
    assert sorted(here.rglob("*")) == before


def test_a_dry_run_refuses_wrong_arguments(here, capsys):
    assert main(["extract-patches", "images", "images", "--dry-run"]) == 1
    assert main(["extract-patches", "images", "patches", "--settings", '{"patch_size": 1}', "--dry-run"]) == 1
    replaced, setting = capsys.readouterr().err.splitlines()
    assert "would replace images" in replaced and "patch_size: found 1" in setting


def test_commands_with_a_dry_run_name_all_that_they_change():
    for command, arguments in COMMANDS.items():
        if any(argument.dest == SHOW_ONLY for argument in arguments):
            assert any(argument.replaces for argument in arguments), command.name
