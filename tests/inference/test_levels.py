import numpy as np
import pytest
import torch

from dvlae.inference import levels
from dvlae.inference.latent_noise import latent_sampler, sample_keys
from dvlae.inference.levels import vary_levels
from dvlae.inference.tiling import whole_window
from untrained import build, noisy


def vary(model, image, samples=3, seed=0) -> dict[int, np.ndarray]:
    return dict(vary_levels(model, image, name="a", seed=seed, samples=samples))


def test_every_level_is_varied_coarsest_first_in_the_size_of_the_image():
    sampled = vary(build(), noisy(21, 30))
    assert list(sampled) == [2, 1, 0]
    for samples in sampled.values():
        assert samples.shape == (3, 1, 21, 30)
        assert samples.std(axis=0).max() > 0


@pytest.mark.parametrize("deaf", [0, 1, 2])
def test_a_level_that_nothing_listens_to_varies_nothing_and_the_others_do(deaf):
    model = build()
    torch.nn.init.zeros_(model.ladder_vae.levels[deaf].from_latent.weight)
    spread = {level: samples.std(axis=0).max() for level, samples in vary(model, noisy(16, 16)).items()}
    assert spread.pop(deaf) < 1e-3
    assert min(spread.values()) > 1e-2


def test_above_a_level_latents_are_fixed_at_it_they_differ_and_below_they_are_the_mean():
    keys, window = sample_keys(0, "a", range(3), 3), whole_window((20, 20))
    fixed, varying = (latent_sampler(chosen, window, [(4, 4)] * 3) for chosen in ([keys[0]] * 2, keys[1:]))
    sample_latent = levels.sampler_of_level(1, fixed=fixed, varying=varying)
    mean, std = torch.randn(2, 4, 5, 5), torch.ones(2, 4, 5, 5)
    below, at, above = (sample_latent(level, mean, std) - mean for level in (0, 1, 2))
    assert not below.any()
    assert (at[0] - at[1]).abs().max() > 0.1
    assert above.abs().max() > 0.1
    assert torch.allclose(above[0], above[1], atol=1e-6)


def test_seed_fixes_the_samples():
    model, image = build(), noisy(16, 16)
    one, same, other = (vary(model, image, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-2


def test_a_crop_of_a_large_image_is_computed_with_its_surroundings_on_the_models_grid(monkeypatch):
    monkeypatch.setattr(levels, "CONTEXT_PIXELS", 20)
    computed, shown = levels.add_context([(1000, 1100), (5, 30)], (3000, 40), (8, 8), "a")
    assert computed == [slice(976, 1120), slice(0, 40)]
    assert shown == [slice(24, 124), slice(5, 30)]
