"""Finding, reading, splitting and cropping the image files of users."""

import glob
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dvlae.axes import AXES, format_sides
from dvlae.config.dataset import CropSettings
from dvlae.data.pixels import errors_named, open_tiff, read_pixels
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Weights of red, green and blue (ITU-R BT.709).
LUMINANCE_WEIGHTS = np.array([0.2125, 0.7154, 0.0721])


def natural_key(path: str | Path) -> list[tuple[int, int, str]]:
    """Return a key for sorting names in natural order.

    Parameters
    ----------
    path
        A name or a path.

    Returns
    -------
    list of tuple
        The key; numbers come before text.

    Examples
    --------
    >>> from dvlae.data.reading import natural_key
    >>> sorted(["a10.tif", "a2.tif"], key=natural_key)
    ['a2.tif', 'a10.tif']
    """
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]


def find_images(patterns: str | Sequence[str], folder: Path, key: str) -> list[Path]:
    """Find image files.

    Parameters
    ----------
    patterns
        A glob or a list of globs, relative to ``folder`` or absolute.
    folder
        The folder for relative patterns.
    key
        The setting with the patterns, for the error message.

    Returns
    -------
    list of Path
        All matching files in natural order.

    Raises
    ------
    UserError
        If no file matches one of the patterns, or a file is neither TIFF nor PNG.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        # The name of a file may contain the special characters of globs.
        literal = folder / Path(pattern).expanduser()
        matches = [literal] if literal.is_file() else _glob(pattern, folder)
        if not matches:
            raise UserError(f"{key}: no file matches {pattern!r} in {folder.absolute()}")
        found.update(matches)
    for path in found:
        if path.suffix.lower() not in TIFF_SUFFIXES + PNG_SUFFIXES:
            raise UserError(
                f"{path}: found a file of kind {path.suffix!r}, allowed: {', '.join(TIFF_SUFFIXES + PNG_SUFFIXES)}"
            )
    return sorted(found, key=natural_key)


def _glob(pattern: str, folder: Path) -> list[Path]:
    names = glob.glob(str(Path(pattern).expanduser()), root_dir=folder, recursive=True)
    return [folder / name for name in names if (folder / name).is_file()]


def unique_names(files: Sequence[Path]) -> list[str]:
    """Name images after their files, with as many parent folders as make the names unique.

    Parameters
    ----------
    files
        The image files.

    Returns
    -------
    list of str
        A name for each file. No two names are equal, even if case is ignored.

    Raises
    ------
    UserError
        If two files differ only in their suffix.
    """
    for depth in range(max(len(file.parts) for file in files)):
        names = ["_".join(file.with_suffix("").parts[-1 - depth :]).lstrip("/") for file in files]
        if len({name.lower() for name in names}) == len(names):
            return names
    raise UserError(f"{files[0].parent}: two files differ only in their suffix; each image needs its own name")


def numbered_name(name: str, number: int, count: int, separator: str = "_") -> str:
    """Append the number of a frame to a name, if there are several frames.

    Parameters
    ----------
    name
        The name of a file or an image.
    number
        Index of the frame.
    count
        Number of frames.
    separator
        Text before the number.

    Returns
    -------
    str
        The name; the numbers of all frames have equally many digits.
    """
    return name if count == 1 else f"{name}{separator}{number:0{len(str(count - 1))}d}"


def read_array(path: Path) -> tuple[np.ndarray, str]:
    """Read a TIFF or PNG file without any conversion.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    array, samples
        The pixels, and ``"last"`` or ``"first"`` if the file declares that this axis contains the colours; otherwise
        ``""``.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    with errors_named(path):
        if path.suffix.lower() in TIFF_SUFFIXES:
            return _read_tiff(path)
        import imageio.v3

        # Pillow ignores the suffix, and for some types, such as EPS, it runs another program.
        with path.open("rb") as file:
            if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
                raise ValueError("it is not a PNG")
        array = np.asarray(imageio.v3.imread(path, plugin="pillow"))
        return array, "last" if array.ndim == 3 else ""


def _read_tiff(path: Path) -> tuple[np.ndarray, str]:
    with open_tiff(path) as file:
        series = file.series[0]
        if len(file.series) > 1:
            logger.warning(f"{path}: takes the first of {len(file.series)} series of images, {series.shape}")
        samples = {0: "first", series.ndim - 1: "last"}.get(series.axes.find("S"), "")
        return read_pixels(series), samples


