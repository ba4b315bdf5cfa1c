"""The paper's network in all that is computed of a trained model."""

import numpy as np
import pytest
import torch

from dvlae.config.settings import PredictionSettings
from dvlae.inference import posterior
from dvlae.inference.estimates import denoise
from dvlae.inference.generation import decode, sample_code, sample_code_from_prior, sample_noisy
from dvlae.inference.levels import vary_levels
from dvlae.inference.log_likelihood import bound_log_likelihood
from dvlae.inference.posterior import bottom_up_halo
from dvlae.inference.top_down import TopDown, top_down_halo
from untrained import build, noisy

SHAPES = {1: (1000,), 2: (70, 90), 3: (8, 36, 42)}


def run(model, image, **settings):
    return denoise(model, image, name="a", seed=1, settings=PredictionSettings(**settings))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(
    ("levels", "levels_per_scale", "blocks", "coarse_tiles"), [(3, 1, 1, 4), (4, 2, 1, 0), (2, 1, 2, 0)]
)
def test_tiled_equals_whole_everywhere(monkeypatch, levels, levels_per_scale, blocks, dimensions, coarse_tiles):
    monkeypatch.setattr(posterior, "MAX_COARSE_TILES", coarse_tiles)
    model = build(levels, levels_per_scale, dimensions=dimensions, blocks=blocks, network="paper")
    image = noisy(*SHAPES[dimensions])
    whole = run(model, image, samples=2)
    tiled = run(model, image, samples=2, tile=32)
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one - other).max() < 1e-3 * image.std()


@pytest.mark.parametrize("coarse_tiles", [4, 0])
@pytest.mark.parametrize(("shape", "stride"), [((4, 200), (4, 8)), ((150, 1), (8, 1)), ((5, 24, 40), (2, 8, 8))])
def test_tiled_equals_whole_where_the_stride_differs_from_axis_to_axis(monkeypatch, shape, stride, coarse_tiles):
    monkeypatch.setattr(posterior, "MAX_COARSE_TILES", coarse_tiles)
    model, image = build(dimensions=len(shape), stride=stride, network="paper", noise_direction="y"), noisy(*shape)
    whole, tiled = run(model, image, samples=2)[0], run(model, image, samples=2, tile=16)[0]
    assert np.abs(whole - tiled).max() < 1e-3 * image.std()


@pytest.mark.parametrize("network", ["dvlae", "paper"])
@pytest.mark.parametrize(("levels_per_scale", "blocks"), [(1, 1), (1, 2), (2, 1)])
def test_a_halo_is_as_large_as_the_network_sees(network, levels_per_scale, blocks):
    model, split = build(4, levels_per_scale, dimensions=1, blocks=blocks, network=network).double(), 3
    ladder_vae, (stride,) = model.ladder_vae, model.ladder_vae.strides[split - 1]
    (up,), (down,) = bottom_up_halo(ladder_vae, split), top_down_halo(ladder_vae, split)
    middle = 4 * (up + down)

    def seen(outputs, inputs, step):
        (grad,) = torch.autograd.grad(outputs.abs().sum(), inputs, retain_graph=True)
        places = grad[0].abs().sum(0).nonzero() * step
        return middle - int(places.min()), int(places.max()) - middle - stride

    x = torch.randn(1, 1, 2 * middle, dtype=torch.float64, requires_grad=True)
    features = ladder_vae.bottom_up(ladder_vae.stem(x), 0, split)
    before, after = seen(features[-1][..., middle // stride], x, 1)
    assert max(before, after + 1) <= up

    features = [feature.detach().requires_grad_() for feature in features]
    state = torch.randn(1, 8, 2 * middle // stride, dtype=torch.float64, requires_grad=True)
    below, _ = ladder_vae.top_down(state, features, lambda level, mean, std: mean)
    signal = model.signal_decoder(ladder_vae.last_block(below))[0, 0]
    steps = [stride, *(step for (step,) in ladder_vae.strides[:split])]
    reaches = [
        seen(signal[middle : middle + stride], maps, step) for maps, step in zip([state, *features], steps, strict=True)
    ]
    assert all(max(reach, after + 1) <= down for reach, after in reaches)
    if levels_per_scale == 1:  # Otherwise levels that do not halve the resolution count as those that do.
        assert before > up - stride
        assert max(reach for reach, _ in reaches) > down - stride


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("levels", "levels_per_scale", "blocks"), [(1, 1, 1), (3, 1, 2), (4, 2, 1)])
def test_the_signal_is_that_of_the_whole_network(levels, levels_per_scale, blocks, dimensions):
    model = build(levels, levels_per_scale, dimensions=dimensions, blocks=blocks, network="paper")
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 1, *[16] * dimensions)

    def sample_latent(level, mean, std):
        return mean + std * torch.linspace(-1, 1, mean[0].numel()).view(mean[0].shape)

    with torch.inference_mode():
        code, _ = model.ladder_vae(x, sample_latent)
        top_down = TopDown(model)
        precomputed = top_down.precompute(model.ladder_vae.bottom_up(model.ladder_vae.stem(x)))
        signal = top_down.decode(top_down.run(None, precomputed, sample_latent))
        torch.testing.assert_close(signal, model.signal_decoder(code), atol=1e-4, rtol=1e-4)


def test_it_samples_noise_and_images():
    model, image = build(network="paper"), noisy(21, 30)
    codes = [sample_code(model, image, name="a", seed=0), sample_code_from_prior(model, (21, 30), number=0, seed=0)]
    for code in codes:
        assert np.isfinite(decode(model, code, (21, 30))).all()
        sampled = sample_noisy(model, code, (21, 30), name="a", number=0, seed=0)
        assert sampled.shape == (1, 21, 30)
        assert np.isfinite(sampled).all()


def test_its_bound_rises_with_the_samples_and_its_levels_vary():
    model, image = build(2, network="paper"), noisy(13, 16)
    one, many = (bound_log_likelihood(model, image, name="a", samples=n, seed=0) for n in (1, 50))
    assert np.isfinite(one.bound)
    assert many.elbo <= many.bound
    sampled = dict(vary_levels(model, image, name="a", seed=0, samples=3))
    assert list(sampled) == [1, 0]
    assert all(samples.std(axis=0).max() > 0 for samples in sampled.values())


def test_it_denoises_directly():
    model, image = build(direct_denoiser="mean", network="paper"), noisy(40, 50)
    whole, tiled = (run(model, image, estimator="direct", tile=tile)[0] for tile in ("auto", 16))
    assert np.abs(whole - tiled).max() < 1e-3 * image.std()
