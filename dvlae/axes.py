"""The spatial axes of images, counted from the end."""

from collections.abc import Sequence

# The spatial axes, counted from the end.
AXES = {"x": -1, "y": -2, "z": -3}


def format_sides(shape: Sequence[int]) -> str:
    """Write the sides of an image as ``30 x 40``.

    Parameters
    ----------
    shape
        Sides in pixels, z before y before x.

    Returns
    -------
    str
        The sides, joined by `` x ``.
    """
    return " x ".join(map(str, shape))


def mirrored_axes(dimensions: int, noise_direction: str) -> list[int]:
    """Return the spatial axes, counted from the end, along which mirroring does not mirror the noise's direction.

    Parameters
    ----------
    dimensions
        Number of spatial axes.
    noise_direction
        ``x``, ``y``, ``z`` or ``none``.

    Returns
    -------
    list of int
        -1 is x, -2 is y, -3 is z.
    """
    return [axis for axis in range(-1, -1 - dimensions, -1) if axis != AXES.get(noise_direction)]


def middle(shape: Sequence[int], longest: Sequence[int]) -> tuple[slice, ...]:
    """Return the slices of the middle part of an image.

    Parameters
    ----------
    shape
        Length of each axis of the image.
    longest
        Largest length of the part along each axis.

    Returns
    -------
    tuple of slice
        One per axis.

    Examples
    --------
    >>> middle((10, 3), (4, 5))
    (slice(3, 7, None), slice(0, 3, None))
    """
    lengths = [min(side, limit) for side, limit in zip(shape, longest, strict=True)]
    starts = [(side - length) // 2 for side, length in zip(shape, lengths, strict=True)]
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
