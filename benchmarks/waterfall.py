"""Measure what each change from the paper's network, training and sampling to ours is worth, one after the other.

    python benchmarks/waterfall.py --pictures docs  # all cells, then the table and the figure
    python benchmarks/waterfall.py --cells muon     # what one step is worth: its cells and those of the step before
    python benchmarks/waterfall.py --without        # ours, and ours with one of the changes left out
    python benchmarks/waterfall.py --without --cells merge decoder --together   # ours, and ours without these two
    python benchmarks/waterfall.py --kept           # the table of the cells that are kept

Each step adds one change to all before it. The first is `config/paper.yaml` in small: 3 levels, 48 channels, batches of
four crops of 64 x 64, without accumulation. A cell is one step with one seed: a network is trained for `--minutes` on
one core, and the middles of eight images (the first of every seven, of 50) are denoised. Steps that change only how
samples are taken are measured in the cell of the last training. A cell whose training had less than 95 % of its core is
repeated, at most twice. Finished cells are kept in `results/reference/waterfall/DATASET/MINUTES_minutes`, and made
again if their settings, or the revisions of what they compute, have changed.

What a step gains depends on those before it: an average of the weights, for example, is worth less after a rate that
falls. So `--without` begins at the end: all changes but one, compared with all. The ELBO is that of the same held-out
patches for all; `likelihood` changes what it measures. Where the processor has no instructions for bfloat16, its step
is the same training once more.
"""

import argparse
import copy
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import torch
from fair import MIN_SHARE, REPETITIONS, agrees
from matplotlib.figure import Figure
from mixed_network import PARTS, build_mixed_model
from small_trainings import middle, train_model

from dvlae import revision
from dvlae.config.dataset import DatasetSettings
from dvlae.config.loading import load_dataset, load_settings
from dvlae.config.settings import PatchSettings, PredictionSettings, Settings, TrainSettings
from dvlae.data.canonical import read_clean, read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.data.patches import extract_patches
from dvlae.data.prepare import prepare
from dvlae.data.simulate import simulate
from dvlae.evaluation.target import Target
from dvlae.inference.latent_noise import antithetic_keys, latent_sampler, sample_keys
from dvlae.inference.posterior import encode
from dvlae.inference.tiling import views, whole_window
from dvlae.models.dvlae import DVLAE
from dvlae.models.latents import take_mean
from dvlae.reporting.style import BLUE, ORANGE, STYLE
from dvlae.system.errors import UserError
from dvlae.system.files import write_json
from dvlae.system.hardware.devices import processor_name, tune_malloc, use_one_thread
from dvlae.system.hardware.usage import Usage
from dvlae.system.software import software
from dvlae.training.crops import RandomCrops, choose_crop, read_patches, validation_batches
from dvlae.training.loop import validate
from dvlae.training.objectives.elbo import Objective
from dvlae.training.objectives.refinement import Refinement, refinement_settings
from dvlae.training.processes import choose_precision, connect
from dvlae.training.workers import Workers

REPOSITORY = Path(__file__).parents[1]
MIRROR = Path(os.environ.get("DVLAE_DATA_MIRROR", "data"))
SEEDS = (0, 1)
SIZES = {"levels": 3, "channels": 48, "latent_channels": 24}
# Images that are denoised, and the side of their middles, in pixels.
IMAGES, SIDE = 8, 224
SAMPLES = 16
# For how long steps are counted before a training, so that no warm-up takes more than its part of it.
RATE_SECONDS = 5.0
# Keys of a dataset's file that no record depends on.
NO_MATTER = {"source": {"registry"}} | dict.fromkeys(("title", "size", "published", "license", "citation"), True)
REVISIONS = ("PREPARE", "PATCHES", "TRAINING", "PREDICTION", "EVALUATION")


@dataclass(frozen=True)
class Step:
    """One change: its name, what is done from there on, and how: a part of the network, or keys of the settings."""

    name: str
    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_of_sampling(self) -> bool:
        """Whether the same trained model serves."""
        return set(self.changes) == {"prediction"}


