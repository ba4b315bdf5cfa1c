import sys

import numpy as np
import pytest

from dvlae.methods.filters import bm3d
from dvlae.methods.filters.spectrum import spectrum
from dvlae.methods.task import NotApplicableError
from dvlae.system.errors import UserError

KERNEL = (0.25,) * 4
CORRELATION = [1, 0.75, 0.5, 0.25]
NOISE = 0.3  # as in conftest.py
ALL = [(noise, calibration) for noise in ("white", "spectrum") for calibration in ("noisy", "clean")]
ALL += [("stabilised", "noisy")]


@pytest.fixture
def real_bm3d():
    pytest.importorskip("bm3d", reason="unavailable: bm3d, which its licence keeps out of the tests' extra")


@pytest.fixture
def used(weak_bm3d):
    """Replace the package. Return the list of planes and of what their noise is said to be."""
    seen = []

    def filter_plane(plane, noise, profile):
        seen.append((plane, noise))
        return plane

    weak_bm3d.bm3d = filter_plane
    return seen


def test_each_channel_is_filtered_plane_by_plane_with_its_own_noise(used):
    image = np.random.default_rng(0).normal(size=(2, 3, 12, 11)).astype(np.float32)
    filtered = bm3d.denoise(image, np.array([1.0, 4.0]).reshape(2, 1, 1))
    np.testing.assert_array_equal(filtered, image)
    assert [noise for _, noise in used] == [1, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal([plane for plane, _ in used], image.reshape(6, 12, 11))


def test_a_spectrum_has_the_size_of_the_plane(used):
    covariance = np.array([[0.5, 1, 0.5]])
    image = np.random.default_rng(0).normal(size=(1, 12, 30)).astype(np.float32)
    bm3d.denoise(image, [covariance])
    np.testing.assert_array_equal(used[0][1], spectrum(covariance, (12, 30)))


def test_planes_smaller_than_a_block_are_extended_and_cut_again(used):
    image = np.random.default_rng(0).normal(size=(1, 3, 20)).astype(np.float32)
    np.testing.assert_array_equal(bm3d.denoise(image, [np.ones((1, 3))]), image)
    assert used[0][0].shape == used[0][1].shape == (8, 20)


@pytest.mark.parametrize("variance", [0, 1])
def test_constant_planes_and_channels_without_noise_stay_as_they_are(variance, used):
    image = np.full((1, 9, 10), 7, np.float32)
    image[0, 0, 0] += 1 - variance
    np.testing.assert_array_equal(bm3d.denoise(image, np.full((1, 1, 1), variance)), image)
    assert not used


def test_white_noise_is_estimated_for_each_image(used, make_task, pairs):
    made = pairs((2, 60, 50))
    made[1] = (made[1][1] + 3 * (made[1][0] - made[1][1]), None)
    task = make_task(made, noise="white", calibration="noisy")
    fitted = bm3d.fit(task)
    for image in task.images:
        fitted.denoise(image)
    assert [noise for _, noise in used] == pytest.approx([NOISE, NOISE, 3 * NOISE, 3 * NOISE], rel=0.15)
    assert fitted.description == {}


@pytest.mark.parametrize("axis", ["x", "y"])
def test_the_spectrum_is_estimated_from_noisy_images_along_the_direction(axis, used, make_task, pairs):
    made = [(noisy, None) for noisy, _ in pairs((1, 200, 200), kernel=KERNEL)]
    if axis == "y":
        made = [(noisy.transpose(0, 2, 1), None) for noisy, _ in made]
    task = make_task(made, noise_direction=axis, noise="spectrum", calibration="noisy")
    fitted = bm3d.fit(task)
    assert fitted.description["autocorrelation"][0] == pytest.approx(CORRELATION, abs=0.06)
    assert fitted.description["images"] == ["image 0", "image 1"]
    fitted.denoise(task.images[0])
    both = np.array([[*CORRELATION[:0:-1], *CORRELATION]])
    expected = spectrum(NOISE**2 * (both if axis == "x" else both.T), (200, 200))
    np.testing.assert_allclose(used[0][1], expected, atol=0.15 * expected.max())


def test_stabilised_noise_has_the_same_strength_at_every_signal(used, make_task):
    rng = np.random.default_rng(0)
    clean = np.geomspace(10, 1000, 400)[:, np.newaxis] * np.ones(200)
    made = [(rng.poisson(clean)[np.newaxis].astype(np.float32), None) for _ in range(2)]
    task = make_task(made, noise_direction="none", noise="stabilised", calibration="noisy")
    fitted = bm3d.fit(task)
    std = {float(signal): value for signal, value in fitted.description["std_by_signal"][0].items()}
    assert list(std.values()) == pytest.approx(np.sqrt(list(std)), rel=0.1)
    estimate = fitted.denoise(task.images[0])
    ((plane, noise),) = used
    assert noise == pytest.approx(1, rel=0.05)
    differences = np.diff(plane, axis=1).reshape(10, -1) / np.sqrt(2)
    assert differences.std(axis=1) == pytest.approx([1] * 10, rel=0.1)
    # The filter of this test returns what it gets.
    np.testing.assert_allclose(estimate[0].mean(), clean.mean(), rtol=0.01)


def test_an_oracle_does_not_stabilise(weak_bm3d, make_task, pairs):
    with pytest.raises(UserError, match=r"settings\.noise: found 'stabilised', allowed: white, spectrum"):
        bm3d.fit(make_task(pairs(), noise="stabilised", calibration="clean"))


def test_stabilised_is_not_applicable_where_no_noise_can_be_told(weak_bm3d, make_task):
    constant = np.full((1, 30, 30), 7, np.float32)
    task = make_task([(constant, None)], noise_direction="x", noise="stabilised", calibration="noisy")
    with pytest.raises(NotApplicableError, match="how strong the noise is at which signal cannot be told"):
        bm3d.fit(task)


@pytest.mark.parametrize("direction", ["none", "z"])
def test_in_a_plane_noise_of_another_direction_is_white(direction, used, make_task, pairs):
    task = make_task(pairs((1, 8, 60, 61)), noise_direction=direction, noise="spectrum", calibration="noisy")
    fitted = bm3d.fit(task)
    fitted.denoise(task.images[0])
    assert fitted.description["autocorrelation"] == [[1.0]]
    assert [noise for _, noise in used] == pytest.approx([NOISE] * 8, rel=0.15)


def test_narrow_images_are_denoised_with_a_spectrum_too(used, make_task, pairs):
    task = make_task(pairs((1, 4, 300), kernel=KERNEL), noise_direction="x", noise="spectrum", calibration="noisy")
    bm3d.fit(task).denoise(task.images[0])
    assert len(used) == 1


def test_an_oracle_measures_the_noise_and_takes_the_best_strength(weak_bm3d, make_task, pairs):
    found = bm3d.fit(make_task(pairs((2, 60, 50)), noise="white", calibration="clean")).description
    assert found["sigma"] == pytest.approx([NOISE] * 2, rel=0.05)
    best = max(found["tried"], key=lambda row: row["psnr"])
    assert found["strength"] == best["strength"]
    assert min(bm3d.GRID["strength"]) < best["strength"] < max(bm3d.GRID["strength"])


def test_an_oracle_with_a_spectrum_takes_that_of_noisy_minus_clean(used, make_task, pairs):
    task = make_task(pairs((1, 200, 200), kernel=KERNEL), noise="spectrum", calibration="clean")
    fitted = bm3d.fit(task)
    fitted.denoise(task.images[0])
    strength = fitted.description["strength"]
    expected = spectrum((strength * NOISE) ** 2 * np.array([[*CORRELATION[:0:-1], *CORRELATION]]), (200, 200))
    assert np.std(used[-1][1] - expected) < 0.1 * expected.max()


@pytest.mark.parametrize(("noise", "calibration"), ALL)
def test_constant_frames_and_masked_borders_give_finite_estimates(noise, calibration, weak_bm3d, make_task, pairs):
    weak_bm3d.bm3d = lambda plane, noise, profile: plane * np.mean(noise) / np.mean(noise)
    made = pairs((1, 40, 41))
    made[0][0][:, :, :25] = np.nan
    made[0][1][:, :, :25] = np.nan
    mask = np.ones((40, 41), np.float32)
    mask[:, :25] = 0
    constant = np.full((1, 40, 41), 7, np.float32)
    everything = [*made, (constant, constant)]
    task = make_task(everything, mask=mask, noise_direction="x", noise=noise, calibration=calibration)
    fitted = bm3d.fit(task)
    for image in task.images:
        assert np.isfinite(fitted.denoise(image)).all()


@pytest.mark.parametrize(("noise", "calibration"), ALL)
@pytest.mark.usefixtures("weak_bm3d")
def test_traces_are_not_applicable(noise, calibration, make_task, pairs):
    with pytest.raises(NotApplicableError, match="BM3D filters planes, and these are traces"):
        bm3d.fit(make_task(pairs((1, 50)), noise=noise, calibration=calibration))


@pytest.mark.parametrize("key", ["noise", "calibration"])
@pytest.mark.usefixtures("weak_bm3d")
def test_an_unknown_setting_is_one_line_that_says_what_is_allowed(key, make_task, pairs):
    settings = {"noise": "white", "calibration": "noisy"} | {key: "psd"}
    with pytest.raises(UserError, match=f"settings.{key}: found 'psd', allowed: "):
        bm3d.fit(make_task(pairs(), **settings))


def test_bm3d_that_is_not_installed_is_one_line_that_says_how_to_install_it(make_task, pairs, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(UserError, match=r"bm3d is not installed; pip install .*\[bm3d\].*non-commercial"):
        bm3d.fit(make_task(pairs(), noise="white", calibration="noisy"))


@pytest.mark.parametrize(("noise", "calibration"), ALL)
@pytest.mark.usefixtures("real_bm3d")
def test_the_real_bm3d_takes_white_noise_off_and_gives_equal_images_each_time(
    noise, calibration, make_task, pairs, monkeypatch
):
    monkeypatch.setattr(bm3d, "GRID", {"strength": [0.8, 1.0, 1.2]})
    ((noisy, clean),) = made = pairs((1, 48, 50), count=1)
    task = make_task(made, noise=noise, calibration=calibration)
    fitted = bm3d.fit(task)
    first, second = (fitted.denoise(task.images[0]) for _ in range(2))
    assert np.std(first - clean) < 0.5 * np.std(noisy - clean)
    np.testing.assert_array_equal(first, second)


@pytest.mark.usefixtures("real_bm3d")
def test_the_flat_spectrum_of_white_noise_gives_what_its_standard_deviation_gives(pairs):
    ((noisy, clean),) = pairs((1, 64, 60), count=1)
    covariance = np.zeros((1, 3, 3))
    covariance[:, 1, 1] = NOISE**2
    with_spectrum, with_sigma = (bm3d.denoise(noisy, one) for one in (covariance, covariance[:, 1:2, 1:2]))
    assert np.std(with_spectrum - with_sigma) < 0.05 * np.std(with_sigma - clean)


@pytest.mark.usefixtures("real_bm3d")
def test_the_spectrum_of_correlated_noise_is_better_than_its_standard_deviation(make_task, pairs):
    made = pairs((1, 96, 96), count=1, kernel=KERNEL)
    noisy, clean = made[0]
    task = make_task(made, noise_direction="x", noise="spectrum", calibration="noisy")
    errors = [
        np.mean((estimate - clean) ** 2)
        for estimate in (bm3d.fit(task).denoise(task.images[0]), bm3d.denoise(noisy, [np.full((1, 1), NOISE**2)]))
    ]
    assert errors[0] < 0.6 * errors[1]
