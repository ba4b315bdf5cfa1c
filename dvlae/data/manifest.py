"""The list of a dataset's images, one for each frame of its files, and the selection of some of them."""

import csv
import difflib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from dvlae.config.fields import SLICE_PATTERN
from dvlae.system.errors import UserError
from dvlae.system.files import write_csv

logger = logging.getLogger(__name__)

MANIFEST_COLUMNS = (
    "image", "file", "frame", "clean", "clean_frame", "mask", "shape", "source", "source_sha256"
)  # fmt: skip
# The columns before images became frames of files.
OLD_COLUMNS = ("image", "noisy", "clean", "shape")


@dataclass(frozen=True)
class Image:
    """One row of a manifest.

    Attributes
    ----------
    name
        Unique within the dataset; may contain spaces.
    noisy, clean
        Absolute paths of the canonical files. Several images may share a clean frame, or have none.
    shape
        Shape of both: (C, X), (C, Y, X) or (C, Z, Y, X).
    frame, clean_frame
        Which frame of each file it is.
    mask
        Absolute path of the file that says which pixels count; None: all of them.
    source, source_sha256
        The user's file that the noisy frame comes from, and its hash; empty if there is none.
    """

    name: str
    noisy: Path
    clean: Path | None
    shape: tuple[int, ...]
    frame: int = 0
    clean_frame: int = 0
    mask: Path | None = None
    source: str = ""
    source_sha256: str = ""


def write_manifest(folder: Path, images: Iterable[Image]) -> None:
    """Write ``manifest.csv`` into a folder of canonical files, with paths relative to it.

    Parameters
    ----------
    folder
        The folder with the files.
    images
        One row each.
    """
    rows = []
    for image in images:
        noisy, clean, mask = (
            "" if path is None else path.relative_to(folder).as_posix()
            for path in (image.noisy, image.clean, image.mask)
        )
        clean_frame = image.clean_frame if clean else ""
        shape = "x".join(map(str, image.shape))
        rows.append(
            [image.name, noisy, image.frame, clean, clean_frame, mask, shape, image.source, image.source_sha256]
        )
    write_csv(folder / "manifest.csv", MANIFEST_COLUMNS, rows)


def is_manifest(path: Path) -> bool:
    """Return whether a file is a manifest, of this version or an older one.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    bool
        Whether its first line has the names of the columns.
    """
    with path.open("rb") as file:
        line = file.readline().decode("utf-8-sig", errors="replace").strip()
    return line in (",".join(MANIFEST_COLUMNS), ",".join(OLD_COLUMNS))


