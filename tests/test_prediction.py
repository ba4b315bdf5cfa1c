import numpy as np
import pytest
import torch

import dvlae.prediction
from dvlae.config import PredictSettings, validate
from dvlae.data.images import read_canonical
from dvlae.errors import UserError
from dvlae.models.dvlae import DVLAE, Architecture
from dvlae.models.files import save_model
from dvlae.prediction import choose_split, denoise, make_tiles, predict


def build(levels: int = 3, levels_per_scale: int = 1, channels: int = 1) -> DVLAE:
    torch.manual_seed(0)
    architecture = Architecture(channels, 8, 4, levels, levels_per_scale, 3, 8, "x")
    model = DVLAE(architecture, [60.0] * channels, [20.0] * channels, [1.0] * channels)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)  # far pixels matter, which makes a seam visible
    return model.to(memory_format=torch.channels_last).eval()


def noisy(height: int = 150, width: int = 170, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).poisson(60, (channels, height, width)).astype(np.float32)


@pytest.mark.parametrize(("levels", "levels_per_scale"), [(1, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("coarse_tiles", [4, 0.2, 0])  # ever more levels run tile by tile
def test_tiled_equals_whole_everywhere(monkeypatch, levels, levels_per_scale, coarse_tiles):
    monkeypatch.setattr(dvlae.prediction, "COARSE_TILES", coarse_tiles)
    model, image = build(levels, levels_per_scale), noisy()
    whole = denoise(model, image, name="a", samples_wanted=3, seed=1)
    tiled = denoise(model, image, name="a", samples_wanted=3, seed=1, tile=32)
    noise = image.std()
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one - other).max() < 1e-3 * noise


def test_a_halo_too_small_would_be_noticed(monkeypatch):
    model, image = build(2), noisy()
    whole, _ = denoise(model, image, name="a", samples_wanted=2, seed=1)
    monkeypatch.setattr(dvlae.prediction, "halo", lambda *_: model.stride)
    tiled, _ = denoise(model, image, name="a", samples_wanted=2, seed=1, tile=32)
    assert np.abs(whole - tiled).max() > 1e-2 * image.std()


def test_batch_size_does_not_change_the_result():
    model, image = build(), noisy(40, 50)
    results = [denoise(model, image, name="a", samples_wanted=5, seed=1, batch_size=size) for size in (1, 2, 5)]
    for mean, std in results[1:]:
        np.testing.assert_allclose(mean, results[0][0], atol=1e-3)
        np.testing.assert_allclose(std, results[0][1], atol=1e-3)


def test_mean_and_deviation_are_those_of_the_samples():
    model, image = build(), noisy(24, 24)
    drawn = []
    padded = torch.from_numpy(image)[None]
    keys = [[dvlae.prediction.key_of(1, "a", sample, level) for level in range(3)] for sample in range(6)]
    with torch.inference_mode():
        for _, _, batch in dvlae.prediction.samples(model, padded, keys, tile=1024, batch_size=1):
            drawn.append(batch[0].numpy())
    mean, std = denoise(model, image, name="a", samples_wanted=6, seed=1, batch_size=4)
    np.testing.assert_allclose(mean, np.mean(drawn, 0), atol=1e-3)
    np.testing.assert_allclose(std, np.std(drawn, 0, ddof=1), atol=1e-3)


def test_seed_and_name_fix_the_samples():
    model, image = build(), noisy(24, 24)
    one, same = (denoise(model, image, name="a", samples_wanted=2, seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(one, same)
    for name, seed in (("b", 1), ("a", 2)):
        assert np.abs(denoise(model, image, name=name, samples_wanted=2, seed=seed)[0] - one).max() > 0.1


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (13, 8), (64, 65)])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_size_comes_back_in_its_size(shape, channels):
    mean, std = denoise(build(channels=channels), noisy(*shape, channels), name="a", samples_wanted=2, seed=0)
    assert mean.shape == std.shape == (channels, *shape)
    assert np.isfinite(mean).all()


def test_a_single_sample_has_no_deviation():
    assert denoise(build(), noisy(16, 16), name="a", samples_wanted=1, seed=0)[1] is None


def test_other_channels_than_the_models_are_refused():
    with pytest.raises(UserError, match="2 channels.*trained on 1"):
        denoise(build(), noisy(16, 16, 2), name="a", samples_wanted=1, seed=0)


def test_tiles_cover_the_image_once_and_their_halo_ends_at_its_border():
    covered = np.zeros((70, 45), int)
    for tile in make_tiles(70, 45, 32, 8):
        covered[np.ix_(tile.inner.rows, tile.inner.columns)] += 1
        assert 0 <= tile.outer.rows.start <= tile.inner.rows.start
        assert tile.inner.rows.stop <= tile.outer.rows.stop <= 70
    assert (covered == 1).all()


def test_small_images_are_not_tiled_and_huge_ones_leave_small_maps():
    vae = build().ladder_vae
    assert choose_split(512, 512, 512, vae) == 0
    assert choose_split(1024, 1024, 512, vae) == 1
    assert choose_split(16384, 16384, 1024, vae) == 3


def test_predict_writes_one_image_and_one_deviation_each(tmp_path, images_folder):
    save_model(build(), tmp_path)
    images = images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16)})
    settings = validate(PredictSettings, {"prediction": {"samples": 2}, "device": "cpu"}, "test")
    predict(tmp_path, images, tmp_path / "denoised", tmp_path / "uncertainty", seed=0, settings=settings)
    for folder in ("denoised", "uncertainty"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["a b.tif", "c.tif"]
    assert read_canonical(tmp_path / "denoised" / "a b.tif").shape == (1, 20, 30)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, so asking for one is no mistake")
def test_asking_for_a_gpu_where_none_is_leaves_nothing_behind(tmp_path, images_folder):
    save_model(build(), tmp_path)
    settings = validate(PredictSettings, {"device": "cuda"}, "test")
    with pytest.raises(UserError, match="device: found 'cuda'"):
        predict(tmp_path, images_folder(a=noisy(16, 16)), tmp_path / "d", tmp_path / "u", seed=0, settings=settings)
    assert not (tmp_path / "d").exists()
