"""The tables of what each method was given, what it took, and what more than a PSNR says of its results."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from dvlae.evaluation.metrics import MIN_MS_SSIM_SIDE
from dvlae.evaluation.significance import CONFIDENCE_LEVEL, decibels, interval
from dvlae.reporting.typesetting import ORACLE_NOTE, REFERENCE_NOTE, Table, label, minutes, number, rank, text
from dvlae.runs.folder import DONE, MEASURE_COLUMNS, Run, read_json

METHOD_COLUMNS = [
    "dataset", "method", "status", "reason", "sees", "oracle", "minutes", "device", "threads", "seeds", "trained_on",
    "training_seconds", "prediction_seconds_per_megapixel", "peak_memory_mb", "processor_share", "candidates", "chosen",
    "tuned_by", "source", "licence", "citation",
]  # fmt: skip
MEASURED_COLUMNS = ["dataset", "method", "psnr", "ssim", *MEASURE_COLUMNS]
# What is averaged over the seeds.
MEANS = ("training_seconds", "prediction_seconds_per_megapixel")
# Less processor time than this part of the clock: another program was in the way.
MIN_PROCESSOR_SHARE = 0.95
# Of our own network, whose methods have no file.
OWN = {
    "sees": "noisy",
    "oracle": False,
    "candidates": 0,
    "tuned_by": "developed on SEM and Kodak images with their clean images in sight",
    "licence": "MIT",
    "citation": "Salmon and Krull, arXiv 2310.07887 (2023)",
}
# The settings of our own network that are shown.
OWN_SETTINGS = {
    "model": ("levels", "channels", "latent_channels", "network", "autoregression", "direct_denoiser"),
    "training": ("batch_size", "learning_rate"),
}
# Longer texts in the description of what was chosen are left out.
MAX_CHOSEN_LENGTH = 40


def describe_methods(runs: Sequence[Run]) -> pd.DataFrame:
    """Describe what each method was given, what it chose, and what it took.

    Parameters
    ----------
    runs
        The runs.

    Returns
    -------
    pandas.DataFrame
        The columns :data:`METHOD_COLUMNS`, one row per dataset and method. ``trained_on`` is a number of images.
        Seconds are means over the seeds, the memory is the largest, the share of the processor the smallest.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.dataset, run.method), []).append(run)
    rows = [_describe(*key, mine) for key, mine in groups.items()]
    integers = dict.fromkeys(("threads", "seeds", "trained_on", "peak_memory_mb", "candidates"), "Int64")
    return pd.DataFrame(rows, columns=METHOD_COLUMNS).astype(integers)


def _describe(dataset: str, method: str, runs: Sequence[Run]) -> dict[str, Any]:
    described = [_method(run) if run.method_record else _own(run) for run in runs]
    done = [row for row in described if row["status"] == DONE] or described
    row = {"dataset": dataset, "method": method} | done[0]
    row["seeds"] = len(done) if row["seeded"] else None
    row["device"] = " and ".join(dict.fromkeys(each["device"] for each in done if each["device"])) or None
    for name in MEANS:
        values = [each[name] for each in done if each[name] is not None]
        row[name] = sum(values) / len(values) if values else None
    for name, extreme in (("peak_memory_mb", max), ("processor_share", min)):
        row[name] = extreme((each[name] for each in done if each[name] is not None), default=None)
    found = [(run.seed, each["status"], each["reason"]) for run, each in zip(runs, described, strict=True)]
    return row | outcome(found)


def outcome(runs: Sequence[tuple[int, str, str | None]]) -> dict[str, str | None]:
    """Summarise what became of the runs of a method.

    Parameters
    ----------
    runs
        Seed, status and reason of each.

    Returns
    -------
    dict
        ``status``, which is ``done`` if one of them is, and ``reason``: why others are not, or not as was asked for;
        None if there is none.
    """
    failed = [status for _, status, _ in runs if status != DONE]
    seeds: dict[str, list[str]] = {}
    for seed, status, reason in runs:
        if status != DONE or pd.notna(reason):
            seeds.setdefault(str(reason) if status == DONE else f"{status}: {reason}", []).append(str(seed))
    # What is true of all seeds is said once.
    reasons = [
        why if len(who) == len(runs) else f"seed{'s' * (len(who) > 1)} {' and '.join(who)}: {why}"
        for why, who in seeds.items()
    ]
    return {"status": failed[0] if len(failed) == len(runs) else DONE, "reason": "; ".join(reasons) or None}


def has_failed(row: pd.Series) -> bool:
    """Return whether a row has no result.

    Parameters
    ----------
    row
        A row of a table, with ``status``, which published results do not have.

    Returns
    -------
    bool
        Whether its status is another than ``done``.
    """
    return pd.notna(row.status) and row.status != DONE


def _method(run: Run) -> dict[str, Any]:
    """Describe a run of a method with a file."""
    record = run.method_record
    chosen = record.get("settings", {}) | record.get("chosen", {})
    names = (
        "status", "reason", "sees", "oracle", "minutes", "device", "trained_on", "training_seconds", "peak_memory_mb",
        "processor_share", "tuned_by", "source", "licence", "citation",
    )  # fmt: skip
    return {name: record.get(name) for name in names} | {
        "threads": record.get("workers"),
        "seeded": record.get("seed") is not None,
        "prediction_seconds_per_megapixel": run.seconds_per_megapixel,
        "candidates": record.get("searched"),
        "chosen": _chosen(chosen),
    }


