"""Every setting of the project: its name, type, default and meaning, and the one place where it is checked.

Two kinds of file exist: a configuration (:class:`Settings`) and a dataset (:class:`DatasetSettings`). Each step of the
workflow is handed only the settings that matter to it (:class:`PatchSettings`, :class:`TrainSettings`,
:class:`PredictSettings`), so that a change reruns that step and what follows, and nothing else.
``python -m dvlae.config`` prints ``config/README.md``.
"""

import difflib
import json
import re
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dvlae.errors import UserError
from dvlae.models.receptive_field import kernel_and_blocks

MOST_CHARACTERS = 2**18  # of a file of settings, and most values in it
MOST_PROBLEMS = 20  # that are shown
SLICE = re.compile(r"-?\d{0,9}:-?\d{0,9}(:[1-9]\d{0,8})?")  # "0:8", ":10", "-8:", "::2"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # a dataset's name becomes a folder and a wildcard
TAKEN = {"tables", "figures", "logs", "benchmarks"}  # folders that stand beside those of the datasets

Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0)]
Range = Annotated[list[Index], Field(min_length=2, max_length=2)]
SMALLEST_CROP = 8  # pixels along y and x; a volume may be a few planes deep
PatchSize = Annotated[int, Field(ge=SMALLEST_CROP)] | Annotated[list[Count], Field(min_length=1, max_length=3)]
Images = str | Annotated[list[str], Field(min_length=1)]
Device = Literal["auto", "cpu", "cuda", "mps"]

IMAGES = (
    "`all`, a list of image names, a slice such as `0:8`, or a text file with one name a line (relative to this file)"
)


class Strict(BaseModel):
    """Settings that refuse unknown keys and values of another type, and cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _check_devices(devices: int, accumulate: int) -> None:
    if accumulate % devices:
        raise ValueError(f"devices: found {devices}, allowed: divisors of training.accumulate, which is {accumulate}")


def _check_sides(patch_size: PatchSize) -> PatchSize:
    if isinstance(patch_size, list) and min(patch_size[-2:]) < SMALLEST_CROP:
        raise ValueError(f"found {patch_size}, allowed: sides of at least {SMALLEST_CROP} along y and x, 1 along z")
    return patch_size


def _check_selection(images: Images) -> Images:
    if isinstance(images, str) and not images.strip():
        raise ValueError("found '', allowed: all, a list of image names, a slice such as 0:8, or a file of names")
    return images


# ---------------------------------------------------------------------------------------------- configuration


class ModelSettings(Strict):
    """The network's size."""

    levels: Count = Field(3, description="stochastic levels of the ladder VAE (paper: 14)")
    channels: Count = Field(16, description="feature maps of each layer (paper: 128)")
    latent_channels: Count = Field(8, description="channels of the latent variable of each level (paper: 64)")
    components: Count = Field(3, description="Gaussians of the mixture in the autoregressive decoder's likelihood")
    levels_per_scale: Count = Field(1, description="levels that share one resolution before it is halved (paper: 2)")
    blocks: Count = Field(1, description="residual blocks on the way up and on the way down through a level (paper: 2)")
    autoregression: Literal["nonlinear", "linear"] = Field(
        "nonlinear",
        description="how the autoregressive decoder models noise, `nonlinear`: by a network that sees the whole signal "
        "code (the paper's); `linear`: as a linear autoregression whose strength depends on the signal alone, so that "
        "fine texture cannot pass for noise",
    )
    direct_denoiser: Literal[False, "mean", "median"] = Field(
        False,
        description="also train a network that predicts the `mean` (or `true`) or the `median` of the samples in one "
        "pass, for `prediction.estimator: direct`",
    )

    @field_validator("direct_denoiser", mode="before")
    @classmethod
    def _mean(cls, value: Any) -> Any:
        return "mean" if value is True else value


