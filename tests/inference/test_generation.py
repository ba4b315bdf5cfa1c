import numpy as np
import pytest
import torch

from dvlae.inference.generation import decode, sample_code, sample_noisy
from dvlae.inference.latent_noise import noise_key, normal_noise
from untrained import build, noisy


def test_the_content_is_the_first_sample_of_the_posterior():
    network, image = build(2), noisy(16, 24)

    def sample_latent(level, mean, std):
        window = [range(side) for side in mean.shape[2:]]
        return mean + std * normal_noise([noise_key(3, "a", 0, level)], mean.shape[1], window)

    with torch.inference_mode():
        code, _ = network.ladder_vae(network.normalise(torch.from_numpy(image)[None]), sample_latent)
        expected = network.denormalise(network.signal_decoder(code))[0].numpy()
    found = decode(network, sample_code(network, image, name="a", seed=3), (16, 24))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_larger_code_changes_nothing_within_the_image():
    network = build(2)
    code = sample_code(network, noisy(16, 24), name="a", seed=3)
    whole, part = (sample_noisy(network, code, size, name="a", number=0, seed=3) for size in ((16, 24), (11, 17)))
    np.testing.assert_allclose(whole[:, :11, :17], part, atol=1e-3)


@pytest.mark.parametrize(("receptive_field", "direction"), [(0, "none"), (8, "x"), (8, "y")])
def test_one_gaussian_everywhere_is_drawn_as_such_in_the_images_units(receptive_field, direction):
    network = build(2, receptive_field=receptive_field, noise_direction=direction)
    last = network.autoregressive_decoder.parameters_of_mixture
    last.weight.data.zero_()
    last.bias.data = torch.tensor([0.0] * 3 + [0.5] * 3 + [float(torch.tensor(0.25).expm1().log())] * 3)
    sampled = sample_noisy(network, torch.zeros(1, 8, 128, 128), (128, 128), name="a", number=0, seed=0)
    scale = 0.25 + 1 / (np.sqrt(12) * 20)  # softplus and the floor
    assert sampled.mean() == pytest.approx(60 + 0.5 * 20, abs=0.2)
    assert sampled.std() == pytest.approx(scale * 20, rel=0.02)


@pytest.mark.parametrize(("receptive_field", "direction"), [(0, "none"), (8, "x"), (8, "y")])
def test_noisy_samples_end_where_the_recording_ends(receptive_field, direction):
    sizes = {"receptive_field": receptive_field, "noise_direction": direction}
    network = build(2, **sizes, limits=(50.0, 70.0))
    sampled = sample_noisy(network, torch.zeros(1, 8, 64, 64), (64, 64), name="a", number=0, seed=0)
    assert (sampled.min(), sampled.max()) == pytest.approx((50, 70))
    assert min((sampled < 50.001).mean(), (sampled > 69.999).mean()) > 0.01
    # Pixels depend on the clipped ones before them.
    before = build(2, **sizes)
    free = sample_noisy(before, torch.zeros(1, 8, 64, 64), (64, 64), name="a", number=0, seed=0)
    assert np.allclose(free.clip(50, 70), sampled, atol=1e-3) == (receptive_field == 0)
