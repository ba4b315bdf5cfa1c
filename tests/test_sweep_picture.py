"""`docs/pictures/sweep.py` draws where our own method pays."""

import importlib.util

import pandas as pd
import pytest

from dvlae.config.dataset import DatasetSettings
from dvlae.config.loading import load_settings
from project import REPOSITORY

SPEC = importlib.util.spec_from_file_location("sweep", REPOSITORY / "docs/pictures/sweep.py")
sweep = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sweep)


@pytest.fixture(scope="module")
def dataset():
    return load_settings(DatasetSettings, sweep.DATASET)


@pytest.fixture(scope="module")
def compared(dataset):
    """Return the comparison of a made-up table, in which ours gains with the correlation length, one dB each."""
    rows = []
    for place, name in enumerate(dataset.members("sweep")):
        ours = 25.0 + place // len(dataset.sweep.photons)
        psnr = {
            "dvlae-refined": ours,
            "dvlae-auto": 50.0,
            "bm3d-psd": 26.5,
            "structn2v": 20.0,
            "noisy": 99.0,
            "bm3d-oracle": 99.0,
        }
        rows += [(name, method, value, method == "bm3d-oracle") for method, value in psnr.items()]
    summary = pd.DataFrame(rows, columns=["dataset", "method", "psnr", "oracle"])
    means = summary.pivot(index="dataset", columns="method", values="psnr")
    # One image of four carries the mean of ours, so that ours is ahead on that one alone, or on all four.
    offsets = pd.Series({"dvlae-refined": 0.9}).reindex(means.columns, fill_value=0.0)
    images = pd.concat([means - offsets] * 3 + [means + 3 * offsets]).reset_index()
    return sweep.compare(summary, images)


def test_the_gain_is_over_the_best_other_method_that_is_no_oracle(compared, dataset):
    cells = compared.loc[list(dataset.members("sweep"))]
    assert cells.gain.tolist() == [-1.5, -1.5, -0.5, -0.5, 0.5, 0.5, 1.5, 1.5]
    assert cells.best.tolist() == ["bm3d-psd"] * 4 + ["dvlae-refined"] * 4


def test_each_cell_names_the_best_method_and_the_gain_at_its_place(compared, dataset):
    axes = sweep.draw(compared, dataset).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    lengths, photons = (axes.get_xticklabels(), axes.get_yticklabels())
    assert [label.get_text() for label in lengths] == ["0", "1", "4", "16"]
    assert [label.get_text() for label in photons] == ["10", "100"]
    assert texts[0, 0] == texts[0, 1] == "bm3d-psd\n−1.50 dB\nbetter on 3 of 4"
    assert texts[2, 0] == "dvlae-refined\n+0.50 dB\nbetter on 1 of 4"
    assert texts[3, 1] == "dvlae-refined\n+1.50 dB\nbetter on 4 of 4"
