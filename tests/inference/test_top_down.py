import pytest
import torch

from dvlae.inference.top_down import FoldedBlock, TopDown
from dvlae.models.dvlae import DVLAE
from untrained import initial


def build(levels: int, levels_per_scale: int, dimensions: int) -> DVLAE:
    """Return a model whose batch norms have seen something."""
    model = initial(0.0, 1.0, channels=6, levels=levels, levels_per_scale=levels_per_scale, dimensions=dimensions)
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_folded_block_is_the_block(dimensions):
    block = build(1, 1, dimensions).ladder_vae.last_block
    x = 5 * torch.randn(2, 6, *[8] * dimensions)
    with torch.inference_mode():
        torch.testing.assert_close(FoldedBlock(block)(x), block(x), atol=1e-5, rtol=1e-5)


def test_a_folded_block_takes_large_numbers():
    block = build(1, 1, 2).ladder_vae.last_block
    x = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4, 1e6]).view(1, 6, 1, 1).expand(1, 6, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(FoldedBlock(block)(x), block(x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("levels", "levels_per_scale"), [(1, 1), (3, 1), (4, 2)])
def test_the_signal_is_that_of_the_whole_network(levels, levels_per_scale, dimensions):
    model = build(levels, levels_per_scale, dimensions)
    x = torch.randn(2, 1, *[16] * dimensions)

    def sample_latent(level, mean, std):
        return mean + std * torch.linspace(-1, 1, mean[0].numel()).view(mean[0].shape)

    with torch.inference_mode():
        code, _ = model.ladder_vae(x, sample_latent)
        top_down = TopDown(model)
        precomputed = top_down.precompute(model.ladder_vae.bottom_up(model.ladder_vae.stem(x)))
        signal = top_down.decode(top_down.run(None, precomputed, sample_latent))
        torch.testing.assert_close(signal, model.signal_decoder(code), atol=1e-4, rtol=1e-4)
