"""Measurements of the steps of the workflow, each on small computed images, for a few seconds."""

import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from dvlae.config.dataset import EvaluationSettings
from dvlae.config.settings import PatchSettings, PredictionSettings, TrainSettings
from dvlae.data.canonical import write_frames
from dvlae.data.manifest import Image, write_manifest
from dvlae.data.patches import extract_patches
from dvlae.data.sources import SourceInfo
from dvlae.evaluation.evaluate import evaluate
from dvlae.evaluation.register import register
from dvlae.inference.direct import denoise_images_directly
from dvlae.inference.estimates import denoise_images
from dvlae.inference.samples import choose_precision, count_parts, halve_portions
from dvlae.methods.run import run_method
from dvlae.models.dvlae import DVLAE, build_model
from dvlae.reporting.diagnosis import diagnose
from dvlae.reporting.style import save_figure
from dvlae.reporting.training_figures import plot_histories
from dvlae.runs.folder import DONE, RunFolder, read_json
from dvlae.system.hardware.devices import tune_malloc, use_fast_arithmetic, use_one_thread
from dvlae.training.train import measure_rate

# Of the steps of a training.
SECONDS_TO_TRAIN = 8.0
LONG_EPOCH = 10**6
# A part of an image is denoised that takes at least this long, or a complete one.
SECONDS_TO_DENOISE = 0.5
FIRST_SIDES = {1: 2**14, 2: 128, 3: 32}
# What a sample takes, and what the view of the image takes, follows from the difference.
FEW_SAMPLES, MORE_SAMPLES = 2, 6
# Filters and measures are tried on so many images, with at most this side in pixels, by the number of spatial axes.
FRAMES, SIDES = 3, {1: 2**16, 2: 256, 3: 40}
# What steps import, as far as it takes time.
MODULES = {
    "register": "dvlae.evaluation.evaluate",
    "evaluate": "dvlae.evaluation.evaluate",
    "diagnose": "dvlae.reporting.figures",
    "tables": "dvlae.reporting.figures",
    "figures": "dvlae.reporting.figures",
    "train": "dvlae.training.train",
    "predict": "dvlae.inference.prediction",
    "search_method": "dvlae.inference.prediction",
    "run_method": "dvlae.inference.prediction",
}
ON_DEVICE = ("train", "predict")
GREY_VALUES = {"mean": 500.0, "std": 230.0, "step": 1.0}


class Network(NamedTuple):
    """A network, and the images that it is trained on, as far as its speed depends on them.

    Attributes
    ----------
    settings
        Sizes and limits.
    channels
        Channels of an image.
    crop, patch
        Sides of a training crop and of a patch, in pixels.
    receptive_field, noise_direction
        As for :func:`dvlae.training.train.train`.
    """

    settings: TrainSettings
    channels: int
    crop: tuple[int, ...]
    patch: tuple[int, ...]
    receptive_field: int
    noise_direction: str


class Filtering(NamedTuple):
    """The seconds for a pixel that a filter takes to choose its parameters, and to denoise."""

    to_fit: float
    to_denoise: float


