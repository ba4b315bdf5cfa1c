"""Arrays as images: each is a file for the steps, and what they make of it comes back as an array of the same axes."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvlae.config.dataset import DatasetSettings
from dvlae.config.messages import validate
from dvlae.data.canonical import read_info
from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.conversion import Converter
from dvlae.data.outputs.reading import read_output
from dvlae.system.errors import UserError

# Colours are at most so many, in the last axis.
MAX_COLOURS = 4


def as_list(images: Any) -> list[Any]:
    """Return arrays one by one.

    Parameters
    ----------
    images
        An array, or a list or tuple of arrays.

    Returns
    -------
    list
        The arrays. Those in files are not read.

    Raises
    ------
    UserError
        If there is none, or something is not an array.
    """
    if not isinstance(images, list | tuple):
        return [as_array(images, "images", "an array, or a list of arrays")]
    if not images:
        raise UserError("images: found an empty list, allowed: at least one array")
    return [as_array(array, f"images[{number}]") for number, array in enumerate(images)]


def as_array(array: Any, name: str, allowed: str = "an array") -> Any:
    """Return an array that is read part by part.

    Parameters
    ----------
    array
        The array.
    name
        What messages call it.
    allowed
        What messages say in place of something else.

    Returns
    -------
    array
        An array of NumPy, or something that has its type and its shape.

    Raises
    ------
    UserError
        If it is not an array of numbers, or has no pixel.
    """
    if isinstance(array, torch.Tensor):
        # NumPy has no other floating-point types.
        if array.is_floating_point() and array.dtype not in (torch.float16, torch.float32, torch.float64):
            array = array.float()
        if array.layout == torch.strided:
            array = array.numpy(force=True)
    elif not _is_read_in_parts(array) and hasattr(array, "__array__"):
        try:
            array = np.asanyarray(array)
        except Exception as error:  # The object can raise an error of any kind.
            raise UserError(f"{name}: found {type(array).__name__}, which NumPy cannot convert ({error})") from None
    if not _is_read_in_parts(array):
        raise UserError(f"{name}: found {type(array).__name__}, allowed: {allowed}; numpy.array makes one of numbers")
    if _stored_type(array.dtype).kind not in "iuf" or 0 in array.shape or len(array.shape) == 0:
        raise UserError(
            f"{name}: found an array of shape {tuple(array.shape)} and type {array.dtype}, allowed: at least one "
            "pixel, integers, real numbers or booleans"
        )
    return array


def _is_read_in_parts(array: Any) -> bool:
    """Return whether something has what is needed of an array."""
    has_parts = hasattr(array, "__getitem__") and isinstance(getattr(array, "shape", None), list | tuple)
    return has_parts and isinstance(getattr(array, "dtype", None), np.dtype)


def _stored_type(dtype: np.dtype) -> np.dtype:
    """Return the type in which numbers are written: booleans as 0 and 1, and only floats that image files have, too."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    return np.dtype(np.float32) if dtype.name == "bfloat16" else dtype


def choose_axes(shape: Sequence[int], axes: str, dimensions: int | None = None) -> str:
    """Choose the axes of an array if the user does not say them.

    Parameters
    ----------
    shape
        Shape of the array.
    axes
        What the user says: a letter of S, T, C, Z, Y and X for each axis, or ``auto``.
    dimensions
        Number of spatial axes of the model; None: images are expected.

    Returns
    -------
    str
        A letter for each axis. An axis more than the spatial ones counts images.

    Raises
    ------
    UserError
        If the letters do not fit the shape, or there is more than one way to read it.

    Examples
    --------
    >>> choose_axes((20, 512, 512), "auto")
    'SYX'
    >>> choose_axes((20, 512, 512), "auto", dimensions=3)
    'ZYX'
    """
    if not isinstance(axes, str) or (axes != "auto" and len(axes) != len(shape)):
        raise UserError(
            f"axes: found {axes!r} for an array of shape {tuple(shape)}, allowed: auto, or a letter for each axis"
        )
    if axes != "auto":
        return axes
    spatial = "ZYX"[-(dimensions or min(2, len(shape))) :]
    more = len(shape) - len(spatial)
    # Without a model, the images may be volumes.
    most = 3 if dimensions else 6 - len(spatial)
    if not 0 <= more <= most:
        raise UserError(
            f"axes: found an array of shape {tuple(shape)}, allowed: {len(spatial)} axes ({spatial}), and up to {most} "
            "more"
        )
    ways = _ways(shape, spatial)
    if ways:
        raise UserError(
            f"axes: found an array of shape {tuple(shape)}, which can be read in several ways; allowed: "
            f"{', '.join(ways)}, or other letters of S, T, C, Z, Y and X"
        )
    return "S" * more + spatial


def _ways(shape: Sequence[int], spatial: str) -> list[str]:
    """List the axes that an array may have, and what they mean, if its shape leaves that in doubt."""
    more = len(shape) - len(spatial)
    if more > 1:
        others = (letters for letters in ("STCZ", "STC", "ST", "SC", "TC") if len(letters) == more)
        return [repr(letters + spatial) for letters in others]
    # Traces are often shorter than they are many.
    if len(spatial) == 1 or len(shape) == 2:
        return []
    last = shape[-1]
    colours = more == 1 and spatial == "YX" and last <= MAX_COLOURS
    # What other programs write with the axis of the images, the planes or the channels last.
    if not (colours or 2 * last < min(shape[-3:-1])):
        return []
    first = shape[-3]
    if spatial == "ZYX":
        return [f"{'S' * more + 'ZYX'!r} ({first} planes)", f"{'S' * more + 'YXZ'!r} ({last} planes)"]
    return [
        f"'SYX' ({first} images)",
        f"'YXS' ({last} images)",
        f"'YXC' ({last} {'colours' if colours else 'channels'})",
    ]


