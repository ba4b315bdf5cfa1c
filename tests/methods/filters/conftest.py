import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image
from dvlae.evaluation.register import Targets
from dvlae.methods.task import Task

NOISE = 0.3


@pytest.fixture
def make_task(tmp_path):
    """Return a function that makes a task out of pairs of noisy and clean arrays (C, ...); None: no clean image."""

    def make(pairs, mask=None, noise_direction="none", **settings):
        images = []
        for number, (noisy, clean) in enumerate(pairs):
            files = {
                name: None if array is None else tmp_path / name / f"{number}.tif"
                for name, array in (("noisy", noisy), ("clean", clean), ("mask", mask))
            }
            for name, array in (("noisy", noisy), ("clean", clean), ("mask", None if mask is None else mask[None])):
                if array is not None:
                    write_image(files[name], array)
            images.append(Image(f"image {number}", files["noisy"], files["clean"], noisy.shape, mask=files["mask"]))
        return Task(
            images=images,
            targets=Targets(EvaluationSettings(data_range=1)),
            noise_direction=noise_direction,
            block=1,
            noise={},
            settings=settings,
            seed=0,
            minutes=0,
            workers=1,
            device="cpu",
            folder=tmp_path,
        )

    return make


@pytest.fixture
def pairs():
    """Return a function that makes pairs of noisy and clean images: blobs, and noise averaged along x."""

    def make(shape=(1, 60, 50), count=2, kernel=(1,)):
        random = np.random.default_rng(0)
        made = []
        for _ in range(count):
            blobs = ndimage.gaussian_filter(random.normal(size=shape), (0, *[3] * (len(shape) - 1)))
            clean = blobs / max(blobs.std(), 1e-9)
            noise = ndimage.correlate1d(random.normal(size=shape), np.array(kernel), axis=-1)
            noise *= NOISE / noise.std()
            made.append(((clean + noise).astype(np.float32), clean.astype(np.float32)))
        return made

    return make
