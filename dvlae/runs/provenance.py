"""The provenance of every result: the settings, versions, data and machine of each run."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dvlae.config.settings import PredictSettings, TrainSettings
from dvlae.runs.folder import Run, read_json
from dvlae.system.errors import UserError

PROVENANCE_COLUMNS = [
    "dataset", "method", "receptive_field", "seed", "psnr", "record", "settings", "prediction", "evaluation",
    "trained_on", "train_sha256", "val_sha256", "images_sha256", "targets_sha256", "versions", "git_commit", "device",
    "precision", "workers", "seconds",
]  # fmt: skip
INTEGER_COLUMNS = ("receptive_field", "workers")
# In dB. By rounding, the PSNR of a noisy image differs by less between machines.
PSNR_TOLERANCE = 0.005


def describe_run(run: Run) -> dict[str, Any]:
    """Collect the records of one run.

    Parameters
    ----------
    run
        The run.

    Returns
    -------
    dict
        The columns :data:`PROVENANCE_COLUMNS`, with ``psnr`` as the mean over images in decibels, and settings and
        versions as nested dicts; ``minutes``, ``steps``, ``epochs``, ``stopped_by``, ``attempts``, ``parameters`` and
        ``best_val_elbo`` of a training; ``oracle``, ``status`` and ``reason``. Unknown values are None.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    training, method, evaluation = run.training, run.method_record, run.evaluation
    how = training or method or run.prediction
    steps = training if training else method.get("chosen", {})
    hashes = training.get("patches", {})
    return {
        **run.psnr.iloc[0][["dataset", "method", "receptive_field", "seed"]],
        **{name: training.get(name) for name in ("epochs", "stopped_by", "attempts", "parameters")},
        "steps": steps.get("steps"),
        **{name: how.get(name) for name in ("versions", "git_commit", "device", "precision", "workers", "seconds")},
        "best_val_elbo": training.get("best_val_elbo"),
        "minutes": run.minutes,
        "oracle": method.get("oracle", False),
        "status": run.status,
        "reason": run.reason,
        "psnr": run.psnr.psnr.mean(),
        "record": _record(run) if how else None,
        "settings": _training_settings(training) if training else _chosen(method) or _given(run.prediction),
        "prediction": _prediction_settings(run.prediction),
        "evaluation": evaluation.get("settings"),
        "trained_on": _trained_on(run, hashes) if training else None,
        "train_sha256": hashes.get("train"),
        "val_sha256": hashes.get("val"),
        "images_sha256": evaluation.get("images_sha256"),
        "targets_sha256": evaluation.get("targets_sha256"),
    }


def _training_settings(training: dict[str, Any]) -> dict[str, Any]:
    """Return what the result of a training depends on, apart from the data and the seed."""
    settings = TrainSettings.complete(training.get("settings", {}))
    identity = {name: settings[name] for name in settings if name in TrainSettings.IDENTITY}
    return identity | {name: training.get(name) for name in ("receptive_field", "noise_direction", "revision")}