def read_manifest(images: Path) -> list[Image]:
    """List the images of a dataset.

    Parameters
    ----------
    images
        The folder with ``manifest.csv``.

    Returns
    -------
    list of Image
        The images in the dataset's order, with absolute paths.

    Raises
    ------
    UserError
        If there is no manifest, or the file is not a manifest.
    """
    images = Path(images).absolute()
    path = images / "manifest.csv"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if tuple(reader.fieldnames or ()) == OLD_COLUMNS:
            raise UserError(f"{path}: made by an older version of dvlae; run `dvlae prepare` again")
        return [
            Image(
                _file_name(row["image"]),
                images / row["file"],
                images / row["clean"] if row["clean"] else None,
                tuple(int(size) for size in row["shape"].split("x")),
                int(row["frame"]),
                int(row["clean_frame"] or 0),
                images / row["mask"] if row["mask"] else None,
                row["source"],
                row["source_sha256"],
            )
            for row in rows
        ]
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvlae prepare` makes it") from None
    except NotADirectoryError:
        raise UserError(f"{images}: found a file, allowed: a folder, which `dvlae prepare` makes of images") from None
    except (KeyError, ValueError, AttributeError, TypeError, csv.Error):
        raise UserError(f"{path}: not a manifest; it needs the columns {', '.join(MANIFEST_COLUMNS)}") from None


def _file_name(name: str) -> str:
    """Return a name if it can be part of a file's name, which must not lead out of its folder."""
    if not name or PurePath(name).name != name or "\0" in name:
        raise ValueError
    return name


def pair_frames(noisy: Sequence[Sequence[Image]], clean: Sequence[Sequence[Image]]) -> list[Image]:
    """Give each noisy frame its clean one, source by source.

    A single frame of a clean source is that of all frames of its noisy source, if all clean sources have one frame.
    A stack and a list of files with one frame each belong together, too.

    Parameters
    ----------
    noisy, clean
        The frames of each source, in order.

    Returns
    -------
    list of Image
        The noisy frames in order, with their clean ones.

    Raises
    ------
    UserError
        If a noisy and a clean source differ in the number or the shape of their frames, or there are not as many, or
        if a clean source has the name of another noisy one than that in its place.
    """
    one_each = all(len(source) == 1 for source in clean)
    if len(noisy) != len(clean) and _are_stack_and_files(noisy, clean):
        noisy, clean = ([[frame for source in sources for frame in source]] for sources in (noisy, clean))
    if len(noisy) != len(clean):
        of_clean, of_noisy = (sum(len(source) for source in sources) for sources in (clean, noisy))
        single = (of_clean, of_noisy) == (len(clean), len(noisy))
        raise UserError(
            f"clean: found {len(clean)} clean images for {len(noisy)} noisy ones"
            f"{'' if single else f' ({of_clean} frames for {of_noisy})'}, allowed: as many, each for its noisy one"
        )
    _check_names([source[0] for source in noisy], [source[0] for source in clean])
    rows: list[Image] = []
    shared: list[tuple[Sequence[Image], Image]] = []
    for frames, paired in zip(noisy, clean, strict=True):
        if len(paired) == 1 < len(frames) and one_each:
            shared.append((frames, paired[0]))
            paired = [*paired] * len(frames)
        if len(paired) != len(frames):
            raise UserError(
                f"{paired[0].source}: found {len(paired)} clean frames, allowed: {len(frames)}, as many as in "
                f"{frames[0].source}, or one in each clean file"
            )
        for frame, of_frame in zip(frames, paired, strict=True):
            if of_frame.shape != frame.shape:
                raise UserError(
                    f"{of_frame.source}: found shape {of_frame.shape}, allowed: {frame.shape} like {frame.source}"
                )
            rows.append(replace(frame, clean=of_frame.noisy, clean_frame=of_frame.frame))
    if shared:
        (first, one), others = shared[0], f", and {len(shared) - 1} more so" if len(shared) > 1 else ""
        logger.warning(
            f"clean: the frame of {one.source} is that of all {len(first)} frames of {first[0].source}{others}"
        )
    return rows


def _check_names(noisy: Sequence[Image], clean: Sequence[Image]) -> None:
    """Refuse sources whose names say that they belong together in another way than in order."""
    named = {image.noisy.stem: image for image in noisy}
    for image, other in zip(noisy, clean, strict=True):
        if other.noisy.stem in named and image.noisy.stem != other.noisy.stem:
            raise UserError(
                f"clean: found {other.source} in the place of {image.source}, allowed: in that of "
                f"{named[other.noisy.stem].source}, which has its name; files are paired in order: choose `noisy` and "
                "`clean` without the files that have no partner, or rename them"
            )


def _are_stack_and_files(*both: Sequence[Sequence[Image]]) -> bool:
    """Return whether one source has as many frames as there are others, of one frame each."""
    stack, files = sorted(both, key=len)
    return len(stack) == 1 and len(stack[0]) == len(files) and all(len(file) == 1 for file in files)


def select_images(images: Sequence[Image], selection: str | Sequence[str]) -> list[Image]:
    """Select images by name.

    Parameters
    ----------
    images
        All images, in the dataset's order.
    selection
        As for :func:`select`.

    Returns
    -------
    list of Image
        The selected images, in the dataset's order.

    Raises
    ------
    UserError
        As for :func:`select`.
    """
    chosen = set(select([image.name for image in images], selection))
    return [image for image in images if image.name in chosen]


def spread_evenly(count: int, most: int) -> np.ndarray:
    """Choose indices that are spread evenly from the first to the last.

    Parameters
    ----------
    count
        Number of things to choose from.
    most
        Maximum number of indices.

    Returns
    -------
    (N,) int array
        At most ``most`` different indices below ``count``, in ascending order.
    """
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def select(names: Sequence[str], images: str | Sequence[str]) -> list[str]:
    """Select names of images.

    Parameters
    ----------
    names
        All names, in the dataset's order.
    images
        ``"all"``, a list of names, a slice such as ``"0:8"``, or a text file with one name per line.

    Returns
    -------
    list of str
        The selected names, in the dataset's order.

    Raises
    ------
    UserError
        If a name is unknown, the file is missing, or nothing is selected.
    """
    if images == "all":
        return list(names)
    if isinstance(images, str) and SLICE_PATTERN.fullmatch(images):
        chosen = list(names)[slice(*(int(part) if part else None for part in images.split(":")))]
        if not chosen:
            raise UserError(f"images: found {images!r}, which selects none of the {len(names)} images")
        return chosen
    wanted = _read_names(images) if isinstance(images, str) else list(images)
    for name in wanted:
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0))
            raise UserError(f"images: found {name!r}, allowed: names of the dataset's images, such as {near}")
    return [name for name in names if name in wanted]


def _read_names(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"images: found {path!r}, allowed: all, a list, a slice such as 0:8, or a file of names ({error})"
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{path}: found no image names")
    return names
