"""Export the direct denoiser of a model for other programs, as ``dvlae export`` does."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from dvlae.inference.export.bioimageio import (
    ONNX_FILE,
    PACKAGE_FILE,
    PACKAGE_FILES,
    TORCHSCRIPT_FILE,
    check_library,
    check_licence,
    check_package,
    model_name,
    write_package,
    zip_package,
)
from dvlae.inference.export.documentation import describe, left_out
from dvlae.inference.export.example import TOLERANCE, Example
from dvlae.inference.export.formats import needed, run_onnx, run_torchscript, write_onnx, write_torchscript
from dvlae.inference.export.network import ExportedDenoiser
from dvlae.models.files import load_model, read_seen_scale
from dvlae.runs.record import RECORD_NAME, read_run
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_file, atomic_folder, check_folder

logger = logging.getLogger(__name__)

Format = Literal["bioimageio", "onnx", "torchscript"]
SUFFIXES: Mapping[Format, Sequence[str]] = {
    "bioimageio": (".zip", ""),
    "onnx": (".onnx",),
    "torchscript": (".pt",),
}
EXAMPLES = {"--license": "CC-BY-4.0", "--author": "'Ada Lovelace'"}


def export(
    model: Path,
    output: Path,
    *,
    kind: Format,
    images: Path | None = None,
    licence: str | None = None,
    authors: Sequence[str] = (),
) -> None:
    """Write the direct denoiser of a model as a file for other programs.

    What was written is run, and compared with our own inference. If it differs, nothing is left.

    Parameters
    ----------
    model
        Folder of a trained model with a direct denoiser.
    output
        What to make: for ``bioimageio`` a zip archive, or a folder if the name has no suffix; for ``onnx`` a file
        ``.onnx``; for ``torchscript`` a file ``.pt``.
    kind
        ``bioimageio``, ``onnx`` or ``torchscript``.
    images
        Folder with ``manifest.csv``, of which one image becomes the example. None: the model samples one.
    licence, authors
        The licence as an identifier of SPDX, and who made the model, for ``bioimageio``.

    Raises
    ------
    UserError
        If the model has no direct denoiser, an argument does not fit the format, the extra ``export`` is not installed,
        the images cannot be used, or the exported model computes other numbers.
    """
    _check_output(output, kind)
    _check_options(kind, licence, authors)
    network, example = _prepare(model, images)
    if kind == "bioimageio":
        _export_package(model, output, network, example, str(licence), authors)
    else:
        with atomic_file(output) as file:
            _write(kind, network, example, file)
    logger.info("export: the model in other programs does not do all that dvlae does:")
    for sentence in left_out(network):
        logger.info(f"  {sentence}")


def _check_output(output: Path, kind: Format) -> None:
    """Refuse a name that does not fit, so that no image is replaced, and a folder that is no package."""
    allowed = SUFFIXES[kind]
    if output.suffix not in allowed:
        names = " or ".join(
            f"a name that ends with {suffix}" if suffix else "one without a suffix" for suffix in allowed
        )
        raise UserError(f"OUTPUT: found {output}, allowed for --format {kind}: {names}")
    if not output.suffix:
        check_folder(output)
    if output.is_dir() and not (output / PACKAGE_FILE).exists():
        raise UserError(f"OUTPUT: found the folder {output}, which is no exported model; allowed: a new path")


def _check_options(kind: Format, licence: str | None, authors: Sequence[str]) -> None:
    """Refuse missing packages, and values that a package needs or that other files have no place for."""
    if kind == "bioimageio":
        check_library()
    elif kind == "onnx":
        needed("onnx")
        needed("onnxruntime")
    values = {"--license": licence, "--author": authors}
    for option, value in values.items():
        if kind == "bioimageio" and not value:
            raise UserError(f"{option}: found none, but --format bioimageio needs it; for example {EXAMPLES[option]}")
        if kind != "bioimageio" and value:
            raise UserError(f"{option}: found a value, but --format {kind} has no place for it")
    for author in authors:
        if not author.strip() or set(author) & set("/\\"):
            raise UserError(f"--author: found {author!r}, allowed: a name without slashes")
    if licence is not None:
        check_licence(licence)


def _prepare(model: Path, images: Path | None) -> tuple[ExportedDenoiser, Example]:
    """Load the model; return its network, and the image on which it is tried."""
    loaded = load_model(model)
    if loaded.direct_denoiser is None:
        raise UserError(
            f"{model}: found a model without a direct denoiser, the part that other programs can run; train with "
            "`model: {direct_denoiser: refined}` in the configuration, or for longer with `dvlae denoise`, which "
            "says whether it refines a denoiser"
        )
    if loaded.architecture.network != "dvlae":
        raise UserError(
            f"{model}: found network {loaded.architecture.network!r}, allowed: 'dvlae', the only one that is exported"
        )
    network = ExportedDenoiser(loaded)
    return network, Example.choose(loaded, network, images)


def _export_package(
    model: Path, output: Path, network: ExportedDenoiser, example: Example, licence: str, authors: Sequence[str]
) -> None:
    name = model_name(output)
    record = read_run(model) if (model / RECORD_NAME).exists() else {}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files: dict[Format, Path] = {"torchscript": folder / TORCHSCRIPT_FILE, "onnx": folder / ONNX_FILE}
        differences = {str(kind): _write(kind, network, example, path) for kind, path in files.items()}
        write_package(
            folder,
            network,
            example,
            name=name,
            documentation=describe(name, network, example, differences, record, read_seen_scale(model)),
            licence=licence,
            authors=authors,
        )
        if output.suffix:
            with atomic_file(output) as archive:
                zip_package(folder, archive)
                check_package(archive)
        else:
            with atomic_folder(output, PACKAGE_FILES) as copy:
                shutil.copytree(folder, copy, dirs_exist_ok=True)
                check_package(copy)
    logger.info("export: the test of bioimageio.core passed")


def _write(kind: Format, network: ExportedDenoiser, example: Example, path: Path) -> float:
    """Write a file and compare it with our own inference; return the difference in standard deviations of the noise."""
    if kind == "onnx":
        write_onnx(network, example.noisy[None], path, " ".join(left_out(network)))
        difference = example.difference(run_onnx(path))
    else:
        write_torchscript(network, example.noisy[None], path)
        difference = example.difference(run_torchscript(path))
    # This is true of what is not a number, too.
    if not difference <= TOLERANCE:
        raise UserError(
            f"--format {kind}: found a difference of {difference:.2g} standard deviations of the noise from our own "
            f"numbers, allowed: {TOLERANCE:g}; nothing was written"
        )
    logger.info(f"export: {kind} differs from our own numbers by {difference:.1g} standard deviations of the noise")
    return difference
