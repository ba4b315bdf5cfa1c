"""The declarations of the commands: their arguments, and the functions that they call.

The value of an argument becomes the function's parameter of the same name. The modules that compute are imported by the
command that runs.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from dvlae.cli import functions
from dvlae.cli.command import Argument, Command
from dvlae.config.dataset import DatasetSettings, EvaluationSettings
from dvlae.config.fields import MIRROR_VARIABLE, Device, NoiseDirection, StrictModel, is_file_of_names
from dvlae.config.loading import load_configuration, load_dataset, load_settings
from dvlae.config.settings import PatchSettings, PredictSettings, TrainSettings
from dvlae.system.parts import Part

DEVICES = get_args(Device)
NOISE_DIRECTIONS = get_args(NoiseDirection)


# How values are read --------------------------------------------------------------------------------------------------


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a whole number from 0 to 2^32 - 1")
    return int(text)


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a name")
    return text


def _path_with_name(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("found '', allowed: a path")
    return Path(text)


def _named_path(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: DATASET=PATH")
    return name, Path(path)


def _number_or_word(text: str) -> int | str:
    # The settings say which words are allowed.
    return int(text) if text.removeprefix("-").isdecimal() else text


def _first_and_stop(text: str) -> tuple[int, int]:
    first, _, stop = text.partition(":")
    if not (first.isdecimal() and stop.isdecimal() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: FIRST:STOP, such as 100:228")
    return int(first), int(stop)


def _check_cores(cores: int | None) -> int | None:
    if cores is not None:
        functions.check_counts("--cores", cores)
    return cores


def _read_dataset(text: str) -> DatasetSettings:
    return load_settings(DatasetSettings, text) if text.lstrip().startswith("{") else load_dataset(text)[1]


def _read_selection(words: list[str]) -> str | list[str]:
    """Return a selection as for `select`: all, a slice or a file of names if it is one such word, else names."""
    one = len(words) == 1 and (not is_file_of_names(words[0]) or Path(words[0]).is_file())
    return words[0] if one else words


# How arguments are declared -------------------------------------------------------------------------------------------


def _argument(
    name: str, metavar: str | None, text: str, convert: Callable[[Any], Any] | None = None, **options: Any
) -> Argument:
    return Argument(name, {"metavar": metavar, "help": text} | options, convert)


def _flag(name: str, text: str, **options: Any) -> Argument:
    return Argument(name, {"action": "store_true", "help": text} | options)


def _path(name: str, metavar: str, text: str, **options: Any) -> Argument:
    return _argument(name, metavar, text, type=_path_with_name, **options)


def _new_path(name: str, metavar: str, text: str, **options: Any) -> Argument:
    """Declare a path whose content the command replaces or removes."""
    return replace(_path(name, metavar, text, **options), replaces=True)


def _named_paths(name: str, metavar: str, text: str, **options: Any) -> Argument:
    return _argument(name, metavar, text, dict, type=_named_path, nargs="+", **options)


def _output(metavar: str, text: str) -> Argument:
    return _new_path("--output", metavar, text, required=True)


def _settings(cls: type[StrictModel]) -> Argument:
    text = "YAML or JSON file, or JSON (default: the defaults)"
    return _argument("--settings", "SETTINGS", text, partial(load_settings, cls))


def _setting(key: str, metavar: str | None, text: str, **options: Any) -> Argument:
    """Declare an option that overrides a key of the settings."""
    name = key.rpartition(".")[2].replace("_", "-")
    return _argument(f"--{name}", metavar, text, dest=f"settings.{key}", **options)


# The commands ---------------------------------------------------------------------------------------------------------

DATASET = _argument("dataset", "DATASET", "a dataset's YAML file, or its settings as JSON", _read_dataset)
DATA = _path("--data", "DIR", "the data folder", required=True)
IMAGES = _path("images", "IMAGES", "folder made by `dvlae prepare`")
MODEL = _path("model", "MODEL", "folder made by `dvlae train`")
PSNR_CSVS = _path("psnr_csvs", "PSNR_CSV", "tables made by `dvlae evaluate`, in their original folders", nargs="+")
SEED = _argument("--seed", "N", "random seed (default: 0)", type=_seed, default=0)
DEVICE = _argument("--device", None, "where to compute (default: auto)", choices=DEVICES, default="auto")
DEVICE_OF_SETTINGS = _setting(
    "device", None, "where to compute, instead of the device in the settings", choices=DEVICES
)
CORES = _argument("--cores", "N", "cores to use (default: all that are free)", _check_cores, type=int)
EVALUATION = _settings(EvaluationSettings)
PART = _argument("--part", "K/N", "images of part K of N (default: all); see `dvlae gather`", Part.parse, default="1/1")
REGISTERED = "made by `dvlae register` (default: the clean images are registered again)"
TARGETS = _path("--targets", "CSV", f"table {REGISTERED}")
OVERRIDES = "configuration, as for snakemake: overrides config/config.yaml"
CONFIGURATION = _argument("--configfile", "FILE", OVERRIDES, load_configuration, dest="settings", nargs="+", default=[])

COMMANDS = {
    Command(
        "init", "Write the files with which the workflow denoises your images.", "dvlae.api.project:make_project"
    ): [
        _argument("images", "IMAGES", "files, folders or globs of noisy images", nargs="+"),
        _path("--output", "DIR", "folder to make (default: named after the images)"),
        _argument(
            "--noise-direction",
            None,
            "direction of the noise correlation (default: measured)",
            choices=["auto", *NOISE_DIRECTIONS],
            default="auto",
        ),
        _argument(
            "--receptive-field",
            "PIXELS",
            "receptive field of the autoregressive decoder (default: measured)",
            type=_number_or_word,
            default="auto",
        ),
        _argument("--minutes", "MINUTES", "time for a training (default: 30)", type=float, default=30.0),
        DEVICE,
    ],
    Command(
        "download",
        "Download a dataset's files, or take them from a mirror; check hashes.",
        "dvlae.data.download:download",
    ): [
        DATASET,
        DATA,
        _path("--mirror", "DIR", f"folder to look in first ({MIRROR_VARIABLE} takes precedence)"),
        _output("CSV", "list of the files, to write"),
    ],
    Command("simulate", "Add simulated noise to clean images.", "dvlae.data.simulate:simulate"): [
        DATASET,
        DATA,
        _output("DIR", "folder to make"),
    ],
    Command("prepare", "Check, crop and convert a dataset's images to one format.", "dvlae.data.prepare:prepare"): [
        DATASET,
        DATA,
        _path("--simulated", "DIR", "folder made by `dvlae simulate`, for a dataset with simulated noise"),
        _output("IMAGES", "folder to make"),
    ],
    Command(
        "extract-patches",
        "Cut training and validation patches from prepared images.",
        "dvlae.data.patches:extract_patches",
    ): [IMAGES, _new_path("output", "PATCHES", "folder to make"), _settings(PatchSettings)],
    Command(
        "register",
        "Register the clean images to the noisy ones, once for all commands.",
        "dvlae.evaluation.register:register",
    ): [IMAGES, _new_path("output", "TARGETS_CSV", "table to write, one row an image"), EVALUATION, CORES],
    Command(
        "diagnose",
        "Measure the noise's direction and length, with or without clean images.",
        "dvlae.reporting.diagnosis:diagnose",
    ): [
        IMAGES,
        _output("JSON", "file to write; a PNG and an SVG are written next to it"),
        _argument("--dataset", "NAME", "written into both (default: noise)", default="noise"),
        _argument("--noise-direction", None, "warn where the noise contradicts this one", choices=NOISE_DIRECTIONS),
        EVALUATION,
        TARGETS,
        CORES,
    ],
    Command("train", "Train a model on the patches of one dataset.", functions.train): [
        _path("patches", "PATCHES", "folder made by `dvlae extract-patches`"),
        _new_path("model", "MODEL", "folder to make"),
        _argument(
            "--receptive-field", "PIXELS", "receptive field of the autoregressive decoder", type=int, required=True
        ),
        _argument(
            "--noise-direction", None, "direction of the noise correlation", choices=NOISE_DIRECTIONS, required=True
        ),
        _new_path("--checkpoints", "DIR", "folder for the unfinished training, so that it can be resumed"),
        _flag(
            "--tensorboard",
            "also write the history for TensorBoard, into the folder `tensorboard` next to the model",
            action=argparse.BooleanOptionalAction,
            default=False,
        ),
        _path("--start-from", "MODEL", "model of the same sizes whose weights are the first (default: random weights)"),
        SEED,
        _settings(TrainSettings),
        DEVICE_OF_SETTINGS,
        _setting("devices", "N", "number of GPUs (default: 1)", type=int),
        _setting("training.workers", "N|auto", "processes that share each batch on a processor", type=_number_or_word),
        CORES,
    ],
    Command("predict", "Denoise images with a trained model.", functions.predict): [
        MODEL,
        IMAGES,
        _new_path("--denoised", "DIR", "folder to make", required=True),
        _new_path("--uncertainty", "DIR", "folder to make: posterior standard deviation", required=True),
        _new_path("--samples", "DIR", "folder to make: posterior samples"),
        _new_path("--remove-checkpoints", "DIR", "checkpoints of the training, to remove after the prediction"),
        SEED,
        _settings(PredictSettings),
        DEVICE_OF_SETTINGS,
        _setting("prediction.tile", "PIXELS|auto", "side of a tile", type=_number_or_word),
        _setting("prediction.batch_size", "N|auto", "number of samples computed at once", type=_number_or_word),
        PART,
        CORES,
    ],
    Command(
        "likelihood",
        "Compute a lower bound on the log-likelihood of images.",
        "dvlae.inference.log_likelihood:likelihood",
    ): [
        MODEL,
        IMAGES,
        _output("CSV", "table to write, one row an image"),
        _argument(
            "--select",
            "IMAGE",
            "names of images, a slice such as 0:8, or a file of names (default: all)",
            _read_selection,
            dest="selection",
            nargs="+",
            default=["all"],
        ),
        _argument("--samples", "K", "posterior samples of each image (default: 10)", type=int, default=10),
        SEED,
        DEVICE,
    ],
    Command(
        "levels",
        "Plot what each level of the ladder decides in one image.",
        "dvlae.reporting.levels:make_levels_figure",
    ): [
        MODEL,
        IMAGES,
        _argument("--image", "NAME", "the image's name in the manifest", required=True),
        _output("PNG", "picture to make; an SVG is written next to it"),
        _argument(
            "--crop",
            "FIRST:STOP",
            "part to show, in pixels, for each axis in the order of the file, for example 100:228 50:178",
            type=_first_and_stop,
            nargs="+",
        ),
        SEED,
        DEVICE,
    ],
    Command("generate", "Sample new noise on given images, or complete images from the prior.", functions.generate): [
        MODEL,
        _new_path("output", "OUTPUT", "folder to make"),
        _argument(
            "--kind",
            None,
            "noise: new noise on the content of images; prior: content and noise sampled from the model",
            choices=["noise", "prior"],
            required=True,
        ),
        _path("--images", "IMAGES", "for new noise: folder made by `dvlae prepare`"),
        _argument(
            "--settings",
            "SETTINGS",
            "for new noise: compare it with noisy minus clean, fitted with these settings of `dvlae evaluate`",
        ),
        TARGETS,
        _argument("--size", "PIXELS", "for the prior: the images' sides, [Z [Y]] X", type=int, nargs="+"),
        _argument(
            "--realisations",
            "N",
            "number for each image, or of images from the prior (default: 1)",
            type=int,
            default=1,
        ),
        SEED,
        DEVICE,
    ],
    Command(
        "baseline", "Denoise images with a simple method, for comparison.", "dvlae.evaluation.baselines:run_baseline"
    ): [
        _argument("method", "METHOD", "noisy (the image itself), gaussian or bm3d"),
        IMAGES,
        _new_path("--denoised", "DIR", "folder to make", required=True, dest="output"),
        EVALUATION,
        TARGETS,
        PART,
        CORES,
    ],
    Command("evaluate", "Measure PSNR and SSIM of denoised images.", "dvlae.evaluation.evaluate:evaluate"): [
        IMAGES,
        _path("denoised", "DENOISED", "folder of denoised images"),
        _new_path("output", "PSNR_CSV", "table to write, one row an image"),
        _argument("--dataset", "NAME", "written into the table", type=_name, required=True),
        _argument("--method", "NAME", "written into the table", type=_name, required=True),
        _argument("--receptive-field", "PIXELS", "written into the table", type=int),
        SEED,
        EVALUATION,
        TARGETS,
        PART,
        CORES,
    ],
    Command("gather", "Join the results of several jobs that share a dataset.", functions.gather): [
        _path("parts", "PART", "folders of all parts, in order", nargs="+"),
        _new_path("--output", "PATH", "paths to make, named as in the parts", dest="outputs", nargs="+", required=True),
    ],
    Command("tables", "Gather the measurements of many runs into tables.", "dvlae.reporting.tables:make_tables"): [
        PSNR_CSVS,
        _path("--output", "DIR", "folder for the tables", required=True),
    ],
    Command("figures", "Plot what was measured: panels, training curves, noise, ablation.", functions.figures): [
        PSNR_CSVS,
        _path("--output", "DIR", "folder for the pictures", required=True),
        _named_paths("--images", "DATASET=IMAGES", "folders made by `dvlae prepare`", required=True),
        _argument(
            "--settings",
            "SETTINGS",
            "how each dataset is evaluated: YAML or JSON file, or JSON (default: the defaults)",
        ),
        _named_paths(
            "--noise", "DATASET=JSON", "correlation lengths, made by `dvlae diagnose` (default: unmarked)", default=[]
        ),
        _named_paths("--targets", "DATASET=CSV", f"tables {REGISTERED}", default=[]),
    ],
    Command(
        "status",
        "Show the progress of a grid: finished, running, failed and waiting runs, time left.",
        "dvlae.runs.status:describe_status",
    ): [CONFIGURATION],
    Command(
        "clean",
        "Show what uses the disk space, and remove what can be made again.",
        "dvlae.runs.disk_space:clean",
    ): [
        CONFIGURATION,
        _flag("--remove", "remove these files; without this option nothing is changed"),
        _flag(
            "--patches",
            "also the patches of datasets whose trainings are all finished; a training that is added later needs them "
            "again, and then all trainings of the dataset are repeated",
        ),
    ],
}
