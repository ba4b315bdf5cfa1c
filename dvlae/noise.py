"""Latent noise that is a function of where it is, not of how the image was cut, batched or sampled.

Philox-2x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi
10.1145/2063384.2063405) turns a counter and a key into random bits, and the Box-Muller transform turns those into
normal numbers. The counter is the absolute position on a level's grid and the channel; the key is a hash of seed,
image, sample and level.
"""

import hashlib
import math

import torch
from torch import Tensor

_MULTIPLIER, _WEYL, _MASK = 0xD256D193, 0x9E3779B9, 0xFFFFFFFF
_ROUNDS = 10
_BLOCK = 2**16  # counters
_POSITION_BITS = 24  # rows and columns of a level's grid are below 2**24


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


def key_of(seed: int, image: str, sample: int, level: int) -> int:
    """Return the 32-bit key of one latent map."""
    text = f"{seed}/{sample}/{level}/{image}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


def normal_noise(
    keys: list[int], channels: int, rows: range, columns: range, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw standard normal numbers for a window of a level's grid.

    Parameters
    ----------
    keys
        One key a sample, from :func:`key_of`.
    channels
        Channels of the latent.
    rows, columns
        The window, in absolute positions on the level's grid.
    device
        Where to compute.

    Returns
    -------
    Tensor
        (len(keys), channels, len(rows), len(columns)), float32.
    """
    x = torch.arange(columns.start, columns.stop, device=device)
    pair = torch.arange((channels + 1) // 2, device=device).view(-1, 1, 1) << (2 * _POSITION_BITS)
    key = torch.tensor(keys, device=device).view(-1, 1, 1, 1)
    noise = torch.empty(len(keys), 2 * len(pair), len(rows), len(columns), device=device)
    # A processor's cache holds a block of rows through all the rounds; a GPU takes everything at once.
    block = len(rows) if noise.is_cuda else max(1, _BLOCK // (len(keys) * len(pair) * len(columns)))
    for start in range(0, len(rows), block):
        y = torch.arange(rows.start + start, min(rows.start + start + block, rows.stop), device=device).view(-1, 1)
        counter = pair | (y << _POSITION_BITS) | x
        first, second = philox(counter & _MASK, counter >> 32, key)
        # Half a step keeps the uniform numbers away from 0, where the logarithm has no value; 24 bits are exact.
        radius = (((first >> 8).float() + 0.5) * 2.0**-24).log_().mul_(-2).sqrt_()
        angle = ((second >> 8).float() + 0.5) * (2 * math.pi * 2.0**-24)
        noise[:, 0::2, start : start + block] = radius * angle.cos()
        noise[:, 1::2, start : start + block] = radius * angle.sin()
    return noise[:, :channels]