NO_LIMIT = {"patience": None, "patience_on": "elbo", "min_epoch_steps": 50, "max_validation_patches": 32}
BFLOAT16 = "bfloat16"
STEPS = (
    Step("paper", "the paper, in small"),
    Step("scales", "each level halves the resolution", {"model": {"levels_per_scale": 1}}),
    Step("stem", "stem: one 3 x 3 convolution"),
    Step("padding", "padding with zeros"),
    Step("deviation", "bounded logarithm of the deviation"),
    Step("merge", "merge: 1 x 1 convolution, Mish"),
    Step("skip", "skip: addition, latent by 1 x 1"),
    Step("blocks", "upsampling after the blocks"),
    Step("decoder", "layers of the autoregressive decoder"),
    Step("likelihood", "likelihood with floor and limits"),
    Step("warm_up", "KL annealing, rate that rises", {"training": {"warm_up_steps": 100, "kl_warm_up_steps": 500}}),
    Step("clipping", "clipped gradients", {"training": {"gradient_clip_norm": 5.0}}),
    Step("averaging", "averaged weights", {"training": {"average_decay": 0.999}}),
    Step("cosine", "rate that falls along a cosine", {"training": {"schedule": "cosine", **NO_LIMIT}}),
    Step("muon", "Muon at 0.004", {"training": {"optimizer": "muon", "learning_rate": 0.004}}),
    Step("flips", "flipped crops", {"training": {"flips": True}}),
    Step(BFLOAT16, "bfloat16", {"training": {"precision": "auto"}}),
    Step("field", "receptive field 4, not 40", {"receptive_fields": [4]}),
    Step("antithetic", "samples in opposite pairs", {"prediction": {"antithetic": True}}),
    Step("mirrored", "samples of the mirrored image", {"prediction": {"flips": True}}),
    Step("shifted", "samples at four shifts", {"prediction": {"shifts": 4}}),
    Step(
        "refined",
        "refined denoiser, not samples",
        {"model": {"direct_denoiser": "refined"}, "prediction": {"estimator": "refined"}},
    ),
)

# Cells in which changes are left out are called so, and by the changes: "without_merge+decoder".
WITHOUT = "without_"
# Nothing is left out in a cell of its own, as a machine is not equally fast every day.
NOTHING = Step("none", "all that is ours")


@dataclass(frozen=True)
class Setup:
    """All that has changed up to a step: our parts of the network, and the settings."""

    parts: tuple[str, ...]
    settings: Settings

    @classmethod
    def of_paper(cls) -> "Setup":
        """Return `config/paper.yaml` with small sizes, without accumulated batches, on a processor."""
        paper = load_settings(Settings, REPOSITORY / "config/paper.yaml")
        small = {"patch_size": "auto", "batch_size": 4, "accumulate": 1, "workers": 1}
        changes = {"model": SIZES, "training": small, "prediction": {"samples": SAMPLES, "precision": "auto"}}
        return cls((), paper).after(Step("", "", changes | {"receptive_fields": [40], "device": "cpu"}))

    def after(self, step: Step) -> "Setup":
        """Return the setup with one more change."""
        parts = (*self.parts, step.name) if step.name in PARTS else self.parts
        document = self.settings.model_dump()
        for name, value in step.changes.items():
            document[name] = document[name] | value if isinstance(value, Mapping) else value
        return replace(self, parts=parts, settings=Settings.model_validate(document))

    @property
    def receptive_field(self) -> int:
        """Receptive field of the autoregressive decoder, in pixels."""
        return self.settings.receptive_fields[0]

    def build(self, description: dict[str, Any], crop: Sequence[int], noise_direction: str) -> DVLAE:
        """Return the untrained model."""
        settings = TrainSettings.of(self.settings).before_refinement()
        return build_mixed_model(self.parts, settings, description, crop, self.receptive_field, noise_direction)


def setup_of(name: str) -> Setup:
    """Return the setup of a step, with all steps before it, or with all steps but those that are left out."""
    left_out = name.removeprefix(WITHOUT).split("+") if name.startswith(WITHOUT) else []
    end = len(STEPS) if left_out else [step.name for step in STEPS].index(name) + 1
    return reduce(Setup.after, (step for step in STEPS[:end] if step.name not in left_out), Setup.of_paper())


def trainings() -> dict[str, list[str]]:
    """Return the steps that each training serves, by the first one."""
    found: dict[str, list[str]] = {}
    for step in STEPS:
        if step.is_of_sampling:
            found[list(found)[-1]].append(step.name)
        else:
            found[step.name] = [step.name]
    return found