@dataclass
class Measurements:
    """What the steps take on this machine. Each is measured once.

    Attributes
    ----------
    folder
        An empty folder.
    device
        Where networks compute: ``cpu``, ``cuda`` or ``mps``.
    cores
        Cores of one training or prediction.
    """

    folder: Path
    device: str
    cores: int
    _found: dict[Any, Any] = field(default_factory=dict)

    def _once(self, key: tuple, measure: Callable[[Path], Any]) -> Any:
        """Return what was measured, or measure it, in a folder of its own."""
        if key not in self._found:
            folder = self.folder / str(len(self._found))
            folder.mkdir()
            self._found[key] = None  # The next folder has another number.
            self._found[key] = measure(folder)
        return self._found[key]

    @property
    def step_rates(self) -> list[float]:
        """The steps in a second of each training that was measured."""
        return [value for key, value in self._found.items() if key[0] == "train"]

    def start(self, rule: str) -> float:
        """Measure how long a step takes to import what it needs.

        Parameters
        ----------
        rule
            The name of its rule.

        Returns
        -------
        float
            In seconds; for the steps that compute on the device, with the time to prepare it.
        """
        module = MODULES.get(rule, "dvlae.data.patches")
        program = f"import {module}"
        if rule in ON_DEVICE:
            program += f", torch; torch.zeros(1, device={self.device!r})"
        return self._once(
            ("start", program), lambda _: _time(lambda: subprocess.run([sys.executable, "-c", program], check=True))
        )

    def steps_per_second(self, network: Network) -> float:
        """Measure how many steps in a second a training takes.

        Parameters
        ----------
        network
            What is trained.

        Returns
        -------
        float
            Steps in a second, without validation.
        """
        return self._once(("train", repr(network)), lambda folder: self._steps_per_second(network, folder))

    def _steps_per_second(self, network: Network, folder: Path) -> float:
        images = self._images((network.channels, *network.patch))
        extract_patches(images, folder / "patches", PatchSettings.of(network.settings))
        # No epoch ends within the measurement, as the few patches have short ones.
        limits = network.settings.training.model_copy(update={"min_epoch_steps": LONG_EPOCH})
        return measure_rate(
            folder / "patches",
            receptive_field=network.receptive_field,
            noise_direction=network.noise_direction,
            settings=network.settings.model_copy(update={"training": limits}),
            seconds=SECONDS_TO_TRAIN,
            cores=self.cores,
        )

    def seconds_to_denoise(self, network: Network, how: PredictionSettings, sides: Sequence[int]) -> float:
        """Measure how long a pixel takes to be denoised.

        Parameters
        ----------
        network
            What denoises. Its receptive field does not matter.
        how
            Estimator and samples.
        sides
            Sides of an image, in pixels.

        Returns
        -------
        float
            In seconds, of all samples, divided among the cores.
        """
        same = network._replace(receptive_field=0)
        key = ("predict", repr(same), how.model_dump_json(), tuple(sides))
        return self._once(key, lambda folder: self._seconds_to_denoise(network, how, sides))

    def _seconds_to_denoise(self, network: Network, how: PredictionSettings, sides: Sequence[int]) -> float:
        use_fast_arithmetic()
        tune_malloc()
        use_one_thread()
        scale = {name: [value] * network.channels for name, value in GREY_VALUES.items()}
        model = build_model(network.settings, scale, network.crop, network.receptive_field, network.noise_direction)
        model.eval().to(self.device)
        how = how.model_copy(update={"precision": choose_precision(model, how, noise=1.0)})  # strong noise
        side = FIRST_SIDES[len(sides)]
        while True:
            part = [min(side, own) for own in sides]
            image = _picture((network.channels, *part))
            _denoise(model, image, how, 1)  # The first time for a size takes longer.
            few = _time(partial(_denoise, model, image, how, FEW_SAMPLES))
            if few >= SECONDS_TO_DENOISE or part == list(sides):
                break
            side *= 2
        seconds = few
        if how.draws_samples:
            more = _time(partial(_denoise, model, image, how, MORE_SAMPLES))
            of_sample = max(0.0, more - few) / (MORE_SAMPLES - FEW_SAMPLES)
            of_view = max(0.0, few - FEW_SAMPLES * of_sample)
            views = count_parts(model, (network.channels, *(1 for _ in sides)), how)
            seconds = views * of_view + how.samples * of_sample
            if how.is_direct:
                seconds += _time(partial(_denoise, model, image, how.model_copy(update={"estimator": "direct"}), 0))
        return seconds / math.prod(part) / self.cores

    def filtering(self, method: str, shape: tuple[int, ...], noise_direction: str, *, clean: bool) -> Filtering:
        """Measure how long a method that trains nothing takes.

        Parameters
        ----------
        method
            Name of a method file, or its path.
        shape
            Shape of an image, (C, ...).
        noise_direction
            An axis or ``none``.
        clean
            Whether there are clean images.

        Returns
        -------
        Filtering
            Zeros where the method cannot be run or applied.
        """
        shape = _cut(shape)
        key = ("run_method", method, shape, noise_direction, clean)

        def measure(folder: Path) -> Filtering:
            images = self._images(shape, clean=clean)
            diagnose(
                images, folder / "noise.json", dataset="noise", noise_direction=None, settings=EvaluationSettings()
            )
            given: dict[str, Any] = {"noise": folder / "noise.json", "noise_direction": noise_direction, "cores": 1}
            _time_again(lambda: run_method(method, images, folder / "denoised", settings=EvaluationSettings(), **given))
            record = read_json(RunFolder(folder).method_record)
            if record["status"] != DONE:
                return Filtering(0.0, 0.0)
            pixels = FRAMES * math.prod(shape[1:])
            return Filtering(record["training_seconds"] / pixels, record["prediction_seconds"] / pixels)

        return self._once(key, measure)

    @property
    def seconds_to_draw(self) -> float:
        """The seconds that a figure takes: here one of four plots."""
        names = [f"{part}_{name}" for part in ("train", "val") for name in ("elbo", "log_likelihood", "kl", "mse")]
        history = pd.DataFrame({name: np.arange(100.0) for name in ("step", *names)})

        def draw(folder: Path) -> float:
            return _time_again(lambda: save_figure(plot_histories([(0, history)], "training"), folder / "figure"))

        return self._once(("figure",), draw)

    def seconds_to_evaluate(self, shape: tuple[int, ...], *, clean: bool) -> float:
        """Measure how long a pixel takes to be evaluated.

        Parameters
        ----------
        shape
            Shape of an image, (C, ...).
        clean
            Whether there are clean images.

        Returns
        -------
        float
            In seconds, on one core.
        """
        shape = _cut(shape)

        def measure(folder: Path) -> float:
            images, settings = self._images(shape, clean=clean), EvaluationSettings()
            run_method("noisy", images, folder / "denoised", settings=settings, cores=1)
            register(images, folder / "targets.csv", settings=settings, cores=1)
            run: dict[str, Any] = {"dataset": "none", "method": "noisy", "receptive_field": None, "seed": 0, "cores": 1}
            paths = images, folder / "denoised", folder / "psnr.csv"
            seconds = _time_again(lambda: evaluate(*paths, settings=settings, targets=folder / "targets.csv", **run))
            return seconds / (FRAMES * math.prod(shape[1:]))

        return self._once(("evaluate", shape, clean), measure)

    def seconds_to_prepare(
        self, shape: tuple[int, ...], settings: EvaluationSettings, *, clean: bool
    ) -> tuple[float, float]:
        """Measure how long a pixel takes until there are patches, and it is known how the clean images lie.

        Parameters
        ----------
        shape
            Shape of an image, (C, ...).
        settings
            How the dataset is evaluated.
        clean
            Whether there are clean images.

        Returns
        -------
        to_cut, to_register
            In seconds, on one core.
        """
        shape = _cut(shape)
        how = EvaluationSettings(register=settings.register, fit=settings.fit)

        def measure(folder: Path) -> tuple[float, float]:
            images, pixels = self._images(shape, clean=clean), FRAMES * math.prod(shape[1:])
            to_cut = _time_again(lambda: extract_patches(images, folder / "patches", PatchSettings(stride=1)))
            to_register = _time_again(lambda: register(images, folder / "targets.csv", settings=how, cores=1))
            return to_cut / pixels, to_register / pixels

        return self._once(("prepare", shape, how.model_dump_json(), clean), measure)

    def _images(self, shape: tuple[int, ...], *, clean: bool = False) -> Path:
        """Return a folder of canonical images of this shape, (C, ...)."""

        def write(folder: Path) -> Path:
            noisy, signal = folder / "noisy" / "probe.tif", folder / "clean" / "probe.tif"
            frames = [_picture(shape, number) for number in range(FRAMES)]
            write_frames(noisy, SourceInfo.of_frames(shape, FRAMES, "uint16"), frames, np.dtype(np.uint16))
            if clean:
                write_frames(signal, SourceInfo.of_frames(shape), [_signal(shape)], np.dtype(np.float32))
            write_manifest(
                folder,
                [
                    Image(f"probe_{number}", noisy, signal if clean else None, shape, frame=number)
                    for number in range(FRAMES)
                ],
            )
            return folder

        return self._once(("images", shape, clean), write)


