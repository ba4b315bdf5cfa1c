"""Tables as Markdown, LaTeX and HTML."""

import html
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dvlae.runs.folder import Run
from dvlae.system.files import atomic_file

REFERENCE_NOTE = (
    "The limit is the PSNR of an estimate without any error, as the clean images hold noise, too; those of simulated "
    "noise hold none. Only what stands out from the noise of the noisy images can be told, so that a limit may be too "
    "low."
)
ORACLE_NOTE = "† An oracle: it was trained, or its parameters were chosen, with the clean images. It has no rank."


@dataclass(frozen=True)
class Table:
    """A table whose cells are text.

    Attributes
    ----------
    caption
        The title.
    columns
        The headings.
    rows
        Cells as text.
    words
        The headings of the columns of words, which are aligned to the left. Numbers are aligned to the right.
    marks
        ``"best"`` or ``"second"``, by row and column.
    notes
        The sentences below the table.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[str]
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def marked(self, marks: Mapping[str, Callable[[str], str]], escape: Callable[[str], str]) -> list[list[str]]:
        """Return the cells, escaped and marked.

        Parameters
        ----------
        marks
            The functions that mark an escaped cell as ``best`` and ``second``.
        escape
            A function that escapes a cell.

        Returns
        -------
        list of list of str
            The cells of each row.
        """
        plain = {None: lambda cell: cell} | dict(marks)
        return [
            [plain[self.marks.get((i, j))](escape(cell)) for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]


def rank(values: Sequence[float]) -> dict[int, str]:
    """Mark the best and the second best value. Values that are equal in two decimals share a mark.

    Parameters
    ----------
    values
        The values; higher is better. NaN has no mark.

    Returns
    -------
    dict
        ``best`` or ``second`` by the index of the value.
    """
    shown = pd.Series(values, dtype=float).round(2)
    places = sorted(shown.dropna().unique(), reverse=True)[:2]
    names = dict(zip(places, ("best", "second"), strict=False))
    return {i: names[value] for i, value in enumerate(shown) if value in names}


def label(method: str, oracle: bool | None) -> str:
    """Mark the name of an oracle.

    Parameters
    ----------
    method
        The name of a method.
    oracle
        Whether it is an oracle; None: unknown.

    Returns
    -------
    str
        The name with a dagger, which :data:`ORACLE_NOTE` explains; the name alone.
    """
    return method + (" †" if oracle is True else "")


def run_label(run: Run) -> str:
    """Return the name of a method in figures, where that of an oracle has a dagger, too.

    Parameters
    ----------
    run
        A run of the method.

    Returns
    -------
    str
        As :func:`label`.
    """
    return label(run.method, run.method_record.get("oracle"))


def minutes(value: float) -> str:
    """Format a duration in minutes.

    Parameters
    ----------
    value
        In minutes.

    Returns
    -------
    str
        With one decimal, short ones with two; empty if the value is missing.
    """
    return number(value, 2 if pd.notna(value) and value < 1 else 1)


def number(value: float, decimals: int, sign: bool = False) -> str:
    """Format a number.

    Parameters
    ----------
    value
        The number; the cell of NaN is empty.
    decimals
        Number of decimals.
    sign
        Whether to show the sign of positive numbers.

    Returns
    -------
    str
        The text of a cell.
    """
    return "" if pd.isna(value) else f"{value:{'+' if sign else ''}.{decimals}f}"


def text(value: Any) -> str:
    """Format a value of a data frame.

    Parameters
    ----------
    value
        The value; the cell of a missing one is empty.

    Returns
    -------
    str
        The text of a cell.
    """
    return "" if value is None or pd.isna(value) else str(value)


# ------------------------------------------------------------------------------------------------ Markdown


def markdown(tables: Sequence[Table]) -> str:
    """Write tables as Markdown that is also readable as text. The best is bold, the second best underlined.

    Parameters
    ----------
    tables
        The tables. If there are several, each has its caption above it.

    Returns
    -------
    str
        Markdown, with HTML tags for underlined text.
    """
    parts = [_markdown_table(table) for table in tables]
    if len(tables) > 1:
        parts = [f"**{_one_line(table.caption)}**\n\n{part}" for table, part in zip(tables, parts, strict=True)]
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    marks = {"best": "**{}**".format, "second": "<ins>{}</ins>".format}
    cells = [list(table.columns), *table.marked(marks, _guard)]
    widths = [max(3, *(len(row[j]) for row in cells)) for j in range(len(table.columns))]
    left = [name in table.words for name in table.columns]
    padded = [
        [cell.ljust(w) if to_left else cell.rjust(w) for cell, w, to_left in zip(row, widths, left, strict=True)]
        for row in cells
    ]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    rule = ("-" * (w + 2) if to_left else "-" * (w + 1) + ":" for w, to_left in zip(widths, left, strict=True))
    lines.insert(1, f"|{'|'.join(rule)}|")
    return "\n".join(lines) + "\n" + "".join(f"\n{_one_line(note)}\n" for note in table.notes)


def _guard(cell: str) -> str:
    """Escape the characters of Markdown."""
    return "".join("\\" + character if character in "|*<`" else character for character in _one_line(cell))


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


# ------------------------------------------------------------------------------------------------ LaTeX


def latex(tables: Sequence[Table], *, long: bool = False) -> str:
    """Write tables with the package booktabs. The best is bold, the second best underlined.

    Parameters
    ----------
    tables
        The tables. The notes are part of the caption.
    long
        Whether tables may continue on the next page, with the package longtable.

    Returns
    -------
    str
        LaTeX, without a preamble.
    """
    packages = "booktabs,longtable" if long else "booktabs"
    return f"% needs \\usepackage{{{packages}}}\n" + "\n".join(_latex_table(table, long) for table in tables)


def _latex_table(table: Table, long: bool) -> str:
    alignment = "".join("l" if name in table.words else "r" for name in table.columns)
    caption = f"\\caption{{{' '.join(map(_escape, [f'{table.caption}.', *table.notes]))}}}"
    header = ["\\toprule", " & ".join(map(_escape, table.columns)) + r" \\", "\\midrule"]
    body = []
    marks = {"best": "\\textbf{{{}}}".format, "second": "\\underline{{{}}}".format}
    for i, cells in enumerate(table.marked(marks, _escape)):
        if i and table.columns[0] == "dataset" and table.rows[i][0] != table.rows[i - 1][0]:
            body.append("\\midrule")
        body.append(" & ".join(cells) + r" \\")
    if long:
        width = "\\setlength{\\LTcapwidth}{\\linewidth}"
        lines = [width, f"\\begin{{longtable}}{{{alignment}}}", caption + r" \\", *header, "\\endfirsthead"]
        lines += [*header, "\\endhead", "\\bottomrule", "\\endfoot", *body, "\\end{longtable}"]
    else:
        narrow = "\\small\\setlength{\\tabcolsep}{4pt}"
        lines = ["\\begin{table}", "\\centering", narrow, caption, f"\\begin{{tabular}}{{{alignment}}}"]
        lines += [*header, *body, "\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def _escape(cell: str) -> str:
    """Escape the special characters of LaTeX, and replace those that pdfLaTeX does not support."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: "\\" + character for character in "&%$#_{}"}
    special |= {"±": r"$\pm$", "†": r"\dag{}", "‡": r"\ddag{}", "−": "$-$", "<": r"\textless{}", ">": r"\textgreater{}"}
    special["µ"] = special["μ"] = r"$\mu$"
    return "".join(special.get(character) or _known(character) for character in _one_line(cell))


