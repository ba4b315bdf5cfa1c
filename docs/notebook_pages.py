"""A hook of MkDocs: notebooks are pages of the site, with their outputs."""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()([^)#:\s]+)\.ipynb(?=[#)])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page in the place of each notebook.

    Parameters
    ----------
    files
        The files of the site.
    config
        Its configuration.

    Returns
    -------
    Files
        The files with the pages.
    """
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        assert file.abs_src_path is not None
        notebook = json.loads(Path(file.abs_src_path).read_text(encoding="utf-8"))
        files.remove(file)
        uri = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, uri, content="\n".join(map(_cell, notebook["cells"]))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to notebooks lead to their pages.

    Parameters
    ----------
    markdown
        The page.
    page, config, files
        Those of the site.

    Returns
    -------
    str
        The page with other links.
    """
    return LINK.sub(r"\1.md", markdown)


def _cell(cell: dict[str, Any]) -> str:
    """Write a cell and its outputs as Markdown."""
    text = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return f"{text}\n"
    return f"```python\n{text}\n```\n\n" + "".join(map(_output, cell["outputs"]))


def _output(output: dict[str, Any]) -> str:
    """Write what a cell printed, returned or drew."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![What the cell draws](data:image/png;base64,{''.join(data['image/png'].split())})\n\n"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```\n\n"
