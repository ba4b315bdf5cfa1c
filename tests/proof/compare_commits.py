"""Run two checkouts of this project on the same tiny images, and compare all values that they compute, bit for bit.

    python tests/proof/compare_commits.py BEFORE AFTER [--only CASE ...] [--work DIR]

BEFORE and AFTER are folders, for example of ``git worktree add ../before COMMIT``. Both are run by the Python that runs
this script, in which all dependencies are installed. What BEFORE computes is kept in DIR for the next time. The exit
code is 1 where anything differs. To allow a difference, add it to EXEMPT; for an option with a new name, see RENAMED.
"""

import argparse
import csv
import fcntl
import fnmatch
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

# ---------------------------------------------------------------------------------------- what may differ

Values = dict[str, np.ndarray]  # by "file:part of it"


@dataclass(frozen=True)
class Exemption:
    """Values that may differ.

    Attributes
    ----------
    case, value
        Patterns, as a shell has them, of the case and of the name of the value that the script prints.
    reason
        Why they may.
    relative, absolute
        Largest difference, relative to the value before and in its own unit. ``relative=math.inf`` allows all: other
        shapes, other text, and a value that only one of the checkouts has.
    """

    case: str
    value: str
    reason: str
    relative: float = 0.0
    absolute: float = 0.0


EXEMPT: tuple[Exemption, ...] = ()

# Time, energy, workers, the commit, what is said of a source, and hashes of files, of which the values are compared:
# columns of CSV files and keys of JSON files that are never compared.
UNRELATED = {
    "minutes", "seconds", "training_minutes", "joules_processor", "joules_gpu", "threads", "workers", "versions",
    "git_commit", "sha256", "train_sha256", "val_sha256", "images_sha256", "targets_sha256", "training_seconds",
    "prediction_seconds", "prediction_seconds_per_megapixel", "prediction_processor_seconds", "processor_seconds",
    "processor_share", "peak_memory_mb", "source", "tuned_by",
}  # fmt: skip

# Options that have other names in some commits. The first one that the command's --help lists is used.
RENAMED = {("predict", "--checkpoints"): ("--remove-checkpoints", "--checkpoints")}

# Where there is this command, it writes a table of how the clean images lie to the noisy ones. It is run after
# `prepare`, and what it wrote is given to each command whose --help lists the option.
REGISTER, TARGETS = "register", "--targets"

# Set to 0 in whichever module has it: a training then saves its state at every step.
BETWEEN_CHECKPOINTS = "SECONDS_BETWEEN_CHECKPOINTS"

# ---------------------------------------------------------------------------------------- cases

# Imported once, in the worker process that each command starts from. None is a part of dvlae.
LIBRARIES = (
    "imageio.v3", "lightning.pytorch", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "multiprocessing.synchronize", "pandas", "pydantic.functional_validators", "pydantic.json_schema", "pydantic.main",
    "safetensors.torch", "scipy.ndimage", "scipy.stats", "skimage.metrics", "skimage.registration", "tifffile", "torch",
    "yaml",
)  # fmt: skip
METHODS = ("noisy", "gaussian", "gaussian-oracle", *(["bm3d"] if importlib.util.find_spec("bm3d") else []))

PAIRS = {"source": {"kind": "files"}, "noisy": "noisy_*", "clean": "clean_*", "axes": "YX", "noise_direction": "x"}
DATASETS = {
    "scenes": {
        "source": {"kind": "files"},
        "noisy": "*.tif",
        "axes": "YX",
        "noise_direction": "x",
        "simulate": {"photons": 40.0, "kernel": [1.0, 0.8, 0.5, 0.2], "frames": 2, "offset": 0.05},
    },
    "rows": PAIRS,
    "columns": PAIRS | {"noise_direction": "y", "evaluation": {"border": 3, "fit": "estimate_to_clean"}},
    "white": PAIRS | {"clean": None, "noise_direction": "none"},
    "single": PAIRS | {"clean": None, "noise_direction": "none"},
    "volumes": PAIRS | {"axes": "ZYX", "noise_direction": "z", "evaluation": {"border": 2}},
    "traces": PAIRS | {"axes": "SX"},
    "colours": PAIRS | {"axes": "YXC", "crop": {"y": [2, 40]}},
    "shifted": PAIRS | {
        "evaluation": {
            "register": True, "fit": "clean_to_noisy", "border": 2, "crop": {"x": [3, 44]}, "data_range": 200.0,
        },
    },
}  # fmt: skip
MODEL = {"levels": 2, "channels": 6, "latent_channels": 4}
TRAINING = {"patch_size": 16, "batch_size": 2, "max_steps": 14, "max_minutes": None, "precision": "32"}
PREDICTION = {"samples": 4, "shifts": 2}
FROM_MODEL = ("likelihood", "levels", "generate_noise", "generate_prior")
EVERYTHING = ("diagnose", "train", "predict", "evaluate", "methods", *FROM_MODEL)


