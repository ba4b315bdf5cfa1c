import numpy as np
import pytest

from dvlae.data.defects import fill, find_defects
from dvlae.data.defects.marks import DOUBTFUL, STANDING_OUT

SIDES = (160, 160)


def rng(*seed):
    return np.random.default_rng([17, *seed])


def smooth(random, shape=SIDES, sigma=3):
    from scipy import ndimage

    signal = ndimage.gaussian_filter(random.random(shape), sigma)
    return (signal - signal.min()) / np.ptp(signal)


def cells(random, shape=SIDES):
    return random.poisson(100 + 200 * smooth(random, shape)).astype(np.float32)


def with_pixels(image, places, value):
    image = image.copy()
    image.flat[places] = value
    return image


def spots(random, fwhm, photons, count=60, shape=SIDES, background=0.0, read_noise=0.0):
    """Return single molecules at any subpixel position, with Poisson and read noise."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    signal = np.full(shape, background, float)
    sigma = fwhm / 2.3548
    for y, x in random.uniform(2, shape[0] - 3, (count, 2)):
        signal += photons * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    return (random.poisson(signal) + random.normal(0, read_noise, shape)).astype(np.float32)


def along(random, shape, rho, axis):
    from scipy import signal

    noise = signal.lfilter([(1 - rho**2) ** 0.5], [1, -rho], random.normal(size=shape), axis=axis)
    return noise


@pytest.mark.parametrize("value", [1500, 4095, 65535])
@pytest.mark.parametrize("count", [1, 5, 20, 100])
def test_hot_pixels_are_found_and_nothing_else(count, value):
    random = rng(count, value)
    image = cells(random)
    places = random.choice(image.size, count, replace=False)
    found = find_defects(with_pixels(image, places, value)[None])
    assert np.flatnonzero(found.hot).tolist() == sorted(places)
    assert not found.dead.any() and not found.saturated.any() and not found.blank and not found.overexposed


def test_each_hot_pixel_has_its_own_value():
    random = rng(1)
    image = cells(random)
    places = random.choice(image.size, 30, replace=False)
    found = find_defects(with_pixels(image, places, random.uniform(1000, 60000, 30))[None])
    assert np.flatnonzero(found.hot).tolist() == sorted(places)


@pytest.mark.parametrize("offset", [1, SIDES[1], SIDES[1] + 1])
def test_two_hot_pixels_side_by_side_are_found(offset):
    places = [40 * SIDES[1] + 50, 40 * SIDES[1] + 50 + offset]
    found = find_defects(with_pixels(cells(rng(2)), places, [4095, 3000])[None])
    assert np.flatnonzero(found.hot).tolist() == places


@pytest.mark.parametrize("offset", [1, SIDES[1], SIDES[1] - 1])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.32, 0.4, 0.5, 0.9])
def test_two_hot_pixels_of_any_two_values_are_both_found(offset, ratio):
    places = [40 * SIDES[1] + 50, 40 * SIDES[1] + 50 + offset]
    found = find_defects(with_pixels(cells(rng(35)), places, [60000, 60000 * ratio])[None])
    assert np.flatnonzero(found.hot).tolist() == sorted(places)


@pytest.mark.parametrize("offset", [1, SIDES[1], SIDES[1] + 1, SIDES[1] - 1])
@pytest.mark.parametrize("background", [0.1, 20, 500])
@pytest.mark.parametrize("height", [3000, 60000])
@pytest.mark.parametrize("objects", [1, 3])
def test_equally_bright_pixels_side_by_side_are_doubtful_in_each_frame(offset, background, height, objects):
    places = sorted(place + side for place in (3000, 9100, 15230)[:objects] for side in (0, offset))
    signal = np.full(SIDES, float(background))
    signal.flat[places] += height
    for seed in range(5):
        found = find_defects(100 + rng(50, seed).poisson(signal[None]).astype(np.float32))
        assert np.flatnonzero(found.marks & DOUBTFUL).tolist() == places
        assert not found.single.any() and not found.saturated.any()


@pytest.mark.parametrize("offset", [1, SIDES[1]])
def test_clipped_pixels_side_by_side_are_doubtful_unless_a_single_one_is_clipped_alike(offset):
    places = [3000, 3000 + offset]
    image = with_pixels(cells(rng(51)), places, 4095)
    assert np.flatnonzero(find_defects(image[None]).marks & DOUBTFUL).tolist() == places
    found = find_defects(with_pixels(image, [9000], 4095)[None])
    assert np.flatnonzero(found.hot).tolist() == [*places, 9000] and not found.count(DOUBTFUL)


def test_hot_pixels_at_the_end_of_a_row_and_the_start_of_the_next_are_found():
    places = [(row + 1) * SIDES[1] - 1 + side for row in (20, 90) for side in (0, 1)]
    found = find_defects(with_pixels(cells(rng(36)), places, 4095)[None])
    assert np.flatnonzero(found.hot).tolist() == places


@pytest.mark.parametrize("width", [1, 2])
def test_hot_columns_are_left_alone(width):
    image = cells(rng(37))
    image[:, 40 : 40 + width] += 5000
    image[20:90, 100 : 100 + width] += 5000
    assert nothing_found(image)


@pytest.mark.parametrize("place", [0, 1, SIDES[1] - 1, SIDES[1] + 1, SIDES[0] * SIDES[1] - 1, 80 * SIDES[1]])
def test_hot_pixels_at_the_border_and_in_the_corners_are_found(place):
    found = find_defects(with_pixels(cells(rng(3)), [place], 4095)[None])
    assert np.flatnonzero(found.hot).tolist() == [place]


def test_dead_pixels_are_found():
    random = rng(4)
    image = random.poisson(1000 + 200 * smooth(random)).astype(np.float32)
    places = random.choice(image.size, 10, replace=False)
    found = find_defects(with_pixels(image, places, 0)[None])
    assert np.flatnonzero(found.dead).tolist() == sorted(places)
    assert not found.hot.any()


def test_each_channel_has_its_own_hot_pixels():
    random = rng(5)
    weak, strong = cells(random) / 100, cells(random) * 100
    found = find_defects(np.stack([with_pixels(weak, [700], 60), strong]))
    assert np.argwhere(found.hot).tolist() == [[0, *np.unravel_index(700, SIDES)]]


def test_pixels_that_are_hot_in_every_plane_of_a_volume_are_found():
    random = rng(6)
    volume = random.poisson(100, (9, 60, 70)).astype(np.float32)
    volume[:, 20, 30] = 4000
    found = find_defects(volume[None])
    assert np.array_equal(np.argwhere(found.hot), [[0, z, 20, 30] for z in range(9)])


def test_a_spike_of_one_sample_in_a_trace_is_found():
    trace = with_pixels(rng(7).normal(100, 5, 4000).astype(np.float32), [0, 900, 3999], 2000)
    assert np.flatnonzero(find_defects(trace[None]).hot).tolist() == [0, 900, 3999]


def nothing_found(image):
    found = find_defects(np.asarray(image, np.float32)[None])
    return not found.count(STANDING_OUT)


@pytest.mark.parametrize("fwhm", [1.5, 1.75, 2, 3])
@pytest.mark.parametrize("photons", [5, 10, 30, 100, 1000, 50000])
@pytest.mark.parametrize(("background", "read_noise"), [(0, 0), (0.05, 0), (2, 0), (100, 0), (10, 1.5)])
def test_spots_are_not_eaten(fwhm, photons, background, read_noise):
    for seed in range(4):
        random = rng(8, seed)
        assert nothing_found(spots(random, fwhm, photons, 80, SIDES, background, read_noise))
        assert nothing_found(spots(random, fwhm, photons, 3, SIDES, background, read_noise))


@pytest.mark.parametrize("camera", ["emccd", "clipped", "gain"])
@pytest.mark.parametrize("photons", [10, 40, 200])
def test_single_molecules_of_other_cameras_are_not_eaten(camera, photons):
    for seed in range(6):
        random = rng(9, seed)
        image = spots(random, 1.5, photons, 40, SIDES, 0.3)
        if camera == "emccd":
            image = np.where(image > 0, random.gamma(np.maximum(image, 1e-9), 300), 0) + random.normal(100, 10, SIDES)
        elif camera == "clipped":
            image = (image - 2 + random.normal(0, 1, SIDES)).clip(0)
        else:
            image = np.rint(40 * image + random.normal(100, 5, SIDES))
        assert nothing_found(image)


@pytest.mark.parametrize("mean", [0.0005, 0.003, 0.01, 0.02, 0.03, 0.1, 0.3, 1, 3])
def test_counted_photons_are_not_eaten(mean):
    for seed in range(10):
        assert nothing_found(rng(10, seed).poisson(mean, (256, 256)))


@pytest.mark.parametrize("mean", [0.02, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("clipped", [False, True])
def test_amplified_photons_are_not_eaten(mean, clipped):
    for seed in range(5):
        random = rng(38, seed)
        photons = random.poisson(mean, (256, 256))
        for electrons in (100 * photons, np.where(photons, random.gamma(np.maximum(photons, 1), 300), 0)):
            image = electrons + random.normal(0, 5, photons.shape)
            assert nothing_found(np.rint(image - 5).clip(0) if clipped else image)


@pytest.mark.parametrize("fwhm", [1.5, 2])
@pytest.mark.parametrize("count", [1, 30, 500])
def test_spots_at_the_border_are_not_eaten(fwhm, count):
    rows, columns = np.mgrid[:64, :64]
    for seed in range(10):
        random = rng(39, seed)
        signal = np.full((64, 64), random.choice([0.0, 2.0, 50.0]))
        for y, x in random.uniform(-1, 64, (count, 2)):
            signal += 10 ** random.uniform(1, 4) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.36 * fwhm**2))
        assert nothing_found(random.poisson(signal))
        assert nothing_found(random.poisson(signal).clip(0, 255))


@pytest.mark.parametrize("step", [(0, 2), (0, 3), (4, 0), (2, 2), (3, -3), (0, 5), (2, 1)])
@pytest.mark.parametrize("height", [300, 5000])
def test_dotted_lines_are_not_eaten(step, height):
    for length in (4, 20):
        signal = np.full(SIDES, 20.0)
        dots = np.arange(length)[:, None] * step + [30, 60]
        signal[tuple(dots.T)] += height
        assert nothing_found(rng(40, length).poisson(signal))
        assert nothing_found((rng(40, length).poisson(signal) - 25).clip(0))


def test_hot_pixels_are_found_beside_a_dotted_line():
    image = cells(rng(41))
    image[30, 20:120:3] += 5000
    places = [70 * SIDES[1] + 30, 120 * SIDES[1] + 140]
    assert np.flatnonzero(find_defects(with_pixels(image, places, 4095)[None]).hot).tolist() == places


def test_pulses_of_a_photomultiplier_are_not_eaten():
    for seed in range(10):
        random = rng(11, seed)
        assert nothing_found((random.random((256, 256)) < 0.02) * random.exponential(300, (256, 256)))


@pytest.mark.parametrize("direction", ["row", "column", "diagonal", "short", "two"])
@pytest.mark.parametrize("height", [50, 300, 5000])
def test_lines_of_one_pixel_are_not_eaten(direction, height):
    random = rng(12)
    signal = np.full(SIDES, 20.0)
    if direction == "row":
        signal[70, 3:150] += height
    elif direction == "column":
        signal[:, 33] += height
    elif direction == "diagonal":
        np.fill_diagonal(signal[5:150], 20 + height)
    elif direction == "short":
        signal[60, 20:23] += height
        signal[90:94, 20] += height
    else:
        signal[::7] += height
        signal[:, ::9] += height
    assert nothing_found(random.poisson(signal))


@pytest.mark.parametrize("fraction", [0.0003, 0.001, 0.01, 0.1, 0.5, 0.95])
def test_images_of_two_grey_values_are_left_alone(fraction):
    image = (rng(13).random(SIDES) < fraction) * 255
    assert not find_defects(np.asarray(image, np.float32)[None]).marks.any()
    noisy = (rng(14).random(SIDES) < fraction) * 200 + rng(15).normal(20, 1, SIDES)
    assert nothing_found(noisy) or fraction < 0.01


def test_backgrounds_clipped_at_zero_are_left_alone():
    for seed in range(5):
        random = rng(16, seed)
        dim = random.poisson(30 * smooth(random, sigma=8) ** 4) + random.normal(0, 3, SIDES)
        assert nothing_found((dim - 5).clip(0))
        assert nothing_found(np.rint(dim - 12).clip(0))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rho", [0.3, 0.6, 0.95])
def test_noise_that_is_correlated_along_rows_or_columns_is_left_alone(axis, rho):
    for seed in range(5):
        random = rng(17, seed)
        level = 100 + 100 * smooth(random)
        assert nothing_found(level + np.sqrt(3.9 * level) * along(random, SIDES, rho, axis))


@pytest.mark.parametrize("noise", ["normal", "gamma", "laplace", "uniform", "lognormal"])
def test_noise_of_any_usual_kind_is_left_alone(noise):
    draws = {
        "normal": lambda random: random.normal(0, 1, (256, 256)),
        "gamma": lambda random: random.gamma(1, 1, (256, 256)),
        "laplace": lambda random: random.laplace(0, 1, (256, 256)),
        "uniform": lambda random: random.random((256, 256)),
        "lognormal": lambda random: random.lognormal(0, 0.7, (256, 256)),
    }
    for seed in range(10):
        assert nothing_found(draws[noise](rng(18, seed)))


def test_a_small_bright_region_with_stronger_noise_is_left_alone():
    for seed in range(10):
        random = rng(19, seed)
        signal = np.full((256, 256), 4.0)
        signal[100:112, 100:110] = 20000
        signal[30:33, 60:63] = 5000
        assert nothing_found(random.poisson(signal))


@pytest.mark.parametrize("sides", [(4, 200), (200, 4), (1, 300), (3, 3), (8, 8)])
def test_narrow_images_are_left_alone(sides):
    image = rng(20).poisson(50, sides)
    image[:, sides[1] // 2] = 4000
    assert nothing_found(image)


def test_most_of_the_pixels_cannot_be_hot():
    image = rng(21).normal(100, 5, SIDES)
    many = image.copy()
    many[rng(22).random(SIDES) < 0.03] = 5000
    assert nothing_found(many)
    image[rng(22).random(SIDES) < 0.008] = 5000
    assert nothing_found(image)
    assert find_defects(image[None]).crowd > 0.006 * image.size


@pytest.mark.parametrize("fwhm", [1.5, 2, 4])
@pytest.mark.parametrize("height", [30, 300, 30000])
def test_spikes_of_a_few_samples_in_a_trace_are_not_eaten(fwhm, height):
    for seed in range(20):
        random = rng(33, seed)
        samples, signal = np.arange(2000), np.full(2000, 5.0)
        for place in random.uniform(5, 1995, 6):
            signal += height * np.exp(-((samples - place) ** 2) / (2 * (fwhm / 2.3548) ** 2))
        assert nothing_found(random.poisson(signal))


def test_whole_numbers_have_the_same_hot_pixels():
    image = with_pixels(cells(rng(34)), [500, 9000], 4095)
    whole, real = (find_defects(image[None].astype(dtype)).hot for dtype in (np.uint16, np.float32))
    assert np.array_equal(whole, real) and whole.sum() == 2


def test_a_volume_of_beads_is_left_alone():
    random = rng(23)
    planes = np.stack([spots(random, 1.5, 300, 20, (64, 64), 5) for _ in range(8)])
    assert nothing_found(planes)


def test_saturated_pixels_are_found_and_few_grey_values_are_not():
    random = rng(24)
    image = random.poisson(3000 * smooth(random) + 200)
    found = find_defects(image.clip(0, 2000).astype(np.float32)[None])
    assert np.array_equal(found.saturated[0], image >= 2000)
    assert not find_defects(image.astype(np.float32)[None]).saturated.any()
    assert not find_defects(random.poisson(0.1, (1, 256, 256)).astype(np.float32)).saturated.any()


def test_saturated_pixels_that_are_far_brighter_than_all_others_are_glaring():
    image = cells(rng(31))
    image[20:40, 30:60] = 65535
    found = find_defects(image[None])
    assert np.array_equal(found.glaring[0], image == 65535) and np.array_equal(found.saturated, found.glaring)
    assert not found.single.any()
    filled = fill(image[None], found)
    assert filled.max() < 500 and np.array_equal(filled[~found.glaring], image[None][~found.glaring])
    assert not find_defects(cells(rng(32)).clip(0, 280)[None]).glaring.any()


def test_a_blank_frame_is_blank_with_a_hot_pixel_too():
    assert find_defects(np.zeros((1, 160, 160), np.float32)).blank
    assert find_defects(np.full((2, 50), 7, np.float32)).blank
    assert find_defects(with_pixels(np.full(SIDES, 3, np.float32), [77], 900)[None]).blank
    assert find_defects(with_pixels(np.full((20, 30), 3, np.float32), [77], 900)[None]).blank
    bead = np.zeros((1, 400, 400), np.float32)
    bead[0, 200:203, 100:103] = 50
    assert not find_defects(bead).blank
    assert not find_defects(rng(25).poisson(0.01, (1, 160, 160)).astype(np.float32)).blank


def test_a_frame_with_one_dark_channel_is_not_blank():
    image = np.stack([np.zeros(SIDES), cells(rng(26))]).astype(np.float32)
    found = find_defects(image)
    assert not found.blank and not found.overexposed


def test_a_frame_with_nearly_all_pixels_at_the_maximum_is_overexposed():
    image = cells(rng(27))
    assert find_defects((image * 300).clip(0, 40000)[None]).overexposed
    assert not find_defects((image * 150).clip(0, 40000)[None]).overexposed


def test_masked_pixels_are_neither_hot_nor_do_they_change_what_is_found():
    random = rng(28)
    image = with_pixels(cells(random), [5000], 4095)
    mask = np.ones(SIDES, bool)
    mask[:, :20] = False
    image[:, :20] = np.nan
    found = find_defects(image[None], mask)
    assert np.flatnonzero(found.hot).tolist() == [5000]
    image[50:, :20] = 65535
    assert np.flatnonzero(find_defects(image[None], mask).hot).tolist() == [5000]


def test_hot_and_masked_pixels_are_filled_from_their_surroundings():
    random = rng(29)
    image = cells(random)
    hot = with_pixels(image, [5000, 5001], [4095, 3000])
    mask = np.ones(SIDES, bool)
    mask[:9] = False
    hot[:9] = np.nan
    filled = fill(hot[None], find_defects(hot[None], mask), mask)[0]
    good = np.ones(SIDES, bool)
    good.flat[[5000, 5001]] = False
    assert np.array_equal(filled[mask & good], image[mask & good])
    row, column = np.unravel_index(5000, SIDES)
    window = np.s_[row - 1 : row + 2, column - 1 : column + 2]
    assert filled.flat[5000] == pytest.approx(image[window][good[window]].mean())
    assert np.array_equal(filled[:9], np.broadcast_to(image[9], (9, SIDES[1])))


def test_a_frame_without_defects_is_not_copied():
    image = cells(rng(30))[None]
    assert fill(image, find_defects(image)) is image


@pytest.mark.parametrize("shape", [(160, 130), (9, 60, 50), (9000,)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_defects_of_a_large_frame_are_found_in_bands(shape, masked, small_bands):
    random = rng(40, *shape)
    frame = random.poisson(50 + np.arange(2 * np.prod(shape)).reshape(2, *shape) % 977 / 9).astype(np.float32)
    frame[0] = frame[0].clip(0, 150)
    frame.flat[random.choice(frame.size, 30, replace=False)] = np.repeat([4000, -3000], 15)
    frame[1].flat[1000:1100] = 60000
    mask = random.random(shape) > 0.01 if masked else None
    whole = find_defects(frame, mask)
    small_bands()
    parts = find_defects(frame, mask)
    assert np.array_equal(parts.marks, whole.marks) and parts.crowd == whole.crowd
    assert whole.hot.any() and whole.dead.any() and whole.saturated[0].any() and whole.glaring[1].any()


@pytest.mark.parametrize("shape", [(160, 130), (9, 60, 50), (9000,)])
def test_the_defects_of_a_large_frame_are_filled_in_bands(shape, small_bands):
    random = rng(41, *shape)
    frame = random.poisson(50, (2, *shape)).astype(np.float32)
    frame.flat[random.choice(frame.size, 60, replace=False)] = 9000
    mask = np.ones(shape, bool)
    mask.flat[-70:] = mask.flat[4000:4100] = False
    defects = find_defects(frame, mask)
    whole = fill(frame, defects, mask)
    small_bands()
    assert defects.hot.any() and np.array_equal(fill(frame, defects, mask), whole)


def test_an_image_that_is_constant_but_for_two_neighbours_is_not_blank_in_bands(small_bands):
    small_bands()
    image = np.zeros((400, 200), np.float32)
    image[7, 9] = 1
    assert find_defects(image[None]).blank
    image[9:11, 9] = 1  # on both sides of the end of a band
    assert not find_defects(image[None]).blank


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("values", [400, 2000])
def test_lines_of_dots_and_pairs_are_told_apart_in_bands(volume, values, small_bands):
    image = cells(rng(42))
    image[10:150:4, 60] += 5000
    places = [11 * SIDES[1] + 150, 12 * SIDES[1] + 150, 77 * SIDES[1] + 20, 120 * SIDES[1] + 140]
    frame = np.stack([with_pixels(image, places, 4095), cells(rng(43))][: 1 + volume])
    frame = frame[None] if volume else frame
    whole = find_defects(frame)
    assert np.flatnonzero(whole.hot).tolist() == places
    small_bands(values)
    assert np.array_equal(find_defects(frame).marks, whole.marks)