def without(chosen: Sequence[str] | None, *, together: bool) -> dict[str, Step]:
    """Return what is left out, by the name of the cell: nothing, and one of the steps each, or all of them in one cell.

    The last step replaces the samples, and is never left out.
    """
    steps = [step for step in STEPS[1:-1] if not step.is_of_sampling and (chosen is None or step.name in chosen)]
    if together:
        steps = [Step("+".join(step.name for step in steps), "all of these")]
    return {WITHOUT + step.name: step for step in (NOTHING, *steps)}


def dataset_of(name: str) -> DatasetSettings:
    """Return a dataset of `config/datasets`."""
    return load_dataset(name, REPOSITORY / "config/datasets")[1]


@dataclass(frozen=True)
class Data:
    """A dataset: its patches, and the middles of some images with what they are compared with."""

    dataset: DatasetSettings
    description: dict[str, Any]
    train: np.ndarray
    val: np.ndarray
    pairs: Sequence[tuple[str, np.ndarray, Target]]

    @classmethod
    def read(cls, name: str, data: Path) -> "Data":
        """Prepare a dataset."""
        dataset = dataset_of(name)
        with TemporaryDirectory() as folder:
            images, patches = Path(folder) / "images", Path(folder) / "patches"
            simulated = None if dataset.simulate is None else Path(folder) / "simulated"
            if simulated is not None:
                simulate(dataset, data, simulated)
            prepare(dataset, data, simulated, images)
            extract_patches(images, patches, PatchSettings.of(Setup.of_paper().settings, dataset))
            chosen = read_manifest(images)
            chosen = chosen[:: math.ceil(len(chosen) / IMAGES)]
            pairs = [
                (image.name, *(middle(read(image), SIDE) for read in (read_noisy, read_clean))) for image in chosen
            ]
            return cls(
                dataset,
                json.loads((patches / "patches.json").read_text(encoding="utf-8")),
                *(np.array(read_patches(patches / f"{part}.tif")) for part in ("train", "val")),
                [(name, noisy, Target.build(noisy, clean, dataset.evaluation)) for name, noisy, clean in pairs],
            )


@dataclass(frozen=True)
class Cell:
    """One training, with the steps that it serves."""

    steps: Sequence[str]
    seed: int
    dataset: str
    minutes: float

    @property
    def setup(self) -> Setup:
        """The setup of the training."""
        limits = Step("", "", {"training": {"max_minutes": self.minutes}})
        return setup_of(self.steps[0]).after(limits)

    @property
    def sampling(self) -> dict[str, PredictionSettings]:
        """How samples are taken after each step."""
        return {step: setup_of(step).settings.prediction for step in self.steps}

    @property
    def identity(self) -> dict[str, Any]:
        """All that the record depends on, but for the images."""
        own = self.setup
        return {
            "step": self.steps[0],
            "seed": self.seed,
            "dataset": dataset_of(self.dataset).model_dump(mode="json", exclude=NO_MATTER),
            "parts": list(own.parts),
            "receptive_field": own.receptive_field,
            "settings": TrainSettings.of(own.settings).record(),
            "prediction": {step: how.model_dump(mode="json") for step, how in self.sampling.items()},
            "images": [IMAGES, SIDE],
            "revisions": {name: getattr(revision, name) for name in REVISIONS},
        }

    def file(self, output: Path) -> Path:
        """Return the place of the record."""
        return output / self.dataset / f"{self.minutes:g}_minutes" / f"{self.steps[0]}_seed{self.seed}.json"

    def kept(self, output: Path) -> dict[str, Any] | None:
        """Return the record; None if there is none that was made as it would be made now."""
        file = self.file(output)
        record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        return record if record and agrees(record["identity"], json.loads(json.dumps(self.identity))) else None

    def run(self, data: Data) -> dict[str, Any]:
        """Train and denoise; return the record."""
        settings = self.setup.settings
        limits = settings.training
        crop = choose_crop(TrainSettings.of(settings), data.train.shape[2:])
        direction = data.dataset.noise_direction
        torch.manual_seed(self.seed)
        model = self.setup.build(data.description, crop, direction)
        batches = validation_batches(data.val, None, model.stride, crop, limits)
        crops = partial(
            RandomCrops, data.train, crop=crop, seed=self.seed, noise_direction=direction, flips=limits.flips
        )
        own = crops(batch_size=limits.batch_size)
        rate = train_model(Objective(copy.deepcopy(model)), limits, own, batches[:1], pause=RATE_SECONDS)
        share = 1 - limits.refine_fraction * settings.model.refines
        expected = max(1, round(share * 60 * self.minutes * rate.steps / rate.seconds))
        with Usage() as usage:
            state = train_model(Objective(model), limits.part(share), own, batches, expected_steps=expected)
            trained = state.average
            if settings.model.refines:
                last = refinement_settings(limits.part(1 - share), workers=1)
                refinement = Refinement(trained, Workers(), last.batch_size)
                train_model(refinement, last, crops(batch_size=last.batch_size), batches)
                trained = trained.with_direct_denoiser(refinement.average)
        same = limits.model_copy(update={"max_validation_patches": 32})
        batches = validation_batches(data.val, None, model.stride, crop, same)
        cpu = torch.device("cpu")
        elbo = validate(connect([cpu], limits), state.objective, batches, Workers())["elbo"]
        start = time.monotonic()
        psnr = {
            step: [target.psnr(denoised(trained, noisy, name, self.seed, how)) for name, noisy, target in data.pairs]
            for step, how in self.sampling.items()
        }
        return {
            "identity": self.identity,
            "psnr": {step: statistics.fmean(values) for step, values in psnr.items()},
            "psnr_of_images": psnr,
            "elbo": elbo,
            "steps": state.steps,
            "minutes": round(state.seconds / 60, 3),
            "stopped_by": state.stopped_by,
            "rescues": state.rollbacks,
            "precision": choose_precision(limits, cpu),
            "processor": processor_name(),
            "processor_share": usage.share(1),
            "prediction_seconds": round(time.monotonic() - start),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            **software(),
        }


