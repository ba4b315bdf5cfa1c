import numpy as np
import pytest
import tifffile
import torch

import dvlae.inference.prediction
from dvlae.config.messages import validate
from dvlae.config.settings import PredictionSettings, PredictSettings
from dvlae.data.canonical import read_canonical
from dvlae.inference.prediction import choose_split, denoise, median, predict, sample_posterior
from dvlae.models.dvlae import DVLAE, Architecture
from dvlae.models.files import save_model
from dvlae.models.ladder_vae import LadderVAE
from dvlae.models.layers import to_channels_last
from dvlae.system.errors import UserError

SHAPES = {1: (1500,), 2: (150, 170), 3: (8, 36, 42)}  # of test images, by the number of spatial axes


def build(
    levels: int = 3,
    levels_per_scale: int = 1,
    channels: int = 1,
    dimensions: int = 2,
    noise_direction: str = "x",
    receptive_field: int = 8,
    blocks: int = 1,
    direct_denoiser: str | None = None,
) -> DVLAE:
    torch.manual_seed(0)
    sizes = (channels, 8, 4, levels, levels_per_scale, 3, receptive_field, noise_direction, dimensions, blocks)
    model = DVLAE(Architecture(*sizes, direct_denoiser), [60.0] * channels, [20.0] * channels, [1.0] * channels)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)  # far pixels matter, which makes a seam visible
    if direct_denoiser is not None:
        torch.nn.init.normal_(model.direct_denoiser.head.weight, std=0.2)  # as if it had learned
    return to_channels_last(model, dimensions).eval()


def noisy(*shape: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).poisson(60, (channels, *shape)).astype(np.float32)


