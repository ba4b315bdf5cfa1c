"""Reading the results for one image out of a folder of results."""

import math
from pathlib import Path

import numpy as np
import tifffile

from dvlae.data.canonical import page_offsets, read_info, read_noisy, read_pages, to_float32
from dvlae.data.manifest import Image
from dvlae.data.outputs.tiff import SOFTWARE, Layout
from dvlae.data.pixels import errors_named
from dvlae.data.sources import SourceInfo
from dvlae.system.errors import UserError
from dvlae.system.files import Contents

# The name of a file that says that the noisy images are the results, of which there are no copies.
NOISY_MARK = "the-noisy-images.txt"
# A file of frames of a source of which others are not finished, or are computed by another job.
FRAMES_SUFFIX = ".frames"
NOISY_TEXT = "The results of this method are the noisy images themselves, which are not copied here.\n"


def is_output(path: Path) -> bool:
    """Return whether a TIFF is a result.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    bool
        Whether it says that this package wrote it.
    """
    try:
        with errors_named(path), tifffile.TiffFile(path) as file:
            return file.pages.first.software == SOFTWARE
    except UserError:
        return False


# The files of a folder of results.
OUTPUT_FILES: Contents = {
    "*.tif": is_output,
    **dict.fromkeys((NOISY_MARK, f"*{FRAMES_SUFFIX}"), Path.is_file),
}


def read_output(folder: Path, image: Image, *, deviation: bool = False) -> np.ndarray | None:
    """Read the result for one image.

    Parameters
    ----------
    folder
        The results for the images of a dataset. If the file of the source is missing, a file with the name of the image
        is read, as other programs may write one for each.
    image
        The image.
    deviation
        Whether the results are standard deviations.

    Returns
    -------
    (C, ...) float32 array or None
        The result, in the units of the noisy image that is computed with. None if it is missing.

    Raises
    ------
    UserError
        If the file cannot be read, or has another shape than the source.
    """
    if (folder / NOISY_MARK).exists():
        return None if deviation else read_noisy(image)
    info = read_info(image.noisy)
    offset = 0 if deviation else info.offset
    path, alone = folder / image.noisy.name, folder / f"{image.name}.tif"
    if path.exists():
        return to_float32(_read_frame(path, info, image.frame), offset, info.scale)
    if alone.exists():
        one = SourceInfo.of_frames(info.frame_shape)
        return to_float32(_read_frame(alone, one, 0), offset, info.scale)
    return None


def _read_frame(path: Path, info: SourceInfo, frame: int) -> np.ndarray:
    """Read a frame of a file with the axes of a source, of which those of length 1 may be missing."""
    offsets = page_offsets(path)
    with errors_named(path), tifffile.TiffFile(path) as file:
        values = _map(path, file, offsets, info.shape)
        if values is None:
            numbers = _find_pages(file, info, frame, len(offsets))
            if numbers is not None:
                pages = read_pages(path, numbers)
                return (np.moveaxis(pages, -1, 0) if pages.ndim == 4 else pages).reshape(info.frame_shape)
            values = file.asarray()
            shape, *expected = (
                [side for side in shape if side > 1] for shape in (values.shape, info.shape, info.frame_shape)
            )
            if info.frames == 1 and shape == expected[1]:
                return values.reshape(info.frame_shape)
            if shape != expected[0]:
                raise UserError(f"{path}: found shape {values.shape}, but the noisy images have {info.shape}")
            values = values.reshape(info.shape)
    return np.array(info.in_frame_order(values, info.axes, frame)).reshape(info.frame_shape)


def _map(path: Path, file: tifffile.TiffFile, offsets: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Map the pixels of a file if they follow each other without compression."""
    first = file.pages.first
    if not first.is_memmappable or first.size * len(offsets) != math.prod(shape):
        return None
    start = first.dataoffsets[0]
    file.filehandle.seek(int(offsets[-1]))
    last = tifffile.TiffPage(file, len(offsets) - 1)
    if last.dataoffsets[0] != start + (len(offsets) - 1) * first.nbytes:
        return None
    return np.memmap(path, np.dtype(first.dtype).newbyteorder(file.byteorder), "r", start, shape)


def _find_pages(file: tifffile.TiffFile, info: SourceInfo, frame: int, count: int) -> np.ndarray | None:
    """Return the numbers of the pages of a frame, if they are those that `write_source` writes."""
    layout = Layout.of(info)
    leading = info.shape[: layout.leading]
    if "Y" not in info.axes or not layout.planar or count != math.prod(leading):
        return None
    if file.pages.first.shape != layout.page:
        return None
    numbers = np.arange(count).reshape(leading)
    return info.in_frame_order(numbers, info.axes[: layout.leading], frame).ravel()
