"""What becomes of masks and blank frames in `prepare`, and from there on."""

import numpy as np
import pytest
import tifffile

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, read_frame, read_mask, read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.data.prepare import prepare
from dvlae.evaluation.target import Target
from dvlae.system.errors import UserError


def movie(*seed, frames=5, sides=(96, 128), mean=50):
    return np.random.default_rng([21, *seed]).poisson(mean, (frames, *sides)).astype(np.float32)


@pytest.fixture
def prepared(tmp_path, dataset):
    """Return a function that writes files, prepares them, and returns the rows of the manifest."""

    def make(axes="YX", files=None, **keys):
        for name, array in (files or {}).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / name, np.asarray(array), photometric="minisblack")
        prepare(dataset(axes=axes, **keys), tmp_path, None, tmp_path / "images")
        return read_manifest(tmp_path / "images")

    return make


def with_nan(image):
    image = image.copy()
    image[..., :4] = np.nan
    image[..., 90:, :] = np.nan
    return image


def test_pixels_that_are_not_numbers_get_a_mask_and_are_kept(prepared):
    image = with_nan(movie(0)[0])
    (row,) = prepared(files={"a.tif": image})
    assert np.array_equal(read_mask(row), np.isfinite(image))
    assert np.array_equal(read_frame(row.noisy)[0], image, equal_nan=True)
    assert np.isfinite(read_noisy(row)).all()


def test_masked_pixels_are_said_on_the_screen(prepared, caplog):
    prepared(files={"a.tif": with_nan(movie(0)[0]), "b.tif": movie(1)[0]})
    (line,) = [record.getMessage() for record in caplog.records if "masked" in record.getMessage()]
    assert line.startswith("prepare: 1128 pixels (4.6%) in 1 of 2 images of `noisy` are masked")
    assert line.endswith(": a")


def test_frames_without_a_mask_have_none_and_others_have_their_own(prepared):
    frames = movie(1)
    frames[1], frames[3, :7] = with_nan(frames[1]), 0
    rows = prepared("TYX", {"a.tif": frames})
    assert [row.mask is not None for row in rows] == [False, True, False, True, False]
    assert np.array_equal(read_mask(rows[1]), np.isfinite(frames[1]))
    assert np.array_equal(read_mask(rows[3]), frames[3] > 0)


def test_the_mask_that_all_frames_share_is_written_once(prepared):
    frames = with_nan(movie(2))
    rows = prepared("TYX", {"a.tif": frames})
    assert len(tifffile.TiffFile(rows[0].mask).pages) == 1
    assert all(np.array_equal(read_mask(row), np.isfinite(frames[0])) for row in rows)


def test_a_pixel_counts_only_if_it_is_a_number_in_the_clean_image_too(prepared):
    noisy, clean = movie(3)[:2]
    clean[:10] = np.nan
    (row,) = prepared(noisy="n*.tif", clean="c*.tif", files={"n.tif": with_nan(noisy), "c.tif": clean})
    assert np.array_equal(read_mask(row), np.isfinite(with_nan(noisy)) & np.isfinite(clean))
    assert np.isfinite(read_clean(row)).all()


@pytest.mark.parametrize("crop", [None, {"y": [10, 80], "x": [5, 100]}])
def test_a_file_says_which_pixels_count(prepared, crop):
    mask = np.hypot(*np.mgrid[-48:48, -64:64]) < 40
    rows = prepared("TYX", {"a.tif": movie(4), "mask/m.tif": mask.astype(np.uint8) * 255}, mask="mask/m.tif", crop=crop)
    window = np.s_[10:80, 5:100] if crop else np.s_[:]
    assert all(np.array_equal(read_mask(row), mask[window]) for row in rows)


def test_a_mask_of_other_sides_is_refused(prepared):
    with pytest.raises(UserError, match="found 40 x 30 pixels, allowed: 96 x 128"):
        prepared(files={"a.tif": movie(5)[0], "mask/m.tif": np.ones((40, 30), np.uint8)}, mask="mask/m.tif")


def test_images_of_which_no_pixel_counts_are_refused_with_the_cause(prepared):
    with pytest.raises(UserError, match=r"no pixel counts, as `mask` leaves out all of them.*other than 0 count"):
        prepared(files={"a.tif": movie(5)[0], "mask/m.tif": np.zeros((96, 128), np.uint8)}, mask="mask/m.tif")


def test_a_mask_that_is_missing_is_refused(prepared):
    with pytest.raises(UserError, match=r"mask: found 'm.tif', which is no file in .*, allowed: auto, none, a file"):
        prepared(files={"a.tif": movie(5)[0]}, mask="m.tif")


def test_without_a_mask_the_place_of_what_is_no_number_is_named(prepared):
    image = movie(6)[0]
    image[20:23, 50:60] = np.nan
    with pytest.raises(UserError, match=r"found 30 pixels .* in y: \[20, 23\], x: \[50, 60\]; `crop` .* `mask: auto`"):
        prepared(files={"a.tif": image}, mask="none")
    border = movie(6)[0]
    border[:, :9] = 0
    (row,) = prepared(files={"a.tif": border}, mask="none")
    assert row.mask is None


