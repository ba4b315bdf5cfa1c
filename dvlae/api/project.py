"""The files with which the workflow denoises a user's own images."""

import re
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml

from dvlae.api.choices import choose_prediction
from dvlae.api.inputs import choose_dataset, find_inputs
from dvlae.api.notes import options_named
from dvlae.api.options import Wishes
from dvlae.api.plan import ENOUGH_STEPS
from dvlae.api.session import Session
from dvlae.axes import format_sides
from dvlae.config.fields import StrictModel, expand_home
from dvlae.config.loading import RESERVED_NAMES
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder
from dvlae.system.software import workflow_file

PROFILE = "workflow/profiles/default/profile.yaml"
# Longer lists of shapes are cut.
MOST_LISTED = 3
# Wider than any line.
MAX_WIDTH = 10**6

SNAKEFILE = """\
# The workflow that is installed with the package dvlae. Rules of your own may follow.
from dvlae.system.software import workflow_file


include: workflow_file()


rule everything:
    default_target: True
    input:
        rules.all.input,
"""
DATASET = """\
# The images, and how they are read. Every key: config/README.md of dvlae
source: {{kind: files}}
noisy: {noisy}
clean: null    # clean images in the same order; `mean`: that of all noisy frames; null: none, and hence no PSNR
axes: {axes}    # {shapes}
{more}noise_direction: {direction}    # {reason}
"""
# Keys that are written where they differ from the default.
MORE = {
    "axes_override": "even where a file says otherwise; `axes: auto` follows the file",
    "channel": "`null` keeps all channels",
    "series": "`all` takes all series of images in a file",
}
CONFIGURATION = """\
# What is done with the images. Every key: config/README.md of dvlae
#   snakemake --cores all --dry-run    what would be done
#   snakemake --cores all              do it; after an interruption, the same command goes on
#   dvlae status                       how far it is
datasets: [{name}]
receptive_fields: [{field}]    # {reason}; several numbers compare them
seeds: [0]    # several numbers repeat each training
baselines: [noisy, gaussian]    # methods to compare with
results: results/{name}
model: {model}    # on a machine that takes fewer than {enough} steps in this time, 16 channels are better
training: {training}    # max_minutes: the longer, the better
prediction: {prediction}    # more samples take longer and are a little better
"""


@options_named("init")
def make_project(
    files: Sequence[str],
    output: Path | None = None,
    *,
    noise_direction: str = "auto",
    receptive_field: int | str = "auto",
    minutes: float | None = None,
    axes: str = "auto",
    override_axes: bool = False,
    channel: int | Literal["grey"] | None = None,
    series: int | str = "auto",
    device: str = "auto",
) -> str:
    """Write the files with which the workflow denoises images: of the dataset, of the configuration, and a Snakefile.

    Parameters
    ----------
    files
        Files, globs or folders, as for the key ``noisy`` of a dataset.
    output
        The folder to make; None: in the working folder, with the name of the images.
    noise_direction
        An axis, ``none`` or ``auto``, for what is measured.
    receptive_field
        A number of pixels, or ``auto``.
    minutes
        Time for a training; None: as `dvlae denoise` takes.
    axes, override_axes, channel, series
        How the files are read, as `dvlae denoise` takes it.
    device
        Where to compute.

    Returns
    -------
    str
        What to do next.

    Raises
    ------
    UserError
        If the folder exists, or the images cannot be read.
    """
    noisy = [str(expand_home(file).absolute()) for file in files]
    name = _dataset_name(Path(noisy[0]))
    output = Path(name) if output is None else output
    if output.exists():
        raise UserError(f"{output}: exists already, allowed: the name of a new folder (--output)")
    inputs, results = find_inputs(noisy, "init")
    if results:
        noisy = [str(file) for file in inputs]
    dataset = choose_dataset(
        inputs,
        "init",
        axes=axes,
        override_axes=override_axes,
        channel=channel,
        series=series,
        noise_direction=noise_direction,
        together=noise_direction == "z",
        noisy=noisy,
    )
    with TemporaryDirectory(prefix="dvlae-") as folder:
        time = Wishes.minutes if minutes is None else minutes
        wishes = Wishes(noise_direction, receptive_field, time, device=device)
        session = Session(Path(folder), dataset, Path(), wishes)
        session.prepare()
        direction, field = session.chosen_noise
        found = session.diagnose()
        shapes = sorted({image.shape for image in session.manifest()})
        settings = session.trainings(shapes)[0]
        denoiser = settings.model.direct_denoiser or None
        prediction = choose_prediction(None, settings.device, trained=True, denoiser=denoiser).prediction
    if noise_direction == "auto":
        reason = "measured" if found["direction"] else f"assumed, as it cannot be told: {found['reason']}"
    else:
        reason = "chosen"
    sizes = ", ".join(f"{format_sides(shape[1:])} pixels, channels: {shape[0]}" for shape in shapes[:MOST_LISTED])
    snakefile = workflow_file()
    more = dataset.model_dump(include=set(MORE), exclude_defaults=True)
    texts = {
        "workflow/Snakefile": SNAKEFILE,
        PROFILE: (snakefile.parents[1] / PROFILE).read_text(encoding="utf-8"),
        f"config/datasets/{name}.yaml": DATASET.format(
            noisy=_yaml(noisy if len(noisy) > 1 else noisy[0]),
            axes=dataset.axes,
            more="".join(f"{key}: {_yaml(value)}    # {MORE[key]}\n" for key, value in more.items()),
            shapes=sizes,
            direction=direction,
            reason=reason,
        ),
        "config/config.yaml": CONFIGURATION.format(
            name=name,
            field=field,
            reason=reason,
            enough=ENOUGH_STEPS,
            model=_yaml(_stated(settings.model, {"levels", "channels", "latent_channels"})),
            training=_yaml(_stated(settings.training, {"batch_size", "learning_rate", "max_minutes"})),
            prediction=_yaml(_stated(prediction, {"samples"})),
        ),
    }
    with atomic_folder(output, {}) as made:
        for path, text in texts.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, encoding="utf-8", newline="\n")
    install = "" if find_spec("snakemake") else "pip install 'snakemake>=9.19' && "
    return (
        f"made {output}, with the settings in {output / 'config/config.yaml'}\n"
        f"next: {install}cd {shlex.quote(str(output))} && snakemake --cores all"
    )


def _dataset_name(path: Path) -> str:
    """Return a name for a dataset of this file, folder or glob."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.name.partition(".")[0]).strip("_.-")
    return name if name and name not in RESERVED_NAMES else "images"


def _stated(block: StrictModel, always: set[str]) -> dict[str, Any]:
    """Return the keys of a block that differ from the defaults, and some that a user may want to change."""
    return block.model_dump(include=always) | block.model_dump(exclude_defaults=True)


def _yaml(value: Any) -> str:
    """Return a value in one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=MAX_WIDTH).strip()[1:-1]