def _own(run: Run) -> dict[str, Any]:
    """Describe a run of our own network, which was trained here or before."""
    training, prediction = run.training, run.prediction
    settings = training.get("settings", {})
    shown = {"receptive_field": training.get("receptive_field")} if training else {}
    for block, names in OWN_SETTINGS.items():
        shown |= {name: value for name, value in settings.get(block, {}).items() if name in names}
    sources = read_json(run.folder.dataset.patch_description).get("sources", {}).get("train", []) if training else []
    return OWN | {
        "status": DONE,
        "reason": run.reason,
        "minutes": settings.get("training", {}).get("max_minutes"),
        "device": training.get("device") or prediction.get("device"),
        "threads": training.get("workers"),
        "seeded": bool(training),
        "trained_on": len({name for name, *_ in sources}) or None,
        "training_seconds": training.get("seconds"),
        "prediction_seconds_per_megapixel": run.seconds_per_megapixel,
        "peak_memory_mb": training.get("peak_memory_mb") or prediction.get("peak_memory_mb"),
        "processor_share": training.get("processor_share"),
        "chosen": _chosen(shown),
        "source": None,
    }


def _chosen(values: Mapping[str, Any]) -> str | None:
    """Return settings and parameters in one line, without blocks, lists and long texts."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    words = [
        f"{name} {shown[name]}"
        for name, value in values.items()
        if value is not None and not isinstance(value, dict | list) and len(shown[name]) <= MAX_CHOSEN_LENGTH
    ]
    return ", ".join(words) or None


def lay_out_methods(methods: pd.DataFrame, words: frozenset[str]) -> Table:
    """Lay out the table of methods.

    Parameters
    ----------
    methods
        The result of :func:`describe_methods`.
    words
        The headings of columns of words.

    Returns
    -------
    Table
        One row per dataset and method, with reasons, settings and citations below.
    """
    columns: dict[str, Callable[[pd.Series], str]] = {
        "dataset": lambda r: r.dataset,
        "method": lambda r: r.method,
        "status": lambda r: r.status,
        "sees": lambda r: f"{r.sees}, oracle" if r.oracle is True else r.sees,
        "time limit (min)": lambda r: minutes(r.minutes),
        "device": lambda r: text(r.device),
        "threads": lambda r: text(r.threads),
        "seeds": lambda r: text(r.seeds) or "none",
        "trained on (images)": lambda r: text(r.trained_on),
        "training (s)": lambda r: number(r.training_seconds, 1),
        "processor": lambda r: "" if pd.isna(r.processor_share) else f"{r.processor_share:.0%}",
        "denoising (s/MP)": lambda r: number(r.prediction_seconds_per_megapixel, 2),
        "memory (MB)": lambda r: text(r.peak_memory_mb),
        "candidates": lambda r: text(r.candidates),
    }
    rows = [[column(row) for column in columns.values()] for _, row in methods.iterrows()]
    return Table("What each method was given, and what it took", list(columns), rows, words, {}, _notes(methods))


def _notes(methods: pd.DataFrame) -> list[str]:
    notes = [
        "A method that trains has the same time limit, device and threads as the others that train. Candidates are "
        "settings that were tried for two minutes each. Processor: processor time of the training by its clock and "
        "threads. Denoising: on a processor, the processor time of each thread, with reading and writing. MP: million "
        "pixels. Memory is that of all processes, at its peak."
    ]
    notes += [
        f"{row.method} on {row.dataset}: the processor worked for it {row.processor_share:.0%} of the time, as other "
        "programs ran; repeat it before you compare."
        for row in methods[methods.processor_share.astype(float) < MIN_PROCESSOR_SHARE].itertuples()
    ]
    notes += _unlike_devices(methods)
    notes += [f"{row.method} on {row.dataset}: {row.reason}." for row in methods[methods.reason.notna()].itertuples()]
    chosen = methods[methods.chosen.notna() & methods.status.eq(DONE)]
    notes += [f"{row.method} on {row.dataset}: {row.chosen}." for row in chosen.itertuples()]
    for method, mine in methods.groupby("method", sort=False):
        facts = {
            "tuned by": mine.tuned_by,
            "settings from": mine.source,
            "licence": mine.licence,
            "cite": mine.citation,
        }
        known = [f"{what}: {values.dropna().iloc[0]}" for what, values in facts.items() if values.notna().any()]
        notes += [f"{method}: {'; '.join(known)}."] if known else []
    return notes


def _unlike_devices(methods: pd.DataFrame) -> list[str]:
    """Say for each dataset which methods were trained on which device, if the devices differ."""
    notes = []
    for dataset, mine in methods[methods.minutes.notna() & methods.device.notna()].groupby("dataset", sort=False):
        devices = [f"{', '.join(rows.method)} on {device}" for device, rows in mine.groupby("device", sort=False)]
        if len(devices) > 1:
            notes.append(
                f"{dataset}: trained on devices with different names, so that equal minutes may not be equal work: "
                f"{'; '.join(devices)}."
            )
    return notes


def lay_out_ceiling(methods: pd.DataFrame, comparisons: pd.DataFrame, words: frozenset[str]) -> list[Table]:
    """Lay out how far each method is below the best one that was trained with clean images.

    Parameters
    ----------
    methods
        The result of :func:`describe_methods`.
    comparisons
        Pairs of methods, as :func:`dvlae.evaluation.significance.compare` returns them, with a column ``dataset``.
    words
        The headings of columns of words.

    Returns
    -------
    list of Table
        One table; none if no such method was compared.
    """
    rows, notes = [], []
    for dataset, pairs in comparisons.groupby("dataset", sort=False):
        mine = methods[methods.dataset.eq(dataset)]
        supervised = set(mine[mine.sees.eq("clean") & mine.minutes.notna()].method)
        ranked = dict.fromkeys([*pairs.method, *pairs.other])
        ceiling = next((method for method in ranked if method in supervised), None)
        if ceiling is None:
            continue
        notes.append(f"{dataset}: the ceiling is {ceiling}, the best method that was trained with clean images.")
        for method, sees in zip(mine.method, mine.sees, strict=True):
            below = pairs[pairs.method.eq(ceiling) & pairs.other.eq(method)]
            above = pairs[pairs.method.eq(method) & pairs.other.eq(ceiling)]
            gaps = [(pair.effect, pair.effect_low, pair.effect_high, pair.images) for pair in below.itertuples()]
            gaps += [(-pair.effect, -pair.effect_high, -pair.effect_low, pair.images) for pair in above.itertuples()]
            rows += [
                [str(dataset), method, sees, decibels(gap), interval(low, high), str(images)]
                for gap, low, high, images in gaps
            ]
    columns = ["dataset", "method", "sees", "below the ceiling by (dB)", f"{CONFIDENCE_LEVEL:.0%} interval", "images"]
    notes.append(
        "The difference is the mean over images, paired, and its interval a bootstrap over images, without the scatter "
        "that other seeds of the ceiling would give. A negative difference is above the ceiling."
    )
    return [Table("Distance from the supervised ceiling", columns, rows, words, {}, notes)] if rows else []


def lay_out_measures(summary: pd.DataFrame, words: frozenset[str]) -> Table:
    """Lay out what was measured beside the PSNR.

    Parameters
    ----------
    summary
        The result of :func:`dvlae.reporting.tables.summarise`.
    words
        The headings of columns of words.

    Returns
    -------
    Table
        One row per dataset and method, without results that others published.
    """
    columns: dict[str, Callable[[pd.Series], str]] = {
        "dataset": lambda r: r.dataset,
        "method": lambda r: label(r.method, r.oracle),
        "PSNR (dB)": lambda r: number(r.psnr, 2) if r.status == DONE else r.status,
        "limit (dB)": lambda r: number(r.psnr_limit, 2),
        "noise of the clean image": lambda r: "" if pd.isna(r.reference_noise) else f"{r.reference_noise:.3g}",
        "SI-PSNR (dB)": lambda r: number(r.si_psnr, 2),
        "SSIM": lambda r: number(r.ssim, 3),
        "MS-SSIM": lambda r: number(r.ms_ssim, 3),
        "details kept up to (cycles/px)": lambda r: number(r.kept_band, 3),
        "details in what was removed": lambda r: number(r.removed_details, 3),
    }
    measured = summary[summary.source.isna()].reset_index(drop=True)
    of_reference = [
        f"{REFERENCE_NOTE} Noise of the clean image: its standard deviation, in the units of the comparison.",
    ]
    if measured.psnr_limit.isna().all():
        del columns["limit (dB)"], columns["noise of the clean image"]
        of_reference = []
    rows = [[column(row) for column in columns.values()] for _, row in measured.iterrows()]
    marks: dict[tuple[int, int], str] = {}
    for _, mine in measured[measured.oracle.ne(True)].groupby("dataset", sort=False):
        for heading, values in (("PSNR (dB)", mine.psnr), ("SI-PSNR (dB)", mine.si_psnr)):
            marks |= {(mine.index[i], list(columns).index(heading)): mark for i, mark in rank(values).items()}
    notes = [
        *of_reference,
        "SI-PSNR: as CAREamics and AI4Life define it. Details kept: up to this frequency, the estimate shares at least "
        "half of the power of the clean image, relative to the coarsest structures; 0.5 is all. Details in what was "
        "removed: correlation of the noisy image minus the estimate with details of the clean one; 0 is none.",
    ]
    notes += [ORACLE_NOTE] * bool(measured.oracle.eq(True).any())
    if (measured.si_psnr.notna() & measured.ms_ssim.isna()).any():
        notes.append(f"MS-SSIM needs images of {MIN_MS_SSIM_SIDE} pixels along x and y, and no mask.")
    return Table("What a PSNR does not say, mean over images", list(columns), rows, words, marks, notes)
