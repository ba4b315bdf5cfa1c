"""Measure how fast models are trained, compared with the same models in plain PyTorch and with the machine's peak.

    python benchmarks/throughput.py                      # all settings, on a GPU where there is one
    python benchmarks/throughput.py sem --repeats 30

A step is the forward and the backward pass, gradient clipping and the optimiser, on data that are in memory, in
bfloat16 where the device has instructions for it. The plain way is the same network with contiguous tensors, replicate
padding, PyTorch's own Mish and 1x1 convolutions, float32, eager. Both are timed alternately in one run, and the fastest
repeat counts. The peak is that of 3x3 convolutions, forward and backward, in float32 and in the precision of a step, at
the best of a few numbers of channels; operations are counted by PyTorch's flop counter.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import dvlae.models.ladder_vae
import dvlae.models.layers
from dvlae.config.loading import load_settings
from dvlae.config.settings import Settings
from dvlae.config.sizes.patch_size import largest_crop
from dvlae.models.dvlae import DVLAE, build_model
from dvlae.models.layers import Pointwise, upsampled
from dvlae.system.hardware.devices import choose_device, has_fast_bfloat16, tune_malloc, use_fast_arithmetic
from dvlae.training.optimizers import build_optimizer


def settings_of(configuration: str | Path) -> Settings:
    """Return a configuration without the direct denoiser, which takes no part in steps and samples."""
    settings = load_settings(Settings, configuration)
    model = settings.model.model_copy(update={"direct_denoiser": False})
    prediction = settings.prediction.model_copy(update={"estimator": "mmse"})
    return settings.model_copy(update={"model": model, "prediction": prediction})


SETTINGS = {
    "demo": partial(settings_of, "config/config.yaml"),
    "sem": partial(settings_of, "config/sem.yaml"),
    "paper": partial(settings_of, "config/paper.yaml"),
}
STATISTICS = {"mean": [60.0], "std": [50.0], "step": [1.0]}
PEAK_CHANNELS = (16, 32, 64, 128)


def fastest(functions: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, float]:
    """Call functions in turn and return the shortest time of each, in seconds."""
    best = dict.fromkeys(functions, float("inf"))
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:  # The first repeat warms up.
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def count_operations(function: Callable[[], None]) -> int:
    """Return how many floating-point operations a function's convolutions and matrix products take."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the best speed of 3x3 convolutions, forward and backward, in operations a second."""
    speeds = []
    for channels in PEAK_CHANNELS:
        where = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
        convolution = nn.Conv2d(channels, channels, 3, padding=1).to(**where)
        x = torch.randn(4, channels, 64, 64).to(**where).requires_grad_()
        gradient = torch.randn_like(x)

        def run(convolution=convolution, x=x, gradient=gradient):
            convolution(x).backward(gradient)

        speeds.append(count_operations(run) / fastest({"": run}, 20, device)[""])
    return max(speeds)


def step_of(model: DVLAE, batch: torch.Tensor, settings: Settings, *, bf16: bool) -> Callable[[], None]:
    """Return a function that takes one training step."""
    optimizer = build_optimizer(model, settings.training.model_copy(update={"learning_rate": 1e-4}))

    def step():
        optimizer.zero_grad()
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
            loss = model(batch).loss()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.training.gradient_clip_norm or math.inf)
        optimizer.step()

    return step


@contextmanager
def plain_layers():
    """Replace what this package computes in its own way by PyTorch's layers."""

    def convolve(self: Pointwise, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)

    def fused_upsample_conv(
        x: torch.Tensor, weight: torch.Tensor, factors: Sequence[int], bias: torch.Tensor | None
    ) -> torch.Tensor:
        return F.conv2d(F.pad(upsampled(x, factors), (1, 1, 1, 1), "replicate"), weight, bias)

    with (
        patch.object(dvlae.models.layers, "fused_upsample_conv", fused_upsample_conv),
        patch.object(dvlae.models.layers, "mish", F.mish),
        patch.object(dvlae.models.ladder_vae, "mish", F.mish),
        patch.object(Pointwise, "forward", convolve),
    ):
        yield


def plain_step_of(model: DVLAE, batch: torch.Tensor, settings: Settings) -> Callable[[], None]:
    """Return a function that takes one training step the plain way."""
    model, batch = model.to(memory_format=torch.contiguous_format), batch.contiguous()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):
            module.padding_mode = "replicate"
    step = step_of(model, batch, settings, bf16=False)

    def plain_step():
        with plain_layers():
            step()

    return plain_step


def measure(name: str, repeats: int, device: torch.device, peak: float, bf16: bool) -> str:
    """Measure one setting and return a row of the table."""
    settings = SETTINGS[name]()
    side, _ = largest_crop(settings.training.patch_size, 2, settings.model.stride)
    batch_size = settings.training.batch_size
    if name == "paper" and device.type == "cpu":
        batch_size = 1  # With four crops, a step would take minutes.
    steps = {}
    batch = torch.rand(batch_size, 1, side, side, device=device).mul_(100)
    for kind in ("plain", "dvlae"):
        model = build_model(settings, STATISTICS, (side, side), max(settings.receptive_fields), "x").to(device).train()
        if kind == "plain":
            steps[kind] = plain_step_of(model, batch, settings)
        else:
            steps[kind] = step_of(model, batch, settings, bf16=bf16)
    operations = count_operations(steps["dvlae"])
    seconds = fastest(steps, repeats, device)
    speed = batch_size * side**2 / seconds["dvlae"] / 1e6
    return (
        f"| {name} | {batch_size} x {side}² | {speed:.3f} | {1e3 * seconds['dvlae']:.0f} ms | "
        f"{operations / seconds['dvlae'] / 1e9:.0f} GFlop/s | {operations / seconds['dvlae'] / peak:.0%} | "
        f"{seconds['plain'] / seconds['dvlae']:.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, []], help="default: all")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "32"], default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    use_fast_arithmetic()
    tune_malloc()
    bf16 = has_fast_bfloat16(device) and arguments.precision == "auto"
    peaks = {dtype: measure_peak(device, dtype) for dtype in (torch.float32, *[torch.bfloat16] * bf16)}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    dtype = list(peaks)[-1]
    found = ", ".join(f"{peak / 1e9:.0f} GFlop/s in {str(kind)[6:]}" for kind, peak in peaks.items())
    print(f"{where}; peak of 3x3 convolutions {found}\n", flush=True)
    print(f"| setting | batch | megapixels/s | step | speed | of the peak in {str(dtype)[6:]} | times the plain way |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in arguments.settings or SETTINGS:
        print(measure(name, 3 if name == "paper" else arguments.repeats, device, peaks[dtype], bf16), flush=True)


if __name__ == "__main__":
    main()
