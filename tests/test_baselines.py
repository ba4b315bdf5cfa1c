import json

import numpy as np
import pytest
from scipy import ndimage

from dvlae.baselines import BASELINES, gaussian, run_baseline
from dvlae.config import EvaluationSettings
from dvlae.data.images import Image, read_canonical, read_manifest, write_image, write_manifest
from dvlae.errors import UserError
from dvlae.metrics import psnr

SETTINGS = EvaluationSettings(data_range=1)


@pytest.fixture
def make_images(tmp_path):
    def make(with_clean=True):
        random = np.random.default_rng(0)
        folder, rows = tmp_path / "images", []
        for i in range(2):
            clean = 5 * ndimage.gaussian_filter(random.normal(size=(2, 60, 50 + i)), (0, 4, 4))
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


@pytest.mark.parametrize("method", BASELINES)
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
    with pytest.raises(UserError, match="found 'bm3d', allowed: noisy, gaussian"):
        denoise("bm3d", make_images())