class TrainingSettings(Strict):
    """How long and how the network is trained."""

    patch_size: PatchSize = Field(
        64,
        description="side of the training crop along every spatial axis, in pixels (paper: 256), or a list with a side "
        "for each, `[z, y, x]`; multiples of the model's stride; no image may be smaller",
    )
    batch_size: Count = Field(4, description="crops in a batch (paper: 4)")
    accumulate: Count = Field(1, description="batches whose gradients are added before the weights change (paper: 4)")
    max_steps: Count | None = Field(None, description="batches at most; `null`: no such limit")
    max_epochs: Count = Field(1000, description="passes over the training patches at most")
    max_minutes: Positive | None = Field(
        8.0,
        description="training time at most, in minutes, over all attempts of a resumed training; `null`: no such limit",
    )
    patience: Count | None = Field(
        None, description="epochs without a better validation ELBO before training stops; `null`: never stops for that"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of the images (or, of one image, of the patches) kept for validation"
    )
    precision: Literal["auto", "32", "bf16"] = Field(
        "auto",
        description="numbers used in training, in bits; `auto`: bf16 where the GPU or the processor has instructions "
        "for it, else 32",
    )
    activation_checkpointing: bool = Field(
        False, description="compute the ladder's levels twice instead of keeping them: less memory, a third more time"
    )
    compile: bool = Field(
        False,
        description="translate the model with torch.compile: a minute or more at the start, faster steps; where that "
        "fails, training goes on without",
    )
    optimizer: Literal["muon", "adamax"] = Field(
        "muon",
        description="`muon` learns faster: as good after half the steps (docs/experiments.md); `adamax`: the paper's",
    )
    learning_rate: Positive = Field(
        0.01, description="highest learning rate, from which it falls to 0 over the training (paper: 0.002)"
    )
    free_bits: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="KL divergence that each level of the ladder may have at no cost, in nats per pixel value of the "
        "image (Kingma et al. 2016): against levels that collapse; `0`: none (the paper)",
    )

    _sides = field_validator("patch_size")(_check_sides)

    @field_validator("precision", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return "32" if value == 32 else value  # YAML reads a number where nobody writes quotes


class PredictionSettings(Strict):
    """How the denoised image is computed."""

    samples: Count = Field(16, description="samples of the posterior that are drawn (paper: 100)")
    estimator: Literal["mmse", "median", "direct"] = Field(
        "mmse",
        description="of the samples of each pixel, `mmse`: the mean; `median`: the median (all samples are kept in a "
        "temporary file meanwhile); `direct`: no samples, one pass of the network that `model.direct_denoiser` names",
    )
    flips: bool = Field(
        True,
        description="draw the samples in turn from the image and from its mirror images (along x only "
        "where the noise is not along x, and so on)",
    )
    shifts: Count = Field(
        4,
        description="draw the samples in turn from the image at so many places on the grid of the coarsest level: what "
        "depends on the place cancels in their mean (cycle spinning)",
    )
    save_samples: Index = Field(0, description="samples of each image to write into the folder `samples/`")
    tile: Literal["auto"] | Annotated[int, Field(ge=16)] = Field(
        "auto", description="longest side of a tile, in pixels; `auto`: chosen to bound the memory"
    )
    batch_size: Literal["auto"] | Count = Field("auto", description="samples computed at a time")

    @model_validator(mode="after")
    def _enough(self) -> "PredictionSettings":
        if self.estimator == "direct" and self.save_samples:
            raise ValueError(f"save_samples: found {self.save_samples}, allowed: 0, as estimator is direct")
        if self.save_samples > self.samples:
            raise ValueError(f"save_samples: found {self.save_samples}, allowed: at most samples, {self.samples}")
        return self


class Settings(Strict):
    """A configuration file: the grid is datasets x receptive_fields x seeds, plus the baselines."""

    datasets: Annotated[list[str], Field(min_length=1)] = Field(
        ["simulated"],
        description="names of files in `config/datasets/`, or paths of `.yaml` files relative to the working folder",
    )
    receptive_fields: Annotated[list[Index], Field(min_length=1)] = Field(
        [40],
        description="previous pixels in the noise direction that the autoregressive decoder sees; each one a method",
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        [0], description="seeds of training, each a training of its own"
    )
    baselines: Annotated[list[Literal["noisy", "gaussian", "bm3d"]], Field(min_length=1)] = Field(
        ["noisy", "gaussian"],
        description="methods to compare with; `bm3d` needs the extra of that name, free for non-commercial use only",
    )
    results: str = Field("results/demo", min_length=1, description="folder for everything that is computed")
    data: str = Field("data", min_length=1, description="folder of the images; downloads are kept there")
    data_mirror: str | None = Field(
        None,
        description="folder where downloads are looked for first; the environment variable `DVLAE_DATA_MIRROR` wins",
    )
    device: Device = Field("auto", description="where to compute; `auto`: a GPU where there is one")
    devices: Count = Field(
        1,
        description="GPUs of one training, which compute the batches of `training.accumulate` side by side, with the "
        "result of one GPU; a divisor of that",
    )
    tensorboard: bool = Field(
        False,
        description="write the history of each training for TensorBoard, too (an optional extra): "
        "`tensorboard --logdir results/demo`",
    )
    model: ModelSettings = Field(ModelSettings(), description="the network's size")
    training: TrainingSettings = Field(TrainingSettings(), description="how long and how it is trained")
    prediction: PredictionSettings = Field(PredictionSettings(), description="how the denoised image is computed")

    @field_validator("datasets", "receptive_fields", "seeds", "baselines")
    @classmethod
    def _unique(cls, values: list) -> list:
        keys = [dataset_name(value) if isinstance(value, str) else value for value in values]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"found {_show(key)} twice, allowed: each once")
        return values

    @field_validator("results", "data")
    @classmethod
    def _plain(cls, value: str) -> str:
        if value.startswith("-") or set(value) & set("{}\n"):
            raise ValueError(f"found {value!r}, allowed: no dash in front, no braces and no line breaks")
        return value

    @field_validator("receptive_fields")
    @classmethod
    def _reachable(cls, values: list[int]) -> list[int]:
        for value in values:
            try:
                kernel_and_blocks(value)
            except UserError as error:
                raise ValueError(str(error)) from None
        return values

    @model_validator(mode="after")
    def _direct(self) -> "Settings":
        if self.prediction.estimator == "direct" and not self.model.direct_denoiser:
            raise ValueError("prediction.estimator: found 'direct', allowed: only with model.direct_denoiser")
        return self

    @model_validator(mode="after")
    def _devices(self) -> "Settings":
        _check_devices(self.devices, self.training.accumulate)
        return self


