"""The same weights, image and noise of the latents in the authors' networks and in ours."""

import pytest
import torch
from torch import distributions

from authors import build_theirs, load_authors_code
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
# Relative to the KL divergence of all levels, per pixel value, and relative to the standard deviation of the signal.
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def code():
    return load_authors_code()


@pytest.fixture
def converted(tmp_path, code):
    """Return a function that converts networks of theirs."""

    def convert(theirs):
        torch.save(theirs.state_dict(), tmp_path / "state.pt")
        import_weights(tmp_path / "state.pt", tmp_path / "model", mean=[100.0], std=[40.0])
        return load_model(tmp_path / "model")

    return convert


def run_theirs(theirs, image, noise, monkeypatch):
    """Return what their networks compute with this noise of the latents, coarsest level first."""
    remaining = iter(noise)
    monkeypatch.setattr(
        distributions.Normal, "rsample", lambda self, *_: self.mean + self.stddev * next(remaining).to(self.mean)
    )
    vae, elementwise = theirs.vae, []
    topdown_pass = vae.topdown_pass
    monkeypatch.setattr(vae, "topdown_pass", lambda *given: elementwise.append(topdown_pass(*given)) or elementwise[0])
    with torch.no_grad():
        out = theirs(image)
        x = (image - theirs.data_mean) / theirs.data_std
        likelihood = theirs.noise_model.loglikelihood(x, out["x_params"])
    kls = [kl.sum() / image.numel() for kl in elementwise[0][1]]
    assert torch.isclose(torch.stack(kls).sum(), out["kl_loss"])
    return kls, likelihood[..., 0], out["s_hat"]


def run_ours(ours, image, noise):
    """Return what our networks compute with this noise."""
    levels = len(noise)

    def sample_latent(level, mean, std):
        return mean + std * noise[levels - 1 - level]

    with torch.no_grad():
        terms = ours(image, sample_latent)
        code, _ = ours.ladder_vae(ours.normalise(image), sample_latent)
        return terms, ours.signal_decoder(code)


def compare(theirs, ours, image, monkeypatch):
    strides = [stride for stride, _ in ours.ladder_vae.strides]
    channels = ours.architecture.latent_channels
    torch.manual_seed(1)
    noise = [torch.randn(len(image), channels, *(side // s for side in image.shape[2:])) for s in reversed(strides)]
    kls, likelihood, signal = run_theirs(theirs, image, noise, monkeypatch)
    terms, our_signal = run_ours(ours, image, noise)
    assert min(kls) > 1e-3
    for our, their in zip(terms.kl_of_levels, kls, strict=True):
        assert abs(our - their) < TOLERANCE * sum(kls)
    assert abs(terms.log_likelihood - likelihood.mean()) < TOLERANCE
    assert (our_signal - signal).abs().max() < TOLERANCE * signal.std()


def noisy(*shape):
    return torch.poisson(torch.full(shape, 60.0)) + 60 * torch.rand(shape[0], 1, 1, shape[-1])


@pytest.mark.parametrize("direction", ["x", "y"])
def test_a_small_network(code, converted, monkeypatch, direction):
    theirs = build_theirs(code, direction)
    compare(theirs, converted(theirs), noisy(2, 1, 32, 32), monkeypatch)
