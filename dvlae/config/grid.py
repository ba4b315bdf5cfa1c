"""The grid of a configuration: which methods denoise each dataset, with which seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dvlae.config.dataset import DatasetSettings
from dvlae.config.settings import Settings

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
    """

    name: str
    receptive_field: int | None = None
    autoregression: Autoregression | None = None

    @property
    def trained(self) -> bool:
        """Whether the method trains a model."""
        return self.receptive_field is not None


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
        Each trained method with each seed, then the baselines, with seed 0.
    """
    fields = [0] if dataset.noise_direction == "none" else settings.receptive_fields
    trained = [dvlae_method(field, settings.model.autoregression) for field in fields]
    baselines = [Method(name) for name in settings.baselines]
    return [(method, seed) for method in trained for seed in settings.seeds] + [(method, 0) for method in baselines]


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
