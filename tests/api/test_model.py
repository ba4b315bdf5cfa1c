import gc
import logging
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch

import dvlae
from dvlae.system.errors import UserError
from noisy_images import noise, scene

STACK = np.random.default_rng(0).poisson(scene(shape=(3, 40, 48))).astype(np.uint16)


@pytest.fixture(scope="module")
def model():
    return dvlae.fit(STACK, noise_direction="x", receptive_field=8, max_steps=2)


def test_the_package_is_imported_at_once_and_without_torch():
    code = "import sys, dvlae; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_unknown_names_of_the_package_are_errors():
    with pytest.raises(AttributeError, match="no attribute 'denoize'"):
        dvlae.denoize  # noqa: B018


@pytest.mark.parametrize("axes", ["SYX", "YSX", "YXS"])
def test_what_comes_out_has_the_axes_of_what_went_in(model, axes):
    order = ["SYX".index(axis) for axis in axes]
    expected, expected_std = model.denoise(STACK, samples=2)
    clean, std = model.denoise(STACK.transpose(order), axes=axes, samples=2)
    assert clean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(clean, expected.transpose(order), rtol=1e-4)
    np.testing.assert_allclose(std, expected_std.transpose(order), rtol=1e-2, atol=1e-3)


def test_an_array_in_a_zarr_store_is_denoised_like_one_in_memory(model, tmp_path):
    import zarr

    stored = zarr.create_array(tmp_path / "a.zarr", data=STACK, chunks=(1, 40, 48))
    np.testing.assert_array_equal(model.denoise(stored, samples=2)[0], model.denoise(STACK, samples=2)[0])


def test_single_images_and_single_samples_are_possible(model):
    clean, std = model.denoise(STACK[0], samples=1)
    assert clean.shape == STACK[0].shape
    assert std is None


def test_masked_pixels_do_not_count_and_come_back(model):
    mask = np.zeros(STACK.shape, bool)
    mask[0, 5:9, 6:20] = True
    spoilt = np.ma.array(np.where(mask, 60000, STACK).astype(np.uint16), mask=mask)
    clean, std = model.denoise(spoilt, samples=2)
    expected, _ = model.denoise(np.where(mask, np.nan, STACK), samples=2)
    np.testing.assert_allclose(clean.data[~mask], expected[~mask], rtol=1e-5)
    np.testing.assert_array_equal(clean.mask, mask)
    np.testing.assert_array_equal(std.mask, mask)
    assert (clean.data[mask] == 60000).all()


def test_messages_name_the_arrays(model):
    with pytest.raises(UserError, match=r"^array 0: found 0 everywhere"):
        model.denoise(np.zeros((40, 48)))
    with pytest.raises(UserError, match=r"^array 0, image 0: found 0 everywhere"):
        dvlae.diagnose([np.zeros((3, 40, 48)), np.zeros((3, 40, 48))])
    with pytest.raises(UserError, match=r"^array 0: found 1 channel and 3 spatial axes"):
        model.denoise(STACK, axes="ZYX")


def test_messages_of_the_log_and_reasons_name_the_arrays(caplog):
    frames = STACK.copy()
    frames[1] = frames[0]
    found = dvlae.diagnose([frames, STACK.astype(np.float32)])
    assert any("array 0, image 1 of array 0, image 0" in reason for reason in found.reasons)
    (types,) = [line for line in caplog.messages if "different types" in line]
    assert "array 0" in types and "array 1" in types
    assert not [line for line in caplog.messages if ".npy" in line or "array 0_" in line]


def test_of_several_arrays_each_is_denoised_on_its_own(model):
    with pytest.raises(UserError, match="image: found list, allowed: an array, and several of them one by one"):
        model.denoise([STACK, STACK])


def test_axes_of_length_one_stay(model):
    clean, std = model.denoise(STACK[None, :1, None], axes="TSCYX", samples=2)
    assert clean.shape == std.shape == (1, 1, 1, 40, 48)


