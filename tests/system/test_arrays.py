import numpy as np
import pytest

from dvlae.system.arrays import bands, release, spread_sample, within, zeros


@pytest.mark.parametrize("shape", [(1, 7), (100, 128), (5000,), (3, 40, 50)])
@pytest.mark.parametrize("margin", [0, 3])
def test_bands_cover_each_row_once_and_their_margins_stay_within(shape, margin, small_bands):
    small_bands()
    rows = []
    for band, outer in bands(shape, margin=margin):
        numbers = np.arange(shape[0])
        rows += numbers[band].tolist()
        assert np.array_equal(numbers[outer][within(band, outer)], numbers[band])
        assert outer.start == max(0, band.start - margin) and outer.stop == min(shape[0], band.stop + margin)
    assert rows == list(range(shape[0]))


def test_large_arrays_in_files_keep_their_values_when_they_are_released(small_bands):
    small_bands()
    array = zeros((100, 100))
    array[50:] = 1
    release(array, array[3:], None, np.ones(3))
    assert array.dtype == np.float32 and array.sum() == 5000 and type(array) is np.ndarray


@pytest.mark.parametrize("most", [1, 7, 100, 1000])
def test_a_sample_of_parts_is_that_of_the_whole(most):
    values = np.arange(100)
    parts = np.split(values, [0, 1, 5, 50, 93])
    assert np.array_equal(spread_sample(parts, 100, most), values[:: -(-100 // most)])
