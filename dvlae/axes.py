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