def read_image(path: Path, axes: str, channel: int | Literal["grey"] | None = None) -> list[np.ndarray]:
    """Read the frames of an image file.

    Parameters
    ----------
    path
        A TIFF or PNG file.
    axes
        Its axes in order, a selection of S, T, C, Z, Y, X.
    channel
        Keep this channel only. ``"grey"``: convert a file with red, green and blue to luminance, and leave a file with
        one channel as it is. None: keep all channels.

    Returns
    -------
    list of (C, ...) arrays
        One frame for each combination of S and T, with the spatial axes of ``axes`` in the order Z, Y, X, and the grey
        values and the type of the file; float32 for a luminance.

    Raises
    ------
    UserError
        If the file cannot be read, has other axes, or lacks the channel.
    """
    array, samples = read_array(path)
    return split_frames(array, samples, path, axes, channel)


def split_frames(
    array: np.ndarray, samples: str, path: Path, axes: str, channel: int | Literal["grey"] | None
) -> list[np.ndarray]:
    """Split an array into frames.

    Parameters
    ----------
    array, samples
        The return values of :func:`read_array`.
    path
        The file, for error messages.
    axes, channel
        As for :func:`read_image`.

    Returns
    -------
    list of (C, ...) arrays
        As from :func:`read_image`.

    Raises
    ------
    UserError
        If the array has other axes, lacks the channel, or contains complex numbers.
    """
    if channel == "grey" and array.ndim == len(axes) - 1 and not samples:
        axes = axes.replace("C", "")
    if array.ndim != len(axes):
        raise UserError(f"{path}: axes: found {axes!r}, but the file has {array.ndim} axes, of shape {array.shape}")
    if (samples == "last" and axes[-1] != "C") or (samples == "first" and axes[0] != "C"):
        raise UserError(
            f"{path}: axes: found {axes!r}, but the {samples} axis of the file, of shape {array.shape}, is C"
        )
    if np.iscomplexobj(array):
        raise UserError(f"{path}: found complex numbers, allowed: integers or floating-point numbers")
    array = array.transpose([axes.index(axis) for axis in "STCZYX" if axis in axes])
    spatial = array.shape[-sum(axis in axes for axis in "ZYX") :]
    channels = array.shape[-len(spatial) - 1] if "C" in axes else 1
    array = array.reshape(-1, channels, *spatial)
    if channels > min(spatial[-2:]):
        raise UserError(
            f"{path}: axes: found {axes!r}, which makes {channels} channels of {format_sides(spatial)} pixels "
            "out of the file; are they in another order?"
        )
    return [_keep_channel(frame, path, channel) for frame in array]


def _keep_channel(frame: np.ndarray, path: Path, channel: int | Literal["grey"] | None) -> np.ndarray:
    """Return one channel, the luminance, or all channels of a frame (C, ...)."""
    channels = len(frame)
    if channel == "grey" and channels in (3, 4):
        grey = np.tensordot(LUMINANCE_WEIGHTS, frame[:3].astype(np.float64), axes=1)
        return grey[None].astype(np.float32)
    if channel == "grey" and channels != 1:
        raise UserError(f"{path}: channel: found 'grey', but the file has {channels} channels, neither 1 nor 3 nor 4")
    if isinstance(channel, int):
        if channel >= channels:
            raise UserError(
                f"{path}: channel: found {channel}, allowed: 0 to {channels - 1}, as the file has {channels}"
            )
        frame = frame[channel : channel + 1]
    return frame


def crop_image(image: np.ndarray, crop: CropSettings | None, path: Path) -> np.ndarray:
    """Crop an image.

    Parameters
    ----------
    image
        (C, ...).
    crop
        First and last index along each axis, the last one excluded; None: the complete image.
    path
        The file, for the error message.

    Returns
    -------
    (C, ...) array
        The part of the image.

    Raises
    ------
    UserError
        If the part extends beyond the image.
    """
    if crop is None:
        return image
    window = [slice(None)] * image.ndim
    for name, axis in AXES.items():
        bounds = getattr(crop, name)
        if bounds is None:
            continue
        if bounds[1] > image.shape[axis]:
            raise UserError(
                f"{path}: crop.{name}: found {bounds}, but the image has {image.shape[axis]} pixels along {name}"
            )
        window[axis] = slice(*bounds)
    return image[tuple(window)]
