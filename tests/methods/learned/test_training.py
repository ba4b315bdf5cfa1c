import numpy as np
import pytest

from dvlae.data.defects.frames import ExaminedFrame
from dvlae.methods.learned.patches import Patches, weights_of
from dvlae.methods.learned.training import NetworkSettings, train
from dvlae.system.errors import UserError
from noisy_images import noise, scene

SMALL = NetworkSettings(crop=32, batch=4, width=8, depth=2)


@pytest.fixture
def patches():
    clean = np.stack([scene(number, (48, 48)) for number in range(8)])
    noisy = clean + [40 * noise(number, (48, 48)) for number in range(8)]
    pairs = np.stack([noisy, clean, np.ones_like(clean)], axis=1).astype(np.float32)
    return Patches(pairs[:6], pairs[6:], (32, 32), ["image"], "blocks")


def test_a_time_limit_ends_the_training(patches, make_task):
    _, record = train(patches, SMALL, make_task([], minutes=0.05), seed=0, description="test")
    assert record["steps"] > 1
    assert 3 <= record["training_seconds"] < 20


def test_the_validation_loss_is_in_units_of_the_noisy_images_deviation(patches, make_task):
    settings = SMALL.model_copy(update={"max_steps": 1, "rate": 1e-12})
    _, record = train(patches, settings, make_task([]), seed=0, description="test")
    noisy, clean = patches.validation[:, 0], patches.validation[:, 1]
    # A new network returns its input.
    assert record["validation_loss"] == pytest.approx(
        np.mean((noisy - clean) ** 2) / patches.train[:, 0].var(), rel=0.2
    )


def test_values_without_weight_are_not_learned(patches, make_task):
    settings = SMALL.model_copy(update={"max_steps": 3, "rate": 0.01})
    estimates = []
    for value in (0, 1e6):
        pairs = patches.train.copy()
        pairs[:, 1:, 20, 20] = np.array([value, 0]).reshape(1, 2)
        changed = Patches(pairs, patches.validation, *list(vars(patches).values())[2:])
        trained, _ = train(changed, settings, make_task([]), seed=0, description="test")
        estimates.append(trained.denoise(patches.validation[0, :1]))
    np.testing.assert_array_equal(*estimates)


def test_hot_pixels_have_no_weight():
    noisy = scene(0, (64, 64))[None].astype(np.float32) + noise(0, (1, 64, 64)).astype(np.float32)
    noisy[0, 30, 40] = 60000
    weights = weights_of(ExaminedFrame.examine(noisy))
    assert weights[0, 30, 40] == 0
    assert weights.sum() == weights.size - 1


def test_a_rate_that_is_too_large_is_one_line(patches, make_task):
    settings = SMALL.model_copy(update={"max_steps": 5, "rate": 1e30})
    with pytest.raises(UserError, match="did not stay finite; set a smaller rate than 1e"):
        train(patches, settings, make_task([]), seed=0, description="test")
