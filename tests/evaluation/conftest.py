import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture
def clean():
    random = np.random.default_rng(0)
    return ndimage.gaussian_filter(random.normal(size=(2, 150, 170)), (0, 2, 2)).astype(np.float32) * 20  # (C, Y, X)
