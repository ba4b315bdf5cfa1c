"""Turn a state of the authors' 2023 code into a model of ours: ``dvlae import-weights``.

The state tells all sizes of the networks, and the direction of the noise: where it is y, their decoder begins with a
rotation, which has a number and no weights. All values are kept but for these: the parameters of the mixture are in
another order, the taps of noise along y lie along the other axis, and the last 1x1 convolutions of the decoder, which
have nothing between them, become one.
"""

import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvlae.axes import format_sides
from dvlae.config.sizes.patch_size import level_strides
from dvlae.config.sizes.receptive_field import dilations, kernel_and_blocks, reachable
from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import SCALE, save_model
from dvlae.models.imported.pickled import Inert, unpickle
from dvlae.system.errors import UserError
from dvlae.system.files import atomic_folder, check_folder, contents_beside

MODEL_FILES = contents_beside("model.json", "weights.safetensors")
_STEM, _FIRST_CAUSAL = "vae.first_bottom_up.0.weight", "noise_model.layers.layers.{}.in_conv.conv.weight"
# Their layers and ours; # stands for the number of a level, of a block, or of a layer.
_LAYERS = {
    "vae.first_bottom_up.0": "ladder_vae.stem.conv.conv",
    "vae.first_bottom_up.2.res.block": "ladder_vae.stem.block",
    "vae.bottom_up_layers.#.net.0.pre_conv": "ladder_vae.levels.#.shrink.conv",
    "vae.bottom_up_layers.#.net.#.res.block": "ladder_vae.levels.#.up_blocks.#",
    "vae.top_down_layers.#.top_prior_params": "ladder_vae.levels.#.top_prior",
    "vae.top_down_layers.#.merge.layer.0": "ladder_vae.levels.#.merge",
    "vae.top_down_layers.#.merge.layer.1.block": "ladder_vae.levels.#.merge_block",
    "vae.top_down_layers.#.stochastic.conv_in_p": "ladder_vae.levels.#.prior.conv",
    "vae.top_down_layers.#.stochastic.conv_in_q": "ladder_vae.levels.#.posterior.conv",
    "vae.top_down_layers.#.stochastic.conv_out": "ladder_vae.levels.#.from_latent.conv",
    "vae.top_down_layers.#.skip_connection_merger.layer.0": "ladder_vae.levels.#.skip",
    "vae.top_down_layers.#.skip_connection_merger.layer.1.block": "ladder_vae.levels.#.skip_block",
    "vae.top_down_layers.#.deterministic_block.0.pre_conv.1": "ladder_vae.levels.#.grow",
    "vae.top_down_layers.#.deterministic_block.#.res.block": "ladder_vae.levels.#.down_blocks.#",
    "vae.final_top_down.#.res.block": "ladder_vae.last_block.#",
    "noise_model.layers.layers.#.in_conv.conv": "autoregressive_decoder.layers.#.convolution.conv",
    "noise_model.layers.layers.#.s_conv": "autoregressive_decoder.layers.#.from_code",
    "noise_model.layers.layers.#.out_conv": "autoregressive_decoder.layers.#.leave",
    "s_decoder.net.#": "signal_decoder.#.conv",
}
_LAYERS_IN_FILE = {ours: theirs for theirs, ours in _LAYERS.items()}
_RESIDUAL_BLOCK = {"0": "norm1", "2": "conv1", "3": "norm2", "5": "conv2"}
_GATE = "6.conv"
_PART_IN_FILE = {ours: theirs for theirs, ours in _RESIDUAL_BLOCK.items()} | {"value": _GATE, "gate": _GATE}
_MIXTURE = "autoregressive_decoder.parameters_of_mixture"

logger = logging.getLogger(__name__)