def test_colours_are_denoised_together():
    colours = STACK.transpose(1, 2, 0)
    model = dvlae.fit(colours, axes="YXC", noise_direction="none", max_steps=2)
    clean, std = model.denoise(colours, axes="YXC", samples=2)
    assert clean.shape == std.shape == colours.shape


def test_volumes_and_traces_have_models_of_their_own():
    volume = np.random.default_rng(0).poisson(20, (8, 32, 32))
    model = dvlae.fit(volume, axes="ZYX", noise_direction="z", receptive_field=4, max_steps=2)
    assert model.denoise(volume, samples=2)[0].shape == volume.shape
    traces = np.random.default_rng(0).poisson(20, (8, 300))
    model = dvlae.fit(traces, axes="SX", noise_direction="x", max_steps=2)
    assert model.denoise(traces, samples=2)[0].shape == traces.shape


def test_large_grey_values_keep_their_noise(model):
    large = STACK[0].astype(np.float64) + 4e9
    clean, _ = model.denoise(large, samples=2, rescale=True)
    assert clean.dtype == np.float64
    assert abs(clean - 4e9).max() < 1e4


@pytest.fixture(scope="module")
def small():
    return dvlae.fit(STACK, noise_direction="none", max_steps=2)


@pytest.mark.parametrize(
    ("dtype", "unit", "offset"),
    [
        (np.float64, 1e20, 0),
        (np.float32, 1e20, 0),
        (np.float64, 1e300, 0),
        (np.float64, 1, 10**12),
        (np.float64, 1e20, 10**30),
        (np.int64, 1, 2**62),
        (np.uint64, 1, 2**63 + 5),
    ],
)
def test_large_grey_values_are_denoised_like_small_ones(small, dtype, unit, offset):
    large = np.array([int(value) + offset if unit == 1 else value * unit + offset for value in STACK.flat])
    large = large.astype(dtype).reshape(STACK.shape)
    expected, expected_std = small.denoise(STACK, samples=2)
    model = dvlae.fit(large, noise_direction="none", max_steps=2)
    for frames in (large, large[:2]):
        clean, std = model.denoise(frames, samples=2)
        differences = [(int(value) if clean.dtype.kind in "iu" else float(value)) - offset for value in clean.flat]
        found = np.array(differences, np.float64).reshape(clean.shape) / unit
        np.testing.assert_allclose(found, expected[: len(found)], atol=1 if clean.dtype.kind in "iu" else 0.3)
        np.testing.assert_allclose(std / unit, expected_std[: len(found)], rtol=0.1, atol=0.3)


def test_whole_numbers_that_floats_do_not_hold_are_not_masked(model):
    large = np.ma.array(STACK[0].astype(np.int64) + 2**62, mask=STACK[0] == STACK[0].max())
    with pytest.raises(UserError, match="masked pixels, and whole numbers of type int64 that float64 does not hold"):
        model.denoise(large)


def test_a_saved_model_is_that_of_the_workflow(model, tmp_path):
    model.save(tmp_path / "model")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {
        "weights.safetensors", "model.json", "history.csv", "run.json"
    }  # fmt: skip
    again = dvlae.load(tmp_path / "model")
    assert (again.noise_direction, again.receptive_field) == ("x", 8)
    np.testing.assert_array_equal(again.denoise(STACK[0], samples=2)[0], model.denoise(STACK[0], samples=2)[0])
    with pytest.raises(UserError, match="exists already"):
        model.save(tmp_path / "model")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the folder of a trained model"):
        dvlae.load(tmp_path)


def test_the_direct_denoiser_needs_no_samples():
    model = dvlae.fit(STACK, noise_direction="none", max_steps=2, direct_denoiser=True)
    clean, std = model.denoise(STACK, samples=0)
    assert clean.shape == STACK.shape and std is None
    with pytest.raises(UserError, match="samples: found -1, allowed: a whole number from 0"):
        model.denoise(STACK, samples=-1)


def test_a_training_is_continued_on_other_images(model, tmp_path):
    model.save(tmp_path / "model")
    continued = dvlae.fit(STACK[1:], start_from=tmp_path / "model", max_steps=np.int64(2))
    assert (continued.noise_direction, continued.receptive_field) == ("x", 8)
    with pytest.raises(UserError, match="those of the model to start from are kept"):
        dvlae.fit(STACK, noise_direction="y", start_from=model, max_steps=2)


