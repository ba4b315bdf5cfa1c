"""The steps from noisy images to denoised ones in a working folder, each of which is done once."""

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dvlae.api.choices import REFINED_PASSES, choose_noise, choose_prediction, choose_training
from dvlae.api.options import Wishes
from dvlae.api.plan import Plan
from dvlae.axes import format_sides, middle
from dvlae.config.dataset import DatasetSettings, EvaluationSettings
from dvlae.config.settings import PatchSettings, PredictSettings, Settings, TrainSettings
from dvlae.data.canonical import CANONICAL_FILES, read_info, read_noisy, write_frames
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.data.outputs.conversion import Converter
from dvlae.data.patches import extract_patches
from dvlae.data.prepare import prepare
from dvlae.data.sources import SourceInfo
from dvlae.evaluation.register import Targets
from dvlae.inference.prediction import predict
from dvlae.models.files import read_architecture
from dvlae.reporting.diagnosis import diagnose
from dvlae.reporting.page.measurements import find_doubt, measure
from dvlae.reporting.page.records import Records
from dvlae.reporting.page.views import Frame, choose_frames
from dvlae.reporting.ranking import compare_models, measure_noise
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

    def _can_compare(self) -> bool:
        """Return whether models of these images can be compared; if not, say why."""
        try:
            measure_noise(self.images, self.chosen_noise[0])
        except UserError as error:
            level = logging.WARNING if self.wishes.decoder == "best" else logging.INFO
            first = self.wishes.decoders[0]
            logger.log(level, f"denoise: decoders cannot be compared, and {first} is taken: {error}")
            return False
        return True

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
            decoder=wishes.decoders[0],
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
        (direction, receptive_field), plan = self.chosen_noise, self.plan
        refine = plan.settings.training.refine_fraction if plan.refines else 0.0
        pixels = _passes(samples, plan) * _pixels(self.manifest())
        alone = len(plan.decoders) == 1
        trained = {decoder: self.run if alone else RunFolder(self.folder / decoder) for decoder in plan.decoders}
        for number, (decoder, run) in enumerate(trained.items(), start=1):
            goal = run.model if pause_minutes is None else model
            if goal.exists():
                continue
            # The plan is that of the first decoder, or of a model to start from.
            others = {} if decoder == plan.decoders[0] else {"autoregression": decoder}
            train(
                self._patches,
                goal,
                receptive_field=receptive_field,
                noise_direction=direction,
                seed=self.wishes.seed,
                checkpoints=run.checkpoints,
                settings=plan.settings.model_copy(update={"model": plan.settings.model.model_copy(update=others)}),
                start_from=self.wishes.start_from,
                pause_minutes=pause_minutes,
                outlook=Outlook(pixels, results, refine, len(trained) - number) if results else None,
                expected_steps=plan.expected_steps,
            )
            if pause_minutes is not None:
                return
            record = read_run(goal)
            plan.check(record["steps"] + record.get("refinement_steps", 0))
        if not alone:
            table = compare_models(
                self.images, {decoder: run.model for decoder, run in trained.items()}, device=self.wishes.device
            )
            logger.info(f"denoise: keeps the model with the {table.model[0]} decoder")
            os.replace(trained[table.model[0]].model, model)

    @property
    def _patches(self) -> Path:
        return DatasetFolder(self.folder).patches

    @cached_property
    def plan(self) -> Plan:
        """The way the model is trained, or that in which an interrupted training was begun; the patches are cut."""
        path, wishes, (direction, receptive_field) = self.folder / "plan.json", self.wishes, self.chosen_noise
        candidates = self.trainings([image.shape for image in self.manifest()])
        if not self._patches.exists():
            first = Settings(model=candidates[0].model, training=candidates[0].training)
            extract_patches(self.images, self._patches, settings=PatchSettings.of(first, self.dataset))
        if (plan := Plan.read(path, candidates[0].device)) is not None:
            return plan
        must_compare = wishes.decoder == "best"
        if wishes.max_steps is not None or wishes.start_from is not None:
            number = len(wishes.decoders) if must_compare and self._can_compare() else 1
            plan = Plan(candidates[0]).divided(wishes.decoders[:number])
            for line in plan.lines():
                logger.info(f"denoise: {line}")
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
                decoders=wishes.decoders,
                must_compare=must_compare,
                can_compare=self._can_compare,
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
        passes = _passes(samples, self.plan) / PREVIEW_SAMPLES
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

    def check_removed(self, model: Path) -> None:
        """Warn if something else than the noise was removed, as far as some of the images tell.

        Parameters
        ----------
        model
            Folder of the model that has denoised them.
        """
        direction, targets = read_architecture(model).noise_direction, Targets(EvaluationSettings())
        chosen = choose_frames(self.manifest(), Records.read(model, self.run.denoised).unchanged)
        frames = (Frame.read(image, self.run.denoised, self.run.uncertainty) for image in chosen)
        doubt = find_doubt([one for frame in frames for one in measure(frame, direction, targets)])
        if doubt is not None:
            logger.warning(f"denoise: WARNING: {doubt}; look at noisy − denoised")


def _passes(samples: int, plan: Plan) -> int:
    """Return about how often each pixel passes through the networks, with so many samples after a training."""
    return samples + (REFINED_PASSES if plan.refines else 0)


def _pixels(images: Sequence[Image]) -> int:
    return sum(math.prod(image.shape[1:]) for image in images)
