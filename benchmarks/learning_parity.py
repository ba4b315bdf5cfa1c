"""Train the authors' networks by their own steps, and ours by our own loop, and compare how they learn.

    python benchmarks/learning_parity.py                     # all nine cells, then the figure
    python benchmarks/learning_parity.py --cells theirs-0    # one cell, and the figure if it was the last

A cell is one side with one seed, a small network of the paper's kind. Both sides get the same batches of the same eight
electron micrographs, in the same order; ours is trained as `config/paper.yaml` says. Both have random weights of their
own, and a third side is ours that begins with the authors' random weights, which leaves the training alone to differ.
The ELBO is that of fixed patches of two more images, and the PSNR that of their middles, denoised with ten samples. A
finished cell is kept in `results/reference/learning_parity/` and not repeated.

The authors' code of October 2023 (MIT, addresses in `dvlae_2023.csv` of the mirror) is read from `--authors`.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import torch
from authors_code import load_authors_code
from matplotlib.figure import Figure
from small_trainings import middle, train_model
from torch import Tensor, nn

from dvlae.config.loading import load_dataset, load_settings
from dvlae.config.settings import PredictionSettings, Settings, TrainSettings
from dvlae.data.canonical import read_clean, read_noisy
from dvlae.data.manifest import read_manifest, spread_evenly
from dvlae.data.prepare import prepare
from dvlae.evaluation.target import Target
from dvlae.inference.estimates import denoise
from dvlae.models.dvlae import DVLAE, build_model
from dvlae.models.files import load_model
from dvlae.models.imported.weights import import_weights
from dvlae.reporting.style import STYLE
from dvlae.system.hardware.devices import tune_malloc, use_one_thread
from dvlae.system.software import software
from dvlae.training.crops import RandomCrops
from dvlae.training.objectives.elbo import Objective
from dvlae.training.schedule import steps_per_epoch
from dvlae.training.state import TrainingState

REPOSITORY = Path(__file__).parents[1]
MIRROR = Path(os.environ.get("DVLAE_DATA_MIRROR", "data"))
# Neighbouring fields of view overlap in fives.
LEARNED, HELD_OUT = range(1, 41, 5), range(41, 51, 5)
SIZES = {"levels": 4, "channels": 16, "latent_channels": 8}
CROP, BATCH, PATCHES, MIDDLE, SAMPLES = 64, 4, 32, 192, 10
RECEPTIVE_FIELD, KERNEL, PAIRS = 40, 5, 4
SIDES = {
    "theirs": "the authors' code",
    "ours": "dvlae",
    "imported": "dvlae, same initial weights",
}
SEEDS = (0, 1, 2)
# Measurements in a training, and of these the ones that are compared.
MEASUREMENTS, COMPARED = 15, (5, 10, 15)
MEASURES = {"elbo": "ELBO (nats per pixel value)", "psnr": "PSNR (dB)"}

# Measures a network after a number of steps, given what validates it and what denoises an image (C, ...).
Measure = Callable[[int, Callable[[], dict[str, float]], Callable[[np.ndarray], np.ndarray]], None]


@dataclass
class Pictures:
    """What is learned from, (N, C, Y, X); patches for validation; and noisy images with what they are compared with."""

    learned: np.ndarray
    patches: Tensor
    pairs: list[tuple[np.ndarray, Target]]

    @classmethod
    def read(cls, data: Path) -> "Pictures":
        """Read the images of `config/datasets/sem_line.yaml`."""
        _, dataset = load_dataset(str(REPOSITORY / "config/datasets/sem_line.yaml"))
        files = {
            name: [str(getattr(dataset, name)).replace("*", f"*_{n:03d}") for n in (*LEARNED, *HELD_OUT)]
            for name in ("noisy", "clean")
        }
        with TemporaryDirectory() as folder:
            prepare(dataset.model_copy(update=files), data, None, Path(folder) / "images")
            pairs = [(read_noisy(image), read_clean(image)) for image in read_manifest(Path(folder) / "images")]
        held_out = [noisy for noisy, _ in pairs[len(LEARNED) :]]
        patches = np.concatenate([_patches(noisy) for noisy in held_out])
        middles = [[middle(image, MIDDLE) for image in pair] for pair in pairs[len(LEARNED) :]]
        return cls(
            np.stack([noisy for noisy, _ in pairs[: len(LEARNED)]]),
            torch.from_numpy(patches[spread_evenly(len(patches), PATCHES)]),
            [(noisy, Target.build(noisy, clean, dataset.evaluation)) for noisy, clean in middles],
        )


def _patches(image: np.ndarray) -> np.ndarray:
    """Cut an image (C, Y, X) into patches, (N, C, CROP, CROP)."""
    rows, columns = (side // CROP for side in image.shape[1:])
    cut = image[:, : rows * CROP, : columns * CROP].reshape(-1, rows, CROP, columns, CROP)
    return cut.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1, CROP, CROP)


def how_we_train(steps: int) -> TrainSettings:
    """Return the settings of `config/paper.yaml` with small sizes, and without accumulated batches."""
    paper = load_settings(Settings, REPOSITORY / "config/paper.yaml")
    limits = {"patch_size": CROP, "batch_size": BATCH, "accumulate": 1, "max_steps": steps, "max_minutes": None}
    return TrainSettings(
        model=paper.model.model_copy(update=SIZES),
        training=paper.training.model_copy(update=limits | {"precision": "32", "workers": 1}),
        device="cpu",
    )


def build_ours(settings: TrainSettings, mean: float, std: float) -> DVLAE:
    """Return our network with random weights of its own."""
    description = {"mean": [mean], "std": [std], "step": [1.0]}
    return build_model(settings, description, (CROP, CROP), RECEPTIVE_FIELD, "x")


def import_theirs(authors: Path, settings: TrainSettings, mean: float, std: float) -> DVLAE:
    """Return our network with the random weights of theirs."""
    theirs = build_theirs(authors, settings, mean, std)
    with TemporaryDirectory() as folder:
        torch.save(theirs.state_dict(), Path(folder) / "theirs.pt")
        import_weights(Path(folder) / "theirs.pt", Path(folder) / "model", mean=[mean], std=[std])
        return load_model(Path(folder) / "model").requires_grad_().train()


def train_ours(
    pictures: Pictures, seed: int, settings: TrainSettings, measure: Measure, build: Callable[..., DVLAE]
) -> dict[str, Any]:
    """Train our network with our loop."""
    limits = settings.training
    torch.manual_seed(seed)
    model = build(settings, float(pictures.learned.mean()), float(pictures.learned.std()))

    class EachStep:
        """Measures the averaged weights, which are the weights themselves, as the settings say."""

        def update(self, state: TrainingState) -> None:
            def estimate(noisy: np.ndarray) -> np.ndarray:
                how = PredictionSettings(samples=SAMPLES, flips=False, shifts=1, antithetic=False)
                return denoise(state.average, noisy, name="middle", seed=seed, settings=how)[0]

            measure(state.steps, partial(validated, pictures, state.objective.evaluate), estimate)

    validation = [(batch, None) for batch in pictures.patches.split(BATCH)]
    train_model(Objective(model), limits, crops_of(pictures, seed), validation, [EachStep()])
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def train_theirs(
    pictures: Pictures, seed: int, settings: TrainSettings, measure: Measure, authors: Path
) -> dict[str, Any]:
    """Train their network with their own training step, optimisers and schedules."""
    torch.manual_seed(seed)
    model = build_theirs(authors, settings, float(pictures.learned.mean()), float(pictures.learned.std())).train()
    parts = [[*model.vae.parameters(), *model.noise_model.parameters()], list(model.s_decoder.parameters())]
    optimizers = [torch.optim.Adamax(parameters) for parameters in parts]
    plateaus = [torch.optim.lr_scheduler.ReduceLROnPlateau(each, factor=0.1, patience=50) for each in optimizers]
    # What Lightning's Trainer would do.
    model.optimizers = lambda: optimizers
    model.manual_backward = lambda loss: loss.backward()
    model.log = lambda *_: None

    def values(batch: Tensor) -> dict[str, Tensor]:
        model.vae.mode_pred = False
        out, x = model(batch), (batch - model.data_mean) / model.data_std
        log_likelihood = model.noise_model.loglikelihood(x, out["x_params"]).mean()
        mse = model.s_decoder.loss(x, out["s_hat"]).mean()
        return {"elbo": log_likelihood - out["kl_loss"], "kl": out["kl_loss"], "mse": mse}

    def estimate(noisy: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(noisy)[None]
        return torch.stack([model.predict_step(batch, None)[0] for _ in range(SAMPLES)]).mean(0).numpy()

    def evaluated(compute: Callable[[], Any]) -> Any:
        model.eval()
        with torch.inference_mode(), torch.random.fork_rng([]):
            torch.manual_seed(seed)
            result = compute()
        model.train()
        return result

    validate = partial(evaluated, partial(validated, pictures, values))
    crops = crops_of(pictures, seed)
    epoch = steps_per_epoch(settings.training, pictures.learned.size, (CROP, CROP))
    for step in range(settings.training.max_steps or 0):
        model.training_step(crops.batch(step).contiguous(), step)
        if (step + 1) % epoch == 0:
            found = validate()
            for plateau, loss in zip(plateaus, (-found["elbo"], found["mse"]), strict=True):
                plateau.step(loss)
        measure(step + 1, validate, lambda noisy: evaluated(lambda: estimate(noisy)))
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def build_theirs(authors: Path, settings: TrainSettings, mean: float, std: float) -> nn.Module:
    """Return their networks, with the sizes of the settings."""
    code = load_authors_code(authors)
    # Their module keeps its arguments, which are networks.
    warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`")
    sizes = settings.model
    halved = [int((level + 1) % sizes.levels_per_scale == 0) for level in range(sizes.levels)]
    vae = code.LadderVAE(
        1,
        (CROP, CROP),
        sizes.channels,
        [sizes.latent_channels] * sizes.levels,
        sizes.blocks,
        sizes.channels,
        downsampling=halved,
    )
    decoder = code.PixelCNN(1, sizes.channels, KERNEL, "horizontal", sizes.channels // 2, PAIRS, 1, sizes.components)
    return code.DVLAE(vae, decoder, code.SDecoder(1, sizes.channels, sizes.channels), mean, std)


def crops_of(pictures: Pictures, seed: int) -> RandomCrops:
    """Return the batches of a seed."""
    sizes = {"crop": (CROP, CROP), "batch_size": BATCH}
    return RandomCrops(pictures.learned, **sizes, seed=seed, noise_direction="x", flips=False)


def validated(pictures: Pictures, values: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, float]:
    """Return the means over the patches of what is computed for a batch."""
    rows = [values(batch) for batch in pictures.patches.split(BATCH)]
    return {name: float(torch.stack([row[name] for row in rows]).mean()) for name in ("elbo", "kl", "mse")}


def run_cell(side: str, seed: int, settings: TrainSettings, data: Path, authors: Path) -> dict[str, Any]:
    """Train one side with one seed; return its record."""
    tune_malloc()
    use_one_thread()
    pictures, rows, measuring = Pictures.read(data), [], 0.0
    steps = settings.training.max_steps or 0
    start = time.process_time()

    def measure(
        step: int, validate: Callable[[], dict[str, float]], estimate: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        nonlocal measuring
        if step % max(1, steps // MEASUREMENTS):
            return
        before = time.process_time()
        with torch.inference_mode(), torch.random.fork_rng([]):
            torch.manual_seed(seed)
            found = validate()
            psnr = statistics.fmean(target.psnr(estimate(noisy)) for noisy, target in pictures.pairs)
        rows.append({"step": step, "elbo": found["elbo"], "kl": found["kl"], "psnr": psnr})
        print(f"{side}-{seed} step {step}: ELBO {found['elbo']:.4f}, PSNR {psnr:.2f} dB", flush=True)
        measuring += time.process_time() - before

    trains: dict[str, Callable[..., dict[str, Any]]] = {
        "theirs": partial(train_theirs, authors=authors),
        "ours": partial(train_ours, build=build_ours),
        "imported": partial(train_ours, build=partial(import_theirs, authors)),
    }
    found = trains[side](pictures, seed, settings, measure)
    seconds = time.process_time() - start
    return {
        "side": side,
        "seed": seed,
        "settings": settings.record(),
        "rows": rows,
        "seconds_per_step": round((seconds - measuring) / steps, 4),
        "seconds": round(seconds),
        **found,
        **software(),
    }


def compare(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the means of the sides; ours and theirs agree if they differ by less than two deviations."""
    rows = []
    for name in MEASURES:
        for number in COMPARED:
            values = {
                side: [record["rows"][number - 1][name] for record in records if record["side"] == side]
                for side in SIDES
            }
            theirs, ours = values["theirs"], values["ours"]
            spread = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / 2)
            means = {side: statistics.fmean(those) for side, those in values.items()}
            difference = means["ours"] - means["theirs"]
            rows.append(
                {"measure": name, "step": records[0]["rows"][number - 1]["step"], **means}
                | {"difference": difference, "deviation": spread, "agrees": abs(difference) < 2 * spread}
            )
    return rows


