"""Measure how much faster cached sampling is than running the complete decoder again for every column.

``python benchmarks/generation.py``. The uncached way is timed for a few columns, between the runs of the
cached one, and multiplied by the number of columns, which all take the same time.
"""

import time

import torch

from dvlae.models.decoders.autoregressive import AutoregressiveDecoder
from dvlae.models.decoders.sampling import sample_autoregressively
from dvlae.models.likelihood import sample_mixture
from dvlae.system.hardware.devices import use_fast_arithmetic

# In pixels.
SIDE = 512
REPEATS = 5
# Channels and receptive field.
SETTINGS = {"SEM": (16, 40), "paper": (128, 40)}


def seconds(function) -> float:
    """Time one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


@torch.inference_mode()
def compare(channels: int, receptive_field: int) -> tuple[float, float]:
    """Return the seconds for an image: cached, and column by column; the best of several interleaved runs of each."""
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(1, channels, 3, receptive_field, "x").to(memory_format=torch.channels_last)
    code = torch.randn(1, channels, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    noise, image, floor = torch.randn(1, 2, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE), torch.full((1, 1, 1), 0.01)

    def sample_column(column: int) -> None:
        parts = (part[..., column] for part in decoder(image, code))
        normal, choice = noise[..., column].chunk(2, dim=1)
        image[..., column] = sample_mixture(*parts, floor[..., 0], normal, torch.special.ndtr(choice))

    cached, column = [], []
    for repeat in range(REPEATS):
        cached.append(seconds(lambda: sample_autoregressively(decoder, code, noise, floor)))
        column.append(seconds(lambda repeat=repeat: sample_column(repeat)))
    return min(cached), min(column) * SIDE


def main() -> None:
    """Print one line for each setting."""
    use_fast_arithmetic()
    for name, setting in SETTINGS.items():
        cached, plain = compare(*setting)
        print(
            f"{name} (channels {setting[0]}, receptive field {setting[1]}): {SIDE} x {SIDE} pixels in {cached:.2f} s; "
            f"column by column {plain:.0f} s ({plain / SIDE:.2f} s a column); {plain / cached:.0f} times as fast"
        )


if __name__ == "__main__":
    main()
