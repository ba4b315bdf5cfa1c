"""File names of all kinds go through the whole workflow."""

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from project import Project

pytestmark = pytest.mark.workflow

NAMES = [
    "two words",
    "-dash",
    "--output",
    "it's",
    'a "quoted" one',
    "new\nline",
    "größe µm 画像",
    "$HOME `id` $(id)",
    "a{b}{wildcards.dataset}",
    "50 % & more; #1, [x]* ?",
    "cost $x^2$ \\frac",
    "NA",
    "|pipe|",
]


@pytest.fixture(scope="module")
def named(tmp_path_factory, forked):
    project = Project(tmp_path_factory.mktemp("named"))
    folder = project.folder / "my 'odd' images"
    for kind in ("noisy", "clean"):
        (folder / kind).mkdir(parents=True)
        for number, name in enumerate(NAMES):
            image = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
            imageio.imwrite(folder / kind / f"{name}.png", image)
    project.add_dataset(
        "odd",
        {
            "source": {"kind": "files"},
            "noisy": str(folder / "noisy/*.png"),
            "clean": str(folder / "clean/*.png"),
            "axes": "YX",
            "noise_direction": "x",
        },
    )
    project.configure(datasets=["odd"], baselines=["noisy"], results="my 'odd' results")
    project.snakemake("--cores", "1", **forked)
    return project.folder / "my 'odd' results"


def test_each_image_is_denoised_under_its_own_name(named):
    found = {path.name for path in (named / "odd/dvlae-rf4/seed0/denoised").glob("*.tif")}
    assert found == {f"{name}.tif" for name in NAMES}


def test_each_image_is_measured_under_its_own_name(named):
    table = pd.read_csv(named / "tables/psnr.csv", keep_default_na=False)
    assert sorted(table[table.method == "noisy"].image) == sorted(NAMES)


def test_nothing_is_written_elsewhere(named):
    written = {path.name for path in named.parent.iterdir()}
    assert written == {".snakemake", "config", "my 'odd' images", "my 'odd' results"}
