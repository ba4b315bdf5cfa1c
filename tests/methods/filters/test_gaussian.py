import numpy as np
import pytest

from dvlae.data.canonical import read_clean, read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.evaluation.metrics import psnr
from dvlae.methods.filters import gaussian


def test_gaussian_takes_the_sigma_with_the_best_mean_psnr_and_says_that_it_is_an_oracle(
    make_images, denoise, description
):
    images = make_images()
    estimates = denoise("gaussian", images)
    found = description(images)
    means = {
        sigma: np.mean(
            [psnr(read_clean(i), gaussian.smooth(read_noisy(i), sigma), data_range=1) for i in read_manifest(images)]
        )
        for sigma in gaussian.SIGMAS
    }
    assert found["oracle"] is True
    assert found["sigma"] == max(means, key=means.get)
    assert 0.5 < found["sigma"] < 3
    first = read_manifest(images)[0]
    np.testing.assert_array_equal(estimates[first.name], gaussian.smooth(read_noisy(first), found["sigma"]))


def test_gaussian_tries_half_to_three_pixels_in_quarters():
    assert gaussian.SIGMAS.tolist() == [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3]


def test_gaussian_without_clean_images_takes_one_pixel_and_says_so(make_images, caplog, denoise, description):
    caplog.set_level("INFO")
    images = make_images(with_clean=False)
    denoise("gaussian", images)
    found = description(images)
    assert (found["sigma"], found["oracle"]) == (1.0, False)
    assert "no clean image" in caplog.text


def test_gaussian_filters_each_channel_by_itself():
    image = np.zeros((2, 20, 20), np.float32)
    image[0, 10, 10] = 1
    assert not gaussian.smooth(image, 2)[1].any()


@pytest.mark.parametrize("shape", [(21,), (21, 21), (21, 21, 21)])
def test_gaussian_filters_along_every_spatial_axis(shape):
    image = np.zeros((1, *shape), np.float32)
    image[(0, *(10 for _ in shape))] = 1
    smooth = gaussian.smooth(image, 1)[0]
    neighbours = [smooth[tuple(10 + (i == axis) for i in range(len(shape)))] for axis in range(len(shape))]
    assert neighbours == pytest.approx([smooth.max() * np.exp(-0.5)] * len(shape), rel=1e-3)
