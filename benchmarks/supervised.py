"""Measure the PSNR of a network of the same size that is trained on the clean images: the limit of the data.

    python benchmarks/supervised.py config/sem.yaml config/datasets/sem_line.yaml results/sem/sem_line/images

The ladder VAE, with its latents at their means, and the signal decoder learn to predict the clean image, registered and
adjusted to the exposure of the noisy one. Every seventh image is held out. Estimates are means over mirror images. The
PSNR is printed for the training images, for the held-out images and for all.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dvlae.axes import mirrored_axes
from dvlae.config.loading import load_dataset, load_settings
from dvlae.config.patch_size import training_crop
from dvlae.config.settings import Settings
from dvlae.data.canonical import read_clean, read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.evaluation.target import Target
from dvlae.models.dvlae import DVLAE, build_model
from dvlae.system.devices import choose_device, has_fast_bfloat16, tune_malloc, use_fast_arithmetic
from dvlae.system.progress import progress
from dvlae.training.crops import RandomCrops
from dvlae.training.optimizers import OPTIMIZERS
from dvlae.training.state import float_tensors

# Every seventh image is held out.
HELD_OUT = 7


def decode(model: DVLAE, image: torch.Tensor) -> torch.Tensor:
    """Return the signal of an image, (N, C, ...), in its units, each latent at its mean."""
    x = model.normalise(image)
    code, _ = model.ladder_vae(x, lambda level, mean, std: mean)
    return model.denormalise(model.signal_decoder(code).float())


@torch.inference_mode()
def estimate(model: DVLAE, image: np.ndarray, direction: str) -> np.ndarray:
    """Denoise a complete image, (C, ...): the mean of the decoded image and of its decoded mirror images."""
    sides = image.shape[1:]
    padding = [(0, 0), *((0, -side % stride) for side, stride in zip(sides, model.stride, strict=True))]
    padded = torch.from_numpy(np.pad(image, padding, "reflect"))[None].to(model.mean.device)
    views = [[], *([axis] for axis in mirrored_axes(len(sides), direction))]
    mean = torch.stack([decode(model, padded.flip(axes)).flip(axes) for axes in views]).mean(0)[0]
    return mean[:, *(slice(side) for side in sides)].cpu().numpy()


def main() -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="sizes of the network, and how it is trained")
    parser.add_argument("dataset", help="how the dataset is evaluated")
    parser.add_argument("images", type=Path, help="folder of prepared images, all of one size")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tune_malloc()
    use_fast_arithmetic()
    settings, (_, dataset) = load_settings(Settings, args.config), load_dataset(args.dataset)
    direction, limits, device = dataset.noise_direction, settings.training, choose_device(settings.device)
    pairs = [(read_noisy(image), read_clean(image)) for image in read_manifest(args.images)]
    taught = dataset.evaluation.model_copy(update={"fit": "clean_to_noisy", "border": 0, "crop": None})
    both = [np.concatenate([pair[0], Target.build(*pair, taught).clean]).astype(np.float32) for pair in pairs]
    learned = np.stack([images for i, images in enumerate(both) if i % HELD_OUT])
    channels = learned.shape[1] // 2

    torch.manual_seed(args.seed)
    crop = training_crop(limits.patch_size, learned.shape[2:], settings.model.stride)
    axes = (0, *range(2, learned.ndim))
    statistics = {name: getattr(learned[:, :channels], name)(axis=axes).tolist() for name in ("mean", "std")}
    model, average = (
        build_model(settings, statistics | {"step": [1.0] * channels}, crop, settings.receptive_fields[0], direction)
        .to(device)
        .train()
        for _ in range(2)
    )
    average.load_state_dict(model.state_dict())
    followers, leaders = float_tensors(average), float_tensors(model)
    networks = [*model.ladder_vae.parameters(), *model.signal_decoder.parameters()]
    optimizer = OPTIMIZERS[limits.optimizer](networks, lr=limits.learning_rate)
    crops = RandomCrops(learned, crop=crop, batch_size=limits.batch_size, seed=args.seed, noise_direction=direction)
    bar = progress(total=round(60 * args.minutes), description="train", unit="s")
    started, step, spent = time.monotonic(), 0, 0.0
    while spent < 60 * args.minutes:
        rate = limits.learning_rate * 0.5 * (1 + math.cos(math.pi * spent / (60 * args.minutes)))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / max(1, limits.warm_up_steps))
        noisy, clean = crops.batch(step).to(device).split(channels, dim=1)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            decoded = decode(model, noisy)
        (((decoded - clean) / model.std) ** 2).mean().backward()
        nn.utils.clip_grad_norm_([p for p in networks if p.grad is not None], limits.gradient_clip_norm or math.inf)
        optimizer.step()
        torch._foreach_lerp_(followers, leaders, max(1 - limits.average_decay, 9 / (9 + step)))
        step, spent = step + 1, time.monotonic() - started
        bar.update(min(bar.total, round(spent)) - bar.n)
    bar.close()

    average.eval()
    psnr = np.array(
        [Target.build(*pair, dataset.evaluation).score(estimate(average, pair[0], direction))[0] for pair in pairs]
    )
    held_out = np.arange(len(psnr)) % HELD_OUT == 0
    print(
        f"{step} steps: {psnr[~held_out].mean():.2f} dB on {np.sum(~held_out)} images that it has learned from, "
        f"{psnr[held_out].mean():.2f} dB on {np.sum(held_out)} held-out ones, {psnr.mean():.2f} dB on all"
    )


if __name__ == "__main__":
    main()
