import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.evaluation.baselines import BASELINES, bm3d, gaussian, run_baseline
from dvlae.evaluation.metrics import psnr
from dvlae.system.errors import UserError

SETTINGS = EvaluationSettings(data_range=1)
CHANNELS = 2


@pytest.fixture
def make_images(tmp_path):
    def make(with_clean=True):
        random = np.random.default_rng(0)
        folder, rows = tmp_path / "images", []
        for i in range(2):
            clean = 5 * ndimage.gaussian_filter(random.normal(size=(CHANNELS, 60, 50 + i)), (0, 4, 4))
            image = Image(
                f"b {i}", folder / f"b {i}.tif", folder / f"clean {i}.tif" if with_clean else None, clean.shape
            )
            write_image(image.noisy, clean + 0.3 * random.normal(size=clean.shape))
            if with_clean:
                write_image(image.clean, clean)
            rows.append(image)
        write_manifest(folder, rows)
        return folder

    return make


def description(images):
    return json.loads((images.parent / "run" / "baseline.json").read_text())


def denoise(method, images, settings=SETTINGS):
    output = images.parent / "run" / "denoised"
    run_baseline(method, images, output, settings=settings)
    return {image.name: read_canonical(output / f"{image.name}.tif") for image in read_manifest(images)}


@pytest.fixture
def weak_bm3d(monkeypatch):
    """Replace the optional package: what it filters, it filters with a Gaussian of ``sigma`` pixels."""
    package = SimpleNamespace(
        BM3DProfile=SimpleNamespace, bm3d=lambda image, sigma, profile: ndimage.gaussian_filter(image, sigma)
    )
    monkeypatch.setitem(sys.modules, "bm3d", package)
    return package


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.usefixtures("weak_bm3d")
def test_every_baseline_writes_an_estimate_of_each_image_in_its_shape(method, make_images):
    images = make_images()
    estimates = denoise(method, images)
    assert {name: e.shape for name, e in estimates.items()} == {i.name: i.shape for i in read_manifest(images)}
    assert sorted(p.name for p in (images.parent / "run" / "denoised").iterdir()) == ["b 0.tif", "b 1.tif"]


def test_noisy_is_the_noisy_image_itself(make_images):
    images = make_images()
    estimates = denoise("noisy", images)
    for image in read_manifest(images):
        np.testing.assert_array_equal(estimates[image.name], read_canonical(image.noisy))
    assert description(images)["oracle"] is False


def test_gaussian_takes_the_sigma_with_the_best_mean_psnr_and_says_that_it_is_an_oracle(make_images):
    images = make_images()
    estimates = denoise("gaussian", images)
    found = description(images)
    means = {
        sigma: np.mean(
            [
                psnr(read_canonical(i.clean), gaussian.smooth(read_canonical(i.noisy), sigma), data_range=1)
                for i in read_manifest(images)
            ]
        )
        for sigma in gaussian.SIGMAS
    }
    assert found["oracle"] is True
    assert found["sigma"] == max(means, key=means.get)
    assert 0.5 < found["sigma"] < 3
    first = read_manifest(images)[0]
    np.testing.assert_array_equal(estimates[first.name], gaussian.smooth(read_canonical(first.noisy), found["sigma"]))


def test_gaussian_tries_half_to_three_pixels_in_quarters():
    assert gaussian.SIGMAS.tolist() == [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3]


def test_gaussian_without_clean_images_takes_one_pixel_and_says_so(make_images, capsys):
    images = make_images(with_clean=False)
    denoise("gaussian", images)
    found = description(images)
    assert (found["sigma"], found["oracle"]) == (1.0, False)
    assert "no clean image" in capsys.readouterr().out


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


def test_an_unknown_baseline_is_refused_with_those_there_are(make_images):
    with pytest.raises(UserError, match="found 'bm5d', allowed: noisy, gaussian, bm3d"):
        denoise("bm5d", make_images())


def test_bm3d_climbs_to_the_sigma_with_the_best_mean_psnr_and_says_that_it_is_an_oracle(make_images, weak_bm3d):
    images = make_images()
    denoise("bm3d", images)
    found = description(images)
    assert found["oracle"] is True
    best = max(found["psnr"], key=found["psnr"].get)
    assert found["sigma"] == pytest.approx([0.3 * float(best)] * CHANNELS, rel=0.05)
    tried = sorted(found["psnr"], key=float)
    assert tried[0] < best < tried[-1]


def test_bm3d_says_which_images_sigma_was_chosen_by(make_images, weak_bm3d, monkeypatch):
    monkeypatch.setattr(bm3d, "MAX_TUNING_IMAGES", 1)
    images = make_images()
    denoise("bm3d", images)
    assert (description(images)["images"], description(images)["side"]) == (["b 0"], 256)


def test_bm3d_chooses_sigma_by_the_middle_of_the_evaluated_region(make_images, weak_bm3d, monkeypatch):
    monkeypatch.setattr(bm3d, "MAX_TUNING_SIDE", 20)
    image = read_manifest(make_images())[0]  # 60 x 50
    window = bm3d._window(image, EvaluationSettings(crop={"y": [0, 40]}, data_range=1))
    np.testing.assert_array_equal(window.noisy, read_canonical(image.noisy)[:, 10:30, 15:35])
    np.testing.assert_array_equal(window.clean, read_canonical(image.clean)[:, 10:30, 15:35])


def test_bm3d_without_clean_images_estimates_sigma_and_says_so(make_images, weak_bm3d, capsys):
    images = make_images(with_clean=False)
    used = []
    weak_bm3d.bm3d = lambda image, sigma, profile: used.append(sigma) or image
    denoise("bm3d", images)
    assert description(images)["oracle"] is False
    assert used == pytest.approx([0.3] * 2 * CHANNELS, rel=0.1)
    assert "no clean image" in capsys.readouterr().out


def test_bm3d_filters_each_plane_of_each_channel_with_the_channels_sigma(weak_bm3d):
    weak_bm3d.bm3d = lambda plane, sigma, profile: plane + sigma
    image = np.zeros((2, 3, 12, 11), np.float32)
    filtered = bm3d.denoise(image, np.array([1.0, 2.0]))
    assert filtered.shape == image.shape
    assert (filtered[0] == 1).all() and (filtered[1] == 2).all()


def test_bm3d_that_is_not_installed_is_one_line_that_says_how_to_install_it(make_images, monkeypatch):
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
