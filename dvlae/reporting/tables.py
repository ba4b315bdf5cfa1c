"""The tables of a report: the scores, their statistical significance, and their provenance."""

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from dvlae.config.dataset import PublishedResults
from dvlae.config.report_names import TABLES, TYPESET_TABLES
from dvlae.evaluation.findings.advice import tabulate_noise
from dvlae.evaluation.reference_noise import NEAR_LIMIT
from dvlae.evaluation.significance import COMPARISON_COLUMNS, CONFIDENCE_LEVEL, compare, decibels, interval, spread
from dvlae.reporting import method_table, typesetting
from dvlae.reporting.typesetting import ORACLE_NOTE, REFERENCE_NOTE, Table, label, minutes, number, rank, text
from dvlae.runs.folder import DONE, MEASURE_COLUMNS, Run
from dvlae.runs.provenance import check_comparable, describe_run, provenance
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

RUN_KEYS = ["dataset", "method", "receptive_field"]
SUMMARY_COLUMNS = [
    *RUN_KEYS, "psnr", "psnr_std", "gain", "ssim", "images", "seeds", "oracle", "trained_on", "training_minutes",
    "stopped_by", "status", "reason", "source", *MEASURE_COLUMNS, "at_limit",
]  # fmt: skip
RECEPTIVE_FIELD_COLUMNS = [
    *RUN_KEYS, "psnr", "psnr_std", "gain", "ssim", "images", "seeds", "training_minutes", "spread",
    "spread_low", "spread_high",
]  # fmt: skip
TIMING_COLUMNS = [
    *RUN_KEYS, "seed", "minutes", "steps", "epochs", "stopped_by", "attempts", "parameters", "best_val_elbo", "device",
]  # fmt: skip
LIMIT_LABELS = {"max_minutes": "time", "max_steps": "steps", "max_epochs": "epochs", "patience": "patience"}
# In LaTeX, these tables may continue on the next page.
LONG_TABLES = frozenset(("methods", "measures", "per_image", "comparisons"))
TEXT_COLUMNS = frozenset(
    ("dataset", "method", "image", "against", "ended by", "conclusion", "status", "sees", "device", "remark")
)
PSNR_HEADING = "PSNR (dB)"
AT_LIMIT = "at the reference's limit"
LIMIT_NOTE = (
    "at least half of the squared error is noise of the clean images, which hides differences between methods. Look at "
    "the images and at tables/measures."
)
VERDICTS = {
    "better": "better",
    "same": "no difference seen",
    "seeds": "within the seeds",
    "limit": AT_LIMIT,
    "few": "too few images to tell",
}


