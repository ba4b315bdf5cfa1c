import numpy as np

from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import read_manifest


def test_noisy_is_the_noisy_image_itself(make_images, denoise, description):
    images = make_images()
    estimates = denoise("noisy", images)
    for image in read_manifest(images):
        np.testing.assert_array_equal(estimates[image.name], read_noisy(image))
    assert description(images)["oracle"] is False
