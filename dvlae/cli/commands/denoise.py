"""The commands that look at images and denoise them."""

from dataclasses import replace

from dvlae.cli.command import Command, Commands
from dvlae.cli.commands.arguments import (
    CORES,
    DEVICE,
    EVALUATION,
    IMAGES,
    NOISE_DIRECTIONS,
    READING,
    SEED,
    TARGETS,
    argument,
    flag,
    output,
    path,
    read_number_or_word,
)

FILES = replace(
    argument("files", "FILES", "images: files, folders, and patterns such as 'scan_*.tif'", nargs="+"), is_path=True
)

NOISE_DIRECTION = argument(
    "--noise-direction",
    None,
    "axis along which the noise is correlated (default: auto, it is measured)",
    choices=("auto", *NOISE_DIRECTIONS),
    default="auto",
)
RECEPTIVE_FIELD = argument(
    "--receptive-field",
    "PIXELS|auto",
    "how many previous pixels the model of the noise sees (default: auto, twice the measured length)",
    type=read_number_or_word,
    default="auto",
)

COMMANDS: Commands = {
    Command(
        "denoise",
        "Denoise your own images: measure the noise, train a model, and write denoised images and a page to look at. "
        "The same command goes on where it was interrupted.",
        "dvlae.api.denoise:denoise",
        "dvlae denoise stack.tif --minutes 10",
    ): [
        FILES,
        path("--output", "DIR", "folder for all results (default: beside each image; of a folder, FOLDER_denoised)"),
        argument("--minutes", "N", "time for the training (default: 30; with --start-from, 6)", type=float),
        NOISE_DIRECTION,
        RECEPTIVE_FIELD,
        argument(
            "--decoder",
            None,
            "kind of the model of the noise; best: train both, half of the time each, and keep the one with the "
            "smaller estimated error (default: auto, which is best with enough time, and else nonlinear)",
            choices=("auto", "nonlinear", "linear", "best"),
        ),
        *READING,
        path("--model", "MODEL", "use this model instead of training one"),
        path("--start-from", "MODEL", "continue the training of this model, for new images of the same microscope"),
        flag("--rescale", "with --model: bring images of another gain and offset to the scale of its training"),
        argument(
            "--samples",
            "N",
            "samples of each pixel; 0: the direct denoiser (default: 16; with --model, the direct denoiser "
            "or, without one, 8)",
            type=int,
        ),
        flag("--quick", "stop at the preview; the same command without this goes on from there"),
        flag("--overwrite", "replace results of other commands"),
        flag("--dry-run", "say what would be done, and write nothing"),
        SEED,
        DEVICE,
    ],
    Command(
        "init",
        "Write the files with which the workflow denoises your images.",
        "dvlae.api.project:make_project",
        "dvlae init stack.tif",
    ): [
        FILES,
        path("--output", "DIR", "folder to make (default: in the working folder, named after the images)"),
        argument("--minutes", "N", "time for the training (default: 30)", type=float),
        NOISE_DIRECTION,
        RECEPTIVE_FIELD,
        *READING,
        DEVICE,
    ],
    Command(
        "diagnose",
        "Measure the noise's direction and length, with or without clean images.",
        "dvlae.reporting.diagnosis:diagnose",
        "dvlae diagnose results/mine/images --output results/mine/noise.json",
    ): [
        IMAGES,
        output("JSON", "file to write; a PNG and an SVG are written next to it"),
        argument("--dataset", "NAME", "written into both (default: noise)", default="noise"),
        argument("--noise-direction", None, "warn where the noise contradicts this one", choices=NOISE_DIRECTIONS),
        EVALUATION,
        TARGETS,
        CORES,
    ],
}
