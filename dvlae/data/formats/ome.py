"""Sets of OME-TIFF files, which all say which planes of which images are in which file."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from dvlae.data.pixels import open_tiff
from dvlae.system.errors import UserError

# The longest list of missing files in a message.
MOST_NAMED = 5


@dataclass(frozen=True)
class OmeSet:
    """The files that have to be read together with one.

    Attributes
    ----------
    first
        The file to open.
    files
        All files, in the order of the metadata.
    xml
        The metadata. None: the file has no OME metadata.
    resolved
        The metadata with the complete paths of the files, all symbolic links resolved.
    images
        The number of images that they describe.
    """

    first: Path
    files: tuple[Path, ...]
    xml: str | None = None
    resolved: str | None = None
    images: int = 0


def find_set(path: Path) -> OmeSet:
    """Find the files that belong to an OME-TIFF file.

    Parameters
    ----------
    path
        A TIFF file of any kind.

    Returns
    -------
    OmeSet
        The files; only this one if it belongs to no set.

    Raises
    ------
    UserError
        If a file of the set is missing.
    ValueError
        If one of them is no TIFF file.
    """
    first, root = path, _read_metadata(path)
    if root is None:
        return OmeSet(path, (path,))
    master = next((element.get("MetadataFile", "") for element in root if _is(element, "BinaryOnly")), None)
    if master is not None:
        found = _beside(path, master)
        if found is None:
            raise UserError(f"{path}: its OME metadata is in {master}, which is not there; put it beside this file")
        if found.suffix.lower() in (".ome", ".xml"):
            root = ElementTree.fromstring(found.read_bytes())
        else:
            first, root = found, _read_metadata(found)
            if root is None:
                raise ValueError(f"its OME metadata should be in {found.name}, which has none")
    xml = ElementTree.tostring(root, "unicode")
    files = _members(first, root)
    for file in files:
        with open_tiff(file):
            pass
    images = sum(_is(pixels, "Pixels") for image in root if _is(image, "Image") for pixels in image)
    return OmeSet(first, files, xml, ElementTree.tostring(root, "unicode"), images)


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def _read_metadata(path: Path) -> ElementTree.Element | None:
    with open_tiff(path) as file:
        xml = file.ome_metadata
    try:
        return None if xml is None else ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        # tifffile says so, too, and what it says is shown.
        return None


def _members(first: Path, root: ElementTree.Element) -> tuple[Path, ...]:
    """Return the files of a set in the order of the metadata, and put their paths into these."""
    named = [element for element in root.iter() if _is(element, "UUID") and element.get("FileName")]
    if len({element.text for element in named}) == 1:
        # A single file may have been renamed.
        for element in named:
            if _beside(first, element.get("FileName", "")) is None:
                element.set("FileName", first.name)
    others, missing = dict[Path, None](), dict[str, None]()
    for element in named:
        name = element.get("FileName", "")
        found = first if element.text == root.get("UUID") else _beside(first, name)
        if found is None:
            missing[name] = None
        else:
            real = found.resolve()
            element.set("FileName", real.name if found == first else str(real))
            others[found] = None
    if missing:
        shown = ", ".join(list(missing)[:MOST_NAMED]) + (", ..." if len(missing) > MOST_NAMED else "")
        raise UserError(
            f"{first}: belongs to a set of {len(missing) + len(others)} OME-TIFF files, of which {len(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing in {first.parent.absolute()}: {shown}; each has to be "
            "there, under the name that it had at first"
        )
    return tuple(others) or (first,)


def _beside(path: Path, name: str) -> Path | None:
    """Return a file in the folder of another, or in one below it, whatever way its name is written in Unicode."""
    # On Windows a path may have a drive without being absolute, or begin at the root of the current one.
    if Path(name).anchor or ".." in Path(name).parts:
        return None
    file = path.parent / name
    if not file.is_file():
        normal = unicodedata.normalize("NFC", file.name)
        others = file.parent.iterdir() if file.parent.is_dir() else ()
        file = next((other for other in others if unicodedata.normalize("NFC", other.name) == normal), file)
    return file if file.is_file() else None
