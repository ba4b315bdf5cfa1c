import numpy as np
import pytest
import torch

from dvlae.config.settings import PredictionSettings
from dvlae.inference import estimates, latent_noise, samples
from dvlae.inference.direct import count_passes, denoise_directly
from dvlae.inference.estimates import denoise, median
from dvlae.inference.latent_noise import NoiseKey
from dvlae.inference.samples import SampleBatch, choose_precision, sample_posteriors
from dvlae.models.dvlae import DVLAE
from dvlae.models.layers import cut_padding
from dvlae.system import arrays
from dvlae.system.errors import UserError
from dvlae.system.workers import ThreadWorkers
from untrained import build, noisy

SHAPES = {1: (1500,), 2: (150, 170), 3: (8, 36, 42)}  # of test images, by the number of spatial axes


def run(model: DVLAE, image: np.ndarray, name: str = "a", seed: int = 1, keep=(), **settings):
    return denoise(model, image, name=name, seed=seed, settings=PredictionSettings(**settings), keep=keep)


def test_mean_and_deviation_are_those_of_the_samples():
    model, image = build(), noisy(24, 24)
    kept = np.zeros((6, *image.shape))
    mean, std = run(model, image, samples=6, batch_size=2, keep=[kept])
    np.testing.assert_allclose(mean, np.mean(kept, 0), atol=1e-3)
    np.testing.assert_allclose(std, np.std(kept, 0), atol=1e-3)


@pytest.mark.parametrize("network", ["dvlae", "paper"])
def test_samples_in_bfloat16_are_close_to_those_in_float32_and_tiled_like_whole(network):
    model, image = build(network=network), noisy(70, 90)
    exact, rounded, tiled = (
        run(model, image, samples=8, precision=precision, tile=tile)
        for precision, tile in (("32", 128), ("bf16", 128), ("bf16", 32))
    )
    for one, other, again in zip(exact, rounded, tiled, strict=True):
        for difference in (one - other, again - other):
            assert 0 < difference.std() < 0.003 * image.std()
            assert np.abs(difference).max() < 0.02 * image.std()
    # The last layer has all digits.
    normalised = model.normalise(torch.from_numpy(run(model, image, samples=1, precision="bf16")[0])[None])
    assert (normalised == normalised.bfloat16()).float().mean() < 0.1


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("settings", "noise", "suits"),
    [
        ({}, 0.07, True),
        ({}, 0.04, False),
        ({}, None, False),
        ({"estimator": "median"}, 0.07, True),
        ({"estimator": "direct"}, 0.07, False),
    ],
)
def test_bfloat16_is_for_samples_and_strong_noise(monkeypatch, settings, noise, suits, fast):
    monkeypatch.setattr(samples, "has_fast_bfloat16", lambda device: fast)
    expected = "bf16" if suits and fast else "32"
    assert choose_precision(build(), PredictionSettings(**settings), noise) == expected
    for precision in ("32", "bf16"):
        assert choose_precision(build(), PredictionSettings(precision=precision, **settings), noise) == precision


def test_volumes_on_a_processor_have_32_bits():
    model, image = build(dimensions=3), noisy(*SHAPES[3])
    for one, other in zip(run(model, image, precision="bf16"), run(model, image), strict=True):
        np.testing.assert_array_equal(one, other)
    assert choose_precision(model, PredictionSettings(precision="bf16"), 1.0) == "32"