# ---------------------------------------------------------------------------------------------- dataset


class CropSettings(Strict):
    """A part of every image."""

    z: Range | None = Field(None, description="first plane and the plane after the last; `null`: all planes")
    y: Range | None = Field(None, description="first row and the row after the last, in pixels; `null`: all rows")
    x: Range | None = Field(
        None, description="first column and the column after the last, in pixels; `null`: all columns"
    )

    @field_validator("z", "y", "x")
    @classmethod
    def _rising(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"found {value}, allowed: [first, after the last] with first < after the last")
        return value


class SourceSettings(Strict):
    """Where the images come from."""

    kind: Literal["download", "files", "skimage"] = Field(
        description="`download`: from the addresses in `registry`; `files`: yours, where they are; "
        "`skimage`: the images inside the scikit-image wheel"
    )
    registry: str | None = Field(
        None,
        description="only for `download`: CSV beside the dataset's file with the columns "
        "file,sha256,url,member,archive_sha256; rows with one `file` are alternatives; `member`: a path in an archive; "
        "an empty `sha256` is recorded at the first download in a `.lock` file beside the registry, and held to from "
        "then on",
    )

    @model_validator(mode="after")
    def _registry(self) -> "SourceSettings":
        if (self.kind == "download") != (self.registry is not None):
            found = "no registry" if self.registry is None else f"registry {self.registry!r}"
            raise ValueError(
                f"found kind {self.kind!r} with {found}, allowed: a registry with kind 'download', and only there"
            )
        return self


class SimulateSettings(Strict):
    """The noise that is added to clean images."""

    photons: Positive = Field(50.0, description="photons in a pixel at white level (Poisson); fewer is noisier")
    kernel: Annotated[list[float], Field(min_length=1)] = Field(
        [1.0],
        description="filter of the noise along the noise direction, from the current pixel to the ones after it; "
        "scaled to unit energy, so that it does not change the variance",
    )
    read_noise: Annotated[float, Field(ge=0)] = Field(
        0.02, description="standard deviation of the white noise added after the filter, in units of white"
    )
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


