"""A few pixels or one frame decide nothing for the rest: the PSNR after a short training, with and without them."""

import math

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from dvlae.config.messages import validate
from dvlae.config.settings import PatchSettings, PredictSettings, Settings, TrainSettings
from dvlae.data.patches import extract_patches
from dvlae.data.prepare import prepare
from dvlae.inference.prediction import predict
from dvlae.training.train import train

pytestmark = pytest.mark.slow

SETTINGS = validate(Settings, {"training": {"max_steps": 300, "max_minutes": None}, "prediction": {"samples": 4}}, "")
SIGNAL_RANGE = 200


def pairs():
    """Return noisy images and their signals."""
    random = np.random.default_rng(3)
    for _ in range(4):
        signal = ndimage.gaussian_filter(random.random((160, 160)), 3)
        signal = 100 + SIGNAL_RANGE * (signal - signal.min()) / np.ptp(signal)
        yield random.poisson(signal).astype(np.uint16), signal


def errors(folder, dataset, images):
    """Return the error of the estimate of each image."""
    for number, (noisy, _) in enumerate(images):
        tifffile.imwrite(folder / f"{number}.tif", noisy)
    settings = dataset()
    prepare(settings, folder, None, folder / "images")
    extract_patches(folder / "images", folder / "patches", PatchSettings.of(SETTINGS, settings))
    train(
        folder / "patches",
        folder / "model",
        receptive_field=40,
        noise_direction="x",
        seed=0,
        checkpoints=None,
        settings=TrainSettings.of(SETTINGS),
    )
    outputs = folder / "denoised", folder / "uncertainty"
    predict(folder / "model", folder / "images", *outputs, seed=0, settings=PredictSettings.of(SETTINGS))
    estimates = (tifffile.imread(outputs[0] / f"{number}.tif") for number in range(len(images)))
    return np.stack([estimate - signal for estimate, (_, signal) in zip(estimates, images, strict=True)])


def psnr(error):
    return 10 * math.log10(SIGNAL_RANGE**2 / np.mean(error**2))


@pytest.mark.parametrize("value", [4095, 65535])
@pytest.mark.parametrize("count", [5, 20])
def test_hot_pixels_change_nothing_around_them_and_are_estimated(tmp_path, dataset, count, value):
    random, images, hot = np.random.default_rng(4), [], np.zeros((4, 160, 160), bool)
    for number, (noisy, signal) in enumerate(pairs()):
        hot[number].flat[random.integers(0, noisy.size, count)] = True
        images.append((np.where(hot[number], value, noisy).astype(np.uint16), signal))
    found = errors(tmp_path, dataset, images)
    assert psnr(found[~hot]) > 34.5
    assert psnr(found[hot]) > 30


@pytest.mark.parametrize("gain", [150, 600])
def test_one_bright_or_overexposed_frame_changes_nothing_for_the_others(tmp_path, dataset, gain):
    (*rest, (noisy, signal)) = pairs()
    bright = (noisy.astype(int) * gain).clip(0, 65535).astype(np.uint16)
    assert psnr(errors(tmp_path, dataset, [*rest, (bright, signal)])[:3]) > 34.5


def test_a_saturated_object_changes_nothing_around_it(tmp_path, dataset):
    images = list(pairs())
    for noisy, _ in images:
        noisy[40:70, 50:80] = 65535
    found = errors(tmp_path, dataset, images)
    found[:, 40:70, 50:80] = 0
    assert psnr(found) > 34
