# The validated configuration, and the functions that the rules use. There are no rules here.
import json
import os
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from snakemake.utils import update_config

# If the package is not installed, for example where this workflow is only linted, its sources are imported from this
# repository. A folder that only has the same name is found as a package without an origin.
if (found := find_spec("dvlae")) is None or found.origin is None:
    sys.path.insert(0, str(Path(workflow.current_basedir).parents[1]))

from dvlae import revision
from dvlae.config import report_names
from dvlae.config.fields import MIRROR_VARIABLE, is_file_of_names
from dvlae.config.grid import Method, check_models, list_methods, resolve_grid
from dvlae.config.loading import check_one_list, load_datasets
from dvlae.config.training import training_memory
from dvlae.config.messages import validate
from dvlae.config.methods import load_method
from dvlae.config.settings import PatchSettings, PredictSettings, Settings, TrainSettings
from dvlae.config.sizes.patch_size import largest_crop
from dvlae.config.yaml_files import typed
from dvlae.system.errors import UserError
from dvlae.system.hardware import machine
from dvlae.system.hardware.gpus import count_gpus
from dvlae.system.hashes import sha256

# The user's own environment variable overrides the configuration.
# With this the rules find `dvlae` in the environment of snakemake, even if it was not activated.
os.environ.update(PATH=os.pathsep.join([*os.get_exec_path(), str(Path(sys.executable).parent)]))
# If a step fails, its exit status and the last line of its log are written next to the log, for `dvlae status`. Warnings
# are shown on the screen as well as in the log. The first command is Snakemake's own prefix, which this one replaces.
shell.prefix(
    "set -euo pipefail; "
    "exec 3>&2; export DVLAE_SCREEN=3; "
    'failed() {{ local status=$?; echo "$status $(tail -n 1 "$1")" > "$1.failed"; exit $status; }}; '
)


def checked(function, *arguments):
    """Call a function of dvlae.config; end the program with one line if the configuration is wrong."""
    try:
        return function(*arguments)
    except UserError as error:
        sys.exit(str(error))


def configuration_files() -> list[str]:
    """Return the configuration files, each of which overrides the ones before it."""
    laid_over = [str(file) for file in workflow.overwrite_configfiles]
    return [str(file) for file in workflow.configfiles if str(file) not in laid_over] + laid_over


def check_writable(folder: str):
    """Refuse a results folder that cannot be created or written to."""
    there = next(path for path in [Path(folder), *Path(folder).absolute().parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"results: found {folder!r}, but {there} is no folder that can be written to")


GIVEN = typed(dict(workflow.config_settings.config))
update_config(config, GIVEN)
SETTINGS = checked(validate, Settings, dict(config), configuration_files(), (), GIVEN)
checked(check_one_list, configuration_files(), GIVEN)
checked(check_writable, SETTINGS.results)
DATASETS = checked(load_datasets, SETTINGS.datasets)
for dataset in DATASETS.values():
    if dataset.dimensions is not None:
        checked(largest_crop, SETTINGS.training.patch_size, dataset.dimensions, SETTINGS.model.stride)
checked(check_models, SETTINGS, DATASETS)
checked(list_methods, SETTINGS)
GRID = resolve_grid(SETTINGS, DATASETS)
METHODS = {(cell.dataset, cell.method.name): cell.method for cell in GRID}
TRAININGS = sum(cell.method.learns for cell in GRID)


def option(name: str, value) -> list[str]:
    """Return a command line option, or nothing if it has no value."""
    return [] if value is None else [name, str(value)]


config.update(SETTINGS.model_dump(mode="json"))
if SETTINGS.data_mirror is not None and not os.environ.get(MIRROR_VARIABLE):
    # The mirror is not in the params of a rule, so that a change of it reruns nothing.
    os.environ[MIRROR_VARIABLE] = SETTINGS.data_mirror
# Whether jobs exchange files through a storage, and not through a common file system.
STORAGE = workflow.storage_settings.default_storage_provider is not None
# The number of jobs that share the images of a dataset. If there are several, each writes into a folder of its own in the
# folder of the run, and a rule `gather_...` joins the results.
JOBS = SETTINGS.prediction.jobs
# The number of GPUs for a job that computes on one device.
GPUS = 0 if SETTINGS.device == "cpu" else 1
# Whether this process runs all jobs on its own machine: only schedulers of clusters are given a number of jobs.
ONE_MACHINE = workflow.resource_settings.nodes is None and not workflow.remote_exec
# As many jobs at a time as this machine has GPUs, and as fit into its free memory. Where it has no GPU, only the cores and
# the memory limit them: to Snakemake, a limit of 0 is no limit. A job that asks for more than a limit is given the limit.
# On a cluster that would cut down its jobs to this machine.
FOUND_GPUS = count_gpus() if ONE_MACHINE and GPUS else 0
if FOUND_GPUS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", FOUND_GPUS)
if ONE_MACHINE and not any(name in workflow.global_resources for name in ["mem", "mem_mb", "mem_mib"]):
    workflow.register_resource("mem_mb", max(1, machine.free_memory() // 10**6))


def one_of(names) -> str:
    """Return a constraint that limits a wildcard to these names; without any, nothing fits: no text is no constraint."""
    return "|".join(map(re.escape, names)) or r"[^\s\S]"


def names_of_methods(which) -> str:
    """Return a constraint that limits a wildcard to some methods."""
    return one_of(dict.fromkeys(method.name for method in METHODS.values() if which(method)))


def divided(method) -> bool:
    """Return whether several jobs share the images of a method: it chooses the same parameters in all of them."""
    return JOBS > 1 and has_file(method) and method.file.function is not None and not method.file.trains


# Inputs of the rules --------------------------------------------------------------------------------------------------
#
# Images and files of names are `local`. If jobs exchange files through a storage, these are not copied to it, and a step
# that reads them runs on the machine of snakemake.


def downloaded_datasets() -> list[str]:
    """Return the names of the datasets that have to be downloaded."""
    return [name for name, dataset in DATASETS.items() if dataset.source.kind == "download"]


def recorded_files(wildcards) -> dict:
    """Return the list of what was downloaded, or the user's own files."""
    dataset = DATASETS[wildcards.dataset]
    if dataset.source.kind == "download":
        return {"files": rules.download.output.files}
    if dataset.source.kind == "files":
        return {"files": [local(file) for file in own_files(wildcards.dataset) if "{" not in file]}
    return {}


@cache
def own_files(name: str) -> list[str]:
    """Return the user's own files that `dvlae prepare` reads; none if it will refuse the settings that name them."""
    # Only this needs the packages that read images, so that the workflow can be linted without them.
    from dvlae.data.prepare import list_files

    try:
        return [str(file) for file in list_files(DATASETS[name], Path(SETTINGS.data))]
    except UserError:
        # The images may lie on a disk that is not there now; only the step that reads them needs them.
        return []


def unwatched_files(wildcards) -> list[str]:
    """Return the user's own files that cannot be inputs, with their times of change.

    Snakemake would read a brace in a name as a wildcard.
    """
    if DATASETS[wildcards.dataset].source.kind != "files":
        return []
    return [f"{file} {os.stat(file).st_mtime_ns}" for file in own_files(wildcards.dataset) if "{" in file]


def files_to_prepare(wildcards) -> dict:
    """Return the simulated images of a dataset with simulated noise, otherwise its files."""
    if DATASETS[wildcards.dataset].simulate is not None:
        return {"simulated": rules.simulate.output.images}
    return recorded_files(wildcards)


def names_file(step: str):
    """Return an input function for the file, if any, that names the images of ``training`` or ``evaluation``."""

    def file(wildcards):
        images = getattr(DATASETS[wildcards.dataset], step).images
        return local(images) if is_file_of_names(images) else []

    return file


def trained(method) -> bool:
    """Return whether a method trains a model."""
    return method.trained


def has_model(method) -> bool:
    """Return whether a model denoises."""
    return method.has_model


def has_file(method) -> bool:
    """Return whether a method is run as its file says, without a model of our own network."""
    return not method.has_model


def searched(method) -> bool:
    """Return whether settings of a method are searched."""
    return has_file(method) and bool(method.file.candidates)


def has_code(method) -> bool:
    """Return whether files are downloaded for a method."""
    return has_file(method) and method.file.files is not None


def method_of(wildcards) -> Method:
    """Return the method of a run, or of all runs with this name."""
    return next(
        method
        for (dataset, name), method in METHODS.items()
        if name == wildcards.method and dataset == wildcards.get("dataset", dataset)
    )


def suggested_field(wildcards) -> dict:
    """Return the diagnosis of the noise, if it suggests the receptive field of a method."""
    if method_of(wildcards).receptive_field != "auto":
        return {}
    return {"noise": ancient(rules.diagnose.output.found.apply_wildcards({"dataset": wildcards.dataset}))}


def method_folder(method) -> Path:
    """Return the folder of a method file."""
    return load_method(method.given)[2].parent


def requirements(method) -> Path:
    """Return the requirements file of a method."""
    return method_folder(method) / method.file.environment


def environment_name(file: Path) -> str:
    """Return the name of the environment with these requirements, which methods share, and which changes with them."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{file.absolute().parent.name}-python{python}-{sha256(file)[:12]}"


# The requirements file of each environment.
ENVIRONMENTS = {
    environment_name(requirements(method)): requirements(method)
    for method in METHODS.values()
    if has_file(method) and method.file.environment is not None
}


def method_inputs(wildcards) -> dict:
    """Return what a method needs besides images: its environment and its files."""
    method, files = method_of(wildcards), {}
    if method.file.device == "cuda" and SETTINGS.device == "cpu":
        return files  # The row says that it is run on a GPU only.
    if method.file.environment is not None:
        name = environment_name(requirements(method))
        files["environment"] = rules.make_environment.output.record.apply_wildcards({"environment": name})
    if method.file.files is not None:
        files["code"] = rules.download_code.output.record.apply_wildcards({"method": method.name})
    return files


def found_settings(wildcards) -> dict:
    """Return the result of the search for the settings of a method, if there is one."""
    found = rules.search_method.output.found
    return {"search": found.apply_wildcards(dict(wildcards))} if searched(method_of(wildcards)) else {}


def method_options(wildcards, input) -> list[str]:
    """Return the options for what a method needs. They depend on `input`, so they are not compared with earlier ones."""
    names = ("search", "environment", "code")
    return [word for name in names if input.get(name) for word in option(f"--{name}", input.get(name))]


def method_minutes(wildcards) -> list[str]:
    """Return the option for the time of a method that trains: that of every training."""
    return option("--minutes", SETTINGS.training.max_minutes) if method_of(wildcards).learns else []


def method_record(wildcards) -> list[str]:
    """Return the record of a method with a file, which says whether there are estimates."""
    method = method_of(wildcards)
    return [] if method.has_model else ["<results>/{dataset}/{method}/seed{seed}/method.json"]


def model_files(folder: str) -> list[str]:
    """Return the files of a model that exists."""
    return [local(f"{folder}/{name}") for name in ("model.json", "weights.safetensors")]


def start_model() -> dict:
    """Return the files of the model that trainings begin with, if there is one."""
    return {} if SETTINGS.start_from is None else {"start": model_files(SETTINGS.start_from)}


def model_to_use(wildcards) -> str | list[str]:
    """Return the folder of the model that a method trains, or the files of the one that it is given."""
    model = method_of(wildcards).model
    return rules.train.output.model.apply_wildcards(dict(wildcards)) if model is None else model_files(model)


def all_runs(pattern, which=lambda method: True) -> list:
    """Fill in dataset, method and seed of the runs of all methods, or of some, in an output of a rule.

    `expand` does not accept paths in a storage.
    """
    return [
        pattern.apply_wildcards({"dataset": name, "method": method.name, "seed": seed})
        for name, method, seed in GRID
        if which(method)
    ]


def in_part(path: str) -> str:
    """Return the path of a file of a run or, if several jobs share the images, of the same file of one part."""
    return path if JOBS == 1 else path.replace("seed{seed}", "seed{seed}/parts/{scatteritem}")


def part_output(path: str, *flags):
    """Return an output of a step that several jobs may share. Their parts are removed when they are joined."""
    output = in_part(path)
    for flag in flags if JOBS == 1 else [*flags, temp]:
        output = flag(output)
    return output


def part_inputs(path: str) -> list[str]:
    """Return the same file of all parts, in order."""
    return gather.images(in_part(path), allow_missing=True)


def part_option(wildcards, output) -> list[str]:
    """Return the option that limits a job to its part.

    Because it depends on `output`, Snakemake does not compare it with that of earlier results.
    """
    return option("--part", wildcards.get("scatteritem"))


def part_folders(wildcards, input) -> list[str]:
    """Return the folders of all parts, in order."""
    return [str(Path(record).parent) for record in input.records]


def all_datasets(patterns) -> list:
    """Fill in every dataset."""
    return [pattern.apply_wildcards({"dataset": name}) for pattern in patterns for name in DATASETS]


FIGURES = report_names.figures(report_names.planned_contents(SETTINGS, DATASETS))


def reported(path: str, kind: str, category: str, title: str):
    """Return an output that is shown in the report, under a title and with the caption of its kind.

    There is a single label. Snakemake would make a switch of a second one with two values, and an entry without a
    counterpart would then empty the page.
    """
    return report(path, category=category, caption=f"../report/{kind}.rst", labels={"what": title})


def reported_figures(kind: str, category: str, title: str) -> list:
    """Return the figures of one kind, which are all shown in the report."""
    return [
        reported(
            f"<results>/figures/{figure.name}.png", kind, category, f"{title} ({figure.dataset or 'all datasets'})"
        )
        for figure in FIGURES
        if figure.kind == kind
    ]


# The settings that a step depends on, as JSON; it runs again when they change -----------------------------------------


@cache
def dataset_settings(name: str, *left_out: str) -> str:
    """Return the settings of a dataset without those of later steps and those named."""
    return DATASETS[name].model_dump_json(
        exclude={"title", "license", "citation", "published", "size", "sweep", "training", "evaluation", *left_out}
    )


def download_settings(wildcards) -> str:
    """Return the settings for `dvlae download`, which exclude how the images are processed."""
    return dataset_settings(wildcards.dataset, "clean", "simulate", "channel", "crop")


def image_settings(wildcards) -> str:
    """Return the settings for `dvlae simulate` and `dvlae prepare`."""
    return dataset_settings(wildcards.dataset)


def patch_settings(wildcards) -> str:
    """Return the settings for `dvlae extract-patches`."""
    return PatchSettings.of(SETTINGS, DATASETS[wildcards.dataset]).identity_json()


def training_settings(wildcards) -> str:
    """Return the settings for `dvlae train`."""
    return TrainSettings.of(method_of(wildcards).configure(SETTINGS)).identity_json()


def prediction_settings(wildcards) -> str:
    """Return the settings for `dvlae predict`."""
    return PredictSettings.of(method_of(wildcards).configure(SETTINGS)).identity_json()


def sample_folder(folder) -> dict:
    """Return the folder of posterior samples as an output or an input, if samples are saved."""
    return {"samples": folder} if SETTINGS.prediction.save_samples else {}


def saved_samples() -> list:
    """Return the folders of posterior samples of all trained methods, if samples are saved.

    Snakemake knows nothing of an output that was not asked for before, and would not run `predict` again for it.
    """
    return all_runs(PREDICTED.samples, has_model) if SETTINGS.prediction.save_samples else []


def evaluation_settings(wildcards) -> str:
    """Return the settings for the commands that compare with clean images."""
    return DATASETS[wildcards.dataset].evaluation.model_dump_json()


def published_results() -> str:
    """Return the settings for `dvlae tables`: what others measured on each dataset."""
    return json.dumps(
        {name: dataset.model_dump(mode="json", include={"published"}) for name, dataset in DATASETS.items()}
    )


def figure_settings() -> str:
    """Return the settings for `dvlae figures`: how each dataset is evaluated."""
    return json.dumps({name: dataset.evaluation.model_dump(mode="json") for name, dataset in DATASETS.items()})


def share_of_cores(jobs: int, most: int, on_cluster: int) -> int:
    """Return the threads of one of some jobs, which share the cores of this machine or have those of a cluster's node.

    All jobs of the grid count, whether they are still to be run or not, so that the number does not depend on that.
    """
    if not ONE_MACHINE:
        return min(on_cluster, most)
    return machine.share_of_cores(workflow.resource_settings.cores or 1, jobs, most)


def at_once(jobs: int) -> int:
    """Return how many of some jobs that compute on a device run at once: as many as there are GPUs, if there are any."""
    if GPUS and "gpu" in workflow.global_resources:
        return min(jobs, workflow.global_resources["gpu"].value or jobs)
    return jobs


def training_threads(wildcards) -> int:
    """Return the threads of a training: the fixed number of workers, or its share of the cores, at most the crops."""
    if SETTINGS.training.workers != "auto":
        return SETTINGS.training.workers
    return share_of_cores(at_once(TRAININGS), SETTINGS.training.batch_size, on_cluster=4)


def prediction_threads(wildcards) -> int:
    """Return the threads of a prediction: its share of the cores."""
    return share_of_cores(at_once(JOBS * TRAININGS), sys.maxsize, on_cluster=4)


def registration_threads(wildcards) -> int:
    """Return the threads of the registration of a dataset: its share of the cores."""
    return share_of_cores(len(DATASETS), sys.maxsize, on_cluster=1)


def method_threads(wildcards) -> int:
    """Return the threads of a method with a file: those of a training if it trains, or its share of the cores."""
    if method_of(wildcards).learns:
        return training_threads(wildcards)
    return share_of_cores(JOBS * (len(GRID) - TRAININGS), sys.maxsize, on_cluster=1)


def evaluation_threads(wildcards) -> int:
    """Return the threads of an evaluation: its share of the cores."""
    return share_of_cores(JOBS * len(GRID), sys.maxsize, on_cluster=1)


# What a job with a GPU asks for, and on a cluster a prediction, in MB.
MEMORY_OF_JOB = 8000
# A prediction on one machine takes fewer workers where they would not fit.
MEMORY_OF_PREDICTION = 2000


def dimensions_of(name: str) -> int:
    """Return the number of spatial axes of a dataset. Where only the files say it, it is a guess until they are read."""
    patch_size, images = SETTINGS.training.patch_size, Path(SETTINGS.results) / name / "images"
    if DATASETS[name].dimensions is not None:
        return DATASETS[name].dimensions
    if (images / "manifest.csv").exists():
        from dvlae.data.manifest import read_manifest

        return len(read_manifest(images)[0].shape) - 1
    return len(patch_size) if isinstance(patch_size, list) else 2


def training_memory_mb(wildcards, attempt, threads) -> int:
    """Return the memory to request for a training, in MB. The next attempt requests more."""
    if GPUS and (FOUND_GPUS or not ONE_MACHINE):
        return attempt * MEMORY_OF_JOB
    dimensions = dimensions_of(wildcards.dataset)
    settings = method_of(wildcards).configure(SETTINGS)
    return attempt * (training_memory(settings.model, settings.training, dimensions, threads) // 10**6 + 1)


def method_memory_mb(wildcards, attempt) -> int:
    """Return the memory to request for a method with a file, in MB. What trains nothing needs little."""
    return prediction_memory_mb(wildcards, attempt) if method_of(wildcards).learns else 0


def method_gpus(wildcards) -> int:
    """Return the GPUs of a method with a file: those of a prediction if it trains or needs one."""
    method = method_of(wildcards)
    return GPUS if method.learns or method.file.device == "cuda" else 0


def method_runtime(wildcards, attempt) -> int:
    """Return the minutes to request from a cluster for a method with a file."""
    return training_runtime(wildcards, attempt) + int(method_of(wildcards).file.prediction_minutes)


def prediction_memory_mb(wildcards, attempt) -> int:
    """Return the memory to request for a prediction, in MB. The next attempt requests more."""
    return attempt * (MEMORY_OF_PREDICTION if ONE_MACHINE and not FOUND_GPUS else MEMORY_OF_JOB)


def training_runtime(wildcards, attempt) -> int:
    """Return the minutes to request from a cluster. An interrupted training continues in the next attempt, with more."""
    minutes = SETTINGS.training.max_minutes
    return attempt * (720 if minutes is None else int(1.2 * minutes) + 20)
