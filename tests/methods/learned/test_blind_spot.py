import sys

import numpy as np
import pytest

pytest.importorskip("autoden", reason="unavailable: the extra `compare` is not installed")

from dvlae.config.dataset import EvaluationSettings
from dvlae.methods.learned import blind_spot
from dvlae.methods.task import NotApplicableError
from dvlae.system.errors import UserError

SMALL = {"crop": 32, "batch": 4, "width": 8, "depth": 2, "max_steps": 100, "steps_per_batch": 20, "rate": 0.003}


def test_noise2void_improves_images_with_white_noise(pairs, make_task, gain):
    task = make_task(pairs(along="none"), noise_direction="none", settings=SMALL)
    fitted = blind_spot.fit(task)
    assert gain(task, fitted) > 2
    assert fitted.description["steps"] == 100
    assert 0 < fitted.description["validation_loss"] < 1


def test_structn2v_improves_images_with_correlated_noise_more_than_noise2void(pairs, make_task, gain):
    images, gains = pairs(), []
    # So few steps leave the mean and the contrast uncertain.
    fitted = EvaluationSettings(fit="estimate_to_clean", data_range=150)
    for span in (0, "auto"):
        task = make_task(images, evaluation=fitted, settings=SMALL | {"span": span})
        gains.append(gain(task, blind_spot.fit(task)))
    assert gains[1] > gains[0] + 1


@pytest.mark.parametrize(("direction", "mask"), [("x", [1, 11]), ("y", [11, 1])])
def test_the_mask_extends_along_the_noise_as_far_as_it_is_correlated(pairs, make_task, direction, mask):
    noise = {"correlation_length": 5, "autocorrelation": {direction: [0.6**lag for lag in range(12)]}}
    task = make_task(
        pairs(count=2), noise_direction=direction, noise=noise, settings=SMALL | {"span": "auto", "max_steps": 1}
    )
    found = blind_spot.fit(task).description
    assert found["mask"] == mask
    assert found["blind_spots"] == pytest.approx(0.15 / 11)


@pytest.mark.parametrize("direction", ["none", "x"])
def test_of_noise_without_correlation_only_the_pixel_itself_is_masked(pairs, make_task, direction):
    noise = {"correlation_length": 0, "autocorrelation": {"x": [1.0, 0.01]}}
    task = make_task(
        pairs(count=1), noise_direction=direction, noise=noise, settings=SMALL | {"span": "auto", "max_steps": 1}
    )
    assert blind_spot.fit(task).description["mask"] == [1, 1]


def test_a_span_that_the_diagnosis_does_not_tell_is_a_reason(pairs, make_task):
    noise = {"correlation_length": None, "reason": "100 pixels are too few"}
    with pytest.raises(NotApplicableError, match="100 pixels are too few"):
        blind_spot.fit(make_task(pairs(count=1), noise=noise, settings={"span": "auto"}))


def test_traces_and_volumes_are_not_applicable(pairs, make_task):
    with pytest.raises(NotApplicableError, match="planes only"):
        blind_spot.fit(make_task(pairs(count=1, shape=(1, 4, 20, 20), along="none")))


def test_channels_are_denoised_together(pairs, make_task):
    images = pairs(count=2, shape=(2, 40, 50))
    fitted = blind_spot.fit(make_task(images, settings=SMALL | {"max_steps": 5}))
    assert fitted.denoise(images[0]).shape == (2, 40, 50)


def test_equal_seeds_give_equal_estimates_and_others_do_not(pairs, make_task):
    images = pairs(count=2)
    first, second, other = (
        blind_spot.fit(make_task(images, settings=SMALL | {"max_steps": 6}, seed=seed)).denoise(images[0])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_package_prints_nothing_and_writes_nothing(pairs, make_task, tmp_path, capsys):
    images = pairs(count=2)
    folder = tmp_path / "empty"
    folder.mkdir()
    blind_spot.fit(make_task(images, folder=folder, settings=SMALL | {"max_steps": 5}))
    assert capsys.readouterr() == ("", "")
    assert not list(folder.iterdir())


def test_a_time_limit_ends_the_training(pairs, make_task):
    found = blind_spot.fit(make_task(pairs(count=2), minutes=0.05, settings=SMALL | {"max_steps": None})).description
    assert found["steps"] > 4
    assert found["training_seconds"] < 6


def test_a_package_that_is_not_installed_is_one_line(pairs, make_task, monkeypatch):
    monkeypatch.setitem(sys.modules, "autoden", None)
    with pytest.raises(UserError, match=r"no package 'autoden', .*; .*pip install '\.\[compare\]'"):
        blind_spot.fit(make_task(pairs(count=1)))