@dataclass(frozen=True)
class Case:
    """What is run, and on which images.

    Attributes
    ----------
    images
        Key of :data:`DATASETS`; the function ``make_IMAGES`` makes the images.
    model, training, prediction
        Settings that differ from the usual ones.
    steps
        Methods of :class:`Steps`, after ``prepare``, which each case has.
    receptive_fields, seeds
        Of the trainings, each with each.
    size
        Of the images from the prior.
    tile, devices
        Options of ``dvlae predict`` and of ``dvlae train``.
    killed
        The training is killed once it has saved its state, and run again.
    older_model
        Both checkouts use the model that BEFORE trained.
    """

    images: str = "rows"
    model: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    prediction: dict = field(default_factory=dict)
    steps: tuple[str, ...] = ("train", "predict")
    receptive_fields: tuple[int, ...] = (4,)
    seeds: tuple[int, ...] = (0,)
    size: tuple[int, ...] = (24, 40)
    tile: str = "auto"
    devices: int = 1
    killed: bool = False
    older_model: bool = False


DIRECT = {"direct_denoiser": "mean"}
CASES = {
    "direction-x": Case("scenes", prediction={"save_samples": 2}, steps=EVERYTHING),
    "direction-y": Case("columns", model={"levels": 3}, receptive_fields=(8,), steps=EVERYTHING),
    "direction-none": Case("white", receptive_fields=(0,), steps=EVERYTHING),
    "linear": Case(model={"autoregression": "linear"}, steps=("train", "predict", *FROM_MODEL)),
    "direct-denoiser": Case(model=DIRECT, prediction={"estimator": "direct"}),
    "direct-median": Case(
        model={"direct_denoiser": "median"}, prediction={"estimator": "direct", "flips": False, "shifts": 1}
    ),
    "volume": Case("volumes", training={"patch_size": [4, 16, 16]}, size=(4, 12, 16), steps=EVERYTHING),
    "trace": Case("traces", training={"patch_size": 32}, size=(100,), steps=EVERYTHING),
    "colour": Case("colours", prediction={"save_samples": 1}, steps=EVERYTHING),
    "resumed": Case(killed=True, training={"max_steps": 60}),
    "resumed-accumulating": Case(killed=True, training={"max_steps": 60, "accumulate": 2}, model=DIRECT),
    "two-devices": Case(devices=2, training={"accumulate": 4}),
    "accumulate": Case(training={"accumulate": 2, "max_steps": 15}),
    "accumulate-over-epochs": Case(training={"accumulate": 3, "max_steps": 58}),
    "bf16": Case(training={"precision": "bf16"}, model=DIRECT),
    "activation-checkpointing": Case(training={"activation_checkpointing": True}),
    "free-bits": Case(training={"free_bits": 0.2}),
    "adamax": Case(training={"optimizer": "adamax", "accumulate": 2}),
    "deep": Case(model={"levels": 3, "levels_per_scale": 2, "blocks": 2, "components": 2}),
    "max-epochs": Case("white", receptive_fields=(0,), training={"max_steps": None, "max_epochs": 2}),
    "patience": Case(training={"max_steps": None, "patience": 1, "learning_rate": 0.3}),
    "rescued": Case(training={"max_steps": 60, "learning_rate": 30.0}),
    "one-image": Case("single", receptive_fields=(0,), training={"patch_size": 8, "validation_fraction": 0.7}),
    "estimator-median": Case(prediction={"estimator": "median", "samples": 5, "save_samples": 5}),
    "flips-false": Case("columns", prediction={"flips": False, "shifts": 3}),
    "tiles": Case(tile="16", prediction={"batch_size": 3}),
    "older-model": Case(older_model=True, model=DIRECT | {"levels": 3}, steps=("train", "predict", *FROM_MODEL)),
    "registered": Case("shifted", steps=EVERYTHING),
    "reports": Case(
        "shifted",
        receptive_fields=(4, 8),
        seeds=(0, 1),
        steps=("diagnose", "train", "predict", "evaluate", "methods", "tables", "figures"),
    ),
}

# ---------------------------------------------------------------------------------------- images