def run(model: DVLAE, image: np.ndarray, name: str = "a", seed: int = 1, keep=(), **settings):
    return denoise(model, image, name=name, seed=seed, settings=PredictionSettings(**settings), keep=keep)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("levels", "levels_per_scale"), [(1, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("coarse_tiles", [4, 0.2, 0])  # ever more levels run tile by tile
def test_tiled_equals_whole_everywhere(monkeypatch, levels, levels_per_scale, dimensions, coarse_tiles):
    monkeypatch.setattr(dvlae.inference.prediction, "MAX_COARSE_TILES", coarse_tiles)
    model, image = build(levels, levels_per_scale, dimensions=dimensions), noisy(*SHAPES[dimensions])
    whole = run(model, image, samples=3)
    tiled = run(model, image, samples=3, tile=32)
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one - other).max() < 1e-3 * image.std()


@pytest.mark.parametrize("halo", ["bottom_up_halo", "top_down_halo"])
def test_a_halo_too_small_would_be_noticed(monkeypatch, halo):
    monkeypatch.setattr(dvlae.inference.prediction, "MAX_COARSE_TILES", 0)
    model, image = build(2), noisy(150, 170)
    whole, _ = run(model, image, samples=2)
    monkeypatch.setattr(dvlae.inference.prediction, halo, lambda *_: 0)
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
    monkeypatch.setattr(dvlae.inference.prediction, "MAX_STATE_VALUES", 1)
    other, _ = run(model, image, samples=6, tile=32)
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_tiled_equals_whole_with_several_blocks_a_level(monkeypatch):
    monkeypatch.setattr(dvlae.inference.prediction, "MAX_COARSE_TILES", 0)
    model, image = build(2, blocks=2), noisy(70, 90)
    whole, tiled = run(model, image, samples=2)[0], run(model, image, samples=2, tile=16)[0]
    assert np.abs(whole - tiled).max() < 1e-3 * image.std()


@pytest.mark.parametrize(("coarse_tiles", "times"), [(4, 2), (0, 1)])  # once more where coarse levels wait for it
def test_the_features_of_a_tile_do_not_depend_on_the_number_of_samples(monkeypatch, coarse_tiles, times):
    monkeypatch.setattr(dvlae.inference.prediction, "MAX_COARSE_TILES", coarse_tiles)
    bottom_up, calls = LadderVAE.bottom_up, []
    monkeypatch.setattr(
        LadderVAE, "bottom_up", lambda self, h, *split: calls.append(split) or bottom_up(self, h, *split)
    )
    run(build(), noisy(64, 64), samples=12, batch_size=2, tile=32, flips=False, shifts=1)
    assert len([split for split in calls if split[0] == 0]) == times * 4  # tiles


def test_mean_and_deviation_are_those_of_the_samples():
    model, image = build(), noisy(24, 24)
    kept = np.zeros((6, *image.shape))
    mean, std = run(model, image, samples=6, batch_size=2, keep=[kept])
    np.testing.assert_allclose(mean, np.mean(kept, 0), atol=1e-3)
    np.testing.assert_allclose(std, np.std(kept, 0), atol=1e-3)


def test_the_median_is_taken_pixel_by_pixel(monkeypatch):
    samples = np.random.default_rng(0).random((5, 2, 7, 9)).astype(np.float32)
    monkeypatch.setattr(dvlae.inference.prediction, "MAX_MEDIAN_VALUES", 100)  # a few rows at a time
    np.testing.assert_array_equal(median(samples), np.median(samples, 0))


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
    keys = [dvlae.inference.prediction.noise_key(1, "a", 0, level) for level in range(3)]
    everywhere = dvlae.inference.prediction.whole_window((16, 24))
    with torch.inference_mode():
        x = model.normalise(torch.from_numpy(image)[None])
        code, _ = model.ladder_vae(
            x, dvlae.inference.prediction.window_sampler(everywhere, model.ladder_vae.strides, [keys])
        )
        expected = model.denormalise(model.signal_decoder(code))
    np.testing.assert_allclose(kept, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("direction", "dimensions", "axes"),
    [("x", 2, {-2}), ("y", 2, {-1}), ("none", 2, {-1, -2}), ("z", 3, {-1, -2}), ("x", 1, set())],
)
def test_mirrored_is_what_the_noise_does_not_run_along(direction, dimensions, axes):
    model = build(1, dimensions=dimensions, noise_direction=direction, receptive_field=8 * (direction != "none"))
    assert set(model.architecture.mirrored_axes) == axes


def sample_batches(model: DVLAE, image: np.ndarray, **settings) -> list[dvlae.inference.prediction.SampleBatch]:
    with torch.inference_mode():
        return list(sample_posterior(model, image, name="a", seed=0, settings=PredictionSettings(**settings)))


def test_samples_are_divided_over_the_mirror_images(monkeypatch):
    monkeypatch.setattr(
        dvlae.inference.prediction, "noise_key", lambda seed, name, number, level: level
    )  # all samples alike
    model, image = build(), noisy(24, 24)
    straight = sample_batches(model, image, samples=4, flips=False, shifts=1)
    mirrored = sample_batches(model, image, samples=4, shifts=1)
    other_way = sample_batches(model, image[:, ::-1], samples=4, flips=False, shifts=1)
    assert [list(part.numbers) for part in mirrored] == [[0, 2], [1, 3]]
    torch.testing.assert_close(mirrored[0].values, straight[0].values[:2])
    torch.testing.assert_close(mirrored[1].values, other_way[0].values[:2].flip(-2))


@pytest.mark.parametrize(("samples", "numbers"), [
    (12, [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]),
    (5, [[0, 3], [1, 4], [2]]),  # no more places than pairs of samples
    (1, [[0]]),
])  # fmt: skip
def test_samples_are_divided_over_the_shifted_images(samples, numbers):
    parts = sample_batches(build(), noisy(24, 30), samples=samples, flips=False, shifts=4)
    assert [list(part.numbers) for part in parts] == numbers


def test_a_shifted_image_is_the_same_image():
    model, image = build(), noisy(40, 56)
    straight, shifted = (run(model, image, samples=64, shifts=shifts)[0] for shifts in (1, 4))
    difference = (straight - shifted)[:, 16:-16, 16:-16]
    assert 0 < np.abs(difference).max() < 0.3 * image.std()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("levels", "levels_per_scale"), [(1, 1), (1, 2), (4, 1), (5, 2)])
