"""The list of a dataset's images, and the choice of some of them."""

import csv
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvlae.config.fields import SLICE_PATTERN, is_file_of_names
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file

MANIFEST_COLUMNS = ("image", "noisy", "clean", "shape")


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
    if isinstance(images, str) and SLICE_PATTERN.fullmatch(images):
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
