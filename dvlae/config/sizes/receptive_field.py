"""The autoregressive decoder that has exactly a given receptive field.

The decoder has ``blocks`` pairs of causal convolutions with ``kernel`` taps. The first convolution of pair i has the
dilation given by :func:`dilations`, and the second has dilation 1. The very first convolution excludes the current
pixel. Together they see exactly ``(kernel - 1) * (sum(dilations) + blocks)`` previous pixels.
"""

from dvlae.system.errors import UserError

# In order of preference; the first is the paper's.
KERNELS = (5, 3, 7, 9)
MAX_BLOCKS = 8


def dilations(blocks: int) -> list[int]:
    """Return the dilation of the first convolution of each pair, which doubles from pair to pair and then halves.

    Parameters
    ----------
    blocks
        Number of pairs.

    Returns
    -------
    list of int
        One dilation for each pair, in pixels.

    Examples
    --------
    >>> dilations(4)
    [1, 2, 2, 1]
    >>> dilations(5)
    [1, 2, 4, 2, 1]
    """
    return [2 ** min(i, blocks - 1 - i) for i in range(blocks)]


def _reach(kernel: int, blocks: int) -> int:
    return (kernel - 1) * (sum(dilations(blocks)) + blocks)


def reachable() -> list[int]:
    """Return all possible receptive fields, in pixels; 0 is for pixel-independent noise.

    Returns
    -------
    list of int
        The allowed values of ``receptive_fields`` in a configuration, in ascending order.
    """
    return sorted({0} | {_reach(k, n) for k in KERNELS for n in range(1, MAX_BLOCKS + 1)})


def kernel_and_blocks(receptive_field: int) -> tuple[int, int]:
    """Find the decoder with exactly this receptive field.

    Parameters
    ----------
    receptive_field
        Number of previous pixels in the noise direction that the autoregressive decoder sees.

    Returns
    -------
    kernel, blocks
        Taps of each convolution and number of pairs; ``(1, 0)`` for a receptive field of 0.

    Raises
    ------
    UserError
        If no kernel of 3, 5, 7 or 9 taps with 1 to 8 pairs has it; the message lists the nearest ones.

    Examples
    --------
    The paper's receptive field of 40 pixels is that of four pairs of convolutions with five taps:

    >>> kernel_and_blocks(40)
    (5, 4)
    >>> (5 - 1) * (sum(dilations(4)) + 4)
    40

    Most numbers cannot be reached exactly:

    >>> kernel_and_blocks(41)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    dvlae.system.errors.UserError: receptive field 41 cannot be reached; the nearest ... are 30, 32, 40, 42 pixels
    """
    if receptive_field == 0:
        return 1, 0
    for kernel in KERNELS:
        for blocks in range(1, MAX_BLOCKS + 1):
            if _reach(kernel, blocks) == receptive_field:
                return kernel, blocks
    nearest = sorted(sorted(reachable(), key=lambda value: abs(value - receptive_field))[:4])
    raise UserError(
        f"receptive field {receptive_field} cannot be reached; the nearest that can be had are "
        f"{', '.join(map(str, nearest))} pixels"
    )
