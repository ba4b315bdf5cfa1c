"""The pixels of a TIFF file that may be damaged or hostile."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from dvlae.system.errors import UserError

# Bytes of pixels for a byte of the file; no method of TIFF packs an image more than that.
MAX_EXPANSION = 1000
# Constant images pack well: up to this size they are read even so.
ALWAYS_READ_BYTES = 2**28
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # a damaged file is reported once, by read_array


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged file raises into one line that names it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        yield
    except Exception as error:  # of all kinds: a damaged file leads its readers anywhere
        text = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: cannot be read, is it damaged or only half there? ({text})") from None


def read_pixels(series: tifffile.TiffPageSeries) -> np.ndarray:
    """Return the pixels of a series, unless a small file says that they would fill the memory."""
    packed = series.parent.filehandle.size
    if series.nbytes > max(ALWAYS_READ_BYTES, MAX_EXPANSION * packed):
        raise ValueError(f"it says it holds {series.nbytes} bytes of pixels in a file of {packed}")
    array = series.asarray()
    if array.size == 0:
        raise ValueError("it holds no pixels")
    return array
