"""`benchmarks/fair.py` runs the cells of a comparison."""

import importlib.util
import json
import sys

import pytest
import yaml

from project import REPOSITORY, SMALL, TINY


@pytest.fixture
def fair(tmp_path, monkeypatch):
    """Return the script, in a folder with a configuration of a filter and a training, each of which runs in no time.

    ``fair.shares`` are the parts of a core that the trainings will have, and ``fair.calls`` the targets of each call.
    """
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "config/datasets/small.yaml").write_text(yaml.safe_dump(SMALL))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY | {"baselines": ["noisy"]}))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("fair", REPOSITORY / "benchmarks/fair.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.shares, script.calls, script.failing = [0.99], [], []

    def snakemake(configuration, *targets, minutes=None):
        script.calls.append([target.removeprefix("results/small/") for target in targets])
        for target in targets:
            folder = (tmp_path / target).parent
            if target in script.failing:
                return False
            (folder / "model").mkdir(parents=True, exist_ok=True)
            (folder / "psnr.csv").touch()
            if "dvlae" in target:
                (folder / "model/run.json").write_text(json.dumps({"processor_share": script.shares.pop(0)}))
            else:
                (folder / "method.json").write_text(json.dumps({"status": "done"}))
        return True

    monkeypatch.setattr(script, "snakemake", snakemake)
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)
    return script


def run(script, monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["fair.py", "c.yaml", *words])
    script.main()


OURS, NOISY = "dvlae-rf4/seed0/psnr.csv", "noisy/seed0/psnr.csv"


def test_each_cell_is_made_by_itself_and_then_the_tables(fair, monkeypatch, capsys):
    run(fair, monkeypatch)
    assert fair.calls == [[OURS], [NOISY], []]
    assert "1/2 small dvlae-rf4 seed 0: done with 99% of a core" in capsys.readouterr().out


def test_a_training_that_shared_its_core_is_repeated(fair, monkeypatch, capsys):
    fair.shares = [0.6, 0.94, 0.96]
    run(fair, monkeypatch)
    assert fair.calls == [[OURS]] * 3 + [[NOISY], []]
    assert "had 60% of a core, is repeated" in capsys.readouterr().out


def test_a_training_that_always_shares_its_core_is_left_out_and_no_tables_are_made(fair, monkeypatch, tmp_path):
    fair.shares = [0.5] * 3
    with pytest.raises(SystemExit, match="1 of 2 cells are left"):
        run(fair, monkeypatch)
    assert fair.calls == [[OURS]] * 3 + [[NOISY]]
    assert not (tmp_path / "results/small" / OURS).parent.exists()


def test_settings_are_searched_in_a_call_of_their_own(fair, monkeypatch, tmp_path):
    (tmp_path / "config/methods").mkdir()
    method = {"description": "a", "function": "filters.scikit_image", "trains": True, "candidates": [{}, {}]}
    (tmp_path / "config/methods/searched.yaml").write_text(yaml.safe_dump(method))
    changes = {"methods": ["searched"], "training": TINY["training"] | {"max_minutes": 1.0}}
    others = {name: value for name, value in TINY.items() if name != "receptive_fields"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(others | changes))
    run(fair, monkeypatch)
    assert fair.calls == [["searched/search.json"], ["searched/seed0/psnr.csv"], []]


def test_a_cell_that_fails_does_not_end_the_others(fair, monkeypatch):
    fair.failing = [f"results/small/{OURS}"]
    with pytest.raises(SystemExit, match="1 of 2 cells are left"):
        run(fair, monkeypatch)
    assert fair.calls == [[OURS], [NOISY]]


def test_no_cell_begins_after_the_time(fair, monkeypatch):
    with pytest.raises(SystemExit, match="2 of 2 cells are left"):
        run(fair, monkeypatch, "--minutes", "-1")
    assert fair.calls == []
