import json
import re

import pandas as pd
import pytest

from dvlae.config.loading import load_dataset
from dvlae.reporting import tables
from dvlae.runs.folder import MEASURE_COLUMNS, PSNR_COLUMNS
from dvlae.system.errors import UserError


def write_run(results, dataset, method, seed=0, values=(30.0, 32.0), field=None, training=None, record=None):
    folder = results / dataset / method / f"seed{seed}"
    (folder / "model").mkdir(parents=True)
    rows = [
        (dataset, method, "" if field is None else field, seed, f"image {i}", value, 0.5, "" if value == "" else 20.0)
        for i, value in enumerate(values)
    ]
    pd.DataFrame(rows, columns=PSNR_COLUMNS).to_csv(folder / "psnr.csv", index=False)
    if training is not None:
        (folder / "model" / "run.json").write_text(json.dumps(training))
    if record is not None:
        (folder / "method.json").write_text(json.dumps(record))
    return folder / "psnr.csv"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("results")
    training = {"seconds": 120.0, "stopped_by": "max_minutes", "steps": 70, "parameters": 9, "best_val_elbo": -1.5}
    training |= {"patches": {"train": "abc", "val": "def"}}
    write_patches(tmp_path, "sem_line", ["image 0"])
    write_patches(tmp_path, "no_clean", ["another image"])
    other = training | {"seconds": 240.0, "stopped_by": "patience"}
    return [
        write_run(tmp_path, "sem_line", "noisy", values=(20.0, 20.0)),
        write_run(
            tmp_path,
            "sem_line",
            "gaussian",
            values=(29.0, 30.0),
            record={"status": "done", "sees": "clean", "oracle": True},
        ),
        write_run(tmp_path, "sem_line", "dvlae-rf40", 0, (32.0, 33.0), 40, training),
        write_run(tmp_path, "sem_line", "dvlae-rf40", 1, (33.0, 34.0), 40, other),
        write_run(tmp_path, "sem_line", "dvlae-rf4", 0, (31.0, 31.0), 4, training),
        write_run(tmp_path, "no_clean", "dvlae-rf40", 0, ("", ""), 40, training),
    ]


def write_patches(results, dataset, trained_on):
    (results / dataset / "patches").mkdir(parents=True)
    sources = {"train": [[name, 0, 0] for name in trained_on], "val": []}
    description = {"sha256": {"train": "abc", "val": "def"}, "sources": sources}
    (results / dataset / "patches" / "patches.json").write_text(json.dumps(description))


