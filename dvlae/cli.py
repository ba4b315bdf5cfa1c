"""The command line: one command a step, each a few lines over a function of the package.

Heavy libraries are imported inside the command that needs them, so that ``dvlae --help`` and errors come at once.
"""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from dvlae import __version__
from dvlae.system.errors import UserError

# A shell reports these for commands that Ctrl-C and SIGTERM ended.
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        The words after ``dvlae``; by default those of the process.

    Returns
    -------
    int
        Exit code: 0 done, 1 a mistake of the user or a full or unwritable disk (one line on standard error),
        130 interrupted. Wrong arguments end the process with 2; anything else is a bug and shows its traceback.
    """
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)
    try:
        arguments.run(arguments)
    except UserError as error:
        problem = str(error)
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        problem = f"{where}{error.strerror}"
    except KeyboardInterrupt:
        print(f"dvlae {arguments.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except SystemExit as end:
        if end.code == EXIT_TERMINATED:
            print(f"dvlae {arguments.command}: terminated", file=sys.stderr)
        raise
    else:
        return 0
    # Only here, where the error with all that it holds is gone: on a full disk, removed files gave their room back.
    print(f"dvlae {arguments.command}: error: {problem}", file=sys.stderr)
    return 1


def _end(signal_number, frame):
    """Leave through the ``finally`` blocks, which remove what is half-written."""
    sys.exit(EXIT_TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dvlae", description="Remove signal-dependent, row- or column-correlated noise, without any clean image."
    )
    parser.add_argument("--version", action="version", version=f"dvlae {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(run=run)
        return added

    _add_data_commands(command)
    _add_diagnose_command(command)
    _add_training_commands(command)
    _add_ladder_commands(command)
    _add_generation_command(command)
    _add_evaluation_commands(command)
    _add_monitoring_commands(command)
    return parser


def _add_data_commands(command) -> None:
    dataset = {"metavar": "DATASET", "help": "a dataset's YAML file, or its settings as JSON"}
    data = {"type": Path, "required": True, "metavar": "DIR", "help": "the data folder"}

    download = command("download", _download, "Download a dataset's files, or take them from a mirror; check hashes.")
    download.add_argument("dataset", **dataset)
    download.add_argument("--data", **data)
    download.add_argument("--mirror", type=Path, metavar="DIR", help="folder to look in first (DVLAE_DATA_MIRROR wins)")
    download.add_argument("--output", type=Path, required=True, metavar="CSV", help="list of the files that are there")

    simulate = command("simulate", _simulate, "Add simulated noise to clean images.")
    simulate.add_argument("dataset", **dataset)
    simulate.add_argument("--data", **data)
    simulate.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")

    prepare = command("prepare", _prepare, "Check, crop and convert a dataset's images to one format.")
    prepare.add_argument("dataset", **dataset)
    prepare.add_argument("--data", **data)
    prepare.add_argument("--simulated", type=Path, metavar="DIR", help="what `dvlae simulate` made, if it did")
    prepare.add_argument("--output", type=Path, required=True, metavar="IMAGES", help="folder to make")

    patches = command("extract-patches", _extract_patches, "Cut training and validation patches from prepared images.")
    patches.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    patches.add_argument("patches", type=Path, metavar="PATCHES", help="folder to make")
    _add_settings(patches)


def _add_training_commands(command) -> None:
    train = command("train", _train, "Train a model on the patches of one dataset.")
    train.add_argument("patches", type=Path, metavar="PATCHES", help="folder made by `dvlae extract-patches`")
    train.add_argument("model", type=Path, metavar="MODEL", help="folder to make")
    train.add_argument(
        "--receptive-field", type=int, required=True, metavar="PIXELS", help="of the autoregressive decoder"
    )
    train.add_argument(
        "--noise-direction", choices=["x", "y", "z", "none"], required=True, help="of the noise correlation"
    )
    train.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="keeps unfinished training, so that it can be resumed"
    )
    train.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="write the history for TensorBoard, too, into the folder `tensorboard` beside the model",
    )
    _add_seed(train)
    _add_settings(train)
    _add_device(train)
    train.add_argument("--devices", type=int, metavar="N", help="GPUs of this training (default: 1)")

    predict = command("predict", _predict, "Denoise images with a trained model.")
    predict.add_argument("model", type=Path, metavar="MODEL", help="folder made by `dvlae train`")
    predict.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    predict.add_argument("--denoised", type=Path, required=True, metavar="DIR", help="folder to make")
    predict.add_argument(
        "--uncertainty", type=Path, required=True, metavar="DIR", help="folder to make: posterior standard deviation"
    )
    predict.add_argument("--samples", type=Path, metavar="DIR", help="folder to make: samples of the posterior")
    predict.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="of the finished training, not needed any more: removed"
    )
    _add_seed(predict)
    _add_settings(predict)
    _add_device(predict)
    predict.add_argument("--tile", type=_number_or_auto, metavar="PIXELS|auto", help="side of a tile")
    predict.add_argument("--batch-size", type=_number_or_auto, metavar="N|auto", help="samples drawn at a time")


def _add_ladder_commands(command) -> None:
    likelihood = command("likelihood", _likelihood, "Bound the log-likelihood of images under a trained model.")
    likelihood.add_argument("model", type=Path, metavar="MODEL", help="folder made by `dvlae train`")
    likelihood.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    likelihood.add_argument(
        "--output", type=Path, required=True, metavar="CSV", help="table to write, one row an image"
    )
    likelihood.add_argument(
        "--select",
        nargs="+",
        default=["all"],
        metavar="IMAGE",
        help="names of images, a slice such as 0:8, or a file of names (default: all)",
    )
    likelihood.add_argument(
        "--samples", type=int, default=10, metavar="K", help="of the posterior of each image (default: 10)"
    )
    _add_seed(likelihood)
    _add_device(likelihood)

    levels = command("levels", _levels, "Plot what each level of the ladder decides in one image.")
    levels.add_argument("model", type=Path, metavar="MODEL", help="folder made by `dvlae train`")
    levels.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    levels.add_argument("--image", required=True, metavar="NAME", help="the image's name in the manifest")
    levels.add_argument(
        "--output", type=Path, required=True, metavar="PNG", help="picture to make; an SVG goes beside it"
    )
    levels.add_argument(
        "--crop",
        type=_first_and_stop,
        nargs="+",
        metavar="FIRST:STOP",
        help="part that is shown, in pixels, for each axis in the order of the file, for example 100:228 50:178",
    )
    _add_seed(levels)
    _add_device(levels)


def _add_generation_command(command) -> None:
    generate = command("generate", _generate, "Sample new noise on given images, or whole images from the prior.")
    generate.add_argument("model", type=Path, metavar="MODEL", help="folder made by `dvlae train`")
    generate.add_argument("output", type=Path, metavar="OUTPUT", help="folder to make")
    generate.add_argument(
        "--kind",
        choices=["noise", "prior"],
        required=True,
        help="noise: new noise on the content of images; prior: content and noise of the model's own",
    )
    generate.add_argument("--images", type=Path, metavar="IMAGES", help="for new noise: folder made by `dvlae prepare`")
    generate.add_argument(
        "--settings",
        metavar="SETTINGS",
        help="for new noise: compare it to noisy less clean; how the clean images are fitted, as for `dvlae evaluate`",
    )
    _add_targets(generate)
    generate.add_argument(
        "--size", type=int, nargs="+", metavar="PIXELS", help="for the prior: the images' sides, [Z [Y]] X"
    )
    generate.add_argument(
        "--realisations", type=int, default=1, metavar="N", help="of each image, or from the prior (default: 1)"
    )
    _add_seed(generate)
    _add_device(generate)


def _add_diagnose_command(command) -> None:
    diagnose = command("diagnose", _diagnose, "Find the noise's direction and length, with or without clean images.")
    diagnose.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    diagnose.add_argument(
        "--output", type=Path, required=True, metavar="JSON", help="file to write; a PNG and an SVG go beside it"
    )
    diagnose.add_argument("--dataset", default="noise", metavar="NAME", help="written into both (default: noise)")
    diagnose.add_argument(
        "--noise-direction", choices=["x", "y", "z", "none"], help="warn where the noise contradicts this one"
    )
    _add_settings(diagnose)
    _add_targets(diagnose)


def _add_evaluation_commands(command) -> None:
    register = command("register", _register, "Find how the clean images lie on the noisy ones, once for all commands.")
    register.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    register.add_argument("output", type=Path, metavar="TARGETS_CSV", help="table to write, one row an image")
    _add_settings(register)

    baseline = command("baseline", _baseline, "Denoise images with a simple method, for comparison.")
    baseline.add_argument("method", metavar="METHOD", help="noisy (the image itself), gaussian or bm3d")
    baseline.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    baseline.add_argument("--denoised", type=Path, required=True, metavar="DIR", help="folder to make")
    _add_settings(baseline)
    _add_targets(baseline)

    evaluate = command("evaluate", _evaluate, "Measure PSNR and SSIM of denoised images.")
    evaluate.add_argument("images", type=Path, metavar="IMAGES", help="folder made by `dvlae prepare`")
    evaluate.add_argument("denoised", type=Path, metavar="DENOISED", help="folder of denoised images")
    evaluate.add_argument("output", type=Path, metavar="PSNR_CSV", help="table to write, one row an image")
    evaluate.add_argument("--dataset", required=True, metavar="NAME", help="written into the table")
    evaluate.add_argument("--method", required=True, metavar="NAME", help="written into the table")
    evaluate.add_argument("--receptive-field", type=int, metavar="PIXELS", help="written into the table")
    _add_seed(evaluate)
    _add_settings(evaluate)
    _add_targets(evaluate)

    tables = command("tables", _tables, "Gather the measurements of many runs into tables.")
    tables.add_argument(
        "measurements", type=Path, nargs="+", metavar="PSNR_CSV", help="tables made by `dvlae evaluate`"
    )
    tables.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the tables")

    figures = command("figures", _figures, "Plot what was measured: panels, training curves, noise, ablation.")
    figures.add_argument(
        "measurements",
        type=Path,
        nargs="+",
        metavar="PSNR_CSV",
        help="tables made by `dvlae evaluate`, where it made them",
    )
    figures.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    figures.add_argument(
        "--images",
        type=_named_folder,
        nargs="+",
        required=True,
        metavar="DATASET=IMAGES",
        help="folders made by `dvlae prepare`",
    )
    figures.add_argument(
        "--settings",
        metavar="SETTINGS",
        help="how each dataset is evaluated: YAML or JSON file, or JSON (default: the defaults)",
    )
    figures.add_argument(
        "--noise",
        type=_named_folder,
        nargs="+",
        default=[],
        metavar="DATASET=JSON",
        help="what `dvlae diagnose` found: the correlation length is marked (default: unmarked)",
    )
    figures.add_argument(
        "--targets",
        type=_named_folder,
        nargs="+",
        default=[],
        metavar="DATASET=CSV",
        help="tables made by `dvlae register` (default: clean images are registered anew)",
    )


def _add_monitoring_commands(command) -> None:
    configuration = {
        "type": Path,
        "nargs": "+",
        "default": [],
        "metavar": "FILE",
        "help": "configuration, as for snakemake: laid over config/config.yaml",
    }
    status = command("status", _status, "Show how far a grid is: finished, running, failed, waiting, time left.")
    status.add_argument("--configfile", **configuration)

    clean = command("clean", _clean, "Show what takes the disk space, and remove what can be made again.")
    clean.add_argument("--configfile", **configuration)
    clean.add_argument("--remove", action="store_true", help="remove it; without this word nothing is touched")
    clean.add_argument(
        "--patches",
        action="store_true",
        help="also patches whose trainings are all finished; a training that is added later needs them again, and then "
        "all trainings of the dataset run again",
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="random seed (default: 0)")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", metavar="SETTINGS", help="YAML or JSON file, or JSON (default: the defaults)")


def _add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets",
        type=Path,
        metavar="CSV",
        help="table made by `dvlae register` (default: clean images are registered anew)",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], help="instead of the one in the settings")


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a whole number from 0 to 2^32 - 1")
    return int(text)


def _named_folder(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not (name and found and folder):
        raise argparse.ArgumentTypeError(f"found {text!r}, right: DATASET=IMAGES")
    return name, Path(folder)


def _number_or_auto(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _first_and_stop(text: str) -> tuple[int, int]:
    first, _, stop = text.partition(":")
    return int(first), int(stop)


def _dataset(text: str):
    from dvlae.config.dataset import DatasetSettings
    from dvlae.config.loading import load_dataset, load_settings

    if text.lstrip().startswith("{"):
        return load_settings(DatasetSettings, text)
    return load_dataset(text)[1]


def _changed(settings, **values):
    """Return the settings with those values that were given, checked like the settings themselves."""
    from dvlae.config.messages import validate

    given = {key: value for key, value in values.items() if value is not None}
    return validate(type(settings), settings.model_dump() | given, "command line")


def _download(arguments: argparse.Namespace) -> None:
    from dvlae.data.download import download

    download(_dataset(arguments.dataset), arguments.data, arguments.mirror, arguments.output)


def _simulate(arguments: argparse.Namespace) -> None:
    from dvlae.data.simulate import simulate

    simulate(_dataset(arguments.dataset), arguments.data, arguments.output)


def _prepare(arguments: argparse.Namespace) -> None:
    from dvlae.data.prepare import prepare

    prepare(_dataset(arguments.dataset), arguments.data, arguments.simulated, arguments.output)


def _extract_patches(arguments: argparse.Namespace) -> None:
    from dvlae.config.loading import load_settings
    from dvlae.config.settings import PatchSettings
    from dvlae.data.patches import extract_patches

    extract_patches(arguments.images, arguments.patches, load_settings(PatchSettings, arguments.settings))


def _train(arguments: argparse.Namespace) -> None:
    from dvlae.config.loading import load_settings
    from dvlae.config.settings import TrainSettings

    settings = load_settings(TrainSettings, arguments.settings)
    settings = _changed(settings, device=arguments.device, devices=arguments.devices)

    from dvlae.training.train import train

    train(
        arguments.patches,
        arguments.model,
        receptive_field=arguments.receptive_field,
        noise_direction=arguments.noise_direction,
        seed=arguments.seed,
        checkpoints=arguments.checkpoints,
        settings=settings,
        tensorboard=arguments.model.with_name("tensorboard") if arguments.tensorboard else None,
    )


def _predict(arguments: argparse.Namespace) -> None:
    from dvlae.config.loading import load_settings
    from dvlae.config.settings import PredictSettings

    settings = load_settings(PredictSettings, arguments.settings)
    how = _changed(settings.prediction, tile=arguments.tile, batch_size=arguments.batch_size)
    settings = _changed(settings, prediction=how.model_dump(), device=arguments.device)

    from dvlae.inference.prediction import predict

    predict(
        arguments.model,
        arguments.images,
        arguments.denoised,
        arguments.uncertainty,
        arguments.samples,
        seed=arguments.seed,
        settings=settings,
    )
    if arguments.checkpoints is not None:
        shutil.rmtree(arguments.checkpoints, ignore_errors=True)


def _selection(words: list[str]) -> str | list[str]:
    """Return what `select` takes: all, a slice or a file of names where there is one such word, else names."""
    from dvlae.config.fields import is_file_of_names

    one = len(words) == 1 and (not is_file_of_names(words[0]) or Path(words[0]).is_file())
    return words[0] if one else words


def _likelihood(arguments: argparse.Namespace) -> None:
    from dvlae.inference.log_likelihood import likelihood

    likelihood(
        arguments.model,
        arguments.images,
        arguments.output,
        selection=_selection(arguments.select),
        samples=arguments.samples,
        seed=arguments.seed,
        device=arguments.device or "auto",
    )


def _levels(arguments: argparse.Namespace) -> None:
    from dvlae.reporting.levels import make_levels_figure

    make_levels_figure(
        arguments.model,
        arguments.images,
        arguments.output,
        image=arguments.image,
        crop=arguments.crop,
        seed=arguments.seed,
        device=arguments.device or "auto",
    )


def _generate(arguments: argparse.Namespace) -> None:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.config.loading import load_settings

    _check_generate(arguments)
    settings = None if arguments.settings is None else load_settings(EvaluationSettings, arguments.settings)
    common = {"realisations": arguments.realisations, "seed": arguments.seed, "device": arguments.device or "auto"}
    if arguments.kind == "noise":
        from dvlae.reporting.generation import generate_noise

        generate_noise(
            arguments.model,
            arguments.images,
            arguments.output,
            settings=settings,
            targets=arguments.targets,
            **common,
        )
    else:
        from dvlae.reporting.generation import generate_from_prior

        generate_from_prior(arguments.model, arguments.output, size=tuple(arguments.size), **common)


def _check_generate(arguments: argparse.Namespace) -> None:
    """Refuse options that are missing, or that the other kind has."""
    kinds = {"noise": ("images", ["size"]), "prior": ("size", ["images", "settings", "targets"])}
    needed, others = kinds[arguments.kind]
    if getattr(arguments, needed) is None:
        raise UserError(f"--{needed}: found none, but --kind {arguments.kind} needs it")
    for name in others:
        if (found := getattr(arguments, name)) is not None:
            raise UserError(f"--{name}: found {found}, but --kind {arguments.kind} has no use for it")
    if arguments.targets is not None and arguments.settings is None:
        raise UserError(f"--targets: found {arguments.targets}, but without --settings there is no use for it")
    for name, numbers in (("realisations", [arguments.realisations]), ("size", arguments.size or [])):
        if any(number < 1 for number in numbers):
            raise UserError(f"--{name}: found {min(numbers)}, allowed: 1 or more")


def _diagnose(arguments: argparse.Namespace) -> None:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.config.loading import load_settings
    from dvlae.reporting.diagnosis import diagnose

    diagnose(
        arguments.images,
        arguments.output,
        dataset=arguments.dataset,
        noise_direction=arguments.noise_direction,
        settings=load_settings(EvaluationSettings, arguments.settings),
        targets=arguments.targets,
    )


def _register(arguments: argparse.Namespace) -> None:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.config.loading import load_settings
    from dvlae.evaluation.register import register

    register(arguments.images, arguments.output, settings=load_settings(EvaluationSettings, arguments.settings))


def _baseline(arguments: argparse.Namespace) -> None:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.config.loading import load_settings
    from dvlae.evaluation.baselines import run_baseline

    settings = load_settings(EvaluationSettings, arguments.settings)
    run_baseline(arguments.method, arguments.images, arguments.denoised, settings=settings, targets=arguments.targets)


def _evaluate(arguments: argparse.Namespace) -> None:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.config.loading import load_settings
    from dvlae.evaluation.evaluate import evaluate

    evaluate(
        arguments.images,
        arguments.denoised,
        arguments.output,
        dataset=arguments.dataset,
        method=arguments.method,
        receptive_field=arguments.receptive_field,
        seed=arguments.seed,
        settings=load_settings(EvaluationSettings, arguments.settings),
        targets=arguments.targets,
    )


def _tables(arguments: argparse.Namespace) -> None:
    from dvlae.reporting.tables import make_tables

    make_tables(arguments.measurements, arguments.output)


def _figures(arguments: argparse.Namespace) -> None:
    from dvlae.config.dataset import EvaluationSettings
    from dvlae.config.loading import load_settings
    from dvlae.reporting.figures import make_figures

    images = dict(arguments.images)
    settings = {name: load_settings(EvaluationSettings, arguments.settings, key=name) for name in images}
    make_figures(
        arguments.measurements,
        arguments.output,
        images=images,
        settings=settings,
        noise=dict(arguments.noise),
        targets=dict(arguments.targets),
    )


def _status(arguments: argparse.Namespace) -> None:
    from dvlae.config.loading import load_configuration
    from dvlae.runs.status import print_status

    print_status(load_configuration(arguments.configfile))


def _clean(arguments: argparse.Namespace) -> None:
    from dvlae.config.loading import load_configuration
    from dvlae.runs.disk_space import clean

    clean(load_configuration(arguments.configfile), remove=arguments.remove, patches=arguments.patches)
