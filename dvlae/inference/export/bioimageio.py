"""The exported denoiser as a package of the BioImage Model Zoo, tested by the library of the zoo."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import yaml

from dvlae.inference.export.documentation import PAPERS, save_cover
from dvlae.inference.export.example import TOLERANCE, Example
from dvlae.inference.export.formats import INPUT, OPSET, OUTPUT, needed
from dvlae.inference.export.network import ExportedDenoiser
from dvlae.system.errors import UserError
from dvlae.system.files import contents_beside
from dvlae.system.hashes import sha256
from dvlae.system.software import install_line

# The files of a package by which it is known and run.
PACKAGE_FILE, TORCHSCRIPT_FILE, ONNX_FILE = "rdf.yaml", "weights.pt", "weights.onnx"
DOCUMENTATION, COVER = "README.md", "cover.png"
PACKAGE_FILES = contents_beside(
    PACKAGE_FILE,
    TORCHSCRIPT_FILE,
    ONNX_FILE,
    DOCUMENTATION,
    COVER,
    *(f"{tensor}{suffix}" for tensor in (INPUT, OUTPUT) for suffix in (".npy", ".tif")),
)
# A version of bioimageio.spec that works with this pydantic and later ones; those before are not known to.
WITH_NEW_PYDANTIC, NEW_PYDANTIC = [0, 5, 14, 3], [2, 14]
# Programs that are older than the library still read this version of the description.
FORMAT_VERSION = "0.5.3"
# Names of models have these letters, and at least so many; identifiers are in lower case.
NAME, MIN_NAME = re.compile(r"[^\w+() -]", re.ASCII), 5
IDENTIFIER = re.compile(r"[^a-z0-9_.-]")


def model_name(output: Path) -> str:
    """Return the name of a model for the zoo.

    Parameters
    ----------
    output
        The package to make.

    Returns
    -------
    str
        Its name without the suffix, in the characters that the zoo allows.

    Examples
    --------
    >>> model_name(Path("my spheres, SEM.zip")), model_name(Path("a.zip"))
    ('my spheres_ SEM', 'dvlae a')
    """
    name = NAME.sub("_", output.stem)
    return name if len(name) >= MIN_NAME else f"dvlae {name}"


def check_licence(licence: str) -> None:
    """Refuse a licence that the zoo does not know.

    Parameters
    ----------
    licence
        Its identifier.

    Raises
    ------
    UserError
        If it is no identifier of SPDX, or the extra ``export`` is not installed.
    """
    spec = needed("bioimageio.spec.model.v0_5")
    try:
        spec.LicenseId(licence)
    except ValueError:
        raise UserError(
            f"--license: found {licence!r}, allowed: an identifier of spdx.org/licenses, such as MIT, CC-BY-4.0 or "
            "CC0-1.0"
        ) from None


def check_library() -> None:
    """Refuse versions of the zoo's library and of pydantic that do not work together.

    Raises
    ------
    UserError
        If they do not, or the extra ``export`` is not installed.
    """
    for name in ("onnx", "onnxruntime", "bioimageio.core"):
        needed(name)
    found = {name: version(name) for name in ("bioimageio.spec", "pydantic")}
    spec, pydantic = ([int(number) for number in re.findall(r"\d+", text)] for text in found.values())
    if spec < WITH_NEW_PYDANTIC and pydantic >= NEW_PYDANTIC:
        raise UserError(
            f"--format bioimageio: found pydantic {found['pydantic']}, with which bioimageio.spec "
            f"{found['bioimageio.spec']} fails; {install_line('export')}"
        )


def write_package(
    folder: Path,
    network: ExportedDenoiser,
    example: Example,
    *,
    name: str,
    documentation: str,
    licence: str,
    authors: Sequence[str],
) -> None:
    """Complete a package.

    Parameters
    ----------
    folder
        Folder with the files :data:`TORCHSCRIPT_FILE` and :data:`ONNX_FILE`, to which the others are added.
    network, example
        The exported network, and the image on which it was tried.
    name, documentation, licence, authors
        What the package says of the model.
    """
    (folder / DOCUMENTATION).write_text(documentation, encoding="utf-8", newline="\n")
    save_cover(example, folder / COVER)
    for tensor, image in {INPUT: example.noisy, OUTPUT: example.denoised}.items():
        np.save(folder / f"{tensor}.npy", image[None])
        # A single trace is an image of one row, and an image of a single channel has no axis of channels.
        sample = image[0] if len(image) == 1 and image.ndim > 2 else image
        tifffile.imwrite(folder / f"{tensor}.tif", sample, photometric="minisblack")
    sides = list(zip("zyx"[-len(network.stride) :], network.smallest, network.halo, strict=True))
    # With a larger step, programs refuse images of other sides instead of padding them.
    inputs = [{"type": "space", "id": axis, "size": {"min": smallest, "step": 1}} for axis, smallest, _ in sides]
    outputs = [
        {"type": "space", "id": axis, "size": {"tensor_id": INPUT, "axis_id": axis}, "halo": halo}
        for axis, _, halo in sides
    ]
    tolerance = {
        "relative_tolerance": 0.0,
        "absolute_tolerance": TOLERANCE * float(example.noise.min()) + example.rounding,
    }
    description = {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": name,
        "id": IDENTIFIER.sub("_", name.lower()),
        "description": "Removes noise from microscopy images; trained on noisy images alone.",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "authors": [{"name": author} for author in authors],
        "license": licence,
        "cite": [{"text": text, "doi": doi} for doi, text in PAPERS.items()],
        "documentation": DOCUMENTATION,
        "covers": [COVER],
        "tags": ["denoising", "self-supervised", f"{len(sides)}d"],
        "inputs": [_tensor(folder, INPUT, "noisy images, grey values as recorded", len(example.noisy), inputs)],
        "outputs": [_tensor(folder, OUTPUT, "clean images, on the same scale", len(example.noisy), outputs)],
        "weights": {
            "torchscript": {
                **_file(folder, TORCHSCRIPT_FILE),
                "pytorch_version": torch.__version__.partition("+")[0],
            },
            "onnx": {**_file(folder, ONNX_FILE), "opset_version": OPSET, "parent": "torchscript"},
        },
        "config": {"bioimageio": {"reproducibility_tolerance": [tolerance]}},
    }
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (folder / PACKAGE_FILE).write_text(text, encoding="utf-8", newline="\n")


def _file(folder: Path, name: str) -> dict[str, str]:
    return {"source": name, "sha256": sha256(folder / name)}


def _tensor(folder: Path, name: str, text: str, channels: int, sides: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe the input or the output, given its spatial axes."""
    names = [f"channel{number}" for number in range(channels)]
    return {
        "id": name,
        "description": text,
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": names}, *sides],
        "data": {"type": "float32"},
        "test_tensor": _file(folder, f"{name}.npy"),
        "sample_tensor": _file(folder, f"{name}.tif"),
    }


def zip_package(folder: Path, archive: Path) -> None:
    """Put the files of a package into a zip archive.

    Parameters
    ----------
    folder
        The package.
    archive
        The file to write, ``NAME.zip``.
    """
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)


def check_package(package: Path) -> None:
    """Run the test of the zoo's own library on a package.

    Parameters
    ----------
    package
        Zip archive or folder.

    Raises
    ------
    UserError
        If it fails, or the extra ``export`` is not installed.
    """
    core = needed("bioimageio.core")
    with _quiet():
        summary = core.test_model(package if package.is_file() else package / PACKAGE_FILE, devices=["cpu"])
    if summary.status != "passed":
        errors = " ".join(error.msg for detail in summary.details for error in detail.errors)
        raise UserError(
            f"--format bioimageio: the test of bioimageio.core found {summary.status!r} "
            f"({' '.join(errors.split())}); nothing was written"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the messages of the zoo's library, which are for its developers."""
    logger = needed("loguru").logger
    logger.disable("bioimageio")
    try:
        yield
    finally:
        logger.enable("bioimageio")
