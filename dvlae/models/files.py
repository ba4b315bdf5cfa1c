"""A trained model on disk: weights in safetensors, all other values in JSON; nothing is unpickled."""

import csv
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.layers import to_channels_last
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import choose_device, use_fast_arithmetic
from dvlae.system.hashes import sha256

FORMAT = 2
# The second one is that of a refined denoiser.
HISTORIES = ("history.csv", "refinement.csv")
# What belongs to the images, and not to the networks. The limits are no part of the weights.
SCALE = ("mean", "std", "step")


def save_model(model: DVLAE, folder: Path, seen: dict[str, Any] | None = None) -> None:
    """Write ``weights.safetensors`` and ``model.json``.

    Parameters
    ----------
    model
        The model; its memory layout and its device are not saved.
    folder
        An existing folder.
    seen
        The scales of the images it was trained on, as of :meth:`dvlae.data.defects.seen.SeenScale.to_json`.
    """
    weights = folder / "weights.safetensors"
    weights.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    description = {
        "format": FORMAT,
        "architecture": asdict(model.architecture),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "step": model.step.flatten().tolist(),
        "limits": [
            [end if math.isfinite(end) else None for end in ends]
            for ends in zip(model.lower.flatten().tolist(), model.upper.flatten().tolist(), strict=True)
        ],
        "weights_sha256": sha256(weights),
    }
    if seen is not None:
        description["seen"] = seen
    (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8", newline="\n")


def read_seen_scale(folder: Path) -> dict[str, Any] | None:
    """Return the scales of the images that a model was trained on.

    Parameters
    ----------
    folder
        Folder that :func:`save_model` wrote.

    Returns
    -------
    dict or None
        As :func:`save_model` took them; None for a model that does not say it, as older ones.

    Raises
    ------
    UserError
        If the description is missing or damaged.
    """
    path = folder / "model.json"
    try:
        return json.loads(path.read_text(encoding="utf-8-sig")).get("seen")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the description of a trained model ({error}); train the model again") from None


def read_noise(folder: Path) -> float | None:
    """Return how much of the variance of the training images is noise.

    Parameters
    ----------
    folder
        Folder of a trained model.

    Returns
    -------
    float or None
        At most 1: the squared error of the signal decoder to the noisy images at the end of the training. None for a
        model without a history, such as imported ones.
    """
    history = folder / HISTORIES[0]
    if not history.exists():
        return None
    with history.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = rows[-1].get("val_mse") if rows else None
    return float(found) if found else None


def read_architecture(folder: Path) -> Architecture:
    """Return the sizes of a model, without its weights.

    Parameters
    ----------
    folder
        Folder that :func:`save_model` wrote.

    Returns
    -------
    Architecture
        All that is needed to build the networks.

    Raises
    ------
    UserError
        If the description is missing or damaged.
    """
    path = folder / "model.json"
    try:
        return Architecture(**json.loads(path.read_text(encoding="utf-8"))["architecture"])
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: not found; {folder} is not the folder of a trained model") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not the description of a trained model ({error}); train the model again") from None


def load_to(device: str | torch.device, folder: Path) -> DVLAE:
    """Rebuild a model as :func:`load_model` does, on a device, in the layout that is fastest.

    Parameters
    ----------
    device
        A device, or what :func:`dvlae.system.hardware.devices.choose_device` takes.
    folder
        Folder that :func:`save_model` wrote.

    Returns
    -------
    DVLAE
        Model in evaluation mode.

    Raises
    ------
    UserError
        As for :func:`load_model`, and if the device does not exist.
    """
    chosen = choose_device(device) if isinstance(device, str) else device
    use_fast_arithmetic()
    model = load_model(folder).to(chosen)
    to_channels_last(model, model.architecture.dimensions)
    return model


def load_model(folder: Path) -> DVLAE:
    """Rebuild the model that :func:`save_model` wrote.

    Parameters
    ----------
    folder
        Folder of the model.

    Returns
    -------
    DVLAE
        Model in evaluation mode, on the CPU.

    Raises
    ------
    UserError
        If a file is missing, damaged, or of another format.
    """
    description_file, weights = folder / "model.json", folder / "weights.safetensors"
    try:
        description = json.loads(description_file.read_text(encoding="utf-8-sig"))
        if description["format"] != FORMAT:
            raise UserError(
                f"{description_file}: format {description['format']} cannot be read; this version reads {FORMAT}"
            )
        # The first models of this format were saved without a hash.
        if "weights_sha256" in description and sha256(weights) != description["weights_sha256"]:
            raise UserError(f"{weights}: damaged, its hash differs from the one in model.json; train the model again")
        architecture = Architecture(**description["architecture"])
        _check_sizes(architecture, description, weights)
        scale = (description["mean"], description["std"], description["step"], description.get("limits"))
        model = DVLAE(architecture, *scale)
        model.load_state_dict(load_file(weights))
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{error.filename}: not found; {folder} is not the folder of a trained model") from None
    except Exception as error:
        # Damaged and malicious files can raise errors of any kind.
        text = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{folder}: not a model that can be read ({text}); train the model again") from None
    return model.eval()


def load_weights(model: DVLAE, folder: Path) -> None:
    """Give a model the weights of one that :func:`save_model` wrote; it keeps its own scale of grey values.

    A prior of the top that differs from position to position becomes its mean.

    Parameters
    ----------
    model
        A model of the same architecture, on the CPU; its weights and batch statistics are changed.
    folder
        Folder of the other model.

    Raises
    ------
    UserError
        As for :func:`load_model`, and if the other model has another architecture.
    """
    other = load_model(folder)
    if other.architecture.direct_denoiser == "refined":  # It is made anew.
        other = other.with_direct_denoiser(None)
    # A training has crops of other sides than those of the grid.
    same = {"top_grid": None}
    found, wanted = (asdict(each.architecture) | {"stride": each.stride} | same for each in (other, model))
    unlike = [name for name in found if found[name] != wanted[name]]
    if unlike:
        raise UserError(
            f"{folder}: a training cannot start from this model: found "
            + ", ".join(f"{name} {found[name]}" for name in unlike)
            + ", allowed: "
            + ", ".join(f"{name} {wanted[name]}" for name in unlike)
            + ", as the settings and the images say"
        )
    weights = other.state_dict() | {name: getattr(model, name) for name in SCALE}
    if other.architecture.top_grid is not None:
        prior = f"ladder_vae.levels.{model.architecture.levels - 1}.top_prior"
        weights[prior] = weights[prior].mean([*range(2, weights[prior].ndim)], keepdim=True)
    model.load_state_dict(weights)


def _check_sizes(architecture: Architecture, description: dict, weights: Path) -> None:
    """Refuse an architecture that does not match the weights, before building it takes memory or time."""
    with safe_open(weights, "pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no dictionary)
    if not 0 < architecture.levels * architecture.blocks <= len(found):
        raise ValueError(f"weights of {len(found)} tensors, too few for the sizes in model.json")
    with torch.device("meta"):
        scale = (description["mean"], description["std"], description["step"], description.get("limits"))
        model = DVLAE(architecture, *scale)
    if found != {name: list(tensor.shape) for name, tensor in model.state_dict().items()}:
        raise ValueError("the sizes in model.json are not those of the weights")
