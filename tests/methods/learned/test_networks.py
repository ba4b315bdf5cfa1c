import numpy as np
import pytest
import torch

from dvlae.config.sizes.patch_size import level_strides
from dvlae.methods.learned import training
from dvlae.methods.learned.networks import UNet, WithoutNoiseModel
from dvlae.methods.learned.training import Trained


def random_weights(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("sides", [(200,), (60, 110), (4, 8, 80)])
@pytest.mark.parametrize("kind", ["unet", "dvlae"])
def test_an_image_has_the_same_estimate_with_tiles_as_without(monkeypatch, sides, kind):
    strides = level_strides(2 if len(sides) < 3 else 1, 1, len(sides))
    network = UNet(2, 4, strides) if kind == "unet" else WithoutNoiseModel(2, 4, 2, strides)
    trained = Trained(random_weights(network), torch.tensor(1.0), torch.tensor(2.0), "cpu")
    noisy = np.random.default_rng(0).normal(size=(2, *sides)).astype(np.float32)
    whole = trained.denoise(noisy)
    monkeypatch.setattr(training, "TILE_PIXELS", 16 ** len(sides))
    np.testing.assert_allclose(trained.denoise(noisy), whole, atol=1e-5)
    assert np.std(whole - noisy) > 0.01


def test_a_new_unet_returns_its_input():
    x = torch.randn(1, 1, 16, 24)
    torch.testing.assert_close(UNet(1, 4, level_strides(2, 1, 2))(x), x)


@pytest.mark.parametrize("sides", [(13, 21), (8, 5)])
def test_sides_that_are_no_multiples_of_the_stride_are_kept(sides):
    assert UNet(1, 4, level_strides(2, 1, 2))(torch.zeros(1, 1, *sides)).shape == (1, 1, *sides)
