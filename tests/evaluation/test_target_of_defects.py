"""Hot pixels decide neither on the registration nor on a fit or a range."""

import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import EvaluationSettings
from dvlae.evaluation.target import Alignment, Target

RANDOM = np.random.default_rng(4)
CLEAN = 100 + 200 * ndimage.zoom(RANDOM.random((16, 18)), 8, order=3)[None]
PLACES = RANDOM.choice(CLEAN.size, 20, replace=False)


def noisy(clean):
    return np.random.default_rng(5).poisson(clean.clip(0)).astype(np.float32)


def hot(image, places=PLACES):
    image = image.copy()
    image.flat[places] = 65535
    return image


def settings(**keys):
    return EvaluationSettings(border=4, **keys)


def test_hot_pixels_do_not_turn_the_registration():
    drifted = ndimage.shift(CLEAN, (0, 2.4, -3.3), mode="nearest")
    without, with_them = (
        Alignment.find(image, CLEAN, settings(register=True)).shift for image in (noisy(drifted), hot(noisy(drifted)))
    )
    assert with_them == pytest.approx(without, abs=0.02)


@pytest.mark.parametrize("fit", ["clean_to_noisy", "estimate_to_clean"])
def test_hot_pixels_do_not_turn_a_fit(fit):
    pair = [Target.build(image, CLEAN / 3, settings(fit=fit)) for image in (noisy(CLEAN), hot(noisy(CLEAN)))]
    assert pair[1].clean == pytest.approx(pair[0].clean, rel=1e-3)
    assert pair[1].noise().std() == pytest.approx(pair[0].noise().std(), rel=0.02)


def test_a_clean_image_without_noise_has_no_hot_pixels():
    bright = hot(CLEAN)
    target = Target.build(noisy(bright), bright, settings(noise_free=True))
    assert np.array_equal(target.clean, bright[:, 4:-4, 4:-4])
    assert target.data_range == np.ptp(bright[:, 4:-4, 4:-4])


def test_a_hot_pixel_of_the_clean_image_is_no_error_and_does_not_make_the_range():
    less_noisy = noisy(50 * CLEAN) / 50
    plain, with_them = (Target.build(noisy(CLEAN), image, settings()) for image in (less_noisy, hot(less_noisy)))
    assert with_them.data_range == pytest.approx(plain.data_range, rel=1e-3)
    assert with_them.psnr(CLEAN) == pytest.approx(plain.psnr(CLEAN), abs=0.1)
