"""All steps on stacks: what they write does not depend on the number of frames."""

import json

import numpy as np
import tifffile
import yaml

from dvlae import cli

CONFIGURATION = {
    "datasets": ["mine"],
    "model": {"levels": 2, "channels": 4, "latent_channels": 2},
    "training": {"max_steps": 2, "max_minutes": None, "workers": 1, "patch_size": 16},
    "prediction": {"samples": 2, "save_samples": 2},
}


def run(*words) -> None:
    """Run one command; it has to succeed."""
    assert cli.main(list(map(str, words))) == 0


def run_all(folder, frames: int) -> set[str]:
    """Run all steps on a stack, with one configuration for all of them. Return the files that they wrote."""
    folder.mkdir()
    random = np.random.default_rng(0)
    noisy = random.normal(100, 20, (frames, 16, 24)).astype(np.uint8)
    tifffile.imwrite(folder / "stack.tif", noisy, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(folder / "clean.tif", random.normal(100, 20, (16, 24)).astype(np.uint8))
    dataset, settings = folder / "mine.yaml", ("--settings", folder / "c.yaml")
    keys = {"source": {"kind": "files"}, "noisy": "stack.tif", "clean": "clean.tif", "noise_direction": "x"}
    dataset.write_text(yaml.safe_dump(keys))
    settings[1].write_text(json.dumps(CONFIGURATION))
    out = folder / "out"
    images, patches, targets, method = (out / name for name in ("images", "patches", "targets.csv", "dvlae-rf4"))
    run("prepare", dataset, "--data", folder, "--output", images)
    run("extract-patches", images, patches, *settings)
    run("register", images, targets, "--settings", dataset)
    field = ("--receptive-field", 4, "--noise-direction", "x")
    run("train", patches, method / "model", *field, *settings, "--device", "cpu")
    made = [word for name in ("denoised", "uncertainty", "samples") for word in (f"--{name}", method / name)]
    run("predict", method / "model", images, *made, *settings, "--device", "cpu")
    run("run-method", "gaussian", images, "--denoised", out / "gaussian/denoised", "--targets", targets)
    run("run-method", "noisy", images, "--denoised", out / "noisy/denoised", "--targets", targets)
    for name in ("dvlae-rf4", "gaussian", "noisy"):
        told = ("--dataset", "mine", "--method", name, "--targets", targets)
        run("evaluate", images, out / name / "denoised", out / name / "psnr.csv", *told)
    assert tifffile.imread(method / "samples" / "stack.tif").shape == (2, frames, 16, 24)
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_the_number_of_files_does_not_depend_on_the_number_of_frames(tmp_path):
    few, many = (run_all(tmp_path / str(frames), frames) for frames in (3, 40))
    assert few == many
    assert len(many) <= 26
