import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

import dvlae.reporting.diagnosis
from dvlae.axes import AXES
from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image, write_manifest
from dvlae.evaluation import noise_samples
from dvlae.evaluation.findings import drift
from dvlae.system.errors import UserError
from noisy_images import with_bar

KERNEL = [1, 0.6, 0.36]  # correlations 0.57, 0.24
SMEARED = 0.57


def scene(seed: int, shape=(1, 160, 200)) -> np.ndarray:
    """Return blobs with sharp edges, 30 to 180."""
    blobs = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, *(9,) * (len(shape) - 1)))
    return 30.0 + 150 * ndimage.gaussian_filter((blobs > 0).astype(float), (0, *(0.7,) * (len(shape) - 1)))


def make(folder, direction="x", *, with_clean=True, shape=(1, 160, 200), change=lambda noisy: noisy, of_clean=0.0):
    """Write images whose noise has the variance 3 s; ``change`` is applied to the noisy ones."""
    rows = []
    for i in range(3):
        clean = scene(i, shape)
        noise = np.random.default_rng(100 + i).normal(size=shape) * np.sqrt(3 * clean)
        if direction != "none":
            kernel = np.array(KERNEL) / np.linalg.norm(KERNEL)
            noise = ndimage.convolve1d(noise, kernel, axis=AXES[direction])
        image = Image(f"a {i}", folder / f"a {i}.tif", folder / f"c {i}.tif" if with_clean else None, shape)
        write_image(image.noisy, change(clean + noise))
        if with_clean:
            write_image(
                image.clean, clean + of_clean * np.random.default_rng(200 + i).normal(size=shape) * np.sqrt(clean)
            )
        rows.append(image)
    write_manifest(folder, rows)
    return folder


@pytest.fixture
def diagnose(tmp_path, caplog):
    caplog.set_level("INFO")

    def run(*arguments, configured=None, settings=None, **keys):
        output = tmp_path / "figures" / "noise.json"
        dvlae.reporting.diagnosis.diagnose(
            make(tmp_path / "images", *arguments, **keys),
            output,
            dataset="made up",
            noise_direction=configured,
            settings=settings or EvaluationSettings(),
        )
        return json.loads(output.read_text())

    return run


@pytest.mark.parametrize("with_clean", [True, False])
@pytest.mark.parametrize("direction", ["x", "y"])
def test_direction_and_length_are_found_with_and_without_clean_images(diagnose, direction, with_clean):
    found = diagnose(direction, with_clean=with_clean)
    other = {"x": "y", "y": "x"}[direction]
    assert found["basis"] == ("residuals" if with_clean else "estimate")
    assert (found["direction"], found["correlation_length"], found["receptive_field"]) == (direction, 2, 4)
    assert found["autocorrelation"][direction][:4] == pytest.approx([1, SMEARED, 0.24, 0], abs=0.05)
    assert found["autocorrelation"][other][1:4] == pytest.approx([0, 0, 0], abs=0.05)


def test_the_level_is_the_same_with_and_without_clean_images(diagnose):
    known, estimated = (diagnose("x", with_clean=with_clean)["noise_level"] for with_clean in (True, False))
    assert known == pytest.approx(estimated, rel=0.1)
    assert 0.05 < known < 0.15


def test_the_advice_is_written_and_said(diagnose, monkeypatch, caplog):
    monkeypatch.setattr(dvlae.reporting.diagnosis, "advise", lambda found: f"take it at {found['noise_level']}")
    found = diagnose("x")
    assert found["advice"] == f"take it at {found['noise_level']}"
    assert f"diagnose: {found['advice']}" in caplog.messages


@pytest.mark.parametrize("with_clean", [True, False])
def test_noise_without_correlation_has_no_direction_and_needs_no_receptive_field(diagnose, with_clean):
    found = diagnose("none", with_clean=with_clean)
    assert (found["direction"], found["correlation_length"], found["receptive_field"]) == ("none", 0, 0)


