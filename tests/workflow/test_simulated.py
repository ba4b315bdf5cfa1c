"""One small grid, from simulated noise to figures; then what happens when it is run again, with changes."""

import csv
import shutil
import subprocess

import pytest

from browser import look
from dvlae.system.hardware.devices import processor_name
from project import BIN, SMALL, TINY, Project, jobs

pytestmark = pytest.mark.workflow


# Opens every entry of every category of a report; a picture counts once it is drawn, a page once it holds a table.
OPEN_EVERYTHING = """
  const found = {};
  await wait(500);
  for (const category of Object.keys(categories)) {
    [...document.querySelectorAll("li a")].find((link) => link.textContent.trim() === category).click();
    await wait(200);
    for (const row of [...document.querySelectorAll("tbody tr").keys()]) {
      const cells = [...document.querySelectorAll("tbody tr")[row].cells];
      const link = cells.at(-1).querySelector("a");
      const entry = [category, ...cells.slice(0, -1).map((cell) => cell.textContent)].join(" / ");
      if (link.download) { found[entry] = "file"; continue; }
      link.click();
      await wait(200);
      const picture = document.querySelector("div.grow.h-screen img"), page = document.querySelector("iframe");
      if (picture) found[entry] = picture.naturalWidth > 500 ? "picture" : "broken";
      else found[entry] = atob(page.src.split(",")[1]).includes("<table") ? "table" : "broken";
    }
    document.querySelector("nav li a").click();
    await wait(200);
  }
  return found;
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Run two receptive fields and one seed from nothing. The tests leave it as it was, but for the last ones."""
    project = Project(tmp_path_factory.mktemp("grid"))
    project.configure(receptive_fields=[4, 40])
    project.printed = project.snakemake()
    return project


def rows(project, table):
    return list(csv.DictReader(project.read(f"tables/{table}.csv").decode().splitlines()))


def test_patches_are_cut_once_for_all_receptive_fields(grid):
    assert jobs(grid.printed) == {
        "simulate": 1,
        "prepare": 1,
        "register": 1,
        "extract_patches": 1,
        "train": 2,
        "predict": 2,
        "run_method": 2,
        "evaluate": 4,
        "tables": 1,
        "figures": 1,
        "diagnose": 1,
    }


def test_each_image_is_denoised_by_each_method(grid):
    images = ["camera.tif", "coins.tif", "moon.tif"]
    for method in ["dvlae-rf4", "dvlae-rf40", "noisy", "gaussian"]:
        folder = f"small/{method}/seed0/denoised"
        found = ["the-noisy-images.txt"] if method == "noisy" else images
        assert grid.files(f"{folder}/*") == [f"{folder}/{name}" for name in found]
    assert len(grid.files("small/dvlae-rf*/seed0/uncertainty/*.tif")) == 6


def test_the_summary_has_a_row_for_each_method(grid):
    assert [row["method"] for row in rows(grid, "summary")] == ["dvlae-rf4", "dvlae-rf40", "noisy", "gaussian"]
    assert len(rows(grid, "psnr")) == 4 * 3


def test_the_ablation_has_a_row_for_each_receptive_field(grid):
    assert [row["receptive_field"] for row in rows(grid, "receptive_field")] == ["4", "40"]


def test_each_figure_is_there_as_png_and_svg(grid):
    names = [
        "calibration_small",
        "kl_per_level_small",
        "noise_small",
        "paired_psnr_small",
        "panel_small",
        "quality_over_time",
        "receptive_field",
        "removed_noise_small",
        "side_by_side_small",
        "spectra_small",
        "training_curves_small",
    ]
    assert grid.files("figures/*.[ps]*g") == [f"figures/{name}.{ext}" for name in names for ext in ("png", "svg")]


def test_each_job_has_a_log_and_a_benchmark(grid):
    logs = {path.removeprefix("logs/").removesuffix(".log") for path in grid.files("logs/**/*")}
    benchmarks = {path.removeprefix("benchmarks/").removesuffix(".tsv") for path in grid.files("benchmarks/**/*")}
    assert logs == benchmarks
    assert len(logs) == sum(jobs(grid.printed).values())


def test_each_model_says_how_it_was_made(grid):
    run = grid.json("small/dvlae-rf40/seed0/model/run.json")
    assert (run["steps"], run["stopped_by"], run["device"]) == (5, "max_steps", processor_name())
    assert run["settings"]["model"]["channels"] == 8
    assert run["versions"]["torch"]


def test_unfinished_training_is_cleared_away(grid):
    assert grid.files("**/checkpoints/**/*") == []


def test_running_again_does_nothing(grid):
    assert "Nothing to be done" in grid.snakemake()


def test_a_report_can_be_made(grid):
    grid.snakemake("--report", "report.zip")
    assert (grid.folder / "report.zip").stat().st_size > 1e5


