"""The steps of the workflow, as commands, and what shows and clears their results."""

import argparse

from dvlae.cli import functions
from dvlae.cli.command import Command, Commands
from dvlae.cli.commands.arguments import (
    CONFIGURATION,
    CORES,
    DATA,
    DATASET,
    DEVICE,
    DEVICE_OF_SETTINGS,
    DRY_RUN,
    EVALUATION,
    IMAGES,
    MODEL,
    NOISE_DIRECTIONS,
    PART,
    PSNR_CSVS,
    REGISTERED,
    SEED,
    SUGGESTION,
    TARGETS,
    argument,
    flag,
    named_paths,
    new_path,
    output,
    path,
    read_name,
    read_number_or_word,
    read_receptive_field,
    setting,
    settings_of,
)
from dvlae.config.fields import MIRROR_VARIABLE
from dvlae.config.settings import PatchSettings, PredictSettings, TrainSettings

MADE = output("JSON", "record to write: what was made, how long it took and how large it is, or why it failed")
MIRROR = path("--mirror", "DIR", f"folder to look in first ({MIRROR_VARIABLE} takes precedence)")
METHOD = argument("method", "METHOD", "name of a file in config/methods/, or the path of a method file")
OF_METHODS = [
    path("--noise", "JSON", "noise, made by `dvlae diagnose`, for methods that need it"),
    argument(
        "--noise-direction",
        None,
        "direction of the noise correlation (default: none)",
        choices=NOISE_DIRECTIONS,
        default="none",
    ),
    argument("--block", "N", "neighbouring images that belong together (default: 1)", type=int, default=1),
    SEED,
    argument("--minutes", "M", "time for a method that trains", type=float),
    DEVICE,
    path("--environment", "JSON", "made by `dvlae make-environment`"),
    path("--code", "JSON", "made by `dvlae download-code`"),
    EVALUATION,
    TARGETS,
    CORES,
]