class SplitSettings(Strict):
    """Which images are learned from."""

    images: Images = Field("all", description=f"images that are trained on: {IMAGES}")
    block: Count = Field(1, description="neighbouring images that belong together; validation takes whole blocks")

    _selection = field_validator("images")(_check_selection)


with warnings.catch_warnings():
    # The class of all classes of settings has a method `register` (ABCMeta), which the field hides to no harm.
    warnings.filterwarnings("ignore", message='Field name "register"')

    class EvaluationSettings(Strict):
        """How an estimate is compared with the clean image."""

        images: Images = Field("all", description=f"images that are evaluated: {IMAGES}")
        crop: CropSettings | None = Field(None, description="region that is evaluated, within the dataset's own crop")
        register: bool = Field(
            False, description="shift the clean image onto the noisy one (to a fraction of a pixel) first"
        )
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

        _selection = field_validator("images")(_check_selection)


class DatasetSettings(Strict):
    """A dataset file: which images, how to read them, how to train on and evaluate them."""

    title: str | None = Field(None, description="one line for the tables and figures")
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
        "`ZYX` makes volumes; without Y it is traces, `SX` one a row"
    )
    channel: Index | Literal["grey"] | None = Field(
        None,
        description="keep this one channel; `grey`: the luminance of RGB files, others as they are; `null`: keep all",
    )
    crop: CropSettings | None = Field(None, description="part cut from every image before anything else")
    noise_direction: Literal["x", "y", "z", "none"] = Field(
        description="`x`: the noise is correlated along rows (or along a trace); `y`: along columns; `z`: across the "
        "planes of a volume; `none`: each pixel for itself"
    )
    training: SplitSettings = Field(SplitSettings(), description="which images are learned from")
    evaluation: EvaluationSettings = Field(
        EvaluationSettings(), description="how an estimate is compared with the clean image"
    )
    license: str | None = Field(None, description="licence of the images")
    citation: str | None = Field(None, description="what to cite for the images")

    @field_validator("axes")
    @classmethod
    def _axes(cls, value: str) -> str:
        spatial = {axis for axis in value if axis in "ZYX"}
        known = set(value) <= set("STCZYX") and len(set(value)) == len(value)
        if not known or spatial not in ({"X"}, {"Y", "X"}, {"Z", "Y", "X"}):
            raise ValueError(
                f"found {value!r}, allowed: each of S, T, C, Z, Y, X at most once, with X; Y and X; or Z, Y and X; "
                "for example YX, YXC or ZYX"
            )
        return value

    @property
    def dimensions(self) -> int:
        """Number of spatial axes: 1 for traces, 2 for images, 3 for volumes."""
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


# ---------------------------------------------------------------------------------------------- steps


class PatchSettings(Strict):
    """What ``dvlae extract-patches`` depends on."""

    patch_size: PatchSize = Field(64, description="side of the training crop, in pixels, or a list of sides")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share kept for validation")
    images: Images = Field("all", description="images that are trained on")
    block: Count = Field(1, description="neighbouring images that belong together")

    _sides = field_validator("patch_size")(_check_sides)
    _selection = field_validator("images")(_check_selection)


class TrainSettings(Strict):
    """What ``dvlae train`` depends on."""

    model: ModelSettings = Field(ModelSettings(), description="the network's size")
    training: TrainingSettings = Field(TrainingSettings(), description="how long and how it is trained")
    device: Device = Field("auto", description="where to compute")
    devices: Count = Field(1, description="number of GPUs")

    @model_validator(mode="after")
    def _devices(self) -> "TrainSettings":
        _check_devices(self.devices, self.training.accumulate)
        return self


class PredictSettings(Strict):
    """What ``dvlae predict`` depends on."""

    prediction: PredictionSettings = Field(PredictionSettings(), description="how the denoised image is computed")
    device: Device = Field("auto", description="where to compute")


