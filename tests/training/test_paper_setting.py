"""The paper's setting, with small images, as a processor takes it: it builds, steps, saves and denoises in tiles."""

import numpy as np
import pytest
import torch

from dvlae.config.settings import PredictionSettings, Settings
from dvlae.inference.estimates import denoise
from dvlae.models.dvlae import build_model
from dvlae.models.files import load_model, save_model

PAPER = {
    "model": {"levels": 14, "channels": 128, "latent_channels": 64, "levels_per_scale": 2, "blocks": 2},
    "training": {"patch_size": 256, "optimizer": "adamax", "learning_rate": 0.002, "accumulate": 4},
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    settings = Settings(**PAPER, receptive_fields=[40])
    return build_model(settings, {"mean": [60.0], "std": [20.0], "step": [1.0]}, (256, 256), 40, "x")


def test_it_has_about_the_parameters_that_the_paper_gives(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(25.9e6, rel=0.02)


def test_it_steps(model):
    image = torch.poisson(torch.full((1, 1, 128, 128), 60.0))
    optimizer = torch.optim.Adamax(model.parameters(), lr=0.002 / 100)
    losses = []
    for _ in range(2):
        loss = model.train()(image).loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_it_is_saved_and_denoises_in_tiles_like_whole(model, tmp_path):
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    image = np.random.default_rng(0).poisson(60, (1, 128, 256)).astype(np.float32)
    results = [
        denoise(
            loaded, image, name="a", seed=0, settings=PredictionSettings(samples=1, tile=tile, flips=False, shifts=1)
        )[0]
        for tile in (256, 128)
    ]
    assert np.isfinite(results).all()
    assert np.abs(results[1] - results[0]).max() < 0.01 * image.std()
