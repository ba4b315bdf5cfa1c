"""Images: reading what users have, writing and listing the canonical ones.

A canonical image is a float32 TIFF that is read as channels and one to three spatial axes: a trace (C, X), an image
(C, Y, X) or a volume (C, Z, Y, X). A folder of them holds ``noisy/``, perhaps ``clean/``, and ``manifest.csv``, one row
an image.
"""

import csv
import difflib
import glob
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from dvlae.config import SLICE, CropSettings, is_file_of_names
from dvlae.errors import UserError
from dvlae.files import atomic_file

TIFF = (".tif", ".tiff")
PNG = (".png",)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_EXPANSION = 1000  # bytes of pixels for a byte of the file; no method of TIFF packs an image more than that
ALWAYS_READ = 2**28  # bytes of pixels, even so: constant images pack well
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # a damaged file is reported once, by read_array

LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # of red, green, blue (ITU-R BT.709)
AXES = {"x": -1, "y": -2, "z": -3}  # the spatial axes, counted from the end
CANONICAL = {2: "CX", 3: "CYX", 4: "CZYX"}  # number of axes of a canonical image: which ones
MANIFEST_COLUMNS = ("image", "noisy", "clean", "shape")


# ---------------------------------------------------------------------------------------------- finding


def natural_key(path: str | Path) -> list:
    """Return a key for sorting in natural order: ``a2`` before ``a10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]


def find_images(patterns: str | Sequence[str], folder: Path, key: str) -> list[Path]:
    """Find image files.

    Parameters
    ----------
    patterns
        A glob, or a list of them; relative to ``folder`` or absolute.
    folder
        Where relative patterns start.
    key
        The setting that holds the patterns, for the message.

    Returns
    -------
    list of Path
        All matching files in natural order.

    Raises
    ------
    UserError
        Where no file matches one of the patterns, or one is neither TIFF nor PNG.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        whole = folder / Path(pattern).expanduser()
        matches = [whole] if whole.is_file() else _glob(pattern, folder)
        if not matches:
            raise UserError(f"{key}: no file matches {pattern!r} in {folder.absolute()}")
        found.update(matches)
    for path in found:
        if path.suffix.lower() not in TIFF + PNG:
            raise UserError(f"{path}: found a file of kind {path.suffix!r}, allowed: {', '.join(TIFF + PNG)}")
    return sorted(found, key=natural_key)


def _glob(pattern: str, folder: Path) -> list[Path]:
    names = glob.glob(str(Path(pattern).expanduser()), root_dir=folder, recursive=True)
    return [folder / name for name in names if (folder / name).is_file()]


def unique_names(files: Sequence[Path]) -> list[str]:
    """Name images by their files, with as many parent folders in front as it takes to tell them apart.

    Raises
    ------
    UserError
        Where two files differ in nothing but their suffix.
    """
    for depth in range(max(len(file.parts) for file in files)):
        names = ["_".join(file.with_suffix("").parts[-1 - depth :]).lstrip("/") for file in files]
        if len({name.lower() for name in names}) == len(names):
            return names
    raise UserError(
        f"{files[0].parent}: two files have the same name but for the suffix; each image needs its own name"
    )


# ---------------------------------------------------------------------------------------------- reading


def read_array(path: Path) -> tuple[np.ndarray, str]:
    """Read a TIFF or PNG file as it is.

    Returns
    -------
    array, samples
        The pixels, and "last" or "first" where the file itself says that this axis holds its colours, else "".

    Raises
    ------
    UserError
        Where the file is missing or cannot be read.
    """
    with _reading(path):
        if path.suffix.lower() in TIFF:
            return _read_tiff(path)
        import imageio.v3

        with path.open("rb") as file:  # else Pillow takes a file by what it is, and EPS for example runs a program
            if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
                raise ValueError("it is no PNG")
        array = np.asarray(imageio.v3.imread(path, plugin="pillow"))
        return array, "last" if array.ndim == 3 else ""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged file raises into one line that names it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        yield
    except Exception as error:  # of all kinds: a damaged file leads its readers anywhere
        text = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: cannot be read, is it damaged or only half there? ({text})") from None


def _read_tiff(path: Path) -> tuple[np.ndarray, str]:
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if len(file.series) > 1:
            print(f"{path}: takes the first of {len(file.series)} series of images, {series.shape}", file=sys.stderr)
        samples = {0: "first", series.ndim - 1: "last"}.get(series.axes.find("S"), "")
        return _pixels(series), samples


