"""Noise2Void and structN2V, by the package auto-denoise.

A network predicts single pixels from their surroundings: the pixels themselves are replaced by random numbers. What
their noise shares with no other pixel cannot be predicted. structN2V also replaces the pixels along the noise's
direction as far as their noise is correlated.

Sources: Krull et al., "Noise2Void", CVPR 2019, arXiv 1811.10980; Broaddus et al., "Removing structured noise with
self-supervised blind-spot networks", ISBI 2020. The package's network, loss and optimiser are left as they are. It
takes all training images in each step, so it is given few crops, and others after some steps; its optimiser then begins
anew.
"""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch

from dvlae.axes import AXES
from dvlae.config.fields import Count, Fraction, Index
from dvlae.config.messages import validate
from dvlae.data.defects.frames import read_filled
from dvlae.data.manifest import Image, spread_evenly
from dvlae.evaluation.diagnosis import correlation_length
from dvlae.methods.learned.blocks import divide
from dvlae.methods.learned.patches import LearningSettings, Patches, cut_patches, scale_of
from dvlae.methods.learned.training import all_threads
from dvlae.methods.task import Fitted, NotApplicableError, Task
from dvlae.system.errors import UserError
from dvlae.system.progress import progress
from dvlae.system.software import optional_module
from dvlae.training.crops import RandomCrops

# As many crops as in the package's tutorial, for each crop of the training.
VALIDATION_SHARE = 0.5
# Before the time of a step is known.
FIRST_STEPS = 4


class BlindSpotSettings(LearningSettings):
    """Settings of Noise2Void and structN2V.

    Attributes
    ----------
    span
        Pixels that are hidden to each side along the noise's direction: 0 is Noise2Void; ``auto``: as far as the
        diagnosis finds the noise correlated.
    steps_per_batch
        Steps with the same crops.
    blind_spots
        Share of the pixels that are predicted in a step.
    most_replaced
        Largest share of the pixels that are replaced in a step; long masks have fewer blind spots.
    """

    crop: int = 128
    batch: int = 4
    rate: float = 0.001
    width: int = 16
    depth: int = 3
    span: Literal["auto"] | Index = 0
    steps_per_batch: Count = 32
    blind_spots: Fraction = 0.015
    most_replaced: Fraction = 0.15


def fit(task: Task) -> Fitted:
    """Train the package's U-Net on noisy images.

    Parameters
    ----------
    task
        Its settings are those of :class:`BlindSpotSettings`.

    Returns
    -------
    Fitted
        ``validation_loss`` in the description is the package's: the mean squared error of hidden pixels in held-out
        crops, with the package's normalisation.

    Raises
    ------
    NotApplicableError
        If the images are not planes, or the diagnosis cannot tell how far their noise is correlated.
    UserError
        If the package is not installed, or a setting is wrong.
    """
    settings = validate(BlindSpotSettings, dict(task.settings), "settings")
    package = optional_module("autoden", "compare", subject="method", use="trains Noise2Void")
    shapes = {len(image.shape) for image in task.images}
    if shapes != {3}:
        raise NotApplicableError("auto-denoise masks pixels of planes only, not of traces and volumes")
    span = find_span(task) if settings.span == "auto" else settings.span
    mask = [1, 1]
    if span:
        mask[AXES[task.noise_direction]] = 2 * span + 1
    maps = {image.name: read_filled(image) for image in task.images}
    patches = cut_patches(divide(task.images, task.block), maps, settings.crop)
    with all_threads(task):
        denoiser = _make_denoiser(package, patches, settings, task)
        record = _train(denoiser, patches, mask, settings, task)
    return Fitted(
        lambda image: _denoise(denoiser, image),
        settings.model_dump(exclude_none=True)
        | {"mask": mask, **record, "held_out": patches.held_out, "images": patches.images},
    )


def find_span(task: Task) -> int:
    """Return how far the noise is correlated along the direction that the dataset names.

    Parameters
    ----------
    task
        What a method is given.

    Returns
    -------
    int
        In pixels; 0 for noise without a direction, or that is not correlated.

    Raises
    ------
    NotApplicableError
        If that cannot be told.
    """
    direction = task.noise_direction
    if direction == "none":
        return 0
    if task.noise["correlation_length"] is None:
        raise NotApplicableError(f"how far the noise is correlated cannot be told: {task.noise['reason']}")
    return correlation_length(np.array(task.noise["autocorrelation"][direction], float))


