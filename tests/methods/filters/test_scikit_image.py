import numpy as np
import pytest

from dvlae.evaluation.metrics import psnr
from dvlae.methods.filters import scikit_image
from dvlae.methods.filters.calibration import apply, combinations, make_invariant
from dvlae.methods.filters.scikit_image import FILTERS, Kind, fit
from dvlae.methods.task import NotApplicableError
from dvlae.system.errors import UserError

FOUR_PIXELS = (0.25,) * 4


@pytest.fixture
def small_grids(monkeypatch):
    """Leave two values of each parameter."""
    small = {
        name: Kind(kind.function, {key: list(values[1:3]) for key, values in kind.grid.items()}, kind.axes)
        for name, kind in FILTERS.items()
    }
    monkeypatch.setattr(scikit_image, "FILTERS", small)
    return small


@pytest.mark.parametrize("calibration", ["noisy", "clean"])
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_removes_most_white_noise(name, calibration, make_task, pairs):
    made = pairs()
    task = make_task(made, filter=name, calibration=calibration)
    fitted = fit(task)
    for image, (noisy, clean) in zip(task.images, made, strict=True):
        assert np.mean((fitted.denoise(image) - clean) ** 2) < 0.35 * np.mean((noisy - clean) ** 2)
    assert {key: fitted.description[key] for key in FILTERS[name].grid} in combinations(FILTERS[name].grid)


@pytest.mark.parametrize("shape", [(1, 40), (2, 20, 21), (1, 1, 20, 21), (1, 2, 20, 21), (1, 9, 12, 13), (1, 2, 30)])
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_keeps_the_shape_of_traces_images_and_volumes(name, shape, make_task, pairs, small_grids):
    task = make_task(pairs(shape), filter=name, calibration="noisy")
    if len(shape) == 2 and name == "nlm":
        with pytest.raises(NotApplicableError, match="nlm filters images and volumes, and there are traces"):
            fit(task)
        return
    estimate = fit(task).denoise(task.images[0])
    assert estimate.shape == shape and estimate.dtype == np.float32
    assert np.isfinite(estimate).all()


@pytest.mark.parametrize("calibration", ["noisy", "clean"])
@pytest.mark.parametrize("name", FILTERS)
def test_constant_frames_and_masked_borders_give_finite_estimates(name, calibration, make_task, pairs, small_grids):
    made = pairs((1, 40, 41))
    made[0][0][:, :, :25] = np.nan
    made[0][1][:, :, :25] = np.nan
    mask = np.ones((40, 41), np.float32)
    mask[:, :25] = 0
    constant = np.full((1, 40, 41), 7, np.float32)
    task = make_task([*made, (constant, constant)], mask=mask, filter=name, calibration=calibration)
    fitted = fit(task)
    for image in task.images:
        assert np.isfinite(fitted.denoise(image)).all()
    np.testing.assert_allclose(fitted.denoise(task.images[2]), constant)


