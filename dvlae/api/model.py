"""Denoising of arrays from Python."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from dvlae.api.arrays import (
    as_array,
    as_list,
    choose_axes,
    choose_common_axes,
    describe_arrays,
    name_arrays,
    read_array,
)
from dvlae.api.choices import choose_prediction
from dvlae.api.notes import messages_reworded, name_arguments
from dvlae.api.options import Wishes, check_flag, check_folder
from dvlae.api.session import Session
from dvlae.models.files import load_model, read_architecture
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder
from dvlae.system.progress import log_to_stderr
from dvlae.training.train import MODEL_FILES


@dataclass(frozen=True)
class Diagnosis:
    """What the noise of images looks like.

    Attributes
    ----------
    direction
        ``x``, ``y``, ``z``, or ``none`` for noise without direction; None if it cannot be told.
    length
        The correlation length, in pixels; None without a direction.
    receptive_field
        The suggested receptive field, in pixels; None without a direction.
    reasons
        Why the direction cannot be told, and what is odd in the images, one line each.
    autocorrelation
        The correlation along each axis, from a distance of 0 pixels.
    """

    direction: str | None
    length: int | None
    receptive_field: int | None
    reasons: tuple[str, ...]
    autocorrelation: dict[str, list[float | None]]


class Model:
    """A trained model.

    :func:`fit` and :func:`load` return models.

    Parameters
    ----------
    folder
        The files that ``dvlae train`` writes.
    temporary
        The folder around it, which is removed with the model.
    """

    def __init__(self, folder: Path, temporary: "TemporaryDirectory[str]"):
        self._folder, self._temporary = folder, temporary
        self._architecture = read_architecture(folder)

    def __repr__(self) -> str:
        return f"<dvlae.Model: noise direction {self.noise_direction}, receptive field {self.receptive_field} px>"

    @property
    def noise_direction(self) -> str:
        """The direction of the noise: ``x``, ``y``, ``z`` or ``none``."""
        return self._architecture.noise_direction

    @property
    def receptive_field(self) -> int:
        """The receptive field of the noise model, in pixels."""
        return self._architecture.receptive_field

    def denoise(
        self,
        image: Any,
        *,
        axes: str = "auto",
        samples: int = 16,
        rescale: bool = False,
        seed: int = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Denoise an image, or all images of a stack.

        Parameters
        ----------
        image
            An array: NumPy, mapped into memory, Zarr, or anything with ``__array__``. The masked pixels of a masked
            array are left out.
        axes
            A letter for each axis, of S (images), T (time), C (channels), Z, Y and X. ``auto``: the last axes are those
            of the model, and one more counts images; where the last axis is much the shortest, the letters are needed.
        samples
            Number of samples of the posterior, whose mean is the result; with a refined denoiser, they give ``std``
            alone. 0: the direct denoiser, if the model was trained with one, without ``std``.
        rescale
            Whether images of another gain and offset are brought to the scale of the training, and back.
        seed
            Seed of the samples.
        device
            ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``mps``.
        progress
            Whether messages and progress are shown on standard error.

        Returns
        -------
        clean, std
            The denoised image and the standard deviation of the posterior, in the axes, the shape and the units of the
            image; float32, or float64 for grey values so large that float32 would lose the noise, or the whole numbers
            of the image where float64 would. ``std`` is None for fewer than two samples. Of a masked array, both have
            its mask.

        Raises
        ------
        UserError
            If the image has other channels or axes than those of the training, or a value is not allowed.
        """
        rescale, progress = check_flag("rescale", rescale), check_flag("progress", progress)
        wishes = Wishes(seed=seed, device=device)
        array = as_array(image, "image", "an array, and several of them one by one")
        axes = choose_axes(array.shape, axes, self._architecture.dimensions)
        denoiser = self._architecture.direct_denoiser
        settings = choose_prediction(samples, wishes.device, trained=True, denoiser=denoiser, rescale=rescale)
        with _session("denoise", [array], axes, self.noise_direction, wishes, progress) as session:
            session.prepare()
            session.denoise(self._folder, settings)
            session.check_removed(self._folder)
            found = [
                read_array(session.images, folder, array, deviation=deviation)
                for folder, deviation in ((session.run.denoised, False), (session.run.uncertainty, True))
            ]
        clean, std = found
        assert clean is not None
        return clean, std

    def save(self, path: str | Path) -> None:
        """Write the model into a folder, as ``dvlae train`` does.

        Parameters
        ----------
        path
            The folder to make, which ``dvlae denoise --model`` and :func:`load` read.

        Raises
        ------
        UserError
            If there is something already.
        """
        path = check_folder("path", path, "a new folder")
        if path.exists():
            raise UserError(f"{path}: exists already; allowed: a new folder")
        with atomic_folder(path, MODEL_FILES) as folder:
            for file in self._folder.iterdir():
                shutil.copyfile(file, folder / file.name)