@pytest.mark.parametrize("with_clean", [True, False])
def test_the_slope_of_the_variance_is_found_with_and_without_clean_images(diagnose, with_clean):
    assert diagnose("none", with_clean=with_clean)["variance_slope"] == [pytest.approx(3, rel=0.12)]


@pytest.mark.parametrize("direction", ["x", "y", "z"])
def test_volumes_are_diagnosed_along_all_three_axes_without_clean_ones(diagnose, direction):
    assert diagnose(direction, with_clean=False, shape=(1, 16, 64, 80))["direction"] == direction


def test_channels_have_a_slope_each(diagnose):
    assert len(diagnose("x", with_clean=False, shape=(2, 64, 80))["variance_slope"]) == 2


def test_traces_with_clean_ones_are_diagnosed(diagnose):
    assert diagnose("x", shape=(1, 600))["direction"] == "x"


def test_traces_without_clean_ones_leave_everything_open(diagnose, caplog):
    found = diagnose("x", configured="x", with_clean=False, shape=(1, 600))
    assert [found[key] for key in ("direction", "correlation_length", "receptive_field", "warning")] == [None] * 4
    assert "cannot be told apart" in caplog.text


def test_a_direction_that_the_noise_contradicts_gives_one_line(diagnose, caplog):
    warning = diagnose("y", configured="x")["warning"]
    assert warning.startswith("noise_direction: found x, but the noise suggests y (neighbours correlate 0.0")
    assert "\n" not in warning
    assert f"warning: {warning}" in caplog.text


def test_grey_values_in_other_units_are_named(diagnose, monkeypatch):
    assert not diagnose()["findings"]
    read = dvlae.reporting.diagnosis.read_info
    monkeypatch.setattr(
        dvlae.reporting.diagnosis, "read_info", lambda path: replace(read(path), offset=4, scale=2.0**66)
    )
    (finding,) = diagnose()["findings"]
    assert finding["kind"] == "units" and "less 4, as multiples of 7.3787e+19" in finding["line"]


def test_the_right_direction_gives_no_warning(diagnose, caplog):
    assert diagnose("y", configured="y")["warning"] is None
    assert "warning" not in caplog.text


def test_a_picture_lies_beside_the_json(diagnose, tmp_path):
    diagnose("x")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["noise.json", "noise.png", "noise.svg"]


def blur(noisy):
    return ndimage.gaussian_filter(noisy, (0, 0.8, 0.8))


def add_bar(noisy):
    return np.stack([with_bar(channel.round(), "HV 5.0 kV  WD 4.1 mm") for channel in noisy])


def test_what_cannot_be_told_is_said_with_the_reason(diagnose, caplog):
    found = diagnose("none", configured="x", with_clean=False, change=blur)
    assert [found[key] for key in ("direction", "correlation_length", "receptive_field", "warning")] == [None] * 4
    assert f"the direction of the noise cannot be told: {found['reason']}" in caplog.text


def test_what_is_odd_is_written_and_said_in_one_line_each(diagnose, caplog):
    found = diagnose("x", with_clean=False, change=add_bar)
    (finding,) = found["findings"]
    assert (found["direction"], finding["kind"], finding["number"]) == ("x", "information bar", 31)
    assert f"diagnose: information bar: {finding['line']}" in caplog.text


