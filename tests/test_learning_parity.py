"""`benchmarks/learning_parity.py` trains the authors' networks and ours, cell by cell."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from project import REPOSITORY
from skips import UNAVAILABLE

MIRROR = Path(os.environ.get("DVLAE_DATA_MIRROR", "no mirror"))


@pytest.fixture
def parity(monkeypatch):
    """Return the script, with a tiny network that is measured three times."""
    spec = importlib.util.spec_from_file_location("learning_parity", REPOSITORY / "benchmarks/learning_parity.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "SIZES", {"levels": 2, "channels": 4, "latent_channels": 2})
    for name, value in {"CROP": 32, "BATCH": 2, "PATCHES": 2, "MIDDLE": 64, "SAMPLES": 1, "MEASUREMENTS": 3}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "COMPARED", (1, 2, 3))
    return script


def run(script, monkeypatch, folder, *arguments):
    """Run the script, and return the records of its cells."""
    paths = ["--output", str(folder), "--figure", str(folder / "figure.png")]
    monkeypatch.setattr("sys.argv", ["learning_parity.py", "--steps", "3", *paths, *arguments])
    script.main()
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_all_sides_are_trained_compared_and_drawn_once(parity, monkeypatch, tmp_path, capsys):
    if not (MIRROR / "dvlae_2023").is_dir() or not (MIRROR / "sem_line").is_dir():
        pytest.skip(UNAVAILABLE + "dvlae_2023 and sem_line in DVLAE_DATA_MIRROR")
    with pytest.raises(SystemExit, match="8 of 9 cells are left"):
        run(parity, monkeypatch, tmp_path, "--cells", "ours-1")
    cells = run(parity, monkeypatch, tmp_path)
    assert sorted(cells) == sorted(f"{side}-{seed}" for side in parity.SIDES for seed in parity.SEEDS)
    printed = capsys.readouterr().out
    assert printed.count("ours-1 step") == 3 and printed.count("| psnr |") == 3
    assert (tmp_path / "figure.png").stat().st_size > 0
    # Ours has 3 x 3 x 4 weights and 4 biases of two layers more in the signal decoder, which are one in theirs; and one
    # Gaussian for each latent of the top, where theirs has one for each position.
    sides = {side: cells[f"{side}-0"]["parameters"] for side in parity.SIDES}
    assert sides["imported"] - sides["theirs"] == 4 * 4 * 9 + 4
    assert sides["ours"] - sides["imported"] == -2 * 2 * ((32 // 2) ** 2 - 1)
    assert {"schedule": "plateau", "average_decay": 0.0}.items() <= cells["ours-0"]["settings"]["training"].items()
    kept = {name: record["rows"] for name, record in cells.items()}
    monkeypatch.setattr(parity, "run_cell", lambda *_: pytest.fail("a finished cell is repeated"))
    assert {name: record["rows"] for name, record in run(parity, monkeypatch, tmp_path).items()} == kept


def test_sides_agree_where_their_means_differ_by_less_than_two_deviations(parity):
    records = [
        {"side": side, "seed": seed, "rows": [{"step": 1, "elbo": elbo + seed, "psnr": 20 + seed}] * 3}
        for side, elbo in (("ours", 1.0), ("theirs", 3.1), ("imported", 3.0))
        for seed in parity.SEEDS
    ]
    found = {row["measure"]: row for row in parity.compare(records)}
    # Three values in steps of one have a deviation of one.
    assert (found["elbo"]["deviation"], found["elbo"]["difference"]) == pytest.approx((1, -2.1))
    assert found["elbo"]["imported"] == pytest.approx(4)
    assert (found["elbo"]["agrees"], found["psnr"]["agrees"]) == (False, True)
