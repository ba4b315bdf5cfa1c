"""What follows from the images, the device and the time: axes, receptive field, size of the network, samples."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvlae.api.options import check_receptive_field, check_whole_number
from dvlae.config.fields import Autoregression, PatchSize
from dvlae.config.messages import validate
from dvlae.config.settings import PredictSettings, TrainSettings
from dvlae.config.sizes.patch_size import fitting_crop
from dvlae.config.training import ModelSettings, TrainingSettings
from dvlae.data.files import natural_key
from dvlae.data.reading import select_series
from dvlae.data.sources import Source, open_sources
from dvlae.evaluation.diagnosis import correlation_length, suggest_receptive_field
from dvlae.models.architecture import Architecture
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

# More channels than red, green, blue and transparency are usually images that a program has called so.
MAX_CHANNELS = 4
AXIS_NAMES = {"Z": "planes of a volume", "C": "channels", "?": "pages"}
# Where the noise cannot be measured: the direction of most scans and read-outs, and a field that covers short noise.
ASSUMED_DIRECTION, ASSUMED_RECEPTIVE_FIELD = "x", 8
# Texture looks like noise of any length.
MAX_ASSUMED_LENGTH = 20
# In less time, the small network is as good on a processor (docs/notes/experiments.md).
MINUTES_FOR_LARGE = 5
# Crops of volumes have about as many pixels as those of images.
VOLUME_CROP, VOLUME_CROP_ON_GPU = (8, 32, 32), (16, 64, 64)
IMAGE_SIDE_ON_GPU = 128

SAMPLES = 16
# The mean of so few samples is 0.04 dB behind that of 16, and that of 4 0.15 dB (docs/notes/experiments.md).
FEW_SAMPLES = 8
# Positions on the grid for a refined denoiser. It is 0.01 dB behind 4, for half the time (docs/notes/experiments.md).
REFINED_SHIFTS = 2
# Mirrored along the axis that the noise is not correlated along, or not.
REFINED_PASSES = 2 * REFINED_SHIFTS


@dataclass(frozen=True)
class _Size:
    """The size of a network, and the number of crops in a batch."""

    levels: int
    channels: int
    batch: int


# From the largest to the smallest.
SIZES = (_Size(3, 48, 4), _Size(3, 16, 8))
SIZES_ON_GPU = (_Size(6, 64, 16), _Size(6, 32, 4))


@dataclass(frozen=True)
class _Reading:
    """How one image of a file is read: the axes that the file states, those to read, and what the user is told."""

    path: Path
    stated: str
    axes: str
    said: str

    @property
    def frames(self) -> str:
        # Times are images, and a single image may be beside stacks of images.
        return self.axes.replace("T", "S")

    @property
    def together(self) -> str:
        """The axes with which all that is said to be images is read together."""
        free = [letter for letter in "ZTS" if letter not in self.stated][: self.stated.count("?")]
        letters = iter(sorted(free, key="STZ".index))
        return "".join(next(letters) if axis == "?" else axis for axis in self.stated)


def choose_axes(files: Sequence[Path], series: int | str, command: str = "denoise") -> str:
    """Choose how the axes of files are read if the user does not say it.

    What a file calls planes of a volume, or many channels, is read as images of their own, as are pages that it says
    nothing of: images learn faster than volumes.

    Parameters
    ----------
    files
        The image files.
    series
        The setting ``series``.
    command
        The command, for messages.

    Returns
    -------
    str
        The setting ``axes``, which may override what the files say. The screen says what is read as images.

    Raises
    ------
    UserError
        If no one setting is right for all files.
    """
    readings = []
    for path in sorted(files, key=natural_key):
        with open_sources(path) as sources:
            readings += [_read_axes(path, source) for source in select_series(sources, series, path)]
    special = {reading.stated: reading for reading in reversed(readings) if reading.said}
    if not special:
        return "auto"
    first = next(reading for reading in readings if reading.said)
    alike = {first.frames, "YX"} if first.axes.endswith("YX") else {first.frames}
    if (other := next((reading for reading in readings if reading.frames not in alike), None)) is not None:
        unknown = " (? is unknown)" if "?" in first.stated + other.stated else ""
        raise UserError(
            f"{first.path} has {first.said}, with the axes {first.stated!r}, but {other.path} has {other.stated!r}"
            f"{unknown}; dvlae {command} reads all files in one way, so run it on each kind of file apart"
        )
    for reading in reversed(special.values()):
        logger.warning(
            f"{command}: {reading.path.name}: its {reading.said} are denoised as images, one by one; --axes "
            f"{reading.together} takes them together, which learns more slowly"
        )
    return first.axes


def _read_axes(path: Path, source: Source) -> _Reading:
    """Choose how the axes of one image of a file are read."""
    shape = source.shape
    stated = source.axes or "?" * (len(shape) - 2) + "YX"[-len(shape) :]
    letters = [letter for letter in "ST" if letter not in stated]
    axes, said = "", []
    for axis, length in zip(stated, shape, strict=True):
        if letters and ((axis in "Z?" and "Y" in stated) or (axis == "C" and length > MAX_CHANNELS)):
            axes += letters.pop(0)
            said.append(f"{length} {AXIS_NAMES[axis]}")
        else:
            axes += axis
    # Where a file does not say whether its last axis is colours, or has too many axes, the user is asked.
    unclear = "?" in axes or (not source.axes and len(shape) > 2 and shape[-1] <= MAX_CHANNELS)
    return _Reading(path, stated, axes, "" if unclear else " and ".join(said))


def choose_noise(found: Mapping[str, Any], direction: str, receptive_field: int | str) -> tuple[str, int]:
    """Choose the direction of the noise and the receptive field.

    Parameters
    ----------
    found
        The content of the file that :func:`dvlae.reporting.diagnosis.diagnose` writes.
    direction
        What the user says: an axis, ``none`` or ``auto``.
    receptive_field
        What the user says: a number of pixels, or ``auto``.

    Returns
    -------
    direction, receptive_field
        For :func:`dvlae.training.train.train`. The screen says what was chosen, and warns where it was assumed.

    Raises
    ------
    UserError
        If there is no decoder with this receptive field, or noise without a direction has one.
    """
    said, assumed = direction != "auto", direction == "auto" and found["direction"] is None
    if not said:
        direction = found["direction"] or ASSUMED_DIRECTION
    lags = found["autocorrelation"].get(direction)
    wanted = check_receptive_field(receptive_field, direction)
    field = wanted if isinstance(wanted, int) else _measured_field(found, direction, lags, said=said)
    text = f"noise direction {direction}, receptive field {field} px"
    options = "--noise-direction and --receptive-field"
    if assumed:
        logger.warning(
            f"denoise: WARNING: {text} is only assumed, as the direction cannot be told: {found['reason']}; if stripes "
            f"along another axis remain, set {options}"
        )
    else:
        logger.info(f"denoise: takes {text}; {options} change this")
    return direction, field


def _measured_field(
    found: Mapping[str, Any], direction: str, lags: Sequence[float | None] | None, *, said: bool
) -> int:
    """Return the receptive field for noise with such a correlation along its direction."""
    if direction == "none":
        return 0
    if lags is None:
        return ASSUMED_RECEPTIVE_FIELD
    length = correlation_length([np.nan if value is None else value for value in lags])
    field = suggest_receptive_field(min(length, MAX_ASSUMED_LENGTH) if found["direction"] is None else length)
    # Who names a direction may know more than can be measured.
    return max(field, ASSUMED_RECEPTIVE_FIELD) if said and length == 0 else field


def choose_training(
    shapes: Iterable[Sequence[int]],
    device: str,
    *,
    minutes: float,
    max_steps: int | None,
    direct: bool,
    decoder: Autoregression = "nonlinear",
    like: Architecture | None = None,
) -> list[TrainSettings]:
    """Choose the sizes of the network that come into question, and how each is trained.

    Parameters
    ----------
    shapes
        Shapes of the images, (C, ...).
    device
        ``cpu``, ``cuda`` or ``mps``.
    minutes
        Time for the training.
    max_steps
        Largest number of batches; None: as many as there is time for.
    direct
        Whether a denoiser is refined even if the number of steps is limited.
    decoder
        Kind of the autoregressive decoder.
    like
        A model whose sizes the new one has, too; None: they are chosen.

    Returns
    -------
    list of TrainSettings
        From the largest network, which is meant for a machine that has nothing else to do, to the smallest. The largest
        has on a processor the sizes of ``config/sem.yaml``, unless there is little time; on a GPU those of
        ``config/sem_gpu.yaml``. Crops of volumes are smaller.
    """
    on_gpu = device != "cpu"
    sizes = SIZES_ON_GPU if on_gpu else SIZES if minutes >= MINUTES_FOR_LARGE else SIZES[-1:]
    smallest = np.min([shape[1:] for shape in shapes], axis=0).tolist()
    if like is not None:
        known = asdict(like) | {"direct_denoiser": like.direct_denoiser or False}
        model = ModelSettings.model_validate({name: known[name] for name in ModelSettings.model_fields})
        return [_settings(model, sizes[0].batch, smallest, device, minutes, max_steps)]
    chosen = []
    for size in sizes:
        model = ModelSettings(
            levels=size.levels,
            channels=size.channels,
            latent_channels=size.channels // 2,
            autoregression=decoder,
            direct_denoiser="refined" if direct or max_steps is None else False,
        )
        chosen.append(_settings(model, size.batch, smallest, device, minutes, max_steps))
    return chosen


def _settings(
    model: ModelSettings, batch: int, smallest: Sequence[int], device: str, minutes: float, max_steps: int | None
) -> TrainSettings:
    """Return how a network is trained on images whose sides are at least the smallest."""
    on_gpu = device != "cpu"
    patch_size: PatchSize = "auto"
    if len(smallest) == 3:
        longest = np.minimum(smallest, VOLUME_CROP_ON_GPU if on_gpu else VOLUME_CROP).tolist()
        patch_size = list(fitting_crop(longest, model.stride))
    elif len(smallest) == 2 and on_gpu and min(smallest) >= IMAGE_SIDE_ON_GPU:
        patch_size = IMAGE_SIDE_ON_GPU
    training = TrainingSettings(
        patch_size=patch_size,
        batch_size=batch,
        learning_rate=0.01 if model.channels <= 16 else 0.004,
        max_minutes=float(minutes),
        max_steps=max_steps,
    )
    return TrainSettings.model_validate({"model": model, "training": training, "device": device})


def choose_prediction(
    samples: int | None, device: str, *, trained: bool, denoiser: str | None, rescale: bool = False
) -> PredictSettings:
    """Choose how images are denoised.

    Parameters
    ----------
    samples
        What the user says: a number of samples; 0: the direct denoiser; None: nothing.
    device
        The setting ``device``.
    trained
        Whether the model was trained on these images, so that there was time for it.
    denoiser
        The kind of direct denoiser that the model has; None: it has none.
    rescale
        Whether images of another gain and offset are brought to the scale of the training.

    Returns
    -------
    PredictSettings
        Many samples after a training. With a model that exists, the direct denoiser, or few samples without one. A
        refined denoiser makes the estimate in any case, and samples its standard deviation.

    Raises
    ------
    UserError
        If the number is not allowed, or the model has no direct denoiser and the user wants it.
    """
    if samples is None:
        samples = SAMPLES if trained else 0 if denoiser else FEW_SAMPLES
    allowed = "a whole number from 0" if denoiser else "a whole number from 1, as the model has no direct denoiser"
    samples = check_whole_number("samples", samples, allowed, 0 if denoiser else 1)
    prediction: dict[str, Any] = {"rescale": rescale}
    if denoiser == "refined":
        prediction |= {"estimator": "refined", "shifts": REFINED_SHIFTS}
    if samples:
        prediction["samples"] = samples
    else:
        prediction["estimator"] = "direct"
    return validate(PredictSettings, {"prediction": prediction, "device": device}, "samples")
