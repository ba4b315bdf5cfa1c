"""Measure how much memory a training step takes, for each of the shipped settings.

    python benchmarks/memory.py                        # all of config/*.yaml
    python benchmarks/memory.py config/paper.yaml

On a GPU the steps are computed, and the peak of PyTorch's allocator is read. On other devices nothing is computed: the
tensors of a step are counted during their lifetime, in the same precision, without the memory that libraries need.
Averaged weights are included, the distillation of a direct denoiser is not.
"""

import argparse
from pathlib import Path

import torch
from throughput import STATISTICS, settings_of, step_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from dvlae.config.settings import Settings
from dvlae.config.sizes.patch_size import largest_crop
from dvlae.models.dvlae import build_model
from dvlae.system.hardware.devices import choose_device, use_fast_arithmetic

# Whether the precision is bfloat16, and activation_checkpointing.
KINDS = {
    "float32": (False, False),
    "bfloat16": (True, False),
    "bfloat16, activation_checkpointing": (True, True),
}


def set_up(settings: Settings, device: torch.device, *, bf16: bool, recompute: bool) -> tuple:
    """Return what a training holds, a model, its averaged twin and a batch, and a function that takes a step."""
    limits = settings.training.model_copy(update={"activation_checkpointing": recompute})
    settings = settings.model_copy(update={"training": limits})
    crop = largest_crop(limits.patch_size, 2, settings.model.stride)
    with device:
        model, averaged = (build_model(settings, STATISTICS, crop, max(settings.receptive_fields), "x") for _ in "ab")
        batch = torch.rand(limits.batch_size, 1, *crop).to(memory_format=torch.channels_last)
    return (model.train(), averaged, batch), step_of(model, batch, settings, bf16=bf16)


def measure(settings: Settings, device: torch.device, *, bf16: bool, recompute: bool) -> float:
    """Return the most memory that two steps take, in GiB: the first makes the optimiser's state."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _held, step = set_up(settings, device, bf16=bf16, recompute=recompute)
        step()
        step()
        return torch.cuda.max_memory_reserved() / 2**30
    with FakeTensorMode():
        held, step = set_up(settings, device, bf16=bf16, recompute=recompute)
        tracker = MemTracker()
        tracker.track_external(*held)
        with tracker:
            step()
            tracker.reset_mod_stats()
            step()
        return sum(kinds["Total"] for kinds in tracker.get_tracker_snapshot("peak").values()) / 2**30


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", type=Path, default=sorted(Path("config").glob("*.yaml")))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    use_fast_arithmetic()
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else "counted, nothing computed", "\n")
    print(f"| setting | crops | {' | '.join(KINDS)} |\n|---|---|{'---:|' * len(KINDS)}")
    for path in arguments.settings:
        settings = settings_of(path)
        found = [measure(settings, device, bf16=b, recompute=r) for b, r in KINDS.values()]
        side, _ = largest_crop(settings.training.patch_size, 2, settings.model.stride)
        size = f"{settings.training.batch_size} x {side}²"
        print(f"| {path.stem} | {size} | {' | '.join(f'{each:.2f} GiB' for each in found)} |", flush=True)


if __name__ == "__main__":
    main()
