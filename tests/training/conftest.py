import json

import numpy as np
import pytest
import tifffile


@pytest.fixture
def patches(tmp_path):
    """Return a function that makes a folder of patches (N, C, 32, 32) with Poisson noise."""

    def make(channels: int = 1, transform=lambda array: array, validation: int = 2):
        folder = tmp_path / "patches"
        folder.mkdir()
        random = np.random.default_rng(0)
        arrays = {
            name: transform(random.poisson(80, (n, channels, 32, 32)).astype("f4"))
            for name, n in (("train", 6), ("val", validation))
        }
        for name, array in arrays.items():
            tifffile.imwrite(folder / f"{name}.tif", array, photometric="minisblack")
        statistics = {"mean": [80.0] * channels, "std": [9.0] * channels, "step": [1.0] * channels}
        (folder / "patches.json").write_text(json.dumps(statistics | {"sha256": {"train": "a", "val": "b"}}))
        return folder

    return make
