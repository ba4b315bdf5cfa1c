import html.parser
import math
import shutil
import subprocess

import pytest

from dvlae.reporting import typesetting
from dvlae.reporting.typesetting import Table

NASTY = r"50 % of a_b & $c$ #1 {x} ~ ^ \end{table} <b> *i* | `é` µm ± † 顕 Ł"


@pytest.fixture
def table():
    rows = [["sem", NASTY, "33.25 ± 0.06"], ["sem", "two\nlines", "29.00"], ["kodak", "noisy", ""]]
    marks = {(0, 2): "best", (1, 2): "second"}
    return Table("PSNR of each method", ["dataset", "method", "PSNR"], rows, {"dataset", "method"}, marks, ["A note."])


def test_best_and_second_best_are_marked():
    assert typesetting.rank([1.0, 3.0, 2.0]) == {1: "best", 2: "second"}


def test_values_that_look_equal_share_a_mark():
    assert typesetting.rank([3.001, 3.002, 2.0, 1.0]) == {0: "best", 1: "best", 2: "second"}


def test_what_is_not_known_has_no_mark():
    assert typesetting.rank([math.nan, 2.0]) == {1: "best"}


def test_markdown_guards_what_would_be_markup(table):
    lines = typesetting.markdown([table]).splitlines()
    assert r"\<b> \*i\* \| \`é\`" in lines[2]
    assert "**33.25 ± 0.06**" in lines[2] and "<ins>29.00</ins>" in lines[3]
    assert "two lines" in lines[3]


def test_several_tables_of_markdown_have_their_captions(table):
    assert typesetting.markdown([table, table]).count("**PSNR of each method**") == 2
    assert "PSNR of each method" not in typesetting.markdown([table])


class Cells(html.parser.HTMLParser):
    """The text of each cell, and addresses of anything that would be fetched."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.fetched, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href")]
        self.inside = tag == "td"
        if self.inside:
            self.cells.append("")

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data

    def handle_endtag(self, tag):
        self.inside = False


def test_html_holds_every_cell_as_it_is_and_fetches_nothing(table):
    page = Cells(typesetting.page([table], "A & B"))
    assert page.cells == [cell for row in table.rows for cell in row]
    assert page.fetched == []


@pytest.fixture
def chromium():
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here to open a page with")
    return program


def test_a_click_on_a_heading_sorts_by_it_and_leaves_empty_cells_last(chromium, tmp_path):
    rows = [["b", "9.5 ± 0.1"], ["c", ""], ["a", "10.0"]]
    page = typesetting.page([Table("T", ["method", "PSNR"], rows, {"method"})], "T")
    click = "<script>document.querySelectorAll('th button')[1].click()</script></body>"
    (tmp_path / "page.html").write_text(page.replace("</body>", click))
    printed = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom",
         (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert Cells(printed).cells == ["a", "10.0", "b", "9.5 ± 0.1", "c", ""]


@pytest.mark.parametrize("long", [False, True])
def test_latex_compiles_whatever_the_names(table, long, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here to compile with")
    text = typesetting.latex([table, table], long=long)
    packages = text.partition("\n")[0].removeprefix("% needs ")
    document = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{text}\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "paper.pdf").stat().st_size > 0, done.stdout[-2000:]
