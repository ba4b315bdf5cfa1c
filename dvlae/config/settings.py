"""The settings of a configuration and of the steps of the workflow: names, types, defaults, meanings and checks.

There are two kinds of files: a configuration (:class:`Settings`) and a dataset (:class:`DatasetSettings`). Each step of
the workflow receives only the settings that it depends on (:class:`PatchSettings`, :class:`TrainSettings`,
:class:`PredictSettings`), so that a change reruns only this step and the steps after it.
``python -m dvlae.config`` prints ``config/README.md``.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dvlae.config.dataset import DatasetSettings, SplitSettings
from dvlae.config.fields import (
    Count,
    Device,
    Fraction,
    Images,
    Index,
    MethodName,
    ModelName,
    OutputSettings,
    PatchSize,
    Precision,
    ReceptiveField,
    Seed,
    StepSettings,
    StrictModel,
    check_devices,
    dataset_name,
    expand_home,
)
from dvlae.config.messages import format_value
from dvlae.config.sizes.patch_size import check_patch_size
from dvlae.config.training import ModelSettings, TrainingSettings


class PredictionSettings(StrictModel):
    """How the denoised image is computed."""

    LATER: ClassVar = {"antithetic", "precision"}

    samples: Count = Field(16, description="number of samples of the posterior (paper: 100)")
    estimator: Literal["mmse", "median", "direct", "refined"] = Field(
        "mmse",
        description="`mmse`: the mean of the samples of each pixel; `median`: their median, for which all samples are "
        "kept in a temporary file; `direct`: no samples, but one pass of the network `model.direct_denoiser` for each "
        "of a few views; `refined`: the same with `model: {direct_denoiser: refined}`, and samples for the standard "
        "deviation",
    )
    flips: bool = Field(
        True,
        description="take the samples in turn from the image and its mirror images, which are not mirrored along the "
        "noise direction",
    )
    shifts: Count = Field(
        4,
        description="take the samples in turn from the image at this many positions on the grid of the coarsest level; "
        "what depends on the position cancels in their mean (cycle spinning)",
    )
    antithetic: bool = Field(
        True,
        description="take the samples in pairs of opposite latent noise, in whose mean much of it cancels; `false`: "
        "each is independent of the others (the paper)",
    )
    hot_pixels: Literal["fill", "keep"] = Field(
        "fill",
        description="single hot or dead pixels, which the model does not see; `fill`: they get what it makes of their "
        "surroundings; `keep`: they keep their noisy values",
    )
    rescale: bool = Field(
        False,
        description="bring images whose gain and offset are others than those of the training to its scale, and their "
        "estimates back",
    )
    save_samples: Index = Field(
        0,
        description="number of samples of each image to write into the folder `samples/`, in one file for each source",
    )
    output: OutputSettings = Field(OutputSettings(), description="how the results are written")
    tile: Literal["auto"] | Annotated[int, Field(ge=16)] = Field(
        "auto", description="longest side of a tile, in pixels; `auto`: chosen to limit the memory"
    )
    batch_size: Literal["auto"] | Count = Field("auto", description="number of samples computed at once")
    precision: Precision = Field(
        "auto",
        description="floating-point numbers of the networks; `auto`: bf16 for samples if the GPU or the processor has "
        "instructions for it and the noise is strong, otherwise 32 bits; volumes on a processor always have 32 bits",
    )
    jobs: Count = Field(
        1,
        description="number of jobs that share the images of a dataset, for denoising, baselines and evaluation; the "
        "results are the same for every number",
    )

    @property
    def draws_samples(self) -> bool:
        """Whether samples are drawn, for the estimate or for its standard deviation."""
        return self.estimator != "direct"

    @property
    def has_deviation(self) -> bool:
        """Whether there is a standard deviation: a single sample has none."""
        return self.draws_samples and self.samples > 1

    @property
    def is_direct(self) -> bool:
        """Whether a direct denoiser makes the estimate."""
        return self.estimator in {"direct", "refined"}

    @model_validator(mode="after")
    def _enough(self) -> "PredictionSettings":
        if self.save_samples and not self.draws_samples:
            raise ValueError(f"save_samples: found {self.save_samples}, allowed: 0, as estimator is direct")
        if self.save_samples > self.samples:
            raise ValueError(f"save_samples: found {self.save_samples}, allowed: at most samples, {self.samples}")
        return self


class Settings(StrictModel):
    """A configuration file: the grid is datasets x methods x seeds."""

    datasets: Annotated[list[str], Field(min_length=1)] = Field(
        ["simulated"],
        description="names of files in `config/datasets/`, or paths of `.yaml` files relative to the working folder",
    )
    methods: Annotated[list[MethodName], Field(min_length=1)] | None = Field(
        None,
        description="ways to denoise, in the order of the tables: `dvlae-rfN` and `dvlae-rfN-linear` for our own with "
        "a receptive field of N, names of `models`, names of files in `config/methods/` of the working folder or of "
        "dvlae, or paths of `.yaml` files; a method file is code; `null`: what the next three keys say",
    )
    receptive_fields: list[ReceptiveField] = Field(
        [40],
        description="previous pixels in the noise direction that the autoregressive decoder sees; each one a method; "
        "`[]`, to train nothing, is allowed with `models`",
    )
    baselines: Annotated[list[MethodName], Field(min_length=1)] = Field(
        ["noisy", "gaussian"], description="methods to compare with, as for `methods`"
    )
    models: dict[ModelName, Annotated[str, Field(min_length=1)]] = Field(
        {},
        description="models that exist, each a method that trains nothing: a name and a folder made by `dvlae train`, "
        "for example `{sem_2026: models/sem}`; with `receptive_fields: []` nothing is trained",
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        [0], description="seeds of methods that have one, such as those that train; each is a separate run"
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="folder of a trained model whose weights all trainings begin with, for new images of the same "
        "microscope; its sizes have to be those of `model`; `null`: random weights",
    )
    results: str = Field("results/demo", min_length=1, description="folder for all results")
    data: str = Field("data", min_length=1, description="folder of the images; downloads are kept there")
    data_mirror: str | None = Field(
        None,
        description="folder to search before downloading; the environment variable `DVLAE_DATA_MIRROR` overrides it",
    )
    device: Device = Field("auto", description="where to compute; `auto`: a GPU if there is one")
    devices: Count = Field(
        1,
        description="GPUs of one training, a divisor of `training.accumulate`: they share these batches, with the same "
        "result as one GPU",
    )
    tensorboard: bool = Field(
        False,
        description="also write the history of each training for TensorBoard (an optional extra): "
        "`tensorboard --logdir results/demo`",
    )
    model: ModelSettings = Field(ModelSettings(), description="the network's size")
    training: TrainingSettings = Field(TrainingSettings(), description="how the network is trained, and for how long")
    prediction: PredictionSettings = Field(PredictionSettings(), description="how the denoised image is computed")

    @field_validator("datasets", "methods", "receptive_fields", "seeds", "baselines")
    @classmethod
    def _unique(cls, values: list | None) -> list | None:
        keys = [dataset_name(value) if isinstance(value, str) else value for value in values or []]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"found {format_value(key)} twice, allowed: each once")
        return values

    @field_validator("results", "data")
    @classmethod
    def _plain(cls, value: str) -> str:
        if value.startswith("-") or set(value) & set("{}\n"):
            raise ValueError(f"found {value!r}, allowed: no dash in front, no braces and no line breaks")
        return value

    @field_validator("results", "data", "data_mirror")
    @classmethod
    def _expanded(cls, value: str | None) -> str | None:
        return str(expand_home(value)) if value is not None and value.startswith("~") else value

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.methods is None and not (self.receptive_fields or self.models):
            raise ValueError("receptive_fields: found [], allowed: at least one, or `models`")
        if self.methods is None and self.receptive_fields:
            estimator = self.prediction.estimator
            if estimator == "direct" and not self.model.direct_denoiser:
                raise ValueError("prediction.estimator: found 'direct', allowed: only with model.direct_denoiser")
            if estimator == "refined" and not self.model.refines:
                needed = "model: {direct_denoiser: refined}"
                raise ValueError(f"prediction.estimator: found 'refined', allowed: only with {needed}")
        check_devices(self.devices, self.training.accumulate)
        check_patch_size(self.training.patch_size, self.model.stride)
        return self


class PatchSettings(StepSettings):
    """The settings of ``dvlae extract-patches``."""

    patch_size: PatchSize = Field("auto", description="side of the training crop, in pixels, or a list of sides")
    stride: Count = Field(8, description="stride of the coarsest level of the model, in pixels")
    validation_fraction: Fraction = Field(0.1, description="share kept for validation")
    images: Images = Field("all", description="images that are trained on")
    block: Count = Field(1, description="neighbouring images that belong together")
    max_patch_pixels: Annotated[int, Field(ge=2**16)] = Field(
        2**27, description="maximum number of pixels of all patches"
    )
    rescale: bool = Field(False, description="bring images of another gain and offset to the scale of the others")

    @classmethod
    def of(cls, settings: "Settings | TrainSettings", dataset: DatasetSettings | None = None) -> "PatchSettings":
        """Take the settings of the patches from a configuration and a dataset.

        Parameters
        ----------
        settings
            The configuration.
        dataset
            The dataset; None: all images are trained on.

        Returns
        -------
        PatchSettings
            The sizes from the configuration, and the images from the dataset.
        """
        split = SplitSettings() if dataset is None else dataset.training
        return cls(
            patch_size=settings.training.patch_size,
            stride=settings.model.stride,
            validation_fraction=settings.training.validation_fraction,
            images=split.images,
            block=split.block,
            max_patch_pixels=settings.training.max_patch_pixels,
            rescale=settings.training.rescale,
        )


class TrainSettings(StepSettings):
    """The settings of ``dvlae train``."""

    IDENTITY: ClassVar[dict[str, Any]] = {
        "model": True,
        "training": set(TrainingSettings.model_fields) - {"workers", "max_patch_pixels", "rescale"},
    }

    model: ModelSettings = Field(ModelSettings(), description="the network's size")
    training: TrainingSettings = Field(TrainingSettings(), description="how the network is trained, and for how long")
    device: Device = Field("auto", description="where to compute")
    devices: Count = Field(1, description="number of GPUs")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSettings":
        check_devices(self.devices, self.training.accumulate)
        check_patch_size(self.training.patch_size, self.model.stride)
        return self

    @classmethod
    def of(cls, settings: Settings) -> "TrainSettings":
        """Take the settings of training from a configuration.

        Parameters
        ----------
        settings
            The configuration.

        Returns
        -------
        TrainSettings
            The blocks ``model`` and ``training``, and the devices.
        """
        return cls(model=settings.model, training=settings.training, device=settings.device, devices=settings.devices)

    def before_refinement(self) -> "TrainSettings":
        """Return the settings of the model that a refined denoiser begins as.

        Returns
        -------
        TrainSettings
            The same, but without a refined denoiser.
        """
        model = self.model.model_copy(update={"direct_denoiser": False}) if self.model.refines else self.model
        return self.model_copy(update={"model": model})


class PredictSettings(StepSettings):
    """The settings of ``dvlae predict``."""

    IDENTITY: ClassVar[dict[str, set[str]]] = {
        "prediction": set(PredictionSettings.model_fields) - {"tile", "batch_size", "jobs"}
    }

    prediction: PredictionSettings = Field(PredictionSettings(), description="how the denoised image is computed")
    device: Device = Field("auto", description="where to compute")

    @classmethod
    def of(cls, settings: Settings) -> "PredictSettings":
        """Take the settings of prediction from a configuration.

        Parameters
        ----------
        settings
            The configuration.

        Returns
        -------
        PredictSettings
            The block ``prediction``, and the device.
        """
        return cls(prediction=settings.prediction, device=settings.device)
