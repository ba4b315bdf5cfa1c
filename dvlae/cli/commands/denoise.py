"""The commands that look at images and denoise them."""

from dvlae.cli.command import Command, Commands
from dvlae.cli.commands.arguments import (
    CORES,
    EVALUATION,
    IMAGES,
    NOISE_DIRECTIONS,
    TARGETS,
    argument,
    output,
)

COMMANDS: Commands = {
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
