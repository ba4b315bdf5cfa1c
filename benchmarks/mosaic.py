"""Peak memory of each step on one very large image, from file to file, with a tiny model.

    python benchmarks/mosaic.py [--side 8000] [--samples 2] [--folder DIR]

The mosaic has 8 bits. The temporary files of the prediction are in ``TMPDIR``, which needs 13 bytes for each pixel.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

ROWS = 500  # made at a time
DATASET = {"source": {"kind": "files"}, "noisy": "mosaic.tif", "axes": "YX", "noise_direction": "x"}
MODEL = {"levels": 2, "channels": 4, "latent_channels": 2}
TRAINING = {"max_steps": 20, "max_minutes": None, "workers": 1}
PREDICTION = {"flips": False, "shifts": 1}
PATCHES = {"stride": 4, "max_patch_pixels": 2**24}


def make_mosaic(path: Path, side: int) -> None:
    """Write a mosaic of bright stripes with Poisson noise."""
    random = np.random.default_rng(0)
    line = 60 + 40 * np.sin(np.arange(side) / 9)

    def rows() -> Iterator[bytes]:
        for start in range(0, side, ROWS):
            values = random.poisson(line, (min(ROWS, side - start), side))
            yield np.clip(values, 0, 255).astype(np.uint8).tobytes()

    # The peak of this process would count as that of the commands, so that the file must not be mapped.
    tifffile.imwrite(path, rows(), shape=(side, side), dtype=np.uint8, photometric="minisblack", bigtiff=True)


def measure(*words: str | Path) -> str:
    """Run a command of dvlae; return its peak memory and its time."""
    start = time.monotonic()
    command = subprocess.Popen([sys.executable, "-m", "dvlae", *map(str, words)])
    _, status, usage = os.wait4(command.pid, 0)
    if status:
        sys.exit(f"{words[0]} failed")
    return f"| {words[0]} | {usage.ru_maxrss / 2**20:.2f} GiB | {(time.monotonic() - start) / 60:.1f} min |"


def main() -> None:
    """Make the mosaic, run all steps on it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8_000)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_mosaic(folder / "mosaic.tif", arguments.side)
        dataset = folder / "mosaic.yaml"
        dataset.write_text(json.dumps(DATASET))
        images, patches, model = (folder / name for name in ("images", "patches", "model"))
        prediction = PREDICTION | {"samples": arguments.samples}
        training = json.dumps({"model": MODEL, "training": TRAINING})
        steps = [
            ("prepare", dataset, "--data", folder, "--output", images),
            ("diagnose", images, "--output", folder / "noise.json"),
            ("extract-patches", images, patches, "--settings", json.dumps(PATCHES)),
            ("train", patches, model, "--receptive-field", "4", "--noise-direction", "x", "--settings", training),
            (
                "predict", model, images, "--denoised", folder / "denoised", "--uncertainty", folder / "uncertainty",
                "--settings", json.dumps({"prediction": prediction}), "--device", "cpu", "--cores", "2",
            ),
        ]  # fmt: skip
        print(
            f"{arguments.side} x {arguments.side} pixels\n\n| step | peak memory | time |\n| --- | --- | --- |",
            flush=True,
        )
        for step in steps:
            print(measure(*step), flush=True)


if __name__ == "__main__":
    main()