def fit(
    images: Any,
    *,
    axes: str = "auto",
    noise_direction: str = "auto",
    receptive_field: int | str = "auto",
    minutes: float = 5.0,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    direct_denoiser: bool = False,
    start_from: Model | str | Path | None = None,
    decoder: str = "auto",
    progress: bool = False,
) -> Model:
    """Train a model on noisy images alone.

    Parameters
    ----------
    images
        An array, or a list of arrays: NumPy, mapped into memory, Zarr, or anything with ``__array__``. The masked
        pixels of masked arrays are left out.
    axes
        A letter for each axis, of S (images), T (time), C (channels), Z, Y and X, such as ``SYX`` or ``YXC``. ``auto``:
        Y and X, and one more that counts images; where the last axis is much the shortest, the letters are needed.
    noise_direction
        The axis along which the noise is correlated, ``x``, ``y`` or ``z``, or ``none``. ``auto``: it is measured, and
        the log warns if it cannot be told.
    receptive_field
        How many previous pixels along this axis the model of the noise sees; ``auto``: twice the measured correlation
        length.
    minutes
        Time for the training. The size of the network follows it, and the speed of the device, which is measured first;
        the log warns if there is too little time for good images.
    max_steps
        Largest number of batches; None: as many as there is time for. With a number, the result is the same each time.
    seed
        Seed of the training.
    device
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``mps``.
    direct_denoiser
        Whether a network that denoises in one pass is trained, too, even if there is little time.
    start_from
        A model, or its folder, whose training is continued on these images; its direction, receptive field and decoder
        are kept. None: a new one is trained.
    decoder
        Kind of the autoregressive decoder: ``nonlinear``, ``linear``, or ``best``: both are trained, half of the time
        each, and the model with the smaller estimated error is returned. ``auto``: ``best`` where each has time for
        3,000 steps, and else ``nonlinear``.
    progress
        Whether messages and progress are shown on standard error.

    Returns
    -------
    Model
        The trained model.

    Raises
    ------
    UserError
        If the images cannot be used, or a value is not allowed.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import dvlae
    >>> stack = np.random.default_rng(0).poisson(20, (3, 64, 64))
    >>> model = dvlae.fit(stack, noise_direction="x", receptive_field=8, minutes=1, max_steps=2)
    >>> model
    <dvlae.Model: noise direction x, receptive field 8 px>
    >>> clean, std = model.denoise(stack[0], samples=2)
    >>> clean.shape, clean.dtype, std.shape
    ((64, 64), dtype('float32'), (64, 64))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model")
    ...     again = dvlae.load(f"{folder}/model")
    >>> clean, std = again.denoise(stack, samples=2)
    """
    direct_denoiser, progress = check_flag("direct_denoiser", direct_denoiser), check_flag("progress", progress)
    if not isinstance(start_from, Model | None):
        start_from = load(check_folder("start_from", start_from, "None, a model, or the folder of one"))
    arrays = as_list(images)
    dimensions = 3 if noise_direction == "z" else None
    if start_from is not None:
        dimensions = start_from._architecture.dimensions
    axes = choose_common_axes(arrays, axes, dimensions)
    first = None if start_from is None else start_from._folder
    wishes = Wishes(noise_direction, receptive_field, minutes, max_steps, seed, device, direct_denoiser, first, decoder)
    direction = "none" if noise_direction == "auto" else noise_direction
    with _session("fit", arrays, axes, direction, wishes, progress) as session:
        session.prepare()
        session.train()
        return _copy_of(session.run.model)


def load(path: str | Path) -> Model:
    """Read a model.

    Parameters
    ----------
    path
        Folder that :meth:`Model.save`, ``dvlae denoise`` or ``dvlae train`` wrote.

    Returns
    -------
    Model
        The model. It does not need the folder any more.

    Raises
    ------
    UserError
        If the folder contains no model.
    """
    folder = check_folder("path", path, "the folder of a model")
    load_model(folder)
    return _copy_of(folder)


def _copy_of(folder: Path) -> Model:
    """Return a model that keeps its files in a temporary folder of its own."""
    temporary = TemporaryDirectory(prefix="dvlae-")
    copy = Path(temporary.name) / "model"
    shutil.copytree(folder, copy)
    return Model(copy, temporary)


def diagnose(images: Any, *, axes: str = "auto", progress: bool = False) -> Diagnosis:
    """Measure the direction and the length of the noise.

    Parameters
    ----------
    images, axes, progress
        As for :func:`fit`.

    Returns
    -------
    Diagnosis
        What the noise looks like.

    Raises
    ------
    UserError
        If the images cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> import dvlae
    >>> noise = np.random.default_rng(0).normal(100, 10, (4, 128, 129))
    >>> dvlae.diagnose(noise[..., 1:] + noise[..., :-1]).direction
    'x'
    """
    arrays = as_list(images)
    axes, progress = choose_common_axes(arrays, axes), check_flag("progress", progress)
    with _session("diagnose", arrays, axes, "none", Wishes(), progress) as session:
        session.prepare()
        found = session.diagnose()
    reasons = [found["reason"], found["warning"], *(finding["line"] for finding in found["findings"])]
    return Diagnosis(
        found["direction"],
        found["correlation_length"],
        found["receptive_field"],
        tuple(name_arguments(name_arrays(reason, session.data), "diagnose") for reason in reasons if reason),
        found["autocorrelation"],
    )


@contextmanager
def _session(
    function: str, arrays: Sequence[Any], axes: str, direction: str, wishes: Wishes, progress: bool
) -> Iterator[Session]:
    """Provide a session in a temporary folder, and leave PyTorch's settings of this process as they are."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    try:
        with (
            log_to_stderr() if progress else nullcontext(),
            torch.random.fork_rng(),
            TemporaryDirectory(prefix="dvlae-") as folder,
        ):
            data = Path(folder) / "arrays"
            with messages_reworded(lambda text: name_arguments(name_arrays(text, data), function)):
                yield Session(Path(folder), describe_arrays(data, arrays, axes, direction), data, wishes)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark
