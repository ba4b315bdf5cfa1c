"""Reading of NumPy's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dvlae.data.formats.parts import PartSource
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Source
from dvlae.system.errors import UserError

# The first two bytes of what Python's pickle writes: a mark and a version.
PICKLE_START, PICKLE_VERSIONS = b"\x80", (b"\2", b"\3", b"\4", b"\5")


@contextmanager
def sources(path: Path) -> Iterator[list[Source]]:
    """Open a file of NumPy with one array.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    list of Source
        One source. The file does not say what its axes are.

    Raises
    ------
    UserError
        If the file is damaged, or contains Python objects.
    """
    with errors_named(path):
        _refuse_objects(path)
        # A file that is mapped into memory cannot run a program, as a pickled one could.
        array = np.lib.format.open_memmap(path, mode="r")
        source = PartSource(
            path=path,
            kind="npy",
            axes="",
            shape=array.shape,
            dtype=array.dtype,
            # Mapped anew each time: what was read would count as memory as long as it is mapped.
            part=lambda index: np.array(np.lib.format.open_memmap(path, mode="r")[index]),
        )
    yield [source]


def _refuse_objects(path: Path) -> None:
    """Say what a file of Python objects is, which cannot be read without running what it contains."""
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        objects = start[:1] == PICKLE_START and start[1:] in PICKLE_VERSIONS
        if not objects:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            objects = read(file)[2].hasobject
    if objects:
        raise UserError(
            f"{path}: found Python objects (pickled), allowed: one array of numbers, as objects could run a program; "
            "where the file comes from, convert them with numpy.stack if all images have one shape, and save the array "
            "with numpy.save; otherwise save each image in its own file"
        )
