"""Volumes with noise across their planes, and traces of two channels, from clean files to tables and pictures."""

import csv
import math

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.reading import read_output
from project import Project, jobs

pytestmark = pytest.mark.workflow

KERNEL = [1.0, 0.6, 0.36]


def blobs(*shape) -> np.ndarray:
    """Return a smooth random image, 0 to 1."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(shape).normal(size=shape), 3)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.fixture(scope="module")
def spatial(tmp_path_factory, forked):
    project = Project(tmp_path_factory.mktemp("spatial"))
    (project.folder / "data").mkdir()
    tifffile.imwrite(project.folder / "data/volume.tif", blobs(24, 32, 40), photometric="minisblack")
    traces = np.stack([[blobs(400), blobs(401)[:400]], [blobs(402)[:400], blobs(403)[:400]]])
    tifffile.imwrite(project.folder / "data/traces.tif", traces, photometric="minisblack")
    usual = {"source": {"kind": "files"}, "simulate": {"kernel": KERNEL, "bits": None}}
    project.add_dataset("volume", usual | {"noisy": "volume.tif", "axes": "ZYX", "noise_direction": "z"})
    project.add_dataset("traces", usual | {"noisy": "traces.tif", "axes": "SCX", "noise_direction": "x"})
    project.configure(
        datasets=["volume", "traces"],
        baselines=["noisy"],
        training={"patch_size": 16, "batch_size": 2, "max_steps": 5, "max_minutes": None},
    )
    project.printed = project.snakemake(**forked)
    return project


def test_both_are_trained_denoised_measured_and_drawn(spatial):
    ran = jobs(spatial.printed)
    assert (ran["train"], ran["predict"], ran["evaluate"]) == (2, 2, 4)
    plotted = {path.removesuffix(".png").removeprefix("figures/") for path in spatial.files("figures/*.png")}
    assert {f"{kind}_{name}" for kind in ("panel", "removed_noise") for name in ("volume", "traces")} <= plotted


def test_estimates_and_their_deviations_have_the_shape_of_the_noisy_images(spatial):
    for name, shapes in (("volume", [(1, 24, 32, 40)]), ("traces", [(2, 400), (2, 400)])):
        folder = spatial.folder / "results" / name
        for image, shape in zip(read_manifest(folder / "images"), shapes, strict=True):
            for kind in ("denoised", "uncertainty"):
                estimate = read_output(folder / "dvlae-rf4/seed0" / kind, image, deviation=kind == "uncertainty")
                assert image.shape == estimate.shape == shape
                assert np.isfinite(estimate).all()


def test_measurements_are_finite(spatial):
    rows = list(csv.DictReader(spatial.read("tables/psnr.csv").decode().splitlines()))
    assert len(rows) == 2 * (1 + 2)
    assert all(math.isfinite(float(row[column])) for row in rows for column in ("psnr", "ssim", "psnr_noisy"))


def test_a_list_of_sides_must_fit_every_dataset(spatial):
    spatial.configure(datasets=["volume", "traces"], training={"patch_size": [8, 16, 16]})
    printed = spatial.snakemake("--dry-run", fails=True)
    assert "training.patch_size: found [8, 16, 16], allowed: a number, or 1 sides [x]" in printed