def test_nothing_is_left_behind_and_nothing_is_shown(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    model = dvlae.fit(STACK, noise_direction="none", max_steps=2)
    model.denoise(STACK[0], samples=2)
    assert len(list(tmp_path.glob("dvlae-*"))) == 1, "that of the model"
    del model
    gc.collect()
    assert list(tmp_path.glob("dvlae-*")) == []
    assert capfd.readouterr() == ("", "")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_progress_is_shown_where_it_is_asked_for(model, capfd):
    model.denoise(STACK[0], samples=2, progress=True)
    assert "predict: 100%" in capfd.readouterr().err


def test_a_diagnosis_has_the_direction_the_length_and_the_reasons():
    images = np.stack([scene(seed) + 5 * noise(seed, along="y") for seed in range(4)])
    found = dvlae.diagnose(images)
    assert found.direction == "y"
    assert found.length >= 3 and found.receptive_field >= 2 * found.length
    assert found.autocorrelation["y"][1] > 0.4
    unknown = dvlae.diagnose([np.random.default_rng(0).normal(size=300)])
    assert unknown.direction is None and "traces" in unknown.reasons[0]


def test_what_cannot_be_told_is_a_warning_of_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        model = dvlae.fit(np.random.default_rng(0).normal(size=(4, 200)), axes="SX", max_steps=2)
    assert (model.noise_direction, model.receptive_field) == ("x", 8)
    assert "only assumed" in caplog.text


@pytest.mark.parametrize(
    "options, words",
    [
        ({"minutes": 0}, "minutes: found 0"),
        ({"minutes": np.inf}, "minutes: found inf"),
        ({"max_steps": 0}, "max_steps: found 0, allowed: None, or a whole number from 1"),
        ({"max_steps": 1.5}, "max_steps: found 1.5"),
        ({"seed": "a"}, "seed: found 'a'"),
        ({"seed": -1}, "seed: found -1, allowed: a whole number from 0 to 4294967295"),
        ({"device": "gpu"}, "device: found 'gpu', allowed: auto, cpu, cuda, mps"),
        ({"direct_denoiser": "no"}, "direct_denoiser: found 'no', allowed: True, False"),
        ({"start_from": 3}, "start_from: found 3, allowed: None, a model, or the folder of one"),
        ({"start_from": "no such"}, "not the folder of a trained model"),
        ({"receptive_field": None}, "receptive field: found None, allowed: auto, or a number of pixels"),
        ({"receptive_field": 41}, "receptive field 41 cannot be reached"),
        ({"receptive_field": "long"}, "receptive field: found 'long'"),
        ({"noise_direction": "diagonal"}, "noise direction: found 'diagonal'"),
        ({"noise_direction": "none", "receptive_field": 8}, "allowed: 0"),
    ],
)
def test_wrong_values_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        dvlae.fit(STACK, **{"max_steps": 2} | options)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"samples": -1}, "samples: found -1, allowed: a whole number from 1, as the model has no direct denoiser"),
        ({"samples": 0}, "samples: found 0, allowed: a whole number from 1"),
        ({"seed": -1}, "seed: found -1"),
        ({"rescale": None}, "rescale: found None, allowed: True, False"),
        ({"device": "gpu"}, "device: found 'gpu', allowed: auto, cpu"),
        ({"axes": None}, "axes: found None"),
    ],
)
def test_wrong_values_of_a_prediction_are_refused(model, options, words):
    with pytest.raises(UserError, match=words):
        model.denoise(STACK[0], **options)


def test_a_loaded_model_neither_needs_its_folder_nor_removes_it(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = dvlae.load(str(tmp_path / "model"))
    (tmp_path / "model").rename(tmp_path / "moved")
    assert loaded.denoise(STACK[0], samples=2)[0].shape == STACK[0].shape
    del loaded
    gc.collect()
    assert (tmp_path / "moved" / "model.json").exists()
