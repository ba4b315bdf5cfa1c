"""Functions of the commands whose arguments differ from the parameters of the function that computes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvlae.config.dataset import EvaluationSettings, PublishedSettings
from dvlae.config.loading import load_blocks, load_configuration, load_step
from dvlae.system.errors import UserError
from dvlae.system.files import check_folder, remove_files


def check_counts(option: str, *numbers: int) -> None:
    """Refuse numbers below 1.

    Parameters
    ----------
    option
        The option, for the message.
    *numbers
        Its values.

    Raises
    ------
    UserError
        If a number is below 1.
    """
    if any(number < 1 for number in numbers):
        raise UserError(f"{option}: found {min(numbers)}, allowed: 1 or more")


def choose_receptive_field(given: int | str | None, noise: Path | None) -> int | None:
    """Return a receptive field in pixels, of a number or of what a diagnosis of the noise suggests.

    Parameters
    ----------
    given
        A number, ``auto``, or None for methods without one.
    noise
        The output of ``dvlae diagnose``, which is needed for ``auto``, and only there.

    Returns
    -------
    int or None
        None if that is given.

    Raises
    ------
    UserError
        If the output is missing, or suggests nothing.
    """
    if given is None or isinstance(given, int):
        if noise is not None:
            raise UserError(f"--noise: found {str(noise)!r}, allowed only with --receptive-field auto")
        return given
    if noise is None:
        raise UserError("--receptive-field: found 'auto', allowed only with --noise, the output of dvlae diagnose")
    try:
        found = json.loads(noise.read_text(encoding="utf-8-sig"))
        field, reason = found["receptive_field"], found["reason"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{noise}: not what dvlae diagnose writes ({error!r}); run it again") from None
    if not isinstance(field, int):
        raise UserError(f"{noise}: found no receptive field ({reason}), allowed: --receptive-field with a number")
    return field


def train(*, model: Path, tensorboard: bool, receptive_field: int | str, noise: Path | None, **values: Any) -> None:
    """Call :func:`dvlae.training.train.train`.

    Parameters
    ----------
    model
        The folder to make.
    tensorboard
        Whether the history for TensorBoard is written next to the model.
    receptive_field, noise
        As for :func:`choose_receptive_field`.
    **values
        The other parameters of the function.
    """
    values["receptive_field"] = choose_receptive_field(receptive_field, noise)

    from dvlae.training.train import train

    train(model=model, tensorboard=model.with_name("tensorboard") if tensorboard else None, **values)


def evaluate(*, receptive_field: int | str | None, noise: Path | None, **values: Any) -> None:
    """Call :func:`dvlae.evaluation.evaluate.evaluate`.

    Parameters
    ----------
    receptive_field, noise
        As for :func:`choose_receptive_field`.
    **values
        The other parameters of the function.
    """
    field = choose_receptive_field(receptive_field, noise)

    from dvlae.evaluation.evaluate import evaluate

    evaluate(receptive_field=field, **values)


def predict(*, remove_checkpoints: Path | None, **values: Any) -> None:
    """Call :func:`dvlae.inference.prediction.predict`.

    Parameters
    ----------
    remove_checkpoints
        Folder of checkpoints to remove afterwards; None: none.
    **values
        The other parameters of the function.
    """
    if remove_checkpoints is not None:
        check_folder(remove_checkpoints)

    from dvlae.inference.prediction import predict
    from dvlae.training.checkpoints import CHECKPOINT_FILES

    predict(**values)
    if remove_checkpoints is not None:
        remove_files(remove_checkpoints, CHECKPOINT_FILES)


def gather(**values: Any) -> None:
    """Call :func:`dvlae.runs.gather.gather`.

    Parameters
    ----------
    **values
        The other parameters of the function.
    """
    from dvlae.data.outputs.folder import join_folders
    from dvlae.runs.gather import gather

    gather(join_folders=join_folders, **values)


def generate(*, kind: str, **values: Any) -> None:
    """Call :func:`dvlae.reporting.generation.generate_noise` or ``generate_from_prior``.

    Parameters
    ----------
    kind
        ``noise`` or ``prior``.
    **values
        The parameters of both functions; None: not given.

    Raises
    ------
    UserError
        If an option is missing, or is one of the other kind.
    """
    _check_generate(kind, values)
    if kind == "prior":
        from dvlae.reporting.generation import generate_from_prior

        generate_from_prior(size=tuple(values.pop("size")), **values)
    else:
        settings = values.pop("settings")
        settings = None if settings is None else load_step(EvaluationSettings, settings)

        from dvlae.reporting.generation import generate_noise

        generate_noise(settings=settings, **values)


def _check_generate(kind: str, values: dict[str, Any]) -> None:
    """Refuse missing options and those of the other kind; remove the latter from the values."""
    kinds = {"noise": ("images", ["size"]), "prior": ("size", ["images", "settings", "targets"])}
    needed, others = kinds[kind]
    if values[needed] is None:
        raise UserError(f"--{needed}: found none, but --kind {kind} needs it")
    for name in others:
        if (found := values.pop(name)) is not None:
            raise UserError(f"--{name}: found {found}, but --kind {kind} has no use for it")
    if values.get("targets") is not None and values["settings"] is None:
        raise UserError(f"--targets: found {values['targets']}, but without --settings there is no use for it")
    check_counts("--realisations", values["realisations"])
    check_counts("--size", *values.get("size", []))


def status(*, files: Sequence[str], given: dict[str, Any], estimate: bool, cores: int | None) -> str:
    """Call :func:`dvlae.runs.status.describe_status` and, if wanted, :func:`dvlae.api.forecast.estimate.estimate`.

    Parameters
    ----------
    files, given
        As for :func:`dvlae.config.loading.load_configuration`.
    estimate
        Whether to estimate how long the rest takes.
    cores
        The cores that the workflow will be given; None: all that are usable.

    Returns
    -------
    str
        Lines of text.

    Raises
    ------
    UserError
        If the configuration is wrong, or there are cores but nothing to estimate.
    """
    from dvlae.runs.status import describe_status

    settings = load_configuration(files, given=given)
    if not estimate:
        if cores is not None:
            raise UserError(f"--cores: found {cores}, allowed only with --estimate")
        return describe_status(settings)
    from dvlae.api.forecast.estimate import estimate as estimate_rest

    return f"{describe_status(settings)}\n\n{estimate_rest(settings, cores)}"


def clean(*, files: Sequence[str], given: dict[str, Any], **values: Any) -> str:
    """Call :func:`dvlae.runs.disk_space.clean`.

    Parameters
    ----------
    files, given
        As for :func:`dvlae.config.loading.load_configuration`.
    **values
        Its other arguments.

    Returns
    -------
    str
        Lines of text.

    Raises
    ------
    UserError
        If the configuration is wrong, or as it does.
    """
    from dvlae.runs.disk_space import clean as remove_what_can_be_made_again

    return remove_what_can_be_made_again(load_configuration(files, given=given), **values)


def tables(*, published: str | None, **values: Any) -> None:
    """Call :func:`dvlae.reporting.tables.make_tables`.

    Parameters
    ----------
    published
        A block for each dataset, with the list ``published``; None: there is none.
    **values
        The other parameters of the function.
    """
    blocks = load_blocks(PublishedSettings, published)

    from dvlae.reporting.tables import make_tables

    make_tables(published={name: block.published for name, block in blocks.items()}, **values)


def figures(*, images: dict[str, Path], settings: str | None, **values: Any) -> None:
    """Call :func:`dvlae.reporting.figures.make_figures`.

    Parameters
    ----------
    images
        Folder with ``manifest.csv`` of each dataset.
    settings
        How each dataset is evaluated; None: the defaults.
    **values
        The other parameters of the function.

    Raises
    ------
    UserError
        If an option names a dataset without images.
    """
    for option in ("noise", "targets"):
        for name in values[option]:
            if name not in images:
                raise UserError(f"--{option}: found {name!r}, allowed: the datasets of --images, {', '.join(images)}")
    each = load_blocks(EvaluationSettings, settings, images)

    from dvlae.reporting.figures import make_figures

    make_figures(images=images, settings=each, **values)
