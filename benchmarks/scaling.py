"""Measure the operations and the processor time of denoising, as given in docs/scaling.md.

Run it as ``OMP_NUM_THREADS=1 python benchmarks/scaling.py``. Operations are those of convolutions and matrix products
(a multiplication and an addition count as two); the processor time is that of one core.
"""

import time

import numpy as np
import torch
from prediction import DEMO, build, noisy
from torch.utils.flop_counter import FlopCounterMode

from dvlae.config.settings import PredictionSettings
from dvlae.inference.estimates import denoise
from dvlae.models.architecture import Architecture
from dvlae.models.layers import to_channels_last
from dvlae.system.hardware.devices import tune_malloc, use_fast_arithmetic

# The sizes of config/sem_gpu.yaml and of config/paper.yaml.
SEM_GPU = Architecture(1, 64, 32, 6, 1, 3, 40, "x")
PAPER = Architecture(1, 128, 64, 14, 2, 3, 40, "x", network="paper")
# Two numbers of samples, whose predictions share one bottom-up pass.
FEW, MORE = 2, 4
# The views of an image, mirrored or not and at several positions, where the paper has one. Each has a bottom-up pass.
VIEWS = 2 * PredictionSettings().shifts


def operations(architecture: Architecture, side: int) -> tuple[float, float]:
    """Return the operations for each pixel: those of one bottom-up pass, and those of one sample."""
    model, image = to_channels_last(build(architecture), 2), noisy(side)
    counted = []
    for samples in (FEW, MORE):
        settings = PredictionSettings(samples=samples, flips=False, shifts=1)
        with FlopCounterMode(display=False) as counter:
            denoise(model, image, name="image", seed=0, settings=settings)
        counted.append(counter.get_total_flops() / side**2)
    each = (counted[1] - counted[0]) / (MORE - FEW)
    return counted[0] - FEW * each, each


def main() -> None:
    """Print the operations of three models, and the speed of the smallest on this machine."""
    use_fast_arithmetic()
    tune_malloc()
    for name, architecture, side, samples, views in (
        ("demo", DEMO, 256, 16, VIEWS),
        ("sem_gpu", SEM_GPU, 256, 64, VIEWS),
        ("paper", PAPER, 128, 100, 1),
    ):
        up, each = operations(architecture, side)
        up *= views
        print(
            f"{name}: {(up + samples * each) / 1e6:.2f} million operations a pixel at {samples} samples "
            f"({up / 1e6:.3f} up, {each / 1e6:.3f} each sample)"
        )
    model, image = to_channels_last(build(DEMO), 2), noisy(1024)
    settings = PredictionSettings()
    denoise(model, image[:, :256, :256], name="image", seed=0, settings=settings)
    started = time.process_time()
    denoise(model, image, name="image", seed=0, settings=settings)
    seconds = time.process_time() - started
    print(
        f"demo, {settings.samples} samples of {image.shape[1:]} pixels: {seconds:.1f} s of {torch.get_num_threads()} "
        f"thread, {np.prod(image.shape) / seconds / 1e6:.4f} megapixels/s"
    )


if __name__ == "__main__":
    main()
