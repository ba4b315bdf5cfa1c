"""The steps from noisy images to denoised ones in a working folder, each of which is done once."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dvlae.api.choices import REFINED_PASSES, choose_noise, choose_prediction, choose_training
from dvlae.api.options import check_device, check_minutes, check_receptive_field, check_seed, check_whole_number
from dvlae.api.plan import Plan, describe
from dvlae.axes import AXES, format_sides, middle
from dvlae.config.dataset import DatasetSettings, EvaluationSettings
from dvlae.config.settings import PatchSettings, PredictSettings, Settings, TrainSettings
from dvlae.data.canonical import CANONICAL_FILES, read_info, read_noisy, write_frames
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.data.outputs.conversion import Converter
from dvlae.data.patches import extract_patches
from dvlae.data.prepare import prepare
from dvlae.data.sources import SourceInfo
from dvlae.inference.prediction import predict
from dvlae.models.files import read_architecture
from dvlae.reporting.diagnosis import diagnose
from dvlae.runs.folder import DatasetFolder, RunFolder, read_json
from dvlae.runs.record import read_run
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder
from dvlae.system.hardware.devices import choose_device
from dvlae.system.wording import count
from dvlae.training.displays import Outlook
from dvlae.training.train import measure_rate, train

logger = logging.getLogger(__name__)

# A preview is denoised in seconds.
PREVIEW_PIXELS = 2**18
PREVIEW_SAMPLES = 8
STEPS_ALLOWED = "None, or a whole number from 1"


@dataclass(frozen=True)
class Wishes:
    """What a user may say of a training.

    Attributes
    ----------
    noise_direction
        An axis, ``none`` or ``auto``.
    receptive_field
        A number of pixels, or ``auto``.
    minutes
        Time for the training.
    max_steps
        Largest number of batches; None: as many as there is time for.
    seed
        Seed of the training and of the samples.
    device
        Where to compute.
    direct
        Whether a denoiser is refined even if there is little time.
    start_from
        Folder of a trained model whose weights are the first ones, and whose sizes, direction and receptive field the
        new one has, too; None: the first weights are random.

    Raises
    ------
    UserError
        If a value is not allowed.
    """

    noise_direction: str = "auto"
    receptive_field: int | str = "auto"
    minutes: float = 30.0
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    direct: bool = False
    start_from: Path | None = None

    def __post_init__(self) -> None:
        if self.noise_direction not in (*AXES, "none", "auto"):
            raise UserError(f"noise direction: found {self.noise_direction!r}, allowed: auto, x, y, z, none")
        if self.start_from is not None and (self.noise_direction, self.receptive_field) != ("auto", "auto"):
            raise UserError(
                f"noise direction, receptive field: found {self.noise_direction}, {self.receptive_field}, allowed: "
                "auto, as those of the model to start from are kept"
            )
        steps = self.max_steps
        checked = {
            "receptive_field": check_receptive_field(self.receptive_field, self.noise_direction),
            "minutes": check_minutes(self.minutes),
            "max_steps": None if steps is None else check_whole_number("max_steps", steps, STEPS_ALLOWED, 1),
            "seed": check_seed(self.seed),
            "device": check_device(self.device),
        }
        for name, value in checked.items():
            # Numbers of NumPy become those of Python.
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Session:
    """The steps in a working folder. A step whose result is there is not repeated.

    Attributes
    ----------
    folder
        The working folder.
    dataset
        The image files, and how to read them.
    data
        The folder that these are relative to.
    wishes
        What the user says of the training.
    """

    folder: Path
    dataset: DatasetSettings
    data: Path
    wishes: Wishes

    @property
    def images(self) -> Path:
        """The folder of canonical images."""
        return DatasetFolder(self.folder).images

    @property
    def run(self) -> RunFolder:
        """The folders of the training and of the results."""
        return RunFolder(self.folder)

    @property
    def noise(self) -> Path:
        """The description of the noise, JSON."""
        return self.folder / "noise.json"

    @property
    def preview(self) -> "Session":
        """The same for a part of one image, with the model as it is then."""
        return Session(self.folder / "preview", self.dataset, self.data, self.wishes)

    def manifest(self) -> list[Image]:
        """List the images.

        Returns
        -------
        list of Image
            Those in the folder of canonical images.
        """
        return read_manifest(self.images)

    def prepare(self) -> None:
        """Read the images, and say what was read."""
        if not self.images.exists():
            prepare(self.dataset, self.data, None, self.images)
            images = self.manifest()
            shapes = sorted({image.shape for image in images})
            sizes = [
                f"{format_sides(sides)} pixels" + (f" with {channels} channels" if channels > 1 else "")
                for channels, *sides in shapes
            ]
            logger.info(
                f"denoise: {count(len(images), 'image')} of {', '.join(sizes[:3])}"
                + (" and others" if len(sizes) > 3 else "")
            )

    def diagnose(self, direction: str | None = None) -> dict[str, Any]:
        """Measure the noise.

        Parameters
        ----------
        direction
            The direction that a model or the user assumes, for a warning where the noise contradicts it; None: none.

        Returns
        -------
        dict
            The content of :attr:`noise`.
        """
        if not self.noise.exists():
            diagnose(self.images, self.noise, dataset="noise", noise_direction=direction, settings=EvaluationSettings())
        return json.loads(self.noise.read_text(encoding="utf-8"))

    @cached_property
    def chosen_noise(self) -> tuple[str, int]:
        """The direction of the noise and the receptive field, as the user says or as measured."""
        wishes = self.wishes
        if wishes.start_from is not None:
            like = read_architecture(wishes.start_from)
            self.diagnose(like.noise_direction)
            logger.info(
                f"denoise: continues {wishes.start_from}: noise direction {like.noise_direction}, receptive field "
                f"{like.receptive_field} px"
            )
            return like.noise_direction, like.receptive_field
        found = self.diagnose(None if wishes.noise_direction == "auto" else wishes.noise_direction)
        return choose_noise(found, wishes.noise_direction, wishes.receptive_field)

    def trainings(self, shapes: Sequence[Sequence[int]]) -> list[TrainSettings]:
        """Choose how the model may be trained.

        Parameters
        ----------
        shapes
            Shapes of the images, (C, ...).

        Returns
        -------
        list of TrainSettings
            As :func:`dvlae.api.choices.choose_training` returns them.
        """
        wishes = self.wishes
        return choose_training(
            shapes,
            choose_device(wishes.device).type,
            minutes=wishes.minutes,
            max_steps=wishes.max_steps,
            direct=wishes.direct,
            like=None if wishes.start_from is None else read_architecture(wishes.start_from),
        )

    def train(self, samples: int = 0, results: str = "", pause_minutes: float | None = None) -> None:
        """Train the model.

        Parameters
        ----------
        samples
            Samples of each image that are taken afterwards, for the outlook.
        results
            What is written in the end, for the outlook; empty: there is none.
        pause_minutes
            Minutes after which the model of the preview is written instead; None: the training goes on to its end.
        """
        model = (self if pause_minutes is None else self.preview).run.model
        if model.exists():
            return
        direction, receptive_field = self.chosen_noise
        plan = self._plan(direction, receptive_field)
        refine = plan.settings.training.refine_fraction if plan.refines else 0.0
        outlook = Outlook(_passes(samples, plan) * _pixels(self.manifest()), results, refine)
        train(
            self._patches,
            model,
            receptive_field=receptive_field,
            noise_direction=direction,
            seed=self.wishes.seed,
            checkpoints=self.run.checkpoints,
            settings=plan.settings,
            start_from=self.wishes.start_from,
            pause_minutes=pause_minutes,
            outlook=outlook if results else None,
            expected_steps=plan.expected_steps,
        )
        if pause_minutes is None:
            record = read_run(model)
            plan.check(record["steps"] + record.get("refinement_steps", 0))

    @property
    def _patches(self) -> Path:
        return DatasetFolder(self.folder).patches

    def _plan(self, direction: str, receptive_field: int) -> Plan:
        """Cut the patches, and choose how the model is trained, or read how an interrupted training was begun."""
        path, wishes = self.folder / "plan.json", self.wishes
        candidates = self.trainings([image.shape for image in self.manifest()])
        if not self._patches.exists():
            first = Settings(model=candidates[0].model, training=candidates[0].training)
            extract_patches(self.images, self._patches, settings=PatchSettings.of(first, self.dataset))
        if (plan := Plan.read(path, candidates[0].device)) is not None:
            return plan
        if wishes.max_steps is not None or wishes.start_from is not None:
            logger.info(f"denoise: {describe(candidates[0])}")
            plan = Plan(candidates[0])
        else:
            logger.info("denoise: measures how fast this machine trains")
            plan = Plan.choose(
                candidates,
                lambda settings, seconds: measure_rate(
                    self._patches,
                    receptive_field=receptive_field,
                    noise_direction=direction,
                    settings=settings,
                    seconds=seconds,
                ),
                must_refine=wishes.direct,
            )
        plan.write(path)
        return plan

    def make_preview(self) -> None:
        """Denoise a part of an image with the model of the preview."""
        preview = self.preview
        if not preview.images.exists():
            images = self.manifest()
            image = images[len(images) // 2]
            side = round(PREVIEW_PIXELS ** (1 / len(image.shape[1:])))
            part = middle(image.shape[1:], [side] * len(image.shape[1:]))
            source = read_info(image.noisy)
            values = Converter.choose(source)(read_noisy(image)[(slice(None), *part)])
            with atomic_folder(preview.images, CANONICAL_FILES) as folder:
                path = folder / "noisy" / f"{image.name}.tif"
                # The model knows the units of the source. This kind of file is written without a word.
                info = SourceInfo.of_frames(values.shape, dtype=values.dtype.name)
                write_frames(
                    path, replace(info, kind="imagej", offset=source.offset, scale=source.scale), [values], values.dtype
                )
                write_manifest(folder, [Image(image.name, path, None, values.shape, source=image.source)])
        settings = choose_prediction(PREVIEW_SAMPLES, self.wishes.device, trained=True, denoiser=None)
        preview.denoise(preview.run.model, settings)

    def seconds_to_denoise(self, samples: int) -> float:
        """Estimate from the preview how long the denoising of all images takes.

        Parameters
        ----------
        samples
            Samples of each pixel.

        Returns
        -------
        float
            In seconds.
        """
        seconds = read_json(self.preview.run.prediction_record)["seconds"]
        passes = _passes(samples, self._plan(*self.chosen_noise)) / PREVIEW_SAMPLES
        return seconds * passes * _pixels(self.manifest()) / _pixels(self.preview.manifest())

    def denoise(self, model: Path, settings: PredictSettings) -> None:
        """Denoise the images.

        Parameters
        ----------
        model
            Folder of a trained model.
        settings
            How they are denoised.
        """
        denoised, uncertainty = self.run.denoised, self.run.uncertainty
        if not (denoised.exists() and uncertainty.exists()):
            predict(model, self.images, denoised, uncertainty, seed=self.wishes.seed, settings=settings)


def _passes(samples: int, plan: Plan) -> int:
    """Return about how often each pixel passes through the networks, with so many samples after a training."""
    return samples + (REFINED_PASSES if plan.refines else 0)


def _pixels(images: Sequence[Image]) -> int:
    return sum(math.prod(image.shape[1:]) for image in images)
