"""Tables for readers: Markdown, LaTeX and HTML."""

import html
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table as it is read.

    Attributes
    ----------
    caption
        What it shows.
    columns
        Their headings.
    rows
        Cells as text.
    words
        The headings of columns of words, which begin at the left; numbers end at the right.
    marks
        ``"best"`` or ``"second"``, by the numbers of row and column.
    notes
        Sentences below it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[str]
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def marked(self, marks: Mapping[str, Callable[[str], str]], escape: Callable[[str], str]) -> list[list[str]]:
        """Return the escaped cells, the marked ones as the function of their mark makes them.

        Parameters
        ----------
        marks
            By ``best`` and ``second``, a function that marks an escaped cell.
        escape
            A function that escapes a cell.

        Returns
        -------
        list of list of str
            Row by row.
        """
        plain = {None: lambda cell: cell} | dict(marks)
        return [
            [plain[self.marks.get((i, j))](escape(cell)) for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]


def rank(values: Sequence[float], decimals: int = 2) -> dict[int, str]:
    """Mark the best and the second best of some values; those that look equal share a mark, NaN has none.

    Parameters
    ----------
    values
        Higher is better.
    decimals
        Number of decimals that are shown.

    Returns
    -------
    dict
        ``best`` or ``second`` by the place of the value.
    """
    shown = pd.Series(values, dtype=float).round(decimals)
    places = sorted(shown.dropna().unique(), reverse=True)[:2]
    names = dict(zip(places, ("best", "second"), strict=False))
    return {i: names[value] for i, value in enumerate(shown) if value in names}


def number(value: float, decimals: int, sign: bool = False) -> str:
    """Write a number; nothing where there is none.

    Parameters
    ----------
    value
        The number; NaN for none.
    decimals
        Number of decimals.
    sign
        Whether a positive number has its sign, too.

    Returns
    -------
    str
        The text of a cell.
    """
    return "" if pd.isna(value) else f"{value:{'+' if sign else ''}.{decimals}f}"


def text(value: Any) -> str:
    """Write a value; nothing where there is none.

    Parameters
    ----------
    value
        What a data frame holds.

    Returns
    -------
    str
        The text of a cell.
    """
    return "" if value is None or pd.isna(value) else str(value)


# ------------------------------------------------------------------------------------------------ Markdown


def markdown(tables: Sequence[Table]) -> str:
    """Lay out tables that read well as text, too; the best in bold, the second best underlined.

    Parameters
    ----------
    tables
        Each has its caption above it where there are several.

    Returns
    -------
    str
        Markdown, with HTML for what is underlined.
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
    """Guard what Markdown would take for markup."""
    return "".join("\\" + character if character in "|*<`" else character for character in _one_line(cell))


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


# ------------------------------------------------------------------------------------------------ LaTeX


def latex(tables: Sequence[Table], *, long: bool = False) -> str:
    """Write tables of the booktabs package; the best in bold, the second best underlined.

    Parameters
    ----------
    tables
        Each gets a caption, its notes in it.
    long
        They may break over pages, with the package longtable.

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
    """Escape what LaTeX would take as a command, and write what pdfLaTeX does not know in letters that it does."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: "\\" + character for character in "&%$#_{}"}
    special |= {"±": r"$\pm$", "†": r"\dag{}", "‡": r"\ddag{}", "−": "$-$", "<": r"\textless{}", ">": r"\textgreater{}"}
    special["µ"] = special["μ"] = r"$\mu$"
    return "".join(special.get(character) or _known(character) for character in _one_line(cell))


def _known(character: str) -> str:
    """Return a character that pdfLaTeX knows in every encoding: itself, or without its accents, or a question mark."""
    if character.isascii() or (character <= "ÿ" and character.isalpha() and character not in "ÐÞðþ"):
        return character
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


# ------------------------------------------------------------------------------------------------ HTML

STYLE_SHEET = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
.scroll { overflow-x: auto; margin: 1.5rem 0 .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; border-bottom: 2px solid #222; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th { border-bottom: 1px solid #222; border-top: 2px solid #222; vertical-align: bottom; padding: 0; }
th button { all: unset; cursor: pointer; padding: .3rem .5rem; display: block; }
th button:focus-visible { outline: 2px solid #0072b2; }
th button::after { content: "\\00a0\\2195"; color: #767676; }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; color: #0072b2; }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; color: #0072b2; }
td { padding: .25rem .5rem; text-align: right; white-space: nowrap; }
th { text-align: right; }
td.word, th.word { text-align: left; }
tbody tr:nth-child(even) { background: #f4f4f4; }
.best { font-weight: 700; }
.second { text-decoration: underline; }
.notes { margin: 0 0 .3rem; font-size: .9rem; }
"""

SCRIPT = """
document.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
  const heading = button.parentElement, body = heading.closest("table").tBodies[0];
  const column = heading.cellIndex, numeric = !heading.classList.contains("word");
  const previous = heading.getAttribute("aria-sort");
  const direction = previous ? (previous === "ascending" ? -1 : 1) : (numeric ? -1 : 1);
  heading.parentElement.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const value = row => row.cells[column].textContent;
  const order = (a, b) => numeric ? parseFloat(a) - parseFloat(b) : a.localeCompare(b, undefined, {numeric: true});
  [...body.rows].sort((a, b) => {
    const empty = (value(a) === "") - (value(b) === "");
    return empty || (value(a) === "" ? 0 : direction * order(value(a), value(b)));
  }).forEach(row => body.append(row));
}));
"""


def page(tables: Sequence[Table], title: str) -> str:
    """Write a page of HTML that needs nothing else: a click on a heading sorts by it, empty cells last.

    Parameters
    ----------
    tables
        In the order of the page.
    title
        Of the page.

    Returns
    -------
    str
        A whole HTML document.
    """
    parts = "\n".join(_html_table(table) for table in tables)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE_SHEET}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n{parts}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
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
