"""Images: reading what users have, writing and listing the canonical ones.

A canonical image is a float32 TIFF that is read as channels and one to three spatial axes: a trace (C, X), an image
(C, Y, X) or a volume (C, Z, Y, X). A folder of them holds ``noisy/``, perhaps ``clean/``, and ``manifest.csv``, one row
an image.
"""

from pathlib import Path

import numpy as np
import tifffile

from dvlae.data.pixels import errors_named, read_pixels
from dvlae.system.files import atomic_file

# The axes of a canonical image, by their number.
CANONICAL_AXES = {2: "CX", 3: "CYX", 4: "CZYX"}


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
    axes = CANONICAL_AXES[image.ndim]
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
    with errors_named(Path(path)), tifffile.TiffFile(path) as file:
        array = read_pixels(file.series[0])
        metadata = file.imagej_metadata or {}
        rows = array.shape[-2:]
        if metadata.get("canonical") == "CZYX":
            array = array.reshape(metadata.get("slices", 1), -1, *rows).swapaxes(0, 1)
        else:
            array = array.reshape(-1, *(rows[1:] if metadata.get("canonical") == "CX" else rows))
        return np.ascontiguousarray(array, dtype=np.float32)
