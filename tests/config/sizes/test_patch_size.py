"""The sides of training crops and the strides of models fit each other."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvlae.config.sizes.patch_size import (
    MAX_PADDING,
    check_patch_size,
    crop_stride,
    fitting_crop,
    level_strides,
    model_stride,
    training_crop,
)

SIDES = st.lists(st.integers(1, 300), min_size=1, max_size=3)
STRIDES = st.sampled_from([1, 2, 4, 8, 16, 128])


@given(SIDES, STRIDES)
def test_an_automatic_crop_fits_images_of_any_size_and_is_padded_little(sides, stride):
    crop = training_crop("auto", sides, stride)
    check_patch_size(list(crop), stride)
    for side, chosen, along_axis in zip(sides, crop, crop_stride(crop, stride), strict=True):
        assert chosen <= side and chosen >= min(side, 64) / 2
        assert along_axis <= stride and -chosen % along_axis <= MAX_PADDING * chosen
        assert along_axis == stride or chosen == side < stride


@given(SIDES, STRIDES)
def test_a_crop_that_is_said_to_fit_is_accepted(sides, stride):
    check_patch_size(list(fitting_crop(sides, stride)), stride)


@pytest.mark.parametrize(("patch_size", "fits"), [(64, True), ([4, 64], True), ([5, 8], True), (60, False), (9, False)])
def test_a_side_longer_than_the_stride_has_to_be_a_multiple(patch_size, fits):
    try:
        check_patch_size(patch_size, 8)
        found = True
    except ValueError:
        found = False
    assert found == fits


@given(st.integers(1, 14), st.integers(1, 3), st.data())
def test_levels_halve_an_axis_until_its_stride(levels, levels_per_scale, data):
    powers = range((levels // levels_per_scale) + 1)
    stride = data.draw(st.lists(st.sampled_from([2**power for power in powers]), min_size=1, max_size=3))
    strides = level_strides(levels, levels_per_scale, len(stride), stride)
    assert len(strides) == levels
    below = (1,) * len(stride)
    for each in strides:
        assert {above // under for above, under in zip(each, below, strict=True)} <= {1, 2}
        below = each
    assert list(below) == stride


def test_the_levels_of_the_paper_halve_every_second_time():
    found = [math.prod(each) for each in level_strides(14, 2, 1)]
    assert found == [1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128] and found[-1] == model_stride(14, 2)
