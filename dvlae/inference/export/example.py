"""The image on which an exported model is tried, and what our own inference makes of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dvlae.axes import middle
from dvlae.config.settings import PredictionSettings
from dvlae.data.canonical import read_info, read_mask, read_noisy
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.defects.scale import measure_scale
from dvlae.data.manifest import read_manifest
from dvlae.inference.direct import denoise_directly
from dvlae.inference.export.formats import Denoise
from dvlae.inference.export.network import ExportedDenoiser
from dvlae.inference.generation import PRIOR_NAME, sample_code_from_prior, sample_noisy
from dvlae.inference.posterior import check_model_input
from dvlae.inference.tiling import padded_shape
from dvlae.models.dvlae import DVLAE
from dvlae.system.errors import UserError

# The sides of an example, in pixels, by the number of spatial axes, if tiles may be as small.
SIDES = {1: 2**12, 2: 256, 3: 48}
# The largest difference from our own numbers, in standard deviations of the noise.
TOLERANCE = 1e-3
# Roundings of float32 on the way from grey values to normalised ones and back, for the guess and for the estimate.
ROUNDINGS = 4


@dataclass(frozen=True)
class Example:
    """A noisy image for an exported model.

    Attributes
    ----------
    model
        The model.
    noisy
        The image, (C, ...) float32, with sides that tiles may have.
    recorded
        Name of the recorded image of which it is a part; None: it was sampled from the prior of the model.
    """

    model: DVLAE
    noisy: np.ndarray
    recorded: str | None

    @classmethod
    def choose(cls, model: DVLAE, network: ExportedDenoiser, images: Path | None) -> "Example":
        """Take the middle of an image, or sample an image from the prior.

        Parameters
        ----------
        model, network
            The model, and the network made of it.
        images
            Folder with ``manifest.csv``; None: no recorded image is used.

        Returns
        -------
        Example
            The middle one of the images, or the next one after it that shows something.

        Raises
        ------
        UserError
            If the images do not fit the model, none shows anything, or their grey values are too large for float32.
        """
        dimensions = len(network.stride)
        usual = padded_shape([SIDES[dimensions]] * dimensions, network.stride)
        sides = tuple(map(max, usual, network.smallest))
        if images is None:
            code = sample_code_from_prior(model, sides, number=0, seed=0)
            noisy = sample_noisy(model, code, sides, name=PRIOR_NAME, number=0, seed=0)
            return cls(model, noisy, None)

        manifest = read_manifest(images)
        for image in manifest:
            check_model_input(model.architecture, image.shape, image.name)
            if (units := read_info(image.noisy).units) != {"offset": 0, "scale": 1}:
                raise UserError(
                    f"{images}: found grey values so large or so small that {units['offset']:g} is subtracted and what "
                    f"remains is divided by {units['scale']:g} before they become float32, which other programs do not "
                    "do; such a model cannot be exported"
                )
        half = len(manifest) // 2
        for image in manifest[half:] + manifest[:half]:
            frame = ExaminedFrame.examine(read_noisy(image), read_mask(image))
            if not frame.usable:
                continue
            part = frame.filled[(slice(None), *middle(image.shape[1:], sides))]
            padding = [(0, 0), *((0, side - length) for side, length in zip(sides, part.shape[1:], strict=True))]
            example = cls(model, np.pad(part, padding, "symmetric"), image.name)
            if (example.noise > 0).all():
                return example
        raise UserError(f"{images}: found no image that shows noise in its middle; allowed: those of the training")

    @cached_property
    def noise(self) -> np.ndarray:
        """The standard deviation of the noise in each channel, (C,)."""
        return measure_scale(self.noisy).noise

    @property
    def rounding(self) -> float:
        """The difference, in grey values, that is left to the rounding of the brightest ones."""
        return ROUNDINGS * float(np.spacing(np.abs(self.noisy).max()))

    @cached_property
    def denoised(self) -> np.ndarray:
        """The estimate of dvlae itself, (C, ...)."""
        return self._denoise(self.noisy)

    def _denoise(self, image: np.ndarray) -> np.ndarray:
        # The exported network sees one view.
        settings = PredictionSettings(estimator="direct", flips=False, shifts=1)
        return denoise_directly(self.model, image, name="example", settings=settings)

    def difference(self, denoise: Denoise) -> float:
        """Compare an exported model with our own inference: on the example, and on two images of other sides at once.

        Parameters
        ----------
        denoise
            Runs the exported model.

        Returns
        -------
        float
            The largest difference beyond rounding, in standard deviations of the noise; NaN if a value is none.
        """
        smaller = self.noisy[(slice(None), *(slice(1, 2 + side // 2) for side in self.noisy.shape[1:]))]
        pair = np.stack([smaller, smaller[..., ::-1]])
        found = [denoise(self.noisy[None])[0], *denoise(pair)]
        expected = [self.denoised, *map(self._denoise, pair)]
        ones = (1,) * (self.noisy.ndim - 1)
        differences = [
            (np.abs(ours - theirs) - self.rounding) / self.noise.reshape(-1, *ones)
            for ours, theirs in zip(expected, found, strict=True)
        ]
        return float(np.max([0.0, *(values.max() for values in differences)]))