def test_the_direct_denoiser_gives_the_same_tiled_as_whole(levels, levels_per_scale, dimensions):
    model = build(levels, levels_per_scale, direct_denoiser="mean", dimensions=dimensions)
    image = noisy(*SHAPES[dimensions])
    one, other = (
        dvlae.inference.prediction.denoise_directly(model, image, name="a", settings=PredictionSettings(tile=tile))
        for tile in ("auto", 16)
    )
    assert one.shape == image.shape
    assert np.abs(one - other).max() < 1e-3 * image.std()


def test_a_direct_estimate_takes_one_pass_and_draws_nothing(monkeypatch):
    model, calls = build(direct_denoiser="mean"), []
    model.direct_denoiser.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(dvlae.inference.prediction, "normal_noise", lambda *_: pytest.fail("noise was drawn"))
    dvlae.inference.prediction.denoise_directly(model, noisy(30, 30), name="a", settings=PredictionSettings())
    assert len(calls) == 1


def test_an_untrained_direct_denoiser_shows_the_signal_of_the_mean_latents(monkeypatch):
    model, image = build(direct_denoiser="mean"), noisy(30, 30)
    torch.nn.init.zeros_(model.direct_denoiser.head.weight)
    torch.nn.init.zeros_(model.direct_denoiser.head.bias)
    monkeypatch.setattr(dvlae.inference.prediction, "normal_noise", lambda *_: torch.zeros(()))
    sample, _ = run(model, image, samples=1)
    estimate = dvlae.inference.prediction.denoise_directly(model, image, name="a", settings=PredictionSettings())
    np.testing.assert_allclose(estimate, sample, atol=1e-3)


def test_a_model_without_direct_denoiser_says_so():
    with pytest.raises(UserError, match="trained without; train with model.direct_denoiser"):
        dvlae.inference.prediction.denoise_directly(build(), noisy(16, 16), name="a", settings=PredictionSettings())


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (13, 8), (64, 65), (3,), (40,), (1, 1, 1), (3, 9, 17)])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_size_comes_back_in_its_size(shape, channels):
    model = build(channels=channels, dimensions=len(shape))
    mean, std = run(model, noisy(*shape, channels=channels), samples=2)
    assert mean.shape == std.shape == (channels, *shape)
    assert np.isfinite(mean).all()


def test_a_single_sample_has_no_deviation():
    assert run(build(), noisy(16, 16), samples=1)[1] is None


def test_other_channels_than_the_models_are_refused():
    with pytest.raises(UserError, match="2 channels.*trained on 1"):
        run(build(), noisy(16, 16, channels=2), samples=1)


def test_other_axes_than_the_models_are_refused():
    with pytest.raises(UserError, match="3 spatial axes.*trained on 2"):
        run(build(), noisy(4, 16, 16), samples=1)


def test_small_images_are_not_tiled_and_huge_ones_leave_small_maps():
    strides = build().ladder_vae.strides
    assert choose_split((512, 512), 512, strides) == 3  # all levels in the one tile
    assert choose_split((1024, 1024), 512, strides) == 1
    assert choose_split((16384, 16384), 1024, strides) == 3
    assert choose_split((64, 1000, 1000), 96, strides) == 2


def predict_two(tmp_path, images_folder, **prediction):
    save_model(build(direct_denoiser="mean"), tmp_path)
    images = images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16)})
    settings = validate(PredictSettings, {"prediction": prediction, "device": "cpu"}, "test")
    folders = [tmp_path / name for name in ("denoised", "uncertainty", "samples")]
    predict(tmp_path, images, *folders, seed=0, settings=settings)
    return folders


