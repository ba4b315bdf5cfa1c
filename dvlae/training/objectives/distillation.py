"""How a direct denoiser learns from samples of the model."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE
from dvlae.models.latents import LatentSampler, sample_part, sample_randomly

# In strides. Two windows that are shifted by up to a stride are cut from sides that are at least this long.
MIN_SIDE_STRIDES = 4
# The mean minimises the mean squared error, the median the mean absolute error.
DISTILLATION_LOSSES = {"mean": F.mse_loss, "median": F.l1_loss}


def distillation_loss(
    teacher: DVLAE,
    network: DirectDenoiser,
    image: Tensor,
    rows: range | None = None,
    total: int | None = None,
) -> Tensor:
    """Return the loss of a direct denoiser that learns from samples of a model.

    Only the direct denoiser has gradients. The samples come from another view of the images, which is mirrored and
    shifted against the model's grid, so the direct denoiser learns the mean over views, as prediction takes it.

    Parameters
    ----------
    teacher
        The model that samples.
    network
        The direct denoiser that learns.
    image
        Noisy images in their own units, (N, C, ...).
    rows, total
        Numbers of these images among those that all workers compute together; None: these are all.

    Returns
    -------
    Tensor
        Scalar: mean squared or absolute error to the samples, in normalised units.
    """
    x = teacher.pad(teacher.normalise(image))  # (N, C, ...)
    number, sides = len(x), x.shape[2:]
    # Two windows of each image are shifted by less than a stride; in a small image they are the same.
    strides = zip(sides, teacher.stride, strict=True)
    room = [stride if side >= MIN_SIDE_STRIDES * stride else 0 for side, stride in strides]
    shifts = [int(torch.randint(most, ())) if most else 0 for most in room]
    lengths = [side - most for side, most in zip(sides, room, strict=True)]
    fixed = _cut(x, [0] * len(sides), lengths)  # (N, C, ...), each side shorter by its room
    shifted = _cut(x, shifts, lengths)
    flipped = [axis for axis in teacher.architecture.mirrored_axes if torch.rand(()) < 0.5]
    both = torch.cat([fixed, shifted.flip(flipped)])  # (2 N, C, ...)

    sample_both: LatentSampler = sample_randomly
    if rows is not None and total is not None and len(rows) < total:
        sample_both = sample_part([*rows, *(total + row for row in rows)], 2 * total)

    def sample_latent(level: int, mean: Tensor, std: Tensor) -> Tensor:
        # The first window takes the mean, for the guess, and the second one a sample.
        latent = sample_both(level, mean, std)  # (2 N, Z, ...)
        latent[:number] = mean[:number]
        return latent

    ladder_vae = teacher.ladder_vae
    with torch.no_grad():
        features = ladder_vae.bottom_up(ladder_vae.stem(both))  # (2 N, channels, ...) each
        code, _ = ladder_vae.to_code(features, sample_latent)
        guess, sample = teacher.signal_decoder(code).chunk(2)  # (N, C, ...)
    estimate = network(both[:number], guess, [features[level][:number] for level in network.levels])
    # Only what both windows show is compared.
    common = [length - shift for length, shift in zip(lengths, shifts, strict=True)]
    estimate = _cut(estimate, shifts, common)
    sample = _cut(sample.flip(flipped), [0] * len(sides), common)
    statistic = teacher.architecture.direct_denoiser
    assert statistic is not None, "the model has no direct denoiser"
    return DISTILLATION_LOSSES[statistic](estimate.float(), sample.float())


def _cut(maps: Tensor, starts: list[int], lengths: list[int]) -> Tensor:
    """Return a view of a box of maps (N, C, ...), given its start and its length along each spatial axis."""
    for axis, (start, length) in enumerate(zip(starts, lengths, strict=True), 2):
        maps = maps.narrow(axis, start, length)
    return maps