@torch.inference_mode()
def denoised(model: DVLAE, image: np.ndarray, name: str, seed: int, how: PredictionSettings) -> np.ndarray:
    """Return the mean of samples, (C, Y, X), or of the refined estimates, by the layers that are trained.

    Those of `dvlae.inference` know two networks only. The samples are the same.
    """
    model = model.with_refined() if how.is_direct else model
    ladder, total = model.ladder_vae, np.zeros(image.shape, np.float64)
    keys_of = antithetic_keys if how.antithetic else sample_keys
    chosen = views(image, model.stride, model.architecture.mirrored_axes if how.flips else (), how.shifts)
    for offset, view in enumerate(chosen):
        window = whole_window(view.shape)
        _, features = encode(model, view, window, len(ladder.levels))
        keys = keys_of(seed, name, range(offset, how.samples, len(chosen)), len(ladder.levels))
        samplers = (latent_sampler([key], window, ladder.strides) for key in keys)
        for sampler in [take_mean] if how.is_direct else samplers:
            code, _ = ladder.to_code(features, sampler)
            slices, values = view.to_image(window, model.denormalise(model.signal_decoder(code)))
            total[:, *slices] += values[0].numpy()
    return (total / (len(chosen) if how.is_direct else how.samples)).astype(np.float32)


@dataclass(frozen=True)
class Row:
    """What was measured of one step: PSNR by seed, and the same of the step before, if both are kept."""

    step: Step
    psnr: Mapping[int, float]
    before: Mapping[int, float]
    elbo: float
    batches: float

    @property
    def mean(self) -> float:
        """Mean PSNR over the seeds."""
        return statistics.fmean(self.psnr.values())

    @property
    def gains(self) -> list[float]:
        """What the step gains with each seed that both steps have."""
        return [self.psnr[seed] - self.before[seed] for seed in self.psnr if seed in self.before]


def row_of(records: Sequence[dict[str, Any]], name: str, step: Step, before: Mapping[int, float]) -> Row | None:
    """Return a row; None if there is no record of this name."""
    own = [record for record in records if name in record["psnr"]]
    if not own:
        return None
    psnr = {record["identity"]["seed"]: record["psnr"][name] for record in own}
    elbo, batches = (statistics.fmean(record[key] for record in own) for key in ("elbo", "steps"))
    return Row(step, psnr, before, elbo, batches)


