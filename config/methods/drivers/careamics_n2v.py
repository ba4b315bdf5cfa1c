"""Train N2V2 or structN2V by CAREamics on noisy images, and denoise them."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from job import Job, open_job

SHORTEST = 16  # pixels that each side has at least, so that half of it is a patch for CAREamics
# Few pixels of a patch are masked at a time, so that a loss is the mean of many maskings.
MASKINGS = 20
SPANS = (3, 15)  # the shortest and the longest mask of CAREamics, in pixels
MASKS = {"x": "horizontal", "y": "vertical"}
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}


def main() -> None:
    """Denoise the images of a job."""
    with open_job() as job:
        settings = job.settings
        reason = find_obstacle(job.axes, settings)
        if reason is not None:
            job.record["not_applicable"] = reason
            return
        # This takes many seconds.
        import torch
        from careamics.careamist import CAREamist

        torch.set_num_threads(job.threads)
        images = job.read(SHORTEST)
        arrays = [image if "C" in settings["axes"] else image[0] for image in images.values()]
        with tempfile.TemporaryDirectory() as folder:
            careamist = CAREamist(configure(job, arrays), work_dir=folder, enable_progress_bar=False)
            with job.seconds("training_seconds"):
                careamist.train(train_data=arrays)
            job.record["steps"] = careamist.trainer.global_step
            job.record["validation_loss"] = measure_loss(careamist)
            if settings["searching"]:
                return
            # The checkpoint that CAREamics would take is one of a completed epoch.
            last = Path(folder) / "last.ckpt"
            careamist.trainer.save_checkpoint(last)
            with job.seconds("prediction_seconds"):
                estimates = denoise(careamist, last, arrays, settings, len(job.axes))
        for name, estimate in zip(images, estimates, strict=True):
            job.write(name, estimate.reshape(-1, *estimate.shape[-len(job.axes) :]))


def find_obstacle(axes: str, settings: dict[str, Any]) -> str | None:
    """Return why CAREamics cannot denoise these images.

    Parameters
    ----------
    axes
        The spatial ones.
    settings
        Those of the method, and what is known of the noise.

    Returns
    -------
    str or None
        One line, or None if it can.
    """
    if len(axes) == 1:
        return "CAREamics denoises images and volumes, not traces"
    if not settings["struct"]:
        return None
    direction, noise = settings["noise_direction"], settings["noise"]
    if direction not in MASKS:
        return f"structN2V masks along x or y, and noise_direction is {direction}"
    if noise["correlation_length"] is None:
        return f"how far the noise is correlated cannot be told: {noise['reason']}"
    if noise["direction"] != direction or noise["correlation_length"] == 0:
        return f"the noise is not correlated along {direction}, so there is no structure to mask"
    return None


def configure(job: Job, arrays: Sequence[np.ndarray]) -> Any:
    """Return the configuration of CAREamics; what is not named here has its default.

    Parameters
    ----------
    job
        Its record takes the span of the mask.
    arrays
        The images.

    Returns
    -------
    N2VConfiguration
        The configuration.
    """
    from careamics.config.factories import create_advanced_n2v_config

    settings = job.settings
    sides = np.array([array.shape[-len(job.axes) :] for array in arrays])
    # CAREamics demands a power of two, and patches for validation that lie on a grid, enough in each image if it draws
    # all of them from the same.
    patch = [min(settings["patch"], 2 ** int(math.log2(side // 2))) for side in sides.min(axis=0)]
    of_image = np.prod(sides // patch, axis=1)
    mask: dict[str, Any] = {}
    if settings["struct"]:
        # A pixel's noise tells that of its neighbours within the correlation length, on both sides.
        span = int(np.clip(2 * settings["noise"]["correlation_length"] + 1, *SPANS))
        job.record["span"] = span
        mask = {"struct_n2v_axes": MASKS[settings["noise_direction"]], "struct_n2v_span": span, "augmentations": []}
    return create_advanced_n2v_config(
        "n2v",
        "array",
        settings["axes"],
        patch,
        settings["batch"],
        num_epochs=-1,
        n_channels=len(arrays[0]) if "C" in settings["axes"] else None,
        n_val_patches=min(math.ceil(0.1 * of_image.sum()), int(of_image.min())),
        use_n2v2=not settings["struct"],
        # The default, unless patches are so small that they would have no masked pixel.
        masked_pixel_percentage=max(0.2, 100 / math.prod(patch)),
        model_params={"depth": settings["depth"], "num_channels_init": settings["channels"]},
        optimizer_params={"lr": settings["learning_rate"]},
        checkpoint_params={"save_top_k": 0},
        trainer_params={
            "max_time": {"minutes": job.minutes},
            "accelerator": ACCELERATORS[job.device],
            "devices": 1,
            "enable_model_summary": False,
        },
        num_workers=0,
        seed=job.seed + 1,  # has to be positive
        **mask,
    )


def measure_loss(careamist: Any) -> float:
    """Return the validation loss, with the same masks for all networks.

    Parameters
    ----------
    careamist
        The ``CAREamist`` that was trained.

    Returns
    -------
    float
        The mean squared error of masked pixels.
    """
    careamist.model.n2v_manipulate.rng.manual_seed(0)
    losses = [
        careamist.trainer.validate(careamist.model, datamodule=careamist.train_datamodule, verbose=False)[0]["val_loss"]
        for _ in range(MASKINGS)
    ]
    return sum(losses) / MASKINGS


def denoise(
    careamist: Any, checkpoint: Path, arrays: Sequence[np.ndarray], settings: dict[str, Any], dimensions: int
) -> list[np.ndarray]:
    """Return the estimates, tile by tile where an image is large.

    Parameters
    ----------
    careamist
        The ``CAREamist`` that was trained.
    checkpoint
        Its weights.
    arrays
        The images.
    settings
        ``depth`` of the network, and ``tile-pixels``: number of pixels of a tile.
    dimensions
        Number of spatial axes.

    Returns
    -------
    list of array
        One for each image; they may be larger than it at the end of each axis.
    """
    stride = 2 ** settings["depth"]
    padded = []
    for array in arrays:
        sides = [(0, -side % stride) for side in array.shape[-dimensions:]]
        padded.append(np.pad(array, [(0, 0)] * (array.ndim - dimensions) + sides, mode="symmetric"))
    tile = None
    overlap = None
    if max(math.prod(array.shape[-dimensions:]) for array in padded) > settings["tile-pixels"]:
        length = int(settings["tile-pixels"] ** (1 / dimensions)) // stride * stride
        shortest = np.min([array.shape[-dimensions:] for array in padded], axis=0)
        tile = tuple(min(length, int(side)) for side in shortest)
        overlap = tuple(min(48, side // 4 * 2) for side in tile)
    estimates, _ = careamist.predict(
        padded, batch_size=1, tile_size=tile, tile_overlap=overlap, num_workers=0, checkpoint=checkpoint
    )
    return estimates


if __name__ == "__main__":
    main()