def sides(patch_size: int | list[int], dimensions: int) -> tuple[int, ...]:
    """Return the sides of a training crop, in pixels, one for each spatial axis.

    Parameters
    ----------
    patch_size
        The setting ``training.patch_size``: one side for all axes, or a list.
    dimensions
        Number of spatial axes.

    Raises
    ------
    UserError
        Where the list has another length.
    """
    if isinstance(patch_size, int):
        return (patch_size,) * dimensions
    if len(patch_size) != dimensions:
        axes = ["x", "y, x", "z, y, x"][dimensions - 1]
        raise UserError(f"training.patch_size: found {patch_size}, allowed: a number, or {dimensions} sides [{axes}]")
    return tuple(patch_size)


# ---------------------------------------------------------------------------------------------- errors in plain words

S = TypeVar("S", bound=BaseModel)


def _show(value: Any) -> str:
    """Write a value as YAML would, short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def describe(schema: dict, definitions: dict) -> str:
    """Say in words what a JSON schema allows."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        return " or ".join(describe(option, definitions) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    limits = [
        f"{sign} {schema[name]:g}"
        for name, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if name in schema
    ]
    if kind == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        length = "at least one" if most is None else f"{most}" if least == most else f"{least} to {most}"
        return f"a list of {length}: " + describe(schema["items"], definitions)
    if kind == "object":
        return "a block with the keys " + ", ".join(schema["properties"])
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "null": "null",
    }
    return " ".join([words[kind], " and ".join(limits)]).strip()


def _schema_at(cls: type[BaseModel], path: Sequence) -> tuple[dict, dict]:
    """Return the JSON schema of the value at ``path``, and the definitions it refers to."""
    whole = cls.model_json_schema()
    definitions = whole.get("$defs", {})

    def step(options: list[dict], part: str | int) -> list[dict]:
        found = []
        for option in options:
            if "$ref" in option:
                option = definitions[option["$ref"].rsplit("/", 1)[1]]
            if "anyOf" in option:
                found += step(option["anyOf"], part)
            elif isinstance(part, int) and "items" in option:
                found.append(option["items"])
            elif part in option.get("properties", {}):
                found.append(option["properties"][part])
        return found

    options = [whole]
    for part in path:
        options = step(options, part)
    return (options[0] if len(options) == 1 else {"anyOf": options}), definitions


def _known_part(location: Sequence, data: Any) -> list:
    """Return as much of pydantic's location as is a path in the data; the rest names the branch of a union."""
    path = []
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(part)
    return path


def _value_at(path: Sequence, data: Any) -> Any:
    for part in path:
        data = data[part]
    return data


def _key(path: Sequence) -> str:
    """Write ``("crop", "y", 0)`` as ``crop.y[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _problem(cls: type[BaseModel], data: dict, error: dict) -> tuple[tuple, str]:
    """Turn one of pydantic's errors into the path of a key and a sentence about it."""
    if error["type"] in ("extra_forbidden", "invalid_key"):  # a key that is no text cannot be known either
        path = tuple(part for part in error["loc"] if part != "[key]")
        schema, definitions = _schema_at(cls, path[:-1])
        keys = list(_object(schema, definitions)["properties"])
        near = difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return path, f"unknown key; {hint}allowed: {', '.join(keys)}"
    if error["type"] == "missing":
        path = tuple(error["loc"])
        return path, f"missing; it needs {describe(*_schema_at(cls, path))}"
    path = tuple(_known_part(error["loc"], data))
    if error["type"] == "value_error":
        return path, error["msg"].removeprefix("Value error, ")
    value = _value_at(path, data)
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        hint = f" (YAML takes this for text; write {float(value)!r})"
    return path, f"found {_show(value)}, allowed: {describe(*_schema_at(cls, path))}{hint}"


def _object(schema: dict, definitions: dict) -> dict:
    """Return the schema of a block out of ``block or null``."""
    for option in schema.get("anyOf", [schema]):
        if "$ref" in option:
            option = definitions[option["$ref"].rsplit("/", 1)[1]]
        if "properties" in option:
            return option
    raise AssertionError("unknown keys are found in blocks only")


