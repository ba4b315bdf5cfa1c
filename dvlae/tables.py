"""The tables over all runs: PSNR, summary, receptive field, timing."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dvlae.errors import UserError
from dvlae.files import atomic_file
from dvlae.runs import read_run


@dataclass(frozen=True)
class Published:
    """A figure that others have measured, for comparison.

    Attributes
    ----------
    psnr
        In decibel.
    method, source, conditions
        What was run, who measured it, and how.
    """

    psnr: float
    method: str
    source: str
    conditions: str


NOTEBOOK = "notebook of Salmon and Krull (COSDD)"
PUBLISHED = {
    "convallaria": [
        Published(32.97, "COSDD", NOTEBOOK, "MMSE of 100 samples, mean of 100 frames, crop of 512 x 512 px"),
    ],
    "mito_confocal": [
        Published(30.25, "COSDD, 5.4 M parameters", NOTEBOOK, "last 8 images, 40 min on an RTX 3090"),
        Published(28.84, "COSDD, 1.5 M parameters", NOTEBOOK, "last 8 images, 20 min on an RTX 3090"),
    ],
}

KEYS = ["dataset", "method", "receptive_field"]
SUMMARY = [
    *KEYS, "psnr", "psnr_std", "gain", "ssim", "images", "seeds", "oracle", "training_minutes", "stopped_by", "source",
]  # fmt: skip
RECEPTIVE_FIELD = [
    "dataset",
    "receptive_field",
    "psnr",
    "psnr_std",
    "gain",
    "ssim",
    "images",
    "seeds",
    "training_minutes",
]
TIMING = [
    *KEYS, "seed", "minutes", "steps", "epochs", "stopped_by", "attempts", "parameters", "best_val_elbo", "device",
]  # fmt: skip
LIMITS = {"max_minutes": "time", "max_steps": "steps", "max_epochs": "epochs", "patience": "patience"}


def make_tables(psnr_csvs: list[Path], output: Path) -> None:
    """Write ``psnr.csv``, ``summary.{csv,md,tex}``, ``receptive_field.{csv,md,tex}`` and ``timing.csv``.

    Parameters
    ----------
    psnr_csvs
        One file a run, as :func:`dvlae.evaluation.evaluate` makes it. What else is known of the run is read from
        ``model/run.json`` or ``baseline.json`` beside it, where there is one.
    output
        Folder for the tables.

    Raises
    ------
    UserError
        Where a file is missing or is not such a table.
    """
    psnr = pd.concat([read_psnr(path) for path in psnr_csvs], ignore_index=True)
    runs = pd.DataFrame([describe_run(path) for path in psnr_csvs])
    summary = summarise(psnr, runs)
    ablation = summary[summary.receptive_field.notna() & summary.source.isna()].reindex(columns=RECEPTIVE_FIELD)
    ablation = pd.concat(
        [rows.sort_values("receptive_field") for _, rows in ablation.groupby("dataset", sort=False)] or [ablation]
    )
    integers = dict.fromkeys(("steps", "attempts", "parameters"), "Int64")
    timing = runs[runs.minutes.notna()].reindex(columns=TIMING).astype(integers)

    _write_csv(psnr, output / "psnr.csv")
    _write_csv(timing, output / "timing.csv")
    for name, table, caption in (
        ("summary", summary, "PSNR of each method, mean over images"),
        ("receptive_field", ablation, "PSNR at each receptive field of the autoregressive decoder"),
    ):
        _write_csv(table, output / f"{name}.csv")
        header, rows, best = _format(table)
        notes = _notes(table)
        with atomic_file(output / f"{name}.md") as path:
            path.write_text(_markdown(header, rows, best, notes), encoding="utf-8")
        with atomic_file(output / f"{name}.tex") as path:
            path.write_text(_latex(header, rows, best, notes, caption), encoding="utf-8")


def print_summary(tables: Path) -> None:
    """Print the summary table in a folder that :func:`make_tables` made.

    Raises
    ------
    UserError
        Where there is none.
    """
    path = Path(tables) / "summary.md"
    if not path.exists():
        raise UserError(f"{path}: not found; make the tables first (dvlae tables, or the whole workflow)")
    print(path.read_text(encoding="utf-8"), end="")


def read_psnr(path: Path) -> pd.DataFrame:
    """Read one table of :func:`dvlae.evaluation.evaluate`.

    Raises
    ------
    UserError
        Where it is missing or has other columns.
    """
    from dvlae.evaluation import COLUMNS

    try:
        table = pd.read_csv(path, dtype={"dataset": str, "method": str, "image": str, "receptive_field": "Int64"})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of dvlae evaluate ({error})") from None
    if list(table.columns) != list(COLUMNS) or table.empty:
        raise UserError(f"{path}: found columns {list(table.columns)} and {len(table)} rows, expected {list(COLUMNS)}")
    return table


def summarise(psnr: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Average over images, then over seeds: one row a dataset and method, and the published figures below them.

    Parameters
    ----------
    psnr
        All rows of all runs.
    runs
        One row a run: ``dataset, method, seed, minutes, stopped_by, oracle``.

    Returns
    -------
    pandas.DataFrame
        ``psnr`` (decibel) is the mean over seeds of the mean over images, ``psnr_std`` the (sample) standard deviation
        over seeds of that mean, missing where there is one seed; ``gain`` is over the noisy images (decibel).
    """
    rows = []
    for (dataset, method), images in psnr.groupby(["dataset", "method"], sort=False):
        if images.psnr.notna().any():  # images without a clean one count only where none has one
            images = images[images.psnr.notna()]
        seeds = images.groupby("seed")[["psnr", "ssim", "psnr_noisy"]].mean()
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
                "training_minutes": mine.minutes.astype(float).mean(),
                "stopped_by": " ".join(sorted(mine.stopped_by.dropna().unique())) or None,
            }
        )
    for dataset in dict.fromkeys(psnr.dataset):
        rows += [
            {"dataset": dataset, "method": p.method, "psnr": p.psnr, "source": f"{p.source}; {p.conditions}"}
            for p in PUBLISHED.get(dataset, [])
        ]
    table = pd.DataFrame(rows, columns=SUMMARY)
    integers = dict.fromkeys(("receptive_field", "images", "seeds"), "Int64")
    table = table.astype(integers)
    order = {dataset: i for i, dataset in enumerate(dict.fromkeys(psnr.dataset))}
    return table.sort_values("dataset", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def describe_run(psnr_csv: Path) -> dict:
    """Return what is known of the run beside a table: its training, or how a baseline was chosen."""
    first = read_psnr(psnr_csv).iloc[0]
    run = {name: first[name] for name in (*KEYS, "seed")}
    folder = Path(psnr_csv).parent
    baseline = _read_json(folder / "baseline.json")
    training = read_run(folder / "model") if (folder / "model" / "run.json").exists() else {}
    known = {name: training.get(name) for name in TIMING if name not in run and name != "minutes"}
    seconds = training.get("seconds")
    return (
        run
        | known
        | {"minutes": seconds / 60 if seconds is not None else None, "oracle": baseline.get("oracle", False)}
    )


def _read_json(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); remove the run's folder and run it again") from None


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    decimals = {"ssim": "{:.5f}", "training_minutes": "{:.2f}", "minutes": "{:.2f}", "epochs": "{:.2f}"}
    text = table.copy()
    for name in table.select_dtypes("floating"):
        text[name] = [None if pd.isna(v) else decimals.get(name, "{:.4f}").format(v) for v in table[name]]
    with atomic_file(path) as temporary:
        text.to_csv(temporary, index=False, lineterminator="\n")


def _format(table: pd.DataFrame) -> tuple[list[str], list[list[str]], set[int]]:
    """Return the header, the rows and the numbers of the best rows of a summary or an ablation, for readers."""
    columns: dict[str, Callable[[pd.Series], str]] = {"dataset": lambda r: r.dataset}
    if "method" in table:
        columns["method"] = lambda r: r.method + (" †" if r.oracle is True else "") + (" ‡" if _text(r.source) else "")
    else:
        columns["receptive field (px)"] = lambda r: _text(r.receptive_field)
    columns |= {
        "PSNR (dB)": lambda r: _number(r.psnr, 2) + (f" ± {r.psnr_std:.2f}" if pd.notna(r.psnr_std) else ""),
        "gain over noisy (dB)": lambda r: _number(r.gain, 2, sign=True),
        "SSIM": lambda r: _number(r.ssim, 3),
        "images": lambda r: _text(r.images),
        "seeds": lambda r: _text(r.seeds),
        "training (min)": lambda r: _number(r.training_minutes, 1),
    }
    if "stopped_by" in table:
        columns["ended by"] = lambda r: ", ".join(LIMITS.get(name, name) for name in _text(r.stopped_by).split())
    rows = [[column(row) for column in columns.values()] for _, row in table.iterrows()]
    shown = table.psnr.round(2)  # equal as far as one can see: both are the best
    best = set(table.index.get_indexer(table.index[shown == shown.groupby(table.dataset).transform("max")]))
    return list(columns), rows, best


def _notes(table: pd.DataFrame) -> list[str]:
    """Return the footnotes that a table needs."""
    notes = []
    if table.psnr_std.notna().any():
        notes.append("± is the standard deviation over seeds of the mean over images.")
    if table.psnr.isna().any():
        notes.append("Where there is no clean image, there is no PSNR.")
    if "oracle" in table and (table.oracle == True).any():  # noqa: E712 (published rows have no value)
        notes.append("† An oracle: its parameter was chosen with the clean images.")
    if "source" in table:
        notes += [
            f"‡ {row.method} on {row.dataset}: {row.source}. Not measured here."
            for row in table[table.source.notna()].itertuples()
        ]
    return notes


def _text(value) -> str:
    return "" if value is None or pd.isna(value) else str(value)


def _number(value: float, decimals: int, sign: bool = False) -> str:
    return "" if pd.isna(value) else f"{value:{'+' if sign else ''}.{decimals}f}"


def _markdown(header: Sequence[str], rows: list[list[str]], best: set[int], notes: list[str]) -> str:
    """Lay out a table that reads well as text, too; the PSNR of the best rows in bold."""
    place = header.index("PSNR (dB)")
    cells = [list(header)] + [
        [f"**{cell}**" if i in best and j == place else cell.replace("|", "\\|") for j, cell in enumerate(row)]
        for i, row in enumerate(rows)
    ]
    widths = [max(len(row[j]) for row in cells) for j in range(len(header))]
    left = {header.index(name) for name in ("dataset", "method", "ended by") if name in header}
    lines = [
        "| "
        + " | ".join(c.ljust(w) if j in left else c.rjust(w) for j, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in cells
    ]
    lines.insert(
        1, "|" + "|".join("-" * (w + 2) if j in left else "-" * (w + 1) + ":" for j, w in enumerate(widths)) + "|"
    )
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in notes)


def _latex(header: Sequence[str], rows: list[list[str]], best: set[int], notes: list[str], caption: str) -> str:
    """Write a table of the booktabs package; the PSNR of the best rows in bold."""
    place = header.index("PSNR (dB)")
    alignment = "".join("l" if name in ("dataset", "method", "ended by") else "r" for name in header)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escape(caption)}. {' '.join(_escape(note) for note in notes)}}}",
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        " & ".join(map(_escape, header)) + r" \\",
        "\\midrule",
    ]
    for i, row in enumerate(rows):
        cells = [_escape(cell) for cell in row]
        if i in best:
            cells[place] = f"\\textbf{{{cells[place]}}}"
        if i and row[0] != rows[i - 1][0]:
            lines.append("\\midrule")
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _escape(text: str) -> str:
    """Escape what LaTeX would take as a command."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: "\\" + character for character in "&%$#_{}"}
    special |= {"±": r"$\pm$", "†": r"\dag{}", "‡": r"\ddag{}"}
    return "".join(special.get(character, character) for character in text)
