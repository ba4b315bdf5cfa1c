"""Denoise all images of a manifest, as ``dvlae predict`` does."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import tee
from pathlib import Path

import numpy as np
import torch

from dvlae import revision
from dvlae.config.settings import OutputSettings, PredictionSettings, PredictSettings
from dvlae.data.defects.denoising import FramesToDenoise
from dvlae.data.defects.seen import SeenScale
from dvlae.data.manifest import Image, read_manifest
from dvlae.data.outputs.folder import OutputFolder
from dvlae.data.outputs.reading import OUTPUT_FILES
from dvlae.inference.direct import count_passes, denoise_images_directly
from dvlae.inference.estimates import Estimate, denoise_images
from dvlae.inference.posterior import check_model_input
from dvlae.inference.samples import choose_precision, count_parts, halve_portions, worker_memory
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import HISTORIES, load_to, read_noise, read_seen_scale
from dvlae.runs.folder import RunFolder
from dvlae.system.arrays import release
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, write_json
from dvlae.system.hardware.devices import device_name, tune_malloc, use_one_thread
from dvlae.system.hardware.machine import choose_workers
from dvlae.system.hardware.reservation import reserved_devices
from dvlae.system.hardware.usage import Usage
from dvlae.system.hashes import sha256
from dvlae.system.parts import WHOLE, Part
from dvlae.system.progress import progress
from dvlae.system.software import software

logger = logging.getLogger(__name__)


def predict(
    model: Path,
    images: Path,
    denoised: Path,
    uncertainty: Path,
    samples: Path | None = None,
    *,
    seed: int,
    settings: PredictSettings,
    part: Part = WHOLE,
    cores: int | None = None,
) -> None:
    """Denoise every image of a manifest.

    An interrupted prediction continues after the last finished frame when it is run again.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    denoised, uncertainty
        Folders to make: estimates and posterior standard deviations, one TIFF for each source, in its units and with
        its axes. A single sample has no standard deviation; ``uncertainty`` is then empty. ``prediction.json`` next to
        ``denoised`` records settings, seed, model, seconds and versions.
    samples
        Folder to make: the first ``settings.prediction.save_samples`` samples, one TIFF for each source, whose axes
        follow that of the samples.
    seed
        Seed of the latent noise.
    settings
        Estimator, samples, tile, batch size and device.
    part
        Denoise only the images of this part; all parts are joined by :func:`dvlae.runs.gather.gather`.
    cores
        Cores that the prediction may use; None: all that this process may use.

    Raises
    ------
    UserError
        If the model or an image cannot be used, the device is missing, or its memory does not suffice for the smallest
        tile.
    """
    tune_malloc()
    manifest = part.share(read_manifest(images))
    how = settings.prediction
    record = RunFolder(Path(denoised).parent).prediction_record
    with ExitStack() as stack:
        (device,) = stack.enter_context(reserved_devices(settings.device))
        start = time.monotonic()
        usage = stack.enter_context(Usage())
        network = load_to(device, model)
        how = _possible(how, network, model)
        how = how.model_copy(update={"precision": choose_precision(network, how, read_noise(model))})
        passes = how.draws_samples * how.samples + (count_passes(network, how) if how.is_direct else 0)
        total = passes * sum(math.prod(image.shape[1:]) for image in manifest)
        for image in manifest:
            check_model_input(network.architecture, image.shape, image.name)
        workers = 1
        if device.type == "cpu":
            use_one_thread()
            shapes = [image.shape for image in manifest]
            parts = sum(count_parts(network, shape, how) for shape in shapes)
            workers = choose_workers("predict", parts, cores=cores, memory=worker_memory(network, shapes, how))
        inputs = _inputs(model, images, seed, settings, part)
        folders = [
            stack.enter_context(atomic_folder(folder, OUTPUT_FILES, inputs)) for folder in (denoised, uncertainty)
        ]
        results = OutputFolder(folders[0], manifest, how.output)
        deviations = OutputFolder(folders[1], manifest, how.output, deviation=True)
        done = [results, deviations] if how.has_deviation else [results]
        stored: OutputFolder | None = None
        if samples is not None:
            folder = stack.enter_context(atomic_folder(samples, OUTPUT_FILES, inputs))
            if how.save_samples:
                as_stored = OutputSettings(compression=how.output.compression)
                stored = OutputFolder(folder, manifest, as_stored, samples=how.save_samples)
                done.append(stored)
        by_name = {image.name: image for image in manifest}
        kept: dict[str, list[np.ndarray]] = {}

        def keep(name: str, shape: tuple[int, ...]) -> list[np.ndarray]:
            kept[name] = [] if stored is None else stored.place(by_name[name])
            return kept[name]

        bar = stack.enter_context(progress(total=total, description="predict", unit="px", unit_scale=True))
        # The estimate is what is written last of each image.
        waiting = [image for image in manifest if not all(folder.has(image) for folder in done)]
        bar.update(total - passes * sum(math.prod(image.shape[1:]) for image in waiting))
        seen = read_seen_scale(model)
        frames = FramesToDenoise(
            None if seen is None else SeenScale.from_json(seen),
            keep_hot=how.hot_pixels == "keep",
            rescale=how.rescale,
        )
        names = {image.name for image in waiting}
        for image in manifest:
            # The record and the messages are about all images, not only those after an interruption.
            if image.name not in names:
                frames.examine(image)

        def estimate_all(waiting: Sequence[Image], how: PredictionSettings) -> Iterator[Estimate]:
            noisy = ((image.name, frames.take(image)) for image in waiting)
            direct = partial(denoise_images_directly, network, settings=how, workers=workers, on_progress=bar.update)
            sample = partial(
                denoise_images, network, seed=seed, settings=how, workers=workers, keep=keep, on_progress=bar.update
            )
            if not how.is_direct:
                return sample(noisy)
            if not how.draws_samples:
                return ((estimate, None) for estimate in direct(noisy))
            first, second = tee(noisy)
            return ((estimate, std) for estimate, (_, std) in zip(direct(first), sample(second), strict=True))

        for image, found in _within_memory(network, waiting, how, estimate_all):
            # The sum of numbers in single precision is a number in double precision.
            if not np.isfinite(np.sum(found[0], dtype=np.float64)):
                raise UserError(
                    f"{model}: found values that are not finite in its estimate of {image.name}, so its weights, mean "
                    "or standard deviation are damaged; train the model again, or import it again"
                )
            release(found[0])
            estimate, std = frames.give_back(image.name, *found)
            if stored is not None:
                frames.convert_samples(image.name, kept.pop(image.name))
                stored.finish(image)
            if std is not None:
                deviations.write(image, std)
            results.write(image, estimate)
        frames.log()
        results.report.log("predict")
    recorded = settings.record()["prediction"]
    description = {
        # The estimate does not depend on the number of samples that are saved.
        "settings": {name: value for name, value in recorded.items() if name != "save_samples"},
        "seed": seed,
        "revision": revision.PREDICTION,
        "weights_sha256": sha256(model / "weights.safetensors"),
        "device": device_name(device),
        "estimator": how.estimator,
        "precision": how.precision,
        "found": frames.summary(),
        "seconds": round(time.monotonic() - start, 1),
        "processor_seconds": round(usage.processor_seconds / workers, 1) if device.type == "cpu" else None,
        # Of this attempt.
        "megapixels": round(sum(math.prod(image.shape[1:]) for image in waiting) / 1e6, 6),
        "peak_memory_mb": round(usage.peak_memory_mb),
        **part.record(),
        **software(),
    }
    write_json(record, description)


def _possible(how: PredictionSettings, network: DVLAE, model: Path) -> PredictionSettings:
    """Return the settings with samples in place of a refined denoiser that the training has left out."""
    if not how.is_direct or network.direct_denoiser is not None or not (model / HISTORIES[1]).exists():
        return how
    logger.warning(
        "predict: WARNING: samples denoise, as the training has left the refined denoiser out: the model has learned "
        "noise that is stronger than that of the images; train longer"
    )
    return how.model_copy(update={"estimator": "mmse"})


def _within_memory(
    network: DVLAE,
    images: Sequence[Image],
    settings: PredictionSettings,
    estimate_all: Callable[[Sequence[Image], PredictionSettings], Iterator[Estimate]],
) -> Iterator[tuple[Image, Estimate]]:
    """Yield each image with its estimate. Where the memory of a GPU does not suffice, go on with less at once."""
    done = 0
    while done < len(images):
        waiting = images[done:]
        try:
            for image, found in zip(waiting, estimate_all(waiting, settings), strict=True):
                yield image, found
                done += 1
        except torch.cuda.OutOfMemoryError:
            settings = halve_portions(network, images[done].shape, settings)
        else:
            return
        # The exception, and all tensors that it referred to, are gone here.
        torch.cuda.empty_cache()
        logger.warning(
            f"predict: WARNING: the memory of the GPU does not suffice for {images[done].name}; goes on with "
            f"{settings.batch_size} samples at once of tiles of {settings.tile} pixels"
        )


def _inputs(model: Path, images: Path, seed: int, settings: PredictSettings, part: Part) -> str:
    """Describe all that the estimates depend on, so that an interrupted prediction can be continued."""
    description = {
        "weights": sha256(model / "weights.safetensors"),
        "images": (images / "manifest.csv").stat().st_mtime_ns,  # The manifest is written with the images.
        "seed": seed,
        "settings": settings.identity()["prediction"],
        "revision": revision.PREDICTION,
        **part.record(),
    }
    return json.dumps(description)
