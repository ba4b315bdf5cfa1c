"""Training of a network on pairs of images, and denoising with it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dvlae.config.sizes.patch_size import crop_stride, level_strides
from dvlae.config.training import TrainingSettings
from dvlae.inference.tiling import View, make_tiles
from dvlae.methods.learned.networks import Denoiser, UNet, WithoutNoiseModel
from dvlae.methods.learned.patches import LearningSettings, Patches, scale_of
from dvlae.methods.task import Task
from dvlae.models.layers import memory_format, to_channels_last
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import tune_malloc, use_fast_arithmetic, use_one_thread
from dvlae.system.progress import progress
from dvlae.training.crops import RandomCrops, validation_batches
from dvlae.training.optimizers import OPTIMIZERS
from dvlae.training.schedule import Schedule

# A tile has about so many pixels, halo not included.
TILE_PIXELS = 2**18


class NetworkSettings(LearningSettings):
    """Settings of a network that learns from pairs.

    Attributes
    ----------
    network
        ``unet``, or ``dvlae``: ours without the autoregressive decoder, with half as many latent channels as channels.
    optimizer
        ``adam``, ``adamax`` or ``muon``.
    """

    crop: int = 64
    batch: int = 8
    rate: float = 0.001
    width: int = 32
    depth: int = 3
    network: Literal["unet", "dvlae"] = "unet"
    optimizer: Literal["adam", "adamax", "muon"] = "adam"


@dataclass(frozen=True)
class Trained:
    """A trained network with the scale of its images. Threads may share it.

    Attributes
    ----------
    network
        The network.
    mean, std
        Those of each channel, (1, C, 1, ...).
    device
        Where the network is.
    """

    network: Denoiser
    mean: Tensor
    std: Tensor
    device: str

    @torch.inference_mode()
    def denoise(self, noisy: np.ndarray) -> np.ndarray:
        """Denoise an image, tile by tile.

        Parameters
        ----------
        noisy
            (C, ...), in grey values.

        Returns
        -------
        (C, ...) float32 array
            The estimate, the same as without tiles.
        """
        dimensions, stride = noisy.ndim - 1, self.network.strides[-1]
        view = View(noisy, stride, (), (0,) * dimensions)
        estimate = np.empty(noisy.shape, np.float32)
        tile = math.ceil(TILE_PIXELS ** (1 / dimensions) / max(stride)) * max(stride)
        for inner in make_tiles(view.shape, tile):
            outer = inner.widen(self.network.halo, view.shape)
            x = torch.from_numpy(view.extract(outer))[None].to(self.device)
            signal = self.network((x - self.mean) / self.std) * self.std + self.mean
            place, values = view.to_image(inner, inner.within(outer).crop(signal))
            estimate[:, *place] = values[0].cpu().numpy()
        return estimate


@contextmanager
def all_threads(task: Task) -> Iterator[None]:
    """Compute with the threads of a task while the block runs, and with one thread afterwards.

    Parameters
    ----------
    task
        What a method is given. Its images are denoised by as many threads afterwards, each of which is one.
    """
    use_fast_arithmetic()
    tune_malloc()
    torch.set_num_threads(task.workers)
    try:
        yield
    finally:
        use_one_thread()


def train(
    patches: Patches, settings: NetworkSettings, task: Task, *, seed: int, description: str
) -> tuple[Trained, dict[str, Any]]:
    """Train a network by the squared error, with a learning rate that falls to 0 over the time.

    Parameters
    ----------
    patches
        For each pixel: the noisy image, the image to predict, and the weight in the loss, with C channels each.
    settings
        Sizes and limits.
    task
        What the method is given: time, threads, device and direction of the noise.
    seed
        Determines the initial weights and the crops.
    description
        Name of the training, for the progress.

    Returns
    -------
    Trained
        The network.
    dict
        ``steps``, ``parameters``, ``training_seconds``, and ``validation_loss``: the squared error of the held-out
        patches, where the noisy images have a standard deviation of 1.

    Raises
    ------
    UserError
        If the error is not finite in the end.
    """
    channels = patches.train.shape[1] // 3
    mean, std = scale_of(patches.train[:, :channels])
    dimensions = len(patches.crop)
    shape = (1, -1, *(1,) * dimensions)
    shift, scale = (torch.tensor(values, dtype=torch.float32, device=task.device).view(shape) for values in (mean, std))
    with all_threads(task):
        torch.manual_seed(seed)
        network = _build(channels, patches.crop, settings).to(task.device)
        to_channels_last(network, dimensions)
        schedule = Schedule(
            TrainingSettings(
                batch_size=settings.batch,
                max_minutes=task.minutes,
                max_steps=settings.max_steps,
                max_epochs=1,
                learning_rate=settings.rate,
            ),
            # Time or `max_steps` ends the training: an epoch never does.
            steps_per_epoch=2**62,
        )
        crops = RandomCrops(
            patches.train,
            crop=patches.crop,
            batch_size=settings.batch,
            seed=seed,
            noise_direction=task.noise_direction,
        )

        def error(batch: Tensor) -> Tensor:
            noisy, wanted, weight = batch.to(task.device).split(channels, dim=1)
            x, y = ((image - shift) / scale for image in (noisy, wanted))
            signal = network(x.contiguous(memory_format=memory_format(dimensions)))
            return ((signal - y).square() * weight).mean()

        network.train()
        steps, seconds = _descend(network, error, crops.batch, schedule, settings, description)
        network.eval()
        with torch.inference_mode():
            batches = validation_batches(patches.validation, None, network.strides[-1], patches.crop, schedule.settings)
            losses = [(float(error(batch)), len(batch)) for batch, _ in batches]
    loss = sum(value * count for value, count in losses) / sum(count for _, count in losses)
    if not math.isfinite(loss):
        raise UserError(f"{description}: the weights did not stay finite; set a smaller rate than {settings.rate}")
    record = {
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in network.parameters() if parameter.grad is not None),
        "training_seconds": round(seconds, 1),
        "validation_loss": loss,
    }
    return Trained(network, shift, scale, task.device), record


def _build(channels: int, crop: Sequence[int], settings: NetworkSettings) -> Denoiser:
    strides = level_strides(settings.depth, 1, len(crop), crop_stride(crop, 2**settings.depth))
    if settings.network == "unet":
        return UNet(channels, settings.width, strides)
    return WithoutNoiseModel(channels, settings.width, max(1, settings.width // 2), strides)


def _descend(
    network: Denoiser,
    error: Callable[[Tensor], Tensor],
    batch: Callable[[int], Tensor],
    schedule: Schedule,
    settings: NetworkSettings,
    description: str,
) -> tuple[int, float]:
    """Train until a limit is reached. Return the number of steps, and the seconds that they took."""
    optimizer = ({"adam": torch.optim.Adam} | OPTIMIZERS)[settings.optimizer](network.parameters(), lr=settings.rate)
    start, steps, seconds = time.monotonic(), 0, 0.0
    limit = schedule.total_seconds
    total, unit = (schedule.total_steps, "step") if limit is None else (round(limit), "s")
    with closing(progress(total=total, description=description, unit=unit)) as bar:
        while schedule.reached_limit(steps, seconds) is None:
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate(steps, seconds)
            optimizer.zero_grad()
            error(batch(steps)).backward()
            optimizer.step()
            steps, seconds = steps + 1, time.monotonic() - start
            bar.update(min(steps if limit is None else int(seconds), total) - bar.n)
    return steps, seconds
