"""Train the network of COSDD on noisy images, and denoise them.

The authors' modules, losses, optimisers and schedules are used as they are. This file reads and writes images, sets the
sizes, and ends the training in time. Two parts of their code are not used. ``training.py`` stops where there is no GPU.
``DataModule`` shuffles a tensor with ``random.shuffle``, which overwrites images by copies of others.
"""

import itertools
import logging
import math
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from job import Job, open_job
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

SHORTEST = 16  # pixels that each side has at least, so that half of it is a crop for the network
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}


def main() -> None:
    """Denoise the images of a job."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    with open_job() as job:
        sys.path.insert(0, str(job.code))
        torch.set_num_threads(job.threads)
        pl.seed_everything(job.seed, verbose=False)
        config = read_config(job.settings, len(job.axes))
        images = {name: torch.from_numpy(image) for name, image in job.read(SHORTEST).items()}
        with job.seconds("training_seconds"):
            hub = train(job, config, list(images.values()))
        if job.settings["searching"]:
            return
        with job.seconds("prediction_seconds"):
            for name, image in images.items():
                job.write(name, denoise(hub, image, job.settings).numpy())


def read_config(settings: dict[str, Any], dimensions: int) -> dict[str, Any]:
    """Lay the settings over the authors' defaults; the keys are theirs.

    Parameters
    ----------
    settings
        Those of the method.
    dimensions
        Number of spatial axes.

    Returns
    -------
    dict
        The configuration that the authors' code takes.
    """
    import utils

    config = utils.get_defaults({})
    for section in filter(lambda value: isinstance(value, dict), config.values()):
        section.update({key: value for key, value in settings.items() if key in section})
    config["hyper-parameters"]["noise-direction"] = settings["noise_direction"]
    config["data"]["number-dimensions"] = dimensions
    return config


def train(job: Job, config: dict[str, Any], images: list[torch.Tensor]) -> pl.LightningModule:
    """Train for the minutes of the job.

    Parameters
    ----------
    job
        Gives minutes and device, and takes the record.
    config
        Configuration of the authors' code.
    images
        Axes (C, ...), of any sides.

    Returns
    -------
    LightningModule
        The networks.
    """
    from models.get_models import get_models
    from models.hub import Hub

    options = config["train-parameters"]
    training, validation = split(images, config)
    channels = len(images[0])
    pixels = torch.cat([image.flatten(1) for image in images], 1).double()
    of_channel = (1, channels, *[1] * len(job.axes))
    encoder, ar_decoder, signal_decoder, direct_denoiser = get_models(config, channels)
    hub = Hub(
        encoder,
        ar_decoder,
        signal_decoder,
        direct_denoiser,
        data_mean=pixels.mean(1).float().reshape(of_channel),
        data_std=pixels.std(1).float().reshape(of_channel),
        n_grad_batches=options["number-grad-batches"],
        checkpointed=config["memory"]["checkpointed"],
    )
    if len(job.axes) == 2:
        hub.to(memory_format=torch.channels_last)
    trainer = pl.Trainer(
        accelerator=ACCELERATORS[job.device],
        devices=1,
        max_epochs=-1,
        max_time={"minutes": job.minutes},
        precision=config["memory"]["precision"],
        callbacks=[EarlyStopping("elbo/val", patience=options["patience"])],
        # The authors' code writes pictures to the logger.
        logger=DummyLogger(),
        # Otherwise Lightning takes the nodes of a job of SLURM for itself, as in the authors' script.
        plugins=[LightningEnvironment()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(hub, loader(training, config, shuffle=True), loader(validation, config, shuffle=False))
    job.record["steps"] = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    job.record["validation_loss"] = trainer.callback_metrics["elbo/val"].item()
    return hub.to(job.device).eval()


def split(images: list[torch.Tensor], config: dict[str, Any]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Hold out a part for validation: of the images, or of patches of them where they are few.

    Parameters
    ----------
    images
        Axes (C, ...).
    config
        Configuration of the authors' code, in which the crops become small enough for the images.

    Returns
    -------
    training, validation
        Lists of images or patches.
    """
    import utils

    options = config["train-parameters"]
    share = options["training-split"]
    few = math.ceil(share * len(images)) == len(images)
    shortest = np.min([image.shape[1:] for image in images], axis=0) // (2 if few else 1)
    crop = [min(options["crop-size"], side) for side in shortest.tolist()]
    options["crop-size"] = crop
    if few:
        # The patches are as large as in the authors' script.
        scale = (1 - share) ** (1 / len(crop))
        images = [
            patch
            for image in images
            for patch in utils.patchify(
                image[None],
                [max(side, math.ceil(scale * length)) for side, length in zip(crop, image.shape[1:], strict=True)],
            )
        ]
    shuffled = random.sample(images, len(images))
    return shuffled[: int(share * len(images))], shuffled[int(share * len(images)) :]