def test_every_table_and_figure_opens_in_the_report(grid):
    grid.snakemake("--report", "report.html")
    found = look(grid.folder / "report.html", OPEN_EVERYTHING)
    kinds = [*found.values()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"table": 6, "picture": 11, "file": 2}, found


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table_byte_for_byte(grid):
    table = "small/dvlae-rf4/seed0/psnr.csv"
    before = grid.read(table)
    shutil.rmtree(grid.folder / "results/small/dvlae-rf4/seed0")
    grid.snakemake(f"results/{table}")
    grid.snakemake()
    assert grid.read(table) == before


def changed(**changes):
    return {"receptive_fields": [4, 40], **changes}


EVERY_EVALUATION = {"register": 1, "run_method": 2, "evaluate": 4, "diagnose": 1, "tables": 1, "figures": 1}
EVERY_MODEL = {"train": 2, "predict": 2, "evaluate": 2, "tables": 1, "figures": 1}


@pytest.mark.parametrize(
    "changes, what_runs",
    [
        ({"device": "auto"}, {}),
        ({"data_mirror": "/somewhere"}, {}),
        ({"tensorboard": True}, {}),
        ({"training": TINY["training"] | {"workers": 2}}, {}),
        ({"prediction": {"samples": 2, "tile": 64, "batch_size": 1}}, {}),
        ({"prediction": {"samples": 3}}, {"predict": 2, "evaluate": 2, "tables": 1, "figures": 1}),
        ({"prediction": {"samples": 2, "save_samples": 1}}, {"predict": 2, "evaluate": 2, "tables": 1, "figures": 1}),
        ({"model": {"levels": 2, "channels": 6, "latent_channels": 4}}, EVERY_MODEL),
        ({"receptive_fields": [4]}, {"tables": 1, "figures": 1}),
    ],
    ids=str,
)
def test_a_changed_setting_reruns_what_it_matters_to(grid, changes, what_runs):
    grid.configure(**changed(**changes))
    try:
        assert grid.planned() == what_runs
    finally:
        grid.configure(**changed())


@pytest.mark.parametrize(
    "changes, what_runs",
    [
        ({"title": "Small", "license": "MIT"}, {}),
        ({"evaluation": {"data_range": 255, "border": 8}}, EVERY_EVALUATION),
        ({"evaluation": {"data_range": 255, "register": True}}, EVERY_EVALUATION),
    ],
    ids=str,
)
def test_a_changed_dataset_reruns_what_it_matters_to(grid, changes, what_runs):
    grid.add_dataset("small", SMALL | changes)
    try:
        assert grid.planned() == what_runs
    finally:
        grid.add_dataset("small", SMALL)


def test_an_added_seed_trains_only_itself(grid, forked):
    """After the others: it makes the grid larger."""
    weights = "small/dvlae-rf40/seed0/model/weights.safetensors"
    before = (grid.folder / "results" / weights).stat().st_mtime_ns
    grid.configure(**changed(seeds=[0, 1], tensorboard=True))
    printed = grid.snakemake(**forked)
    assert jobs(printed) == {"train": 2, "predict": 2, "evaluate": 2, "tables": 1, "figures": 1}
    assert (grid.folder / "results" / weights).stat().st_mtime_ns == before
    summary = {row["method"]: row for row in rows(grid, "summary")}
    assert summary["dvlae-rf40"]["seeds"] == "2"
    assert summary["noisy"]["seeds"] == "1"
    assert len(grid.files("small/dvlae-rf*/seed1/tensorboard/events.*")) == 2


def test_status_tells_of_the_finished_grid(grid):
    words = [str(BIN / "dvlae"), "status"]
    printed = subprocess.run(words, cwd=grid.folder, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("results: 6 of 6 runs finished, 0 running, 0 failed, 0 waiting\n")
    words += ["--config", "seeds=[0, 1, 2]"]
    printed = subprocess.run(words, cwd=grid.folder, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("results: ") and ", 2 waiting" in printed.partition("\n")[0]


def test_without_patches_the_finished_grid_stays_finished(grid):
    words = [str(BIN / "dvlae"), "clean", "--patches", "--remove"]
    subprocess.run(words, cwd=grid.folder, check=True)
    assert grid.files("small/patches/*") == []
    assert "Nothing to be done" in grid.snakemake()


def test_a_large_grid_is_planned_whole(project):
    for number in range(8):
        project.add_dataset(f"set{number}", SMALL)
    project.configure(
        datasets=[f"set{number}" for number in range(8)],
        receptive_fields=[4, 8, 14, 20, 28, 40, 80],
        seeds=[0, 1, 2, 3, 4],
    )
    assert project.planned()["train"] == 8 * 7 * 5
