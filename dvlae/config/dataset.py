"""The settings of a dataset's file: its images, and how they are read, used for training and evaluated."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

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
    y: Range | None = Field(
        None,
        description="first row and the row after the last; negative numbers count from the end, so that `[0, -60]` "
        "leaves out the last 60; `null`: all rows",
    )
    x: Range | None = Field(None, description="first column and the column after the last; `null`: all columns")

    @field_validator("z", "y", "x")
    @classmethod
    def _rising(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and value[0] >= value[1] and (value[0] < 0) == (value[1] < 0):
            raise ValueError(f"found {value}, allowed: [first, after the last] with first < after the last")
        return value


class PagesSettings(StrictModel):
    """The lengths of the axes that the pages of a file count."""

    S: Count | None = Field(None, description="number of images")
    T: Count | None = Field(None, description="number of times")
    C: Count | None = Field(None, description="number of channels; 2 with the axes `TCYX`: pages alternate between two")
    Z: Count | None = Field(None, description="number of planes")


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


class SweepSettings(StrictModel):
    """Several strengths and correlation lengths of the simulated noise."""

    correlation_length: Annotated[list[Index], Field(min_length=1)] = Field(
        description="in pixels: noise is correlated up to this distance, as `simulate.kernel` has one weight more, all "
        "of them equal; with `0`, `noise_direction` is `none`"
    )
    photons: Annotated[list[Count], Field(min_length=1)] = Field(description="values of `simulate.photons`")

    @field_validator("correlation_length", "photons")
    @classmethod
    def _unique(cls, values: list[int]) -> list[int]:
        if len(set(values)) < len(values):
            raise ValueError(f"found {values}, allowed: each number once")
        return values


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
        noise_free: bool = Field(
            False,
            description="the clean images hold no noise, so that it limits no PSNR, and no hot pixels; always so with "
            "`simulate`",
        )


def _simulated_is_noise_free(settings: EvaluationSettings, info: ValidationInfo) -> EvaluationSettings:
    return settings.model_copy(update={"noise_free": True}) if info.data.get("simulate") else settings


# The block of a dataset's file, after the field `simulate`.
EvaluationBlock = Annotated[EvaluationSettings, AfterValidator(_simulated_is_noise_free), Field(validate_default=True)]


class SizeSettings(StrictModel):
    """How many images there are, and how large they are."""

    images: Count = Field(description="number of images, over all files")
    sides: Annotated[list[Count], Field(min_length=1, max_length=3)] = Field(
        description="their sides in pixels, before `crop`, `[z, y, x]`, `[y, x]` or `[x]`"
    )


class PublishedResult(StrictModel):
    """A result that others published."""

    method: Annotated[str, Field(min_length=1)] = Field(description="what they call the method")
    psnr: Positive = Field(description="in decibels")
    source: Annotated[str, Field(min_length=1)] = Field(description="where it is published")
    conditions: Annotated[str, Field(min_length=1)] = Field(description="how and on which images it was measured")

    @property
    def summary(self) -> dict[str, str | float]:
        """What ``tables/summary`` shows of it."""
        return {"method": self.method, "psnr": self.psnr, "source": f"{self.source}; {self.conditions}"}


PUBLISHED_HELP = "results that others published, which `tables/summary` shows below ours"
# What others published, by dataset.
PublishedResults = Mapping[str, Sequence[PublishedResult]]


class PublishedSettings(StrictModel):
    """What others measured on a dataset."""

    published: list[PublishedResult] = Field([], description=PUBLISHED_HELP)


class DatasetSettings(StrictModel):
    """A dataset's file: the images, and how to read, use and evaluate them."""

    title: str | None = Field(None, description="one line for whoever reads this file")
    source: SourceSettings = Field(description="where the images come from")
    noisy: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="glob of the noisy files, or their folder, or a list of these, in natural order, relative to the "
        "data folder or absolute (kind `skimage`: names in the wheel's `skimage/data`); `*.tif` finds `a.TIF`, too"
    )
    clean: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="glob of the clean files, in the same order (equal names need equal places), each with as many "
        "frames as its noisy file, or all with one, for all frames of the noisy one; `mean`: the mean of all noisy "
        "frames; `null`: no clean image, hence no PSNR",
    )
    simulate: SimulateSettings | None = Field(
        None, description="noise to add: `noisy` then names clean images; `null`: the images are noisy already"
    )
    sweep: SweepSettings | None = Field(
        None,
        description="several kinds of `simulate`: the file then is one dataset for each, called "
        "`NAME_length4_photons10`; `null`: the file is one dataset",
    )
    axes: str = Field(
        "auto",
        description="axes of each file, the slowest first, of S (images), T (time), "
        "C (channels), Z, Y and X: for example `YXC`; `ZYX` for volumes; `X` or `SX` for traces; `auto`: what the file "
        "says",
    )
    axes_override: bool = Field(False, description="use `axes` even where a file says otherwise")
    pages: PagesSettings = Field(
        PagesSettings(), description="how many axes the pages of a file count, where the file does not say so"
    )
    series: Index | str = Field(
        "auto",
        description="the series of images in each file: its number or name; `all`; `auto`: the only one, or the one "
        "that all others are previews of",
    )
    channel: Index | Literal["grey"] | None = Field(
        None,
        description="keep only this channel; `grey`: the luminance of RGB files, others as they are; `null`: keep all",
    )
    crop: CropSettings | None = Field(None, description="crop of every image, before all other steps")
    mask: Annotated[str, Field(min_length=1)] = Field(
        "auto",
        description="pixels that count; all others are not learned from, and stay as they are; `auto`: all but those "
        "that are not numbers, and a border with one value that no other pixel has; `none`: all; or an image file with "
        "0 at pixels that do not count, relative to the data folder or absolute",
    )
    noise_direction: NoiseDirection = Field(
        description="`x`: the noise is correlated along rows (or along a trace); `y`: along columns; `z`: across the "
        "planes of a volume; `none`: not at all"
    )
    size: SizeSettings | None = Field(
        None,
        description="what the files hold, from which `dvlae status --estimate` tells the time of images that are not "
        "there yet; `null`: not known",
    )
    training: SplitSettings = Field(SplitSettings(), description="images for training")
    evaluation: EvaluationBlock = Field(
        EvaluationSettings(), description="how an estimate is compared with the clean image"
    )
    published: list[PublishedResult] = Field([], description=PUBLISHED_HELP)
    license: str | None = Field(None, description="licence of the images")
    citation: str | None = Field(None, description="what to cite for the images")

    @field_validator("axes")
    @classmethod
    def _axes(cls, value: str) -> str:
        if value == "auto":
            return value
        spatial = set(value) & set("ZYX")
        known = set(value) <= set("STCZYX") and len(set(value)) == len(value)
        if not known or spatial not in ({"X"}, {"Y", "X"}, {"Z", "Y", "X"}):
            raise ValueError(
                f"found {value!r}, allowed: auto, or each of S, T, C, Z, Y, X at most once, with X; Y and X; or Z, Y "
                "and X; for example YX, YXC or ZYX"
            )
        return value

    @property
    def page_counts(self) -> dict[str, int]:
        """The lengths of the axes that `pages` names."""
        return self.pages.model_dump(exclude_none=True)

    @property
    def has_clean(self) -> bool:
        """Whether there are clean images."""
        return self.simulate is not None or self.clean is not None

    @property
    def dimensions(self) -> int | None:
        """The number of spatial axes: 1 for traces, 2 for images, 3 for volumes. None: the files say it."""
        return None if self.axes == "auto" else sum(axis in self.axes for axis in "ZYX")

    def members(self, name: str) -> dict[str, "DatasetSettings"]:
        """Return the datasets that the file stands for.

        Parameters
        ----------
        name
            The name of the file.

        Returns
        -------
        dict
            The settings of each dataset by its name: of one for each kind of noise in ``sweep``, or of this one.
        """
        if self.sweep is None or self.simulate is None:
            return {name: self}
        return {
            f"{name}_length{length}_photons{photons}": self.model_copy(
                update={
                    "sweep": None,
                    "noise_direction": self.noise_direction if length else "none",
                    "simulate": self.simulate.model_copy(
                        update={"photons": float(photons), "kernel": [1.0] * (length + 1)}
                    ),
                }
            )
            for length in self.sweep.correlation_length
            for photons in self.sweep.photons
        }

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
        if self.sweep and (self.simulate is None or self.noise_direction == "none"):
            raise ValueError("sweep: found a block, allowed only with `simulate` and a noise_direction")
        if self.sweep and self.simulate and (twice := self.simulate.model_fields_set & {"kernel", "photons"}):
            raise ValueError(f"simulate.{min(twice)}: found a value, allowed: none, as `sweep` sets it")
        if self.axes == "auto":
            for key, value in (("axes_override", self.axes_override), ("pages", self.page_counts)):
                if value:
                    raise ValueError(f"{key}: found {value}, allowed only with axes that are named, found axes 'auto'")
        elif not set(self.page_counts) <= set(self.axes):
            raise ValueError(f"pages: found {self.page_counts}, allowed: axes that `axes` names, found {self.axes!r}")
        if self.size is not None and self.dimensions not in (None, len(sides := self.size.sides)):
            raise ValueError(f"size.sides: found {sides}, allowed: {self.dimensions} numbers, as axes is {self.axes!r}")
        if self.axes != "auto":
            check_axes(self, self.axes)
        return self


def check_axes(dataset: DatasetSettings, axes: str) -> None:
    """Refuse settings that name an axis which the images do not have.

    Parameters
    ----------
    dataset
        The settings.
    axes
        The axes of the images.

    Raises
    ------
    ValueError
        If one of the settings does not fit.
    """
    if dataset.noise_direction != "none" and dataset.noise_direction.upper() not in axes:
        there = [axis for axis in "xyz" if axis.upper() in axes]
        raise ValueError(
            f"noise_direction: found {dataset.noise_direction!r}, allowed: {', '.join(there)}, none, "
            f"as the axes {axes!r} have no {dataset.noise_direction.upper()}"
        )
    for key, crop in (("crop", dataset.crop), ("evaluation.crop", dataset.evaluation.crop)):
        for axis in "zy":
            if crop is not None and getattr(crop, axis) is not None and axis.upper() not in axes:
                raise ValueError(
                    f"{key}.{axis}: found {getattr(crop, axis)}, allowed: null, as the axes {axes!r} have no "
                    f"{axis.upper()}"
                )
    if isinstance(dataset.channel, int) and "C" not in axes:
        raise ValueError(f"channel: found {dataset.channel}, allowed: null, as the axes {axes!r} have no C")
