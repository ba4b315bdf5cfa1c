"""The sides of training crops, and the strides of the model's levels, which fit each other along every axis.

The grid of the model's coarsest level is coarser than the image by its stride, usually the same along all axes. Along a
thin axis, such as that of a few planes or of a narrow kymograph, the stride is smaller. The sides of a crop that are
not multiples of the stride are padded by the model.
"""

from collections.abc import Sequence

from dvlae.config.fields import PatchSize, sides

# The side of a crop where the images are large enough, in pixels.
AUTO_SIDE = 64
# Along a thin axis, at most this share of the side is added as padding.
MAX_PADDING = 0.25


def model_stride(levels: int, levels_per_scale: int) -> int:
    """Return the stride of the coarsest level, which halves each axis every ``levels_per_scale`` levels.

    Parameters
    ----------
    levels, levels_per_scale
        The settings ``model.levels`` and ``model.levels_per_scale``.

    Returns
    -------
    int
        In pixels, a power of two.
    """
    return 2 ** (levels // levels_per_scale)


def crop_stride(crop: Sequence[int], stride: int) -> tuple[int, ...]:
    """Return the stride of the coarsest level along each axis, for training crops with these sides.

    Parameters
    ----------
    crop
        Sides of a crop, in pixels.
    stride
        Output of :func:`model_stride`.

    Returns
    -------
    tuple of int
        ``stride`` along an axis that is at least as long; along a shorter one, the largest power of two up to it with
        little padding.

    Examples
    --------
    >>> crop_stride([64, 7, 5, 4, 1], 8)
    (8, 8, 2, 4, 1)
    """
    strides = []
    for side in crop:
        along_axis = stride
        while side < stride and -side % along_axis > MAX_PADDING * side:
            along_axis //= 2
        strides.append(along_axis)
    return tuple(strides)


def level_strides(
    levels: int, levels_per_scale: int, dimensions: int, stride: Sequence[int] | None = None
) -> list[tuple[int, ...]]:
    """Return the stride of each level along each axis, in pixels, finest level first.

    An axis with a smaller stride than others is halved by the coarsest of the levels that halve these: thin axes
    usually have the larger pixels.

    Parameters
    ----------
    levels, levels_per_scale
        The settings ``model.levels`` and ``model.levels_per_scale``.
    dimensions
        Number of spatial axes.
    stride
        Stride of the coarsest level along each axis; None: that of :func:`model_stride` along all.

    Returns
    -------
    list of tuple of int
        One tuple for each level.

    Examples
    --------
    >>> level_strides(3, 1, 2)
    [(2, 2), (4, 4), (8, 8)]
    >>> level_strides(3, 1, 2, [2, 8])
    [(1, 2), (1, 4), (2, 8)]
    """
    if stride is None:
        stride = [model_stride(levels, levels_per_scale)] * dimensions
    longest = max(stride)
    isotropic = (min(longest, 2 ** (level // levels_per_scale)) for level in range(1, levels + 1))
    return [tuple(max(1, each * along_axis // longest) for along_axis in stride) for each in isotropic]


def check_patch_size(patch_size: PatchSize, stride: int) -> None:
    """Refuse crops with sides that do not fit a model.

    Parameters
    ----------
    patch_size
        The setting ``training.patch_size``.
    stride
        Output of :func:`model_stride`.

    Raises
    ------
    ValueError
        The message says which sides fit.
    """
    if patch_size == "auto":
        return
    for side in patch_size if isinstance(patch_size, list) else [patch_size]:
        if side > stride and side % stride:
            below = side // stride * stride
            raise ValueError(
                f"training.patch_size: found {side}, but this model's levels need a multiple of {stride}, such as "
                f"{below} or {below + stride}"
            )


def fitting_crop(longest: Sequence[int], stride: int) -> tuple[int, ...]:
    """Return the sides of the largest crop within these sides that fits a model.

    Parameters
    ----------
    longest
        Largest side along each axis, in pixels.
    stride
        Output of :func:`model_stride`.

    Returns
    -------
    tuple of int
        Multiples of the stride, and complete sides that are shorter.

    Examples
    --------
    >>> fitting_crop([5, 30, 40], 8)
    (5, 24, 40)
    """
    return tuple(side if side < stride else side // stride * stride for side in longest)


def training_crop(patch_size: PatchSize, smallest: Sequence[int], stride: int) -> tuple[int, ...]:
    """Return the sides of a training crop.

    Parameters
    ----------
    patch_size
        The setting ``training.patch_size``.
    smallest
        Sides of the smallest image along each axis, in pixels.
    stride
        Output of :func:`model_stride`.

    Returns
    -------
    tuple of int
        One side for each axis.

    Raises
    ------
    UserError
        If the setting has another number of axes.
    """
    if patch_size != "auto":
        return sides(patch_size, len(smallest))
    return fitting_crop([min(side, max(AUTO_SIDE, stride)) for side in smallest], stride)


def largest_crop(patch_size: PatchSize, dimensions: int, stride: int) -> tuple[int, ...]:
    """Return the sides of a training crop where the images are large enough.

    Parameters
    ----------
    patch_size
        The setting ``training.patch_size``.
    dimensions
        Number of spatial axes.
    stride
        Output of :func:`model_stride`.

    Returns
    -------
    tuple of int
        One side for each axis.

    Raises
    ------
    UserError
        If the setting has another number of axes.
    """
    return training_crop(patch_size, [max(AUTO_SIDE, stride)] * dimensions, stride)