def test_predict_writes_one_image_and_one_deviation_each(tmp_path, images_folder):
    denoised, uncertainty, samples = predict_two(tmp_path, images_folder, samples=2)
    for folder in (denoised, uncertainty):
        assert sorted(path.name for path in folder.iterdir()) == ["a b.tif", "c.tif"]
    assert read_canonical(denoised / "a b.tif").shape == (1, 20, 30)
    assert list(samples.iterdir()) == []


def test_predict_writes_the_first_samples_where_they_are_asked_for(tmp_path, images_folder):
    denoised, _, samples = predict_two(tmp_path, images_folder, samples=3, save_samples=3)
    written = tifffile.imread(samples / "a b.tif", squeeze=False)
    assert written.shape == (3, 1, 20, 30)
    np.testing.assert_allclose(written.mean(0), read_canonical(denoised / "a b.tif"), atol=1e-3)


def test_predict_writes_the_direct_estimate_and_no_deviation(tmp_path, images_folder):
    denoised, uncertainty, _ = predict_two(tmp_path, images_folder, estimator="direct")
    assert read_canonical(denoised / "a b.tif").shape == (1, 20, 30)
    assert list(uncertainty.iterdir()) == []


def test_predict_writes_the_median_and_leaves_no_scratch_file(tmp_path, images_folder):
    denoised, _, samples = predict_two(tmp_path, images_folder, samples=3, save_samples=3, estimator="median")
    assert sorted(path.name for path in denoised.iterdir()) == ["a b.tif", "c.tif"]
    written = tifffile.imread(samples / "a b.tif", squeeze=False)
    np.testing.assert_array_equal(read_canonical(denoised / "a b.tif"), np.median(written, axis=0))


@pytest.mark.parametrize(("samples", "denoised_again"), [(2, ["c"]), (3, ["a b", "c"])])
def test_an_interrupted_prediction_goes_on_after_the_last_image_unless_settings_changed(
    tmp_path, images_folder, monkeypatch, samples, denoised_again
):
    save_model(build(), tmp_path)
    images, names, usual = (
        images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16)}),
        [],
        dvlae.inference.prediction.denoise,
    )

    def start(samples, folder, fails_at=None):
        def denoise(*arguments, name, **keys):
            names.append(name)
            if name == fails_at:
                raise KeyboardInterrupt
            return usual(*arguments, name=name, **keys)

        monkeypatch.setattr(dvlae.inference.prediction, "denoise", denoise)
        settings = validate(PredictSettings, {"prediction": {"samples": samples}, "device": "cpu"}, "test")
        predict(tmp_path, images, folder / "d", folder / "u", seed=0, settings=settings)
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.tif")}

    with pytest.raises(KeyboardInterrupt):
        start(2, tmp_path / "run", fails_at="c")
    assert not (tmp_path / "run/d").exists()
    names.clear()
    resumed = start(samples, tmp_path / "run")
    assert names == denoised_again
    assert resumed == start(samples, tmp_path / "undisturbed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="unavailable: a machine without a GPU")
def test_asking_for_a_gpu_where_none_is_leaves_nothing_behind(tmp_path, images_folder):
    save_model(build(), tmp_path)
    settings = validate(PredictSettings, {"device": "cuda"}, "test")
    with pytest.raises(UserError, match="device: found 'cuda'"):
        predict(tmp_path, images_folder(a=noisy(16, 16)), tmp_path / "d", tmp_path / "u", seed=0, settings=settings)
    assert not (tmp_path / "d").exists()


def test_each_second_sample_of_a_view_takes_the_opposite_noise(monkeypatch):
    seen = []
    usual = dvlae.inference.prediction.normal_noise
    monkeypatch.setattr(
        dvlae.inference.prediction, "normal_noise", lambda keys, *rest: [seen.append(keys), usual(keys, *rest)][1]
    )
    run(build(levels=1), noisy(16, 16), samples=5, batch_size=8, flips=False, shifts=1)
    first, second, third, fourth, fifth = seen[0]
    assert (second, fourth) == (~first, ~third)
    assert len({first, third, fifth}) == 3
