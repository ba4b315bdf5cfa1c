import csv
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn

import dvlae.inference.posterior
from dvlae.inference.log_likelihood import ImportanceWeights, bound_log_likelihood, likelihood, log_weights
from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import save_model
from dvlae.system.errors import UserError
from untrained import initial, noisy

MEAN, STD = 60.0, 20.0


def build(**sizes) -> DVLAE:
    return initial(MEAN, STD, **sizes).eval()


def all_log_weights(model, image, samples, seed=0, **keys) -> list[float]:
    with torch.inference_mode():
        return list(log_weights(model, image, name="a", samples=samples, seed=seed, **keys))


class Function(nn.Module):
    """A layer that is a function."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


class Toy(DVLAE):
    """One latent a pixel, z ~ N(0, 1), and x ~ N(z, s^2): log p(x) and the exact posterior are known.

    ``widen`` multiplies the standard deviation of the posterior; 1 is the exact one.
    """

    def __init__(self, s: float, widen: float = 1.0):
        super().__init__(Architecture(1, 1, 1, 1, 2, 1, 0, "none"), [MEAN], [STD], [0.0])
        self.eval()
        vae, level = self.ladder_vae, self.ladder_vae.levels[0]
        assert self.stride == (1, 1)
        vae.stem = vae.last_block = level.shrink = level.up_blocks = nn.Identity()
        level.from_latent = level.down_blocks = level.grow = nn.Identity()
        deviation = math.log(widen * s / math.sqrt(1 + s**2))
        level.merge = Function(lambda feature: feature)
        level.posterior = Function(
            lambda _: torch.cat([self.x / (1 + s**2), torch.full_like(self.x, 5 * math.atanh(deviation / 5))], dim=1)
        )
        raw = math.log(math.expm1(s - 1e-3))  # of a scale that is 0.001 + softplus(raw)
        self.autoregressive_decoder = Function(
            lambda x, code: tuple(part.unsqueeze(1) for part in (torch.zeros_like(x), code, torch.full_like(x, raw)))
        )
        self.s = s

    def log_likelihood(self, image: np.ndarray) -> float:
        """Log p of the grey values, exactly."""
        self.x = self.normalise(torch.from_numpy(image)[None])
        deviation = STD * math.sqrt(1 + self.s**2)
        return float(torch.distributions.Normal(MEAN, deviation).log_prob(torch.from_numpy(image).double()).sum())


def test_with_the_exact_posterior_every_weight_is_the_exact_likelihood_of_the_grey_values():
    toy, image = Toy(0.5), noisy(6, 7)
    exact = toy.log_likelihood(image)
    weights = bound_log_likelihood(toy, image, name="a", samples=5, seed=0)
    assert weights.bound == pytest.approx(exact, abs=1e-2)
    assert weights.elbo == pytest.approx(exact, abs=1e-2)
    assert weights.effective_samples == pytest.approx(5, abs=1e-3)


def test_the_bound_rises_with_the_samples_towards_the_exact_likelihood():
    toy, image = Toy(0.5, widen=1.5), noisy(2, 3)
    exact = toy.log_likelihood(image)
    sampled = np.array([all_log_weights(toy, image, 256, seed=seed) for seed in range(20)])
    bounds = {k: (logsumexp(sampled.reshape(-1, k), axis=1) - math.log(k)).mean() for k in (1, 4, 16, 256)}
    assert bounds[1] < bounds[4] - 0.1 < bounds[16] - 0.2 < bounds[256] - 0.2
    assert bounds[256] == pytest.approx(exact, abs=0.1)
    assert bounds[1] < exact - 1


def test_the_elbo_is_the_one_of_training():
    model, image = build(), noisy(16, 16)
    weights = ImportanceWeights(torch.tensor(all_log_weights(model, image, 400)))
    with torch.inference_mode():
        terms = [model(torch.from_numpy(image)[None]) for _ in range(100)]
    elbo = image.size * (np.mean([float(term.elbo) for term in terms]) - math.log(STD))
    assert weights.elbo == pytest.approx(elbo, abs=5 * weights.standard_error + 0.5)


def test_the_bound_and_its_errors_are_those_of_their_definitions():
    log_weights = np.random.default_rng(0).normal(-1e5, 30, 1000)
    weights = ImportanceWeights(torch.from_numpy(log_weights))
    assert weights.bound == pytest.approx(logsumexp(log_weights) - math.log(1000), abs=1e-8)
    assert weights.elbo == pytest.approx(log_weights.mean())
    assert weights.standard_error == pytest.approx(log_weights.std(ddof=1) / math.sqrt(1000))
    normalised = np.exp(log_weights - logsumexp(log_weights))
    assert weights.effective_samples == pytest.approx(1 / (normalised**2).sum())


def test_one_sample_is_its_own_bound_and_has_no_standard_error():
    model, image = build(), noisy(8, 8)
    (log_weight,) = all_log_weights(model, image, 1)
    weights = bound_log_likelihood(model, image, name="a", samples=1, seed=0)
    assert weights.bound == weights.elbo == log_weight
    assert math.isnan(weights.standard_error)


def test_more_samples_begin_with_the_same_ones_whatever_the_batch():
    model, image = build(levels=3), noisy(20, 27)
    few = all_log_weights(model, image, 2, batch_size=1)
    many = all_log_weights(model, image, 5, batch_size=3)
    np.testing.assert_allclose(few, many[:2], rtol=1e-6)
    assert np.std(many) > 0
    assert abs(all_log_weights(model, image, 1, seed=1)[0] - few[0]) > 1e-3


@pytest.mark.parametrize(("direction", "sides"), [("x", (13, 10)), ("none", (7, 9))])
def test_a_posterior_that_is_the_prior_gives_equal_weights_and_padding_says_nothing_of_the_pixels(direction, sides):
    model, image = build(), noisy(*sides)
    # The decoder does not listen, and gives each pixel the standard normal density.
    raw = math.log(math.expm1(1 - 1 / STD / math.sqrt(12)))
    model.autoregressive_decoder = Function(
        lambda x, code: tuple(torch.full_like(x, value).unsqueeze(1) for value in (0.0, 0.0, raw))
    )
    for level in model.ladder_vae.levels:
        for part in filter(None, (level.prior, level.posterior)):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    weights = bound_log_likelihood(model, image, name="a", samples=4, seed=0)
    expected = torch.distributions.Normal(MEAN, STD).log_prob(torch.from_numpy(image).double()).sum()
    assert weights.bound == pytest.approx(float(expected), abs=1e-3)
    assert weights.effective_samples == pytest.approx(4)


@pytest.mark.parametrize(("sides", "channels"), [((30,), 2), ((9, 10), 3), ((5, 6, 9), 1)])
def test_traces_volumes_and_channels_have_a_bound(sides, channels):
    model, image = build(image_channels=channels, dimensions=len(sides)), noisy(*sides, channels=channels)
    weights = bound_log_likelihood(model, image, name="a", samples=3, seed=0)
    assert math.isfinite(weights.bound)
    assert weights.bound >= weights.elbo


def test_an_image_that_is_too_large_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(dvlae.inference.posterior, "MAX_MAP_VALUES", 800)
    with pytest.raises(UserError, match="a: found 10 x 11 pixels, allowed: 100 in all"):
        bound_log_likelihood(build(), noisy(10, 11), name="a", samples=1, seed=0)


def test_other_channels_than_the_models_are_refused():
    with pytest.raises(UserError, match=r"2 channels.*trained on 1"):
        bound_log_likelihood(build(), noisy(8, 8, channels=2), name="a", samples=1, seed=0)


def test_the_table_has_a_row_for_each_chosen_image_in_consistent_units(tmp_path, images_folder):
    save_model(build(), tmp_path)
    images = images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16), "d": noisy(8, 8)})
    likelihood(tmp_path, images, tmp_path / "out.csv", selection=["a b", "d"], samples=3, device="cpu")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [(row["image"], row["values"], row["samples"]) for row in rows] == [("a b", "600", "3"), ("d", "64", "3")]
    for row in rows:
        values, bound = int(row["values"]), float(row["bound"])
        assert float(row["elbo"]) <= bound
        assert float(row["bound_per_value"]) == pytest.approx(bound / values, abs=1e-4)
        assert float(row["bits_per_value"]) == pytest.approx(-bound / values / math.log(2), abs=1e-4)
        assert 1 <= float(row["effective_samples"]) <= 3


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(UserError, match="samples: found 0"):
        likelihood(tmp_path, tmp_path, tmp_path / "out.csv", samples=0)
