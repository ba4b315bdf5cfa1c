"""Reading of NumPy's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dvlae.data.formats.parts import PartSource
from dvlae.data.pixels import errors_named
from dvlae.data.sources import Source


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
