import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import EvaluationSettings
from dvlae.evaluation import diagnosis
from dvlae.evaluation.diagnosis import measure_noise
from dvlae.evaluation.noise_samples import estimate_noise, known_noise
from dvlae.evaluation.target import Target
from noisy_images import disk, noise, scene


def measure(*images: np.ndarray, channels: bool = False, counts=None, configured=None) -> dict:
    """Return what is found in images without clean ones, (Y, X), or with channels (C, Y, X)."""
    samples = []
    for image in images:
        image = np.asarray(image, np.float32) if channels else np.asarray(image, np.float32)[None]
        samples.append(estimate_noise(image, np.isfinite(image) if counts is None else counts))
    return measure_noise(samples, dataset="made up", configured_direction=configured)[0]


def cannot_be_told(found: dict, *words: str) -> bool:
    keys = ("direction", "correlation_length", "receptive_field", "warning")
    return [found[key] for key in keys] == [None] * 4 and all(word in found["reason"] for word in words)


def test_noise_along_two_axes_is_warned_of():
    correlation = {"x": [1, 0.5], "y": [1, 0.3]}
    warning = diagnosis.find_contradiction(correlation, "x", "x")
    assert "more than x" in warning and "0.30 along y" in warning


def test_the_length_ends_where_the_correlation_first_is_negligible():
    assert diagnosis.correlation_length([1, 0.5, 0.06, 0.04, 0.2]) == 2
    assert diagnosis.correlation_length([1, 0.5, 0.4]) == 2
    assert diagnosis.correlation_length([1, 0.5, np.nan]) == 1


@pytest.mark.parametrize(("length", "field"), [(0, 0), (1, 4), (2, 4), (5, 12), (10**6, 304)])
def test_the_suggested_receptive_field_is_the_next_that_can_be_had_from_twice_the_length(length, field):
    assert diagnosis.suggest_receptive_field(length) == field


# Noise that has a direction, or none ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("along", ["none", "x", "y"])
def test_the_direction_is_found(along, seed):
    found = measure(scene(seed) + 10 * noise(seed, along=along))
    assert found["direction"] == along
    if along != "none":
        assert found["autocorrelation"][along][:3] == pytest.approx([1, 0.6, 0.36], abs=0.06)


@pytest.mark.parametrize("along", ["none", "x", "y"])
def test_the_level_is_the_standard_deviation_in_the_span_of_grey_values(along):
    images = [scene(seed) + 10 * noise(seed, along=along) for seed in range(3)]
    span = np.median([np.ptp(np.percentile(image, (1, 99))) for image in images])
    assert measure(*images)["noise_level"] == pytest.approx(10 / span, rel=0.05)


@pytest.mark.parametrize("along", ["none", "x", "y", "z"])
def test_the_direction_is_found_in_volumes(along):
    shape = (16, 64, 80)
    assert measure(scene(0, shape) + 10 * noise(1, shape, along))["direction"] == along


@pytest.mark.parametrize("photons", [0.1, 1, 20, 10_000])
@pytest.mark.parametrize("along", ["none", "x"])
def test_the_direction_of_counts_is_found(photons, along):
    counts = np.random.default_rng(0).poisson(photons, (300, 301))
    # Every count is seen by its right neighbour, too.
    counts = counts[:, 1:] + (counts[:, :-1] if along == "x" else 0)
    assert measure(counts)["direction"] == along


def test_rows_that_are_brighter_as_a_whole_are_noise_along_them():
    found = measure(scene(0, (256, 256)) + 10 * noise(1, (256, 256)) + 10 * noise(2, (256, 1)))
    assert found["direction"] == "x"
    assert found["correlation_length"] == diagnosis.suggest_receptive_field(20)


def test_saturation_does_not_turn_the_direction():
    image = np.clip(scene() + 20 * noise(along="x") + 60, 0, 200).round()
    assert measure(image, counts=image[None] < 200)["direction"] == "x"


@pytest.mark.parametrize("along", ["none", "x", "y"])
@pytest.mark.parametrize(
    "respond",
    [
        pytest.param(lambda signal: signal, id="proportional"),
        pytest.param(lambda signal: 1.3 * signal + 5, id="brighter"),
        pytest.param(lambda signal: 30 * np.sqrt(signal), id="root"),
        pytest.param(lambda signal: (signal - 60).clip(0), id="clipped"),
    ],
)
def test_what_noise_is_on_average_at_each_signal_is_no_correlation(respond, along):
    samples = []
    for seed in range(3):
        clean = scene(seed)
        noisy = (respond(clean) + 10 * noise(seed, along=along)).clip(0).astype(np.float32)[None]
        target = Target.build(noisy, clean.astype(np.float32)[None], EvaluationSettings(noise_free=True))
        samples.append(known_noise(noisy, np.isfinite(noisy), target))
    found, curves = measure_noise(samples, dataset="made up", configured_direction=along)
    assert (found["direction"], found["warning"]) == (along, None)
    for axis, lags in found["autocorrelation"].items():
        assert lags[1] == pytest.approx(0.6 if axis == along else 0, abs=0.06)
    assert curves[0][1].max() == pytest.approx(100, rel=0.25)


# What may be mistaken for it ------------------------------------------------------------------------------------------


def test_pixels_around_a_round_field_of_view_do_not_count():
    image = np.where(disk(), 150 + 10 * noise(0, (256, 256), "x"), 0).round().clip(0, 255)
    assert np.mean(image == 0) > 0.5
    found = measure(image)
    assert (found["direction"], found["receptive_field"]) == ("x", 12)


def test_a_background_clipped_at_zero_does_not_count():
    background = 10 * noise(0, (256, 256), "x") - 30
    found = measure((background + 100 * disk(radius=90)).clip(0).round())
    assert found["direction"] == "x"