def _known(character: str) -> str:
    """Return a character that pdfLaTeX supports: the same, or the one without accents, or a question mark."""
    if character.isascii() or (character <= "ÿ" and character.isalpha() and character not in "ÐÞðþ"):
        return character
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


# ------------------------------------------------------------------------------------------------ HTML


def page(tables: Sequence[Table], title: str) -> str:
    """Write tables as a self-contained HTML page. A click on a heading sorts by its column, with empty cells last.

    Parameters
    ----------
    tables
        The tables.
    title
        The title of the page.

    Returns
    -------
    str
        A complete HTML document.
    """
    parts = "\n".join(_html_table(table) for table in tables)
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html.escape(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n{parts}\n"
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    classes = [["word"] * (name in table.words) for name in table.columns]
    head = "".join(
        f'<th scope="col"{_class(names)}><button>{html.escape(name)}</button></th>'
        for name, names in zip(table.columns, classes, strict=True)
    )
    rows = []
    for i, row in enumerate(table.rows):
        cells = ""
        for j, cell in enumerate(row):
            mark = table.marks.get((i, j))
            cells += f"<td{_class([*classes[j], *([mark] if mark else [])])}>{html.escape(cell)}</td>"
        rows.append(f"<tr>{cells}</tr>")
    body = "\n".join(rows)
    notes = "\n".join(f'<p class="notes">{html.escape(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll"><table>\n<caption>{html.escape(table.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n{notes}"
    )


def _class(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


# ------------------------------------------------------------------------------------------------ files


def write(tables: Sequence[Table], path: Path, title: str, *, long: bool = False) -> None:
    """Write tables to one file each as Markdown, LaTeX and HTML.

    Parameters
    ----------
    tables
        The tables.
    path
        The path without a suffix.
    title
        The title of the HTML page.
    long
        Whether tables may continue on the next page, in LaTeX.
    """
    for suffix, content in {
        "md": markdown(tables),
        "tex": latex(tables, long=long),
        "html": page(tables, title),
    }.items():
        with atomic_file(path.with_name(f"{path.name}.{suffix}")) as temporary:
            temporary.write_text(content, encoding="utf-8", newline="\n")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a data frame with as many decimals as each column needs.

    Parameters
    ----------
    table
        The data frame.
    path
        The file.
    """
    decimals = dict.fromkeys(("ssim", "ms_ssim"), "{:.5f}") | dict.fromkeys(("p", "p_holm"), "{:.3g}")
    decimals |= dict.fromkeys(("training_minutes", "minutes", "epochs"), "{:.2f}")
    decimals |= {"seconds": "{:.1f}", "reference_noise": "{:.6g}"}
    cells = table.copy()
    for name in table.select_dtypes("floating"):
        cells[name] = [None if pd.isna(v) else decimals.get(name, "{:.4f}").format(v) for v in table[name]]
    with atomic_file(path) as temporary:
        cells.to_csv(temporary, index=False, lineterminator="\n")
