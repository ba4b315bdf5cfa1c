"""The commands that take a trained model."""

from dvlae.cli import functions
from dvlae.cli.command import Command, Commands
from dvlae.cli.commands.arguments import (
    DEVICE,
    DRY_RUN,
    IMAGES,
    MODEL,
    SEED,
    TARGETS,
    argument,
    new_path,
    output,
    path,
    read_first_and_stop,
    read_selection,
)

COMMANDS: Commands = {
    Command(
        "export",
        "Write the direct denoiser of a model for other programs: Fiji, napari, ilastik.",
        "dvlae.inference.export.command:export",
        "dvlae export results/mine/model mine.zip --format bioimageio --license CC-BY-4.0 --author 'A. Name'",
    ): [
        MODEL,
        new_path("output", "OUTPUT", "what to make: NAME.zip or a folder; NAME.onnx; NAME.pt"),
        argument(
            "--format", None, "kind of file", dest="kind", choices=["bioimageio", "onnx", "torchscript"], required=True
        ),
        path(
            "--images",
            "IMAGES",
            "folder made by `dvlae prepare`, of which part of an image goes into a package as the example (default: an "
            "image that the model samples)",
        ),
        argument("--license", "SPDX", "licence of the model, for bioimageio, for example CC-BY-4.0", dest="licence"),
        argument("--author", "NAME", "who made the model, for bioimageio", dest="authors", nargs="+", default=()),
    ],
    Command(
        "import-weights",
        "Make a model of a checkpoint that the paper's authors' code of 2023 saved.",
        "dvlae.models.imported.weights:import_weights",
        "dvlae import-weights final_model.ckpt models/theirs",
    ): [
        path(
            "file", "FILE", "checkpoint of Lightning, or a state_dict() in a file of torch.save; nothing in it is run"
        ),
        new_path("output", "MODEL", "folder to make"),
        *(
            argument(
                f"--{name}",
                "VALUE",
                f"{what} of their training images, one for each channel or one for all (default: as in the checkpoint)",
                type=float,
                nargs="+",
            )
            for name, what in (("mean", "mean"), ("std", "standard deviation"))
        ),
    ],
    Command(
        "likelihood",
        "Compute a lower bound on the log-likelihood of images.",
        "dvlae.inference.log_likelihood:likelihood",
        "dvlae likelihood results/mine/model results/mine/images --output likelihood.csv --select 0:8",
    ): [
        MODEL,
        IMAGES,
        output("CSV", "table to write, one row an image"),
        argument(
            "--select",
            "IMAGE",
            "names of images, a slice such as 0:8, or a file of names (default: all)",
            read_selection,
            dest="selection",
            nargs="+",
            default=["all"],
        ),
        argument("--samples", "K", "posterior samples of each image (default: 10)", type=int, default=10),
        SEED,
        DEVICE,
    ],
    Command(
        "rank",
        "Tell which of several models denoises images best, without clean images.",
        "dvlae.reporting.ranking:rank",
        "dvlae rank results/mine/images results/mine/dvlae-rf4/seed0/model results/mine/dvlae-rf4-linear/seed0/model",
    ): [
        IMAGES,
        path("models", "MODEL", "folders made by `dvlae train`, two or more", nargs="+"),
        new_path("--output", "CSV", "table to write, one row a model"),
        DEVICE,
    ],
    Command(
        "levels",
        "Plot what each level of the ladder decides in one image.",
        "dvlae.reporting.levels:make_levels_figure",
        "dvlae levels results/mine/model results/mine/images --image a --output levels.png",
    ): [
        MODEL,
        IMAGES,
        argument("--image", "NAME", "the image's name in the manifest", required=True),
        output("PNG", "picture to make; an SVG is written next to it"),
        argument(
            "--crop",
            "FIRST:STOP",
            "part to show, in pixels, for each axis in the order of the file, for example 100:228 50:178",
            type=read_first_and_stop,
            nargs="+",
        ),
        SEED,
        DEVICE,
    ],
    Command(
        "generate",
        "Sample new noise on given images, or complete images from the prior.",
        functions.generate,
        "dvlae generate results/mine/model new --kind noise --images results/mine/images",
    ): [
        MODEL,
        new_path("output", "OUTPUT", "folder to make"),
        argument(
            "--kind",
            None,
            "noise: new noise on the content of images; prior: content and noise sampled from the model",
            choices=["noise", "prior"],
            required=True,
        ),
        path("--images", "IMAGES", "for new noise: folder made by `dvlae prepare`"),
        argument(
            "--settings",
            "SETTINGS",
            "for new noise: compare it with noisy minus clean, fitted with these settings of `dvlae evaluate`",
        ),
        TARGETS,
        argument("--size", "PIXELS", "for the prior: the images' sides, [Z [Y]] X", type=int, nargs="+"),
        argument(
            "--realisations",
            "N",
            "number for each image, or of images from the prior (default: 1)",
            type=int,
            default=1,
        ),
        SEED,
        DEVICE,
        DRY_RUN,
    ],
}
