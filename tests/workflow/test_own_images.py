"""Images of one's own: in colour, without clean ones, names with spaces; and noise without a direction."""

import json

import imageio.v3 as imageio
import numpy as np
import pytest

from project import SMALL, Project, jobs

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def own(tmp_path_factory, forked):
    project = Project(tmp_path_factory.mktemp("own"))
    folder = project.folder / "my images"
    folder.mkdir()
    for number in (2, 10):
        image = np.random.default_rng(number).integers(0, 256, (64, 48 + number, 3), dtype=np.uint8)
        imageio.imwrite(folder / f"field {number}.png", image)
    project.add_dataset(
        "mine",
        {
            "source": {"kind": "files"},
            "noisy": str(folder / "*.png"),
            "axes": "YXC",
            "noise_direction": "y",
        },
    )
    project.add_dataset("pixelwise", SMALL | {"noise_direction": "none", "simulate": {"photons": 50}})
    project.configure(datasets=["mine", "pixelwise"], baselines=["noisy"], results="my results")
    project.printed = project.snakemake(**forked)
    return project


def denoised(project, pattern):
    return sorted(str(path.relative_to(project.folder / "my results")) for path in project.folder.glob(pattern))


def test_images_are_denoised_under_their_own_names(own):
    folder = "mine/dvlae-rf4/seed0/denoised"
    assert denoised(own, f"my results/{folder}/*.tif") == [f"{folder}/field 10.tif", f"{folder}/field 2.tif"]


def test_noise_without_a_direction_has_one_method(own):
    assert jobs(own.printed)["train"] == 2
    assert len(denoised(own, "my results/pixelwise/dvlae-rf*")) == 1
    assert len(denoised(own, "my results/pixelwise/dvlae-rf0/seed0/denoised/*.tif")) == 3


def test_pictures_are_made_without_clean_images(own):
    assert len(denoised(own, "my results/figures/panel_mine.*")) == 2


def test_noise_is_diagnosed_without_clean_images(own):
    found = json.loads((own.folder / "my results/figures/noise_mine.json").read_text())
    assert (found["basis"], found["configured_direction"]) == ("estimate", "y")


def test_an_added_image_is_taken_up(own):
    first = own.folder / "my images/field 2.png"
    imageio.imwrite(first.with_name("field 3.png"), imageio.imread(first)[:, ::-1])
    planned = own.planned()
    assert planned["prepare"] == 1
    assert planned["train"] == 1
