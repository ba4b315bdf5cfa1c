"""Types and checks for several classes of settings."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeGuard

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from dvlae.config.sizes.receptive_field import kernel_and_blocks
from dvlae.system.errors import UserError

# The names of datasets and methods, which are names of folders and stand in patterns of the workflow.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# These folders are beside those of the methods.
RESERVED_METHODS = ("images", "patches", "simulated")
# For example "0:8", ":10", "-8:" and "::2".
SLICE_PATTERN = re.compile(r"-?\d{0,9}:-?\d{0,9}(:[1-9]\d{0,8})?")

Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
# Without quotes, YAML reads a number.
Precision = Annotated[Literal["auto", "32", "bf16"], BeforeValidator(lambda value: "32" if value == 32 else value)]
Range = Annotated[list[int], Field(min_length=2, max_length=2)]
Autoregression = Literal["nonlinear", "linear"]
Device = Literal["auto", "cpu", "cuda", "mps"]
NoiseDirection = Literal["x", "y", "z", "none"]
# The environment variable that names a mirror of the downloads.
MIRROR_VARIABLE = "DVLAE_DATA_MIRROR"

# In pixels, where one number is for all axes; in a list, the side along a thin axis may be smaller.
MIN_CROP_SIDE = 8
IMAGES_HELP = (
    "`all`, a list of image names, a slice such as `0:8`, or a text file with one name per line (relative to this file)"
)


class StrictModel(BaseModel):
    """Settings that refuse unknown keys and values of another type, and cannot be changed.

    Attributes
    ----------
    LATER
        Keys that older versions did not have. What these versions computed is what the defaults give.
    """

    LATER: ClassVar[set[str]] = set()

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class OutputSettings(StrictModel):
    """How the results are written."""

    dtype: Literal["float32", "same"] = Field(
        "float32",
        description="`float32`: all digits (64 bits for grey values so large that 32 bits would lose their noise); "
        "`same`: the type of the noisy file, rounded and clipped to its range; standard deviations are always float32",
    )
    compression: Literal["none", "zlib", "zstd"] = Field(
        "none", description="compression without loss; ImageJ stacks, which have none, become OME-TIFF files"
    )


class StepSettings(StrictModel):
    """The settings of one step of the workflow.

    Attributes
    ----------
    IDENTITY
        The settings that the step's result depends on, as for pydantic's ``include``; None: all of them. The others
        determine where and in what portions it is computed.
    """

    IDENTITY: ClassVar[Any] = None

    def identity(self) -> dict[str, Any]:
        """Return the settings that the step's result depends on, as plain values.

        Returns
        -------
        dict
            The settings. Equal ones give equal results. The defaults of keys that older versions did not have are left
            out, so that what these versions made is not made again.
        """
        return self.model_dump(mode="json", include=self.IDENTITY, exclude=self._later_defaults())

    def identity_json(self) -> str:
        """Return the settings that the step's result depends on, as JSON.

        Returns
        -------
        str
            The same text for equal settings. The workflow reruns the step when it changes.
        """
        return self.model_dump_json(include=self.IDENTITY, exclude=self._later_defaults())

    def record(self) -> dict[str, Any]:
        """Return the settings that the step's result depends on, with all defaults, as plain values.

        Returns
        -------
        dict
            What is written beside the result.
        """
        return self.model_dump(mode="json", include=self.IDENTITY)

    @classmethod
    def complete(cls, recorded: dict[str, Any]) -> dict[str, Any]:
        """Add to a record what older versions did not write in it.

        Parameters
        ----------
        recorded
            Result of :meth:`record`, or a part of it, of this version or of an older one.

        Returns
        -------
        dict
            The record, with the defaults of the keys that were added since.
        """
        blocks = {name: field.default for name, field in cls.model_fields.items() if name in recorded}
        return recorded | {
            name: block.model_dump(mode="json", include=block.LATER) | recorded[name]
            for name, block in blocks.items()
            if isinstance(block, StrictModel) and isinstance(recorded[name], dict)
        }

    def _later_defaults(self) -> dict[str, set[str]]:
        """Return the keys of each block that older versions did not have, and that have their defaults."""
        return {
            name: {key for key in block.LATER if getattr(block, key) == type(block).model_fields[key].default}
            for name, block in self
            if isinstance(block, StrictModel)
        }


def _check_selection(images: str | list[str]) -> str | list[str]:
    """Refuse an empty selection of images."""
    if isinstance(images, str) and not images.strip():
        raise ValueError("found '', allowed: all, a list of image names, a slice such as 0:8, or a file of names")
    return images


def check_method_name(name: str) -> str:
    """Refuse the name of a method that has a file or a model, if it is no name of a folder or is that of another one.

    Parameters
    ----------
    name
        The name.

    Returns
    -------
    str
        The name.

    Raises
    ------
    ValueError
        If a method cannot be called so.
    """
    if not NAME_PATTERN.fullmatch(name) or name.startswith("dvlae-rf") or name in RESERVED_METHODS:
        raise ValueError(
            f"found {name!r}, allowed: a name of letters, digits, '_', '-' and '.' that does not begin with dvlae-rf "
            f"and is none of {', '.join(RESERVED_METHODS)}"
        )
    return name


def _check_receptive_field(pixels: int | str) -> int | str:
    """Refuse a receptive field that no decoder has."""
    try:
        if isinstance(pixels, int):
            kernel_and_blocks(pixels)
    except UserError as error:
        raise ValueError(str(error)) from None
    return pixels


ReceptiveField = Annotated[Index, AfterValidator(_check_receptive_field)]
SuggestedField = Annotated[Index | Literal["auto"], AfterValidator(_check_receptive_field)]
MethodName = Annotated[str, Field(min_length=1)]
ModelName = Annotated[str, AfterValidator(check_method_name)]
PatchSize = (
    Literal["auto"]
    | Annotated[int, Field(ge=MIN_CROP_SIDE)]
    | Annotated[list[Count], Field(min_length=1, max_length=3)]
)
Images = Annotated[str | Annotated[list[str], Field(min_length=1)], AfterValidator(_check_selection)]


def check_devices(devices: int, accumulate: int) -> None:
    """Refuse a number of devices that does not divide the number of accumulated batches.

    Parameters
    ----------
    devices
        Number of devices of one training.
    accumulate
        Number of batches whose gradients are added.
    """
    if accumulate % devices:
        raise ValueError(f"devices: found {devices}, allowed: divisors of training.accumulate, which is {accumulate}")


def sides(patch_size: int | list[int], dimensions: int) -> tuple[int, ...]:
    """Return the sides of a training crop, in pixels, one for each spatial axis.

    Parameters
    ----------
    patch_size
        The setting ``training.patch_size``: one side for all axes, or a list.
    dimensions
        Number of spatial axes.

    Returns
    -------
    tuple of int
        One side for each spatial axis.

    Raises
    ------
    UserError
        If the list has another length.
    """
    if isinstance(patch_size, int):
        return (patch_size,) * dimensions
    if len(patch_size) != dimensions:
        axes = ["x", "y, x", "z, y, x"][dimensions - 1]
        raise UserError(f"training.patch_size: found {patch_size}, allowed: a number, or {dimensions} sides [{axes}]")
    return tuple(patch_size)


def is_file_of_names(images: str | Sequence[str]) -> TypeGuard[str]:
    """Return whether a selection of images is a file of names, not ``all``, a list or a slice.

    Parameters
    ----------
    images
        A selection of images.

    Returns
    -------
    bool
        True for a file of names, which need not exist.
    """
    return isinstance(images, str) and images != "all" and not SLICE_PATTERN.fullmatch(images)


def expand_home(path: str | Path) -> Path:
    """Replace the sign ``~`` at the beginning of a path by the home folder.

    Parameters
    ----------
    path
        A path.

    Returns
    -------
    Path
        The path; as it is if there is no such user, so that the sign stands for itself.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def dataset_name(path_or_name: str) -> str:
    """Return a dataset's name from its name or the path of its file.

    Parameters
    ----------
    path_or_name
        A path that ends with ``.yaml`` or ``.yml``, or a name.

    Returns
    -------
    str
        What the folders of the results are named after.
    """
    return Path(path_or_name).stem if path_or_name.endswith((".yaml", ".yml")) else path_or_name