def _pixels(series: tifffile.TiffPageSeries) -> np.ndarray:
    """Return the pixels of a series, unless a small file says that they would fill the memory."""
    packed = series.parent.filehandle.size
    if series.nbytes > max(ALWAYS_READ, MOST_EXPANSION * packed):
        raise ValueError(f"it says it holds {series.nbytes} bytes of pixels in a file of {packed}")
    array = series.asarray()
    if array.size == 0:
        raise ValueError("it holds no pixels")
    return array


def white_level(dtype: np.dtype) -> float:
    """Return the grey value that is white: the largest of an integer type, 1.0 of a floating-point type."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def read_image(path: Path, axes: str, channel: int | Literal["grey"] | None = None) -> list[np.ndarray]:
    """Read the frames of an image file.

    Parameters
    ----------
    path
        A TIFF or PNG file.
    axes
        Its axes in order, of S, T, C, Z, Y, X.
    channel
        Keep this one channel; ``"grey"``: the luminance of a file with red, green and blue, others as they are.

    Returns
    -------
    list of (C, ...) float32 arrays
        One for each combination of S and T, with the spatial axes of ``axes`` in the order Z, Y, X; grey values as in
        the file.

    Raises
    ------
    UserError
        Where the file cannot be read, its axes are others, or it does not have the channel.
    """
    array, samples = read_array(path)
    return split_frames(array, samples, path, axes, channel)


def split_frames(
    array: np.ndarray, samples: str, path: Path, axes: str, channel: int | Literal["grey"] | None
) -> list[np.ndarray]:
    """Take what :func:`read_array` gives apart into frames, as :func:`read_image` says."""
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
            f"{path}: axes: found {axes!r}, which makes {channels} channels of {show_sides(spatial)} pixels "
            "out of the file; is their order another?"
        )
    return [_keep_channel(frame, path, channel) for frame in array]


def show_sides(shape: Sequence[int]) -> str:
    """Write the sides of an image as ``30 x 40``."""
    return " x ".join(map(str, shape))


def _keep_channel(frame: np.ndarray, path: Path, channel: int | Literal["grey"] | None) -> np.ndarray:
    """Return one channel, the luminance or all of a frame (C, ...) as float32."""
    channels = len(frame)
    if channel == "grey" and channels in (3, 4):
        grey = np.tensordot(LUMINANCE, frame[:3].astype(np.float64), axes=1)
        return grey[None].astype(np.float32)
    if channel == "grey" and channels != 1:
        raise UserError(f"{path}: channel: found 'grey', but the file has {channels} channels, neither 1 nor 3 nor 4")
    if isinstance(channel, int):
        if channel >= channels:
            raise UserError(
                f"{path}: channel: found {channel}, allowed: 0 to {channels - 1}, as the file has {channels}"
            )
        frame = frame[channel : channel + 1]
    return frame.astype(np.float32)


def crop_image(image: np.ndarray, crop: CropSettings | None, path: Path) -> np.ndarray:
    """Cut a part out of an image (C, ...).

    Raises
    ------
    UserError
        Where the part reaches beyond the image.
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