def loader(images: list[torch.Tensor], config: dict[str, Any], shuffle: bool) -> DataLoader:
    """Return batches of random crops, as many as cover the images once.

    Parameters
    ----------
    images
        Axes (C, ...).
    config
        Configuration of the authors' code.
    shuffle
        Whether to take the images in random order.

    Returns
    -------
    DataLoader
        The batches.
    """
    import utils

    crop = config["train-parameters"]["crop-size"]
    crops_of_image = sum(image[0].numel() for image in images) // (math.prod(crop) * len(images))
    crops = utils.TrainDataset(images, max(1, crops_of_image), utils.RandomCrop(crop))
    return DataLoader(crops, config["train-parameters"]["batch-size"], shuffle=shuffle)


@torch.inference_mode()
def denoise(hub: pl.LightningModule, image: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
    """Return the estimate of an image, tile by tile where it is large.

    Parameters
    ----------
    hub
        The trained networks.
    image
        Axes (C, ...).
    settings
        ``n-samples``: how many samples to average without a direct denoiser; ``tile-pixels`` and ``tile-margin``: the
        size of tiles.

    Returns
    -------
    Tensor
        Axes (C, ...).
    """
    hub.direct_pred = hub.direct_denoiser is not None
    samples = 1 if hub.direct_pred else settings["n-samples"]
    estimate = torch.empty_like(image)
    for seen, kept, place in tiles(image.shape[1:], settings["tile-pixels"], settings["tile-margin"]):
        noisy = image[(slice(None), *seen)][None].to(hub.device)
        mean = sum(hub.predict_step(noisy, 0) for _ in range(samples)) / samples
        estimate[(slice(None), *place)] = mean[0][(slice(None), *kept)].cpu()
    return estimate


Slices = tuple[slice, ...]


def tiles(sides: Sequence[int], pixels: int, margin: int) -> Iterator[tuple[Slices, Slices, Slices]]:
    """Cut an image into overlapping tiles.

    Parameters
    ----------
    sides
        Of the image.
    pixels
        Number of pixels that a tile has at most, except for the margins.
    margin
        By how many pixels a tile exceeds on each side what is kept of it.

    Yields
    ------
    seen, kept, place
        What of the image the network sees, what of its output is kept, and where this lies in the image.
    """
    # If the margin is a multiple of the stride, all tiles are halved at the same pixels.
    length = max(margin, int(pixels ** (1 / len(sides))) // margin * margin)
    for corner in itertools.product(*(range(0, side, length) for side in sides)):
        begins = [max(0, start - margin) for start in corner]
        ends = [min(side, start + length) for start, side in zip(corner, sides, strict=True)]
        yield (
            tuple(slice(begin, min(side, end + margin)) for begin, end, side in zip(begins, ends, sides, strict=True)),
            tuple(slice(start - begin, end - begin) for start, begin, end in zip(corner, begins, ends, strict=True)),
            tuple(map(slice, corner, ends)),
        )


if __name__ == "__main__":
    main()
