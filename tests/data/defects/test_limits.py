import numpy as np
import pytest

from dvlae.data.defects.limits import LimitFinder

RANDOM = np.random.default_rng([0])
SIZE = 200_000
# A few objects that have many values.
OBJECTS = np.where(np.arange(SIZE) % 50 == 0, 100.0, 0.0)


def limits_of(*channels, counts=None):
    """Return the limits of images that come in ten patches."""
    finder = LimitFinder(len(channels))
    for part in np.split(np.arange(SIZE), 10):
        patch = np.stack([np.asarray(channel, np.float32)[part] for channel in channels])
        finder.update(patch, np.ones(patch.shape, bool) if counts is None else counts[:, part])
    return finder.limits()


def normal(mean, std):
    return RANDOM.normal(mean, std, SIZE)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        (normal(230, 20).round().clip(0, 255), (None, 255)),
        (normal(20, 20).round().clip(0, 255), (0, None)),
        (normal(128, 90).round().clip(0, 255), (0, 255)),
        (normal(0.9, 0.1).clip(0, 1), (None, 1)),
        (normal(60_000, 9_000).round().clip(0, 65_535), (None, 65_535)),
        (-normal(230, 20).round().clip(0, 255), (-255, None)),
    ],
)
def test_limits_are_where_values_pile_up(values, limits):
    assert limits_of(values) == [limits]


@pytest.mark.parametrize(
    "values",
    [
        normal(128, 20).round().clip(0, 255),
        normal(0.5, 0.1),
        np.tile([0.0, 1.0], SIZE // 2),
        np.full(SIZE, 255.0),
        RANDOM.poisson(0.05 + OBJECTS),
        RANDOM.poisson(0.2 + OBJECTS),
        RANDOM.poisson(1 + OBJECTS),
        RANDOM.uniform(0, 255, SIZE).round(),
        # Where nothing is recorded, as beyond a round field of view.
        np.where(np.arange(SIZE) % 4 == 0, 0, normal(128, 10).round()),
    ],
)
def test_images_that_are_not_clipped_have_no_limits(values):
    assert limits_of(values) == [(None, None)]


@pytest.mark.parametrize("number", [3, 300])
def test_hot_and_dead_pixels_set_no_limits(number):
    values = normal(1000, 50).round()
    values[:number], values[-number:] = 65_535, 0
    assert limits_of(values) == [(None, None)]


def test_each_channel_has_its_own_limits_of_the_pixels_that_count():
    clipped, other = normal(230, 20).round().clip(0, 255), normal(128, 20).round()
    counts = np.ones((3, SIZE), bool)
    counts[1] = clipped < 255
    expected = [(None, 255), (None, None), (None, None)]
    assert limits_of(clipped, clipped.clip(0, 254.5), other, counts=counts) == expected


def test_too_few_pixels_at_a_limit_change_nothing():
    values = normal(128, 20).round().clip(0, 200)
    values[values == 200] = 199
    values[: SIZE // 20_000] = 200
    assert limits_of(values) == [(None, None)]
