"""The same weights, image and noise of the latents in the authors' networks and in ours."""

import pytest
import torch
from torch import distributions

from authors import build_theirs
from dvlae.models.files import load_model
from dvlae.models.imported.weights import import_weights

PAPER = {
    "side": 256,
    "channels": 128,
    "latent_channels": 64,
    "downsampling": (0, 1) * 7,
    "decoder_channels": 64,
    "pairs": 4,
}
# For divergences, relative to that of all levels; for the log-likelihood, in nats per pixel value; for the signal,
# relative to its standard deviation.
TOLERANCE = 1e-4


@pytest.fixture
def converted(tmp_path, code):
    """Return a function that converts networks of theirs."""

    def convert(theirs):
        torch.save(theirs.state_dict(), tmp_path / "state.pt")
        import_weights(tmp_path / "state.pt", tmp_path / "model", mean=[100.0], std=[40.0])
        return load_model(tmp_path / "model")

    return convert


def latent_noise(ours, image):
    """Return noise of the latents, coarsest level first, as their networks ask for it."""
    torch.manual_seed(1)
    channels, strides = ours.architecture.latent_channels, [stride for stride, _ in ours.ladder_vae.strides]
    return [torch.randn(len(image), channels, *(side // s for side in image.shape[2:])) for s in reversed(strides)]


def sample_from(noise, monkeypatch):
    """Let their networks take this noise."""
    remaining = iter(noise)
    monkeypatch.setattr(distributions.Normal, "rsample", lambda self: self.mean + self.stddev * next(remaining))


def run_theirs(theirs, image, noise, monkeypatch):
    """Return the divergence of each level, the log-likelihood of each pixel, and the signal."""
    sample_from(noise, monkeypatch)
    maps, topdown_pass = [], theirs.vae.topdown_pass
    monkeypatch.setattr(theirs.vae, "topdown_pass", lambda *given: maps.append(topdown_pass(*given)) or maps[0])
    with torch.no_grad():
        out = theirs(image)
        x = (image - theirs.data_mean) / theirs.data_std
        likelihood = theirs.noise_model.loglikelihood(x, out["x_params"])[..., 0]
    kls = [kl.sum() / image.numel() for kl in maps[0][1]]
    assert torch.isclose(torch.stack(kls).sum(), out["kl_loss"])
    return kls, likelihood, out["s_hat"]


def run_ours(ours, image, noise):
    """Return what our networks compute with this noise."""
    levels = len(noise)

    def sample_latent(level, mean, std):
        return mean + std * noise[levels - 1 - level]

    with torch.no_grad():
        terms = ours(image, sample_latent)
        code, _ = ours.ladder_vae(ours.normalise(image), sample_latent)
        return terms, ours.signal_decoder(code)


def assert_divergences_equal(ours, theirs):
    assert min(theirs) > 0
    assert max(abs(our - their) for our, their in zip(ours, theirs, strict=True)) < TOLERANCE * sum(theirs)


def assert_signals_equal(ours, theirs):
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.std()


def compare(theirs, ours, image, monkeypatch):
    noise = latent_noise(ours, image)
    kls, likelihood, signal = run_theirs(theirs, image, noise, monkeypatch)
    terms, our_signal = run_ours(ours, image, noise)
    assert_divergences_equal(terms.kl_of_levels, kls)
    assert abs(terms.log_likelihood - likelihood.mean()) < TOLERANCE
    assert_signals_equal(our_signal, signal)


def noisy(*shape):
    return torch.poisson(torch.full(shape, 60.0)) + 60 * torch.rand(shape[0], 1, 1, shape[-1])


@pytest.mark.parametrize("direction", ["x", "y"])
def test_a_small_network_computes_the_same(code, converted, monkeypatch, direction):
    theirs = build_theirs(code, direction)
    compare(theirs, converted(theirs), noisy(2, 1, 32, 32), monkeypatch)


@pytest.mark.parametrize(
    "sizes",
    [
        {"image_channels": 2, "out_layers": 3, "components": 5},
        {"downsampling": (0, 1, 0, 1), "blocks": 2, "pairs": 4},
        {"downsampling": (0, 0), "latent_channels": 3, "kernel": 7, "pairs": 1, "direction": "y"},
    ],
)
def test_other_sizes_compute_the_same(code, converted, monkeypatch, sizes):
    theirs = build_theirs(code, **sizes)
    compare(theirs, converted(theirs), noisy(2, sizes.get("image_channels", 1), 32, 32), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["x", "y"])
def test_the_size_of_the_paper_computes_the_same(code, converted, monkeypatch, direction):
    theirs = build_theirs(code, direction, **PAPER)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == 25_941_386
    compare(theirs, converted(theirs), noisy(1, 1, 256, 256), monkeypatch)


def test_images_of_another_size_are_denoised_the_same(code, converted, monkeypatch):
    """Their prior of the top fits the training crops only, but a prediction does not need it."""
    theirs, image = build_theirs(code), noisy(1, 1, 48, 64)
    ours = converted(theirs)
    assert ours.architecture.top_grid == [4, 4]
    noise = latent_noise(ours, image)
    sample_from(noise, monkeypatch)
    with torch.no_grad():
        signal = theirs.predict_step(image, 0)
    assert_signals_equal(ours.denormalise(run_ours(ours, image, noise)[1]), signal)


def test_what_is_at_fault_there_is_not_here_and_the_rest_is_the_same(code, converted, monkeypatch):
    theirs, image = build_theirs(code), noisy(2, 1, 32, 32)
    # Layers of the signal decoder that are one there are two here.
    assert theirs.s_decoder.net[2] is theirs.s_decoder.net[4]
    # A component without weight that is by far the nearest takes the density of the others with it.
    last = theirs.noise_model.out_convs.convs[-1]
    last.weight.data.zero_()
    #  logit, mean and scale of each component
    last.bias.data = torch.tensor([-200.0, 0.0, -3.0, 0.0, 50.0, -3.0, 0.0, 50.0, -3.0])
    # A step of the optimiser moves weights that are set to 0 before they are used.
    masked = theirs.noise_model.layers.layers[0].in_conv.conv.weight.data[..., -1]
    masked.fill_(7.0)
    ours = converted(theirs)
    middle = [ours.signal_decoder[number].conv.weight for number in (2, 4)]
    assert torch.equal(*middle)
    assert middle[0] is not middle[1]

    noise = latent_noise(ours, image)
    kls, likelihood, signal = run_theirs(theirs, image, noise, monkeypatch)
    assert likelihood.isneginf().all()
    assert masked.abs().max() == 0
    terms, our_signal = run_ours(ours, image, noise)
    assert torch.isfinite(terms.log_likelihood)
    assert_divergences_equal(terms.kl_of_levels, kls)
    assert_signals_equal(our_signal, signal)
