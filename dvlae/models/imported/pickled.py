"""Read what ``torch.save`` wrote, although it holds pickled objects, and run nothing that it asks for.

A pickle may call any function by its name. Here each name stands for a class that does nothing, except those that
tensors and ordered dictionaries are made of; so there are tensors, numbers, texts and containers, and in the place of
all else an :class:`Inert` object. ``torch.load`` would either refuse such a file or run it.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Inert(dict):
    """What an object of any other class becomes: it takes all that a pickle does with objects, and keeps its state.

    Parameters
    ----------
    *arguments, **options
        Not used.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__()

    # Objects may be keys of dictionaries.
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __setstate__(self, state: Any) -> None:
        """Keep a state of named values, as that of a module is.

        Parameters
        ----------
        state
            The state; others than dictionaries are not kept.
        """
        if isinstance(state, dict):
            self.update(state)

    def append(self, item: Any) -> None:
        """Take an item of a list, without keeping it.

        Parameters
        ----------
        item
            Not used.
        """

    add = extend = append


class _Unpickler(pickle.Unpickler):
    """Unpickle tensors, whose values are in the other parts of an archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        super().__init__(archive.open(f"{folder}/data.pkl"))
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): self._rebuild_parameter,
        }
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        # A class of its own: a pickle can set attributes of the class.
        return known.get((module, name)) or type(name, (Inert,), {})

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if not isinstance(dtype, torch.dtype):
            raise ValueError("its tensors are complex, or of another kind that no network has")
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.storages[key]

    def _rebuild_tensor(
        self, storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *options: Any
    ) -> Tensor:
        if math.prod(size) > storage.numel():
            raise ValueError("a tensor has more values than there are")
        # It refuses what is outside of the storage.
        return storage.as_strided(size, stride, offset)

    def _rebuild_parameter(self, data: Tensor, *options: Any) -> Tensor:
        return data


def unpickle(path: Path) -> Any:
    """Return the content of a file that ``torch.save`` wrote.

    Parameters
    ----------
    path
        The file; its parts may have any names and any content.

    Returns
    -------
    object
        Tensors, numbers, texts, containers, and :class:`Inert` objects.

    Raises
    ------
    Exception
        Of any kind, if the file is damaged or something else.
    """
    with zipfile.ZipFile(path) as archive:
        # torch.save does not compress: an archive must not become larger than its file.
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("its parts are compressed")
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        folder = pickled.partition("/")[0]
        order = f"{folder}/byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        return _Unpickler(archive, folder).load()
