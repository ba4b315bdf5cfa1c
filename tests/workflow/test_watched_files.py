"""An image that is added or changed is prepared again, however the dataset names it."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.workflow

IMAGES = "results/own/images"


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(seed).poisson(50, (96, 96)).astype(np.uint16))
    return path


@pytest.fixture
def prepared(project):
    """Return a function that prepares images named by a pattern, and one that says whether that is planned again."""

    def prepare(noisy: str | list[str], keys: dict[str, str] | None = None, **environment: str):
        dataset = {"source": {"kind": "files"}, "noisy": noisy, "noise_direction": "x", **(keys or {})}
        project.add_dataset("own", dataset)
        project.configure(datasets=["own"], data=".")
        project.snakemake(IMAGES, **environment)

        def again() -> bool:
            printed = project.snakemake("--dry-run", IMAGES, **environment)
            assert ("Nothing to be done" in printed) != ("rule prepare" in printed)
            return "rule prepare" in printed

        assert not again()
        return again

    return prepare


PATTERNS = {
    "all folders below": "scans/**/*.tif",
    "the home folder": "~/scans/day 1/*.tif",
    "a folder": "scans/day 1",
}


@pytest.mark.parametrize("noisy", PATTERNS.values(), ids=PATTERNS.keys())
def test_added_and_changed_images_are_noticed(project, prepared, noisy):
    folder = project.folder / "scans/day 1"
    write(folder / "a.tif"), write(folder / "b.tif")
    again = prepared(noisy, HOME=str(project.folder))
    added = write(folder / "c.tif")
    assert again()
    added.unlink()
    assert not again()
    write(folder / "a.tif", seed=1)
    assert again()


def test_a_changed_mask_is_noticed(project, prepared):
    write(project.folder / "scans/a.tif")
    mask = write(project.folder / "mask.tif")
    again = prepared("scans/*.tif", {"mask": "mask.tif"})
    write(mask, seed=1)
    assert again()


def test_a_changed_clean_image_is_noticed(project, prepared):
    write(project.folder / "noisy/a.tif")
    clean = write(project.folder / "clean/pos 1/a.tif", seed=1)
    again = prepared("noisy/*.tif", {"clean": "clean/**/*.tif"})
    write(clean, seed=2)
    assert again()


def test_a_changed_image_behind_a_symbolic_link_is_noticed(project, prepared):
    original = write(project.folder / "elsewhere/a.tif")
    (project.folder / "scans").mkdir()
    (project.folder / "scans/a.tif").symlink_to(original)
    again = prepared("scans/*.tif")
    write(original, seed=1)
    assert again()


def test_a_changed_image_with_braces_in_its_name_is_noticed(project, prepared):
    image = write(project.folder / "scans/a{dataset}.tif")
    again = prepared("scans/*.tif")
    write(image, seed=1)
    os.utime(image, (0, 0))
    assert again()
