import csv

import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import CropSettings, EvaluationSettings
from dvlae.data.canonical import read_frame, read_noisy, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.evaluation import target
from dvlae.evaluation.metrics import shift_image
from dvlae.evaluation.register import TARGET_COLUMNS, Targets, register
from dvlae.evaluation.target import Target, find_region
from dvlae.system.errors import UserError

ALL_FITS = ("none", "estimate_to_clean", "clean_to_noisy")


def settings(**changes):
    return EvaluationSettings(**({"data_range": 1.0} | changes))


def noise_like(image):
    return np.random.default_rng(1).normal(size=image.shape).astype(np.float32)


def test_target_registers_the_clean_image_to_the_noisy_one(clean):
    drifted = shift_image(clean, (1.5, -2.5))
    without = Target.build(clean, drifted, settings(border=6))
    with_it = Target.build(clean, drifted, settings(border=6, register=True))
    assert with_it.score(clean)[0] > without.score(clean)[0] + 15


def test_target_fits_every_estimate_to_the_clean_image(clean):
    target = Target.build(clean, clean, settings(fit="estimate_to_clean"))
    assert target.score(0.3 * clean + 7)[0] > 100
    assert target.gain_and_offset(0.5 * clean) == pytest.approx((2, 0), abs=1e-4)


def test_target_fits_the_clean_image_to_the_noisy_one_once(clean):
    noisy = 3 * clean + 10 + noise_like(clean)
    target = Target.build(noisy, clean, settings(fit="clean_to_noisy"))
    np.testing.assert_allclose(target.clean, 3 * clean + 10, atol=0.3)
    assert target.gain_and_offset(0.5 * clean) == (1.0, 0.0)


@pytest.mark.parametrize("fit", ["estimate_to_clean", "clean_to_noisy"])
def test_target_gives_the_noise_in_units_of_the_noisy_image_whatever_the_exposure(clean, fit):
    noise = noise_like(clean)
    target = Target.build(3 * clean + 10 + noise, clean, settings(fit=fit))
    np.testing.assert_allclose(target.noise(), noise, atol=0.2)


def test_target_takes_the_data_range_from_the_clean_image_as_used(clean):
    clean[:, 0, 0] = 1e6  # in the border, which is left out
    target = Target.build(clean, clean, settings(data_range="auto", border=2))
    assert target.data_range == pytest.approx(np.ptp(clean[:, 2:-2, 2:-2]))


def test_target_refuses_an_automatic_range_of_a_constant_clean_image():
    flat = np.ones((1, 20, 20), np.float32)
    with pytest.raises(UserError, match=r"data_range.*constant"):
        Target.build(flat, flat, settings(data_range="auto"))


@pytest.mark.parametrize(("crop", "problem"), [
    ({"y": [0, 61]}, r"y: found \[0, 61\], but the image has 60 pixels along y"),
    ({"x": [-71, -1]}, r"x: found \[-71, -1\], but the image has 70 pixels along x"),
    ({"x": [60, -20]}, r"x: found \[60, -20\], but the image has 70 pixels along x"),
    ({"z": [0, 1]}, r"z: found \[0, 1\], allowed: null, as the axes 'YX' have no Z"),
])  # fmt: skip
def test_a_crop_beyond_the_image_is_refused(crop, problem):
    with pytest.raises(UserError, match=rf"^evaluation.crop.{problem}$"):
        find_region((60, 70), settings(crop=CropSettings(**crop)))
    assert find_region((60, 70), settings(crop=CropSettings(y=[0, 60], x=[-70, -1]))) == (slice(0, 60), slice(0, 69))


def test_region_is_the_crop_less_the_border():
    crop = CropSettings(y=[10, 40])
    rows, columns = find_region((60, 70), settings(crop=crop, border=3))
    assert (rows, columns) == (slice(13, 37), slice(3, 67))