@pytest.mark.parametrize("estimator", ["mmse", "median"])
def test_what_is_kept_in_files_has_the_same_bytes(monkeypatch, estimator):
    model, image = build(), noisy(40, 50, channels=1)
    in_memory = run(model, image, samples=4, estimator=estimator, tile=16)
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 0)
    monkeypatch.setattr(estimates, "MAX_VALUES", 100)
    # An image need not be float32, nor in memory.
    in_files = run(model, image.astype(np.uint8), samples=4, estimator=estimator, tile=16)
    assert isinstance(in_files[1].base, np.memmap)
    for one, other in zip(in_memory, in_files, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_median_is_taken_pixel_by_pixel(monkeypatch):
    samples = np.random.default_rng(0).random((5, 2, 7, 9)).astype(np.float32)
    monkeypatch.setattr(estimates, "MAX_VALUES", 100)  # a few rows at a time
    np.testing.assert_array_equal(median(samples), np.median(samples, 0))


def sample_batches(model: DVLAE, image: np.ndarray, **settings) -> list[SampleBatch]:
    with torch.inference_mode():
        how = PredictionSettings(**settings)
        return list(sample_posteriors(model, [("a", image)], seed=0, settings=how, threads=ThreadWorkers()))


def test_samples_are_divided_over_the_mirror_images(monkeypatch):
    # All samples are alike.
    monkeypatch.setattr(latent_noise, "noise_key", lambda seed, name, number, level: NoiseKey(level))
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
@pytest.mark.parametrize(
    ("levels", "levels_per_scale", "kind"),
    [(1, 1, "mean"), (1, 2, "mean"), (4, 1, "mean"), (5, 2, "mean"), (3, 1, "refined")],
)
def test_the_direct_denoiser_gives_the_same_tiled_as_whole(levels, levels_per_scale, kind, dimensions):
    model = build(levels, levels_per_scale, direct_denoiser=kind, dimensions=dimensions)
    image = noisy(*SHAPES[dimensions])
    one, other = (
        denoise_directly(model, image, name="a", settings=PredictionSettings(tile=tile, shifts=2))
        for tile in ("auto", 16)
    )
    assert one.shape == image.shape
    assert np.abs(one - other).max() < 1e-3 * image.std()


ONE_VIEW = PredictionSettings(flips=False, shifts=1)


@pytest.mark.parametrize(
    ("settings", "views"), [({}, 2), ({"flips": False}, 2), ({"shifts": 1}, 2), ({"flips": False, "shifts": 1}, 1)]
)
def test_a_direct_estimate_takes_a_pass_for_each_view_and_draws_nothing(monkeypatch, settings, views):
    model, calls = build(direct_denoiser="mean"), []
    model.direct_denoiser.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(latent_noise, "normal_noise", lambda *_: pytest.fail("noise was drawn"))
    settings = PredictionSettings(**settings)
    denoise_directly(model, noisy(30, 30), name="a", settings=settings)
    assert len(calls) == views
    assert count_passes(model, settings) == 2 * views


def test_a_direct_estimate_is_the_mean_of_its_views():
    model, image = build(direct_denoiser="mean", noise_direction="x"), noisy(32, 48)
    both = denoise_directly(model, image, name="a", settings=PredictionSettings(shifts=1))
    one, mirrored = (
        denoise_directly(model, np.ascontiguousarray(view), name="a", settings=ONE_VIEW)
        for view in (image, image[:, ::-1])
    )
    np.testing.assert_allclose(both, (one + mirrored[:, ::-1]) / 2, rtol=0, atol=1e-3 * image.std())
    assert np.abs(one - both).max() > 1e-2 * np.abs(one - image.mean()).max()


def test_an_untrained_direct_denoiser_shows_the_signal_of_the_mean_latents(monkeypatch):
    model, image = build(direct_denoiser="mean"), noisy(30, 30)
    torch.nn.init.zeros_(model.direct_denoiser.head.weight)
    torch.nn.init.zeros_(model.direct_denoiser.head.bias)
    monkeypatch.setattr(latent_noise, "normal_noise", lambda *_: torch.zeros(()))
    sample, _ = run(model, image, samples=1)
    estimate = denoise_directly(model, image, name="a", settings=ONE_VIEW)
    np.testing.assert_allclose(estimate, sample, atol=1e-3)


def test_a_refined_denoiser_is_the_mean_of_its_passes_through_all_views():
    model, image = build(direct_denoiser="refined", noise_direction="x"), noisy(32, 48)
    stride = model.stride[0]

    def one_pass(view):
        x = model.pad(model.normalise(torch.from_numpy(np.ascontiguousarray(view))[None]))
        with torch.inference_mode():
            signal = cut_padding(model.denormalise(model.direct_denoiser(x)), view.shape[1:])
        return signal[0].numpy()

    both = denoise_directly(model, image, name="a", settings=PredictionSettings(shifts=1))
    expected = (one_pass(image) + one_pass(image[:, ::-1])[:, ::-1]) / 2
    np.testing.assert_allclose(both, expected, rtol=0, atol=1e-3 * image.std())
    assert count_passes(model, PredictionSettings(shifts=4)) == 2 * min(4, stride)


def test_the_progress_of_a_refined_denoiser_ends_with_its_passes():
    model, image, done = build(direct_denoiser="refined"), noisy(30, 31), []
    how = PredictionSettings()
    denoise_directly(model, image, name="a", settings=how, on_progress=done.append)
    assert sum(done) == count_passes(model, how) * image[0].size


def test_a_refined_denoiser_leaves_the_samples_as_they_are():
    model, image = build(direct_denoiser="refined"), noisy(30, 30)
    plain = build()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    np.testing.assert_array_equal(run(model, image, samples=2)[0], run(plain, image, samples=2)[0])


def test_a_model_without_direct_denoiser_says_so():
    with pytest.raises(UserError, match=r"trained without; train with model.direct_denoiser"):
        denoise_directly(build(), noisy(16, 16), name="a", settings=PredictionSettings())


def test_a_single_sample_has_no_deviation():
    assert run(build(), noisy(16, 16), samples=1)[1] is None


def test_each_second_sample_of_a_view_takes_the_opposite_noise(monkeypatch):
    seen = []
    usual = latent_noise.normal_noise
    monkeypatch.setattr(latent_noise, "normal_noise", lambda keys, *rest: [seen.append(keys), usual(keys, *rest)][1])
    run(build(levels=1), noisy(16, 16), samples=5, batch_size=8, flips=False, shifts=1)
    first, second, third, fourth, fifth = seen[0]
    assert (second, fourth) == (first.opposite, third.opposite)
    assert len({first, third, fifth}) == 3


def test_without_pairs_each_sample_has_noise_of_its_own_and_the_deviation_is_unbiased(monkeypatch):
    seen = []
    usual = latent_noise.normal_noise
    monkeypatch.setattr(latent_noise, "normal_noise", lambda keys, *rest: [seen.extend(keys), usual(keys, *rest)][1])
    model, image = build(levels=1), noisy(16, 16)
    kept = np.zeros((5, *image.shape))
    how = {"flips": False, "shifts": 1, "batch_size": 8, "antithetic": False}
    mean, std = run(model, image, samples=5, keep=[kept], **how)
    assert len(set(seen) | {key.opposite for key in seen}) == 10
    np.testing.assert_allclose(mean, np.mean(kept, 0), atol=1e-3)
    np.testing.assert_allclose(std, np.std(kept, 0, ddof=1), atol=1e-3)
    assert run(model, image, samples=1, **how)[1] is None
    parts = sample_batches(build(), noisy(24, 30), samples=3, flips=False, shifts=4, antithetic=False)
    assert [list(part.numbers) for part in parts] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("direction", "dimensions", "axes"),
    [("x", 2, {-2}), ("y", 2, {-1}), ("none", 2, {-1, -2}), ("z", 3, {-1, -2}), ("x", 1, set())],
)
def test_mirrored_is_what_the_noise_does_not_run_along(direction, dimensions, axes):
    model = build(1, dimensions=dimensions, noise_direction=direction, receptive_field=8 * (direction != "none"))
    assert set(model.architecture.mirrored_axes) == axes
