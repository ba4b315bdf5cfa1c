"""The settings of a dataset's file: its images, and how they are read, used for training and evaluated."""

import warnings
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dvlae.config.fields import (
    IMAGES_HELP,
    Count,
    Images,
    Index,
    NoiseDirection,
    NotNegative,
    Positive,
    Range,
    Seed,
    StrictModel,
)


class CropSettings(StrictModel):
    """A part of every image."""

    z: Range | None = Field(None, description="first plane and the plane after the last; `null`: all planes")
    y: Range | None = Field(None, description="first row and the row after the last; `null`: all rows")
    x: Range | None = Field(None, description="first column and the column after the last; `null`: all columns")

    @field_validator("z", "y", "x")
    @classmethod
    def _rising(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"found {value}, allowed: [first, after the last] with first < after the last")
        return value


class SourceSettings(StrictModel):
    """Where the images come from."""

    kind: Literal["download", "files", "skimage"] = Field(
        description="`download`: from the addresses in `registry`; `files`: your own files; `skimage`: in scikit-image"
    )
    registry: str | None = Field(
        None,
        description="only for `download`: CSV next to the dataset's file, with the columns "
        "file,sha256,url,member,archive_sha256; rows with the same `file` are alternatives; `member`: a path in an "
        "archive; an empty `sha256` is recorded at the first download in a `.lock` file next to the registry, and "
        "enforced afterwards",
    )

    @model_validator(mode="after")
    def _registry(self) -> "SourceSettings":
        if (self.kind == "download") != (self.registry is not None):
            found = "no registry" if self.registry is None else f"registry {self.registry!r}"
            raise ValueError(
                f"found kind {self.kind!r} with {found}, allowed: a registry with kind 'download', and only there"
            )
        return self


class SimulateSettings(StrictModel):
    """The noise that is added to clean images."""

    photons: Positive = Field(50.0, description="photons in a pixel at white level (Poisson); fewer is noisier")
    kernel: Annotated[list[float], Field(min_length=1)] = Field(
        [1.0],
        description="filter of the noise along the noise direction, from the current pixel to the ones after it; "
        "scaled to unit energy, which preserves the variance",
    )
    read_noise: NotNegative = Field(0.02, description="standard deviation of the read noise, in units of white")
    offset: float = Field(0.0, description="added to every pixel, in units of white")
    bits: Annotated[int, Field(ge=1, le=16)] | None = Field(
        8, description="saturation and rounding to 0 .. 2^bits - 1; `null`: neither, in units of white"
    )
    frames: Count = Field(1, description="noisy frames of each clean image")
    seed: Seed = Field(0, description="seed of the noise")

    @field_validator("kernel")
    @classmethod
    def _not_zero(cls, value: list[float]) -> list[float]:
        if not any(value):
            raise ValueError(f"found {value}, allowed: at least one number that is not zero")
        return value


class SplitSettings(StrictModel):
    """The images for training."""

    images: Images = Field("all", description=f"images for training: {IMAGES_HELP}")
    block: Count = Field(1, description="neighbouring images that belong together; validation takes complete blocks")


with warnings.catch_warnings():
    # The field hides a method of the metaclass, `ABCMeta.register`, which nobody calls.
    warnings.filterwarnings("ignore", message='Field name "register"')

    class EvaluationSettings(StrictModel):
        """How an estimate is compared with the clean image."""

        images: Images = Field("all", description=f"images that are evaluated: {IMAGES_HELP}")
        crop: CropSettings | None = Field(None, description="region that is evaluated, within the dataset's own crop")
        register: bool = Field(False, description="first shift the clean image onto the noisy one, with subpixel steps")
        fit: Literal["none", "estimate_to_clean", "clean_to_noisy"] = Field(
            "none",
            description="gain and offset found by least squares for each image before PSNR: of the estimate, "
            "or once of the clean image",
        )
        border: Index = Field(0, description="pixels left out at both ends along y and x, not along z")
        data_range: Literal["auto"] | Positive = Field(
            "auto",
            description="range of grey values in PSNR and SSIM; `auto`: maximum - minimum of the clean image as used",
        )


