import logging
import re

import numpy as np
import pytest
import tifffile

from dvlae.api.choices import choose_axes, choose_noise, choose_prediction, choose_training
from dvlae.api.notes import options_named
from dvlae.config.dataset import DatasetSettings
from dvlae.config.settings import PatchSettings
from dvlae.data.prepare import prepare
from dvlae.data.reading import open_stacks
from dvlae.system.errors import UserError
from frames import settings

PIXELS = np.zeros((8, 20, 30), np.uint8)


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a TIFF file."""

    def write(array, **options):
        tifffile.imwrite(tmp_path / "stack.tif", array, **options)
        return [tmp_path / "stack.tif"]

    return write


@pytest.mark.parametrize(
    "options, words",
    [
        ({"imagej": True, "metadata": {"axes": "ZYX"}}, ["8 planes of a volume", "--axes ZYX"]),
        ({"imagej": True, "metadata": {"axes": "CYX"}}, ["8 channels", "--axes CYX"]),
        ({"photometric": "minisblack", "metadata": None}, ["8 pages", "--axes ZYX"]),
    ],
)
def test_planes_many_channels_and_pages_are_images_and_the_screen_says_so(file, caplog, options, words):
    assert choose_axes(file(PIXELS, **options), "auto") == "SYX"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert all(word in record.message for word in words)


def test_planes_of_many_channels_are_images_too(file, caplog):
    files = file(np.zeros((2, 5, 20, 30), np.uint8), imagej=True, metadata={"axes": "ZCYX"})
    assert choose_axes(files, "auto") == "STYX"
    assert "2 planes of a volume and 5 channels" in caplog.text


@pytest.mark.parametrize(
    "array, options",
    [
        (PIXELS, {"imagej": True, "metadata": {"axes": "TYX"}}),
        (PIXELS[:3], {"imagej": True, "metadata": {"axes": "CYX"}}),
        (PIXELS[0], {}),
        (np.zeros((20, 30, 3), np.uint8), {"photometric": "rgb"}),
    ],
)
def test_what_a_file_says_of_times_colours_and_single_images_counts(file, caplog, array, options):
    assert choose_axes(file(array, **options), "auto") == "auto"
    assert caplog.records == []


FILES = {"source": {"kind": "files"}, "noisy": "*", "noise_direction": "none"}
STACK = {"imagej": True, "metadata": {"axes": "ZYX"}}


@pytest.mark.parametrize(
    "array, options",
    [
        (np.zeros((20, 30, 3), np.uint8), {"photometric": "rgb"}),
        (PIXELS[:3], {"imagej": True, "metadata": {"axes": "CYX"}}),
        (np.zeros((2, 5, 20, 30), np.uint8), {"imagej": True, "metadata": {"axes": "TCYX"}}),
        (np.zeros((5, 2, 20, 30), np.uint8), {"imagej": True, "metadata": {"axes": "ZCYX"}}),
    ],
)
@pytest.mark.parametrize("names", ["ab", "ba"])
def test_files_that_no_one_setting_is_right_for_are_refused(tmp_path, array, options, names):
    stack, other = (tmp_path / f"{name}.tif" for name in names)
    tifffile.imwrite(stack, PIXELS, **STACK)
    tifffile.imwrite(other, array, **options)
    with pytest.raises(UserError, match="run it on each kind of file apart") as error:
        choose_axes([stack, other], "auto")
    assert str(stack) in str(error.value) and str(other) in str(error.value)


def test_times_pages_and_single_images_may_be_beside_planes(tmp_path, caplog):
    files = [tmp_path / f"{number}.tif" for number in range(4)]
    tifffile.imwrite(files[0], PIXELS[0])
    tifffile.imwrite(files[1], PIXELS, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(files[2], PIXELS[:5], **STACK)
    tifffile.imwrite(files[3], PIXELS[:6], photometric="minisblack", metadata=None)
    assert choose_axes(files, "auto") == "SYX"
    assert ["5 planes" in caplog.messages[0], "6 pages" in caplog.messages[1]] == [True, True]
    dataset = DatasetSettings(**FILES, axes="SYX", axes_override=True)
    assert [stack.frame_shape for stack in open_stacks(files, dataset)] == [(1, 20, 30)] * 4


@pytest.mark.parametrize("axes", ["ZQYX", "QZYX", "QQYX", "TQYX", "QCYX"])
def test_the_axes_that_the_screen_names_can_be_used(tmp_path, caplog, axes):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.zeros((5, 6, 20, 30), np.uint8), photometric="minisblack", metadata={"axes": axes})
    assert choose_axes([path], "auto") != "auto"
    (message,) = caplog.messages
    named = re.search("--axes ([A-Z]+) ", message)[1]
    assert len(set(named)) == 4
    (stack,) = open_stacks([path], DatasetSettings(**FILES, axes=named))
    assert stack.shape == (5, 6, 20, 30)


def test_colours_that_a_file_does_not_name_are_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 3), np.uint8))
    assert choose_axes([tmp_path / "a.npy"], "auto") == "auto"


def found(direction, **correlation):
    reason = None if direction else "what looks like noise may be texture"
    return {"direction": direction, "reason": reason, "autocorrelation": correlation}


X = {"x": [1.0, 0.6, 0.3, 0.01, 0.0], "y": [1.0, 0.01, 0.0]}
WHITE = {"x": [1.0, 0.01], "y": [1.0, 0.0]}


@pytest.mark.parametrize(
    "noise, said, chosen",
    [
        (found("x", **X), ("auto", "auto"), ("x", 4)),
        (found("none", **WHITE), ("auto", "auto"), ("none", 0)),
        (found("x", **X), ("auto", 40), ("x", 40)),
        (found("x", **X), ("none", "auto"), ("none", 0)),
        # Who names a direction along which there is hardly any correlation may know more.
        (found("none", **WHITE), ("y", "auto"), ("y", 8)),
        (found(None, **X), ("y", "auto"), ("y", 8)),
    ],
)
def test_the_receptive_field_is_twice_the_correlation_length(noise, said, chosen, caplog):
    caplog.set_level(logging.INFO, "dvlae")
    assert choose_noise(noise, *said) == chosen
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert f"noise direction {chosen[0]}, receptive field {chosen[1]} px" in record.message


@pytest.mark.parametrize(
    "noise, chosen", [(found(None, **X), ("x", 4)), (found(None), ("x", 8)), (found(None, x=[1.0] * 60), ("x", 40))]
)
def test_a_direction_that_cannot_be_told_is_assumed_with_a_warning(noise, chosen, caplog):
    assert choose_noise(noise, "auto", "auto") == chosen
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "may be texture" in record.message and "--noise-direction" in record.message


def test_a_receptive_field_needs_a_direction():
    with pytest.raises(UserError, match="receptive field: found 8, allowed: 0"):
        choose_noise(found("x", **X), "none", 8)


LARGE, SMALL = (3, 48, 4), (3, 16, 8)
LARGE_ON_GPU, SMALL_ON_GPU = (6, 64, 16), (6, 32, 4)


@pytest.mark.parametrize(
    "device, minutes, sizes",
    [
        ("cpu", 1, [SMALL]),
        ("cpu", 10, [LARGE, SMALL]),
        ("cuda", 1, [LARGE_ON_GPU, SMALL_ON_GPU]),
        ("mps", 10, [LARGE_ON_GPU, SMALL_ON_GPU]),
    ],
)
def test_the_network_follows_the_time_and_the_device(device, minutes, sizes):
    found = choose_training([(1, 300, 400)], device, minutes=minutes, max_steps=None, direct=False)
    assert [(s.model.levels, s.model.channels, s.training.batch_size) for s in found] == sizes
    assert {settings.training.max_minutes for settings in found} == {minutes}
    # All are trained on the same patches.
    assert [PatchSettings.of(settings) for settings in found] == [PatchSettings.of(found[0])] * len(found)
    assert found[0].training.patch_size == ("auto" if device == "cpu" else 128)


@pytest.mark.parametrize("shapes", [[(1, 300, 400), (1, 100, 400)], [(1, 500)]])
def test_crops_are_not_larger_than_small_images(shapes):
    settings = choose_training(shapes, "cuda", minutes=1, max_steps=None, direct=False)[0]
    assert settings.training.patch_size == "auto"


def test_crops_of_volumes_are_small():
    found = choose_training([(1, 20, 300, 400), (1, 5, 300, 400)], "cpu", minutes=10, max_steps=None, direct=False)
    assert [settings.training.patch_size for settings in found] == [[5, 32, 32]] * 2


@pytest.mark.parametrize(
    "options, direct",
    [
        ({"max_steps": None, "direct": False}, "refined"),
        ({"max_steps": 10, "direct": False}, False),
        ({"max_steps": 10, "direct": True}, "refined"),
    ],
)
def test_a_denoiser_is_refined_unless_steps_are_limited_or_if_it_is_wanted(options, direct):
    for each in choose_training([(1, 64, 64)], "cpu", minutes=5, **options):
        assert each.model.direct_denoiser == direct


@pytest.mark.parametrize(
    "samples, model, chosen",
    [
        (None, {"trained": True, "denoiser": "mean"}, ("mmse", 16)),
        (None, {"trained": True, "denoiser": "refined"}, ("refined", 16)),
        (None, {"trained": False, "denoiser": None}, ("mmse", 8)),
        (None, {"trained": False, "denoiser": "refined"}, ("direct", 16)),
        (0, {"trained": True, "denoiser": "mean"}, ("direct", 16)),
        (7, {"trained": False, "denoiser": "mean"}, ("mmse", 7)),
        (7, {"trained": False, "denoiser": "refined"}, ("refined", 7)),
    ],
)
def test_samples_are_many_after_a_training_and_few_otherwise(samples, model, chosen):
    how = choose_prediction(samples, "cpu", **model).prediction
    assert (how.estimator, how.samples) == chosen


@pytest.mark.parametrize("samples, words", [(0, "no direct denoiser"), (-1, "samples: found -1")])
def test_impossible_numbers_of_samples_are_refused(samples, words):
    with pytest.raises(UserError, match=words):
        choose_prediction(samples, "cpu", trained=True, denoiser=None)


def test_what_helps_images_of_two_kinds_is_named_as_commands_not_as_settings(tmp_path, caplog):
    for name, dtype in (("a.tif", np.uint8), ("b.tif", np.uint16)):
        pixels = np.random.default_rng(0).integers(50, 200, (32, 32)).astype(dtype)
        tifffile.imwrite(tmp_path / name, pixels)
    with options_named("denoise"):
        prepare(settings(noisy="*.tif"), tmp_path, None, tmp_path / "images")
    assert "if gain or bit depth differ, use a command for each kind" in caplog.text
    assert "rescale" not in caplog.text
