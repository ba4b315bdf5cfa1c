"""Draw what goes wrong: each picture trains small models, on a processor, in minutes.

    python docs/pictures/failures.py direction field training saturation stripes invented

The electron micrographs are those of ``config/sem.yaml``, in ``$DVLAE_DATA_MIRROR`` or ``data``. Each picture is
written beside the guides; the numbers in these are printed.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
import yaml
from matplotlib.figure import Figure
from scipy import ndimage

from dvlae import cli
from dvlae.reporting.style import STYLE, hide_frame

GUIDES = Path(__file__).parents[1]
CHANNELS, SAMPLES = 16, 8
STEPS, STEPS_FOR_BEADS, STEPS_FOR_PHOTOGRAPHS = 500, 1000, 2500
# In pixels, of each image.
SIDE = 256
# The one of `config/datasets/simulated.yaml` that is shown.
PHOTOGRAPH = "moon"


def denoise(frames: np.ndarray, direction: str, field: int, steps: int = STEPS) -> tuple[np.ndarray, float]:
    """Train on noisy frames (N, Y, X); return the denoised frames and the validation ELBO."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "frames.npy", frames)
        dataset = {"source": {"kind": "files"}, "noisy": "frames.npy", "axes": "TYX", "noise_direction": direction}
        run("prepare", json.dumps(dataset), "--data", folder, "--output", folder / "images")
        (denoised,), elbo = denoise_images(folder, direction, field, steps)
        return denoised, elbo