def rows_of(records: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each step of which there is a record; the gain counts from the step before."""
    rows: list[Row | None] = []
    for step in STEPS:
        before = rows[-1].psnr if rows and rows[-1] else {}
        if step.name == BFLOAT16 and all(
            record["precision"] == "32" for record in records if BFLOAT16 in record["psnr"]
        ):
            step = replace(step, what="bfloat16: not there, the same again")
        rows.append(row_of(records, step.name, step, before))
    return [row for row in rows if row]


def rows_without(records: Sequence[dict[str, Any]], left_out: Mapping[str, Step]) -> list[Row]:
    """Return a row for each cell of :func:`without`; the gain is what leaving out changes."""
    whole = row_of(records, WITHOUT + NOTHING.name, NOTHING, {})
    before = whole.psnr if whole else {}
    rows = (row_of(records, name, step, {} if step is NOTHING else before) for name, step in left_out.items())
    return [row for row in rows if row]


@dataclass(frozen=True)
class Comparison:
    """What is run, and how it is shown: one change after the other, or all changes but some.

    Attributes
    ----------
    steps
        The steps that each training serves, by the name of its cell.
    rows
        Makes the rows of the records.
    headings
        Of the first two columns of the table, and of the gain.
    picture
        Name of the figure's file.
    title
        What follows dataset and minutes in the title of the figure.
    from_the_row_before
        Whether a gain counts from the row before, not from the first.
    """

    steps: Mapping[str, Sequence[str]]
    rows: Callable[[Sequence[dict[str, Any]]], list[Row]]
    headings: tuple[str, str, str]
    picture: str
    title: str
    from_the_row_before: bool

    @classmethod
    def one_after_the_other(cls, chosen: Sequence[str] | None) -> "Comparison":
        """Compare the chosen steps, each with the one before; None: all."""
        names = list(trainings())
        places = {names.index(name) for name in chosen or names}
        steps = {name: served for i, (name, served) in enumerate(trainings().items()) if {i, i + 1} & places}
        return cls(steps, rows_of, ("step", "from here on", "gain"), "waterfall.png", "", True)

    @classmethod
    def all_but(cls, chosen: Sequence[str] | None, *, together: bool) -> "Comparison":
        """Compare all steps with all but each of the chosen ones, or but all of these."""
        left_out = without(chosen, together=together)
        return cls(
            {name: [name] for name in left_out},
            partial(rows_without, left_out=left_out),
            ("left out", "what it is", "difference"),
            "waterfall_without.png",
            "\nwhat leaving out one change does",
            False,
        )


def tabulate(rows: Sequence[Row], step: str, what: str, gain: str) -> str:
    """Return a Markdown table with these headings."""
    lines = [f"| {step} | {what} | PSNR | {gain} | of each seed | ELBO | batches |", "|---|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        mean = f"{statistics.fmean(row.gains):+.2f} dB" if row.gains else ""
        each = ", ".join(f"{value:+.2f}" for value in row.gains)
        # Samples do not change the training.
        training = " | " if row.step.is_of_sampling else f"{row.elbo:.3f} | {row.batches:,.0f}"
        lines.append(f"| `{row.step.name}` | {row.step.what} | {row.mean:.2f} dB | {mean} | {each} | {training} |")
    return "\n".join(lines)


def draw(rows: Sequence[Row], title: str, *, from_the_row_before: bool) -> Figure:
    """Draw the gain of each row from the PSNR of the row before, or of the first, and that of each seed as points."""
    figure = Figure(figsize=(6.6, 0.27 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots()
    means = [row.mean for row in rows]
    bases = [means[0], *means[:-1]] if from_the_row_before else means[:1] * len(rows)
    for place, (row, base) in enumerate(zip(rows, bases, strict=True)):
        gain = row.mean - base
        axes.barh(place, gain, left=base, height=0.7, color=BLUE if gain >= 0 else ORANGE)
        if place:
            # From the row that the gain counts from.
            start = place - 1 if from_the_row_before else 0
            axes.vlines(base, start - 0.35, place + 0.35, color="0.6", linewidth=0.8)
        axes.plot(list(row.psnr.values()), [place] * len(row.psnr), "o", color="black", markersize=2.5)
        text = f"{gain:+.2f}" if place else f"{row.mean:.2f} dB"
        axes.annotate(
            text, (max(row.mean, base, *row.psnr.values()), place), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(rows)), [row.step.what for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="PSNR (dB); a point is one seed", title=title)
    return figure


def run_cell(cell: Cell, data: Data, output: Path) -> bool:
    """Run a cell, again if it had too little of its core, and keep it; return whether it is kept."""
    name = f"{cell.steps[0]} seed {cell.seed}"
    for _ in range(1 + REPETITIONS):
        record = cell.run(data)
        share = record["processor_share"]
        if share is None or share >= MIN_SHARE:
            cell.file(output).parent.mkdir(parents=True, exist_ok=True)
            write_json(cell.file(output), record)
            scores = ", ".join(f"{step} {psnr:.2f} dB" for step, psnr in record["psnr"].items())
            print(f"{name}: {scores}; ELBO {record['elbo']:.4f}, {record['steps']} batches", flush=True)
            return True
        print(f"{name}: had {share:.0%} of a core, is repeated", flush=True)
    print(f"{name}: left, as it had less than {MIN_SHARE:.0%} of a core {1 + REPETITIONS} times", flush=True)
    return False


def main() -> None:
    """Run the cells that are missing; print the table, and draw the figure if all are there."""
    names = list(trainings())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", action="store_true", help="all steps but one, instead of one after the other")
    parser.add_argument("--together", action="store_true", help="with --without, leave --cells out in one cell")
    parser.add_argument("--cells", nargs="+", choices=names, help="these steps, and what each is compared with")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training")
    parser.add_argument("--dataset", default="sem_line", help="name of a file in config/datasets, such as kodak_rows")
    parser.add_argument("--hours", type=float, default=math.inf, help="no cell begins later")
    parser.add_argument("--kept", action="store_true", help="run no cell")
    parser.add_argument("--data", type=Path, default=MIRROR)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "results/reference/waterfall")
    parser.add_argument("--pictures", type=Path, help="draw the figure into this folder")
    arguments = parser.parse_args()
    if arguments.together and not (arguments.without and arguments.cells):
        parser.error("--together goes with --without and --cells")
    if not 0 < arguments.minutes < math.inf:
        parser.error(f"--minutes: found {arguments.minutes:g}, allowed: a finite number > 0")
    if min(arguments.seeds) < 0:
        parser.error(f"--seeds: found {min(arguments.seeds)}, allowed: 0 or more")
    if arguments.pictures and not arguments.pictures.is_dir():
        parser.error(f"--pictures: found {arguments.pictures}, allowed: a folder that exists")
    if arguments.without and (never := {names[0], names[-1]}.intersection(arguments.cells or ())):
        parser.error(f"--cells: found {', '.join(sorted(never))}, which --without never leaves out")
    try:
        dataset = dataset_of(arguments.dataset)
    except UserError as error:
        parser.error(str(error))
    if dataset.clean is None and dataset.simulate is None:
        parser.error(f"--dataset: found {arguments.dataset}, which has no clean images, allowed: one that has")
    if arguments.without:
        comparison = Comparison.all_but(arguments.cells, together=arguments.together)
    else:
        comparison = Comparison.one_after_the_other(arguments.cells)
    cells = [
        Cell(served, seed, arguments.dataset, arguments.minutes)
        for seed in arguments.seeds
        for served in comparison.steps.values()
    ]
    end = time.monotonic() + 3600 * arguments.hours
    missing = [cell for cell in cells if cell.kept(arguments.output) is None]
    if missing and not arguments.kept:
        tune_malloc()
        use_one_thread()
        data = Data.read(arguments.dataset, arguments.data)
        missing = [cell for cell in missing if time.monotonic() > end or not run_cell(cell, data, arguments.output)]
    rows = comparison.rows([record for cell in cells if (record := cell.kept(arguments.output)) is not None])
    print(tabulate(rows, *comparison.headings))
    if missing:
        goes_on = "the same command without --kept runs them" if arguments.kept else "the same command goes on"
        sys.exit(f"{len(missing)} of {len(cells)} cells are left; {goes_on}")
    if arguments.pictures:
        title = f"{arguments.dataset}, {arguments.minutes:g} minutes of training on one core{comparison.title}"
        with matplotlib.rc_context(STYLE):
            figure = draw(rows, title, from_the_row_before=comparison.from_the_row_before)
            figure.savefig(arguments.pictures / comparison.picture, dpi=150)


if __name__ == "__main__":
    main()
