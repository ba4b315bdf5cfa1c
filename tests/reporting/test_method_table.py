"""The table of methods, and the tables and figures of methods of which some did not denoise."""

import json

import pandas as pd
import pytest

from dvlae.evaluation import significance
from dvlae.reporting import tables
from dvlae.reporting.method_table import METHOD_COLUMNS, describe_methods, lay_out_methods, outcome
from dvlae.runs.folder import PSNR_COLUMNS, Run

RECORD = {
    "status": "done", "reason": None, "sees": "noisy", "oracle": False, "minutes": 10.0, "device": "cpu", "workers": 2,
    "trained_on": 45, "training_seconds": 600.0, "prediction_seconds": 30.0, "megapixels": 2.0, "peak_memory_mb": 900,
    "processor_share": 0.99, "tuned_by": "the search", "source": "their page", "licence": "MIT",
    "citation": "Them, 2020",
    "searched": 4, "settings": {"width": 32, "grid": {"a": 1}}, "trains": True,
    "chosen": {"span": 7, "parameters": 1234, "images": ["a"], "psnr": {"1.0": 3}, "none": None},
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the files of a run."""

    def run(method, seed=0, values=(30.0, 32.0), seeded=True, **record):
        folder = tmp_path / "results/sem" / method / f"seed{seed}"
        folder.mkdir(parents=True)
        rows = [("sem", method, "", seed, f"image {i}", value, 0.5, 20.0) for i, value in enumerate(values)]
        pd.DataFrame(rows, columns=PSNR_COLUMNS).to_csv(folder / "psnr.csv", index=False)
        if record:
            (folder / "method.json").write_text(json.dumps(RECORD | {"seed": seed if seeded else None} | record))
        return folder / "psnr.csv"

    return run


@pytest.fixture
def compared(write):
    return [
        write("n2v", 0, training_seconds=590.0, processor_share=0.9),
        write("n2v", 1, training_seconds=610.0, peak_memory_mb=1000),
        write("flaky", 0, reason=None),
        write("flaky", 1, ("", ""), status="failed", reason="it broke"),
        write("slow", 0, ("", ""), status="out of time", reason="ended after 20 minutes"),
        write("noisy", 0, (20.0, 20.0), trains=False, seeded=False),
    ]


def row(table, method):
    return table[table.method == method].iloc[0]


def test_the_time_to_denoise_is_processor_time_where_that_is_recorded(compared):
    path = compared[0].with_name("method.json")
    record = json.loads(path.read_text())
    for seconds, expected in ((20.0, 10.0), (None, 15.0)):
        path.write_text(json.dumps(record | {"prediction_processor_seconds": seconds}))
        assert Run.read(compared[0]).seconds_per_megapixel == expected


def test_each_method_has_a_row_with_the_mean_seconds_the_most_memory_and_the_least_share(compared):
    found = describe_methods([Run.read(path) for path in compared])
    assert list(found.columns) == METHOD_COLUMNS and list(found.method) == ["n2v", "flaky", "slow", "noisy"]
    n2v = row(found, "n2v")
    assert (n2v.training_seconds, n2v.prediction_seconds_per_megapixel) == (600, 15)
    assert (n2v.peak_memory_mb, n2v.processor_share, n2v.seeds, n2v.candidates) == (1000, 0.9, 2, 4)
    assert n2v.chosen == "width 32, span 7, parameters 1234"
    assert pd.isna(row(found, "noisy").seeds)


def test_what_did_not_denoise_has_its_status_and_reason(compared):
    found = describe_methods([Run.read(path) for path in compared])
    assert tuple(row(found, "slow")[["status", "reason"]]) == ("out of time", "out of time: ended after 20 minutes")
    assert tuple(row(found, "flaky")[["status", "reason"]]) == ("done", "seed 1: failed: it broke")


def test_a_refined_denoiser_that_was_left_out_is_named(write):
    paths = [write("dvlae-refined", seed) for seed in range(2)]
    record = {"settings": {"estimator": "direct"}, "estimator": "mmse"}
    (paths[1].parent / "prediction.json").write_text(json.dumps(record))
    found = row(describe_methods([Run.read(path) for path in paths]), "dvlae-refined")
    assert found.status == "done"
    assert found.reason == "seed 1: the training left the refined denoiser out, and samples denoised"


def test_the_notes_say_what_is_unequal_and_what_to_cite(compared):
    notes = lay_out_methods(describe_methods([Run.read(path) for path in compared]), frozenset()).notes
    assert any("n2v on sem: the processor worked for it 90% of the time" in note for note in notes)
    assert "slow on sem: out of time: ended after 20 minutes." in notes
    assert "n2v: tuned by: the search; settings from: their page; licence: MIT; cite: Them, 2020." in notes


def test_the_notes_say_which_methods_were_trained_on_which_device_if_devices_differ(write):
    paths = [write("n2v", device="cpu"), write("hdn", device="a GPU"), write("noisy", minutes=None, device="another")]

    def said(paths):
        notes = lay_out_methods(describe_methods([Run.read(path) for path in paths]), frozenset()).notes
        return [note.rpartition(": ")[2] for note in notes if "devices with different names" in note]

    assert said(paths) == ["n2v on cpu; hdn on a GPU."]
    assert said([paths[0], paths[2]]) == []


def test_seeds_on_different_devices_are_named_both(write):
    runs = [Run.read(write("n2v", seed, device=device)) for seed, device in enumerate(("A", "B", "A"))]
    assert row(describe_methods(runs), "n2v").device == "A and B"


def test_tables_rank_and_compare_only_what_denoised_and_name_the_rest(compared, tmp_path):
    tables.make_tables(compared, tmp_path / "tables")
    summary = pd.read_csv(tmp_path / "tables/summary.csv", keep_default_na=False)
    assert list(summary.status) == ["done", "done", "out of time", "done"]
    assert (row(summary, "slow").psnr, row(summary, "flaky").psnr) == ("", "31.0000")
    text = (tmp_path / "tables/summary.md").read_text()
    assert "slow on sem: out of time: ended after 20 minutes." in text and "there is no PSNR" not in text
    assert "noisy on sem" not in text
    comparisons = pd.read_csv(tmp_path / "tables/comparisons.csv")
    assert "slow" not in {*comparisons.method, *comparisons.other}
    timing = pd.read_csv(tmp_path / "tables/timing.csv")
    assert set(timing.method) == {"n2v", "flaky", "slow"}


def ceiling(csvs, folder):
    """Return the table of distances from the ceiling as made; None if the file of comparisons has none."""
    tables.make_tables(csvs, folder)
    parts = (folder / "comparisons.md").read_text().split("| dataset ")
    return "| dataset " + parts[1] if "below the ceiling" in parts[1] else None


def test_each_method_has_its_distance_from_the_better_one_that_learned_from_clean_images(write, tmp_path, monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 99)
    best = [30.0 + i for i in range(9)]
    found = ceiling([
        write("ours", 0, [value + [-0.5, 0.3][i % 2] for i, value in enumerate(best)]),
        write("better", 0, [value + 1 for value in best]),
        write("supervised", 0, [value - 1 for value in best], sees="clean", oracle=True, seeded=False),
        write("care", 0, best, sees="clean", oracle=True, seeded=False),
        write("median-oracle", 0, [value - 5 for value in best], sees="clean", minutes=None, trains=False),
        write("broken", 0, [""] * 9, sees="clean", status="failed", reason="why"),
    ], tmp_path / "tables")  # fmt: skip
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()[2:]]
    assert [line[:4] for line in lines[:4]] == [
        ["sem", "ours", "noisy", "0.14"],
        ["sem", "better", "noisy", "-1.00"],
        ["sem", "supervised", "clean", "1.00"],
        ["sem", "median-oracle", "clean", "5.00"],
    ]
    assert lines[4] == [""], "no row of the ceiling itself, and none of what failed"
    low, high = map(float, lines[0][4].split(" to "))
    assert -0.3 < low < 0.14 < high < 0.5
    assert lines[1][4] == "-1.000 to -1.000"
    assert "sem: the ceiling is care," in found


def test_oracles_are_marked_and_have_no_rank_in_any_table(write, tmp_path):
    values = {"n2v": 30.0, "median": 29.0, "bm3d-oracle": 35.0}
    oracle = {"bm3d-oracle": {"sees": "clean", "oracle": True}}
    runs = [write(name, values=(v, v), **oracle.get(name, {"sees": "noisy"})) for name, v in values.items()]
    tables.make_tables(runs, tmp_path / "tables")
    for name in ("summary", "measures"):
        text = (tmp_path / f"tables/{name}.md").read_text()
        assert "**30.00**" in text
        assert "bm3d-oracle †" in text
        assert "**35.00**" not in text and "†" in text.split("\n\n")[-1] + text.split("\n\n")[1]


def test_without_a_method_that_learned_from_clean_images_there_is_no_ceiling(write, tmp_path):
    runs = [write("n2v"), write("noisy", values=(20, 20)), write("gaussian-oracle", sees="clean", minutes=None)]
    assert ceiling(runs, tmp_path / "tables") is None


@pytest.mark.parametrize(("runs", "expected"), [
    ([(0, "done", None)], ("done", None)),
    ([(0, "failed", "why")], ("failed", "failed: why")),
    ([(0, "failed", "why"), (1, "done", None)], ("done", "seed 0: failed: why")),
    ([(0, "failed", "why"), (1, "failed", "why")], ("failed", "failed: why")),
    ([(0, "failed", "why"), (1, "failed", "why"), (2, "done", None)], ("done", "seeds 0 and 1: failed: why")),
    ([(0, "failed", "why"), (1, "out of time", "so")], ("failed", "seed 0: failed: why; seed 1: out of time: so")),
])  # fmt: skip
def test_the_outcome_of_runs_is_done_if_one_of_them_is(runs, expected):
    assert tuple(outcome(runs).values()) == expected
