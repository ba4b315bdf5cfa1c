"""`benchmarks/fair.py` runs the cells of a comparison."""

import csv
import importlib.util
import json
import shutil
import sys

import pytest
import yaml

from dvlae.runs.folder import PSNR_COLUMNS
from project import REPOSITORY, SMALL, TINY


@pytest.fixture
def fair(tmp_path, monkeypatch):
    """Return the script, in a folder with a configuration of a filter and a training, each of which runs in no time.

    ``fair.shares`` are the parts of a core that the trainings will have, ``fair.calls`` the words of each call, and
    ``fair.drawn`` what the figures were made of.
    """
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "config/datasets/small.yaml").write_text(yaml.safe_dump(SMALL))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY | {"baselines": ["noisy"], "results": "results/x"}))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("fair", REPOSITORY / "benchmarks/fair.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.shares, script.calls, script.failing, script.drawn = [0.99], [], [], []

    def snakemake(configuration, target, *others, minutes=None):
        words = [other for other in others if isinstance(other, str)]
        script.calls.append([str(target).removeprefix("results/x/small/"), *words])
        if str(target) in script.failing:
            return False
        if target.name == "psnr.csv":
            make_run(target, [None, 4]["dvlae" in str(target)], script.shares)
        elif target.name == "search.json" and not words:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps({"chosen": len(script.calls)}))
        noise = tmp_path / "results/x/figures/noise_small.json"
        noise.parent.mkdir(parents=True, exist_ok=True)
        noise.write_text(json.dumps({"direction": "x", "correlation_length": 2, "noise_level": 0.1}))
        return True

    monkeypatch.setattr(script, "snakemake", snakemake)
    monkeypatch.setattr(script, "make_figures", lambda psnr, *_, **__: script.drawn.extend(map(str, psnr)))
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)
    return script


def make_run(psnr_csv, receptive_field, shares):
    """Make the files of a run."""
    for name in ("model", "denoised"):
        (psnr_csv.parent / name).mkdir(parents=True, exist_ok=True)
    method, seed = psnr_csv.parent.parent.name, psnr_csv.parent.name.removeprefix("seed")
    with psnr_csv.open("w", newline="") as file:
        row = ["small", method, receptive_field, seed, "moon", 25.5 if receptive_field else 20.0, 0.5, 20.0]
        csv.writer(file).writerows([PSNR_COLUMNS, row])
    if receptive_field:
        record = {"processor_share": shares.pop(0), "seconds": 60.0}
        (psnr_csv.parent / "model/run.json").write_text(json.dumps(record))
        (psnr_csv.parent / "model/weights.safetensors").touch()
    else:
        (psnr_csv.parent / "method.json").write_text(json.dumps({"status": "done", "sees": "noisy"}))


def run(script, monkeypatch, *words: str) -> None:
    script.calls.clear()
    monkeypatch.setattr(sys, "argv", ["fair.py", "c.yaml", *words])
    script.main()


OURS, NOISY, NOISE = "dvlae-rf4/seed0/psnr.csv", "noisy/seed0/psnr.csv", "results/x/figures/noise_small.json"


def test_each_cell_is_made_by_itself_and_then_the_figures(fair, monkeypatch, capsys):
    run(fair, monkeypatch)
    assert fair.calls == [[OURS], [NOISY], [NOISE]]
    assert fair.drawn == [f"results/x/small/{OURS}", f"results/x/small/{NOISY}"]
    assert "1/2 small dvlae-rf4 seed 0: done with 99% of a core" in capsys.readouterr().out


def test_a_training_that_shared_its_core_is_repeated(fair, monkeypatch, capsys):
    fair.shares = [0.6, 0.94, 0.96]
    run(fair, monkeypatch)
    assert fair.calls == [[OURS]] * 3 + [[NOISY], [NOISE]]
    assert "had 60% of a core, is repeated" in capsys.readouterr().out


def test_a_training_that_always_shares_its_core_is_left_out_of_partial_tables(fair, monkeypatch, tmp_path):
    fair.shares = [0.5] * 3
    with pytest.raises(SystemExit, match="1 of 2 cells are left"):
        run(fair, monkeypatch, "--partial")
    assert fair.calls == [[OURS]] * 3 + [[NOISY]]
    assert not (tmp_path / "results/x/small" / OURS).parent.exists()
    assert rows(tmp_path) == [["noisy", "20.0000"]]


@pytest.fixture
def searched(fair, tmp_path):
    """Return the script with a method that has candidates and two seeds."""
    (tmp_path / "config/methods").mkdir()
    method = {"description": "a", "function": "filters.scikit_image", "trains": True, "candidates": [{}, {}]}
    (tmp_path / "config/methods/searched.yaml").write_text(yaml.safe_dump(method | {"seeds": True}))
    changes = {"methods": ["searched"], "training": TINY["training"] | {"max_minutes": 1.0}, "seeds": [0, 1]}
    others = {name: value for name, value in TINY.items() if name != "receptive_fields"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(others | changes | {"results": "results/x"}))
    return fair