@pytest.mark.parametrize("change", [blur, add_bar])
def test_the_figure_says_the_same(change, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(dvlae.reporting.diagnosis, "save_figure", lambda figure, stem: figures.append(figure))
    images = make(tmp_path / "images", "none", with_clean=False, change=change)
    settings = EvaluationSettings()
    output = tmp_path / "noise.json"
    dvlae.reporting.diagnosis.diagnose(images, output, dataset="made up", noise_direction=None, settings=settings)
    found = json.loads(output.read_text())
    title, notes = (text.replace("\n", " ") for text in (figures[0].get_suptitle(), figures[0].get_supxlabel()))
    assert found["reason"] is None or found["reason"] in title
    assert all(finding["line"] in notes for finding in found["findings"])


def test_each_channel_is_drawn_and_said_where_they_differ(diagnose, caplog):
    def smooth_second(noisy):
        noisy[1:] = ndimage.convolve1d(noisy[1:], [0.5, 0.5], axis=-1)
        return noisy

    found = diagnose("none", with_clean=False, shape=(2, 160, 200), change=smooth_second)
    assert [channel["direction"] for channel in found["channels"]] == ["none", "x"]
    assert found["direction"] == "x"
    assert "channel 0: noise without direction" in caplog.text and "channel 1: noise along x" in caplog.text


def test_a_picture_does_not_replace_the_description(tmp_path):
    with pytest.raises(UserError, match=r"output: .*noise\.png"):
        dvlae.reporting.diagnosis.diagnose(
            tmp_path, tmp_path / "noise.png", dataset="", noise_direction=None, settings=EvaluationSettings()
        )


@pytest.mark.parametrize("count", [3, 256, 257, 1000])
def test_frames_are_compared_with_their_neighbours(count):
    chosen = dvlae.reporting.diagnosis._neighbours(count, 256)
    assert len(chosen) == min(count, 256)
    assert {0, 1, count - 2, count - 1} <= set(chosen)


def test_a_very_large_image_is_looked_at_in_parts_and_this_is_said(diagnose, monkeypatch, small_bands, caplog):
    def blank_middle(noisy):
        noisy[:, 50:110, 70:130] = 7
        return noisy

    whole = diagnose("x", with_clean=False)
    monkeypatch.setattr(noise_samples, "MAX_WHOLE_PIXELS", 10_000)
    monkeypatch.setattr(noise_samples, "MAX_SIDES", {"x": 60, "y": 50, "z": 1})
    small_bands()
    found = diagnose("x", with_clean=False, change=blank_middle)
    assert found["direction"] == "x" and found["images"] == 3
    assert found["autocorrelation"]["x"][1] == pytest.approx(whole["autocorrelation"]["x"][1], abs=0.1)
    assert "a 0 is very large: looks at 4 parts of 50 x 60 pixels" in caplog.text


def drifted(noisy):
    return np.roll(noisy, (2, -3), axis=(1, 2))


def test_clean_images_beside_their_noisy_ones_are_named_with_the_key_that_helps(diagnose, caplog):
    found = diagnose("x", change=drifted)
    assert found["correlation_length"] != len(KERNEL) - 1  # the edges of the signal are in it
    finding = next(one for one in found["findings"] if one["kind"] == "drift")
    assert finding["number"] == pytest.approx(3, abs=0.2)
    assert "3 of 3 clean images lie beside the noisy ones, by up to 3.0 px" in finding["line"]
    assert "`evaluation.register: true` helps" in caplog.text
    helped = diagnose("x", change=drifted, settings=EvaluationSettings(register=True, border=4))
    assert helped["correlation_length"] == len(KERNEL) - 1
    assert not helped["findings"]


@pytest.mark.parametrize("of_clean", [0, 1])
def test_clean_images_that_lie_on_their_noisy_ones_have_no_drift(diagnose, of_clean):
    found = diagnose("x", of_clean=of_clean)
    assert "drift" not in [one["kind"] for one in found["findings"]]


def test_the_middle_of_a_large_region_tells_the_drift(diagnose, monkeypatch):
    monkeypatch.setattr(drift, "MAX_SIDE", 120)
    found = diagnose("x", change=drifted)
    assert next(one for one in found["findings"] if one["kind"] == "drift")["number"] == pytest.approx(3, abs=0.3)
    flat = Image("flat", None, None, (1, 9, 9))
    monkeypatch.setattr(drift, "read_noisy", lambda _: np.eye(9)[None])
    monkeypatch.setattr(drift, "read_clean", lambda _: np.ones((1, 9, 9)))
    monkeypatch.setattr(drift, "read_mask", lambda _: None)
    assert not drift.compare_drifts([drift.measure_drift(flat, EvaluationSettings())])
