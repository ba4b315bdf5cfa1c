"""Thin and small images through all steps, with default settings but for the number of training steps."""

import csv
import json

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvlae import cli
from dvlae.config.settings import Settings
from dvlae.models.files import load_model

TRAINING = json.dumps({"training": {"max_steps": 2, "max_minutes": None, "workers": 1}})
QUICK = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def run(*words) -> None:
    """Run one command; it has to succeed."""
    assert cli.main(list(map(str, words))) == 0


def run_all(folder, axes: str, shapes: list[tuple[int, ...]], direction: str) -> dict:
    """Run all steps on images of these shapes; return the description of the patches and the rows of psnr.csv."""
    random = np.random.default_rng(0)
    for number, shape in enumerate(shapes):
        clean = 50 + 20 * np.sin(np.arange(shape[-1]) / 3) + np.zeros(shape)
        for name, image in (("noisy", random.poisson(clean)), ("clean", clean.round())):
            image = image.astype(np.uint16).reshape(1, -1) if len(shape) == 1 else image.astype(np.uint16)
            tifffile.imwrite(folder / f"{name}_{number:02}.tif", image, photometric="minisblack")
    dataset = folder / "small.yaml"
    keys = {"source": {"kind": "files"}, "noisy": "noisy_*.tif", "clean": "clean_*.tif", "axes": axes}
    dataset.write_text(yaml.safe_dump(keys | {"noise_direction": direction}))
    images, patches, model, result = (folder / name for name in ("images", "patches", "model", "result"))
    field = 0 if direction == "none" else 40
    run("prepare", dataset, "--data", folder, "--output", images)
    run("diagnose", images, "--output", folder / "noise.json", "--noise-direction", direction)
    run("extract-patches", images, patches)
    training = ("--receptive-field", field, "--noise-direction", direction, "--settings", TRAINING, "--device", "cpu")
    run("train", patches, model, *training)
    # Infinite weights would be replaced by earlier ones.
    assert json.loads((model / "run.json").read_text())["rescues"] == 0
    denoised = ("--denoised", result / "denoised", "--uncertainty", result / "uncertainty", "--device", "cpu")
    run("predict", model, images, *denoised)
    run("evaluate", images, result / "denoised", result / "psnr.csv", "--dataset", "small", "--method", "dvlae-rf40")
    with (result / "psnr.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(shapes)
    for row, shape in zip(rows, shapes, strict=True):
        assert np.isfinite(float(row["psnr"]))
        assert (row["ssim"] == "") == (min(shape[-2:]) < 11)
    return json.loads((patches / "patches.json").read_text())


@pytest.mark.parametrize(
    ("axes", "shape", "direction", "crop", "stride"),
    [
        ("YX", (8, 8), "x", [8, 8], (8, 8)),
        ("YX", (9, 15), "y", [8, 8], (8, 8)),
        ("YX", (30, 40), "x", [24, 40], (8, 8)),
        ("YX", (4, 200), "x", [4, 64], (4, 8)),
        ("YX", (4, 200), "y", [4, 64], (4, 8)),
        ("YX", (200, 4), "x", [64, 4], (8, 4)),
        ("YX", (200, 4), "none", [64, 4], (8, 4)),
        ("YX", (600, 7), "x", [64, 7], (8, 8)),
        ("YX", (1, 300), "x", [1, 64], (1, 8)),
        ("ZYX", (2, 20, 24), "z", [2, 16, 24], (2, 8, 8)),
        ("ZYX", (5, 12, 20), "x", [5, 8, 16], (2, 8, 8)),
        ("ZYX", (7, 8, 20), "none", [7, 8, 16], (8, 8, 8)),
        ("SX", (9,), "x", [8], (8,)),
    ],
)
def test_small_images_go_through_all_steps_with_default_settings(tmp_path, axes, shape, direction, crop, stride):
    assert run_all(tmp_path, axes, [shape, shape], direction)["crop_size"] == crop
    assert load_model(tmp_path / "model").stride == stride


def test_one_small_image_is_both_learned_from_and_held_out(tmp_path):
    assert run_all(tmp_path, "YX", [(8, 8)], "x")["validation"] == "same"


def test_a_small_image_among_large_ones_is_padded(tmp_path):
    description = run_all(tmp_path, "YX", [(70, 80), (8, 100), (90, 66)], "x")
    assert (description["crop_size"], description["patch_size"]) == ([64, 64], [70, 66])


@QUICK
@given(st.tuples(st.integers(8, 40), st.integers(8, 40)), st.sampled_from("xy"))
def test_any_image_of_at_least_8_x_8_goes_through_all_steps(tmp_path_factory, shape, direction):
    run_all(tmp_path_factory.mktemp("small"), "YX", [shape], direction)


def test_the_default_is_the_automatic_size():
    assert Settings().training.patch_size == "auto"
