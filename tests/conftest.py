"""What several test modules need."""

import os

# Two threads that wait for each other in tiny networks take fifty times as long where other processes want the cores.
# Before torch is imported; the jobs of a real run of the workflow get their number of threads from Snakemake.
os.environ["OMP_NUM_THREADS"] = "1"

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import DatasetSettings
from dvlae.config.messages import validate
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image, write_manifest
from dvlae.system import arrays
from skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401


@pytest.fixture
def small_bands(monkeypatch):
    """Return a function after which small images are treated as very large ones: in files, and a few rows at a time."""

    def start(values=2000):
        monkeypatch.setattr(arrays, "BAND_VALUES", values)
        monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 4 * values)

    return start


@pytest.fixture
def dataset():
    """Return a function that makes a dataset's settings out of a few keys."""

    def make(**keys) -> DatasetSettings:
        usual = {"source": {"kind": "files"}, "noisy": "*.tif", "axes": "YX", "noise_direction": "x"}
        return validate(DatasetSettings, usual | keys, "dataset")

    return make


@pytest.fixture
def images_folder(tmp_path):
    """Return a function that makes a folder of canonical images out of arrays (C, Y, X)."""

    def make(**arrays):
        folder = tmp_path / "images"
        rows = []
        for name, array in arrays.items():
            array = np.asarray(array, dtype=np.float32)
            write_image(folder / "noisy" / f"{name}.tif", array)
            rows.append(Image(name, folder / "noisy" / f"{name}.tif", None, array.shape))
        write_manifest(folder, rows)
        return folder

    return make


@pytest.fixture
def weak_bm3d(monkeypatch):
    """Replace the optional package: what it filters, it filters with a Gaussian of ``sigma`` pixels."""
    package = SimpleNamespace(
        BM3DProfile=SimpleNamespace, bm3d=lambda image, sigma, profile: ndimage.gaussian_filter(image, sigma)
    )
    monkeypatch.setitem(sys.modules, "bm3d", package)
    monkeypatch.setitem(sys.modules, "bm4d", SimpleNamespace(np=np))
    return package
