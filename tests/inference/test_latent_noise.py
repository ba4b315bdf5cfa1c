import pytest
import torch

from dvlae.inference.latent_noise import noise_key, normal_noise, philox


@pytest.mark.parametrize(("counter", "key", "expected"), [
    ((0x00000000, 0x00000000), 0x00000000, (0xFF1DAE59, 0x6CD10DF2)),
    ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
    ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
])  # fmt: skip
def test_philox_gives_the_published_answers(counter, key, expected):
    words = philox(*(torch.tensor([word]) for word in (*counter, key)))
    assert tuple(int(word) for word in words) == expected


def test_numbers_are_standard_normal_and_independent():
    noise = normal_noise([noise_key(0, "a", 0, 0)], 4, (range(300), range(300)))[0].double()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    for shifted in (noise.roll(1, 0), noise.roll(1, 1), noise.roll(1, 2)):
        assert abs((noise * shifted).mean()) < 0.01


def test_a_window_holds_what_the_whole_holds_there():
    keys = [noise_key(3, "a", sample, 1) for sample in range(2)]
    whole = normal_noise(keys, 3, (range(64), range(500)))
    window = normal_noise(keys, 3, (range(17, 40), range(123, 456)))
    assert torch.equal(window, whole[:, :, 17:40, 123:456])


@pytest.mark.parametrize("other", [(1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)])
def test_seed_image_sample_and_level_each_give_other_noise(other):
    one, two = (normal_noise([noise_key(*key)], 1, (range(100), range(100))) for key in ((0, "a", 0, 0), other))
    assert abs(float((one * two).mean())) < 0.05


def test_the_opposite_key_gives_the_opposite_noise():
    key = noise_key(0, "a", 0, 0)
    both = normal_noise([key, key.opposite], 3, (range(20), range(30)))
    assert torch.equal(both[1], -both[0])
