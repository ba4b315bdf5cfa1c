"""The exported denoiser as TorchScript and as ONNX: writing the files, and running them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvlae.inference.export.network import ExportedDenoiser
from dvlae.system.software import optional_module

# The names of the tensors.
INPUT, OUTPUT = "noisy", "denoised"
# The set of ONNX operators: the oldest one that has all layers and that PyTorch's exporter was made for.
OPSET = 17

# Maps noisy images (N, C, ...) float32 in their own units to clean ones.
Denoise = Callable[[np.ndarray], np.ndarray]


def needed(name: str) -> Any:
    """Import a module of the extra ``export``.

    Parameters
    ----------
    name
        The module.

    Returns
    -------
    module
        The module, whose types are not known where it is not installed.

    Raises
    ------
    UserError
        If its package is not installed.
    """
    return optional_module(name, "export", subject="--format", use="writes or checks such files")


def write_torchscript(network: ExportedDenoiser, example: np.ndarray, path: Path) -> None:
    """Write the network as TorchScript.

    Parameters
    ----------
    network
        The network.
    example
        Images with which it is traced, (N, C, ...). Others may have another number and other sides.
    path
        The file to write.
    """
    # The check would compare two traces; the file is compared with our own inference instead.
    traced = torch.jit.trace(network, torch.from_numpy(example), check_trace=False)
    torch.jit.save(traced, path)


def run_torchscript(path: Path) -> Denoise:
    """Load a TorchScript file.

    Parameters
    ----------
    path
        A file of :func:`write_torchscript`.

    Returns
    -------
    Callable
        Runs the file on a processor.
    """
    network = torch.jit.load(path, map_location="cpu")

    @torch.inference_mode()
    def denoise(images: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(images)).numpy()

    return denoise


def write_onnx(network: ExportedDenoiser, example: np.ndarray, path: Path, documentation: str) -> None:
    """Write the network as ONNX.

    Parameters
    ----------
    network
        The network.
    example
        As for :func:`write_torchscript`.
    path
        The file to write.
    documentation
        Text for readers of the file.

    Raises
    ------
    UserError
        If the extra ``export`` is not installed.
    """
    onnx = needed("onnx")
    axes = ["batch", "channel", *"zyx"[-len(network.stride) :]]
    sides = {number: name for number, name in enumerate(axes) if name != "channel"}
    torch.onnx.export(
        network,
        (torch.from_numpy(example),),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: sides, OUTPUT: sides},
        opset_version=OPSET,
        # The other exporter needs two packages more, and may fix sizes.
        dynamo=False,
    )
    written = onnx.load(path)
    written.doc_string = documentation
    onnx.save(written, path)


def run_onnx(path: Path) -> Denoise:
    """Load an ONNX file with ONNX Runtime.

    Parameters
    ----------
    path
        A file of :func:`write_onnx`.

    Returns
    -------
    Callable
        Runs the file on a processor.

    Raises
    ------
    UserError
        If the extra ``export`` is not installed.
    """
    onnxruntime = needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]
