import json

import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.data.outputs.reading import read_output
from dvlae.methods.run import run_method

CHANNELS = 2


@pytest.fixture
def make_images(tmp_path):
    def make(with_clean=True):
        random = np.random.default_rng(0)
        folder, rows = tmp_path / "images", []
        for i in range(2):
            clean = 5 * ndimage.gaussian_filter(random.normal(size=(CHANNELS, 60, 50 + i)), (0, 4, 4))
            image = Image(
                f"b {i}", folder / f"b {i}.tif", folder / f"clean {i}.tif" if with_clean else None, clean.shape
            )
            write_image(image.noisy, clean + 0.3 * random.normal(size=clean.shape))
            if with_clean:
                write_image(image.clean, clean)
            rows.append(image)
        write_manifest(folder, rows)
        return folder

    return make


@pytest.fixture
def denoise():
    """Return a function that denoises images with a method; it returns the estimates by their names."""

    def run(method, images):
        output = images.parent / "run" / "denoised"
        run_method(method, images, output, settings=EvaluationSettings(data_range=1), cores=1)
        return {image.name: read_output(output, image) for image in read_manifest(images)}

    return run


@pytest.fixture
def description():
    """Return a function that reads the record of a method."""
    return lambda images: json.loads((images.parent / "run" / "method.json").read_text())