def scene(random: np.random.Generator, *sides: int) -> np.ndarray:
    """Return a clean image of blobs and one block, 0 to 1."""
    places = np.indices(sides)
    image = np.full(sides, 0.15)
    for _ in range(8):
        centre, width = random.uniform(0, 1, len(sides)) * sides, random.uniform(2, 6)
        distance = sum((place - at) ** 2 for place, at in zip(places, centre, strict=True))
        image += random.uniform(0.1, 0.5) * np.exp(-distance / (2 * width**2))
    image[tuple(slice(side // 2, side // 2 + side // 4) for side in sides)] += 0.3
    return image.clip(0, 1)


def record(random: np.random.Generator, clean: np.ndarray, axis: int | None) -> np.ndarray:
    """Add noise that grows with the signal and is correlated along an axis, in grey values of 0 to 255."""
    noise = random.normal(size=clean.shape)
    if axis is not None:
        noise = np.apply_along_axis(np.convolve, axis, noise, [0.75, 0.55, 0.35, 0.1], mode="same")
    return (20 + 200 * clean + 25 * np.sqrt(clean + 0.05) * noise).clip(0, 255)


def make_scenes(folder: Path, random: np.random.Generator) -> None:
    """Make clean images for `dvlae simulate`."""
    for number in range(3):
        tifffile.imwrite(folder / f"scene_{number}.tif", np.rint(255 * scene(random, 40, 48)).astype(np.uint8))


def write_pairs(folder: Path, random: np.random.Generator, axis: int, *sides: int) -> None:
    """Write noisy and clean images as float32."""
    for number in range(3):
        clean = scene(random, *sides)
        for kind, image in (("noisy", record(random, clean, axis)), ("clean", 20 + 200 * clean)):
            tifffile.imwrite(folder / f"{kind}_{number}.tif", image.astype(np.float32), photometric="minisblack")


def make_rows(folder: Path, random: np.random.Generator) -> None:
    """Make images with noise along x, and the clean ones."""
    write_pairs(folder, random, 1, 40, 48)


def make_columns(folder: Path, random: np.random.Generator) -> None:
    """Make images with noise along y, and the clean ones."""
    write_pairs(folder, random, 0, 40, 48)


def make_white(folder: Path, random: np.random.Generator) -> None:
    """Make images with noise in each pixel for itself, without clean ones, of several sizes."""
    for number, width in enumerate((48, 44, 53)):
        noisy = record(random, scene(random, 40, width), None)
        tifffile.imwrite(folder / f"noisy_{number}.tif", noisy.astype(np.float32))


def make_single(folder: Path, random: np.random.Generator) -> None:
    """Make one image with many patches."""
    noisy = record(random, scene(random, 112, 128), None)
    tifffile.imwrite(folder / "noisy_0.tif", noisy.astype(np.float32))


def make_volumes(folder: Path, random: np.random.Generator) -> None:
    """Make volumes with noise along z, and the clean ones."""
    write_pairs(folder, random, 0, 8, 24, 28)


def make_traces(folder: Path, random: np.random.Generator) -> None:
    """Make traces, one a row, and the clean ones."""
    clean = np.stack([scene(random, 200) for _ in range(5)])
    tifffile.imwrite(folder / "noisy_traces.tif", record(random, clean, 1).astype(np.float32))
    tifffile.imwrite(folder / "clean_traces.tif", (20 + 200 * clean).astype(np.float32))


def make_colours(folder: Path, random: np.random.Generator) -> None:
    """Make colour images with noise along x, and the clean ones, as PNG."""
    import imageio.v3

    for number in range(3):
        clean = np.stack([scene(random, 44, 48) for _ in range(3)], axis=-1)
        for kind, image in (("noisy", record(random, clean, 1)), ("clean", 20 + 200 * clean)):
            imageio.v3.imwrite(folder / f"{kind}_{number}.png", np.rint(image).astype(np.uint8))


def make_shifted(folder: Path, random: np.random.Generator) -> None:
    """Make images with noise along x, and clean ones that are shifted by parts of a pixel and have another contrast."""
    from scipy import ndimage

    for number, shift in enumerate([(0.4, -1.3), (-0.75, 0.2), (1.6, 0.9)]):
        clean = ndimage.gaussian_filter(scene(random, 44, 52), 1.0)
        drifted = ndimage.shift(clean, shift, order=3, mode="nearest")
        tifffile.imwrite(folder / f"noisy_{number}.tif", record(random, clean, 1).astype(np.float32))
        tifffile.imwrite(folder / f"clean_{number}.tif", (5 + 90 * drifted).astype(np.float32))


def make_images(name: str, folder: Path) -> Path:
    """Fill a new folder with these images, the same whenever and wherever they are made, and return it."""
    folder.mkdir(parents=True)
    globals()[f"make_{name}"](folder, np.random.default_rng(zlib.crc32(name.encode())))
    return folder


# ---------------------------------------------------------------------------------------- a checkout and its commands


class Failure(Exception):
    """A command failed, or did not do what the case needs."""


class Checkout:
    """The command line of one checkout.

    A worker process imports the libraries, which takes seconds, and forks for each command: each command starts from
    the same fresh state, as on a command line.

    Parameters
    ----------
    name
        ``before`` or ``after``.
    folder
        The checkout.
    work
        Where its commands run, outside the checkout.
    """

    def __init__(self, name: str, folder: Path, work: Path):
        self.name, self.folder, self.work = name, folder, work
        self.environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PYTHONPYCACHEPREFIX": str(work / "pycache"),
            "OMP_NUM_THREADS": "1",
        }
        self._options: dict[str, dict[str, str]] = {}
        self._worker: subprocess.Popen | None = None

    @functools.cached_property
    def package_hash(self) -> str:
        """A hash of all Python files of the package."""
        files = sorted((self.folder / "dvlae").rglob("*.py"))
        if not files:
            raise SystemExit(f"{self.folder}: not a checkout of dvlae")
        contents = (f"{path.relative_to(self.folder)}\0{path.read_text(encoding='utf-8')}\0" for path in files)
        return hashlib.sha256("".join(contents).encode()).hexdigest()

    @functools.cached_property
    def commit(self) -> str:
        """The commit, for people; empty where the folder is none of Git's."""
        command = ["git", "-C", str(self.folder), "log", "-1", "--format=%h"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def options(self, command: str) -> dict[str, str]:
        """Return the options that ``dvlae COMMAND --help`` lists, with what follows each; empty without the command."""
        if command not in self._options:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "dvlae", command, "--help"],
                cwd=self.work,
                env=self.environment | {"COLUMNS": "200"},
                capture_output=True,
                text=True,
                check=False,
            )
            text = done.stdout if done.returncode == 0 else ""
            self._options[command] = dict(re.findall(r"^ +(?:-\w, )?(--[\w-]+)(.*)$", text, re.M))
        return self._options[command]

    def start(self, job: dict) -> int:
        """Start a command; return the id of its process."""
        if self._worker is None:
            self._worker = subprocess.Popen(
                [sys.executable, "-P", __file__, "--serve", str(self.folder)],
                cwd=self.work,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self._worker.stdin.write(json.dumps(job) + "\n")
        self._worker.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """Return the exit code of the command, or the negative number of the signal that ended it."""
        return self._answer()

    def _answer(self) -> int:
        line = self._worker.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the worker process ended")
        return int(line)

    def close(self) -> None:
        """End the worker process."""
        if self._worker is not None:
            self._worker.stdin.close()
            self._worker.wait()


def serve(checkout: Path) -> None:
    """Run commands of ``dvlae``, each in a process of its own: read one JSON a line, answer process id and exit code.

    Parameters
    ----------
    checkout
        Where the package must come from.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            with open(job["log"], "w") as log, open(os.devnull) as nothing:
                for stream, number in ((nothing, 0), (log, 1), (log, 2)):
                    os.dup2(stream.fileno(), number)
            os._exit(run_command(job, checkout))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run_command(job: dict, checkout: Path) -> int:
    """Run one command in this process; return its exit code."""
    code = 1
    try:
        import dvlae.cli

        if not Path(dvlae.__file__).resolve().is_relative_to(checkout):
            raise Failure(f"the package comes from {dvlae.__file__}, not from {checkout}")
        if job["save_each_step"]:
            set_constant("dvlae.training", BETWEEN_CHECKPOINTS, 0)
        with record_figures(job["drawn"]):
            code = dvlae.cli.main(job["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # the process ends here, and the log has to say why
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def set_constant(package: str, name: str, value) -> None:
    """Set a constant in each module of dvlae that has it, once a module or package and all in it are imported."""
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{package}."):
        importlib.import_module(found.name)
    holders = [m for key, m in sys.modules.items() if key.startswith("dvlae.") and name in vars(m)]
    if not holders:
        raise Failure(f"no module of {package} has the constant {name}; change the name at the top of {__file__}")
    for holder in holders:
        setattr(holder, name, value)


@contextmanager
def record_figures(path: str | None) -> Iterator[None]:
    """Write the images and lines of each figure that is saved into an NPZ file; None: do nothing."""
    if path is None:
        yield
        return
    from matplotlib.figure import Figure

    saved: list[Figure] = []
    original = Figure.savefig

    def savefig(figure, *arguments, **options):
        original(figure, *arguments, **options)
        if not any(figure is other for other in saved):  # it is saved as PNG and as SVG
            saved.append(figure)

    Figure.savefig = savefig
    yield
    drawn = {}
    for i, figure in enumerate(saved):
        for j, axes in enumerate(figure.axes):
            for k, image in enumerate(axes.images):
                drawn[f"figure{i}.axes{j}.image{k}"] = np.ma.getdata(image.get_array())
                drawn[f"figure{i}.axes{j}.image{k}.limits"] = np.array(image.get_clim(), np.float64)
            for k, lines in enumerate(axes.lines):
                drawn[f"figure{i}.axes{j}.line{k}"] = np.array(lines.get_xydata())
    np.savez(path, **drawn)


# ---------------------------------------------------------------------------------------- the steps of a case


class Steps:
    """The steps of a case with one checkout, in the folders that the workflow would use.

    Parameters
    ----------
    checkout
        Whose commands are run.
    case
        The case.
    folder
        Empty folder for the results.
    data
        Folder of the images.
    models
        The same folder of a checkout that trained the models already; None: they are trained.
    """

    DATASET = "proof"  # the name of the dataset in each case

    def __init__(self, checkout: Checkout, case: Case, folder: Path, data: Path, models: Path | None):
        self.checkout, self.case, self.folder = checkout, case, folder
        self.dataset = DATASETS[case.images]
        self.data, self.models = data, models
        self.images, self.patches = folder / self.DATASET / "images", folder / self.DATASET / "patches"
        self.targets = folder / self.DATASET / "targets.csv"
        self.logs = folder / "logs"
        self.has_clean = "simulate" in self.dataset or self.dataset["clean"] is not None
        self.evaluation = json.dumps(self.dataset.get("evaluation", {}))
        self.training = {**TRAINING, **case.training}

    def run(self, command: str, *words, drawn: Path | None = None, killed: Path | None = None, **options) -> None:
        """Run a command: words as they are, ``noise_direction="x"`` as ``--noise-direction x``; None is left out.

        Parameters
        ----------
        drawn
            NPZ file to write with what the figures show.
        killed
            Folder of checkpoints: the command is killed once some are there.
        """
        known = self.checkout.options(command)
        argv = [command, *map(str, words)]
        for key, value in options.items():
            option = f"--{key.replace('_', '-')}"
            option = next((name for name in RENAMED.get((command, option), ()) if name in known), option)
            if value is not None:
                argv += [option, *map(str, value if isinstance(value, tuple | list) else [value])]
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{len(list(self.logs.iterdir())):02d}_{command}.log"
        job = {"argv": argv, "log": str(log), "drawn": drawn and str(drawn), "save_each_step": killed is not None}
        process = self.checkout.start(job)
        if killed is not None:
            kill_after_saving(process, killed)
        code = self.checkout.wait()
        if code != (0 if killed is None else -signal.SIGKILL):
            said = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            raise Failure(f"{self.checkout.name}: dvlae {command} ended with {code}: {said} ({log})")

    def targets_for(self, command: str) -> dict:
        """Return the option that names the table of targets, where the command has it and there is one."""
        what_follows = self.checkout.options(command).get(TARGETS)
        if what_follows is None or not self.targets.exists():
            return {}
        return {TARGETS[2:]: f"{self.DATASET}={self.targets}" if "=" in what_follows.split()[0] else self.targets}

    def runs(self) -> Iterator[tuple[int, int, str, Path]]:
        """Yield receptive field, seed, method and folder of each training."""
        for receptive_field in self.case.receptive_fields:
            for seed in self.case.seeds:
                method = f"dvlae-rf{receptive_field}"
                yield receptive_field, seed, method, self.folder / self.DATASET / method / f"seed{seed}"

    def model(self, folder: Path) -> Path:
        """Return the folder of the model of a run: its own, or the older one."""
        return (folder if self.models is None else self.models / folder.relative_to(self.folder)) / "model"

    def prepare(self) -> None:
        """Simulate noise where the dataset says so, prepare the images, cut patches, register the clean images."""
        settings = json.dumps(self.dataset)
        simulated = None
        if "simulate" in self.dataset:
            simulated = self.images.with_name("simulated")
            self.run("simulate", settings, data=self.data, output=simulated)
        self.run("prepare", settings, data=self.data, simulated=simulated, output=self.images)
        patches = {"patch_size": self.training["patch_size"]}
        if "validation_fraction" in self.training:
            patches["validation_fraction"] = self.training["validation_fraction"]
        self.run("extract-patches", self.images, self.patches, settings=json.dumps(patches))
        if self.has_clean and self.checkout.options(REGISTER):
            self.run(REGISTER, self.images, self.targets, settings=self.evaluation)

    def train(self) -> None:
        """Train each model."""
        if self.models is not None:
            return
        settings = {"model": MODEL | self.case.model, "training": self.training, "device": "cpu"}
        for receptive_field, seed, _, folder in self.runs():
            options = {
                "receptive_field": receptive_field,
                "noise_direction": self.dataset["noise_direction"],
                "seed": seed,
                "checkpoints": folder / "checkpoints",
                "settings": json.dumps(settings),
                "device": "cpu",
                "devices": self.case.devices,
            }
            if self.case.killed:
                self.run("train", self.patches, folder / "model", killed=folder / "checkpoints", **options)
            self.run("train", self.patches, folder / "model", **options)
            attempts = json.loads((folder / "model" / "run.json").read_text()).get("attempts")
            if attempts != (2 if self.case.killed else 1):
                raise Failure(f"{self.checkout.name}: run.json tells of {attempts} attempts to train; was it resumed?")

    def predict(self) -> None:
        """Denoise with each model, which removes its checkpoints."""
        settings = json.dumps({"prediction": PREDICTION | self.case.prediction})
        for _, seed, _, folder in self.runs():
            self.run(
                "predict",
                self.model(folder),
                self.images,
                denoised=folder / "denoised",
                uncertainty=folder / "uncertainty",
                samples=folder / "samples" if self.case.prediction.get("save_samples") else None,
                checkpoints=folder / "checkpoints",
                seed=seed,
                settings=settings,
                device="cpu",
                tile=self.case.tile,
            )
            if (folder / "checkpoints").exists():
                raise Failure(f"{self.checkout.name}: predict did not remove {folder / 'checkpoints'}")

    def _evaluate(self, folder: Path, **options) -> None:
        self.run(
            "evaluate",
            self.images,
            folder / "denoised",
            folder / "psnr.csv",
            dataset=self.DATASET,
            settings=self.evaluation,
            **options,
            **self.targets_for("evaluate"),
        )

    def evaluate(self) -> None:
        """Measure what each model did."""
        for receptive_field, seed, method, folder in self.runs():
            self._evaluate(folder, method=method, seed=seed, receptive_field=receptive_field)

    def methods(self) -> None:
        """Denoise with methods that train nothing, after the diagnosis of the noise, and measure what they did."""
        for method in METHODS:
            folder = self.folder / self.DATASET / method / "seed0"
            self.run(
                "run-method",
                method,
                self.images,
                denoised=folder / "denoised",
                noise=self.folder / "noise.json",
                noise_direction=self.dataset["noise_direction"],
                settings=self.evaluation,
                **self.targets_for("run-method"),
            )
            self._evaluate(folder, method=method)

    def diagnose(self) -> None:
        """Describe the noise, with a warning where it contradicts the direction."""
        self.run(
            "diagnose",
            self.images,
            output=self.folder / "noise.json",
            dataset=self.DATASET,
            noise_direction=self.dataset["noise_direction"],
            settings=self.evaluation,
            **self.targets_for("diagnose"),
        )

    def likelihood(self) -> None:
        """Bound the likelihood of some of the images."""
        for _, seed, _, folder in self.runs():
            output = folder / "likelihood.csv"
            options = {"output": output, "select": "0:2", "samples": 3, "seed": seed, "device": "cpu"}
            self.run("likelihood", self.model(folder), self.images, **options)

    def levels(self) -> None:
        """Draw the levels of the first image; what is compared is what the picture shows."""
        with (self.images / "manifest.csv").open(newline="") as file:
            image = next(csv.DictReader(file))["image"]
        for _, seed, _, folder in self.runs():
            options = {"image": image, "seed": seed, "device": "cpu", "drawn": folder / "levels.npz"}
            self.run("levels", self.model(folder), self.images, output=folder / "levels.png", **options)

    def generate_noise(self) -> None:
        """Draw new noise, twice, and compare it to the real one."""
        for _, seed, _, folder in self.runs():
            self.run(
                "generate",
                self.model(folder),
                folder / "generated",
                kind="noise",
                images=self.images,
                settings=self.evaluation if self.has_clean else None,
                realisations=2,
                seed=seed,
                device="cpu",
                **self.targets_for("generate"),
            )

    def generate_prior(self) -> None:
        """Draw two images from the prior."""
        for _, seed, _, folder in self.runs():
            options = {"kind": "prior", "size": self.case.size, "realisations": 2, "seed": seed, "device": "cpu"}
            self.run("generate", self.model(folder), folder / "prior", **options)

    def _measured(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.DATASET}/*/seed*/psnr.csv"))

    def tables(self) -> None:
        """Gather all runs into tables."""
        self.run("tables", *self._measured(), output=self.folder / "tables")

    def figures(self) -> None:
        """Draw all figures."""
        self.run(
            "figures",
            *self._measured(),
            output=self.folder / "figures",
            images=f"{self.DATASET}={self.images}",
            settings=json.dumps({self.DATASET: json.loads(self.evaluation)}),
            noise=f"{self.DATASET}={self.folder / 'noise.json'}",
            **self.targets_for("figures"),
        )


SAVED_BEFORE_KILL = 4  # changes of the checkpoints: by then the first one is whole, whatever files it is of


def kill_after_saving(process: int, checkpoints: Path) -> None:
    """Kill a training once it has saved its state some times; return at once where it ends before that.

    Parameters
    ----------
    process
        Its id.
    checkpoints
        The folder that it saves in.
    """
    seen: set[tuple] = set()
    while len(seen) < SAVED_BEFORE_KILL:
        if not is_running(process):
            return
        for path in checkpoints.glob("[!.]*"):
            try:
                seen.add((path.name, path.stat().st_mtime_ns))
            except FileNotFoundError:  # it was replaced meanwhile
                continue
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)


def is_running(process: int) -> bool:
    """Tell whether a process that belongs to the worker is there and has not ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# ---------------------------------------------------------------------------------------- values


def read_tiff(path: Path) -> Values:
    """Read the pixels."""
    return {"": tifffile.imread(path)}


def read_weights(path: Path) -> Values:
    """Read each tensor."""
    from safetensors.numpy import load_file

    return load_file(path)


def read_table(path: Path) -> Values:
    """Read each column, as numbers where all cells are numbers or empty."""
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names) if name not in UNRELATED}
    return {"columns": np.array(list(columns)), **{name: as_array(cells) for name, cells in columns.items()}}


def as_array(cells: list) -> np.ndarray:
    """Return numbers as float64, an empty or missing one as NaN; everything else as text."""
    try:
        return np.array([math.nan if cell in ("", None) else float(cell) for cell in cells], np.float64)
    except (TypeError, ValueError):
        return np.array([cell if isinstance(cell, str) else json.dumps(cell) for cell in cells])


def read_json(path: Path) -> Values:
    """Read each value, those in blocks as ``block.key``."""
    return dict(flatten("", json.loads(path.read_text(encoding="utf-8"))))


def flatten(name: str, value) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the values of JSON by their names."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in UNRELATED:
                yield from flatten(f"{name}.{key}" if name else key, part)
    else:
        yield name, as_array(value if isinstance(value, list) else [value])


def read_arrays(path: Path) -> Values:
    """Read the arrays of an NPZ file."""
    with np.load(path) as arrays:
        return dict(arrays)


def read_presence(path: Path) -> Values:
    """Read nothing: that the file is there is all that is compared."""
    return {"": np.empty(0)}


def skip(path: Path) -> Values:
    """Do not compare the file at all."""
    return {}


# Files of a case whose values are compared, and how they are read. All others, such as logs, are not looked at.
READERS: tuple[tuple[str, Callable[[Path], Values]], ...] = (
    ("proof/*.tif", read_tiff),
    ("proof/patches/patches.json", read_json),
    ("proof/*/model/*.safetensors", read_weights),
    ("proof/*/method.json", read_json),
    ("proof/*/levels.npz", read_arrays),
    ("proof/targets.csv", skip),
    ("proof/*.csv", read_table),
    ("noise.json", read_json),
    ("tables/*.csv", read_table),
    ("figures/*.*", read_presence),
)


def read_values(folder: Path) -> Values:
    """Read all values of a case."""
    values: Values = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        read = next((read for pattern, read in READERS if fnmatch.fnmatchcase(name, pattern)), None)
        if read is not None and path.is_file():
            values |= {f"{name}:{part}" if part else name: array for part, array in read(path).items()}
    return values


def largest_difference(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return None where two values are equal to the last bit, NaN being equal to NaN; infinity where they are no match.

    Otherwise the largest absolute difference: 0 where only the signs of zeros differ.
    """
    if one.dtype.kind in "US" or other.dtype.kind in "US":
        return None if np.array_equal(one, other) else math.inf
    if one.dtype != other.dtype or one.shape != other.shape:
        return math.inf
    if one.tobytes() == other.tobytes():
        return None
    if one.dtype.kind != "f":
        return float(np.abs(one.astype(np.float64) - other).max())
    numbers = ~(np.isnan(one) & np.isnan(other))
    one, other = one[numbers], other[numbers]
    if one.tobytes() == other.tobytes():
        return None
    with np.errstate(invalid="ignore"):
        difference = np.abs(one.astype(np.float64) - other)
    return float(np.where(np.isnan(difference), math.inf, difference)[one != other].max(initial=0.0))


def find_exemption(case: str, value: str, one: np.ndarray | None, other: np.ndarray | None) -> Exemption | None:
    """Return the exemption that allows a difference, if there is one."""
    for exemption in EXEMPT:
        if fnmatch.fnmatchcase(case, exemption.case) and fnmatch.fnmatchcase(value, exemption.value):
            if math.isinf(exemption.relative):
                return exemption
            numbers = one is not None and other is not None and one.dtype.kind == other.dtype.kind == "f"
            tolerances = {"rtol": exemption.relative, "atol": exemption.absolute, "equal_nan": True}
            if numbers and one.shape == other.shape and np.allclose(other, one, **tolerances):
                return exemption
    return None


def compare(case: str, before: Values, after: Values) -> tuple[list[str], list[str]]:
    """Compare all values of a case.

    Returns
    -------
    different, exempt
        One line a file: what differs and must not, and what differs and may.
    """
    differences: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        there = one is not None and other is not None
        largest = largest_difference(one, other) if there else math.inf
        if largest is None:
            continue
        exemption = find_exemption(case, name, one, other)
        reason = f" ({exemption.reason})" if exemption is not None else ""
        file, _, part = name.partition(":")
        if not there:
            part += f" only {'before' if other is None else 'after'}"
        elif math.isinf(largest):
            part += f" {describe(one)} before, {describe(other)} after"
        differences.setdefault((file, reason), []).append((part, largest))
    different, exempt = [], []
    for (file, reason), found in differences.items():
        total = sum(name.partition(":")[0] == file for name in before | after)
        largest = max(size for _, size in found)
        parts = "; ".join(part.strip() for part, _ in found[:3] if part) + ("; ..." if len(found) > 3 else "")
        parts = f": {parts}" if parts else ""
        line = f"{file}: {len(found)} of {total} values differ, by at most {largest:.3g}{parts}{reason}"
        (exempt if reason else different).append(line)
    return different, exempt


def describe(value: np.ndarray) -> str:
    """Return a short text, or the shape and type of an array."""
    if value.size == 1 or value.dtype.kind in "US":
        text = ", ".join(map(str, value.flat))
        return repr(text if len(text) <= 60 else f"{text[:57]}...")
    return f"{value.shape} {value.dtype}"


# ---------------------------------------------------------------------------------------- the whole


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs of this script out of a folder; wait while one is in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_case(checkout: Checkout, name: str, folder: Path, models: Path | None = None) -> Values:
    """Run the steps of a case, and return all values."""
    shutil.rmtree(folder, ignore_errors=True)
    data = make_images(CASES[name].images, folder / "data")
    steps = Steps(checkout, CASES[name], folder, data, models)
    for step in ("prepare", *CASES[name].steps):
        getattr(steps, step)()
    return read_values(folder)


def cache_key(checkout: Checkout, name: str) -> str:
    """Return a hash of all that the values of a case depend on: the package, the case, this script, the libraries."""
    case = CASES[name]
    settings = (case, DATASETS[case.images], MODEL, TRAINING, PREDICTION, METHODS, sorted(UNRELATED), sys.version)
    makers = (scene, record, write_pairs, globals()[f"make_{case.images}"], Steps, record_figures)
    readers = (*(read for _, read in READERS), read_values, as_array, flatten)
    libraries = (importlib.import_module(library).__version__ for library in ("numpy", "scipy", "torch"))
    parts = [checkout.package_hash, repr(settings), *libraries, *map(inspect.getsource, (*makers, *readers))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def run_before(checkout: Checkout, name: str, folder: Path) -> Values:
    """Return the values of the checkout before, computed or kept from the last time."""
    kept, unfinished = folder / "values.npz", folder / "unfinished.npz"
    if kept.exists():
        return read_arrays(kept)
    values = run_case(checkout, name, folder)
    np.savez(unfinished, **values)
    unfinished.rename(kept)
    return values


def prove(before: Checkout, after: Checkout, name: str, key: str, work: Path) -> bool:
    """Run one case, whose results before are kept under a key; print what differs, and return whether nothing does."""
    kept = work / "kept" / f"{name}-{key}"
    start = time.monotonic()
    try:
        with locked(kept):
            old = run_before(before, name, kept)
        middle = time.monotonic()
        models = kept if CASES[name].older_model else None
        folder = work / f"after-{hashlib.sha256(str(after.folder).encode()).hexdigest()[:8]}" / name
        with locked(folder):
            new = run_case(after, name, folder, models)
        if models is not None:
            old = {value: array for value, array in old.items() if "/model/" not in value}
        different, exempt = compare(name, old, new)
        if not old:
            different.append("no values were computed")
    except Failure as failure:
        print(f"{name:26} DIFFERENT", f"    {failure}", sep="\n", flush=True)
        return False
    end = time.monotonic()
    verdict = "DIFFERENT" if different else "equal"
    print(f"{name:26} {verdict:9} {len(old):5} values  {middle - start:5.1f} s before  {end - middle:5.1f} s after")
    for line in different:
        print(f"    {line}")
    for line in exempt:
        print(f"    exempt: {line}")
    sys.stdout.flush()
    return not different


def main() -> int:
    """Run the cases; return 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout of the commit before")
    parser.add_argument("after", type=Path, help="checkout of the present commit")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    default = Path(tempfile.gettempdir()) / f"dvlae-proof-{os.getuid()}"
    parser.add_argument("--work", type=Path, default=default, help=f"folder for all results (default: {default})")
    arguments = parser.parse_args()
    # Batch statistics depend on the number of workers. There is one on one core.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    before, after = (Checkout(name, getattr(arguments, name).resolve(), work) for name in ("before", "after"))
    for checkout in (before, after):
        print(f"{checkout.name}: {checkout.folder} {checkout.commit}, package {checkout.package_hash[:12]}")
    keys = {name: cache_key(before, name) for name in arguments.only}  # of this script as it is now
    start = time.monotonic()
    try:
        equal = [prove(before, after, name, key, work) for name, key in keys.items()]
    finally:
        before.close()
        after.close()
    print(f"{sum(equal)} of {len(equal)} cases equal, in {time.monotonic() - start:.0f} s")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
    else:
        sys.exit(main())