SEARCH = "searched/search.json"


def test_settings_are_searched_in_a_call_of_their_own(searched, monkeypatch):
    run(searched, monkeypatch)
    assert searched.calls[:2] == [[SEARCH], ["searched/seed0/psnr.csv"]]


def test_another_seed_has_the_settings_that_were_searched_elsewhere(searched, monkeypatch, tmp_path):
    run(searched, monkeypatch)
    found = (tmp_path / "results/x/small" / SEARCH).read_text()
    shutil.rmtree(tmp_path / "results/x")
    shutil.rmtree(tmp_path / "results/reference/x/small/searched/seed1")
    run(searched, monkeypatch)
    put_back = [[SEARCH, "--omit-from", "search_method"], [SEARCH, "--touch", "--forcerun", "search_method"]]
    assert searched.calls == [*put_back, ["searched/seed1/psnr.csv"], [NOISE]]
    assert (tmp_path / "results/x/small" / SEARCH).read_text() == found


def test_a_cell_that_fails_does_not_end_the_others_and_there_are_no_tables_yet(fair, monkeypatch, tmp_path):
    fair.failing = [f"results/x/small/{OURS}"]
    with pytest.raises(SystemExit, match="1 of 2 cells are left"):
        run(fair, monkeypatch)
    assert fair.calls == [[OURS], [NOISY]]
    assert not (tmp_path / "results/reference/x/summary.csv").exists()


def test_no_cell_begins_after_the_time(fair, monkeypatch):
    with pytest.raises(SystemExit, match="2 of 2 cells are left"):
        run(fair, monkeypatch, "--minutes", "-1", "--partial")
    assert fair.calls == []


def rows(folder):
    """Return method and PSNR of the table that is kept."""
    with (folder / "results/reference/x/summary.csv").open() as file:
        return [[row["method"], row["psnr"]] for row in csv.DictReader(file)]


def test_what_is_kept_is_enough_for_the_tables_on_another_machine(fair, monkeypatch, tmp_path, capsys):
    run(fair, monkeypatch)
    before = rows(tmp_path)
    assert before == [["dvlae-rf4", "25.5000"], ["noisy", "20.0000"]]
    shutil.rmtree(tmp_path / "results/x")
    (tmp_path / "results/reference/x/summary.csv").unlink()
    run(fair, monkeypatch)
    assert fair.calls == [[NOISE]]
    assert rows(tmp_path) == before
    assert "1/2 small dvlae-rf4 seed 0: done before" in capsys.readouterr().out
    assert fair.drawn[2:] == [f"results/reference/x/small/{OURS}", f"results/reference/x/small/{NOISY}"]


def test_neither_weights_nor_pages_are_kept(fair, monkeypatch, tmp_path):
    run(fair, monkeypatch)
    kept = [path for path in (tmp_path / "results/reference/x").rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} == {".csv", ".json", ".md"}


def test_a_cell_with_other_settings_than_kept_is_made_again(fair, monkeypatch, tmp_path):
    run(fair, monkeypatch)
    fair.shares = [0.99]
    settings = yaml.safe_load((tmp_path / "c.yaml").read_text())
    settings["training"]["max_steps"] += 1
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    run(fair, monkeypatch)
    assert fair.calls == [[OURS], [NOISE]]


@pytest.mark.parametrize(
    ("kept", "now", "expected"),
    [
        ({"a": 1, "b": {"c": [2]}}, {"a": 1, "b": {"c": [2], "new": 3}, "new": 4}, True),
        ({"a": 1, "b": {"c": [2]}}, {"a": 1, "b": {"c": [3]}}, False),
        ({"a": 1, "b": {"c": [2]}}, {"a": 1, "b": None}, False),
        ({"a": 1, "b": None}, {"a": 1, "b": {"c": [2]}}, False),
        ({"a": 1, "b": {"c": [2]}}, {"b": {"c": [2]}}, False),
    ],
)
def test_a_setting_that_did_not_exist_is_no_difference(fair, kept, now, expected):
    assert fair.agrees(kept, now) is expected


def test_a_cell_with_another_revision_than_kept_is_made_again(fair, monkeypatch):
    run(fair, monkeypatch)
    monkeypatch.setattr(fair.revision, "METHODS", 99)
    run(fair, monkeypatch)
    assert fair.calls == [[NOISY], [NOISE]]


def test_what_is_committed_of_a_run_is_small():
    runs = (REPOSITORY / "results/reference").glob("fair_*/*/*/seed*")
    sizes = {run: sum(file.stat().st_size for file in run.rglob("*") if file.is_file()) for run in runs}
    assert {run: size for run, size in sizes.items() if size > 100_000} == {}
