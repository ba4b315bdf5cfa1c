"""Measure how training and denoising use several cores, quiet and beside other programs that compute.

    python benchmarks/cores.py                          # all, for 1, 2, 4, ... workers up to the cores of this machine
    python benchmarks/cores.py training --settings sem --busy 0 1 --rounds 3

Each figure is from a process of its own: steps a second of `dvlae train`, validation included and start not, or
megapixels a second of 16 samples, of images of 500 x 500 pixels. "threads" is one worker with as many of PyTorch's
threads as there are cores, as before there were workers. All ways are measured in turn, and the median over the rounds
counts.
"""

import argparse
import contextlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import tifffile
import torch
from throughput import SETTINGS, STATISTICS

from dvlae.config.settings import PredictionSettings, TrainSettings
from dvlae.inference.estimates import denoise_images
from dvlae.models.dvlae import build_model
from dvlae.system.hardware.devices import tune_malloc
from dvlae.system.hardware.machine import usable_cores
from dvlae.training.train import train

BUSY = "x = 0\nwhile True: x += 1"


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep other processes busy while the block runs."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def steps_per_second(name: str, workers: int, seconds: float) -> float:
    """Train on noise for a while."""
    settings = SETTINGS[name]()
    limits = settings.training.model_copy(update={"max_minutes": seconds / 60, "max_steps": None, "workers": workers})
    with tempfile.TemporaryDirectory() as folder:
        patches, model = Path(folder, "patches"), Path(folder, "model")
        patches.mkdir()
        random = np.random.default_rng(0)
        for part, count in (("train", 64), ("val", 8)):
            array = random.poisson(60, (count, 1, 128, 128)).astype(np.float32)
            tifffile.imwrite(patches / f"{part}.tif", array, photometric="minisblack")
        (patches / "patches.json").write_text(json.dumps(STATISTICS | {"sha256": {}}))
        train(
            patches,
            model,
            receptive_field=max(settings.receptive_fields),
            noise_direction="x",
            seed=0,
            checkpoints=None,
            settings=TrainSettings(model=settings.model, training=limits, device="cpu"),
        )
        run = json.loads((model / "run.json").read_text())
    return run["steps"] / run["seconds"]


def megapixels_per_second(name: str, workers: int, seconds: float) -> float:
    """Denoise noise for a while, until an image is finished."""
    settings = SETTINGS[name]()
    tune_malloc()
    model = build_model(settings, STATISTICS, (64, 64), max(settings.receptive_fields), "x").eval()
    image = np.random.default_rng(0).poisson(60, (1, 500, 500)).astype(np.float32)
    start = time.monotonic()
    images = (
        (str(number), image)
        for number in takewhile(lambda number: number < 2 or time.monotonic() < start + seconds, count())
    )
    how = PredictionSettings(samples=16)
    finished = sum(1 for _ in denoise_images(model, images, seed=0, settings=how, workers=workers))
    return finished * image.size / 1e6 / (time.monotonic() - start)


def measure(what: str, name: str, way: str, seconds: float) -> float:
    """Measure one figure in this process."""
    logging.disable(logging.WARNING)
    workers = 1 if way == "threads" else int(way)
    if way == "threads":
        torch.set_num_threads(usable_cores())
        torch.set_num_threads = lambda number: None
    else:
        torch.set_num_threads(1)
    return MEASURES[what](name, workers, seconds)


MEASURES = {"training": steps_per_second, "denoising": megapixels_per_second}


def main() -> None:
    """Print the tables."""
    cores = usable_cores()
    ways = ["threads", *(str(2**i) for i in range(cores.bit_length()) if 2**i <= cores)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*MEASURES, []], help="default: all")
    parser.add_argument("--settings", nargs="+", default=["demo", "sem"], choices=list(SETTINGS))
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="other busy processes")
    parser.add_argument("--ways", nargs="+", default=ways, help="numbers of workers, or threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(arguments.what[0], arguments.settings[0], arguments.ways[0], arguments.seconds))
        return
    for what in arguments.what or MEASURES:
        print(f"\n{what}\n\n| setting | others | " + " | ".join(arguments.ways) + " |")
        print("|---|---|" + "---:|" * len(arguments.ways))
        for name in arguments.settings:
            for busy in arguments.busy:
                found: dict[str, list[float]] = {way: [] for way in arguments.ways}
                with busy_processes(busy):
                    for _ in range(arguments.rounds):
                        for way, values in found.items():
                            command = [sys.executable, __file__, what, "--one", "--settings", name, "--ways", way]
                            command += ["--seconds", str(arguments.seconds)]
                            done = subprocess.run(command, check=True, capture_output=True, text=True)
                            values.append(float(done.stdout))
                row = " | ".join(f"{statistics.median(values):.3g}" for values in found.values())
                print(f"| {name} | {busy} | {row} |", flush=True)


if __name__ == "__main__":
    main()
