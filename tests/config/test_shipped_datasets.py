"""What the paper's datasets are measured on: stand-ins go through the shipped files."""

import csv
import json

import numpy as np
import pytest
import tifffile

from dvlae.config.loading import load_dataset
from dvlae.config.settings import PatchSettings
from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.reading import read_output
from dvlae.data.patches import extract_patches
from dvlae.data.prepare import prepare
from dvlae.evaluation.evaluate import evaluate
from dvlae.methods.run import run_method

RANDOM = np.random.default_rng(0)
RAMP = np.add.outer(np.arange(600.0), 2 * np.arange(600.0))  # a scene, (Y, X)


def stack(signal: np.ndarray, frames: int, noise: float) -> np.ndarray:
    """Return noisy frames (T, Y, X) of one scene, 16 bits, as a camera would."""
    return np.rint(signal + RANDOM.normal(0, noise, (frames, *signal.shape))).clip(0).astype(np.uint16)


@pytest.fixture
def measure(tmp_path):
    """Return a function that writes a dataset's files, and measures the noisy images as the dataset says."""

    def measure(name, **files):
        dataset = load_dataset(f"config/datasets/{name}.yaml")[1]
        for stem, frames in files.items():
            path = tmp_path / "data" / name / f"{stem.replace('_', '-')}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, frames, photometric="minisblack")
        prepare(dataset, tmp_path / "data", None, tmp_path / "images")
        run_method("noisy", tmp_path / "images", tmp_path / "denoised", settings=dataset.evaluation)
        table = tmp_path / "psnr.csv"
        run = {"dataset": name, "method": "noisy", "receptive_field": None, "seed": 0}
        evaluate(tmp_path / "images", tmp_path / "denoised", table, **run, settings=dataset.evaluation)
        return list(csv.DictReader(table.open()))

    return measure


@pytest.fixture(autouse=True)
def repository(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def decibel(clean: np.ndarray, estimate: np.ndarray) -> float:
    peak = clean.max() - clean.min()
    return 10 * np.log10(peak**2 / np.mean((clean - estimate) ** 2))


def test_convallaria_is_measured_in_its_first_512_rows_and_columns_against_the_mean_of_all_frames(measure):
    frames = stack(RAMP[:560, :600], 4, 80)
    region = frames[:, :512, :512].astype(float)
    expected = [decibel(region.mean(axis=0), frame) for frame in region]
    assert [float(row["psnr"]) for row in measure("convallaria", flower=frames)] == pytest.approx(expected, abs=1e-3)


def test_mito_confocal_is_measured_on_its_last_eight_images_after_the_clean_ones_are_fitted(measure):
    low = np.stack([stack(RAMP[:64, :80] + 10 * number, 1, 8)[0] for number in range(11)])
    high = np.stack([stack(3 * (RAMP[:64, :80] + 10 * number) + 50, 1, 1)[0] for number in range(11)])
    measured = measure("mito_confocal", mito_confocal_lowsnr=low, mito_confocal_highsnr=high)
    expected = []
    for noisy, clean in zip(low[3:].astype(float), high[3:].astype(float), strict=True):
        gain, offset = np.polyfit(clean.ravel(), noisy.ravel(), 1)
        expected.append(decibel(gain * clean + offset, noisy))
    assert [row["image"] for row in measured] == [f"mito-confocal-lowsnr_{number:02d}" for number in range(3, 11)]
    assert [float(row["psnr"]) for row in measured] == pytest.approx(expected, abs=1e-3)


def test_actin_confocal_has_estimates_but_no_psnr(measure, tmp_path):
    measured = measure("actin_confocal", actin_confocal_lowsnr=stack(RAMP[:48, :64], 3, 8))
    assert [row["psnr"] for row in measured] == ["", "", ""]
    denoised = tmp_path / "denoised"
    assert all(read_output(denoised, image) is not None for image in read_manifest(tmp_path / "images"))


def test_the_images_that_are_evaluated_are_among_those_trained_on_and_both_are_recorded(measure, tmp_path):
    low = stack(RAMP[:64, :80], 11, 8)
    evaluated = {row["image"] for row in measure("mito_confocal", mito_confocal_lowsnr=low, mito_confocal_highsnr=low)}
    extract_patches(tmp_path / "images", tmp_path / "patches", PatchSettings(patch_size=32))
    sources = json.loads((tmp_path / "patches" / "patches.json").read_text())["sources"]
    seen = {image for part in ("train", "val") for image, *_ in sources[part]}
    assert evaluated < seen == {image.name for image in read_manifest(tmp_path / "images")}