class DatasetSettings(StrictModel):
    """A dataset's file: the images, and how to read, use and evaluate them."""

    title: str | None = Field(None, description="one line for whoever reads this file")
    source: SourceSettings = Field(description="where the images come from")
    noisy: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="glob of the noisy files, or a list of them, in natural order, relative to the data folder or "
        "absolute (kind `skimage`: names in the wheel's `skimage/data`); TIFF or PNG"
    )
    clean: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="glob of the clean files, in the same order; `mean`: the mean of all noisy frames; "
        "`null`: no clean image, hence no PSNR",
    )
    simulate: SimulateSettings | None = Field(
        None, description="noise to add: `noisy` then names clean images; `null`: the images are noisy already"
    )
    axes: str = Field(
        description="axes of each file in order, of S (images), T (time), C (channels), Z, Y and X: for example `YXC`; "
        "`ZYX` for volumes; `X` or `SX` for traces"
    )
    channel: Index | Literal["grey"] | None = Field(
        None,
        description="keep only this channel; `grey`: the luminance of RGB files, others as they are; `null`: keep all",
    )
    crop: CropSettings | None = Field(None, description="crop of every image, before all other steps")
    noise_direction: NoiseDirection = Field(
        description="`x`: the noise is correlated along rows (or along a trace); `y`: along columns; `z`: across the "
        "planes of a volume; `none`: not at all"
    )
    training: SplitSettings = Field(SplitSettings(), description="images for training")
    evaluation: EvaluationSettings = Field(
        EvaluationSettings(), description="how an estimate is compared with the clean image"
    )
    license: str | None = Field(None, description="licence of the images")
    citation: str | None = Field(None, description="what to cite for the images")

    @field_validator("axes")
    @classmethod
    def _axes(cls, value: str) -> str:
        spatial = set(value) & set("ZYX")
        known = set(value) <= set("STCZYX") and len(set(value)) == len(value)
        if not known or spatial not in ({"X"}, {"Y", "X"}, {"Z", "Y", "X"}):
            raise ValueError(
                f"found {value!r}, allowed: each of S, T, C, Z, Y, X at most once, with X; Y and X; or Z, Y and X; "
                "for example YX, YXC or ZYX"
            )
        return value

    @property
    def dimensions(self) -> int:
        """The number of spatial axes: 1 for traces, 2 for images, 3 for volumes."""
        return sum(axis in self.axes for axis in "ZYX")

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetSettings":
        if self.simulate and self.clean is not None:
            raise ValueError(
                f"clean: found {self.clean!r}, allowed: null, as with `simulate` the key `noisy` names the clean images"
            )
        if self.simulate and self.noise_direction == "none" and len(self.simulate.kernel) > 1:
            raise ValueError(
                f"simulate.kernel: found {len(self.simulate.kernel)} numbers, allowed: one, as noise_direction is none"
            )
        if self.noise_direction != "none" and self.noise_direction.upper() not in self.axes:
            there = [axis for axis in "xyz" if axis.upper() in self.axes]
            raise ValueError(
                f"noise_direction: found {self.noise_direction!r}, allowed: {', '.join(there)}, none, "
                f"as the axes {self.axes!r} have no {self.noise_direction.upper()}"
            )
        for key, crop in (("crop", self.crop), ("evaluation.crop", self.evaluation.crop)):
            for axis in "zy":
                if crop is not None and getattr(crop, axis) is not None and axis.upper() not in self.axes:
                    raise ValueError(
                        f"{key}.{axis}: found {getattr(crop, axis)}, allowed: null, "
                        f"as the axes {self.axes!r} have no {axis.upper()}"
                    )
        if isinstance(self.channel, int) and "C" not in self.axes:
            raise ValueError(f"channel: found {self.channel}, allowed: null, as the axes {self.axes!r} have no C")
        return self
