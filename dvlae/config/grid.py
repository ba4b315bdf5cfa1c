"""The grid of a configuration: which methods denoise each dataset, with which seeds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dvlae.config.dataset import DatasetSettings
from dvlae.config.settings import Settings
from dvlae.system.errors import UserError

Autoregression = Literal["nonlinear", "linear"]


@dataclass(frozen=True)
class Method:
    """A way to denoise images.

    Attributes
    ----------
    name
        The name in paths and tables, for example ``"dvlae-rf40"``.
    receptive_field
        Receptive field of the autoregressive decoder, in pixels; None for a baseline.
    autoregression
        Kind of the autoregressive decoder; None for a baseline.
    model
        Folder of the trained model that the method uses; None: the method trains one, or is a baseline.
    """

    name: str
    receptive_field: int | None = None
    autoregression: Autoregression | None = None
    model: str | None = None

    @property
    def trained(self) -> bool:
        """Whether the method trains a model."""
        return self.receptive_field is not None

    @property
    def has_model(self) -> bool:
        """Whether a model denoises, which the method trains or is given."""
        return self.trained or self.model is not None


class Cell(NamedTuple):
    """A cell of the grid: a dataset, a method and a seed."""

    dataset: str
    method: Method
    seed: int


def dvlae_method(receptive_field: int, autoregression: Autoregression) -> Method:
    """Return DVLAE with this autoregressive decoder.

    Parameters
    ----------
    receptive_field
        Receptive field in pixels.
    autoregression
        Kind of the decoder. The name contains it unless it is the paper's.

    Returns
    -------
    Method
        For example ``dvlae-rf40`` or, with the linear decoder, ``dvlae-rf40-linear``.
    """
    kind = "" if autoregression == "nonlinear" else f"-{autoregression}"
    return Method(f"dvlae-rf{receptive_field}{kind}", receptive_field, autoregression)


def resolve_methods(settings: Settings, dataset: DatasetSettings) -> list[tuple[Method, int]]:
    """List the methods and seeds for a dataset.

    Parameters
    ----------
    settings, dataset
        The configuration and the dataset. If the dataset's noise has no direction, the only receptive field is 0.

    Returns
    -------
    list of (method, seed)
        Each trained method with each seed, then the models that exist and the baselines, with seed 0.
    """
    fields = settings.receptive_fields
    if dataset.noise_direction == "none":
        fields = fields and [0]
    trained = [dvlae_method(field, settings.model.autoregression) for field in fields]
    others = [Method(name, model=folder) for name, folder in settings.models.items()]
    others += [Method(name) for name in settings.baselines]
    return [(method, seed) for method in trained for seed in settings.seeds] + [(method, 0) for method in others]


def resolve_grid(settings: Settings, datasets: Mapping[str, DatasetSettings]) -> list[Cell]:
    """List every cell of the grid of a configuration, dataset by dataset.

    Parameters
    ----------
    settings
        The configuration.
    datasets
        Its datasets by name.

    Returns
    -------
    list of Cell
        The cells of each dataset in the order of :func:`resolve_methods`.
    """
    return [
        Cell(name, method, seed)
        for name, dataset in datasets.items()
        for method, seed in resolve_methods(settings, dataset)
    ]


def check_models(settings: Settings, datasets: Mapping[str, DatasetSettings]) -> None:
    """Refuse models that do not exist, or that learned noise of another direction than that of a dataset.

    Parameters
    ----------
    settings
        The configuration.
    datasets
        Its datasets by name.

    Raises
    ------
    UserError
        If a folder is not that of a trained model, or the directions differ.
    """
    named = {f"models: {name}": folder for name, folder in settings.models.items()}
    if settings.start_from is not None:
        named["start_from"] = settings.start_from
    for key, folder in named.items():
        direction = _noise_direction(key, Path(folder))
        for name, dataset in datasets.items():
            if dataset.noise_direction != direction:
                raise UserError(
                    f"{key}: found {folder}, which learned noise of direction {direction}, but the dataset {name} has "
                    f"noise_direction {dataset.noise_direction}; allowed: models and datasets of one direction"
                )


def _noise_direction(key: str, folder: Path) -> str:
    try:
        return json.loads((folder / "model.json").read_text(encoding="utf-8"))["architecture"]["noise_direction"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{key}: found {str(folder)!r}, allowed: a folder made by dvlae train") from None
