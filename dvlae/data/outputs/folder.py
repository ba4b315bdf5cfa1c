"""A folder of results, to which frames are written as they finish."""

import json
import logging
import math
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dvlae.config.settings import OutputSettings
from dvlae.data.canonical import read_info
from dvlae.data.manifest import Image
from dvlae.data.outputs.conversion import Converter
from dvlae.data.outputs.reading import FRAMES_SUFFIX, NOISY_MARK, OUTPUT_FILES
from dvlae.data.outputs.tiff import MappedFrames, write_source
from dvlae.data.sources import SourceInfo
from dvlae.system.arrays import frame_bands
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, link_or_copy, reserve_space
from dvlae.system.wording import list_names

logger = logging.getLogger(__name__)

# The header is padded to a multiple of this.
HEADER_BYTES = 4096


@dataclass(frozen=True)
class Frames:
    """Neighbouring frames of one source in a file: a line of JSON, and the values of each frame, one after the other.

    Attributes
    ----------
    path
        The file, which need not exist.
    info
        The source.
    first
        Number of the first frame.
    output
        Type and compression of the file that all frames are to become.
    deviation
        Whether the values are standard deviations.
    samples
        Number of samples of each frame; 0: a frame is not one of samples.
    """

    path: Path
    info: SourceInfo
    first: int
    output: OutputSettings
    deviation: bool = False
    samples: int = 0

    @classmethod
    def read(cls, path: Path) -> "Frames":
        """Read what a file of frames says of itself.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        Frames
            The frames in it.
        """
        with path.open("rb") as file:
            header = json.loads(file.readline())
        info = SourceInfo.from_json(header["info"])
        output = OutputSettings(**header["output"])
        return cls(path, info, header["first"], output, header["deviation"], header.get("samples", 0))

    @cached_property
    def _header(self) -> bytes:
        output = self.output.model_dump(mode="json")
        values = {"info": self.info.to_json(), "first": self.first, "output": output}
        text = json.dumps({**values, "deviation": self.deviation, "samples": self.samples}).encode()
        return text.ljust(-(-(len(text) + 1) // HEADER_BYTES) * HEADER_BYTES - 1) + b"\n"

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of what is stored of a frame, (C, ...) or (S, C, ...)."""
        return (self.samples, *self.info.frame_shape) if self.samples else self.info.frame_shape

    @property
    def _frame_bytes(self) -> int:
        return np.dtype(np.float32).itemsize * math.prod(self._shape)

    @property
    def count(self) -> int:
        """The number of complete frames in the file."""
        if not self.path.exists():
            return 0
        return max(0, self.path.stat().st_size - len(self._header)) // self._frame_bytes

    def place(self, number: int) -> np.ndarray:
        """Return the place of a frame in the file.

        Parameters
        ----------
        number
            Number of the frame in the source.

        Returns
        -------
        (C, ...) or (S, C, ...) array
            The mapped part of the file, to write to.
        """
        if not self.path.exists() or self.path.stat().st_size < len(self._header):
            self.path.write_bytes(self._header)
        start = len(self._header) + (number - self.first) * self._frame_bytes
        reserve_space(self.path, start, self._frame_bytes)
        return np.memmap(self.path, np.float32, "r+", start, self._shape)

    def write(self, number: int, values: np.ndarray) -> None:
        """Write a frame.

        Parameters
        ----------
        number
            Number of the frame in the source.
        values
            (C, ...).
        """
        nbytes = values.size * np.dtype(np.float32).itemsize
        new = not self.path.exists() or self.path.stat().st_size < len(self._header)
        with open(self.path, "w+b" if new else "r+b") as file:
            if new:
                file.write(self._header)
            file.seek(len(self._header) + (number - self.first) * nbytes)
            for place in frame_bands(values.shape, values):
                file.write(np.ascontiguousarray(values[place], np.float32).data)

    def map(self) -> MappedFrames:
        """Return the complete frames.

        Returns
        -------
        MappedFrames
            The mapped file.
        """
        return MappedFrames(self.path, len(self._header), (self.count, *self._shape))

    def append_to(self, path: Path) -> None:
        """Append the complete frames to a file of the frames before them.

        Parameters
        ----------
        path
            The file.
        """
        with self.path.open("rb") as source, path.open("ab") as target:
            source.seek(len(self._header))
            shutil.copyfileobj(source, target)


class OutputFolder:
    """The results for some images of a dataset: one file for each source.

    Frames that are written wait in a file beside the results until the source is complete. If other jobs compute other
    frames of a source, its frames stay there, and :func:`join_folders` makes the result.

    Parameters
    ----------
    folder
        The folder, which may contain results of an earlier attempt.
    images
        The images in the order of the manifest.
    output
        Type and compression of the files.
    deviation
        Whether the results are standard deviations.
    samples
        Number of samples of each image, if these are the results; 0: they are not.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[Image],
        output: OutputSettings | None = None,
        *,
        deviation: bool = False,
        samples: int = 0,
    ):
        self.folder, output = folder, output or OutputSettings()
        self.report = Report()
        self._frames: dict[Path, Frames] = {}
        for image in images:
            source = image.noisy
            if source not in self._frames:
                path = self._target(source).with_suffix(FRAMES_SUFFIX)
                self._frames[source] = Frames(path, read_info(source), image.frame, output, deviation, samples)
                # The place of the last samples may not be filled.
                if not samples and not self._target(source).exists():
                    self._complete(self._frames[source])

    def has(self, image: Image) -> bool:
        """Return whether the result for an image is there.

        Parameters
        ----------
        image
            One of the images.

        Returns
        -------
        bool
            Whether it need not be computed.
        """
        frames = self._frames[image.noisy]
        return self._target(image.noisy).exists() or image.frame - frames.first < frames.count

    def write(self, image: Image, values: np.ndarray) -> None:
        """Write the result for an image, in order.

        Parameters
        ----------
        image
            One of the images.
        values
            (C, ...), in the units of the image.
        """
        if self._target(image.noisy).exists():
            return
        frames = self._frames[image.noisy]
        frames.write(image.frame, values)
        self._complete(frames)

    def place(self, image: Image) -> list[np.ndarray]:
        """Return where the samples of an image are to be written, in order.

        Parameters
        ----------
        image
            One of the images.

        Returns
        -------
        list of (S, C, ...) array
            The mapped part of a file; nothing if the result is there. Call :meth:`finish` when it is filled.
        """
        return [] if self._target(image.noisy).exists() else [self._frames[image.noisy].place(image.frame)]

    def finish(self, image: Image) -> None:
        """Note that the samples of an image are written.

        Parameters
        ----------
        image
            One of the images.
        """
        if not self._target(image.noisy).exists():
            self._complete(self._frames[image.noisy])

    def _target(self, source: Path) -> Path:
        return self.folder / source.name

    def _complete(self, frames: Frames) -> None:
        if frames.count == frames.info.frames:
            self.report.write(frames)


class Report:
    """Writes results, and notes what the user has to know of them."""

    def __init__(self) -> None:
        self.others: dict[str, list[str]] = defaultdict(list)
        self.lost: dict[str, list[str]] = defaultdict(list)
        self.types: set[str] = set()
        self.clipped: dict[str, int] = defaultdict(int)

    def write(self, frames: Frames) -> None:
        """Make the result of a source out of all its frames, and remove these.

        Parameters
        ----------
        frames
            All frames of the source.
        """
        path, info, mapped = frames.path.with_suffix(".tif"), frames.info, frames.map()
        name = path.stem
        convert = Converter.choose(info, frames.output, deviation=frames.deviation)
        if frames.samples:
            info, mapped.array = info.with_samples(frames.samples), mapped.array.swapaxes(0, 1)
        why, lost = write_source(path, info, mapped, convert, frames.output.compression)
        # Windows removes no file that is mapped.
        del mapped
        if why:
            self.others[why].append(name)
        if lost:
            self.lost[lost].append(name)
        if convert.dtype.kind in "iu":
            self.types.add(convert.dtype.name)
            self.clipped[name] += convert.clipped
        elif convert.offset:
            self.others[f"{convert.dtype}, as float32 would lose the noise of such large values"].append(name)
        frames.path.unlink()

    def log(self, step: str) -> None:
        """Tell the user.

        Parameters
        ----------
        step
            Name of the step.
        """
        for why, names in self.others.items():
            logger.info("%s: results for %s are written as %s", step, list_names(names), why)
        for lost, names in self.lost.items():
            logger.warning("%s: results for %s cannot keep of the source: %s", step, list_names(names), lost)
        if self.types:
            types, clipped = " and ".join(sorted(self.types)), [name for name, count in self.clipped.items() if count]
            beyond = "no value is beyond its range"
            if clipped:
                beyond = f"{sum(self.clipped.values())} values beyond its range are clipped, in {list_names(clipped)}"
            logger.info("%s: results are rounded to %s; %s", step, types, beyond)


def join_folders(folders: Sequence[Path], output: Path) -> None:
    """Join the results that several jobs made for the images of a dataset. Theirs are left as they are.

    Parameters
    ----------
    folders
        The folders of all jobs, in order.
    output
        The folder to make. It gets complete results as hard links where the file system allows it, otherwise as copies.

    Raises
    ------
    UserError
        If a file is in two folders, or frames of a source are missing.
    """
    report = Report()
    pieces: dict[str, list[Frames]] = defaultdict(list)
    with atomic_folder(output, OUTPUT_FILES) as joined:
        for folder in folders:
            # Snakemake notes in a hidden file when it made a folder.
            for file in sorted(folder.glob("[!.]*")):
                if file.suffix == FRAMES_SUFFIX:
                    pieces[file.name].append(Frames.read(file))
                elif file.name == NOISY_MARK and (joined / file.name).exists():
                    continue
                elif (joined / file.name).exists():
                    raise UserError(f"{file}: found in two parts, allowed: parts of one dataset, each once")
                else:
                    link_or_copy(file, joined / file.name)
        for name, parts in pieces.items():
            report.write(_join_frames(sorted(parts, key=lambda part: part.first), joined / name))
    report.log("gather")


def _join_frames(parts: Sequence[Frames], path: Path) -> Frames:
    """Copy the frames of all parts into one file."""
    done = 0
    shutil.copyfile(parts[0].path, path)
    for part in parts:
        if part.first != done:
            raise UserError(f"{part.path}: found frames from {part.first}, allowed: from {done}, each in one part")
        done += part.count
    total = parts[0].info.frames
    if done != total:
        raise UserError(f"{parts[-1].path}: found frames up to {done}, allowed: all {total}; some parts are missing")
    for part in parts[1:]:
        part.append_to(path)
    return replace(parts[0], path=path)
