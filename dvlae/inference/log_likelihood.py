"""The importance-weighted bound on the log-likelihood of images.

The latents z_1 ... z_K are sampled from the posterior q(z | x) of an image x, and have the weights

    w_k = p(x | z_k) p(z_k) / q(z_k | x)

On average, log((w_1 + ... + w_K) / K) is a lower bound on log p(x), which rises with K and reaches it as K grows; with
K = 1 it is the ELBO [1]_. The effective number of samples is (w_1 + ... + w_K)^2 / (w_1^2 + ... + w_K^2) [2]_.

An image is padded to a multiple of the model's stride before it is encoded. Only its own pixels count in p(x | z):
the padding follows them in every line, so leaving it out is exact. The latents of the padding do count: the result is a
bound on log p of the image itself, and slightly looser than without padding.

References
----------
.. [1] Burda, Grosse, Salakhutdinov: Importance weighted autoencoders, ICLR 2016, arXiv 1509.00519.
.. [2] Kong, Liu, Wong: Sequential imputations and Bayesian missing data problems, Journal of the American Statistical
   Association 89 (1994).
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dvlae.data.defects.frames import read_filled
from dvlae.data.manifest import read_manifest, select_images
from dvlae.inference.generation import warn_of_prior
from dvlae.inference.latent_noise import latent_sampler, sample_keys
from dvlae.inference.posterior import check_whole_input, choose_batch_size, encode_image, repeat_features
from dvlae.inference.tiling import split_range, whole_window
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_to
from dvlae.models.latents import log_density_ratio
from dvlae.models.layers import cut_padding
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file
from dvlae.system.progress import progress

logger = logging.getLogger(__name__)

CROP_HINT = "; crop the dataset's images"


@dataclass(frozen=True)
class ImportanceWeights:
    """The importance weights of samples of one image.

    Attributes
    ----------
    logarithms
        Log weights, (K,), in nats.
    """

    logarithms: Tensor

    @property
    def bound(self) -> float:
        """The importance-weighted bound, in nats."""
        return float(torch.logsumexp(self.logarithms, 0)) - math.log(len(self.logarithms))

    @property
    def elbo(self) -> float:
        """The ELBO, in nats."""
        return float(self.logarithms.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the ELBO, in nats; NaN for a single sample."""
        count = len(self.logarithms)
        return float(self.logarithms.std()) / math.sqrt(count) if count > 1 else math.nan

    @property
    def effective_samples(self) -> float:
        """The equivalent number of equally weighted samples, from 1 to K."""
        return 1 / float(torch.softmax(self.logarithms, 0).square().sum())


def log_weights(
    model: DVLAE, image: np.ndarray, *, name: str, samples: int, seed: int, batch_size: int | str = "auto"
) -> Iterator[float]:
    """Yield log p(x | z) + log p(z) - log q(z | x) of samples z of the posterior of one image.

    Parameters
    ----------
    model
        Trained model in evaluation mode, on the device to compute on.
    image
        (C, ...), in the units of the training images.
    name
        Name of the image, which determines the latent noise together with the seed.
    samples
        Number of samples.
    seed
        Seed of the latent noise.
    batch_size
        Number of samples computed together. It changes the result by rounding errors only.

    Yields
    ------
    float
        Log weight in nats, for the density of the grey values of the complete image.
    """
    ladder_vae, sides = model.ladder_vae, image.shape[1:]
    x, features = encode_image(model, image)
    padded = whole_window(x.shape[2:])
    own_x = cut_padding(x, sides)
    # The densities of x and of its grey values differ by the scale: dx = d(grey value) / std.
    change_of_units = math.prod(sides) * float(_to_float64(model.std).log().sum())
    keys = sample_keys(seed, name, range(samples), len(features))
    for numbers in split_range(range(samples), choose_batch_size(model, sides, batch_size, all_latents=True)):
        state, divergences = ladder_vae.top_down(
            None,
            repeat_features(features, len(numbers)),
            latent_sampler([keys[number] for number in numbers], padded, ladder_vae.strides),
            divergence=lambda *arguments: log_density_ratio(*map(_to_float64, arguments)),
        )
        code = cut_padding(ladder_vae.last_block(state), sides)
        repeated_x = own_x.expand(len(numbers), *image.shape)
        logits, means, raw_scales = model.autoregressive_decoder(repeated_x, code)
        likelihood, _ = model.pixel_log_likelihood(repeated_x, logits, means, raw_scales)
        log_ratio = sum(map(_sum_per_sample, divergences), start=torch.zeros(len(numbers), dtype=torch.float64))
        weights = _sum_per_sample(likelihood) - log_ratio - change_of_units
        yield from weights.tolist()