def test_a_blank_frame_among_others_is_kept_and_named(prepared, caplog):
    frames = movie(7)
    frames[3] = 0
    rows = prepared("TYX", {"a.tif": frames})
    assert len(rows) == 5 and all(row.mask is None for row in rows)
    assert "1 of 5 images of `noisy` is blank" in caplog.text and caplog.text.endswith(": a_3\n")


@pytest.mark.parametrize(
    ("dtype", "value", "named"),
    [("uint16", 65535, True), ("uint16", 4095, True), ("float32", 4095, True), ("uint16", 4000, False)],
)
def test_a_frame_that_is_saturated_throughout_is_not_called_blank(prepared, caplog, dtype, value, named):
    frames = movie(7).astype(dtype)
    frames[3], frames[1] = value, 0
    prepared("TYX", {"a.tif": frames})
    said = [line for line in caplog.messages if "given back as recorded" in line]
    assert len(said) == 1 + named and said[0].startswith(f"prepare: {2 - named} of 5 images of `noisy`")
    assert not named or ("1 of 5 images of `noisy` is saturated throughout" in said[1] and said[1].endswith(": a_3"))


def test_a_frame_is_blank_with_a_hot_pixel_too(prepared, caplog):
    frames = movie(9)
    frames[2] = 3
    frames[2, 40, 50] = 4095
    prepared("TYX", {"a.tif": frames})
    assert "1 of 5 images of `noisy` is blank" in caplog.text


@pytest.mark.parametrize(("other", "scale"), [(np.uint8, 1), (np.float32, 1 / 256)])
def test_images_of_different_types_are_named(prepared, caplog, other, scale):
    images = {f"{i}.tif": movie(i)[0].astype(np.uint16) * 256 for i in range(2)}
    images["c.tif"] = (movie(2)[0] * scale).astype(other)
    prepared(files=images)
    (line,) = [message for message in caplog.messages if "types" in message]
    assert f"{np.dtype(other).name}, up to {images['c.tif'].max():g}: c.tif" in line
    assert f"uint16, up to {max(images['0.tif'].max(), images['1.tif'].max())}: 0.tif, 1.tif" in line


def test_images_of_one_type_and_another_scale_are_named(prepared, caplog):
    images = {f"{i}.tif": movie(i)[0].astype(np.uint16) * (16 if i == 1 else 1) for i in range(3)}
    prepared(files=images)
    (line,) = caplog.messages
    assert line.startswith("prepare: WARNING: the noise of 1 differs by more than a factor of 8")


def test_images_of_one_type_and_scale_are_not_warned_of(prepared, caplog):
    images = [movie(i)[0].astype(np.uint16) for i in range(3)]
    images[0][50, 60] = 65535
    prepared(files={f"{i}.tif": image for i, image in enumerate(images)})
    assert not caplog.messages


def test_images_that_are_all_blank_are_refused(prepared):
    with pytest.raises(UserError, match=r"a.tif: found 7 everywhere, allowed: at least one image that is not constant"):
        prepared(files={"a.tif": np.full((30, 40), 7, np.uint8), "b.tif": np.zeros((30, 40), np.uint8)})


@pytest.mark.parametrize("dye", [0, 1, 2])
def test_a_channel_without_dye_is_refused_with_the_key_that_helps(prepared, dye):
    image = np.zeros((3, 40, 50), np.uint8)
    image[dye] = movie(8)[0, :40, :50]
    with pytest.raises(
        UserError,
        match=f"channel {min({0, 1, 2} - {dye})} is constant in all images, such as .*a.tif; `channel: {dye}` keeps",
    ):
        prepared("CYX", {"a.tif": image})
    (row,) = prepared("CYX", {"a.tif": image}, channel=dye)
    assert row.shape == (1, 40, 50)


def test_the_mean_of_frames_leaves_out_blank_ones_hot_pixels_and_masks(prepared):
    frames = movie(9, frames=6)
    expected = np.delete(frames, 3, axis=0).mean(axis=0)
    frames[3] = 0
    frames[:, 20, 30] = 4095
    frames[0, 50, 60] = 4095
    mean = read_clean(prepared("TYX", {"a.tif": frames}, clean="mean")[0])[0]
    good = np.ones(expected.shape, bool)
    good[[20, 50], [30, 60]] = False
    assert mean[good] == pytest.approx(expected[good], rel=1e-5)
    assert np.abs(mean[~good] - 50).max() < 20


def test_evaluation_is_of_the_pixels_that_count():
    random = np.random.default_rng(3)
    clean = 100 + 50 * np.sin(np.mgrid[:60, :70].sum(axis=0) / 9)[None]
    mask = np.ones((60, 70), bool)
    mask[:20] = False
    estimate = clean + random.normal(0, 3, clean.shape)
    other = np.where(mask, estimate, np.nan)
    for fit in ("none", "estimate_to_clean", "clean_to_noisy"):
        settings = EvaluationSettings(fit=fit, data_range="auto")
        noisy = 2 * clean + 7 + random.normal(0, 9, clean.shape)
        part = Target.build(noisy[:, 20:], clean[:, 20:], settings)
        whole = Target.build(np.where(mask, noisy, 60000), np.where(mask, clean, -900), settings, mask=mask)
        assert whole.data_range == pytest.approx(part.data_range)
        assert whole.score(other)[0] == pytest.approx(part.score(estimate[:, 20:])[0], abs=1e-3)
        assert whole.score(other)[1] == pytest.approx(part.score(estimate[:, 20:])[1], abs=0.02)
