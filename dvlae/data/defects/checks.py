"""Checks of frames before they are kept, and the masks of those that pass."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.data.canonical import write_frames
from dvlae.data.defects.frames import list_names
from dvlae.data.defects.masks import MaskSource, PackedMask
from dvlae.data.reading import Stack
from dvlae.data.sources import SourceInfo
from dvlae.system.arrays import bands, count_true, find_numbers
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)


class FrameChecks:
    """Checks all frames of a dataset, one after the other.

    Parameters
    ----------
    masks
        Where their masks come from; None: all numbers count, as in clean images.
    """

    def __init__(self, masks: MaskSource | None):
        self.masks = masks
        self._blank: list[str] = []
        self._masked: list[str] = []
        self._masked_fractions: list[float] = []
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
        constant = np.array([_is_constant(channel, mask) for channel in frame])
        if constant.all():
            self._blank.append(what)
        if self._constant is None:
            self._example, self._value = what, frame.flat[0]
        self._constant = constant if self._constant is None else self._constant & constant
        if mask is None:
            return None
        self._masked.append(what)
        self._masked_fractions.append(1 - count_true(mask) / mask.size)
        return PackedMask.pack(mask)

    def finish(self, key: str) -> None:
        """Refuse images without any content, after all of them were checked, and name those that are blank.

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
        if self._masked:
            logger.warning(
                f"prepare: {np.mean(self._masked_fractions):.1%} of the pixels of {len(self._masked)} images of "
                f"`{key}` are masked (NaN, a border, or `mask`); they are given back as they are, and nothing is "
                f"learned from them: {list_names(self._masked)}"
            )
        if self._blank:
            logger.warning(
                f"prepare: {len(self._blank)} of the images of `{key}` are blank; they are given back as they are, and "
                f"nothing is learned from them: {list_names(self._blank)}"
            )


def _is_constant(channel: np.ndarray, mask: np.ndarray | None) -> bool:
    ends: list[Any] = []
    for band, _ in bands(channel.shape):
        values = channel[band] if mask is None else channel[band][mask[band]]
        if values.size:
            ends += [values.min(), values.max()]
    return not ends or bool(min(ends) == max(ends))


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