def choose_common_axes(arrays: Sequence[Any], axes: str, dimensions: int | None = None) -> str:
    """Choose the axes of arrays, some of which may be single images.

    Parameters
    ----------
    arrays
        The arrays.
    axes, dimensions
        As for :func:`choose_axes`.

    Returns
    -------
    str
        A letter for each axis of the array that has most.

    Raises
    ------
    UserError
        As for :func:`choose_axes`.
    """
    return max((choose_axes(array.shape, axes, dimensions) for array in arrays), key=len)


def describe_arrays(folder: Path, arrays: Sequence[Any], axes: str, noise_direction: str) -> DatasetSettings:
    """Write arrays as files for the steps.

    Parameters
    ----------
    folder
        The folder for the files.
    arrays
        The arrays. They are read one part after the other.
    axes
        The axes of each, as :func:`choose_axes` returns them.
    noise_direction
        The direction of the noise, or ``none``.

    Returns
    -------
    DatasetSettings
        How the files are read.

    Raises
    ------
    UserError
        If all pixels are masked, or pixels of an array that is not of NumPy.
    """
    if all(isinstance(array, np.ma.MaskedArray) and array.count() == 0 for array in arrays):
        raise UserError("images: found only masked pixels, allowed: at least one image with pixels that are not masked")
    # Where one array needs NaN, all are written as floats: different types are warned of.
    masked = any(np.ma.is_masked(array) for array in arrays)
    # Messages show the names.
    names = [f"array {number}.npy" for number in range(len(arrays))]
    folder.mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(arrays):
        shape, dtype = tuple(array.shape), _stored_type(array.dtype)
        if masked:
            dtype = np.result_type(dtype, np.float32)
        stored = np.lib.format.open_memmap(folder / names[number], mode="w+", dtype=dtype, shape=shape)
        # Of an array in a file, one part is in memory at a time.
        for index in range(shape[0]) if len(shape) > 2 else [slice(None)]:
            stored[index] = _fill_masked(array[index], dtype)
        stored.flush()
    keys = {
        "source": {"kind": "files"},
        "noisy": names,
        "axes": axes,
        "axes_override": True,
        "noise_direction": noise_direction,
    }
    return validate(DatasetSettings, keys, "arguments")


def name_arrays(text: str, folder: Path) -> str:
    """Let a message name arrays in place of their files.

    Parameters
    ----------
    text
        The message.
    folder
        The folder that :func:`describe_arrays` made.

    Returns
    -------
    str
        The message, such as ``noisy: array 0: found nan everywhere``.
    """
    text = re.sub(rf"(?:{re.escape(f'{folder}{os.sep}')})?(array \d+)\.npy", r"\1", text)
    return re.sub(r"\b(array \d+)_0*(\d+)\b", r"\1, image \2", text)


def _fill_masked(part: Any, dtype: np.dtype) -> np.ndarray:
    """Return a part of an array, with NaN in the place of masked pixels, which is how files say it."""
    if dtype.kind != "f" and np.ma.is_masked(part):
        raise UserError(
            f"images: found masked pixels in parts of an array of type {dtype} in a file, allowed: the array in memory "
            "(array[:])"
        )
    stored = np.ma.asarray(part).astype(dtype)
    if dtype.kind == "f" and part.dtype.kind in "iu" and (stored.astype(part.dtype) != part).any():
        raise UserError(
            f"images: found masked pixels, and whole numbers of type {part.dtype} that {dtype} does not hold, allowed: "
            "the numbers less an offset"
        )
    return np.where(np.ma.getmaskarray(stored), np.nan, stored.data) if np.ma.is_masked(stored) else np.asarray(stored)


def read_array(images: Path, folder: Path, array: Any, *, deviation: bool) -> np.ndarray | None:
    """Read the result for the only source of a folder of images.

    Parameters
    ----------
    images
        Folder with ``manifest.csv``.
    folder
        Folder of results.
    array
        The array that was denoised.
    deviation
        Whether the results are standard deviations.

    Returns
    -------
    array or None
        With the axes and the shape of the array, in its units. float32, or float64 where float32 would lose the noise
        of large grey values, or whole numbers where float64 would. None if there are no such results. A masked array if
        the array is one; the denoised image has the array's values behind the mask.
    """
    manifest = read_manifest(images)
    info = read_info(manifest[0].noisy)
    convert = Converter.choose(info, deviation=deviation)
    frames = np.empty((len(manifest), *info.frame_shape), convert.dtype)
    for frame, image in zip(frames, manifest, strict=True):
        values = read_output(folder, image, deviation=deviation)
        if values is None:
            return None
        frame[...] = convert(values)
    result = np.ascontiguousarray(info.in_source_order(frames)).reshape(array.shape)
    if not isinstance(array, np.ma.MaskedArray):
        return result
    mask = np.ma.getmaskarray(array)
    if not deviation:
        result[mask] = array.data[mask]
    return np.ma.array(result, mask=mask)