def _to_float64(values: Tensor) -> Tensor:
    """Convert to float64, on a device that supports it: weights are differences of sums over millions of values."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _sum_per_sample(values: Tensor) -> Tensor:
    """Sum over all but the first axis."""
    return _to_float64(values).flatten(1).sum(1).cpu()


@torch.inference_mode()
def bound_log_likelihood(
    model: DVLAE,
    image: np.ndarray,
    *,
    name: str,
    samples: int,
    seed: int,
    on_progress: Callable[[int], object] = lambda samples: None,
) -> ImportanceWeights:
    """Bound the log-likelihood of one image, whose samples are computed in batches.

    Parameters
    ----------
    model, image, name, samples, seed
        As for :func:`log_weights`.
    on_progress
        Called with the number of samples that were computed since the last call.

    Returns
    -------
    ImportanceWeights
        Weights that give the bound, the ELBO and their uncertainty.

    Raises
    ------
    UserError
        If the image has other channels or axes than the model's, or is too large to be computed at once.
    """
    check_whole_input(model, image.shape, name, CROP_HINT)
    logarithms = []
    for log_weight in log_weights(model, image, name=name, samples=samples, seed=seed):
        logarithms.append(log_weight)
        on_progress(1)
    return ImportanceWeights(torch.tensor(logarithms, dtype=torch.float64))


def likelihood(
    model: Path,
    images: Path,
    output: Path,
    *,
    selection: str | Sequence[str] = "all",
    samples: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Write the bound on the log-likelihood of each image of a manifest into a table.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    output
        CSV to make, with one row for each image: ``bound``, ``elbo`` and its standard error in nats for the complete
        image, and the same per pixel value; ``bits_per_value`` is minus the bound in bits per pixel value.
    selection
        Selection of the images: see :func:`dvlae.data.manifest.select`.
    samples
        Number of samples of the posterior of each image, K.
    seed
        Seed of the latent noise.
    device
        Device to compute on.

    Raises
    ------
    UserError
        If the model or an image cannot be used, the device is missing, or there are no samples.
    """
    if samples < 1:
        raise UserError(f"samples: found {samples}, allowed: a whole number >= 1")
    network = load_to(device, model)
    manifest = select_images(read_manifest(images), selection)
    for image in manifest:
        check_whole_input(network, image.shape, image.name, CROP_HINT)
    warn_of_prior("likelihood", network, [image.shape[1:] for image in manifest])
    rows = []
    with progress(total=samples * len(manifest), description="likelihood", unit="sample") as bar:
        for image in manifest:
            noisy = read_filled(image)
            weights = bound_log_likelihood(
                network, noisy, name=image.name, samples=samples, seed=seed, on_progress=bar.update
            )
            rows.append(_row(image.name, math.prod(image.shape), weights))
    with atomic_file(output) as path:
        pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")
    bits = np.mean([float(row["bits_per_value"]) for row in rows])
    logger.info("likelihood: %.4f bits per pixel value over %d images, %d samples each", bits, len(rows), samples)


def _row(name: str, values: int, weights: ImportanceWeights) -> dict[str, str | int]:
    """Return one row of the table."""
    return {
        "image": name,
        "values": values,
        "samples": len(weights.logarithms),
        "bound": f"{weights.bound:.3f}",
        "elbo": f"{weights.elbo:.3f}",
        "elbo_standard_error": f"{weights.standard_error:.3f}",
        "bound_per_value": f"{weights.bound / values:.6f}",
        "elbo_per_value": f"{weights.elbo / values:.6f}",
        "bits_per_value": f"{-weights.bound / values / math.log(2):.6f}",
        "effective_samples": f"{weights.effective_samples:.3f}",
    }
