"""What was found in the images of a dataset, before anything is learned from them."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dvlae.data.canonical import read_info, read_mask, read_noisy
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.defects.marks import DEAD, DOUBTFUL, GLARING, HOT, SATURATED, Defects
from dvlae.data.defects.scale import (
    MIXED_FACTOR,
    FrameScale,
    find_exceptions,
    find_mixed,
    typical_frame,
)
from dvlae.data.defects.seen import Conversion, SeenScale
from dvlae.data.manifest import Image
from dvlae.system.arrays import count_true
from dvlae.system.progress import progress
from dvlae.system.wording import count, list_names

logger = logging.getLogger(__name__)

# Kinds of pixels, and what they are left out of.
KINDS = {
    "hot": "training, and filled in",
    "dead": "training, and filled in",
    "doubtful": "training, and kept: two equally bright pixels side by side may be hot or an object",
    "masked": "training",
    "saturated": "normalisation",
    "glaring": "training",
}


@dataclass(frozen=True)
class Examination:
    """What was found in one image, without its pixels.

    Attributes
    ----------
    image
        The image.
    hot, dead, doubtful, saturated, glaring, masked, crowd
        Numbers of values.
    problem
        Why nothing is learned from it: ``blank``, ``overexposed``, ``masked`` or ``scale``; empty if it is used.
    scale
        Its scale; None if it cannot be used.
    """

    image: Image
    hot: int
    dead: int
    doubtful: int
    saturated: int
    glaring: int
    masked: int
    crowd: int
    problem: str
    scale: FrameScale | None

    @classmethod
    def of(cls, image: Image) -> "Examination":
        """Examine an image.

        Parameters
        ----------
        image
            A row of a manifest.

        Returns
        -------
        Examination
            What was found.
        """
        frame = _read(image)
        defects = frame.defects
        hot, dead, doubtful, saturated, glaring = (
            defects.count(kind) for kind in (HOT, DEAD, DOUBTFUL, SATURATED, GLARING)
        )
        masked = 0 if frame.mask is None else len(frame.noisy) * (frame.mask.size - count_true(frame.mask))
        scale = frame.scale if frame.usable else None
        return cls(image, hot, dead, doubtful, saturated, glaring, masked, defects.crowd, frame.problem, scale)

    @property
    def clean(self) -> bool:
        """Whether all pixels count."""
        return not (self.hot or self.dead or self.doubtful or self.saturated or self.masked)


def _read(image: Image) -> ExaminedFrame:
    return ExaminedFrame.examine(read_noisy(image), read_mask(image))


class Survey:
    """What was found in all images, before any patch is cut.

    Parameters
    ----------
    examinations
        What was found in each image.
    rescale
        Whether images of another gain and offset are brought to the scale of the typical one.

    Attributes
    ----------
    learned_from
        The images to cut patches from.
    conversions
        By the name of the image: gain and offset of an image that is brought to the scale of the others.
    """

    def __init__(self, examinations: Sequence[Examination], rescale: bool = False):
        usable = [each for each in examinations if each.scale is not None]
        scales = [each.scale for each in usable if each.scale is not None]
        self.conversions: dict[str, Conversion] = {}
        if rescale and scales:
            typical = SeenScale.of([scales[typical_frame(scales)]])
            for number, each in enumerate(usable):
                if not typical.includes(scales[number]) and (found := typical.conversion(scales[number])) is not None:
                    self.conversions[each.image.name] = found
                    scales[number] = found.of_scale(scales[number])
        exceptions = find_exceptions(scales)
        far = {each.image.name for each, is_far in zip(usable, exceptions, strict=True) if is_far}
        self.found = {
            each.image.name: replace(each, problem="scale") if each.image.name in far else each for each in examinations
        }
        self.learned_from = [each.image for each in self.found.values() if not each.problem]
        self.scales = [scale for scale, is_far in zip(scales, exceptions, strict=True) if not is_far]
        self.apart = find_mixed(self.scales)

    @classmethod
    def of(cls, images: Sequence[Image], *, rescale: bool = False) -> "Survey":
        """Examine images, one at a time, and say what was found.

        Parameters
        ----------
        images
            Rows of a manifest.
        rescale
            Whether images of another gain and offset are brought to the scale of the typical one.

        Returns
        -------
        Survey
            What was found in all of them.
        """
        survey = cls(
            [Examination.of(image) for image in progress(images, description="examine", unit="image")], rescale
        )
        survey.log()
        return survey

    @property
    def seen(self) -> SeenScale:
        """The range of the scales that are learned, without those that one scale cannot hold."""
        scales = [scale for scale, apart in zip(self.scales, self.apart, strict=True) if not apart]
        return SeenScale.of(scales, read_info(self.learned_from[0].noisy).units)

    def read(self, image: Image) -> ExaminedFrame:
        """Read an image that patches are cut from.

        Parameters
        ----------
        image
            One of the images.

        Returns
        -------
        ExaminedFrame
            The image, on the scale of the others.
        """
        if self.found[image.name].clean:  # There is no need to look again.
            noisy = read_noisy(image)
            frame = ExaminedFrame(noisy, None, Defects.none(noisy.shape))
        else:
            frame = _read(image)
        conversion = self.conversions.get(image.name)
        return frame if conversion is None else replace(frame, noisy=conversion.apply(frame.noisy))

    def needs_mask(self, images: Iterable[Image]) -> bool:
        """Return whether any pixel of these images is left out of the loss.

        Parameters
        ----------
        images
            Some of the images.

        Returns
        -------
        bool
            True if there are hot, dead, doubtful, glaring or masked pixels.
        """
        found = (self.found[image.name] for image in images)
        return any(each.hot or each.dead or each.doubtful or each.glaring or each.masked for each in found)

    def summary(self) -> dict[str, Any]:
        """Return what was found, as plain values.

        Returns
        -------
        dict
            Numbers of values, and names of images, by kind.
        """
        summary: dict[str, Any] = {
            kind: {each.image.name: getattr(each, kind) for each in self.found.values() if getattr(each, kind)}
            for kind in KINDS
        }
        summary["left_out"] = {each.image.name: each.problem for each in self.found.values() if each.problem}
        summary["rescaled"] = {name: found.to_json() for name, found in self.conversions.items()}
        return summary

    def log(self) -> None:
        """Say in one line for each kind what was found."""
        found, total = self.found.values(), count(len(self.found), "image")
        for kind, what in KINDS.items():
            if number := sum(getattr(each, kind) for each in found):
                logger.log(
                    logging.WARNING if kind in ("hot", "dead", "doubtful") else logging.INFO,
                    f"patches: {count(number, f'{kind} pixel value')} in "
                    f"{sum(bool(getattr(each, kind)) for each in found)} of {total}: left out of the {what}",
                )
        if crowds := [each.image.name for each in self.found.values() if each.crowd]:
            logger.warning(
                f"patches: WARNING: single pixels stand out in {list_names(crowds)}, but too many to be hot: they are "
                "taken for the noise or the object"
            )
        left_out = {name: each.problem for name, each in self.found.items() if each.problem}
        for problem in sorted(set(left_out.values()) - {"scale"}):
            names = [name for name, found in left_out.items() if found == problem]
            logger.warning(f"patches: {problem}, so nothing is learned from them: {list_names(names)}")
        if far := [name for name, problem in left_out.items() if problem == "scale"]:
            logger.warning(
                f"patches: far brighter or darker than all others, so nothing is learned from them: {list_names(far)}; "
                "`training.rescale: true` helps if they have another gain or offset"
            )
        if mixed := [image.name for image, apart in zip(self.learned_from, self.apart, strict=True) if apart]:
            logger.warning(
                f"patches: WARNING: the noise of {list_names(mixed)} differs by more than a factor of {MIXED_FACTOR:g} "
                "from that of the others: one scale cannot hold both; if they have another gain or offset, such as 8 "
                "and 16 bits, set `training.rescale: true`, or make two datasets"
            )
