import math

import numpy as np
import pytest
import tifffile

from dvlae.api.forecast.extent import Extent
from dvlae.config.settings import Settings
from dvlae.data.prepare import prepare


@pytest.fixture
def settings(tmp_path):
    return Settings(results=str(tmp_path / "results"), data=str(tmp_path))


def test_what_a_dataset_states_is_taken_where_its_files_are_not_here(settings, dataset):
    stated = dataset(
        noisy="nowhere/*.tif", axes="TYX", size={"images": 7, "sides": [40, 60]}, crop={"y": [2, 30], "x": None}
    )
    assert Extent.find("mine", stated, settings) == Extent((1, 28, 60), 7, 7 * 28 * 60)
    assert Extent.find("mine", dataset(noisy="nowhere/*.tif"), settings) is None


def test_files_are_counted_frame_by_frame_and_prepared_images_as_they_are(settings, dataset, tmp_path):
    random = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "a.tif", random.poisson(50, (3, 32, 40)).astype(np.uint16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", random.poisson(50, (1, 24, 40)).astype(np.uint16), photometric="minisblack")
    mine = dataset(noisy="*.tif", axes="TYX", size={"images": 99, "sides": [9, 9]})
    found = Extent.find("mine", mine, settings)
    assert found == Extent((1, 32, 40), 4, 3 * 32 * 40 + 24 * 40)
    prepare(mine, tmp_path, None, tmp_path / "results/mine/images")
    for file in tmp_path.glob("*.tif"):
        file.unlink()
    assert Extent.find("mine", mine, settings) == found


def test_simulated_frames_count_each(settings, dataset, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(32 * 40, dtype=np.uint16).reshape(32, 40))
    simulated = dataset(noisy="*.tif", axes="YX", simulate={"frames": 5})
    assert Extent.find("mine", simulated, settings).images == 5


def test_files_of_which_some_are_not_downloaded_yet_are_not_counted(settings, dataset, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(32 * 40, dtype=np.uint16).reshape(32, 40))
    (tmp_path / "r.csv").write_text("file,sha256,url\na.tif,,http://localhost/a\nb.tif,,http://localhost/b\n")
    source = {"kind": "download", "registry": str(tmp_path / "r.csv")}
    stated = dataset(source=source, noisy="*.tif", axes="YX", size={"images": 2, "sides": [32, 40]})
    assert Extent.find("mine", stated, settings).images == 2


@pytest.mark.parametrize(
    ("images", "expected"), [("all", 79), ("-8:", 8), ("::2", 40), (["a", "b"], 2), ("names.txt", 79)]
)
def test_the_images_that_are_evaluated_are_counted(dataset, images, expected):
    assert Extent((1, 8, 8), 79, 79 * 64).evaluated(dataset(evaluation={"images": images})) == expected


def test_patches_are_as_large_as_those_that_are_cut():
    crop, patch = Extent((1, 100, 300), 1, 30000).patch(Settings())
    assert (crop, patch) == ((64, 64), (100, 128))
    crop, patch = Extent((1, 5, 300), 1, 1500).patch(Settings())
    assert crop[0] == 5 and math.prod(patch) == 5 * 128
