"""Checks of frames before they are kept, and the masks of those that pass."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dvlae.axes import middle
from dvlae.data.canonical import write_frames
from dvlae.data.defects.finding import is_constant
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.defects.masks import MaskSource, PackedMask
from dvlae.data.defects.scale import MIXED_FACTOR, FrameScale, find_mixed
from dvlae.data.files import numbered_name
from dvlae.data.reading import Stack
from dvlae.data.sources import Source, SourceInfo
from dvlae.system.arrays import count_true, find_numbers, frame_bands
from dvlae.system.errors import UserError
from dvlae.system.wording import count, list_names

logger = logging.getLogger(__name__)

# Sides of the part of a frame of which the scale is measured, (Z, Y, X).
SCALE_SIDES = (4, 256, 256)
# The largest grey value of a camera of 8 bits.
MIN_FULL = 255


@dataclass
class TypeUse:
    """Files of one type.

    Attributes
    ----------
    files
        Their names, once for each frame.
    highest
        The largest value in them.
    """

    files: list[str] = field(default_factory=list)
    highest: float = -math.inf


class FrameChecks:
    """Checks all frames of a dataset, one after the other.

    Parameters
    ----------
    masks
        Where their masks come from; None: all numbers count, as in clean images.
    """

    def __init__(self, masks: MaskSource | None):
        self.masks = masks
        self._frames = 0
        self._blank: list[str] = []
        # The type and the grey value of those that may be saturated instead.
        self._full: dict[str, tuple[str, float]] = {}
        self._masked: dict[str, int] = {}
        self._pixels = 0
        self._types: dict[str, TypeUse] = {}
        self._scales: dict[str, FrameScale] = {}
        self._constant: np.ndarray | None = None
        self._example, self._value = "", 0.0

    def check(self, frame: np.ndarray, stack: Stack, number: int) -> PackedMask | None:
        """Check a frame.

        Parameters
        ----------
        frame
            (C, ...).
        stack
            The frames of the same source.
        number
            Which one it is.

        Returns
        -------
        PackedMask or None
            Where a pixel counts; None: everywhere.

        Raises
        ------
        UserError
            If a pixel that counts is not a number.
        """
        what = str(stack.source.path) + (f", image {number}" if len(stack) > 1 else "")
        numbers = find_numbers(frame)
        mask = numbers if self.masks is None else self.masks.find(frame, stack.window, stack.complete_sides)
        if numbers is not None and (wrong := ~numbers if mask is None else mask & ~numbers).any():
            raise UserError(
                f"{what}: found {np.count_nonzero(wrong)} pixels that are not numbers (NaN or infinite), "
                f"{_where(wrong)}; `crop` cuts them off, and with `mask: auto` they do not count"
            )
        name = numbered_name(stack.name, number, len(stack))
        self._frames += 1
        self._pixels += math.prod(frame.shape[1:])
        constant = np.array([is_constant(channel, mask) for channel in frame])
        if constant.all():
            self._blank.append(name)
            values = frame.reshape(len(frame), -1) if mask is None else frame[:, mask]
            value = float(np.median(values, axis=1).min()) if values.size else 0.0
            if _is_full(value):
                self._full[name] = (stack.source.dtype.name, value)
        self._note_scale(frame, mask, name, stack.source)
        if self._constant is None:
            self._example, self._value = what, frame.flat[0]
        self._constant = constant if self._constant is None else self._constant & constant
        if mask is None:
            return None
        self._masked[name] = mask.size - count_true(mask)
        return PackedMask.pack(mask)

    def _note_scale(self, frame: np.ndarray, mask: np.ndarray | None, name: str, source: Source) -> None:
        """Note the type of a frame, its largest value, and the scale of its middle."""
        use = self._types.setdefault(source.dtype.name, TypeUse())
        use.files.append(source.path.name)
        for channel, band in frame_bands(frame.shape, frame, mask):
            numbers = frame[channel, band] if mask is None else frame[channel, band][mask[band]]
            if numbers.size:
                use.highest = max(use.highest, float(numbers.max()))
        part = middle(frame.shape[1:], SCALE_SIDES[-(frame.ndim - 1) :])
        middle_mask = None if mask is None else mask[part]
        examined = ExaminedFrame.examine(frame[:, *part].astype(np.float64), middle_mask)
        if examined.usable:
            # Only the noise is compared; the squares of very large values are beyond all numbers.
            with np.errstate(over="ignore"):
                self._scales[name] = examined.scale

    def finish(self, key: str) -> None:
        """Refuse images without any content, after all of them were checked, and name the blank and saturated ones.

        Parameters
        ----------
        key
            The setting that names the images.

        Raises
        ------
        UserError
            If all frames, or a channel of all frames, are constant.
        """
        if self._constant is None:
            return
        if self._pixels == sum(self._masked.values()):
            raise UserError(
                f"{key}: no pixel counts, as `mask` leaves out all of them, or none is a number: {self._example}; in a "
                "file for `mask`, pixels other than 0 count"
            )
        if self._constant.all():
            raise UserError(
                f"{key}: {self._example}: found {self._value:g} everywhere, allowed: at least one image that is not "
                "constant"
            )
        if self._constant.any():
            constant, others = ([n for n, c in enumerate(self._constant) if c == wanted] for wanted in (True, False))
            raise UserError(
                f"{key}: channel {constant[0]} is constant in all images, such as {self._example}; "
                f"`channel: {others[0]}` keeps another one"
            )
        total = f"{count(self._frames, 'image')} of `{key}`"
        if self._masked:
            number = sum(self._masked.values())
            logger.warning(
                f"prepare: {count(number, 'pixel')} ({number / self._pixels:.1%}) in {len(self._masked)} of {total} "
                "are masked (NaN, a border, or `mask`), given back as recorded, and not learned from: "
                f"{list_names(self._masked)}"
            )
        saturated = [name for name, (dtype, value) in self._full.items() if value >= self._types[dtype].highest]
        blank = [name for name in self._blank if name not in saturated]
        for what, names in (("blank", blank), ("saturated throughout", saturated)):
            if names:
                logger.warning(
                    f"prepare: {len(names)} of {total} {'is' if len(names) == 1 else 'are'} {what}, given back as "
                    f"recorded, and not learned from: {list_names(names)}"
                )
        if key == "noisy":
            self._warn_of_scales()

    def _warn_of_scales(self) -> None:
        """Warn of images that one model can hardly learn together."""
        apart = find_mixed(list(self._scales.values()))
        others = [name for name, is_apart in zip(self._scales, apart, strict=True) if is_apart]
        if len(self._types) > 1:
            what = "the images are of different types: " + "; ".join(
                f"{name}, up to {use.highest:g}: {list_names(use.files)}" for name, use in self._types.items()
            )
        elif others:
            what = (
                f"the noise of {list_names(others)} differs by more than a factor of {MIXED_FACTOR:g} from that of the "
                "others"
            )
        else:
            return
        logger.warning(
            f"prepare: WARNING: {what}; if gain or bit depth differ, set `training.rescale: true` and "
            "`prediction.rescale: true`, or make two datasets"
        )


def _is_full(value: float) -> bool:
    """Return whether a grey value is the largest one of a number of bits."""
    return value >= MIN_FULL and math.log2(value + 1).is_integer()


def _where(wrong: np.ndarray) -> str:
    """Return the smallest box around some pixels, for a message."""
    ends = [(int(places.min()), int(places.max()) + 1) for places in np.nonzero(wrong)]
    names = "zyx"[-wrong.ndim :]
    return "in " + ", ".join(f"{name}: [{first}, {last}]" for name, (first, last) in zip(names, ends, strict=True))


def write_masks(path: Path, masks: Sequence[PackedMask | None]) -> None:
    """Write the masks of the frames of a source.

    Parameters
    ----------
    path
        The file to make.
    masks
        One for each frame, at least one of them not None. A single one is written if all are equal.
    """
    (sides,) = {mask.sides for mask in masks if mask is not None}
    kept = masks[:1] if len(set(masks)) == 1 else masks
    frames = (np.ones(sides, bool) if mask is None else mask.unpack() for mask in kept)
    info = SourceInfo.of_frames((1, *sides), len(kept), "uint8")
    write_frames(path, info, (frame.view(np.uint8)[None] for frame in frames), np.dtype(np.uint8))