def validate(cls: type[S], data: Any, where: str | Sequence[str]) -> S:
    """Check settings and fill in the defaults.

    Parameters
    ----------
    cls
        The settings' class, for example :class:`Settings`.
    data
        What was read from a file.
    where
        The file, or several files of which later ones were laid over earlier ones: each problem is then put down to
        the file that holds the key.

    Returns
    -------
    cls
        The checked settings.

    Raises
    ------
    UserError
        One line a problem: file, key, what was found, what is allowed.
    """
    files = [where] if isinstance(where, str) else list(where)
    if not isinstance(data, dict):
        raise UserError(f"{files[-1]}: found {_show(data)}, allowed: the keys {', '.join(_properties(cls))}")
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
        problems = dict(_problem(cls, data, item) for item in errors[:MOST_PROBLEMS])  # one a key: a union has several
    lines = []
    for path, text in problems.items():
        file = files[0] if len(files) == 1 else locate(path, files)
        lines.append(": ".join(filter(None, [file, _key(path), text])))
    if len(errors) > MOST_PROBLEMS:
        lines.append(f"{files[-1]}: and {len(errors) - MOST_PROBLEMS} problems more")
    raise UserError("\n".join(lines))


def _properties(cls: type[BaseModel]) -> dict:
    return cls.model_json_schema()["properties"]


# ---------------------------------------------------------------------------------------------- reading


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error."""

    def construct_mapping(self, node, deep=False):
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            keys.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML or JSON file; an empty file is an empty dictionary.

    Raises
    ------
    UserError
        Where the file is missing, cannot be read, or is not YAML.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)
        _check_size(text)
        data = yaml.load(text, Loader=_Loader)
        _count_values(data, {})
    except OSError as error:
        raise UserError(f"{path}: {error.strerror.lower()}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2024-13-32, a number of 5000 digits
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise UserError(f"{path}: not YAML{place}: {problem}") from None
    return {} if data is None else data


def _check_size(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"more than {MOST_CHARACTERS} characters")


def _count_values(data: Any, counted: dict[int, int]) -> int:
    """Count the values in settings as they would be written out; refuse what no settings hold.

    A few lines of YAML in which each refers to the line before twice can stand for more values than memory holds.
    """
    if isinstance(data, str):
        if "\0" in data or not data.isascii() and _is_half_a_character(data):
            raise ValueError(f"the text {data!r} holds a NUL or half a character")
        return 1
    if not isinstance(data, dict | list):
        return 1
    if id(data) not in counted:
        counted[id(data)] = MOST_CHARACTERS + 1  # so much, should it be within itself
        children = [*data, *data.values()] if isinstance(data, dict) else data
        counted[id(data)] = 1 + sum(_count_values(child, counted) for child in children)
    if counted[id(data)] > MOST_CHARACTERS:
        raise ValueError("its references stand for too many values")
    return counted[id(data)]


def _is_half_a_character(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def load_configuration(files: Sequence[str | Path], default: str = "config/config.yaml") -> Settings:
    """Read the configuration of the workflow: the default, and files that are laid over it, as Snakemake does.

    Parameters
    ----------
    files
        What Snakemake is given as ``--configfile``.
    default
        Read first. It may be missing where there are ``files``.

    Raises
    ------
    UserError
        Where a file cannot be read or a setting is wrong.
    """
    every = [str(file) for file in files]
    if not every or Path(default).exists():
        every.insert(0, default)
    merged: dict = {}
    for file in every:
        data = read_yaml(file)
        if not isinstance(data, dict):
            validate(Settings, data, file)  # which says what is wrong with it
        merged = _laid_over(merged, data)
    return validate(Settings, merged, every)


def _laid_over(lower: dict, upper: dict) -> dict:
    """Return ``lower`` with the keys of ``upper``: blocks key by key, all else as a whole."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def load_settings(cls: type[S], text_or_path: str | Path | None, key: str | None = None) -> S:
    """Read and check settings.

    Parameters
    ----------
    cls
        The settings' class.
    text_or_path
        A YAML or JSON file, or JSON itself (it starts with ``{``); ``None`` gives the defaults.
    key
        Take only this block of the file.

    Returns
    -------
    cls
        The checked settings. The paths in a dataset's file, which are relative to it, are made relative to the
        working folder.

    Raises
    ------
    UserError
        Where the file cannot be read or a setting is wrong.
    """
    if text_or_path is None:
        return validate(cls, {}, "settings")
    if str(text_or_path).lstrip().startswith("{"):
        where = "settings"
        try:
            data = json.loads(str(text_or_path))
            _count_values(data, {})
        except (ValueError, RecursionError) as error:
            raise UserError(f"settings: not JSON: {error}") from None
    else:
        where = str(text_or_path)
        data = read_yaml(where)
    if key is not None:
        data = (data if isinstance(data, dict) else {}).get(key, {})
        where = f"{where}: {key}"
    settings = validate(cls, data, where)
    if isinstance(settings, DatasetSettings) and where != "settings":
        settings = _relative_to(settings, Path(where).parent)
    return settings