def _train(denoiser: Any, patches: Patches, mask: list[int], settings: BlindSpotSettings, task: Task) -> dict[str, Any]:
    """Train in pieces, each with other crops; keep the state after the piece with the smallest mean validation loss."""
    crops = RandomCrops(
        patches.train,
        crop=patches.crop,
        batch_size=settings.batch,
        seed=task.seed,
        noise_direction=task.noise_direction,
    )
    window = (slice(None), slice(None), *map(slice, patches.crop))
    held_out = patches.validation[window]
    held_out = held_out[spread_evenly(len(held_out), max(1, round(VALIDATION_SHARE * settings.batch)))]
    ratio = min(settings.blind_spots, settings.most_replaced / max(mask))
    start, steps, seconds, best, limit = time.monotonic(), 0, 0.0, np.inf, 60 * task.minutes
    best_state: Mapping[str, torch.Tensor] = {}
    number = 0
    with closing(progress(total=round(limit), description="noise2void", unit="s")) as bar:
        while (count := _affordable_steps(steps, seconds, limit, settings)) > 0:
            batch = np.concatenate([crops.batch(number).numpy(), held_out])
            with _silence():
                losses = denoiser.train(
                    _without_single_channel(batch),
                    range(settings.batch, len(batch)),
                    epochs=count,
                    mask_shape=mask,
                    ratio_blind_spot=ratio,
                    learning_rate=settings.rate,
                )
            denoiser.model.load_state_dict(denoiser.last_state)
            loss = float(np.mean(losses["loss_tst"]))
            if loss < best:
                best, best_state = loss, denoiser.last_state
            number, steps, seconds = number + 1, steps + count, time.monotonic() - start
            bar.update(min(int(seconds), bar.total) - bar.n)
    if not np.isfinite(best):
        raise UserError(f"noise2void: the weights did not stay finite; set a smaller rate than {settings.rate}")
    denoiser.model.load_state_dict(best_state)
    return {
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in denoiser.model.parameters()),
        "training_seconds": round(seconds, 1),
        "validation_loss": best,
        "blind_spots": ratio,
    }


def _affordable_steps(steps: int, seconds: float, limit: float, settings: BlindSpotSettings) -> int:
    """Return how many steps to take with the next crops; 0 at the end."""
    wanted = settings.steps_per_batch if steps else FIRST_STEPS
    if settings.max_steps is not None:
        wanted = min(wanted, settings.max_steps - steps)
    if steps == 0:
        return wanted
    affordable = int((limit - seconds) * steps / seconds)
    # The mean validation loss over few steps says too little to be compared.
    return min(wanted, affordable) if affordable >= wanted / 2 else 0


def _make_denoiser(package: Any, patches: Patches, settings: BlindSpotSettings, task: Task) -> Any:
    class Resumable(package.N2V):
        """Keeps the weights after the last step; the package goes on with those of the best step of each call."""

        last_state: Mapping[str, torch.Tensor]

        def _save_state(self, epoch_num: int, optim_state: Mapping, is_best: bool = False) -> None:
            """Take the place of the function that saves the weights after each step."""
            if not is_best:
                self.last_state = deepcopy(self.model.state_dict())

    # The package has no generator of its own.
    np.random.seed(task.seed)
    torch.manual_seed(task.seed)
    channels = patches.train.shape[1]
    # Pixels are replaced by random numbers of variance 1, so the images have this variance, too. In the package's own
    # scale, the range of the images is 1, and the estimates were worse by 3 to 20 dB.
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in scale_of(patches.train))
    if channels == 1:
        mean, std = mean.item(), std.item()
    scale = {f"scale_{what}": 1 / std for what in ("inp", "out", "tgt")}
    bias = {f"bias_{what}": mean / std for what in ("inp", "out", "tgt")}
    with _silence():
        return Resumable(
            package.NetworkParamsUNet(channels, channels, n_features=settings.width, n_levels=settings.depth),
            data_scale_bias=package.algorithms.denoiser.DataScaleBias(**scale, **bias),
            device=task.device,
            save_epochs_dir=str(task.folder),
            verbose=False,
        )


def _denoise(denoiser: Any, image: Image) -> np.ndarray:
    noisy = read_filled(image)
    estimate = denoiser.infer(_without_single_channel(noisy[None]))
    return estimate.reshape(noisy.shape).astype(np.float32, copy=False)


def _without_single_channel(images: np.ndarray) -> np.ndarray:
    """Return images (N, C, Y, X) as the package takes them: without the axis of the channels if there is one."""
    return images[:, 0] if images.shape[1] == 1 else images


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the package's own bars and lines, of which there are some for each call, from the screen."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield
