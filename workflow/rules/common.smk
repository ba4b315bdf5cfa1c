# The configuration, checked once, and what the rules ask of it. No rule stands here, and no mathematics.
import json
import os
import re
import sys
from functools import cache
from glob import glob
from importlib.util import find_spec
from pathlib import Path

# Where the package is not installed, as where this workflow is only linted or planned, its sources are beside the rules.
# A folder that merely has its name is a package without an origin.
if (found := find_spec("dvlae")) is None or found.origin is None:
    sys.path.insert(0, str(Path(workflow.current_basedir).parents[1]))

from dvlae import revision
from dvlae.config import report_names
from dvlae.config.fields import is_file_of_names, sides
from dvlae.config.grid import resolve_grid
from dvlae.config.loading import load_dataset
from dvlae.config.messages import validate
from dvlae.config.settings import PatchSettings, PredictSettings, Settings, TrainSettings
from dvlae.system.errors import UserError

MIRROR = "DVLAE_DATA_MIRROR"  # environment variable, the user's own wins
# So that the rules find `dvlae` beside a snakemake whose environment was not activated.
os.environ.update(PATH=os.pathsep.join([*os.get_exec_path(), str(Path(sys.executable).parent)]))
# Where a step fails, its exit status and the last line of its log stand beside the log, for `dvlae status`. The first
# command is Snakemake's own prefix, which this one takes the place of.
shell.prefix(
    "set -euo pipefail; "
    'failed() {{ local status=$?; echo "$status $(tail -n 1 "$1")" > "$1.failed"; exit $status; }}; '
)


def checked(function, *arguments):
    """Call a function of dvlae.config; a mistake in the configuration ends the parsing with its one line."""
    try:
        return function(*arguments)
    except UserError as error:
        sys.exit(str(error))


def configuration_files() -> list[str]:
    """Return the configuration files, each one laid over those before it."""
    laid_over = [str(file) for file in workflow.overwrite_configfiles]
    return [str(file) for file in workflow.configfiles if str(file) not in laid_over] + laid_over


def check_writable(folder: str):
    """Refuse a results folder that cannot be made or written to."""
    there = next(path for path in [Path(folder), *Path(folder).absolute().parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"results: found {folder!r}, but {there} is no folder that can be written to")


SETTINGS = checked(validate, Settings, dict(config), configuration_files())
checked(check_writable, SETTINGS.results)
DATASETS = dict(checked(load_dataset, name) for name in SETTINGS.datasets)
for dataset in DATASETS.values():
    checked(sides, SETTINGS.training.patch_size, dataset.dimensions)
GRID = resolve_grid(SETTINGS, DATASETS)
METHODS = {cell.method.name: cell.method for cell in GRID}


def option(name: str, value) -> list[str]:
    """Return a command line option, or nothing where it has no value."""
    return [] if value is None else [name, str(value)]


config.update(SETTINGS.model_dump(mode="json"))
if SETTINGS.data_mirror is not None and not os.environ.get(MIRROR):
    os.environ[MIRROR] = SETTINGS.data_mirror  # where a file comes from is in no params, hence no reason to run again
GPUS = 0 if SETTINGS.device == "cpu" else 1  # of a job that computes on one device


def one_of(names) -> str:
    """Return the constraint of a wildcard to known names."""
    return "|".join(map(re.escape, names))


TRAINED_METHODS = one_of(name for name, method in METHODS.items() if method.trained)
BASELINES = one_of(name for name, method in METHODS.items() if not method.trained)


# What a step waits for ------------------------------------------------------------------------------------------------
#
# Images and files of names are `local`: where jobs exchange files through a storage, these are not put there, and a step
# that reads them runs where snakemake does.


def downloaded_datasets() -> list[str]:
    """Return the names of the datasets that have to be downloaded."""
    return [name for name, dataset in DATASETS.items() if dataset.source.kind == "download"]


def recorded_files(wildcards) -> dict:
    """Return the list of what was downloaded, or the user's own files."""
    dataset = DATASETS[wildcards.dataset]
    if dataset.source.kind == "download":
        return {"files": rules.download.output.files}
    if dataset.source.kind == "files":
        noisy = [dataset.noisy] if isinstance(dataset.noisy, str) else dataset.noisy
        patterns = [str(Path(SETTINGS.data) / pattern) for pattern in [*noisy, dataset.clean] if pattern]
        files = sorted(file for pattern in patterns for file in glob(pattern))
        return {"files": [local(file) for file in files if "{" not in file]}  # that would be taken for a wildcard
    return {}


def files_to_prepare(wildcards) -> dict:
    """Return the simulated images where there are some, else the files themselves."""
    if DATASETS[wildcards.dataset].simulate is not None:
        return {"simulated": rules.simulate.output.images}
    return recorded_files(wildcards)


def names_file(step: str):
    """Return an input function: the file that names the images of ``training`` or ``evaluation``, if it is a file."""

    def file(wildcards):
        images = getattr(DATASETS[wildcards.dataset], step).images
        return local(images) if is_file_of_names(images) else []

    return file


def all_runs(pattern, trained: bool | None = None) -> list:
    """Fill in dataset, method and seed of every run, of the trained ones or of the others, in an output of a rule.

    Not with `expand`, which takes no path that lies in a storage.
    """
    return [
        pattern.apply_wildcards({"dataset": name, "method": method.name, "seed": seed})
        for name, method, seed in GRID
        if trained is None or method.trained == trained
    ]


def all_datasets(patterns) -> list:
    """Fill in every dataset."""
    return [pattern.apply_wildcards({"dataset": name}) for pattern in patterns for name in DATASETS]


FIGURES = report_names.figures(report_names.planned_contents(SETTINGS, DATASETS))


def reported(path: str, kind: str, category: str, title: str):
    """Return an output that stands in the report, under a title and with the caption of its kind.

    One label alone: of a second one with two values, Snakemake makes a switch, and an entry that it has no counterpart
    for then empties the whole page.
    """
    return report(path, category=category, caption=f"../report/{kind}.rst", labels={"what": title})


def reported_figures(kind: str, category: str, title: str) -> list:
    """Return the figures of one kind, all in the report."""
    return [
        reported(
            f"<results>/figures/{figure.name}.png", kind, category, f"{title} ({figure.dataset or 'all datasets'})"
        )
        for figure in FIGURES
        if figure.kind == kind
    ]


# The settings that matter to a step, as JSON: a change of them, and of nothing else, runs it again --------------------


@cache
def dataset_settings(name: str, *left_out: str) -> str:
    """Return the settings of a dataset, less those that later steps ask for and those named."""
    return DATASETS[name].model_dump_json(exclude={"title", "license", "citation", "training", "evaluation", *left_out})


def download_settings(wildcards) -> str:
    """Return what `dvlae download` needs: not how the images are treated afterwards."""
    return dataset_settings(wildcards.dataset, "clean", "simulate", "channel", "crop")


def simulate_settings(wildcards) -> str:
    """Return what `dvlae simulate` needs."""
    return dataset_settings(wildcards.dataset)


def prepare_settings(wildcards) -> str:
    """Return what `dvlae prepare` needs."""
    return dataset_settings(wildcards.dataset)


def patch_settings(wildcards) -> str:
    """Return what `dvlae extract-patches` needs."""
    return PatchSettings.of(SETTINGS, DATASETS[wildcards.dataset]).identity_json()


def training_settings(wildcards) -> str:
    """Return what `dvlae train` needs."""
    return TrainSettings.of(SETTINGS).identity_json()


def prediction_settings(wildcards) -> str:
    """Return what `dvlae predict` needs."""
    return PredictSettings.of(SETTINGS).identity_json()


def sample_folder(pattern: str) -> dict:
    """Return the folder of posterior samples as an output of `predict`, where samples are to be written."""
    return {"samples": directory(pattern)} if SETTINGS.prediction.save_samples else {}


def evaluation_settings(wildcards) -> str:
    """Return what `dvlae baseline` and `dvlae evaluate` need."""
    return DATASETS[wildcards.dataset].evaluation.model_dump_json()


def figure_settings() -> str:
    """Return what `dvlae figures` needs: how each dataset is evaluated."""
    return json.dumps({name: dataset.evaluation.model_dump(mode="json") for name, dataset in DATASETS.items()})


def training_runtime(wildcards, attempt) -> int:
    """Return the minutes to ask a cluster for; a training that is cut short goes on in the next attempt, with more."""
    minutes = SETTINGS.training.max_minutes
    return attempt * (720 if minutes is None else int(1.2 * minutes) + 20)