@pytest.fixture(scope="module")
def output(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("output") / "tables"
    tables.make_tables(runs, folder)
    return folder


def row(table, method, dataset="sem_line"):
    return table[(table.method == method) & (table.dataset == dataset)].iloc[0]


def test_the_noise_table_has_a_row_for_each_dataset_whose_noise_was_measured(runs, output, tmp_path):
    assert pd.read_csv(output / "noise.csv").empty
    found = {"direction": "x", "correlation_length": 2, "noise_level": 0.1}
    (tmp_path / "noise.json").write_text(json.dumps(found))
    tables.make_tables(runs, tmp_path / "tables", noise={"sem_line": tmp_path / "noise.json"})
    (row,) = pd.read_csv(tmp_path / "tables" / "noise.csv").to_dict("records")
    assert row == {"dataset": "sem_line"} | found


def test_psnr_table_holds_every_image_of_every_run(output):
    assert len(pd.read_csv(output / "psnr.csv")) == 12


def test_summary_is_the_mean_over_images_and_the_deviation_over_seeds_of_that_mean(output):
    ours = row(pd.read_csv(output / "summary.csv"), "dvlae-rf40")
    assert ours.psnr == pytest.approx(33.0)
    assert ours.psnr_std == pytest.approx(0.7071, abs=1e-4)
    assert ours.gain == pytest.approx(13.0)
    assert (ours.images, ours.seeds) == (2, 2)


def test_summary_of_one_seed_has_no_deviation(output):
    assert pd.isna(row(pd.read_csv(output / "summary.csv"), "dvlae-rf4").psnr_std)


def test_summary_says_which_limits_ended_the_trainings_and_how_long_they_took(output):
    ours = row(pd.read_csv(output / "summary.csv"), "dvlae-rf40")
    assert ours.stopped_by == "max_minutes patience"
    assert ours.training_minutes == pytest.approx(3.0)


def test_summary_marks_the_oracle(output):
    summary = pd.read_csv(output / "summary.csv")
    assert summary[summary.oracle == True].method.tolist() == ["gaussian"]  # noqa: E712
    assert "gaussian †" in (output / "summary.md").read_text()


def test_a_dataset_without_clean_images_has_a_row_without_psnr(output):
    assert pd.isna(row(pd.read_csv(output / "summary.csv"), "dvlae-rf40", "no_clean").psnr)
    text = (output / "summary.md").read_text()
    assert "no PSNR" in text and "nan" not in text.lower()


def test_the_best_method_of_a_dataset_is_bold(output):
    assert re.findall(r"\*\*(.+?)\*\*", (output / "summary.md").read_text()) == ["33.00 ± 0.71"]
    assert re.findall(r"textbf\{(.+?)\}", (output / "summary.tex").read_text()) == [r"33.00 $\pm$ 0.71"]


def test_the_second_best_method_of_a_dataset_is_underlined(output):
    assert re.findall(r"<ins>(.+?)</ins>", (output / "summary.md").read_text()) == ["31.00"]
    assert re.findall(r"underline\{(.+?)\}", (output / "summary.tex").read_text()) == ["31.00"]
    assert 'class="second">31.00<' in (output / "summary.html").read_text()


def test_latex_escapes_underscores(output):
    assert r"sem\_line" in (output / "summary.tex").read_text()


def test_receptive_field_table_has_a_row_for_each_receptive_field_in_rising_order(output):
    ablation = pd.read_csv(output / "receptive_field.csv")
    assert ablation[ablation.dataset == "sem_line"].receptive_field.tolist() == [4, 40]


def test_receptive_field_table_of_baselines_alone_is_empty_but_has_its_columns(runs, tmp_path):
    tables.make_tables(runs[:2], tmp_path / "tables")
    assert list(pd.read_csv(tmp_path / "tables" / "receptive_field.csv")) == tables.RECEPTIVE_FIELD_COLUMNS
    assert pd.read_csv(tmp_path / "tables" / "timing.csv").empty


def test_timing_has_a_row_for_each_training(output):
    timing = pd.read_csv(output / "timing.csv")
    assert timing.minutes.tolist() == [2.0, 4.0, 2.0, 2.0]
    assert timing.steps.tolist() == [70] * 4


def test_the_summary_says_which_images_were_trained_on(output):
    summary = pd.read_csv(output / "summary.csv")
    assert row(summary, "dvlae-rf40").trained_on == "evaluated (1 of 2)"
    assert row(summary, "dvlae-rf40", "no_clean").trained_on == "held out (0 of 2)"
    text = (output / "summary.md").read_text()
    assert "Trained on the noisy images that are evaluated: sem_line (1 of 2)." in text
    assert "Trained on other noisy images than the evaluated ones: no_clean (0 of 2)." in text


def test_receptive_field_table_has_the_spread_between_best_and_worst(output):
    ablation = pd.read_csv(output / "receptive_field.csv")
    mine = ablation[ablation.dataset == "sem_line"]
    assert mine.spread.tolist() == [2.0, 2.0]
    assert mine.spread_low.tolist() == [1.5, 1.5], "the image whose difference is smallest, alone"
    assert ablation[ablation.dataset == "no_clean"].spread.isna().all()


def test_a_method_with_another_receptive_field_on_each_dataset_is_a_column_of_its_own(tmp_path):
    training = {"seconds": 120.0, "stopped_by": "max_minutes", "steps": 70, "parameters": 9, "best_val_elbo": -1.5}
    psnr = [write_run(tmp_path, f"noise{field}", "dvlae-auto", field=field, training=training) for field in (4, 8)]
    tables.make_tables([*psnr, write_run(tmp_path, "noise4", "dvlae-rf40", field=40, training=training)], tmp_path)
    lines = (tmp_path / "receptive_field.md").read_text().splitlines()
    heading = next(line for line in lines if "dataset" in line)
    assert [cell.strip() for cell in heading.strip("|").split("|")][1:3] == ["dvlae-auto", "40 px"]


def test_receptive_fields_are_laid_out_against_datasets(output):
    lines = (output / "receptive_field.md").read_text().splitlines()
    assert " ".join(lines[0].split()) == "| dataset | 4 px | 40 px | spread (dB) | 95% interval |"
    assert " ".join(lines[2].split()) == "| sem_line | <ins>31.00</ins> | **33.00** | 2.00 | 1.50 to 2.50 |"


def test_per_image_table_is_the_mean_over_seeds(output):
    table = pd.read_csv(output / "per_image.csv").set_index("image")
    assert table["dvlae-rf40"].to_dict() == {"image 0": 32.5, "image 1": 33.5}


def test_the_comparison_names_the_dataset_in_what_it_logs(runs, tmp_path, caplog):
    caplog.set_level("INFO")
    tables.make_tables(runs, tmp_path / "tables")
    assert "sem_line: 2 images are too few to tell whether dvlae-rf40 is better" in caplog.text


def test_every_two_methods_are_compared_once_the_better_one_first(output):
    table = pd.read_csv(output / "comparisons.csv")
    assert list(zip(table.method, table.other, table.effect, strict=True)) == [
        ("dvlae-rf40", "dvlae-rf4", 2.0),
        ("dvlae-rf40", "gaussian", 3.5),
        ("dvlae-rf40", "noisy", 13.0),
        ("dvlae-rf4", "gaussian", 1.5),
        ("dvlae-rf4", "noisy", 11.0),
        ("gaussian", "noisy", 9.5),
    ]


def test_the_error_over_seeds_is_unknown_of_one_seed_and_none_of_a_baseline(output):
    table = pd.read_csv(output / "comparisons.csv").set_index(["method", "other"]).seed_error
    assert table["dvlae-rf40", "noisy"] == pytest.approx(0.5)
    assert table["gaussian", "noisy"] == 0.0
    assert pd.isna(table["dvlae-rf4", "noisy"])


def write_measured(results, method, psnr, limit, images=8):
    """Write the table of a run with all measures."""
    folder = results / "set" / method / "seed0"
    folder.mkdir(parents=True)
    table = pd.DataFrame({"image": [f"image {i}" for i in range(images)], "psnr": psnr}).assign(
        dataset="set", method=method, receptive_field=None, seed=0, ssim=0.8, psnr_noisy=20.0, si_psnr=31.0,
        ms_ssim=0.9, kept_band=0.21, removed_details=0.05, reference_noise=4.5, psnr_limit=limit,
    )  # fmt: skip
    table[[*PSNR_COLUMNS, *MEASURE_COLUMNS]].to_csv(folder / "psnr.csv", index=False)
    return folder / "psnr.csv"


def test_two_methods_at_the_limit_are_not_called_equal(tmp_path):
    runs = [
        write_measured(tmp_path, "one", [24.5, 24.4, 24.6, 24.4, 24.5, 24.5, 24.6, 24.4], 25.0),
        write_measured(tmp_path, "other", [24.4, 24.5, 24.5, 24.5, 24.4, 24.6, 24.5, 24.5], 25.0),
        write_measured(tmp_path, "far", [21.9, 21.8, 21.9, 21.7, 21.8, 21.9, 21.8, 21.9], 25.0),
    ]
    tables.make_tables(runs, tmp_path / "tables")
    summary = pd.read_csv(tmp_path / "tables/summary.csv")
    assert summary.at_limit.tolist() == [True, True, False]
    verdicts = pd.read_csv(tmp_path / "tables/comparisons.csv").set_index(["method", "other"]).verdict
    assert verdicts.loc[[("one", "other")] if ("one", "other") in verdicts else [("other", "one")]].item() == "limit"
    assert set(verdicts) == {"limit", "better"}
    for name in ("summary", "comparisons"):
        text = (tmp_path / f"tables/{name}.md").read_text()
        assert "| at the reference's limit" in text
        assert "At the reference's limit: " in text


def test_a_limit_far_above_is_given_without_a_remark(tmp_path):
    tables.make_tables([write_measured(tmp_path, "one", 30.0, 33.1)], tmp_path / "tables")
    text = (tmp_path / "tables/summary.md").read_text()
    assert " 33.10 |" in text
    assert "remark" not in text


def test_what_is_measured_beside_the_psnr_has_a_table(tmp_path):
    tables.make_tables([write_measured(tmp_path, "one", 30.0, 33.1)], tmp_path / "tables")
    row = next(line for line in (tmp_path / "tables/measures.md").read_text().splitlines() if line.startswith("| set"))
    cells = [cell.strip(" *") for cell in row.split("|")[1:-1]]
    assert cells == ["set", "one", "30.00", "33.10", "4.5", "31.00", "0.800", "0.900", "0.210", "0.050"]


def test_where_clean_images_hold_no_noise_no_table_speaks_of_a_limit(tmp_path):
    tables.make_tables([write_measured(tmp_path, "one", 30.0, None)], tmp_path / "tables")
    for name in ("summary", "measures"):
        text = (tmp_path / f"tables/{name}.md").read_text()
        assert "limit" not in text and "noise of the clean image" not in text
    assert "SI-PSNR: as CAREamics" in text


def test_tables_of_an_older_version_have_no_limit(output):
    assert "limit (dB)" not in (output / "summary.md").read_text()
    assert pd.read_csv(output / "summary.csv").psnr_limit.isna().all()


def test_oracles_have_no_rank(tmp_path):
    oracle = {"status": "done", "sees": "clean", "oracle": True}
    runs = [
        write_run(tmp_path, "sem", "noisy", 0, (20.0, 22.0)),
        write_run(tmp_path, "sem", "gaussian-oracle", 0, (40.0, 41.0), record=oracle),
    ]
    tables.make_tables(runs, tmp_path / "tables")
    for name in ("summary", "per_image"):
        text = (tmp_path / "tables" / f"{name}.md").read_text()
        assert "gaussian-oracle †" in text
        assert set(re.findall(r"\*\*(.+?)\*\*", text)) <= {"20.00", "21.00", "22.00"}


def test_each_table_is_there_as_csv_markdown_latex_and_html(output):
    for name in ("summary", "receptive_field", "per_image", "comparisons"):
        for suffix in ("csv", "md", "tex", "html"):
            assert (output / f"{name}.{suffix}").stat().st_size > 0


def test_published_figures_stand_beside_ours_with_their_source(tmp_path):
    runs = [write_run(tmp_path, "convallaria", "dvlae-rf40", 0, (32.0, 32.0), 40)]
    published = {
        name: load_dataset(f"config/datasets/{name}.yaml")[1].published for name in ("convallaria", "mito_confocal")
    }
    tables.make_tables(runs, tmp_path / "tables", published=published)
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert summary.psnr.tolist() == [32.0, 32.97]
    text = (tmp_path / "tables" / "summary.md").read_text()
    assert "COSDD ‡" in text and "notebook" in text
    assert re.findall(r"\*\*(.+?)\*\*", text) == ["32.00"], "what others measured has no rank"
    assert pd.read_csv(tmp_path / "tables" / "receptive_field.csv").psnr.tolist() == [32.0]


def test_datasets_without_clean_images_stand_beside_those_with_them(output):
    summary = pd.read_csv(output / "summary.csv")
    assert summary[summary.psnr.isna()].dataset.tolist() == ["no_clean"]
    assert set(pd.read_csv(output / "measures.csv").dataset) == set(summary.dataset)
    assert set(pd.read_csv(output / "methods.csv").dataset) == set(summary.dataset)
    assert "no_clean" in set(pd.read_csv(output / "receptive_field.csv").dataset)
    assert "no_clean" not in set(pd.read_csv(output / "comparisons.csv").dataset), "there is nothing to compare"
    for suffix in ("md", "tex", "html"):
        text = (output / f"summary.{suffix}").read_text()
        assert "Where there is no clean image, there is no PSNR." in text and "nan" not in text


def test_equal_runs_give_equal_bytes(runs, output, tmp_path):
    tables.make_tables(runs, tmp_path / "again")
    for path in output.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_file_that_is_no_psnr_table_is_named(tmp_path):
    (tmp_path / "psnr.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"psnr\.csv: found columns \['a', 'b'\]"):
        tables.make_tables([tmp_path / "psnr.csv"], tmp_path / "tables")
    with pytest.raises(UserError, match=r"missing\.csv"):
        tables.make_tables([tmp_path / "missing.csv"], tmp_path / "tables")


def test_format_summary_lays_out_the_table(output):
    text = tables.format_summary(output)
    assert "**33.00 ± 0.71**" in text and "<ins>" not in text
    table = text.split("\n\n")[0].splitlines()
    assert len({len(line) for line in table}) == 1, "its columns stand below each other"


def test_format_summary_without_tables_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="make the tables first"):
        tables.format_summary(tmp_path)
