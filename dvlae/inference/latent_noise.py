"""Latent noise that depends on the position in the image, and not on tiles, batches or the order of samples.

Philox-2x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi
10.1145/2063384.2063405) turns a counter and a key into random bits, and the Box-Muller transform turns those into
normal numbers. The counter is the absolute position on a level's grid and the channel; the key is a hash of seed,
image, sample and level.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dvlae.inference.tiling import Window
from dvlae.models.latents import LatentSampler

_MULTIPLIER, _WEYL, _MASK = 0xD256D193, 0x9E3779B9, 0xFFFFFFFF
_ROUNDS = 10
# Number of counters that are computed together on a CPU.
_BLOCK = 2**16
# The spatial axes share these bits of the counter: an image's rows and columns are below 2**24.
_POSITION_BITS = 48


@dataclass(frozen=True)
class NoiseKey:
    """The key of one latent map.

    Attributes
    ----------
    value
        Key of :func:`philox`, 32 bits.
    sign
        Factor of the noise: 1 or -1.
    """

    value: int
    sign: int = 1

    @property
    def opposite(self) -> "NoiseKey":
        """The key of the same noise with the opposite sign."""
        return replace(self, sign=-self.sign)


def philox(low: Tensor, high: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Philox-2x32-10 on tensors that broadcast; 32-bit words in int64.

    Parameters
    ----------
    low, high
        The two words of the counter.
    key
        The key.

    Returns
    -------
    low, high
        Two random words, 0 to 2**32 - 1.
    """
    for _ in range(_ROUNDS):
        # The product wraps around like any 64-bit integer; its two halves are right all the same.
        product = low * _MULTIPLIER
        low, high = ((product >> 32) & _MASK) ^ key ^ high, product & _MASK
        key = (key + _WEYL) & _MASK
    return low, high


def noise_key(seed: int, image: str, sample: int, level: int) -> NoiseKey:
    """Return the key of one latent map.

    Parameters
    ----------
    seed
        Seed of all noise.
    image
        Name of the image.
    sample
        Number of the sample of that image.
    level
        Number of the level of the ladder.

    Returns
    -------
    NoiseKey
        Key, which depends on the arguments alone.
    """
    text = f"{seed}/{sample}/{level}/{image}".encode()
    return NoiseKey(int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little"))


def normal_noise(
    keys: Sequence[NoiseKey], channels: int, window: Sequence[range], device: torch.device | str = "cpu"
) -> Tensor:
    """Sample standard normal numbers for a window of a level's grid.

    Parameters
    ----------
    keys
        One key for each sample, from :func:`noise_key`.
    channels
        Channels of the latent.
    window
        One range a spatial axis, in absolute positions on the level's grid.
    device
        Device to compute on.

    Returns
    -------
    Tensor
        (len(keys), channels, ...), float32, with the window's lengths.
    """
    axes = len(window)
    bits = _POSITION_BITS // axes
    pair = torch.arange((channels + 1) // 2, device=device).view(-1, *[1] * axes) << _POSITION_BITS
    key = torch.tensor([key.value for key in keys], device=device).view(-1, *[1] * (axes + 1))
    shape = [len(side) for side in window]
    noise = torch.empty(len(keys), 2 * len(pair), *shape, device=device)
    # A block of the first axis stays in the cache of a CPU during all rounds; a GPU computes everything at once.
    per_entry = len(keys) * len(pair) * math.prod(shape[1:])
    block = shape[0] if noise.is_cuda else max(1, _BLOCK // per_entry)
    for start in range(0, shape[0], block):
        counter = pair
        for axis, side in enumerate(reversed([window[0][start : start + block], *window[1:]])):
            position = torch.arange(side.start, side.stop, device=device).view(-1, *[1] * axis)
            counter = counter | (position << (axis * bits))
        first, second = philox(counter & _MASK, counter >> 32, key)
        # Half a step keeps the uniform numbers away from 0, where the logarithm has no value; 24 bits are exact.
        radius = (((first >> 8).float() + 0.5) * 2.0**-24).log_().mul_(-2).sqrt_()
        angle = ((second >> 8).float() + 0.5) * (2 * math.pi * 2.0**-24)
        noise[:, 0::2, start : start + block] = radius * angle.cos()
        noise[:, 1::2, start : start + block] = radius * angle.sin()
    opposite = [sample for sample, key in enumerate(keys) if key.sign < 0]
    if opposite:
        noise[opposite] *= -1
    return noise[:, :channels]


def sample_keys(seed: int, name: str, numbers: Sequence[int], levels: int) -> list[list[NoiseKey]]:
    """Return the keys of the samples with these numbers, ``keys[sample][level]``, of the image with this name.

    Parameters
    ----------
    seed
        Seed of the latents.
    name
        Name of the image.
    numbers
        Numbers of the samples.
    levels
        Number of levels.

    Returns
    -------
    list of list of NoiseKey
        One list for each sample, finest level first.
    """
    return [[noise_key(seed, name, number, level) for level in range(levels)] for number in numbers]


def antithetic_keys(seed: int, name: str, numbers: Sequence[int], levels: int) -> list[list[NoiseKey]]:
    """Return keys as :func:`sample_keys` does, but every second sample has the opposite noise of the previous one.

    Odd functions of the noise cancel in the mean of such a pair, which is then as accurate as the mean of many more
    samples (antithetic variates).

    Parameters
    ----------
    seed
        Seed of the latents.
    name
        Name of the image.
    numbers
        Numbers of the samples.
    levels
        Number of levels.

    Returns
    -------
    list of list of NoiseKey
        One list for each sample, finest level first.

    References
    ----------
    Hammersley, Morton: A new Monte Carlo technique: antithetic variates, Mathematical Proceedings of the Cambridge
    Philosophical Society 52 (1956).
    """
    keys: list[list[NoiseKey]] = []
    for own in sample_keys(seed, name, numbers[::2], levels):
        keys += [own, [key.opposite for key in own]]
    return keys[: len(numbers)]


def latent_sampler(
    keys: Sequence[Sequence[NoiseKey]], window: Window, strides: Sequence[Sequence[int]]
) -> LatentSampler:
    """Return a function that samples the latents of a window.

    Parameters
    ----------
    keys
        ``keys[sample][level]``.
    window
        Window of the padded image.
    strides
        Strides of the grids of the levels along each axis, in pixels.

    Returns
    -------
    LatentSampler
        Maps a level's number, mean and standard deviation to latents, (len(keys), Z, ...).
    """

    def sample_latent(level: int, mean: Tensor, std: Tensor) -> Tensor:
        ranges = window.grid(strides[level]).ranges
        noise = normal_noise([of_sample[level] for of_sample in keys], mean.shape[1], ranges, mean.device)
        return torch.addcmul(mean, std, noise)

    return sample_latent
