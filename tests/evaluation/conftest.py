import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture
def clean():
    random = np.random.default_rng(0)
    return ndimage.gaussian_filter(random.normal(size=(2, 150, 170)), (0, 2, 2)).astype(np.float32) * 20  # (C, Y, X)


@pytest.fixture
def weak_bm3d(monkeypatch):
    """Replace the optional package: what it filters, it filters with a Gaussian of ``sigma`` pixels."""
    package = SimpleNamespace(
        BM3DProfile=SimpleNamespace, bm3d=lambda image, sigma, profile: ndimage.gaussian_filter(image, sigma)
    )
    monkeypatch.setitem(sys.modules, "bm3d", package)
    return package
