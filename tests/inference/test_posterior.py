import numpy as np
import pytest
import torch

from dvlae.config.settings import PredictionSettings
from dvlae.inference import posterior
from dvlae.inference.estimates import denoise
from dvlae.inference.latent_noise import latent_sampler, sample_keys
from dvlae.inference.posterior import choose_split
from dvlae.inference.tiling import whole_window
from dvlae.models.dvlae import DVLAE
from dvlae.models.ladder_vae import LadderVAE
from dvlae.system.errors import UserError
from untrained import build, noisy

SHAPES = {1: (1500,), 2: (150, 170), 3: (8, 36, 42)}  # of test images, by the number of spatial axes


def run(model: DVLAE, image: np.ndarray, name: str = "a", seed: int = 1, keep=(), **settings):
    return denoise(model, image, name=name, seed=seed, settings=PredictionSettings(**settings), keep=keep)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("levels", "levels_per_scale"), [(1, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("coarse_tiles", [4, 0.2, 0])  # ever more levels run tile by tile
def test_tiled_equals_whole_everywhere(monkeypatch, levels, levels_per_scale, dimensions, coarse_tiles):
    monkeypatch.setattr(posterior, "MAX_COARSE_TILES", coarse_tiles)
    model, image = build(levels, levels_per_scale, dimensions=dimensions), noisy(*SHAPES[dimensions])
    whole = run(model, image, samples=3)
    tiled = run(model, image, samples=3, tile=32)
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one - other).max() < 1e-3 * image.std()


@pytest.mark.parametrize("coarse_tiles", [4, 0])
@pytest.mark.parametrize(("shape", "stride"), [((4, 400), (4, 8)), ((300, 7), (8, 1)), ((5, 40, 70), (2, 8, 8))])
def test_tiled_equals_whole_where_the_stride_differs_from_axis_to_axis(monkeypatch, shape, stride, coarse_tiles):
    monkeypatch.setattr(posterior, "MAX_COARSE_TILES", coarse_tiles)
    model, image = build(dimensions=len(shape), stride=stride), noisy(*shape)
    whole, tiled = run(model, image, samples=3)[0], run(model, image, samples=3, tile=16)[0]
    assert np.abs(whole - tiled).max() < 1e-3 * image.std()


@pytest.mark.parametrize("halo", ["bottom_up_halo", "top_down_halo"])
def test_a_halo_too_small_would_be_noticed(monkeypatch, halo):
    monkeypatch.setattr(posterior, "MAX_COARSE_TILES", 0)
    model, image = build(2), noisy(150, 170)
    whole, _ = run(model, image, samples=2)
    monkeypatch.setattr(posterior, halo, lambda *_: (0, 0))
    tiled, _ = run(model, image, samples=2, tile=32)
    assert np.abs(whole - tiled).max() > 1e-3 * image.std()  # the bound that a right halo keeps


@pytest.mark.parametrize("how", [{"batch_size": 2}, {"batch_size": 5}, {"tile": 16}, {"tile": 32, "batch_size": 3}])
def test_a_sample_is_the_same_whatever_the_tile_and_the_batch(how):
    model, image = build(), noisy(40, 50)
    one, other = np.zeros((5, *image.shape)), np.zeros((5, *image.shape))
    run(model, image, samples=5, keep=[one], batch_size=1)
    run(model, image, samples=5, keep=[other], **how)
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_coarse_states_that_do_not_fit_together_change_nothing(monkeypatch):
    model, image = build(), noisy(90, 70)
    one, _ = run(model, image, samples=6, tile=32)
    monkeypatch.setattr(posterior, "MAX_STATE_VALUES", 1)
    other, _ = run(model, image, samples=6, tile=32)
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_tiled_equals_whole_with_several_blocks_a_level(monkeypatch):
    monkeypatch.setattr(posterior, "MAX_COARSE_TILES", 0)
    model, image = build(2, blocks=2), noisy(70, 90)
    whole, tiled = run(model, image, samples=2)[0], run(model, image, samples=2, tile=16)[0]
    assert np.abs(whole - tiled).max() < 1e-3 * image.std()


@pytest.mark.parametrize(("coarse_tiles", "times"), [(4, 2), (0, 1)])  # once more where coarse levels wait for it
def test_the_features_of_a_tile_do_not_depend_on_the_number_of_samples(monkeypatch, coarse_tiles, times):
    monkeypatch.setattr(posterior, "MAX_COARSE_TILES", coarse_tiles)
    bottom_up, calls = LadderVAE.bottom_up, []
    monkeypatch.setattr(
        LadderVAE, "bottom_up", lambda self, h, *split: calls.append(split) or bottom_up(self, h, *split)
    )
    run(build(), noisy(64, 64), samples=12, batch_size=2, tile=32, flips=False, shifts=1)
    assert len([split for split in calls if split[0] == 0]) == times * 4  # tiles


def test_seed_and_name_fix_the_samples():
    model, image = build(), noisy(24, 24)
    one, same = (run(model, image, samples=2)[0] for _ in range(2))
    np.testing.assert_array_equal(one, same)
    for name, seed in (("b", 1), ("a", 2)):
        assert np.abs(run(model, image, name, seed, samples=2)[0] - one).max() > 0.1


def test_what_is_drawn_is_what_the_model_is():
    model, image = build(), noisy(16, 24)
    kept = np.zeros((1, *image.shape))
    run(model, image, samples=1, keep=[kept])
    keys = sample_keys(1, "a", [0], levels=3)
    with torch.inference_mode():
        x = model.normalise(torch.from_numpy(image)[None])
        code, _ = model.ladder_vae(x, latent_sampler(keys, whole_window((16, 24)), model.ladder_vae.strides))
        expected = model.denormalise(model.signal_decoder(code))
    np.testing.assert_allclose(kept, expected, atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (13, 8), (64, 65), (3,), (40,), (1, 1, 1), (3, 9, 17)])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_size_comes_back_in_its_size(shape, channels):
    model = build(channels=channels, dimensions=len(shape))
    mean, std = run(model, noisy(*shape, channels=channels), samples=2)
    assert mean.shape == std.shape == (channels, *shape)
    assert np.isfinite(mean).all()


def test_other_channels_than_the_models_are_refused():
    with pytest.raises(UserError, match=r"2 channels.*trained on 1"):
        run(build(), noisy(16, 16, channels=2), samples=1)


def test_other_axes_than_the_models_are_refused():
    with pytest.raises(UserError, match=r"1 channel and 3 spatial axes.*trained on 1 channel and 2 spatial axes"):
        run(build(), noisy(4, 16, 16), samples=1)


def test_small_images_are_not_tiled_and_huge_ones_leave_small_maps():
    strides = build().ladder_vae.strides
    assert choose_split((512, 512), 512, strides) == 3  # all levels in the one tile
    assert choose_split((1024, 1024), 512, strides) == 1
    assert choose_split((16384, 16384), 1024, strides) == 3
    assert choose_split((64, 1000, 1000), 96, build(dimensions=3).ladder_vae.strides) == 2