def test_each_channel_is_judged_by_itself():
    image = np.stack([150 + 10 * noise(0, (256, 256)), 45_000 + 3000 * noise(1, (256, 256), "x")])
    for channels in (image, image[::-1]):
        found = measure(channels, channels=True)
        assert (found["direction"], found["correlation_length"]) == ("x", pytest.approx(6, abs=2))
        assert sorted(channel["direction"] for channel in found["channels"]) == ["none", "x"]


def test_channels_that_contradict_each_other_leave_it_open():
    image = np.stack([100 + 10 * noise(0, (256, 256), along) for along in "xy"])
    assert cannot_be_told(measure(image, channels=True), "channels", "0 along x, 1 along y", "`channel`")


def test_images_that_contradict_each_other_leave_it_open():
    images = [100 + 10 * noise(seed, along="xy"[seed % 2]) for seed in range(4)]
    assert cannot_be_told(measure(*images), "images contradict", "2 along x, 2 along y")


def test_one_odd_image_turns_no_direction():
    found = measure(*(50 + noise(seed, along=axis) for seed, axis in enumerate("xxy")))
    assert (found["direction"], found["basis"], found["images"]) == ("x", "estimate", 3)
    assert len(found["variance_slope"]) == 1


def test_a_nearly_blank_image_hides_no_lag_of_the_others():
    images = [scene(seed) + 10 * noise(seed, along="x") for seed in range(3)]
    blank = np.zeros_like(images[0])
    blank[-9:-2, 20:60] = np.random.default_rng(0).normal(100, 10, (7, 40))
    found = measure(*images, blank)
    assert found["direction"] == "x"
    assert found["autocorrelation"]["x"] == measure(*images)["autocorrelation"]["x"]


def test_an_image_of_which_little_counts_hides_no_lag_of_the_others():
    images = [scene(seed) + 10 * noise(seed, along="x") for seed in range(3)]
    expected = measure(*images[1:])
    images[0][:, 30:] = np.nan
    for found in (measure(*images), measure(images[0][:, :30], *images[1:])):
        assert (found["direction"], found["reason"]) == ("x", None)
        assert found["correlation_length"] == pytest.approx(expected["correlation_length"], abs=1)
        assert len(found["autocorrelation"]["x"]) == len(expected["autocorrelation"]["x"])


@pytest.mark.parametrize("width", [5, 8])
def test_the_length_is_told_only_where_pixels_at_its_distance_count(width):
    image = 100 + 10 * noise(0, (256, 256), "x", rho=0.95)
    image[:, np.arange(256) % 40 >= width] = np.nan
    found = measure(image)
    assert (found["direction"], found["correlation_length"], found["receptive_field"]) == ("x", None, None)
    assert f"pairs of pixels at a distance of {width - 1} px count, which are too few" in found["reason"]


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1])
def test_blurred_noise_has_no_direction(sigma):
    assert cannot_be_told(measure(scene() + 10 * ndimage.gaussian_filter(noise(), sigma)), "alike", "blur")


@pytest.mark.parametrize("order", [1, 3])
def test_interpolated_images_have_no_direction(order):
    images = [ndimage.shift(100 + 10 * noise(seed), (0.5, 0.45), order=order, mode="nearest") for seed in range(3)]
    assert cannot_be_told(measure(*images), "alike", "interpolation")


def test_magnified_images_have_no_direction():
    assert cannot_be_told(measure(ndimage.zoom(100 + 10 * noise(), 2, order=1)), "alike")


@pytest.mark.parametrize(
    "image",
    [
        scene(),
        scene().round(),
        ndimage.gaussian_filter(scene(), 2),
        np.linspace(0, 255, 256)[None] + np.linspace(0, 100, 256)[:, None],
        (np.linspace(0, 255, 256)[None] + np.linspace(0, 100, 256)[:, None]).round(),
        disk().astype(float),
        np.arange(256.0)[None].repeat(256, 0),
    ],
    ids=["blobs", "rounded blobs", "soft blobs", "ramp", "rounded ramp", "disk", "rows"],
)
def test_clean_images_leave_it_open(image):
    assert cannot_be_told(measure(image))


def texture(seed: int, along: float, across: float) -> np.ndarray:
    return 100 + 500 * ndimage.gaussian_filter(noise(seed, (256, 256)), (across, along))


@pytest.mark.parametrize("weak", [0, 0.3])
def test_texture_is_not_noise(weak):
    fibres = texture(0, along=8, across=1.0)
    assert cannot_be_told(measure(fibres + weak * fibres.std() * noise(1, (256, 256)) / 10), "texture")


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (4, 200), (32, 32)])
def test_a_few_pixels_do_not_suffice(shape):
    assert cannot_be_told(measure(100 + noise(0, shape)), "too few")


def test_an_image_without_any_pixel_that_counts_leaves_it_open():
    assert cannot_be_told(measure(np.full((64, 64), 3.0)), "no pixel counts")
    assert cannot_be_told(measure(np.full((64, 64), np.nan)), "no pixel counts")


def test_pixels_that_are_not_numbers_do_not_count():
    image = scene(0, (256, 256)) + 10 * noise(0, (256, 256), "x")
    image[:20] = image[:, -7:] = np.nan
    found = measure(image)
    assert found["direction"] == "x"
    assert found["autocorrelation"]["y"][1] == pytest.approx(0, abs=0.06)


def test_a_direction_that_the_noise_contradicts_is_warned_of_only_where_it_can_be_told():
    assert "suggests y" in measure(100 + 10 * noise(along="y"), configured="x")["warning"]
    assert measure(100 + 10 * noise(along="x"), configured="x")["warning"] is None
    assert cannot_be_told(measure(100 + noise(0, (8, 8)), configured="x"), "too few")
