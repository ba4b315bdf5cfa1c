import sys

import numpy as np
import pytest

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.evaluation.register import Targets
from dvlae.methods.filters import bm3d
from dvlae.system.errors import UserError


def test_bm3d_climbs_to_the_sigma_with_the_best_mean_psnr_and_says_that_it_is_an_oracle(
    make_images, weak_bm3d, denoise, description
):
    images = make_images()
    denoise("bm3d", images)
    found = description(images)
    assert found["oracle"] is True
    best = max(found["psnr"], key=found["psnr"].get)
    assert found["sigma"] == pytest.approx([0.3 * float(best)] * 2, rel=0.05)
    tried = sorted(found["psnr"], key=float)
    assert tried[0] < best < tried[-1]


def test_bm3d_says_which_images_sigma_was_chosen_by(make_images, weak_bm3d, monkeypatch, denoise, description):
    monkeypatch.setattr(bm3d, "MAX_TUNING_IMAGES", 1)
    images = make_images()
    denoise("bm3d", images)
    assert (description(images)["images"], description(images)["side"]) == (["b 0"], 256)


def test_bm3d_chooses_sigma_by_the_middle_of_the_evaluated_region(make_images, weak_bm3d, monkeypatch):
    monkeypatch.setattr(bm3d, "MAX_TUNING_SIDE", 20)
    image = read_manifest(make_images())[0]  # 60 x 50
    window = bm3d._window(image, Targets(EvaluationSettings(crop={"y": [0, 40]}, data_range=1)))
    np.testing.assert_array_equal(window.noisy, read_noisy(image)[:, 10:30, 15:35])
    np.testing.assert_array_equal(window.clean, read_clean(image)[:, 10:30, 15:35])


def test_bm3d_without_clean_images_estimates_sigma_and_says_so(make_images, weak_bm3d, caplog, denoise, description):
    caplog.set_level("INFO")
    images = make_images(with_clean=False)
    used = []
    weak_bm3d.bm3d = lambda image, sigma, profile: used.append(sigma) or image
    denoise("bm3d", images)
    assert description(images)["oracle"] is False
    assert used == pytest.approx([0.3] * 4, rel=0.1)
    assert "no clean image" in caplog.text


def test_bm3d_filters_each_plane_of_each_channel_with_the_channels_sigma(weak_bm3d):
    weak_bm3d.bm3d = lambda plane, sigma, profile: plane + sigma
    image = np.zeros((2, 3, 12, 11), np.float32)
    filtered = bm3d.denoise(image, np.array([1.0, 2.0]))
    assert filtered.shape == image.shape
    assert (filtered[0] == 1).all() and (filtered[1] == 2).all()


def test_bm3d_that_is_not_installed_is_one_line_that_says_how_to_install_it(make_images, monkeypatch, denoise):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(UserError, match=r"bm3d is not installed; pip install .*\[bm3d\].*non-commercial"):
        denoise("bm3d", make_images())


def test_the_real_bm3d_takes_white_noise_off_and_gives_equal_images_each_time():
    pytest.importorskip("bm3d", reason="unavailable: bm3d, which its licence keeps out of the tests' extra")
    clean = np.zeros((1, 40, 40), np.float32)
    clean[:, :, 20:] = 1
    noisy = clean + np.random.default_rng(0).normal(0, 0.2, clean.shape).astype(np.float32)
    first, second = (bm3d.denoise(noisy, np.array([0.2])) for _ in range(2))
    assert np.std(first - clean) < 0.3 * np.std(noisy - clean)
    np.testing.assert_array_equal(first, second)
