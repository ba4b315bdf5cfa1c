import numpy as np
import pytest

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_noisy, write_image
from dvlae.data.manifest import Image
from dvlae.evaluation.metrics import psnr
from dvlae.evaluation.register import Targets
from dvlae.methods.task import Task
from noisy_images import noise, scene


@pytest.fixture
def pairs(tmp_path):
    """Return a function that makes images with strong noise, each with its clean one, if there are any."""

    def make(count=4, frames=1, shape=(1, 64, 72), along="x", with_clean=True):
        images = []
        for number in range(count):
            clean = np.stack([scene(10 * number + channel, shape[1:]) for channel in range(shape[0])])
            path = tmp_path / f"clean {number}.tif" if with_clean else None
            if with_clean:
                write_image(path, clean.astype(np.float32))
            for frame in range(frames):
                noisy = clean + [
                    40 * noise(1000 * number + 10 * frame + channel, shape[1:], along) for channel in range(shape[0])
                ]
                name = f"image {number} {frame}"
                write_image(tmp_path / f"{name}.tif", noisy.astype(np.float32))
                images.append(Image(name, tmp_path / f"{name}.tif", path, shape))
        return images

    return make


@pytest.fixture
def make_task(tmp_path):
    """Return a function that makes a task out of images and a few keys; its noise is correlated up to 6 pixels."""

    def make(images, *, evaluation=None, **keys):
        usual = {
            "targets": Targets(evaluation or EvaluationSettings(data_range=150)),
            "noise_direction": "x",
            "block": 1,
            "noise": {
                "direction": "x",
                "correlation_length": 5,
                "reason": None,
                "autocorrelation": {"x": [0.6**lag for lag in range(12)], "y": [1.0, 0.0]},
            },
            "settings": {},
            "seed": 0,
            "minutes": 1.0,
            "workers": 1,
            "device": "cpu",
            "folder": tmp_path,
        }
        return Task(images, **usual | keys)

    return make


@pytest.fixture
def gain():
    """Return a function that returns by how many decibels a fitted method improves images, on average."""

    def mean_gain(task, fitted):
        gains = []
        for image in task.images:
            noisy = read_noisy(image)
            target = task.targets.target(image, noisy)
            gains.append(target.psnr(fitted.denoise(image)) - psnr(target.clean, target.noisy, data_range=150))
        return np.mean(gains)

    return mean_gain
