import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dvlae.evaluation.findings.advice import NOISE_COLUMNS, advise, tabulate_noise
from dvlae.evaluation.significance import compare
from dvlae.system.errors import UserError

# Made up: which method is best depends on the noise.
NOISE = [("white", "none", 0, 0.1), ("short", "x", 4, 0.1), ("long", "x", 16, 0.1), ("odd", "", "", 0.1)]
PSNR = {
    "white": {"dvlae-auto": 24.5, "dvlae-refined": 25.0, "bm3d": 27.0, "bm3d-oracle": 28.0},
    "short": {"dvlae-auto": 25.5, "dvlae-refined": 26.0, "bm3d": 24.0, "bm3d-oracle": 25.0},
    "long": {"dvlae-auto": 21.8, "dvlae-refined": 22.0, "bm3d": 21.5, "bm3d-oracle": 23.0},
    "odd": {"dvlae-auto": 21.9, "dvlae-refined": 22.0, "bm3d": 21.5, "bm3d-oracle": 23.0},
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Return a folder with the tables of a comparison of four methods."""
    folder = tmp_path_factory.mktemp("reference")
    pd.DataFrame(NOISE, columns=NOISE_COLUMNS).to_csv(folder / "noise.csv", index=False)
    table = pd.DataFrame(
        [
            {
                "dataset": dataset,
                "method": method,
                "psnr": psnr,
                "oracle": method.endswith("oracle"),
                "sees": "noisy",
                "minutes": 3.0,
            }
            for dataset, methods in PSNR.items()
            for method, psnr in methods.items()
        ]
    )
    table[["dataset", "method", "psnr"]].to_csv(folder / "summary.csv", index=False)
    table[["dataset", "method", "sees", "oracle", "minutes"]].to_csv(folder / "methods.csv", index=False)
    images = pd.Series(range(12)) - 5.5
    comparisons = [
        compare(pd.DataFrame({method: psnr + images for method, psnr in methods.items()}), dict.fromkeys(methods, 0.0))
        for methods in PSNR.values()
    ]
    pd.concat([table.assign(dataset=name) for name, table in zip(PSNR, comparisons, strict=True)]).to_csv(
        folder / "comparisons.csv", index=False
    )
    return folder


@pytest.fixture
def reference(tables, tmp_path):
    """Return a copy that a test may change."""
    return Path(shutil.copytree(tables, tmp_path / "reference"))


def found(length: int | None, level: float | None) -> dict:
    return {"correlation_length": length, "noise_level": level}


@pytest.mark.parametrize(
    ("length", "level", "similar", "best"),
    [
        (0, 0.1, "white", "bm3d is better than dvlae-refined by 2.00 dB"),
        (4, 0.1, "short", "dvlae-refined is better than bm3d by 2.00 dB"),
        (6, 0.15, "short", "dvlae-refined is better than bm3d by 2.00 dB"),
        (12, 0.06, "long", "dvlae-refined is better than bm3d by 0.50 dB"),
    ],
)
def test_the_advice_is_the_best_method_on_the_most_similar_noise_without_oracles(
    reference, length, level, similar, best
):
    advice = advise(found(length, level), [reference])
    assert f"of 3 methods that need noisy images only, on similar noise ({similar} in results/reference/" in advice
    assert "3 minutes of training), the best of ours and the best of the others: " in advice
    assert best in advice and "\n" not in advice and "oracle" not in advice


def test_methods_that_see_more_than_noisy_images_are_left_out(reference):
    path = reference / "methods.csv"
    methods = pd.read_csv(path)
    methods.loc[methods.method == "bm3d", "sees"] = "clean"
    methods.loc[methods.method == "bm3d-oracle", "oracle"] = False
    methods.to_csv(path, index=False)
    assert "bm3d-oracle is better than dvlae-refined by 3.00 dB" in advise(found(0, 0.1), [reference])


@pytest.mark.parametrize(("length", "level"), [(40, 0.1), (4, 0.3), (4, 0.04), (None, 0.1), (4, None), (4, 0.0)])
def test_nothing_is_said_about_noise_that_cannot_be_told_or_is_unlike_any_that_was_compared(reference, length, level):
    assert advise(found(length, level), [reference]) is None


def test_nothing_is_said_where_one_method_alone_was_measured(reference):
    path = reference / "summary.csv"
    summary = pd.read_csv(path)
    summary[summary.method == "dvlae-refined"].to_csv(path, index=False)
    assert advise(found(4, 0.1), [reference]) is None


def test_the_nearest_of_all_comparisons_counts(reference, tmp_path):
    other = Path(shutil.copytree(reference, tmp_path / "other"))
    noise = pd.read_csv(other / "noise.csv")
    noise.loc[noise.dataset == "short", ["correlation_length", "noise_level"]] = [2, 0.07]
    noise.to_csv(other / "noise.csv", index=False)
    assert "(short in results/reference/other: correlation length 2" in advise(found(2, 0.07), [reference, other])
    assert "(long in results/reference/reference: " in advise(found(16, 0.1), [reference, other])


def test_real_noise_is_compared_with_real_noise():
    """So the advice for the electron micrographs is what was measured on them."""
    assert "(sem_line in results/reference/fair_sem: " in advise(found(2, 0.07))


def test_nothing_is_said_before_a_comparison_has_tables(reference):
    (reference / "noise.csv").unlink()
    assert advise(found(4, 0.1), [reference]) is None


def test_nothing_is_said_without_a_reference(monkeypatch, tmp_path):
    monkeypatch.setattr("dvlae.evaluation.findings.advice.shipped_reference", lambda: tmp_path)
    assert advise(found(4, 0.1)) is None


def test_the_noise_of_each_dataset_is_a_row_and_what_cannot_be_told_is_missing(tmp_path):
    values = {"sem": ("x", 2, 0.1), "new": (None, None, None)}
    for name, row in values.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(dict(zip(NOISE_COLUMNS[1:], row, strict=True))))
    table = tabulate_noise({name: tmp_path / f"{name}.json" for name in values})
    assert table.astype(object).where(table.notna(), None).to_numpy().tolist() == [
        [name, *row] for name, row in values.items()
    ]
    assert list(tabulate_noise({})) == NOISE_COLUMNS


def test_a_file_of_an_older_version_is_refused(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({"direction": "x", "correlation_length": 2}))
    with pytest.raises(UserError, match=r"old.json: not what dvlae diagnose writes .*noise_level.*; run it again"):
        tabulate_noise({"old": tmp_path / "old.json"})