def draw(records: Sequence[dict[str, Any]]) -> Figure:
    """Draw the curves of all cells."""
    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for record in records:
            side, number = record["side"], list(SIDES).index(record["side"])
            steps, values = zip(*((row["step"], row[name]) for row in record["rows"]), strict=True)
            first = record["seed"] == SEEDS[0]
            axes.plot(
                steps,
                values,
                color=f"C{number}",
                linestyle=("--", "-", ":")[number],
                label=SIDES[side] if first else None,
            )
        axes.set(xlabel="step", ylabel=label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(SIDES))
    return figure


def is_of(settings: TrainSettings, record: dict[str, Any]) -> bool:
    """Return whether a record is that of a training with these settings, which may have newer keys."""
    return TrainSettings.complete(record["settings"]) == settings.record()


def main() -> None:
    """Run the cells that are missing; with all of them, print the comparison and draw the figure."""
    cells = {f"{side}-{seed}": (side, seed) for seed in SEEDS for side in SIDES}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list(cells), choices=cells)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no cell begins later")
    parser.add_argument("--steps", type=int, default=1500, help=f"a multiple of {MEASUREMENTS}")
    parser.add_argument("--data", type=Path, default=MIRROR)
    parser.add_argument("--authors", type=Path, default=MIRROR / "dvlae_2023")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "results/reference/learning_parity")
    parser.add_argument("--figure", type=Path, default=REPOSITORY / "docs/learning_parity.png")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.steps % MEASUREMENTS:
        parser.error(f"--steps: found {arguments.steps}, allowed: a multiple of {MEASUREMENTS}")
    settings, end = how_we_train(arguments.steps), time.monotonic() + 60 * arguments.minutes
    arguments.output.mkdir(parents=True, exist_ok=True)
    files = {name: arguments.output / f"{name}.json" for name in cells}
    for name in arguments.cells:
        done = files[name].exists() and is_of(settings, json.loads(files[name].read_text()))
        if not done and time.monotonic() < end:
            record = run_cell(*cells[name], settings, arguments.data, arguments.authors)
            files[name].write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    records = [json.loads(file.read_text()) for file in files.values() if file.exists()]
    records = [record for record in records if is_of(settings, record)]
    if len(records) < len(cells):
        sys.exit(f"{len(cells) - len(records)} of {len(cells)} cells are left; the same command goes on")
    print("| measure | step | authors | dvlae | difference | pooled deviation | within two | same weights |")
    print("|---|--:|--:|--:|--:|--:|---|--:|")
    for row in compare(records):
        numbers = " | ".join(f"{row[name]:.4f}" for name in ("theirs", "ours", "difference", "deviation"))
        within = "yes" if row["agrees"] else "no"
        print(f"| {row['measure']} | {row['step']} | {numbers} | {within} | {row['imported']:.4f} |")
    with matplotlib.rc_context(STYLE):
        draw(records).savefig(arguments.figure)


if __name__ == "__main__":
    main()
