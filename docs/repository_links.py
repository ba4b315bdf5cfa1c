"""A hook of MkDocs: files outside ``docs/`` that pages link to are in ``repository/`` on the site.

So the same links work on the site and where the repository is read.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
PREFIX = "repository"
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)]*)?\))")
# Roles of Sphinx, which docstrings have and mkdocstrings does not know.
ROLE = re.compile(r":(?:attr|class|func|meth|mod):(?=<code>)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to, and those that these link to.

    Parameters
    ----------
    files
        The files in ``docs/``.
    config
        The configuration of the site.

    Returns
    -------
    Files
        These, and the others.
    """
    waiting = [REPOSITORY / "README.md", *(REPOSITORY / "docs" / file.src_uri for file in files.documentation_pages())]
    known = set(waiting)
    while waiting:
        page = waiting.pop()
        if not page.is_relative_to(REPOSITORY / "docs"):
            uri = f"{PREFIX}/{page.relative_to(REPOSITORY).as_posix()}"
            files.append(File.generated(config, uri, abs_src_path=str(page)))
        if page.suffix == ".md":
            targets = [Path(os.path.normpath(page.parent / link[2])) for link in LINK.finditer(page.read_text("utf-8"))]
            new = {target for target in targets if target.is_file()} - known
            waiting += sorted(new)
            known |= new
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into those of the site.

    Parameters
    ----------
    markdown
        The page.
    page
        Where it is.
    config, files
        Those of the site.

    Returns
    -------
    str
        The page with other links.
    """
    place = PurePosixPath(page.file.src_uri)
    inside = place.is_relative_to(PREFIX)
    folder = (place.relative_to(PREFIX) if inside else "docs" / place).parent

    def moved(link: re.Match[str]) -> str:
        target = PurePosixPath(os.path.normpath(folder / link[2]))
        on_site = target.relative_to("docs") if target.is_relative_to("docs") else PREFIX / target
        return link[1] + os.path.relpath(on_site, place.parent) + link[3]

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remove the names of Sphinx's roles.

    Parameters
    ----------
    html
        The page.
    page, config, files
        Those of the site.

    Returns
    -------
    str
        The page without them.
    """
    return ROLE.sub("", html)