def make_tables(
    psnr_csvs: list[Path],
    output: Path,
    *,
    noise: Mapping[str, Path] | None = None,
    published: PublishedResults | None = None,
) -> None:
    """Write all tables.

    ``psnr`` (a row per image and run), ``timing``, ``provenance`` (per run) and ``noise`` (per dataset) are written as
    CSV, and all others also as Markdown, LaTeX and HTML.

    Parameters
    ----------
    psnr_csvs
        One file per run, as written by :func:`dvlae.evaluation.evaluate`. :func:`dvlae.runs.provenance.describe_run`
        reads the records of the run from the same folder.
    output
        Folder for the tables.
    noise
        The output of ``dvlae diagnose`` for each dataset, for the table ``noise``.
    published
        What others measured, by dataset, for the table ``summary``; None: nothing.

    Raises
    ------
    UserError
        If a file is missing or is not such a table, or if :func:`dvlae.runs.provenance.check_comparable` finds runs
        that cannot share a row or be compared.
    """
    read = [Run.read(path) for path in psnr_csvs]
    psnr = pd.concat([run.psnr for run in read], ignore_index=True)
    described = [describe_run(run) for run in read]
    check_comparable(psnr, described)
    runs = pd.DataFrame(described)
    summary = summarise(psnr, runs, published or {})
    per_image = _average_seeds(psnr)
    ablation = ablate(summary, per_image)
    comparisons = _compare_methods(summary, per_image)
    methods = method_table.describe_methods(read)
    integers = dict.fromkeys(("steps", "attempts", "parameters"), "Int64")
    tables = {
        "psnr": psnr,
        "noise": tabulate_noise(noise or {}),
        "timing": runs[runs.minutes.notna()].reindex(columns=TIMING_COLUMNS).astype(integers),
        "provenance": provenance(described, output.parent),
        "summary": summary,
        "methods": methods,
        "measures": summary.loc[summary.source.isna(), method_table.MEASURED_COLUMNS],
        "receptive_field": ablation,
        "per_image": per_image.reset_index(),
        "comparisons": comparisons,
    }
    for name in TABLES:
        typesetting.write_csv(tables[name], output / f"{name}.csv")

    ceiling = method_table.lay_out_ceiling(methods, comparisons, TEXT_COLUMNS)
    images = [_per_image_table(summary, table) for _, table in per_image.groupby("dataset", sort=False)]
    typeset = {
        "summary": ([_summary_table(summary)], "Summary"),
        "methods": ([method_table.lay_out_methods(methods, TEXT_COLUMNS)], "Methods"),
        "measures": ([method_table.lay_out_measures(summary, TEXT_COLUMNS)], "Measures"),
        "receptive_field": ([_receptive_field_table(ablation)], "Receptive field"),
        "per_image": (images, "PSNR of each image"),
        "comparisons": ([*ceiling, _comparison_table(summary, comparisons)], "Comparisons"),
    }
    for name in TYPESET_TABLES:
        content, title = typeset[name]
        typesetting.write(content, output / name, title, long=name in LONG_TABLES)
    for row in comparisons.itertuples():
        logger.info(f"{row.dataset}: {row.conclusion}")


def format_summary(tables: Path) -> str:
    """Return the summary table as text.

    Parameters
    ----------
    tables
        The output of :func:`make_tables`.

    Returns
    -------
    str
        The table, for a screen.

    Raises
    ------
    UserError
        If there is none.
    """
    path = Path(tables) / "summary.md"
    if not path.exists():
        raise UserError(f"{path}: not found; make the tables first (dvlae tables, or the whole workflow)")
    text = path.read_text(encoding="utf-8").rstrip("\n")
    return re.sub("<ins>(.*?)</ins>", lambda match: match[1].rjust(len(match[0])), text)


# ------------------------------------------------------------------------------------------------ contents


