"""Conversion of a dataset's files to canonical ones."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dvlae.config.dataset import DatasetSettings
from dvlae.config.fields import expand_home
from dvlae.data.canonical import CANONICAL_FILES, read_clean, read_noisy, set_offset, write_frames
from dvlae.data.defects.checks import FrameChecks, write_masks
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.defects.masks import MaskSource, PackedMask
from dvlae.data.files import find_images, numbered_name
from dvlae.data.manifest import Image, pair_frames, read_manifest, write_manifest
from dvlae.data.outputs.description import describe
from dvlae.data.reading import Stack, open_stacks
from dvlae.data.sources import SourceInfo, open_sources
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, check_outside, link_or_copy
from dvlae.system.hashes import hash_files
from dvlae.system.progress import progress

logger = logging.getLogger(__name__)

# The largest magnitude up to which all whole numbers are float32 numbers.
MAX_EXACT = 2**24
# Rounding of grey values that is negligible, as a part of the differences of neighbours.
MAX_ROUNDING = 1e-3
# The squares of float32 values in this range are float32 values, with some room for sums.
MIN_LARGEST, MAX_LARGEST = 1e-15, 1e15

# By canonical file and number of the frame: which pixels count; None: all.
Masks = dict[tuple[Path, int], PackedMask | None]


def source_folder(dataset: DatasetSettings, data: Path) -> Path:
    """Return the folder that the dataset's globs are relative to.

    Parameters
    ----------
    dataset
        The dataset's settings.
    data
        The data folder.

    Returns
    -------
    Path
        The data folder, or the folder of the images in scikit-image.
    """
    if dataset.source.kind != "skimage":
        return Path(data)
    import skimage.data

    return Path(skimage.data.__file__).parent


def list_files(dataset: DatasetSettings, data: Path) -> list[Path]:
    """List the files that :func:`prepare` reads for a dataset of files.

    Parameters
    ----------
    dataset
        The dataset's settings.
    data
        The data folder.

    Returns
    -------
    list of Path
        Noisy and clean images, masks, all files of a set of which one is named, and all of a folder that is an image.

    Raises
    ------
    UserError
        If no file matches.
    """
    root = source_folder(dataset, data)
    named = find_images(dataset.noisy, root, "noisy")
    if dataset.clean not in (None, "mean"):
        named += find_images(dataset.clean, root, "clean")
    if dataset.mask not in ("auto", "none"):
        named.append(root / expand_home(dataset.mask))
    files: dict[Path, None] = {}
    for path in named:
        if path.is_dir():
            files.update(dict.fromkeys(file for file in sorted(path.rglob("*")) if file.is_file()))
        elif path not in files:
            files.update(dict.fromkeys((path, *_set_of(path))))
    return list(files)


def _set_of(path: Path) -> tuple[Path, ...]:
    """Return the files of the set that an OME-TIFF belongs to."""
    if ".ome." not in path.name.lower():
        return ()
    try:
        with open_sources(path) as sources:
            return tuple(file for source in sources for file in source.files)
    except UserError:
        # The step that reads it says what is wrong with it.
        return ()


def prepare(dataset: DatasetSettings, data: Path, simulated: Path | None, output: Path) -> None:
    """Make the canonical images of a dataset.

    Parameters
    ----------
    dataset
        The dataset's settings: the files and how to read them.
    data
        The data folder.
    simulated
        If the dataset has ``simulate``: the folder made by ``dvlae simulate``, which is used instead of the files.
    output
        The folder to make: ``noisy/``, ``clean/`` and ``manifest.csv``.

    Raises
    ------
    UserError
        If no file matches; if an image cannot be read, has other axes or channels, contains values that are not
        numbers, or is constant; if clean and noisy images do not fit each other; if the files are in the output; or
        if there is a folder of simulated images but nothing to simulate; or if other files are in the output.
    """
    if dataset.simulate is None and simulated is not None:
        raise UserError(f"--simulated: found {simulated}, but the dataset has no `simulate`")
    with atomic_folder(output, CANONICAL_FILES) as folder:
        if dataset.simulate is None:
            rows = _from_files(dataset, Path(data), folder, output)
        elif simulated is None:
            raise UserError(
                "prepare: this dataset's noise is simulated: run `dvlae simulate` and give its folder (--simulated)"
            )
        else:
            rows = _from_simulated(Path(simulated), folder)
        for name, count in Counter(row.name for row in rows).items():
            if count > 1:
                raise UserError(f"noisy: two images are called {name!r}; each needs its own name")
        write_manifest(folder, rows)


def _from_files(dataset: DatasetSettings, data: Path, folder: Path, output: Path) -> list[Image]:
    root = source_folder(dataset, data)
    files = find_images(dataset.noisy, root, "noisy")
    clean_files = [] if dataset.clean in (None, "mean") else find_images(dataset.clean, root, "clean")
    check_outside(output, [*files, *clean_files])
    total = _Mean() if dataset.clean == "mean" else None
    offsets = OffsetChoice()
    loop, checks = progress(files, description="prepare", unit="file"), FrameChecks(MaskSource(dataset.mask, root))
    sources, masks = _write_stacks(open_stacks(files, dataset, loop), folder / "noisy", offsets, checks, total)
    rows = [row for source in sources for row in source]
    if total is not None:
        rows = total.write(folder / "clean" / "mean.tif", rows, exact=bool(offsets.offset or offsets.scale != 1))
    elif clean_files:
        checks = FrameChecks(None)
        cleans, clean_masks = _write_stacks(
            open_stacks(clean_files, dataset), folder / "clean", OffsetChoice(), checks, None
        )
        rows = pair_frames(sources, cleans)
        for row in rows:
            assert row.clean is not None
            both = [masks[row.noisy, row.frame], clean_masks[row.clean, row.clean_frame]]
            masks[row.noisy, row.frame] = both[0] & both[1] if both[0] and both[1] else both[0] or both[1]
    if offsets.offset or offsets.scale != 1:
        for path in {path for row in rows for path in (row.noisy, row.clean) if path is not None}:
            set_offset(path, offsets.offset, offsets.scale)
    if offsets.scale != 1:
        logger.warning(
            f"prepare: grey values are computed with in units of {offsets.scale:g}, as the squares of values up to "
            f"{offsets.largest:g} are not in the range of 32 bits; results come back in the units of the files"
        )
    return _add_masks(folder, rows, masks)


def _write_stacks(
    stacks: Iterable[Stack], folder: Path, offsets: "OffsetChoice", checks: FrameChecks, total: "_Mean | None"
) -> tuple[list[list[Image]], Masks]:
    """Write the frames of all sources. Return their rows of the manifest, for each source, and the masks of all."""
    sources: list[list[Image]] = []
    masks: Masks = {}
    for stack in stacks:
        sources.append(_write_stack(stack, folder, offsets, checks, sources[0][0] if sources else None, masks, total))
    checks.finish(folder.name)
    return sources, masks


def _add_masks(folder: Path, rows: Sequence[Image], masks: Masks) -> list[Image]:
    """Write the masks of the frames of each source that has any, and name them in the rows of the manifest."""
    of_files: dict[Path, list[PackedMask | None]] = {}
    for row in rows:
        of_files.setdefault(row.noisy, []).append(masks[row.noisy, row.frame])
    written = {path: folder / "mask" / path.name for path, found in of_files.items() if any(found)}
    for path, mask_path in written.items():
        write_masks(mask_path, of_files[path])
    return [row if masks[row.noisy, row.frame] is None else replace(row, mask=written[row.noisy]) for row in rows]


class OffsetChoice:
    """Chooses how grey values are converted so that float32 keeps their small differences and has their squares.

    The offset is the median of the frames whose values are so large that float32 numbers near them are too far apart,
    if these are most of the frames; a whole number for integers. Otherwise it is 0. The scale is 1 unless the squares
    of what remains would be too large or too small for float32.
    """

    def __init__(self) -> None:
        self.middles: list[int | float] = []
        self.frames = 0
        self.largest, self.farthest = 0.0, 0.0

    def add(self, frame: np.ndarray) -> None:
        """Take a frame into account.

        Parameters
        ----------
        frame
            (C, ...), in the type of its file.
        """
        if frame.dtype.itemsize < 4:
            self.frames += 1
            return
        values = frame[np.isfinite(frame)]
        if not values.size or values.min() == values.max():
            return
        self.frames += 1
        if frame.dtype == np.float32:
            self.largest = self.farthest = max(self.largest, float(np.abs(values).max()))
            return
        middle = np.median(values)
        if frame.dtype.kind != "f":
            if abs(middle) > MAX_EXACT:
                self.middles.append(int(middle))
            return
        self.largest = max(self.largest, float(np.abs(values).max()))
        self.farthest = max(self.farthest, float(np.abs(values - middle).max()))
        noise = np.nanmedian(np.abs(np.diff(frame)))
        # The scale brings numbers beyond the range of float32 into it.
        unit = _power_of_2(self.largest)
        near = float(np.spacing(np.float32(abs(middle) / unit))) * unit
        if not near <= MAX_ROUNDING * noise:
            self.middles.append(float(middle))

    @property
    def offset(self) -> int | float:
        """What is subtracted, after all frames."""
        if 2 * len(self.middles) <= self.frames:
            return 0
        return sorted(self.middles)[len(self.middles) // 2]

    @property
    def scale(self) -> float:
        """What the difference is divided by, after all frames."""
        largest = self.farthest if self.offset else self.largest
        return 1 if not largest or MIN_LARGEST <= largest <= MAX_LARGEST else _power_of_2(largest)


def _power_of_2(largest: float) -> float:
    """Return the largest power of 2 that is not above a number."""
    return math.ldexp(1, math.frexp(largest)[1] - 1) if largest else 1


def _write_stack(
    stack: Stack,
    folder: Path,
    offsets: OffsetChoice,
    checks: FrameChecks,
    first: Image | None,
    masks: Masks,
    total: "_Mean | None",
) -> list[Image]:
    """Write the frames of a source, which need as many channels as the first one. Return their rows of the manifest."""
    info = describe(stack)
    source, shape, path = stack.source.path, info.frame_shape, folder / f"{stack.name}.tif"
    if first is not None and shape[0] != first.shape[0]:
        raise UserError(
            f"{source}: found {shape[0]} channels, allowed: {first.shape[0]} like the other images "
            "(`channel: grey` makes one of red, green and blue)"
        )

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(stack):
            offsets.add(frame)
            masks[path, number] = mask = checks.check(frame, stack, number)
            if total is not None:
                total.add(frame, mask, source)
            yield frame

    write_frames(path, info, frames(), stack.dtype)
    row = Image("", path, None, shape, source=str(source), source_sha256=hash_files(stack.source.files))
    return [
        replace(row, name=numbered_name(stack.name, number, info.frames), frame=number) for number in range(info.frames)
    ]


class _Mean:
    """The mean of all noisy frames that show something, without their hot pixels: the clean image of each."""

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.count: int | np.ndarray = 0
        self.frames = 0

    def add(self, frame: np.ndarray, mask: PackedMask | None, path: Path) -> None:
        if self.total is None:
            self.total = np.zeros(frame.shape)
        if frame.shape != self.total.shape:
            raise UserError(
                f"{path}: found shape {frame.shape}, allowed: {self.total.shape}, as `clean: mean` needs one shape"
            )
        counts = None if mask is None else mask.unpack()
        examined = ExaminedFrame.examine(frame.astype(np.float64), counts)
        if examined.usable:
            self.total += examined.filled if counts is None else np.where(counts, examined.filled, 0)
            self.count = self.count + (1 if counts is None else counts)
            self.frames += 1

    def write(self, path: Path, rows: Sequence[Image], *, exact: bool) -> list[Image]:
        if self.total is None or self.frames < 2:
            raise UserError("clean: found 'mean' for one noisy image, allowed: mean of two or more, a glob, or null")
        info = SourceInfo.of_frames(self.total.shape)
        dtype = np.dtype(np.float64 if exact else np.float32)
        with np.errstate(invalid="ignore"):
            # A pixel that counts in no frame has no mean.
            write_frames(path, info, [self.total / self.count], dtype)
        return [replace(row, clean=path) for row in rows]


def _from_simulated(simulated: Path, folder: Path) -> list[Image]:
    """Take over the files that `dvlae simulate` made, after a look at every frame."""
    images = read_manifest(simulated)
    copies = {}
    for image in progress(images, description="prepare", unit="image"):
        assert image.clean is not None
        check_grey_values(read_noisy(image), image.noisy)
        check_grey_values(read_clean(image), image.clean)
        for path in (image.noisy, image.clean):
            copies[path] = folder / path.relative_to(simulated.absolute())
    for path, copy in copies.items():
        link_or_copy(path, copy)
    return [replace(image, noisy=copies[image.noisy], clean=image.clean and copies[image.clean]) for image in images]


def check_grey_values(image: np.ndarray, what: Path | str) -> np.ndarray:
    """Refuse an image that cannot be processed.

    Parameters
    ----------
    image
        (C, ...).
    what
        The image, for the error message.

    Returns
    -------
    (C, ...) array
        The same image.

    Raises
    ------
    UserError
        If a value is not a number, or a channel is constant.
    """
    wrong = image.size - np.count_nonzero(np.isfinite(image))
    if wrong:
        raise UserError(f"{what}: found {wrong} pixels that are not numbers (NaN or infinite), allowed: none")
    for number, channel in enumerate(image):
        if channel.min() == channel.max():
            which = f"channel {number} is" if len(image) > 1 else "all pixels are"
            raise UserError(f"{what}: {which} {channel.flat[0]:g}, allowed: an image that is not constant")
    return image
