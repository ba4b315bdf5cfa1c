import numpy as np

from dvlae.methods.filters.noisy import fit


def test_noisy_is_the_noisy_image_itself(make_task, pairs):
    made = pairs()
    task = make_task(made)
    for image, (noisy, _) in zip(task.images, made, strict=True):
        np.testing.assert_array_equal(fit(task).denoise(image), noisy)