def summarise(psnr: pd.DataFrame, runs: pd.DataFrame, published: PublishedResults) -> pd.DataFrame:
    """Average over images, then over seeds.

    Parameters
    ----------
    psnr
        All rows of all runs.
    runs
        One row per run: ``dataset, method, seed, minutes, stopped_by, oracle, trained_on, status, reason``.
    published
        What others measured, by dataset. Those without a run are left out.

    Returns
    -------
    pandas.DataFrame
        One row per dataset and method, with published results below those of their dataset. ``psnr`` is the mean over
        seeds of the mean over images, in decibels. ``psnr_std`` is the sample standard deviation over seeds of that
        mean; it is missing for a single seed. ``gain`` is the difference from the noisy images, in decibels.
        ``at_limit`` says whether most images are at the limit by the noise of the clean ones.
    """
    rows = []
    for (dataset, method), images in psnr.groupby(["dataset", "method"], sort=False):
        # Images without a clean one count only if no image has one.
        if images.psnr.notna().any():
            images = images[images.psnr.notna()]
        seeds = images.groupby("seed")[["psnr", "ssim", "psnr_noisy", *MEASURE_COLUMNS]].mean()
        mine = runs[(runs.dataset == dataset) & (runs.method == method)]
        rows.append(
            {
                "dataset": dataset,
                "method": method,
                "receptive_field": images.receptive_field.iloc[0],
                "psnr": seeds.psnr.mean(),
                "psnr_std": seeds.psnr.std(ddof=1),
                "gain": (seeds.psnr - seeds.psnr_noisy).mean(),
                "ssim": seeds.ssim.mean(),
                "images": images.image.nunique(),
                "seeds": len(seeds),
                "oracle": bool(mine.oracle.any()),
                "trained_on": " ".join(mine.trained_on.dropna().unique()) or None,
                "training_minutes": mine.minutes.astype(float).mean(),
                "stopped_by": " ".join(sorted(mine.stopped_by.dropna().unique())) or None,
                **method_table.outcome([(run.seed, run.status, run.reason) for run in mine.itertuples()]),
                **seeds[list(MEASURE_COLUMNS)].mean(),
                "at_limit": bool((images.psnr > images.psnr_limit - NEAR_LIMIT).mean() > 0.5),
            }
        )
    order = {dataset: i for i, dataset in enumerate(dict.fromkeys(psnr.dataset))}
    for name in order:
        rows += [{"dataset": name, **result.summary} for result in published.get(name, ())]
    integers = dict.fromkeys(("receptive_field", "images", "seeds"), "Int64")
    table = pd.DataFrame(rows, columns=SUMMARY_COLUMNS).astype(integers)
    return table.sort_values("dataset", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _average_seeds(psnr: pd.DataFrame) -> pd.DataFrame:
    """Return the PSNR of each image, averaged over seeds: one row per dataset and image, one column per method."""
    measured = psnr[psnr.psnr.notna()]
    table = measured.pivot_table(index=["dataset", "image"], columns="method", values="psnr", sort=False)
    return table.reindex(columns=list(dict.fromkeys(measured.method))).rename_axis(columns=None)


def ablate(summary: pd.DataFrame, per_image: pd.DataFrame) -> pd.DataFrame:
    """Return the trained methods of a summary by receptive field, with the spread between the best and the worst.

    Parameters
    ----------
    summary
        The result of :func:`summarise`.
    per_image
        The PSNR of each image in decibels: one row per dataset and image, one column per method.

    Returns
    -------
    pandas.DataFrame
        ``spread`` and the bounds of its bootstrap interval, in decibels, are the same in all rows of a dataset.
    """
    tables = [pd.DataFrame(columns=RECEPTIVE_FIELD_COLUMNS)]
    for dataset, rows in summary[summary.receptive_field.notna()].groupby("dataset", sort=False):
        found = math.nan, math.nan, math.nan
        if dataset in per_image.index:
            found = spread(per_image.loc[dataset, list(rows.method)])
        columns = dict(zip(("spread", "spread_low", "spread_high"), found, strict=True))
        tables.append(rows.assign(**columns).sort_values("receptive_field")[RECEPTIVE_FIELD_COLUMNS])
    return pd.concat(tables[1:] or tables, ignore_index=True)


def _compare_methods(summary: pd.DataFrame, per_image: pd.DataFrame) -> pd.DataFrame:
    """Compare each pair of methods of each dataset, see :func:`dvlae.evaluation.significance.compare`."""
    tables = [pd.DataFrame(columns=COMPARISON_COLUMNS)]
    for dataset, values in per_image.groupby("dataset", sort=False):
        mine = summary[(summary.dataset == dataset) & summary.source.isna()].set_index("method")
        errors = mine.psnr_std / mine.seeds.astype(float) ** 0.5
        # What is run once has no seed, unless it is our own.
        errors[mine.receptive_field.isna() & mine.seeds.eq(1)] = 0.0
        at_limit = set(mine[mine.at_limit.eq(True)].index)
        table = compare(values.dropna(axis="columns", how="all"), errors.to_dict(), at_limit)
        tables.append(table.assign(dataset=dataset)[COMPARISON_COLUMNS])
    return pd.concat(tables[1:] or tables, ignore_index=True)


# ------------------------------------------------------------------------------------------------ layout


def _summary_table(summary: pd.DataFrame) -> Table:
    columns: dict[str, Callable[[pd.Series], str]] = {
        "dataset": lambda r: r.dataset,
        "method": lambda r: label(r.method, r.oracle) + (" ‡" if text(r.source) else ""),
        PSNR_HEADING: lambda r: (
            r.status
            if method_table.has_failed(r)
            else number(r.psnr, 2) + (f" ± {r.psnr_std:.2f}" if pd.notna(r.psnr_std) else "")
        ),
        "limit (dB)": lambda r: number(r.psnr_limit, 2),
        "gain over noisy (dB)": lambda r: number(r.gain, 2, sign=True),
        "SSIM": lambda r: number(r.ssim, 3),
        "images": lambda r: text(r.images),
        "seeds": lambda r: text(r.seeds),
        "training (min)": lambda r: minutes(r.training_minutes),
        "ended by": lambda r: ", ".join(LIMIT_LABELS.get(name, name) for name in text(r.stopped_by).split()),
    }
    if summary.at_limit.eq(True).any():
        columns["remark"] = lambda r: AT_LIMIT if r.at_limit is True else ""
    if summary.psnr_limit.isna().all():
        del columns["limit (dB)"]
    place = list(columns).index(PSNR_HEADING)
    marks: dict[tuple[int, int], str] = {}
    # What others measured has no rank, and neither have oracles.
    for _, rows in summary[summary.source.isna() & summary.oracle.ne(True)].groupby("dataset", sort=False):
        marks |= {(rows.index[i], place): mark for i, mark in rank(rows.psnr).items()}
    return _lay_out("PSNR of each method, mean over images", summary, columns, marks, _summary_notes(summary))


def _lay_out(
    caption: str,
    table: pd.DataFrame,
    columns: Mapping[str, Callable[[pd.Series], str]],
    marks: Mapping[tuple[int, int], str],
    notes: Sequence[str],
) -> Table:
    """Apply the function of each column to each row of a data frame."""
    rows = [[column(row) for column in columns.values()] for _, row in table.iterrows()]
    return Table(caption, list(columns), rows, TEXT_COLUMNS, marks, notes)


def _summary_notes(summary: pd.DataFrame) -> list[str]:
    notes = []
    if summary.psnr_std.notna().any():
        notes.append("± is the standard deviation over seeds of the mean over images.")
    if (summary.psnr.isna() & summary.status.eq(DONE)).any():
        notes.append("Where there is no clean image, there is no PSNR.")
    if summary.oracle.eq(True).any():  # published rows have no value
        notes.append(ORACLE_NOTE)
    if summary.psnr_limit.notna().any():
        notes.append(REFERENCE_NOTE)
    if summary.at_limit.eq(True).any():
        notes.append(f"{AT_LIMIT.capitalize()}: {LIMIT_NOTE}")
    notes += [f"{row.method} on {row.dataset}: {row.reason}." for row in summary[summary.reason.notna()].itertuples()]
    for trained_on, rows in summary.groupby("trained_on", sort=False):
        held_out = trained_on.startswith("held out")
        which = "other noisy images than the evaluated ones" if held_out else "the noisy images that are evaluated"
        counts = trained_on.partition("(")[2].rstrip(")")
        datasets = ", ".join(dict.fromkeys(rows.dataset))
        notes.append(f"Trained on {which}: {datasets} ({counts}).")
    notes += [
        f"‡ {row.method} on {row.dataset}: {row.source}. Not measured here."
        for row in summary[summary.source.notna()].itertuples()
    ]
    return notes


def _receptive_field_table(ablation: pd.DataFrame) -> Table:
    """Lay out one row per dataset, one column per receptive field."""
    fields = ablation.sort_values("receptive_field").drop_duplicates("method").set_index("method").receptive_field
    shared = fields.duplicated(keep=False)
    own = ablation.groupby("method").receptive_field.nunique() > 1  # another field on each dataset
    labels = {method: method if own[method] else f"{method} ({field} px)" for method, field in fields.items()}
    headings = [labels[name] if own[name] or shared[name] else f"{field} px" for name, field in fields.items()]
    columns = ["dataset", *headings, "spread (dB)", f"{CONFIDENCE_LEVEL:.0%} interval"]
    rows, notes = [], []
    marks: dict[tuple[int, int], str] = {}
    for i, (dataset, mine) in enumerate(ablation.groupby("dataset", sort=False)):
        values = mine.set_index("method").psnr.reindex(fields.index)
        first = mine.iloc[0]
        found = decibels(first.spread) if pd.notna(first.spread) else ""
        rows.append([dataset, *(number(v, 2) for v in values), found, interval(first.spread_low, first.spread_high)])
        marks |= {(i, j + 1): mark for j, mark in rank(values).items()}
        if mine.psnr_std.notna().any():
            notes.append(f"{dataset}: the standard deviation over seeds is {_range(mine.psnr_std)} dB.")
    if ablation.spread.notna().any():
        notes.insert(0, "The spread is that between the best and the worst receptive field, its interval over images.")
    return Table(
        "PSNR (dB) at each receptive field of the autoregressive decoder", columns, rows, TEXT_COLUMNS, marks, notes
    )


def _range(values: pd.Series) -> str:
    least, most = decibels(values.min()), decibels(values.max())
    return least if least == most else f"{least} to {most}"


def _per_image_table(summary: pd.DataFrame, per_image: pd.DataFrame) -> Table:
    """Lay out one row per image of a dataset, one column per method."""
    dataset = per_image.index[0][0]
    per_image = per_image.droplevel("dataset").dropna(axis="columns", how="all")
    oracles = set(summary[(summary.dataset == dataset) & summary.oracle.eq(True)].method)
    rows = [[image, *(number(value, 2) for value in values)] for image, *values in per_image.itertuples()]
    ranked = per_image.assign(**dict.fromkeys(oracles & set(per_image), math.nan))
    marks = {(i, j + 1): mark for i, (_, values) in enumerate(ranked.iterrows()) for j, mark in rank(values).items()}
    columns = ["image", *(label(method, method in oracles) for method in per_image)]
    caption = f"{dataset}: PSNR (dB) of each image, mean over seeds"
    return Table(caption, columns, rows, TEXT_COLUMNS, marks, [ORACLE_NOTE] if oracles else [])


def _comparison_table(summary: pd.DataFrame, comparisons: pd.DataFrame) -> Table:
    oracles = set(summary[summary.oracle.eq(True)].method)
    columns: dict[str, Callable[[pd.Series], str]] = {
        "dataset": lambda r: r.dataset,
        "method": lambda r: label(r.method, r.method in oracles),
        "against": lambda r: label(r.other, r.other in oracles),
        "better by (dB)": lambda r: decibels(r.effect),
        f"{CONFIDENCE_LEVEL:.0%} interval": lambda r: interval(r.effect_low, r.effect_high),
        "p": lambda r: f"{r.p_holm:.1g}",
        "on images": lambda r: f"{r.ahead} of {r.images}",
        "conclusion": lambda r: VERDICTS[r.verdict],
    }
    notes = [
        "The difference is the mean over images, after that over seeds, and its interval a bootstrap over images. p is "
        "Wilcoxon's signed-rank test over images, corrected after Holm for all pairs of a dataset. Both take "
        "images for independent: of images that overlap, or are frames of one scene, they claim too much."
    ]
    if comparisons.verdict.eq("limit").any():
        notes.append(f"{AT_LIMIT.capitalize()}: of both methods, {LIMIT_NOTE}")
    if comparisons.verdict.eq("seeds").any():
        notes.append("Within the seeds: less than twice the standard error that comes from training with other seeds.")
    notes += [ORACLE_NOTE] * bool(oracles)
    return _lay_out("Differences between methods, paired over images", comparisons, columns, {}, notes)