def test_the_border_of_a_volume_is_along_x_and_y_alone():
    crop = CropSettings(z=[2, 4], x=[0, 40])
    region = find_region((5, 60, 70), settings(crop=crop, border=3))
    assert region == (slice(2, 4), slice(3, 57), slice(3, 37))
    assert find_region((70,), settings(border=3)) == (slice(3, 67),)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((10, 30), "0 x 20 of 10 x 30 pixels, allowed: at least one along each axis"),
        ((9,), "0 of 9 pixels, allowed: at least one"),
        ((1, 8, 30), "1 x 0 x 20 of 1 x 8 x 30 pixels, allowed: at least one"),
    ],
)
def test_a_region_without_a_pixel_is_refused(shape, said):
    with pytest.raises(UserError, match=said):
        find_region(shape, settings(border=5))


@pytest.mark.parametrize("shape", [(200,), (50, 60), (3, 50, 60)])
def test_target_scores_traces_images_and_volumes(shape):
    random = np.random.default_rng(0)
    clean = ndimage.gaussian_filter(random.normal(size=(2, *shape)), 2, axes=range(1, len(shape) + 1))
    noisy = 3 * clean + 0.3 * random.normal(size=clean.shape)
    target = Target.build(noisy, clean, settings(register=True, fit="estimate_to_clean", border=4))
    assert target.score(clean)[0] > target.score(noisy)[0] + 10
    assert np.isfinite(target.score(noisy)).all()


@pytest.fixture
def pairs(tmp_path):
    """Return a function that makes images with drifted clean ones at another exposure; the second has no clean one."""

    def make(shape=(40, 52), count=3):
        random = np.random.default_rng(0)
        folder, rows = tmp_path / "images", []
        for i in range(count):
            clean = 20 * ndimage.gaussian_filter(random.normal(size=(1, *shape)), 2, axes=range(1, len(shape) + 1))
            has_clean = i != 1
            image = Image(f"a, {i}", folder / f"n{i}.tif", folder / f"c{i}.tif" if has_clean else None, clean.shape)
            write_image(image.noisy, 3 * clean + 7 + random.normal(size=clean.shape))
            if has_clean:
                write_image(image.clean, shift_image(clean, (0.4 + i,) * len(shape)))
            rows.append(image)
        write_manifest(folder, rows)
        return folder

    return make


@pytest.fixture
def registrations(monkeypatch):
    """Return a list that grows by one at each registration."""
    calls, find_shift = [], target.find_shift
    monkeypatch.setattr(target, "find_shift", lambda *pair: calls.append(1) or find_shift(*pair))
    return calls


def write_table(images, settings):
    register(images, images.parent / "targets.csv", settings=settings)
    return images.parent / "targets.csv"


def read_rows(table):
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


def compare_first(images, settings, table=None):
    image = read_manifest(images)[0]
    return Targets(settings, table).target(image, read_noisy(image))


@pytest.mark.parametrize("fit", ALL_FITS)
@pytest.mark.parametrize("drift", [True, False])
@pytest.mark.parametrize("shape", [(200,), (40, 52), (3, 40, 52)])
def test_a_target_from_the_table_has_the_bits_of_one_that_is_found_anew(pairs, registrations, shape, drift, fit):
    images, how = pairs(shape), settings(register=drift, fit=fit, border=2, data_range="auto")
    table = write_table(images, how)
    registrations.clear()
    from_table = compare_first(images, how, table)
    assert not registrations
    found = compare_first(images, how)
    assert len(registrations) == drift
    for name in ("clean", "noisy"):
        assert getattr(from_table, name).tobytes() == getattr(found, name).tobytes()
        assert getattr(from_table, name).dtype == getattr(found, name).dtype
    assert (from_table.region, from_table.data_range) == (found.region, found.data_range)
    assert from_table.fit_estimate == found.fit_estimate == (fit == "estimate_to_clean")


def test_the_table_has_a_row_for_each_evaluated_image_with_a_clean_one(pairs):
    table = write_table(pairs(count=4), settings(images=["a, 0", "a, 1", "a, 3"]))
    assert [row["image"] for row in read_rows(table)] == ["a, 0", "a, 3"]


