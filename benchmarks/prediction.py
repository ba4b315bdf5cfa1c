"""Measure how much faster prediction is than a direct implementation, and how much memory a huge image takes.

``python benchmarks/prediction.py`` compares the MMSE estimate of one image with running the network again for each
sample, one at a time, contiguous, with PyTorch's own layers and random numbers. Both are run alternately, each in a
process of its own. The best processor time of each counts, so that other processes matter little (set
OMP_NUM_THREADS=1, as waiting threads count, too). ``--huge`` denoises an image of 16384 x 16384 pixels with two samples
of a tiny model, and prints the largest memory that the process had.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dvlae.config.settings import PredictionSettings
from dvlae.inference.estimates import denoise
from dvlae.models import ladder_vae, layers
from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.layers import to_channels_last
from dvlae.system.hardware.devices import tune_malloc, use_fast_arithmetic
from dvlae.system.progress import progress

# The sizes of config/config.yaml.
DEMO = Architecture(1, 16, 8, 3, 1, 3, 40, "x")
TINY = Architecture(1, 4, 2, 3, 1, 3, 40, "x")
# In pixels.
HUGE = 16384


def build(architecture: Architecture) -> DVLAE:
    """Return an untrained model for images of mean 100 and standard deviation 30."""
    torch.manual_seed(0)
    return DVLAE(architecture, [100.0], [30.0], [1.0]).eval()


def noisy(side: int) -> np.ndarray:
    """Return an image (1, side, side)."""
    return np.random.default_rng(0).standard_normal((1, side, side), np.float32) * 30 + 100


def make_plain(model: DVLAE) -> None:
    """Put PyTorch's own layers in the place of the faster ones of :mod:`dvlae.models.layers`."""
    layers.mish = ladder_vae.mish = F.mish
    layers.fused_upsample_conv = lambda x, weight, factors, bias: F.conv2d(
        layers.upsampled(x, factors), weight, bias, padding=1
    )
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, layers.Pointwise):
                convolution = nn.Conv2d(child.in_features, child.out_features, 1, bias=child.bias is not None)
                convolution.load_state_dict(
                    {key: value.view(convolution.state_dict()[key].shape) for key, value in child.state_dict().items()}
                )
                setattr(module, name, convolution)


@torch.inference_mode()
def denoise_plainly(model: DVLAE, image: np.ndarray, samples: int) -> np.ndarray:
    """Run the ladder VAE and the signal decoder once for each sample, and keep all of them for the mean."""
    x = model.normalise(torch.from_numpy(image)[None])
    sampled = [model.denormalise(model.signal_decoder(model.ladder_vae(x)[0])) for _ in range(samples)]
    return torch.stack(sampled).mean(0)[0].numpy()


def time_one(way: str, side: int, samples: int) -> float:
    """Return the processor time of one way, in seconds."""
    image, model = noisy(side), build(DEMO)
    settings = PredictionSettings(samples=samples)
    if way == "dvlae":
        use_fast_arithmetic()
        tune_malloc()
        to_channels_last(model, 2)
        started = time.process_time()
        denoise(model, image, name="image", seed=0, settings=settings)
    else:
        make_plain(model)
        started = time.process_time()
        denoise_plainly(model, image, samples)
    return time.process_time() - started


def compare(side: int, samples: int, repeats: int) -> None:
    """Print the time of both ways, and their ratio."""
    times = {"plain": [], "dvlae": []}
    for _ in range(repeats):
        for way, taken in times.items():
            command = [sys.executable, __file__, "--way", way, "--side", str(side), "--samples", str(samples)]
            taken.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(f"{way}: {taken[-1]:.1f} s", flush=True)
    plain, ours = (min(taken) for taken in times.values())
    print(
        f"{samples} samples of {side} x {side} pixels, {torch.get_num_threads()} thread(s): plain {plain:.1f} s, "
        f"dvlae {ours:.1f} s: {plain / ours:.2f} times as fast"
    )


def denoise_huge() -> None:
    """Print the time and the memory of an image of 16384 x 16384 pixels."""
    image, model = noisy(HUGE), to_channels_last(build(TINY), 2)
    settings = PredictionSettings(samples=2)
    with progress(total=2 * image.size, description="predict", unit="px", unit_scale=True) as bar:
        started = time.monotonic()
        denoise(model, image, name="huge", seed=0, settings=settings, on_progress=bar.update)
        taken = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB.
    print(f"2 samples of {HUGE} x {HUGE} pixels: {taken / 60:.1f} minutes, at most {memory:.2f} GiB of memory")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--huge", action="store_true", help="denoise 16384 x 16384 pixels instead")
    parser.add_argument("--side", type=int, default=1024, help="of the image, in pixels (default: 1024)")
    parser.add_argument("--samples", type=int, default=100, help="default: 100, as in the paper")
    parser.add_argument("--repeats", type=int, default=1, help="of the comparison (default: 1)")
    parser.add_argument("--way", choices=["plain", "dvlae"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.huge:
        use_fast_arithmetic()
        tune_malloc()
        denoise_huge()
    elif arguments.way:
        print(time_one(arguments.way, arguments.side, arguments.samples))
    else:
        compare(arguments.side, arguments.samples, arguments.repeats)


if __name__ == "__main__":
    main()