def _prediction_settings(prediction: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the result of a prediction depends on, apart from the model and the seed."""
    settings = prediction.get("settings")
    return None if settings is None else PredictSettings.complete({"prediction": settings})["prediction"]


def _chosen(method: dict) -> dict | None:
    """Return the settings of a method and, if it has no seed, the parameters that it chose, such as ``sigma``."""
    chosen = {} if method.get("seed") is not None else method.get("chosen", {})
    return {name: value for name, value in (method.get("settings", {}) | chosen).items() if name != "psnr"} or None


def _given(prediction: dict[str, Any]) -> dict[str, Any] | None:
    """Return which model, trained elsewhere, denoised the images."""
    return {"weights_sha256": prediction["weights_sha256"]} if prediction else None


def _record(run: Run) -> Path:
    """Return the record of what made the result of a run."""
    if run.training:
        return run.folder.training_record
    return run.folder.method_record if run.method_record else run.folder.prediction_record


def _trained_on(run: Run, hashes: dict[str, str]) -> str | None:
    """Describe whether a model was evaluated on images of its training; None if the patches are not known."""
    description = read_json(run.folder.dataset.patch_description)
    # Other patches may have been cut since the training.
    if not hashes or description.get("sha256") != hashes:
        return None
    evaluated = set(run.psnr.image)
    common = evaluated & {name for name, *_ in description["sources"]["train"]}
    return f"{'evaluated' if common else 'held out'} ({len(common)} of {len(evaluated)})"


def check_comparable(psnr: pd.DataFrame, runs: Sequence[dict]) -> None:
    """Refuse runs that must not be averaged over seeds or compared with each other.

    Parameters
    ----------
    psnr
        All rows of all runs.
    runs
        The return values of :func:`describe_run`.

    Raises
    ------
    UserError
        If a run is given twice, if trainings of one method differ in more than the seed, or if methods were evaluated
        with different settings or on different images.
    """
    first_of_dataset: dict[str, dict] = {}
    first_of_method: dict[tuple, dict] = {}
    seen: set[tuple] = set()
    for run in runs:
        method = run["dataset"], run["method"]
        if (*method, run["seed"]) in seen:
            raise UserError(f"{', '.join(method)}: found seed {run['seed']} twice, allowed: each run once")
        seen.add((*method, run["seed"]))
        _check_equal(first_of_method.setdefault(method, run), run, ("settings", "prediction", "train_sha256"))
        _check_equal(first_of_dataset.setdefault(run["dataset"], run), run, ("evaluation", "images_sha256"))
    _check_same_images(psnr)


def _check_equal(one: dict, other: dict, names: Sequence[str]) -> None:
    """Compare the values that both runs have; older versions recorded fewer."""
    for name in names:
        values = dict(_flatten(name, one[name])), dict(_flatten(name, other[name]))
        for key in values[0].keys() & values[1].keys():
            if values[0][key] != values[1][key]:
                found = " and ".join(
                    f"{value[key]} ({run['method']}, seed {run['seed']})"
                    for value, run in zip(values, (one, other), strict=True)
                )
                raise UserError(
                    f"{one['dataset']}: {key.removeprefix('settings.')}: found {found}, allowed: the same, as they "
                    "share a row or are compared; run both with the same settings, or make tables of each"
                )


def _flatten(name: str, value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, part in sorted(value.items()):
            yield from _flatten(f"{name}.{key}", part)
    elif value is not None:
        yield name, value


def _check_same_images(psnr: pd.DataFrame) -> None:
    """Compare the names of the images, and the PSNR of the noisy images, which depends on the evaluation only."""
    for dataset, rows in psnr.groupby("dataset", sort=False):
        names = rows.groupby(["method", "seed"], sort=False).image.agg(frozenset)
        if names.nunique() > 1:
            raise UserError(f"{dataset}: found runs evaluated on different images, allowed: the same for all methods")
        for image, values in rows.groupby("image", sort=False).psnr_noisy:
            if values.max() - values.min() > PSNR_TOLERANCE:
                raise UserError(
                    f"{dataset}, {image}: found {values.min():.2f} and {values.max():.2f} dB for the noisy image, "
                    "allowed: one, as all methods are compared with it; evaluate all with the same settings"
                )


def provenance(runs: Sequence[dict], results: Path) -> pd.DataFrame:
    """Make a table of the results of :func:`describe_run`.

    Parameters
    ----------
    runs
        The return values of :func:`describe_run`.
    results
        Folder to which the paths in ``record`` are made relative if they are in it.

    Returns
    -------
    pandas.DataFrame
        The columns :data:`PROVENANCE_COLUMNS`, one row per run.
    """
    rows = [{name: run[name] for name in PROVENANCE_COLUMNS} for run in runs]
    for row in rows:
        if row["record"] is not None:
            path = row["record"].resolve()
            within = path.is_relative_to(results.resolve())
            row["record"] = (path.relative_to(results.resolve()) if within else path).as_posix()
        for name in ("settings", "prediction", "evaluation", "versions"):
            row[name] = None if row[name] is None else json.dumps(row[name], sort_keys=True)
    return pd.DataFrame(rows, columns=PROVENANCE_COLUMNS).astype(dict.fromkeys(INTEGER_COLUMNS, "Int64"))
