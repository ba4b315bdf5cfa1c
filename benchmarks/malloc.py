"""Measure what `tune_malloc` gains in training and in prediction.

    OMP_NUM_THREADS=1 python benchmarks/malloc.py --pairs 7

A training step of config/sem.yaml (48 channels), and the prediction of a 512 x 512 image with 8 samples, are run with
and without it in turn, each in a process of its own. Their processor time counts, so that other processes on the
machine matter less.
"""

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from throughput import SETTINGS, STATISTICS, step_of

from dvlae.config.settings import PredictionSettings
from dvlae.config.sizes.patch_size import largest_crop
from dvlae.inference.estimates import denoise
from dvlae.models.dvlae import build_model
from dvlae.models.layers import to_channels_last
from dvlae.system.hardware.devices import tune_malloc, use_fast_arithmetic

WARM_UP_STEPS, STEPS = 2, 8
SAMPLES = 8


def measure(what: str) -> float:
    """Return the processor time of a training step or of a prediction, in seconds."""
    torch.manual_seed(0)
    settings = SETTINGS["sem"]()
    crop = largest_crop(settings.training.patch_size, 2, settings.model.stride)
    model = build_model(settings, STATISTICS, crop, max(settings.receptive_fields), "x")
    if what == "training":
        step = step_of(model.train(), torch.rand(settings.training.batch_size, 1, *crop) * 100, settings, bf16=False)
        for _ in range(WARM_UP_STEPS):
            step()
        started = time.process_time()
        for _ in range(STEPS):
            step()
        return (time.process_time() - started) / STEPS
    to_channels_last(model.eval(), 2)
    image = np.random.default_rng(0).standard_normal((1, 512, 512), np.float32) * 30 + 100
    started = time.process_time()
    denoise(model, image, name="image", seed=0, settings=PredictionSettings(samples=SAMPLES))
    return time.process_time() - started


def compare(what: str, pairs: int) -> None:
    """Print the median times with and without `tune_malloc`, and the median of what each pair saves."""
    times: dict[str, list[float]] = {"on": [], "off": []}
    for _ in range(pairs):
        for malloc, taken in times.items():
            command = [sys.executable, __file__, "--what", what, "--malloc", malloc]
            taken.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    saved = statistics.median(1 - on / off for on, off in zip(times["on"], times["off"], strict=True))
    on, off = (statistics.median(taken) for taken in times.values())
    print(f"{what}: {on:.3f} s with tune_malloc, {off:.3f} s without: {saved:.0%} less", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--what", choices=["training", "prediction"], help=argparse.SUPPRESS)
    parser.add_argument("--malloc", choices=["on", "off"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what is None:
        for what in ("training", "prediction"):
            compare(what, arguments.pairs)
        return
    use_fast_arithmetic()
    if arguments.malloc == "on":
        tune_malloc()
    print(measure(arguments.what))


if __name__ == "__main__":
    main()
