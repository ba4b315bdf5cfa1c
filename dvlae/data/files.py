"""Finding and naming the image files of users."""

import logging
import re
import unicodedata
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from dvlae.config.fields import expand_home
from dvlae.data.pixels import errors_named
from dvlae.data.sources import SIGNATURES, START_BYTES, SUFFIXES, ZARR_METADATA, refusal
from dvlae.system.errors import UserError

logger = logging.getLogger(__name__)

MOST_NAMED = 3
# The kinds of files whose first bytes are those of no other kind.
SUFFIXES_OF_KINDS = {"tiff": ".tif", "png": ".png", "npy": ".npy"}
# The end of a glob that says of which kind a file is, whose upper and lower case cameras and programs choose.
SUFFIX = re.compile(r"(\.(ome|zarr))*\.[a-z0-9]+$", re.IGNORECASE | re.ASCII)


def natural_key(path: str | Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key for sorting names in natural order.

    Parameters
    ----------
    path
        A name or a path.

    Returns
    -------
    tuple
        The key; numbers come before text, and case decides only between names that differ in nothing else.

    Examples
    --------
    >>> from dvlae.data.files import natural_key
    >>> sorted(["a10.tif", "a2.tif"], key=natural_key)
    ['a2.tif', 'a10.tif']
    """
    parts = re.split("([0-9]+)", str(path).casefold())
    key = [(0, int(part), "") if number % 2 else (1, 0, part) for number, part in enumerate(parts) if part]
    return key, str(path)


def find_images(patterns: str | Sequence[str], folder: Path, key: str) -> list[Path]:
    """Find image files.

    Parameters
    ----------
    patterns
        A glob, a file or a folder of images, or a list of them, relative to ``folder`` or absolute. In names of files
        and folders, brackets may stand for themselves. Suffixes match in upper and lower case, so that ``*.tif`` finds
        ``a.TIF``; a warning names the images that a glob leaves out because of another difference of case.
    folder
        The folder for relative patterns.
    key
        The setting with the patterns, for the error message.

    Returns
    -------
    list of Path
        All matching files in natural order, each file once even if links lead to it, too.

    Raises
    ------
    UserError
        If nothing matches one of the patterns, a file is of an unknown kind, or a link leads nowhere.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = _match(pattern, folder)
        if not matches:
            raise UserError(f"{key}: {_why_nothing(pattern, folder)}")
        found.update(matches)
        other_case = set(_match(pattern, folder, any_case=True)).difference(matches)
        if names := sorted((path.name for path in other_case if _is_image(path)), key=natural_key):
            logger.warning(
                f"{key}: {pattern!r} leaves out {_list_some(names)}, as upper and lower case differ; write [aA] for a "
                "letter of either case"
            )
    links = {path for path in found if path.is_symlink()}
    folders = {folder: folder.resolve() for folder in {path.parent for path in found}}
    files: dict[Path, Path] = {}
    # A file goes before the links to it.
    for path in [*sorted(found - links, key=natural_key), *sorted(links, key=natural_key)]:
        _check_file(path, key)
        real = path.resolve() if path in links else folders[path.parent] / path.name
        first = files.setdefault(real, path)
        if first != path:
            logger.warning(f"{path}: is the same file as {first}, which is read once")
        if path in links and not real.exists():
            raise UserError(f"{path}: is a link to {path.readlink()}, which is not there")
    return sorted(files.values(), key=natural_key) if links else list(files.values())


def _check_file(path: Path, key: str) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{key}: found a file whose name is not UTF-8, {str(path)!r}; rename it") from None
    if path.suffix.lower() not in SUFFIXES and not path.is_dir():
        if (right := _right_name(path)) is not None:
            raise UserError(f"{path}: is an image, but has no suffix that says so; rename it to {right!r}")
        raise UserError(f"{refusal(path, path.suffix)}; a pattern such as '*.tif' for {key!r} leaves it out")


def _right_name(path: Path) -> str | None:
    """Return a name with a suffix for a file that its first bytes call an image; None if they do not."""
    with errors_named(path), path.open("rb") as file:
        start = file.read(START_BYTES)
    kinds = (kind for signature, kind in SIGNATURES.items() if start.startswith(signature))
    suffix = SUFFIXES_OF_KINDS.get(next(kinds, ""))
    name = path.name.strip(" .")
    return suffix and (name if Path(name).suffix.lower() in SUFFIXES else name + suffix)


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    if path.is_dir():
        return name.endswith(".zarr") or any((path / metadata).exists() for metadata in ZARR_METADATA)
    # ImageJ stores regions of interest in archives.
    return name.endswith(tuple(SUFFIXES)) and (not name.endswith(".zip") or name.endswith(".zarr.zip"))


def _match(pattern: str, folder: Path, any_case: bool = False) -> list[Path]:
    """Return the files that match a pattern, if asked for with globs in any case; of a folder, the images in it."""
    path = expand_home(pattern)
    start = Path(path.anchor) if path.is_absolute() else folder
    parts = path.parts[1:] if path.is_absolute() else path.parts
    files = []
    for match in _walk(start, parts, any_case):
        if not match.is_dir() or _is_image(match):
            files.append(match)
        elif not parts or not re.search("[*?]", parts[-1]):
            files += [child for child in _children(match) if _is_image(child)]
    return files


def _walk(start: Path, parts: Sequence[str], any_case: bool = False) -> Iterator[Path]:
    """Yield what matches the parts of a path below a folder; ``**`` does not follow links that lead back."""
    if not parts:
        yield start
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _walk(start, rest or ("*",), any_case)
        for child in _children(start):
            above = {folder.resolve() for folder in (start, *start.parents)} if child.is_symlink() else set()
            if child.is_dir() and not _is_image(child) and child.resolve() not in above:
                yield from _walk(child, parts, any_case)
        return
    if part in ("..", "."):
        yield from _walk(start / part, rest, any_case)
        return
    for child in _named(start, part, any_case):
        if not rest or child.is_dir():
            yield from _walk(child, rest, any_case)


def _named(folder: Path, part: str, any_case: bool) -> list[Path]:
    """Return what has a name or matches a glob in a folder, whatever way the name is written in Unicode.

    The suffix may have another case, as it has on file systems that ignore case; with ``any_case``, a glob may.
    """
    if (folder / part).exists() or (folder / part).is_symlink():
        return [folder / part]
    wanted = unicodedata.normalize("NFC", part)
    named = [(unicodedata.normalize("NFC", child.name), child) for child in _children(folder, wanted.startswith("."))]
    if exact := [child for name, child in named if name == wanted]:
        return exact
    is_glob, suffix = re.search(r"[*?[]", wanted), SUFFIX.search(wanted)
    length = len(suffix[0]) if suffix else 0

    def folded(name: str) -> str:
        at = max(0, len(name) - length)
        return name.casefold() if any_case and is_glob else name[:at] + name[at:].lower()

    if not is_glob:
        return [child for name, child in named if folded(name) == folded(wanted)]
    globs = (wanted, wanted.replace("[", "[[]"))
    matches = ([child for name, child in named if fnmatchcase(folded(name), folded(glob))] for glob in globs)
    return next((found for found in matches if found), [])


def _children(folder: Path, hidden: bool = False) -> list[Path]:
    if not folder.is_dir():
        return []
    return [child for child in folder.iterdir() if hidden or not child.name.startswith(".")]


def _why_nothing(pattern: str, folder: Path) -> str:
    """Say why a pattern matches nothing, with what is there instead."""
    path = expand_home(pattern)
    place = folder / path.parent
    if (folder / path).is_dir():
        return f"the folder {folder / path} contains no images, which end with {', '.join(SUFFIXES)}"
    said = f"no file matches {pattern!r}" + ("" if path.is_absolute() else f" in {folder.absolute()}")
    wanted = unicodedata.normalize("NFC", path.name).lower()
    parents = list(_walk(folder, path.parent.parts)) if not path.is_absolute() else [place]
    children = sorted((child for parent in parents for child in _children(parent)), key=natural_key)
    for child in children:
        if fnmatchcase(unicodedata.normalize("NFC", child.name).lower(), wanted):
            return f"{said}, where upper and lower case differ: there is {child.name!r}"
    names = [child.name for child in children if _is_image(child)]
    return f"{said}; there are {_list_some(names)}" if names else said


def _list_some(names: Sequence[str]) -> str:
    return ", ".join([*map(repr, names[:MOST_NAMED]), *(["others"] if len(names) > MOST_NAMED else [])])


def unique_names(files: Sequence[PurePath]) -> list[str]:
    """Name images after their files, with as many parent folders as make the names unique.

    Parameters
    ----------
    files
        The image files.

    Returns
    -------
    list of str
        A name for each file. No two names are equal, even if case is ignored.

    Raises
    ------
    UserError
        If two files of a folder differ only in their suffix or in case.
    """
    names: list[str] = []
    for depth in range(max(len(file.parts) for file in files)):
        names = ["_".join(_parts(file)[-1 - depth :]) for file in files]
        if len({_folded(name) for name in names}) == len(names):
            return names
    folded = [_folded(name) for name in names]
    again = next(number for number, name in enumerate(folded) if name in folded[:number])
    first, second = files[folded.index(folded[again])], files[again]
    same_letters = _folded(first.name) == _folded(second.name)
    how = "in upper and lower case" if same_letters else "in their suffix"
    raise UserError(
        f"{second}: differs from {first.name} only {how}, and each image needs a name of its own; rename one of them, "
        "or list the files that are meant"
    )


def _parts(file: PurePath) -> list[str]:
    """Return the parts of a path, of which the first one may be the letter of a drive."""
    first, *others = file.with_suffix("").parts
    return [*filter(None, [re.sub(r"[:/\\]", "", first) if file.anchor else first]), *others]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def numbered_name(name: str, number: int, count: int, separator: str = "_") -> str:
    """Append the number of a frame to a name, if there are several frames.

    Parameters
    ----------
    name
        The name of a file or an image.
    number
        Index of the frame.
    count
        Number of frames.
    separator
        Text before the number.

    Returns
    -------
    str
        The name; the numbers of all frames have equally many digits.
    """
    return name if count == 1 else f"{name}{separator}{number:0{len(str(count - 1))}d}"
