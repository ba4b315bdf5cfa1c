"""Denoise all images of a manifest, as ``dvlae predict`` does."""

import json
import math
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tifffile

from dvlae import revision
from dvlae.config.settings import PredictSettings
from dvlae.data.canonical import read_canonical, write_image
from dvlae.data.manifest import read_manifest
from dvlae.inference.estimates import denoise, denoise_directly
from dvlae.models.files import load_to
from dvlae.runs.folder import RunFolder
from dvlae.system.devices import device_name, tune_malloc
from dvlae.system.files import atomic_folder, reserve_space, sha256, write_json
from dvlae.system.progress import progress
from dvlae.system.reservation import reserved_devices
from dvlae.system.software import software


def predict(
    model: Path,
    images: Path,
    denoised: Path,
    uncertainty: Path,
    samples: Path | None = None,
    *,
    seed: int,
    settings: PredictSettings,
) -> None:
    """Denoise every image of a manifest.

    An interrupted prediction continues after the last finished image when it is run again.

    Parameters
    ----------
    model
        Folder of a trained model.
    images
        Folder with ``manifest.csv``.
    denoised, uncertainty
        Folders to make: estimates and posterior standard deviations, one TIFF for each image, in the units of the
        image. A single sample has no standard deviation; ``uncertainty`` is then empty. ``prediction.json`` next to
        ``denoised`` records settings, seed, model, seconds and versions.
    samples
        Folder to make: the first ``settings.prediction.save_samples`` samples, one TIFF for each image, (S, C, ...).
    seed
        Seed of the latent noise.
    settings
        Estimator, samples, tile, batch size and device.

    Raises
    ------
    UserError
        If the model or an image cannot be used, or the device is missing.
    """
    tune_malloc()
    manifest = read_manifest(images)
    how = settings.prediction
    record = RunFolder(Path(denoised).parent).prediction_record
    passes = 2 if how.estimator == "direct" else how.samples
    total = passes * sum(math.prod(image.shape[1:]) for image in manifest)
    with ExitStack() as stack:
        (device,) = stack.enter_context(reserved_devices(settings.device))
        start = time.monotonic()
        network = load_to(device, model)
        inputs = _inputs(model, images, seed, settings)
        denoised, uncertainty = (stack.enter_context(atomic_folder(f, inputs)) for f in (denoised, uncertainty))
        samples = samples and stack.enter_context(atomic_folder(samples, inputs))
        bar = stack.enter_context(progress(total=total, description="predict", unit="px", unit_scale=True))
        for image in manifest:
            noisy, file = read_canonical(image.noisy), f"{image.name}.tif"
            if (denoised / file).exists():  # This file is the last one written of each image.
                bar.update(passes * math.prod(image.shape[1:]))
                continue
            std: np.ndarray | None = None
            if how.estimator == "direct":
                estimate = denoise_directly(network, noisy, name=image.name, settings=how, on_progress=bar.update)
            else:
                keep = []
                if samples is not None and how.save_samples:
                    keep.append(_sample_file(samples / file, (how.save_samples, *noisy.shape)))
                estimate, std = denoise(
                    network, noisy, name=image.name, seed=seed, settings=how, keep=keep, on_progress=bar.update
                )
            if std is not None:
                write_image(uncertainty / file, std)
            write_image(denoised / file, estimate)
    identity = settings.identity()["prediction"]
    description = {
        # The estimate does not depend on the number of samples that are saved.
        "settings": {name: value for name, value in identity.items() if name != "save_samples"},
        "seed": seed,
        "revision": revision.PREDICTION,
        "weights_sha256": sha256(model / "weights.safetensors"),
        "device": device_name(device),
        "seconds": round(time.monotonic() - start, 1),
        **software(),
    }
    write_json(record, description)


def _inputs(model: Path, images: Path, seed: int, settings: PredictSettings) -> str:
    """Describe all that the estimates depend on, so that an interrupted prediction can be continued."""
    description = {
        "weights": sha256(model / "weights.safetensors"),
        "images": (images / "manifest.csv").stat().st_mtime_ns,  # The manifest is written with the images.
        "seed": seed,
        "settings": settings.identity()["prediction"],
        "revision": revision.PREDICTION,
    }
    return json.dumps(description)


def _sample_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Create a TIFF (S, C, ...) that is written in parts."""
    axes = "QC" + "ZYX"[5 - len(shape) :]  # Q is an axis without a meaning for readers of TIFF files.
    samples = tifffile.memmap(path, shape=shape, dtype=np.float32, photometric="minisblack", metadata={"axes": axes})
    reserve_space(path)
    return samples