def import_weights(
    file: Path, output: Path, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> None:
    """Write the folder of a model with the weights of a checkpoint, or of a state, of the authors' 2023 code.

    Parameters
    ----------
    file
        What Lightning's ``save_checkpoint`` wrote, or ``torch.save`` of a ``state_dict()``. Nothing in it is run.
    output
        Folder to make.
    mean, std
        Mean and standard deviation of the training images, one value or one for each channel, where the file does not
        have them, or to replace those of the file.

    Raises
    ------
    UserError
        If the file is none of these, is damaged, or has sizes that our network does not have.
    """
    check_folder(output, MODEL_FILES)
    weights, known = _read(file)
    try:
        a, first = _architecture(file, weights)
        fitted = _fit(file, a, _rename(weights, first, a), first)
    except UserError:
        raise
    except Exception as error:  # Other networks can have any names and sizes.
        text = str(error).partition("\n")[0]
        raise UserError(f"{file}: not the networks of the authors' code of 2023 ({text})") from None
    values = {
        name: known.get(f"data_{name}") if given is None else given
        for name, given in {"mean": mean, "std": std}.items()
    }
    unknown = [name for name, value in values.items() if not isinstance(value, Tensor | Sequence | int | float)]
    if unknown:
        options = " and ".join(f"--{name}" for name in unknown)
        raise UserError(f"{file}: found no {' and no '.join(unknown)} of the training images; give {options}")
    scale = {name: _scale(file, name, value, a.image_channels) for name, value in values.items()}
    model = DVLAE(a, scale["mean"], scale["std"], [0.0] * a.image_channels)
    model.load_state_dict(model.state_dict() | fitted)
    with atomic_folder(output, MODEL_FILES) as folder:
        save_model(model, folder)
    logger.info(
        f"import-weights: {a.levels} levels, {a.channels} channels, noise along {a.noise_direction}, receptive field "
        f"{a.receptive_field}, mean {scale['mean'][0]:.6g}, standard deviation {scale['std'][0]:.6g}"
    )
    if scale == {"mean": [0.0] * a.image_channels, "std": [1.0] * a.image_channels}:
        logger.warning(
            "import-weights: WARNING: mean 0 and standard deviation 1, so this model takes images that were normalised "
            "before; for others give --mean and --std"
        )
    if a.top_grid is not None:
        sides = [side * stride for side, stride in zip(a.top_grid, model.stride, strict=True)]
        logger.info(
            f"import-weights: the prior of the coarsest level is for images of {format_sides(sides)} pixels; for "
            "others, `likelihood` and `generate` take the mean over its positions; denoised images do not depend on it"
        )


def _read(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the weights and the other values of a file."""
    try:
        content = unpickle(file)
    except FileNotFoundError:
        raise UserError(f"{file}: not found") from None
    except OSError as error:
        raise UserError(f"{file}: {str(error.strerror).lower()}") from None
    except Exception as error:  # Damaged and malicious files can raise errors of any kind.
        text = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, zipfile.BadZipFile):
            text = "not an archive, as PyTorch writes since 1.6; load an older file, and save it with a newer one"
        raise UserError(f"{file}: not a file of torch.save that can be read ({text})") from None
    known: Any = {}
    if isinstance(content, dict) and "state_dict" in content:
        content, known = content["state_dict"], content.get("hyper_parameters", {})
    if not isinstance(content, dict) or isinstance(content, Inert) or _STEM not in content:
        raise UserError(
            f"{file}: found no {_STEM}, allowed: a checkpoint of the DVLAE of the authors' code of 2023, or its "
            "state_dict()"
        )
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for name in tensors:
        if name.endswith(".bias") and (missing := f"{name.removesuffix('bias')}weight") not in tensors:
            raise UserError(f"{file}: found {name} and no {missing}, allowed: both")
    return tensors, known if isinstance(known, dict) else {}


def _architecture(file: Path, weights: Mapping[str, Tensor]) -> tuple[Architecture, int]:
    """Return the sizes of the networks, and the number of the first layer of their decoder."""

    def count(name: str) -> int:
        pattern = re.compile(name)
        return len({found[1] for found in map(pattern.match, weights) if found})

    def one_of(what: str, name: str) -> Tensor:
        if name not in weights or weights[name].ndim != 4:
            raise UserError(f"{file}: found no {what} in {name}, allowed: the networks of the authors' code of 2023")
        return weights[name]

    levels = count(r"vae\.top_down_layers\.(\d+)\.")
    top_prior = one_of("prior", f"vae.top_down_layers.{levels - 1}.top_prior_params")
    # A rotation comes before the layers where the noise is along y.
    first = 0 if any(name.startswith("noise_model.layers.layers.0.") for name in weights) else 1
    causal = one_of("decoder", _FIRST_CAUSAL.format(first))
    outputs = count(r"noise_model\.out_convs\.convs\.(\d+)\.weight")
    mixture = one_of("mixture", f"noise_model.out_convs.convs.{outputs - 1}.weight")
    channels, image_channels = one_of("stem", _STEM).shape[:2]
    pairs, kernel = count(r"noise_model\.layers\.layers\.(\d+)\.s_conv\.") // 2, causal.shape[-1]
    receptive_field = (kernel - 1) * (sum(dilations(pairs)) + pairs)
    if receptive_field not in reachable() or kernel_and_blocks(receptive_field) != (kernel, pairs):
        raise UserError(
            f"{file}: found a decoder of {pairs} pairs of convolutions of {kernel} taps, which have no like in ours; "
            "allowed: 1 to 8 pairs of 5 taps, and some of 3, 7 or 9"
        )
    halved = [f"vae.bottom_up_layers.{level}.net.0.pre_conv.weight" in weights for level in range(levels)]
    architecture = Architecture(
        image_channels=image_channels,
        channels=channels,
        latent_channels=top_prior.shape[1] // 2,
        levels=levels,
        levels_per_scale=_levels_per_scale(file, halved),
        components=mixture.shape[0] // (3 * image_channels),
        receptive_field=receptive_field,
        noise_direction="y" if first else "x",
        blocks=count(r"vae\.bottom_up_layers\.0\.net\.(\d+)\."),
        network="paper",
        # None is the usual number, with which a training can start from these weights.
        decoder_channels=None if causal.shape[0] == max(1, channels // 2) else causal.shape[0],
        top_grid=None if top_prior[0, 0].numel() == 1 else list(top_prior.shape[2:]),
    )
    return architecture, first


def _levels_per_scale(file: Path, halved: list[bool]) -> int:
    """Return how many levels share a resolution, given which of them halve it."""
    for number in range(1, len(halved) + 2):
        strides = [1, *(stride for (stride,) in level_strides(len(halved), number, 1))]
        if halved == [above > below for below, above in pairwise(strides)]:
            return number
    found = ", ".join(str(level) for level, halves in enumerate(halved) if halves)
    raise UserError(f"{file}: found levels {found} that halve the resolution, allowed: every one, every second, ...")


def _scale(file: Path, name: str, value: Any, channels: int) -> list[float]:
    """Return the mean or the standard deviation of each channel."""
    values = value.flatten().tolist() if isinstance(value, Tensor) else value
    values = list(values) if isinstance(values, list | tuple) else [values]
    numbers = [float(each) for each in values if isinstance(each, int | float)]
    # The model has them in single precision.
    kept = torch.tensor(numbers)
    in_range = kept.isfinite().all() and (name == "mean" or (kept > 0).all())
    if len(numbers) != len(values) or len(numbers) not in (1, channels) or not in_range:
        allowed = "one finite number" + (f" or {channels}" if channels > 1 else "") + (" above 0" * (name == "std"))
        raise UserError(f"{file}: {name}: found {value}, allowed: {allowed}; give it with --{name}")
    return numbers * (channels // len(numbers))


def _translate(name: str, layers: Mapping[str, str], shift: int) -> tuple[str, str, str] | None:
    """Return the other name of a weight's layer, the part of the layer, and the kind of weight; None: no such layer.

    The layers of the decoder have numbers that differ by ``shift``.
    """
    for known, other in layers.items():
        if found := re.match(re.escape(known).replace(r"\#", r"(\d+)") + r"(?:\.|$)", name):
            numbers = [int(number) for number in found.groups()]
            if "noise_model." in known + other:
                numbers[0] += shift
            part, _, kind = name[found.end() :].rpartition(".")
            return other.replace("#", "{}").format(*numbers), part, kind
    return None


def _join(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _rename(weights: Mapping[str, Tensor], first: int, architecture: Architecture) -> dict[str, Tensor]:
    """Return the weights under our names; those of layers that we do not have keep theirs."""
    renamed: dict[str, Tensor] = {}
    outputs: list[tuple[Tensor, Tensor]] = []
    for name, value in weights.items():
        if name.startswith("noise_model.out_convs."):
            if name.endswith(".weight"):
                outputs.append((value.flatten(1).double(), weights[name.replace("weight", "bias")].double()))
            continue
        if name.endswith(".kernel_mask"):
            continue
        layer, part, kind = _translate(name, _LAYERS, -first) or ("", "", name)
        if part == _GATE:
            renamed[f"{layer}.value.{kind}"], renamed[f"{layer}.gate.{kind}"] = value.chunk(2)
        else:
            renamed[_join(layer, _RESIDUAL_BLOCK.get(part, part), kind)] = value
    weight, bias = outputs[0]
    for then, added in outputs[1:]:
        weight, bias = then @ weight, then @ bias + added
    renamed |= {f"{_MIXTURE}.weight": _sort(weight, architecture), f"{_MIXTURE}.bias": _sort(bias, architecture)}
    return renamed


def _sort(mixture: Tensor, architecture: Architecture) -> Tensor:
    """Bring (channel, component, parameter) into the order (parameter, component, channel)."""
    sizes = (architecture.image_channels, architecture.components, 3)
    return mixture.unflatten(0, sizes).movedim((2, 1, 0), (0, 1, 2)).flatten(0, 2)


def _name_in_file(ours: str, first: int) -> str:
    """Return the name of a weight in their state: the inverse of :func:`_rename`."""
    layer, part, kind = _translate(ours, _LAYERS_IN_FILE, first) or ("", "", ours)
    return _join(layer, _PART_IN_FILE.get(part, part), kind).replace(_MIXTURE, "noise_model.out_convs.convs.0")


def _fit(file: Path, architecture: Architecture, weights: Mapping[str, Tensor], first: int) -> dict[str, Tensor]:
    """Return the weights in the shapes of our layers."""
    ones = [1.0] * architecture.image_channels
    with torch.device("meta"):  # The sizes may be absurd.
        model = DVLAE(architecture, ones, ones, ones)
    layers = {name: like for name, like in model.state_dict().items() if name not in SCALE}
    unlike = sorted(layers.keys() ^ weights.keys())
    if unlike:
        there = "a weight" if unlike[0] in weights else "no weight"
        name = _name_in_file(unlike[0], first)
        raise UserError(f"{file}: found {there} {name}, allowed: the layers of the authors' code of 2023")
    fitted = {}
    for ours, like in layers.items():
        value, name = weights[ours], _name_in_file(ours, first)
        if value.ndim == like.ndim + 2:
            value = value.flatten(1)  # a 1x1 convolution
        elif ".convolution." in ours and architecture.noise_direction == "y" and value.ndim == 4:
            value = value.mT
        if value.shape != like.shape:
            raise UserError(f"{file}: {name}: found the sizes {tuple(value.shape)}, allowed: {tuple(like.shape)}")
        if value.is_floating_point() != like.is_floating_point():
            raise UserError(f"{file}: {name}: found {value.dtype}, allowed: {like.dtype}")
        if not value.isfinite().all():
            raise UserError(f"{file}: {name}: found values that are not finite, as of a training that diverged")
        if name.endswith(".running_var") and (value < 0).any():
            raise UserError(f"{file}: {name}: found variances below 0, allowed: 0 and more")
        fitted[ours] = value
    return fitted
