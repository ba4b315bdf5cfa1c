import numpy as np
import pytest

from dvlae.data.defects import measure_scale
from dvlae.data.defects.scale import find_exceptions, find_mixed
from dvlae.data.defects.seen import SeenScale


def cells(seed, exposure=1.0, shape=(96, 96)):
    from scipy import ndimage

    random = np.random.default_rng([19, seed])
    signal = ndimage.gaussian_filter(random.random(shape), 3)
    signal = (signal - signal.min()) / np.ptp(signal)
    return random.poisson(exposure * (100 + 200 * signal)).astype(np.float32)[None]


def test_mean_and_deviation_are_those_of_the_pixels_that_count():
    image = cells(0)
    counts = np.random.default_rng(0).random(image.shape) < 0.5
    for chosen, values in ((None, image), (counts, image[counts])):
        scale = measure_scale(image, chosen)
        assert scale.mean == pytest.approx([values.mean(dtype=np.float64)])
        assert scale.std == pytest.approx([values.std(dtype=np.float64)])


@pytest.mark.parametrize("shape", [(400,), (60, 70), (8, 40, 50)])
def test_the_noise_is_that_of_white_noise(shape):
    noise = np.random.default_rng(1).normal(100, 7, (1, *shape))
    assert measure_scale(noise).noise == pytest.approx([7], rel=0.1)


def test_the_noise_of_counted_photons_is_not_zero():
    counted = np.random.default_rng(2).poisson(0.1, (1, 96, 96))
    assert measure_scale(counted).noise[0] > 0.1


def test_one_frame_of_a_flash_or_another_gain_is_an_exception():
    frames = [cells(0), cells(1), cells(2), 150 * cells(3)]
    assert find_exceptions([measure_scale(frame) for frame in frames]) == [False, False, False, True]


def test_a_cell_in_a_few_of_many_empty_frames_is_no_exception():
    random = np.random.default_rng(3)
    frames = [random.normal(100, 3, (1, 96, 96)) for _ in range(20)]
    for frame in frames[:3]:
        frame[:, 20:60, 30:70] += 5000
    assert not any(find_exceptions([measure_scale(frame) for frame in frames]))


def test_frames_of_a_bleaching_movie_are_no_exceptions():
    assert not any(find_exceptions([measure_scale(cells(i, 0.9**i)) for i in range(30)]))


def test_half_of_the_frames_are_no_exception_but_mixed():
    scales = [measure_scale(frame) for i in range(3) for frame in (cells(i), 256 * cells(i))]
    assert not any(find_exceptions(scales))
    assert sum(find_mixed(scales)) == 3
    assert not any(find_mixed(scales[::2]))


SEEN = SeenScale.of([measure_scale(cells(i)) for i in range(4)])


def test_images_like_those_that_were_seen_are_included():
    assert all(SEEN.includes(measure_scale(cells(i))) for i in range(10, 30))
    assert SeenScale.from_json(SEEN.to_json()).includes(measure_scale(cells(40)))


@pytest.mark.parametrize("exposure", [1 / 16, 1 / 4, 4, 16])
def test_another_exposure_is_not_included_and_no_gain_explains_it(exposure):
    scale = measure_scale(cells(50, exposure))
    assert not SEEN.includes(scale)
    assert SEEN.conversion(scale) is None


@pytest.mark.parametrize(
    ("exposure", "gain", "offset", "difference"),
    [
        (16, 1, 0, "brightness"),
        (64, 1, 500, "brightness"),
        (1, 256, 0, "gain or bit depth"),
        (1, 1 / 256, 100, "gain or bit depth"),
        (3, 1, 0, "brightness, gain or offset"),
        (1 / 4, 1, 0, "brightness, gain or offset"),
        (1, 3, 0, "brightness, gain or offset"),
        (1, 1, 1000, "brightness, gain or offset"),
        (1, 1, 0, ""),
    ],
)
def test_what_differs_is_said_only_where_it_can_be_told(exposure, gain, offset, difference):
    for seed in range(70, 76):
        scale = measure_scale(gain * cells(seed, exposure) + offset)
        assert SEEN.difference(scale) == difference
        assert (difference == "brightness") <= (SEEN.conversion(scale) is None)


def test_noise_without_contrast_does_not_tell_gain_from_brightness():
    dark = [np.random.default_rng(seed).poisson(30, (1, 96, 96)) for seed in range(3)]
    seen = SeenScale.of([measure_scale(frame) for frame in dark])
    assert seen.difference(measure_scale(256.0 * dark[0])) == "brightness, gain or offset"


@pytest.mark.parametrize(("gain", "offset"), [(256, 0), (1 / 256, 0), (1, 1000), (1, -100), (8, 500)])
def test_gain_and_offset_are_found_and_undone(gain, offset):
    image = cells(60)
    other = gain * image + offset
    scale = measure_scale(other)
    assert not SEEN.includes(scale)
    conversion = SEEN.conversion(scale)
    assert SEEN.includes(conversion.of_scale(scale))
    converted = conversion.apply(other)
    assert np.abs(converted - image).mean() < 0.3 * image.std()
    assert conversion.undo(converted) == pytest.approx(other, rel=1e-4)
    assert conversion.scale_deviation(np.ones_like(image)) == pytest.approx(conversion.gain[0] * np.ones_like(image))


@pytest.mark.parametrize("gain", [0.5, 0.65, 1.55, 2])
def test_another_gain_is_found_where_the_grey_values_are_those_that_were_seen(gain):
    image = cells(60)
    scale = measure_scale(gain * (image - image.mean()) + image.mean())
    assert SEEN.levels[0, 0] < scale.median < SEEN.levels[0, 1]
    assert not SEEN.includes(scale)
    assert SEEN.conversion(scale).gain == pytest.approx([gain], rel=0.1)


@pytest.mark.parametrize("shape", [(160, 130), (9, 60, 50), (9000,)])
@pytest.mark.parametrize("some", [False, True])
def test_the_scale_of_a_large_frame_is_measured_in_bands(shape, some, small_bands):
    random = np.random.default_rng([19, *shape])
    frame = random.poisson(50, (2, *shape)).astype(np.float32)
    counts = random.random(frame.shape) > 0.1 if some else None
    whole = measure_scale(frame, counts)
    small_bands()
    for name, value in vars(measure_scale(frame, counts)).items():
        assert value == pytest.approx(getattr(whole, name), rel=1e-12)