def _relative_to(dataset: DatasetSettings, folder: Path) -> DatasetSettings:
    """Make the paths in a dataset's file, which are relative to its folder, usable from the working folder."""

    def selection(images: Images) -> Images:
        return str(folder / images) if is_file_of_names(images) else images

    changes: dict[str, Any] = {
        name: (block := getattr(dataset, name)).model_copy(update={"images": selection(block.images)})
        for name in ("training", "evaluation")
    }
    if dataset.source.registry is not None:
        changes["source"] = dataset.source.model_copy(update={"registry": str(folder / dataset.source.registry)})
    return dataset.model_copy(update=changes)


def is_file_of_names(images: Images) -> bool:
    """Tell whether a selection of images is a file, rather than ``all``, a list or a slice."""
    return isinstance(images, str) and images != "all" and not SLICE.fullmatch(images)


def dataset_name(path_or_name: str) -> str:
    """Return a dataset's name: of a path, the file's name without its suffix."""
    return Path(path_or_name).stem if path_or_name.endswith((".yaml", ".yml")) else path_or_name


def load_dataset(path_or_name: str, folder: str | Path = "config/datasets") -> tuple[str, DatasetSettings]:
    """Read and check a dataset's file.

    Parameters
    ----------
    path_or_name
        The name of a file in ``folder``, without ``.yaml``, or a path that ends so.
    folder
        Where the named datasets are.

    Returns
    -------
    name, dataset
        The dataset's name and its settings.

    Raises
    ------
    UserError
        Where there is no such file (those that exist are listed) or a setting in it is wrong.
    """
    name = dataset_name(path_or_name)
    if not NAME.fullmatch(name):
        raise UserError(f"datasets: found {path_or_name!r}, allowed: names of letters, digits, '_', '-' and '.'")
    if name in TAKEN:
        raise UserError(f"datasets: found {path_or_name!r}, which is a folder of the results; name the file otherwise")
    path = Path(path_or_name) if path_or_name != name else Path(folder) / f"{name}.yaml"
    if not path.is_file():
        there = sorted(file.stem for file in Path(folder).glob("*.yaml"))
        raise UserError(
            f"datasets: found {path_or_name!r}, but there is no file {path}; in {folder}: {', '.join(there) or 'none'}"
        )
    return name, load_settings(DatasetSettings, path)


def locate(key_path: Sequence, files: Sequence[str]) -> str:
    """Find which of several configuration files holds a key.

    Parameters
    ----------
    key_path
        The path of the key, for example ``("training", "patch_size")``.
    files
        The files; later ones are laid over earlier ones.

    Returns
    -------
    str
        The last file that has the key, or as much of its path as any has; the last file where none has any of it.
    """
    found = [len(_known_part(key_path, read_yaml(file))) for file in files]
    return max(zip(found, range(len(files)), files, strict=True))[2]


def resolve_methods(settings: Settings, dataset: DatasetSettings) -> list[tuple[str, int | None, int]]:
    """List what is to be computed for a dataset.

    Parameters
    ----------
    settings, dataset
        The configuration and the dataset. Where the dataset's noise has no direction, the only receptive field is 0.

    Returns
    -------
    list of (method, receptive_field, seed)
        For example ``("dvlae-rf40", 40, 0)``; baselines have no receptive field (``None``) and seed 0.
    """
    fields = [0] if dataset.noise_direction == "none" else settings.receptive_fields
    trained = [(f"dvlae-rf{field}", field, seed) for field in fields for seed in settings.seeds]
    return trained + [(baseline, None, 0) for baseline in settings.baselines]


if __name__ == "__main__":
    from dvlae.config_reference import reference

    print(reference(), end="")
