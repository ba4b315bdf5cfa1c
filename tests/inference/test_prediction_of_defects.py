"""What becomes of defects and other scales on the way through a model."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from dvlae.config.messages import validate
from dvlae.config.settings import PredictSettings
from dvlae.data.canonical import set_offset
from dvlae.data.defects import measure_scale
from dvlae.data.defects.seen import SeenScale
from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.reading import read_output
from dvlae.inference.prediction import predict
from dvlae.models.files import save_model
from dvlae.system.errors import UserError
from untrained import build, noisy


def predict_frames(tmp_path, images_folder, frames, seen=None, **prediction):
    """Return the estimates, the deviations and the record of a prediction of a model that has seen such images."""
    save_model(build(), tmp_path, seen)
    images = images_folder(**frames)
    settings = validate(PredictSettings, {"prediction": {"samples": 2} | prediction, "device": "cpu"}, "test")
    denoised, uncertainty, samples = (tmp_path / name for name in ("denoised", "uncertainty", "samples"))
    predict(tmp_path, images, denoised, uncertainty, samples, seed=0, settings=settings)
    read = [
        {image.name: read_output(folder, image, deviation=folder == uncertainty) for image in read_manifest(images)}
        for folder in (denoised, uncertainty)
    ]
    return *read, json.loads((tmp_path / "prediction.json").read_text())


@pytest.fixture
def seen():
    return SeenScale.of([measure_scale(noisy(64, 64))]).to_json()


def hot(image, value=60000):
    image = image.copy()
    image[0, 20, 30] = value
    return image


@pytest.mark.parametrize("prediction", [{"rescale": True}, {"hot_pixels": "keep"}, {"estimator": "median"}])
def test_large_images_are_predicted_in_bands_with_the_same_bytes(
    tmp_path, images_folder, seen, small_bands, prediction
):
    frames = {"a": hot(noisy(64, 64)), "b": 3 * noisy(64, 64), "c": np.zeros((1, 64, 64))}
    whole = predict_frames(tmp_path, images_folder, frames, seen, **prediction)
    small_bands()
    parts = predict_frames(tmp_path, images_folder, frames, seen, **prediction)
    for one, other in zip(whole[:2], parts[:2], strict=True):
        for name in frames:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_hot_pixel_changes_nothing_around_it_and_is_filled_in(tmp_path, images_folder, seen, caplog):
    clean = noisy(64, 64)
    filled = clean.copy()
    filled[0, 20, 30] = (clean[0, 19:22, 29:32].sum() - clean[0, 20, 30]) / 8
    estimates, _, record = predict_frames(tmp_path, images_folder, {"a": hot(clean)}, seen)
    (tmp_path / "second").mkdir()
    expected, *_ = predict_frames(tmp_path / "second", images_folder, {"a": filled}, seen)
    np.testing.assert_array_equal(estimates["a"], expected["a"])
    assert record["found"]["hot_pixels"] == {"a": 1}
    assert "1 hot or dead pixel value in 1 of 1 image: filled in" in caplog.text


def test_hot_pixels_are_kept_where_they_are_asked_for(tmp_path, images_folder, seen):
    estimates, *_ = predict_frames(tmp_path, images_folder, {"a": hot(noisy(64, 64))}, seen, hot_pixels="keep")
    assert estimates["a"][0, 20, 30] == 60000
    assert estimates["a"].flat[:1000].max() < 1000


def test_doubtful_pixels_stay_as_they_are_and_change_nothing_around(tmp_path, images_folder, seen, caplog):
    image = noisy(64, 64)
    image[0, 20:22, 30] = 50000, 50100
    estimates, deviations, record = predict_frames(tmp_path, images_folder, {"a": image}, seen)
    assert np.array_equal(estimates["a"][0, 20:22, 30], [50000, 50100])
    assert np.count_nonzero(estimates["a"] > 1000) == np.count_nonzero(deviations["a"] == 0) == 2
    assert record["found"]["doubtful_pixels"] == {"a": 2} and not record["found"]["hot_pixels"]
    assert "2 doubtful pixel values in 1 of 1 image: left as recorded" in caplog.text


def test_glaring_pixels_stay_as_they_are_and_change_nothing_around(tmp_path, images_folder, seen):
    image = noisy(64, 64)
    image[0, 20:30, 20:30] = 60000
    estimates, deviations, _ = predict_frames(tmp_path, images_folder, {"a": image}, seen)
    assert np.array_equal(estimates["a"] > 1000, image == 60000)
    assert np.array_equal(deviations["a"] == 0, image == 60000)


def test_a_blank_frame_stays_as_it_is(tmp_path, images_folder, seen, caplog):
    frames = {"a": noisy(64, 64), "b": np.full((1, 64, 64), 7, np.float32)}
    estimates, deviations, record = predict_frames(tmp_path, images_folder, frames, seen)
    assert (estimates["b"] == 7).all() and (deviations["b"] == 0).all()
    assert record["found"]["unchanged"] == {"b": "blank"}
    assert "left as they are: b" in caplog.text


def ramp(exposure):
    level = exposure * np.linspace(30, 120, 64)
    return np.random.default_rng(1).poisson(level, (1, 64, 64)).astype(np.float32)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (256 * ramp(1), "gain or bit depth"),
        (ramp(1) + 500, "brightness, gain or offset"),
        (ramp(16), "brightness"),
        (ramp(1 / 4), "brightness, gain or offset"),
    ],
)
def test_images_of_another_scale_are_named(tmp_path, images_folder, caplog, other, kind):
    seen = SeenScale.of([measure_scale(ramp(1))]).to_json()
    *_, record = predict_frames(tmp_path, images_folder, {"a": ramp(1), "b c": other}, seen)
    assert record["found"]["unseen"] == {"b c": kind}
    assert f"another {kind} than that of most images of the training, so estimates are unreliable: b c; " in caplog.text


@pytest.mark.parametrize(("offset", "scale"), [(48, 1), (0, 2.0**-9), (-32, 2.0**40)])
@pytest.mark.parametrize("prediction", [{}, {"save_samples": 2}, {"rescale": True}])
def test_images_in_other_units_are_denoised_in_those_of_the_training(
    tmp_path, images_folder, seen, caplog, offset, scale, prediction
):
    seen["units"] = {"offset": 0, "scale": 1}
    frames = {"a": hot(noisy(64, 64)), "b": np.full((1, 64, 64), 7, np.float32)}
    predict_frames(tmp_path, images_folder, frames, seen, **prediction)
    for path in (tmp_path / "images/noisy").iterdir():
        set_offset(path, offset, scale)
    expected = {path.relative_to(tmp_path): tifffile.imread(path) for path in tmp_path.glob("[dus]*/*.tif")}
    settings = validate(PredictSettings, {"prediction": {"samples": 2} | prediction, "device": "cpu"}, "test")
    folders = [tmp_path / "again" / name for name in ("denoised", "uncertainty", "samples")]
    predict(tmp_path, tmp_path / "images", *folders, seed=0, settings=settings)
    assert len(expected) >= 4
    # What a model makes of a blank frame is not asked for.
    expected.pop(Path("samples/b.tif"), None)
    for path, values in expected.items():
        np.testing.assert_allclose(tifffile.imread(tmp_path / "again" / path), values, rtol=1e-3, atol=1e-2)
    assert "unreliable" not in caplog.text


def test_grey_values_beyond_32_bits_in_the_units_of_the_training_are_refused(tmp_path, images_folder, seen):
    save_model(build(), tmp_path, seen | {"units": {"offset": 0, "scale": 2.0**-900}})
    images = images_folder(a=noisy(64, 64))
    settings = validate(PredictSettings, {"prediction": {"samples": 2}, "device": "cpu"}, "test")
    with pytest.raises(UserError, match="a: found grey values that 32 bits do not hold in the units of the training"):
        predict(tmp_path, images, tmp_path / "d", tmp_path / "u", seed=0, settings=settings)


@pytest.mark.parametrize(("gain", "offset"), [(256, 0), (1, 500)])
def test_images_of_another_gain_or_offset_can_be_rescaled(tmp_path, images_folder, seen, gain, offset):
    frames = {"a": noisy(64, 64), "b": gain * noisy(64, 64) + offset}
    options = {"rescale": True, "save_samples": 2}
    estimates, deviations, record = predict_frames(tmp_path, images_folder, frames, seen, **options)
    assert set(record["found"]["rescaled"]) == {"b"} and not record["found"]["unseen"]
    # The latent noise depends on the name, so the estimates differ a little.
    back = (estimates["b"] - offset) / gain
    assert np.abs(back - estimates["a"]).mean() < 0.3 * noisy(64, 64).std()
    samples = tifffile.imread(tmp_path / "samples" / "b.tif")
    np.testing.assert_allclose(samples.mean(0), estimates["b"][0], rtol=1e-3)
    assert deviations["b"].mean() == pytest.approx(gain * deviations["a"].mean(), rel=0.2)


def test_a_model_that_does_not_say_what_it_has_seen_warns_of_nothing(tmp_path, images_folder, caplog):
    *_, record = predict_frames(tmp_path, images_folder, {"a": 1000 * noisy(64, 64)})
    assert not record["found"]["unseen"]
    assert "WARNING" not in caplog.text
