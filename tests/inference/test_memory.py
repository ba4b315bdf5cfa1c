"""Predictions that go on where the memory of a GPU is short."""

import numpy as np
import pytest
import tifffile
import torch

import dvlae.inference.prediction
from dvlae.config.messages import validate
from dvlae.config.settings import PredictionSettings, PredictSettings
from dvlae.inference.prediction import predict
from dvlae.inference.samples import halve_portions
from dvlae.models.files import save_model
from dvlae.system.errors import UserError
from untrained import build, noisy


def run(tmp_path, images, name, **prediction):
    save_model(build(direct_denoiser="mean"), tmp_path)
    settings = validate(PredictSettings, {"prediction": prediction, "device": "cpu"}, "test")
    predict(tmp_path, images, tmp_path / name / "denoised", tmp_path / name / "uncertainty", seed=0, settings=settings)
    return [tifffile.imread(tmp_path / name / "denoised" / f"{image}.tif") for image in "ab"]


@pytest.mark.parametrize("estimator, function", [("mmse", "denoise_images"), ("direct", "denoise_images_directly")])
def test_batches_and_then_tiles_are_halved_and_the_result_is_the_same(
    tmp_path, images_folder, monkeypatch, caplog, estimator, function
):
    images = images_folder(a=noisy(20, 30), b=noisy(64, 70))
    expected = run(tmp_path, images, "enough", estimator=estimator, samples=4)
    real, tried = getattr(dvlae.inference.prediction, function), []

    def estimate(network, noisy, *, settings, **options):
        for found in real(network, noisy, settings=settings, **options):
            estimate = found if estimator == "direct" else found[0]
            if estimate.shape == (1, 64, 70):
                tried.append((settings.batch_size, settings.tile))
                if settings.tile == "auto" or settings.tile > 40:
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            yield found

    monkeypatch.setattr(dvlae.inference.prediction, function, estimate)
    found = run(tmp_path, images, "short", estimator=estimator, samples=4)
    for image, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(image, other, rtol=1e-4, atol=1e-3)
    batches = {"mmse": [("auto", "auto"), (2, 72), (1, 72), (1, 32)], "direct": [("auto", "auto"), (1, 32)]}
    assert tried == batches[estimator]
    lines = [
        record.message for record in caplog.records if "memory of the GPU does not suffice for b" in record.message
    ]
    assert len(lines) == len(tried) - 1
    assert "goes on with 1 samples at once of tiles of 32 pixels" in lines[-1]


def test_a_tile_as_small_as_can_be_is_the_end():
    settings = PredictionSettings(batch_size=1, tile=16)
    with pytest.raises(UserError, match="does not suffice for a tile of 16 pixels"):
        halve_portions(build(), (1, 64, 64), settings)