COMMANDS: Commands = {
    Command(
        "download",
        "Download a dataset's files, or take them from a mirror; check hashes.",
        "dvlae.data.download:download",
        "dvlae download config/datasets/sem_line.yaml --data data --output data/sem_line.files.csv",
    ): [
        DATASET,
        DATA,
        MIRROR,
        output("CSV", "list of the files, to write"),
    ],
    Command(
        "simulate",
        "Add simulated noise to clean images.",
        "dvlae.data.simulate:simulate",
        "dvlae simulate config/datasets/simulated.yaml --data data --output results/simulated/simulated",
    ): [
        DATASET,
        DATA,
        output("DIR", "folder to make"),
        DRY_RUN,
    ],
    Command(
        "prepare",
        "Check, crop and convert a dataset's images to one format.",
        "dvlae.data.prepare:prepare",
        "dvlae prepare config/datasets/mine.yaml --data data --output results/mine/images",
    ): [
        DATASET,
        DATA,
        path("--simulated", "DIR", "folder made by `dvlae simulate`, for a dataset with simulated noise"),
        output("IMAGES", "folder to make"),
        DRY_RUN,
    ],
    Command(
        "extract-patches",
        "Cut training and validation patches from prepared images.",
        "dvlae.data.patches:extract_patches",
        "dvlae extract-patches results/mine/images results/mine/patches",
    ): [IMAGES, new_path("output", "PATCHES", "folder to make"), settings_of(PatchSettings), DRY_RUN],
    Command(
        "register",
        "Register the clean images to the noisy ones, once for all commands.",
        "dvlae.evaluation.register:register",
        "dvlae register results/mine/images results/mine/targets.csv",
    ): [IMAGES, new_path("output", "TARGETS_CSV", "table to write, one row an image"), EVALUATION, CORES],
    Command(
        "train",
        "Train a model on the patches of one dataset.",
        functions.train,
        "dvlae train results/mine/patches results/mine/model --receptive-field 40 --noise-direction x",
    ): [
        path("patches", "PATCHES", "folder made by `dvlae extract-patches`"),
        new_path("model", "MODEL", "folder to make"),
        argument(
            "--receptive-field",
            "PIXELS|auto",
            "receptive field of the autoregressive decoder",
            type=read_receptive_field,
            required=True,
        ),
        SUGGESTION,
        argument(
            "--noise-direction", None, "direction of the noise correlation", choices=NOISE_DIRECTIONS, required=True
        ),
        new_path("--checkpoints", "DIR", "folder for the unfinished training, so that it can be resumed"),
        flag(
            "--tensorboard",
            "also write the history for TensorBoard, into the folder `tensorboard` next to the model",
            action=argparse.BooleanOptionalAction,
            default=False,
        ),
        path("--start-from", "MODEL", "model of the same sizes whose weights are the first (default: random weights)"),
        SEED,
        settings_of(TrainSettings),
        DEVICE_OF_SETTINGS,
        setting("devices", "N", "number of GPUs (default: 1)", type=int),
        setting(
            "training.workers", "N|auto", "processes that share each batch on a processor", type=read_number_or_word
        ),
        CORES,
        DRY_RUN,
    ],
    Command(
        "predict",
        "Denoise images with a trained model.",
        functions.predict,
        "dvlae predict results/mine/model results/mine/images --denoised denoised --uncertainty uncertainty",
    ): [
        MODEL,
        IMAGES,
        new_path("--denoised", "DIR", "folder to make", required=True),
        new_path("--uncertainty", "DIR", "folder to make: posterior standard deviation", required=True),
        new_path("--samples", "DIR", "folder to make: posterior samples"),
        new_path("--remove-checkpoints", "DIR", "checkpoints of the training, to remove after the prediction"),
        SEED,
        settings_of(PredictSettings),
        DEVICE_OF_SETTINGS,
        setting("prediction.tile", "PIXELS|auto", "side of a tile", type=read_number_or_word),
        setting("prediction.batch_size", "N|auto", "number of samples computed at once", type=read_number_or_word),
        PART,
        CORES,
        DRY_RUN,
    ],
    Command(
        "make-environment",
        "Make the virtual environment of a method, and install its packages.",
        "dvlae.methods.environments:make_environment",
        "dvlae make-environment config/methods/mine/requirements.txt --output data/environments/mine.json",
    ): [path("requirements", "REQUIREMENTS", "requirements file for pip"), MADE],
    Command(
        "download-code",
        "Download the files of a method, or take them from a mirror; check hashes.",
        "dvlae.methods.environments:download_code",
        "dvlae download-code config/methods/mine/files.csv --data data --output data/methods/mine.json",
    ): [path("registry", "REGISTRY", "CSV with the columns file, sha256 and url"), DATA, MIRROR, MADE],
    Command(
        "search-method",
        "Train a method with each candidate of its settings for two minutes, and choose the best.",
        "dvlae.methods.search:search_method",
        "dvlae search-method structn2v results/mine/images --output results/mine/structn2v/search.json --minutes 10",
    ): [METHOD, IMAGES, output("JSON", "record to write"), *OF_METHODS, DRY_RUN],
    Command(
        "run-method",
        "Denoise images with the method of a file, for comparison.",
        "dvlae.methods.run:run_method",
        "dvlae run-method gaussian results/mine/images --denoised results/mine/gaussian/seed0/denoised",
    ): [
        METHOD,
        IMAGES,
        new_path("--denoised", "DIR", "folder to make", required=True, dest="output"),
        path("--search", "JSON", "made by `dvlae search-method` (default: the settings of the file are taken)"),
        *OF_METHODS,
        PART,
        DRY_RUN,
    ],
    Command(
        "evaluate",
        "Measure PSNR and SSIM of denoised images.",
        functions.evaluate,
        "dvlae evaluate results/mine/images denoised psnr.csv --dataset mine --method dvlae-rf40",
    ): [
        IMAGES,
        path("denoised", "DENOISED", "folder of denoised images"),
        new_path("output", "PSNR_CSV", "table to write, one row an image"),
        argument("--dataset", "NAME", "written into the table", type=read_name, required=True),
        argument("--method", "NAME", "written into the table", type=read_name, required=True),
        argument("--receptive-field", "PIXELS|auto", "written into the table", type=read_receptive_field),
        SUGGESTION,
        SEED,
        EVALUATION,
        TARGETS,
        PART,
        CORES,
    ],
    Command(
        "gather",
        "Join the results of several jobs that share a dataset.",
        functions.gather,
        "dvlae gather parts/1-of-2 parts/2-of-2 --output results/mine/denoised",
    ): [
        path("parts", "PART", "folders of all parts, in order", nargs="+"),
        new_path("--output", "PATH", "paths to make, named as in the parts", dest="outputs", nargs="+", required=True),
        DRY_RUN,
    ],
    Command(
        "tables",
        "Gather the measurements of many runs into tables.",
        functions.tables,
        "dvlae tables psnr.csv gaussian/psnr.csv --output results/mine/tables",
    ): [
        PSNR_CSVS,
        path("--output", "DIR", "folder for the tables", required=True),
        named_paths("--noise", "DATASET=JSON", "noise, measured by `dvlae diagnose` (default: no rows)", default=[]),
        argument(
            "--published",
            "SETTINGS",
            "results that others published, a block with `published` for each dataset: YAML or JSON file, or JSON "
            "(default: none)",
        ),
    ],
    Command(
        "figures",
        "Plot what was measured: panels, training curves, noise, ablation.",
        functions.figures,
        "dvlae figures psnr.csv --output results/mine/figures --images mine=results/mine/images",
    ): [
        PSNR_CSVS,
        path("--output", "DIR", "folder for the pictures", required=True),
        named_paths("--images", "DATASET=IMAGES", "folders made by `dvlae prepare`", required=True),
        argument(
            "--settings",
            "SETTINGS",
            "how each dataset is evaluated: YAML or JSON file, or JSON (default: the defaults)",
        ),
        named_paths(
            "--noise", "DATASET=JSON", "correlation lengths, made by `dvlae diagnose` (default: unmarked)", default=[]
        ),
        named_paths("--targets", "DATASET=CSV", f"tables {REGISTERED}", default=[]),
    ],
    Command(
        "status",
        "Show the progress of a grid: finished, running, failed and waiting runs, time left.",
        functions.status,
        "dvlae status --configfile config/sem.yaml",
    ): [
        *CONFIGURATION,
        flag("--estimate", "measure for some seconds how fast this machine is, and say how long the rest takes"),
        CORES,
    ],
    Command(
        "clean",
        "Show what uses the disk space, and remove what can be made again.",
        functions.clean,
        "dvlae clean --configfile config/sem.yaml",
    ): [
        *CONFIGURATION,
        flag("--remove", "remove these files; without this option nothing is changed"),
        flag(
            "--patches",
            "also the patches of datasets whose trainings are all finished; a training that is added later needs them "
            "again, and then all trainings of the dataset are repeated",
        ),
    ],
}