# ---------------------------------------------------------------------------------------------- canonical images


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a canonical image: a float32 TIFF that ImageJ opens, a trace as an image of one row.

    Parameters
    ----------
    path
        The file to make.
    image
        (C, X), (C, Y, X) or (C, Z, Y, X), converted to float32.
    """
    image = np.asarray(image, dtype=np.float32)
    axes = CANONICAL[image.ndim]
    if axes == "CX":
        image = image[:, None]
    elif axes == "CZYX":
        image = image.swapaxes(0, 1)  # ImageJ has the planes outside, the channels inside
    # ImageJ and tifffile drop axes of length 1; `canonical` says which ones there were.
    metadata = {"axes": {3: "CYX", 4: "ZCYX"}[image.ndim], "canonical": axes}
    with atomic_file(path) as temporary:
        tifffile.imwrite(temporary, image, imagej=True, metadata=metadata)


def read_canonical(path: Path) -> np.ndarray:
    """Read a canonical image.

    Returns
    -------
    (C, X), (C, Y, X) or (C, Z, Y, X) float32 array
        Also where there is one channel only. A file that another program wrote is an image: (C, Y, X).

    Raises
    ------
    UserError
        Where the file is missing or cannot be read.
    """
    with _reading(Path(path)), tifffile.TiffFile(path) as file:
        array = _pixels(file.series[0])
        metadata = file.imagej_metadata or {}
        rows = array.shape[-2:]
        if metadata.get("canonical") == "CZYX":
            array = array.reshape(metadata.get("slices", 1), -1, *rows).swapaxes(0, 1)
        else:
            array = array.reshape(-1, *(rows[1:] if metadata.get("canonical") == "CX" else rows))
        return np.ascontiguousarray(array, dtype=np.float32)


@dataclass(frozen=True)
class Image:
    """One row of a manifest.

    Attributes
    ----------
    name
        Unique within the dataset; may hold spaces.
    noisy, clean
        The canonical images, absolute; several images may share a clean one, or have none.
    shape
        Of both: (C, X), (C, Y, X) or (C, Z, Y, X).
    """

    name: str
    noisy: Path
    clean: Path | None
    shape: tuple[int, ...]


def write_manifest(folder: Path, images: Iterable[Image]) -> None:
    """Write ``manifest.csv`` into a folder of canonical images, with paths relative to it."""
    with atomic_file(folder / "manifest.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(MANIFEST_COLUMNS)
        for image in images:
            paths = [path and path.relative_to(folder).as_posix() for path in (image.noisy, image.clean)]
            writer.writerow([image.name, paths[0], paths[1] or "", "x".join(map(str, image.shape))])


def read_manifest(images: Path) -> list[Image]:
    """List the images of a dataset.

    Parameters
    ----------
    images
        The folder that holds ``manifest.csv``.

    Returns
    -------
    list of Image
        In the dataset's order, with absolute paths.

    Raises
    ------
    UserError
        Where there is no manifest, or it is not one.
    """
    images = Path(images).absolute()
    path = images / "manifest.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [
            Image(
                _file_name(row["image"]),
                images / row["noisy"],
                images / row["clean"] if row["clean"] else None,
                tuple(int(size) for size in row["shape"].split("x")),
            )
            for row in rows
        ]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvlae prepare` makes it") from None
    except (KeyError, ValueError, AttributeError, TypeError, csv.Error):
        raise UserError(f"{path}: not a manifest; it needs the columns {', '.join(MANIFEST_COLUMNS)}") from None


def _file_name(name: str) -> str:
    """Return a name that files can be made by, in a folder and not outside."""
    if not name or "/" in name or "\0" in name:
        raise ValueError
    return name


def select_images(images: Sequence[Image], selection: str | Sequence[str]) -> list[Image]:
    """Choose images by name, as :func:`select` does."""
    chosen = set(select([image.name for image in images], selection))
    return [image for image in images if image.name in chosen]


def mirrored_axes(dimensions: int, noise_direction: str) -> list[int]:
    """Return the spatial axes, counted from the end, along which mirroring does not mirror the noise's direction."""
    return [axis for axis in range(-1, -1 - dimensions, -1) if axis != AXES.get(noise_direction)]


def spread_evenly(count: int, most: int) -> np.ndarray:
    """Return the indices of at most so many of ``count`` things, spread evenly from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def select(names: Sequence[str], images: str | Sequence[str]) -> list[str]:
    """Choose images by name.

    Parameters
    ----------
    names
        All names, in the dataset's order.
    images
        ``"all"``, a list of names, a slice such as ``"0:8"``, or a text file with one name a line.

    Returns
    -------
    list of str
        The chosen names, in the dataset's order.

    Raises
    ------
    UserError
        Where a name is not known, the file is missing, or nothing is chosen.
    """
    if images == "all":
        return list(names)
    if isinstance(images, str) and SLICE.fullmatch(images):
        chosen = list(names)[slice(*(int(part) if part else None for part in images.split(":")))]
        if not chosen:
            raise UserError(f"images: found {images!r}, which chooses none of the {len(names)} images")
        return chosen
    wanted = _read_names(images) if is_file_of_names(images) else list(images)
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0) or list(names)[:3]
            raise UserError(
                f"images: found {name!r}, allowed: names of the dataset's images, such as {', '.join(near)}"
            )
    return [name for name in names if name in wanted]


def _read_names(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"images: found {path!r}, allowed: all, a list, a slice such as 0:8, or a file of names ({error})"
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{path}: found no image names")
    return names