def denoise_images(folder: Path, direction: str, field: int, steps: int) -> tuple[list[np.ndarray], float]:
    """Train on the canonical images in a folder; return what is in the denoised files, and the validation ELBO."""
    settings = {
        "model": {"channels": CHANNELS, "latent_channels": CHANNELS // 2},
        "training": {"max_steps": steps, "max_minutes": None, "workers": 1},
        "prediction": {"samples": SAMPLES},
    }
    results = folder / f"receptive field {field}"
    images, patches, model, denoised = folder / "images", *(results / name for name in ("patches", "model", "denoised"))
    run("extract-patches", images, patches, "--settings", json.dumps(settings))
    noise = ["--receptive-field", field, "--noise-direction", direction]
    run("train", patches, model, *noise, "--settings", json.dumps(settings))
    outputs = ["--denoised", denoised, "--uncertainty", results / "uncertainty"]
    run("predict", model, images, *outputs, "--settings", json.dumps(settings))
    elbo = json.loads((model / "run.json").read_text())["best_val_elbo"]
    return [tifffile.imread(file) for file in sorted(denoised.glob("*.tif"))], elbo


def run(*words: object) -> None:
    """Run one command; it has to succeed."""
    if cli.main(list(map(str, words))) != 0:
        sys.exit(1)


def psnr(estimate: np.ndarray, clean: np.ndarray) -> float:
    """Return the PSNR of grey values from 0 to 255, in dB."""
    return 10 * np.log10(255**2 / np.mean((estimate.astype(float) - clean) ** 2))


def micrographs() -> tuple[np.ndarray, np.ndarray]:
    """Return parts of eight noisy electron micrographs and of the clean ones, each fitted to its noisy one."""
    folder = Path(os.environ.get("DVLAE_DATA_MIRROR", "data")) / "sem_line"
    part = (slice(100, 100 + SIDE), slice(100, 100 + SIDE))
    noisy, clean = (
        [tifffile.imread(file)[..., 0] for file in sorted((folder / kind).glob("*.tif"))[::7]]
        for kind in ("noisy", "clean")
    )
    noisy = np.stack([image[part] for image in noisy])
    return noisy, np.stack(
        [_fitted(image.astype(float), frame, part) for image, frame in zip(clean, noisy, strict=True)]
    )


def _fitted(clean: np.ndarray, noisy: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
    """Return the part of the clean image that fits the noisy one best, with its gain and offset: the stage drifts."""
    best = None
    for down in range(-6, 7):
        for right in range(-6, 7):
            rows, columns = (slice(s.start + d, s.stop + d) for s, d in zip(part, (down, right), strict=True))
            moved = clean[rows, columns]
            gain, offset = np.polyfit(moved.ravel(), noisy.ravel(), 1)
            error = np.mean((gain * moved + offset - noisy) ** 2)
            if best is None or error < best[0]:
                best = error, gain * moved + offset
    return best[1]


def beads(seed: int, count: int = 40) -> np.ndarray:
    """Return eight scenes of round beads of several brightnesses, 0 to 1."""
    random, y, x = np.random.default_rng(seed), *np.mgrid[:SIDE, :SIDE]
    scenes = np.full((8, SIDE, SIDE), 0.15)
    for scene in scenes:
        for _ in range(count):
            (top, left), radius = random.uniform(0, SIDE, 2), random.uniform(6, 16)
            scene[np.hypot(y - top, x - left) < radius] = random.uniform(0.3, 1.0)
    return ndimage.gaussian_filter(scenes, (0, 1, 1))


def with_noise(clean: np.ndarray, photons: float, length: int, seed: int) -> np.ndarray:
    """Return grey values with photon noise that is averaged over pixels along x; without limits."""
    noise = np.random.default_rng(seed).normal(size=clean.shape) * np.sqrt(clean / photons)
    kernel = np.ones(length) / np.sqrt(length)
    return 255 * (clean + ndimage.convolve1d(noise, kernel, axis=-1, mode="wrap"))


def as_recorded(grey: np.ndarray) -> np.ndarray:
    """Return grey values as an 8-bit detector writes them."""
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)


def draw(
    name: str,
    columns: Sequence[tuple[str, np.ndarray]],
    below: Sequence[tuple[str, np.ndarray] | None],
    enhanced: bool = False,
) -> None:
    """Draw pictures (Y, X) side by side, and others below them; those below have colours around 0.

    If the contrast is enhanced, it is not that of the first picture, the noisy one.
    """
    figure = Figure(figsize=(1.75 * len(columns), 4.1))
    axes = figure.subplots(2, len(columns), squeeze=False)
    low, high = np.percentile(np.stack([pixels for _, pixels in columns[enhanced:]]), [0.5, 99.5])
    shown = [pixels for item in below if item is not None for pixels in item[1:]]
    limit = np.percentile(np.abs(np.stack(shown)), 99)
    for column, (item, lower) in enumerate(zip(columns, below, strict=True)):
        axes[0, column].imshow(item[1], "gray", vmin=low, vmax=high)
        axes[0, column].set_title(item[0])
        if lower is not None:
            axes[1, column].imshow(lower[1], "RdBu_r", vmin=-limit, vmax=limit)
            axes[1, column].set_title(lower[0])
    for plot in axes.flat:
        plot.set_xticks([])
        plot.set_yticks([])
        hide_frame(plot)
    _save(figure, name)


def _save(figure: Figure, name: str) -> None:
    figure.savefig(GUIDES / f"{name}.png", dpi=110)


@cache
def _right_micrographs() -> tuple[np.ndarray, float]:
    """Train on the micrographs with the settings that are right for them."""
    return denoise(micrographs()[0], "x", 4)


def direction() -> None:
    """Denoise with the right direction and two wrong ones."""
    noisy, clean = micrographs()
    results = [
        ("x (right)", _right_micrographs()),
        ("none", denoise(noisy, "none", 0)),
        ("y", denoise(noisy, "y", 4)),
    ]
    _compare("wrong_direction", noisy, clean, results, slice(60, 188))


def field() -> None:
    """Denoise photographs whose noise is averaged over 16 pixels, with a receptive field that covers it and without."""
    file = GUIDES.parent / "config" / "datasets" / "simulated.yaml"
    dataset = yaml.safe_load(file.read_text(encoding="utf-8"))
    dataset["simulate"]["kernel"] = [1.0] * 16
    with TemporaryDirectory() as name:
        folder = Path(name)
        run("simulate", json.dumps(dataset), "--data", folder, "--output", folder / "images")
        noisy, clean = (
            [tifffile.imread(file).astype(float) for file in sorted((folder / "images" / kind).glob("*.tif"))]
            for kind in ("noisy", "clean")
        )
        chosen = [file.stem for file in sorted((folder / "images" / "noisy").glob("*.tif"))].index(PHOTOGRAPH)
        part = tuple(slice(side // 2 - 64, side // 2 + 64) for side in clean[chosen].shape)
        print(f"short_receptive_field: noisy {_mean_psnr(noisy, clean):.2f} dB")
        columns, below = [("noisy", noisy), ("clean", clean)], [None, None]
        for pixels in (40, 4):
            estimates, elbo = denoise_images(folder, "x", pixels, STEPS_FOR_PHOTOGRAPHS)
            print(f"short_receptive_field: {pixels} px {_mean_psnr(estimates, clean):.2f} dB, ELBO {elbo:.3f}")
            columns.append((f"{pixels} px", estimates))
            below.append(("removed", (noisy[chosen] - estimates[chosen])[part]))
        shown = [(title, images[chosen][part]) for title, images in columns]
        draw("short_receptive_field", shown, below, enhanced=True)


def _mean_psnr(estimates: Sequence[np.ndarray], clean: Sequence[np.ndarray]) -> float:
    return float(np.mean([psnr(one, other) for one, other in zip(estimates, clean, strict=True)]))


def training() -> None:
    """Compare trainings of few, more and enough steps."""
    noisy, clean = micrographs()
    results = [(f"{steps} steps", denoise(noisy, "x", 4, steps)) for steps in (50, 150)]
    results.append((f"{STEPS} steps", _right_micrographs()))
    _compare("short_training", noisy, clean, results, slice(60, 188))


def saturation() -> None:
    """Denoise a recording of which the brightest parts are cut off at 255."""
    clean = 300 * beads(seed=1)
    noisy = as_recorded(with_noise(clean / 255, 15, 2, seed=1))
    results = [("denoised", denoise(noisy, "x", 8, STEPS_FOR_BEADS))]
    for level in (50, 150, 250, 300):
        flat = np.abs(ndimage.uniform_filter(clean, (0, 7, 7)) - level) < 25
        print(f"saturation: near {level}: {np.mean(results[0][1][0][flat] - clean[flat]):+.1f} grey values")
    _compare("saturation", noisy, clean, results, slice(64, 192), errors=True)


def stripes() -> None:
    """Denoise columns that are brighter or darker in all frames, with and without a correction."""
    clean = 255 * 0.8 * beads(seed=2)
    columns = np.random.default_rng(2).normal(0, 12, SIDE)
    noisy = as_recorded(with_noise(clean / 255, 15, 2, seed=2) + columns)
    estimate, elbo = denoise(noisy, "x", 8, STEPS_FOR_BEADS)
    flat = np.median(noisy, axis=(0, 1)) - ndimage.median_filter(np.median(noisy, axis=(0, 1)), 31)
    corrected = np.clip(noisy - flat, 0, None).astype(np.float32)
    results = [("denoised", (estimate, elbo)), ("subtracted before", denoise(corrected, "x", 8, STEPS_FOR_BEADS))]
    _compare("fixed_stripes", noisy, clean, results, slice(64, 192), errors=True)


def invented() -> None:
    """Denoise two recordings of one scene in so few photons that the model has to guess."""
    clean = 255 * 0.8 * beads(seed=3, count=120)
    # With an offset and without limits, so that nothing is cut off.
    first, second = (np.round(1000 + with_noise(clean / 255, 1.5, 2, seed)).astype(np.uint16) for seed in (3, 4))
    both, _ = denoise(np.concatenate([first, second]), "x", 8, STEPS_FOR_BEADS)
    noisy, again, estimate, other = (frames.astype(float) - 1000 for frames in (first, second, both[:8], both[8:]))
    measured = np.mean((estimate - again) ** 2) - np.mean((noisy - again) ** 2) / 2
    print(f"invented: error {np.std(estimate - clean):.1f}, difference {np.std(estimate - other):.1f} grey values")
    print(
        f"invented: {psnr(estimate, clean):.2f} dB, by the second recording {10 * np.log10(255**2 / measured):.2f} dB"
    )
    part = (0, slice(64, 192), slice(64, 192))
    shown = [("clean", clean), ("denoised", estimate), ("second recording", other)]
    draw(
        "invented",
        [("noisy", np.clip(noisy[part], 0, 255)), *((title, frames[part]) for title, frames in shown)],
        [None, None, ("error", (estimate - clean)[part]), ("first minus second", (estimate - other)[part])],
    )


def _compare(
    name: str,
    noisy: np.ndarray,
    clean: np.ndarray,
    results: Sequence[tuple[str, tuple[np.ndarray, float]]],
    part: slice,
    errors: bool = False,
) -> None:
    """Draw a part of the first frame, and what was removed or, of frames without it, the errors below; print PSNRs."""
    print(f"{name}: noisy {psnr(noisy, clean):.2f} dB")
    for title, (estimate, elbo) in results:
        print(f"{name}: {title} {psnr(estimate, clean):.2f} dB, ELBO {elbo:.3f}")
    shown = (0, part, part)
    columns = [("noisy", noisy[shown]), ("clean", clean[shown]), *((t, e[shown]) for t, (e, _) in results)]
    what, other = ("error", clean) if errors else ("removed", noisy.astype(float))
    sign = 1 if errors else -1
    below = [None, None, *((what, sign * (estimate - other)[shown]) for _, (estimate, _) in results)]
    draw(name, columns, below)


PICTURES: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (direction, field, training, saturation, stripes, invented)
}

if __name__ == "__main__":
    import matplotlib

    matplotlib.rcParams.update(STYLE)
    for word in sys.argv[1:] or PICTURES:
        PICTURES[word]()
