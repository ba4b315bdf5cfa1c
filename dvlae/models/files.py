"""A trained model on disk: weights in safetensors, all else in JSON; nothing is unpickled."""

import json
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save_file

from dvlae.devices import choose_device, use_fast_arithmetic
from dvlae.errors import UserError
from dvlae.files import sha256
from dvlae.models.dvlae import DVLAE, Architecture
from dvlae.models.layers import lay_out

FORMAT = 2


def save_model(model: DVLAE, folder: Path) -> None:
    """Write ``weights.safetensors`` and ``model.json`` into an existing folder."""
    weights = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    weights.chmod(0o644)  # safetensors makes it private; the others of a group read it too
    description = {
        "format": FORMAT,
        "architecture": model.architecture.as_dict(),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "step": model.step.flatten().tolist(),
        "weights_sha256": sha256(weights),
    }
    (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n")


def load_to(device: str, folder: Path) -> DVLAE:
    """Rebuild a model as :func:`load_model` does, where ``device`` says, in the layout that is fastest.

    ``device`` is what :func:`dvlae.devices.choose_device` takes.
    """
    chosen = choose_device(device)
    use_fast_arithmetic()
    model = load_model(folder).to(chosen)
    return lay_out(model, model.architecture.dimensions)


def load_model(folder: Path) -> DVLAE:
    """Rebuild the model that :func:`save_model` wrote, in evaluation mode.

    Raises
    ------
    UserError
        Where a file is missing, damaged, or of another format.
    """
    description_file, weights = folder / "model.json", folder / "weights.safetensors"
    try:
        description = json.loads(description_file.read_text())
        if description["format"] != FORMAT:
            raise UserError(
                f"{description_file}: format {description['format']} cannot be read; this version reads {FORMAT}"
            )
        if sha256(weights) != description["weights_sha256"]:
            raise UserError(f"{weights}: damaged, its hash differs from the one in model.json; train the model again")
        architecture = Architecture(**description["architecture"])
        model = DVLAE(architecture, description["mean"], description["std"], description["step"])
        model.load_state_dict(load_file(weights))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not found; {folder} is not the folder of a trained model") from None
    except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder}: not a model that can be read ({error}); train the model again") from None
    return model.eval()
