"""The order of models by their estimated error: `dvlae rank`."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from skimage import data

import dvlae.reporting.ranking as ranking
from dvlae.models.direct_denoiser import RefinedDenoiser
from dvlae.models.files import save_model
from dvlae.reporting.ranking import describe, order, rank
from dvlae.system.errors import UserError
from untrained import build, initial, noisy


def frames():
    """Return a smooth picture with noise that is correlated along x."""
    picture = ndimage.gaussian_filter(data.camera()[100:300, 100:356].astype(np.float64), 1.5)
    rng = np.random.default_rng(0)
    noise = [20 * ndimage.convolve1d(rng.standard_normal(picture.shape), [0.8, 0.6, 0, 0, 0]) for _ in range(2)]
    return {f"frame {n}": (picture + each)[None].astype(np.float32) for n, each in enumerate(noise)}


@pytest.fixture
def folders(tmp_path):
    """Return the folders of three models, which differ by the mean of the images that they have learned from."""
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for number, path in enumerate(paths):
        path.mkdir()
        save_model(initial(mean=float(number)), path)
    return paths


def test_the_model_with_the_smallest_true_error_comes_first(folders, images_folder, monkeypatch, tmp_path, caplog):
    # Rows are independent: a mean along y leaves less noise than one along x.
    windows = [(1, 1, 5), (1, 5, 1), (1, 1, 1)]
    monkeypatch.setattr(
        ranking,
        "_denoiser",
        lambda network, _: lambda image: ndimage.uniform_filter(image, windows[int(network.mean)]),
    )
    with caplog.at_level("INFO"):
        rank(images_folder(**frames()), folders, output=tmp_path / "rank.csv", device="cpu")
    table = pd.read_csv(tmp_path / "rank.csv")
    assert list(table.model) == [str(folders[number]) for number in (1, 0, 2)]
    assert (table.excess[0], table.standard_error[0], table.larger_in[0]) == (0, 0, 0)
    assert set(table.parts) == {2} and list(table.larger_in[1:]) == [2, 2]
    # Of white noise smoothed like this along x, the mean of five has 0.36 of the variance, and that of y a fifth.
    assert table.excess[2] == pytest.approx(0.8 * 400, rel=0.15)
    assert "2 parts of 2 images, whose noise is correlated along x" in caplog.text
    assert f"rank: {folders[1]}: the smallest estimated error" in caplog.text


def test_a_refined_denoiser_is_judged_by_its_estimate_and_another_model_by_its_samples(monkeypatch):
    called = []
    monkeypatch.setattr(ranking, "denoise_directly", lambda *_, **how: called.append(how["settings"].estimator))
    monkeypatch.setattr(ranking, "denoise", lambda *_, **how: (called.append(how["settings"].estimator),))
    model = build(2)
    ranking._denoiser(model, "a")(noisy(16, 16))
    refined = model.with_direct_denoiser(RefinedDenoiser(model.ladder_vae, model.signal_decoder))
    ranking._denoiser(refined, "a")(noisy(16, 16))
    assert called == ["mmse", "direct"]


def test_a_denoiser_draws_the_same_samples_for_each_image():
    denoise = ranking._denoiser(build(2), "a")
    image = noisy(16, 16)
    np.testing.assert_array_equal(denoise(image), denoise(image))


def test_volumes_and_large_images_are_compared_on_parts():
    volume, image = np.zeros((1, 20, 300, 100)), np.arange(600 * 900).reshape(1, 600, 900)
    assert [part.shape for part in ranking._parts(volume, 1)] == [(1, 8, 256, 100)]
    parts = list(ranking._parts(image, 4))
    assert [part.shape for part in parts] == [(1, 256, 256)] * 4
    assert len({int(part[0, 0, 0]) for part in parts}) == 4
    assert len(list(ranking._parts(np.zeros((1, 64, 64)), 4))) == 1


def test_a_difference_within_its_standard_error_is_called_chance():
    risks = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.5, 1.4, 3.6], "c": [3.0, 4.1, 5.0]})
    first, *lines = describe(order(risks))
    assert first == "a: the smallest estimated error"
    assert lines[0] == (
        "b: squared error larger by 0.167 ± 0.38 squared grey values (larger in 2 of 3 parts), which may be chance"
    )
    assert describe(order(1000 * risks))[2].startswith("c: squared error larger by 2,030 ± 33 squared grey values")
    assert lines[1].endswith("c: squared error larger by 2.03 ± 0.033 squared grey values (larger in 3 of 3 parts)")


def test_one_model_is_refused(folders, images_folder):
    with pytest.raises(UserError, match="rank: found 1 model, allowed: two or more that differ"):
        rank(images_folder(**frames()), [folders[0], folders[0]], device="cpu")


def test_a_frame_without_a_number_does_not_count(folders, images_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(ranking, "_denoiser", lambda network, _: lambda image: image * (1 - int(network.mean) / 10))
    images = frames() | {"dark": np.full((1, 200, 256), np.nan, np.float32)}
    rank(images_folder(**images), folders, output=tmp_path / "rank.csv", device="cpu")
    table = pd.read_csv(tmp_path / "rank.csv")
    assert set(table.parts) == {2} and np.isfinite(table.standard_error).all()


def counts(photons):
    """Return a smooth picture in photons, of which many pixels hold none if there are few."""
    picture = ndimage.gaussian_filter(data.camera()[100:300, 100:356] / 255, 1.5)
    return np.random.default_rng(0).poisson(photons * picture)[None].astype(np.float32)


def test_photons_that_are_counted_singly_are_refused(images_folder):
    few = counts(1)
    with_a_dead_pixel = few + 100
    with_a_dead_pixel[0, 5, 5] = 0
    for image in (few, 255 - few, with_a_dead_pixel):
        with pytest.raises(
            UserError, match=r"rank: found \d\d% of the pixel values at one grey value, .* allowed: 25%"
        ):
            ranking.measure_noise(images_folder(few=image), None)
    assert ranking.measure_noise(images_folder(many=counts(100)), None).direction == "none"


@pytest.mark.parametrize("image", [noisy(64), np.full((1, 40, 50), 7, np.float32)], ids=["trace", "blank"])
def test_images_without_noise_that_can_be_told_from_the_signal_are_refused(images_folder, tmp_path, image):
    for name in "ab":
        (tmp_path / name).mkdir()
        save_model(build(2, dimensions=image.ndim - 1), tmp_path / name)
    with pytest.raises(UserError, match="rank: the noise cannot be told from the signal: "):
        rank(images_folder(a=image), [tmp_path / name for name in "ab"], device="cpu")