def _cut(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a part of an image of this shape, (C, ...), on which filters and measures are tried."""
    return (shape[0], *(min(side, SIDES[len(shape) - 1]) for side in shape[1:]))


def _signal(shape: tuple[int, ...]) -> np.ndarray:
    """Return a ramp along x, (C, ...)."""
    return np.broadcast_to(np.linspace(100, 900, shape[-1], dtype=np.float32), shape)


def _picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a ramp with the noise of counted photons, (C, ...)."""
    return np.random.default_rng(seed).poisson(_signal(shape)).astype(np.float32)


def _denoise(model: DVLAE, image: np.ndarray, how: PredictionSettings, samples: int) -> None:
    """Denoise an image as the settings say, but with so many samples of one view, and within the memory of a GPU."""
    if how.draws_samples:
        change = {"samples": samples, "estimator": "mmse", "flips": False, "shifts": 1}
        how = how.model_copy(update=change)
    while True:
        try:
            if not how.draws_samples:
                list(denoise_images_directly(model, [("probe", image)], settings=how))
            else:
                list(denoise_images(model, [("probe", image)], seed=0, settings=how))
        except torch.cuda.OutOfMemoryError:
            how = halve_portions(model, image.shape, how)
        else:
            return
        # The exception, and all tensors that it referred to, are gone here.
        torch.cuda.empty_cache()


def _time(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _time_again(work: Callable[[], object]) -> float:
    """Return how long work takes the second time: the first time, libraries are imported."""
    work()
    return _time(work)