@pytest.mark.parametrize("name", FILTERS)
def test_an_estimate_follows_the_units_of_the_image(name, pairs, small_grids):
    noisy = pairs((2, 24, 25))[0][0]
    kind = small_grids[name]
    parameters = combinations(kind.grid)[0]
    expected = 500 * apply(kind.function, noisy, parameters) + 1000
    np.testing.assert_allclose(apply(kind.function, 500 * noisy + 1000, parameters), expected, atol=0.5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, (20,) * axes) for name, kind in FILTERS.items() for axes in (1, 2, 3) if axes >= kind.axes],
)
def test_no_pixel_of_a_calibrated_estimate_depends_on_the_same_pixel_of_the_image(name, shape, small_grids):
    kind = small_grids[name]
    function = make_invariant(kind.function)
    image = np.random.default_rng(0).normal(size=shape)
    changed, place = image.copy(), tuple(side // 2 for side in shape)
    changed[place] += 5
    parameters = combinations(kind.grid)[0]
    before, after = (function(one, **parameters) for one in (image, changed))
    assert after[place] == pytest.approx(before[place], abs=1e-9)


def test_channels_are_filtered_by_themselves():
    image = np.zeros((2, 20, 20), np.float32)
    image[0, 10, 10] = 1
    assert not apply(FILTERS["gaussian"].function, image, {"sigma": 2})[1].any()


@pytest.mark.parametrize("shape", [(21,), (21, 21), (21, 21, 21)])
def test_the_gaussian_filters_along_every_spatial_axis(shape):
    image = np.zeros(shape)
    image[(10,) * len(shape)] = 1
    smooth = scikit_image.smooth(image, 1)
    neighbours = [smooth[tuple(10 + (i == axis) for i in range(len(shape)))] for axis in range(len(shape))]
    assert neighbours == pytest.approx([smooth.max() * np.exp(-0.5)] * len(shape), rel=1e-3)


@pytest.mark.parametrize(("radius", "pixels"), [(1, 5), (1.5, 9), (2, 13)])
def test_the_median_is_that_of_the_pixels_within_the_radius(radius, pixels):
    random = np.random.default_rng(0).normal(size=(9, 9))
    y, x = np.mgrid[-4:5, -4:5]
    inside = random[y**2 + x**2 <= radius**2]
    assert len(inside) == pixels
    assert scikit_image.take_median(random, radius)[4, 4] == np.median(inside)


def test_an_oracle_takes_the_parameters_with_the_best_mean_psnr(make_task, pairs):
    made = pairs()
    found = fit(make_task(made, filter="gaussian", calibration="clean")).description
    function = FILTERS["gaussian"].function
    means = {
        sigma: np.mean([psnr(clean, apply(function, noisy, {"sigma": sigma}), data_range=1) for noisy, clean in made])
        for sigma in FILTERS["gaussian"].grid["sigma"]
    }
    assert found["sigma"] == max(means, key=means.get)
    assert {row["sigma"]: row["psnr"] for row in found["tried"]} == pytest.approx(means, abs=1e-3)
    assert found["images"] == ["image 0", "image 1"]


def test_an_oracle_says_where_the_best_parameter_is_the_last_that_was_tried(make_task, pairs, monkeypatch, caplog):
    kind = FILTERS["gaussian"]
    monkeypatch.setattr(scikit_image, "FILTERS", {"gaussian": Kind(kind.function, {"sigma": [0.3, 0.5, 0.7]})})
    fit(make_task(pairs(), filter="gaussian", calibration="clean"))
    assert "the best sigma is at the end of what was tried: 0.7" in caplog.text


def test_an_oracle_without_clean_images_is_not_applicable(make_task, pairs):
    made = [(noisy, None) for noisy, _ in pairs()]
    with pytest.raises(NotApplicableError, match="clean images, and there are none"):
        fit(make_task(made, filter="tv", calibration="clean"))


def test_an_oracle_counts_only_the_pixels_of_the_mask(make_task, pairs):
    made = pairs()
    mask = np.ones((60, 50), np.float32)
    mask[:, 20:] = 0
    expected = fit(make_task(made, mask=mask, filter="gaussian", calibration="clean")).description["tried"]
    for _, clean in made:
        clean[:, :, 20:] = 1e3
    changed = fit(make_task(made, mask=mask, filter="gaussian", calibration="clean")).description["tried"]
    assert [row["psnr"] for row in changed] == pytest.approx([row["psnr"] for row in expected], abs=1e-3)


def test_an_oracle_whose_windows_are_all_masked_is_not_applicable(make_task, pairs, monkeypatch):
    monkeypatch.setitem(scikit_image.choose_with_clean.__globals__["MAX_SIDES"], 2, (10, 10))
    mask = np.ones((60, 50), np.float32)
    mask[10:50, 10:40] = 0
    with pytest.raises(NotApplicableError, match="nothing to choose parameters by"):
        fit(make_task(pairs(), mask=mask, filter="gaussian", calibration="clean"))


def test_a_calibration_is_the_same_without_clean_images(make_task, pairs):
    made = pairs()
    found = [
        fit(make_task([(noisy, other) for noisy, _ in made], filter="tv", calibration="noisy")).description
        for other in (made[0][1], None)
    ]
    assert found[0] == found[1]


def test_a_calibration_finds_nearly_the_best_filter_of_white_noise(make_task, pairs):
    made = pairs((1, 128, 128))
    blind = fit(make_task(made, filter="gaussian", calibration="noisy")).description["sigma"]
    tried = fit(make_task(made, filter="gaussian", calibration="clean")).description["tried"]
    values = {row["sigma"]: row["psnr"] for row in tried}
    assert values[blind] > max(values.values()) - 0.3


def test_a_calibration_smooths_correlated_noise_too_little(make_task, pairs):
    made = pairs((1, 128, 128), kernel=FOUR_PIXELS)
    blind, oracle = (
        fit(make_task(made, filter="gaussian", calibration=how)).description["sigma"] for how in ("noisy", "clean")
    )
    assert blind < 0.7 * oracle


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filter": "gauss", "calibration": "noisy"}, "settings.filter: found 'gauss', allowed: gaussian, median"),
        ({"filter": "tv", "calibration": "oracle"}, "settings.calibration: found 'oracle', allowed: noisy, clean"),
        ({"filter": "tv"}, "settings.calibration: found None, allowed: noisy, clean"),
    ],
)
def test_an_unknown_setting_is_one_line_that_says_what_is_allowed(settings, message, make_task, pairs):
    with pytest.raises(UserError, match=message):
        fit(make_task(pairs(), **settings))