def test_a_row_says_how_the_clean_image_lies_on_the_noisy_one(pairs):
    how = settings(register=True, fit="clean_to_noisy", border=3, crop={"x": [10, 50]})
    row = read_rows(write_table(pairs(), how))[0]
    assert tuple(row) == TARGET_COLUMNS
    assert row["dz"] == ""
    assert [float(row["dy"]), float(row["dx"])] == pytest.approx([0.4, 0.4], abs=0.1)
    assert [float(row["gain"]), float(row["offset"])] == pytest.approx([3, 7], abs=0.2)
    assert (row["data_range"], row["region"]) == ("1.0", "3:37 13:47")
    assert float(row["reference_noise"]) < 1


def test_what_the_dataset_does_not_ask_for_is_empty(pairs):
    row = read_rows(write_table(pairs(), settings()))[0]
    assert [row[name] for name in ("dz", "dy", "dx", "gain", "offset")] == [""] * 5


def test_without_clean_images_the_table_is_its_header(images_folder):
    images = images_folder(a=np.ones((1, 20, 20)))
    assert write_table(images, settings(register=True)).read_text() == ",".join(TARGET_COLUMNS) + "\n"


def test_a_constant_clean_image_is_named_with_what_would_do(pairs):
    images = pairs((40, 52))
    write_image(read_manifest(images)[2].clean, np.full((1, 40, 52), 3.0))
    with pytest.raises(UserError, match=r"^a, 2: evaluation\.data_range: found 'auto', .* constant .* number would do"):
        write_table(images, settings(data_range="auto"))


def test_without_a_table_an_image_is_registered_once(pairs, registrations):
    image = read_manifest(pairs())[0]
    targets = Targets(settings(register=True))
    for _ in range(2):
        targets.target(image, read_noisy(image))
    assert len(registrations) == 1


def test_a_table_serves_any_choice_of_its_images(pairs):
    images = pairs()
    table = write_table(images, settings(images="all"))
    compare_first(images, settings(images="0:1"), table)


@pytest.mark.parametrize("change", [{"border": 2}, {"register": True}, {"fit": "clean_to_noisy"}, {"data_range": 2.0}])
def test_a_table_of_other_settings_is_refused(pairs, change):
    images = pairs()
    table = write_table(images, settings())
    with pytest.raises(UserError, match=r"targets.csv: image 'a, 0': found a row of other evaluation settings; run"):
        compare_first(images, settings(**change), table)


@pytest.mark.parametrize("kind", ["noisy", "clean"])
def test_a_table_of_other_images_is_refused(pairs, kind):
    images = pairs()
    table = write_table(images, settings())
    changed = getattr(read_manifest(images)[0], kind)
    write_image(changed, 1 + read_frame(changed))
    with pytest.raises(UserError, match=r"targets.csv: image 'a, 0': found a row of another noisy or clean image; run"):
        compare_first(images, settings(), table)


def test_a_table_without_the_image_is_refused(pairs):
    images = pairs()
    table = write_table(images, settings(images="1:"))
    with pytest.raises(UserError, match=r"targets.csv: image 'a, 0': found no row; run `dvlae register` again"):
        compare_first(images, settings(), table)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"targets.csv: no such file; `dvlae register` makes it"):
        Targets(settings(), tmp_path / "targets.csv")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "image,psnr\na,30\n",
        ",".join(TARGET_COLUMNS) + "\na,,zero,0,,,1.0,0:20 0:20,x,y\n",
        ",".join(TARGET_COLUMNS) + "\na,,,,,,1.0,0:20 20,x,y\n",
        ",".join(TARGET_COLUMNS) + "\na,,1\n",
        "\0",
    ],
)
def test_what_is_not_a_table_of_targets_is_refused(tmp_path, text):
    (tmp_path / "targets.csv").write_text(text)
    with pytest.raises(UserError, match=r"targets.csv: not a table of targets; `dvlae register` makes one"):
        Targets(settings(), tmp_path / "targets.csv")
