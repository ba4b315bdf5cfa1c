import pytest

from dvlae.config.sizes.receptive_field import dilations, kernel_and_blocks, reachable
from dvlae.system.errors import UserError

PUBLISHED = {4: (3, 1), 8: (5, 1), 14: (3, 3), 16: (5, 2), 20: (3, 4), 28: (5, 3), 40: (5, 4), 60: (5, 5), 80: (5, 6)}


@pytest.mark.parametrize(("pixels", "decoder"), PUBLISHED.items())
def test_known_receptive_fields_prefer_the_papers_kernel(pixels, decoder):
    assert kernel_and_blocks(pixels) == decoder


def test_dilations_rise_and_fall():
    assert dilations(6) == [1, 2, 4, 4, 2, 1]
    assert dilations(5) == [1, 2, 4, 2, 1]


def test_zero_is_pixel_independent():
    assert kernel_and_blocks(0) == (1, 0)


def test_unreachable_receptive_field_lists_the_nearest():
    with pytest.raises(UserError, match=r"39 cannot be reached.*30, 32, 40, 42"):
        kernel_and_blocks(39)


def test_everything_listed_can_be_had():
    for pixels in reachable():
        kernel_and_blocks(pixels)
