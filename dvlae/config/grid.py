"""The grid of a configuration: which methods denoise each dataset, with which seeds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dvlae.config.dataset import DatasetSettings
from dvlae.config.fields import Autoregression
from dvlae.config.loading import merge_blocks
from dvlae.config.messages import validate
from dvlae.config.methods import OWN_PATTERN, MethodSettings, load_method
from dvlae.config.settings import PatchSettings, Settings
from dvlae.config.sizes.receptive_field import kernel_and_blocks
from dvlae.system.errors import UserError


@dataclass(frozen=True)
class Method:
    """A way to denoise images.

    Attributes
    ----------
    name
        The name in paths and tables, for example ``"dvlae-rf40"``.
    receptive_field
        Receptive field of the autoregressive decoder of our own network, in pixels, or ``auto``: as the diagnosis of
        the noise suggests; None for other methods, and for models that exist.
    model
        Folder of the trained model that the method uses; None: the method trains one, or uses none.
    overrides
        Blocks of settings of our own network that are laid over those of the configuration.
    given
        What the configuration calls it: a name, or the path of its file.
    file
        The content of its file; None: it has none.
    """

    name: str
    receptive_field: int | Literal["auto"] | None = None
    model: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict, compare=False)
    given: str = field(default="", compare=False)
    file: MethodSettings | None = field(default=None, compare=False)

    @property
    def trained(self) -> bool:
        """Whether the method trains our own network."""
        return self.receptive_field is not None

    @property
    def has_model(self) -> bool:
        """Whether a model of our own network denoises, which the method trains or is given."""
        return self.trained or self.model is not None

    @property
    def learns(self) -> bool:
        """Whether the method trains anything."""
        return self.trained or (self.file is not None and self.file.trains and self.file.unavailable is None)

    @property
    def seeded(self) -> bool:
        """Whether the method is run once for each seed."""
        return self.trained or (self.file is not None and self.file.seeds)

    def configure(self, settings: Settings) -> Settings:
        """Lay the method's own settings over those of a configuration.

        Parameters
        ----------
        settings
            The configuration.

        Returns
        -------
        Settings
            The settings with which the method trains and denoises.

        Raises
        ------
        UserError
            If the method's settings are wrong.
        """
        if not self.overrides:
            return settings
        data = merge_blocks(settings.model_dump(), dict(self.overrides))
        data |= {"methods": None, "receptive_fields": [0 if self.receptive_field == "auto" else self.receptive_field]}
        return validate(Settings, data, f"method {self.name}")


class Cell(NamedTuple):
    """A cell of the grid: a dataset, a method and a seed."""

    dataset: str
    method: Method
    seed: int


def dvlae_method(receptive_field: int, autoregression: Autoregression) -> Method:
    """Return our own method with this autoregressive decoder.

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
    overrides = {"model": {"autoregression": autoregression}}
    return Method(f"dvlae-rf{receptive_field}{kind}", receptive_field, overrides=overrides)


def list_methods(settings: Settings) -> list[Method]:
    """List the methods of a configuration, in the order of the tables.

    Parameters
    ----------
    settings
        The configuration.

    Returns
    -------
    list of Method
        Those of ``methods``, with models that it does not name at the end; or, without it, a method for each receptive
        field, those that use a model that exists, and the baselines.

    Raises
    ------
    UserError
        If there is no such method, its file is wrong, or two methods have one name.
    """
    names = settings.methods
    if names is None:
        own = [dvlae_method(pixels, settings.model.autoregression) for pixels in settings.receptive_fields]
        methods = [*own, *(_find_method(name, settings) for name in [*settings.models, *settings.baselines])]
    else:
        rest = [name for name in settings.models if name not in names]
        methods = [_find_method(name, settings) for name in [*names, *rest]]
    found = [method.name for method in methods]
    for name in found:
        if found.count(name) > 1:
            raise UserError(f"methods: found {name!r} twice, allowed: names that differ, also of models and baselines")
    return methods


def _find_method(given: str, settings: Settings) -> Method:
    """Return the method that a configuration calls so."""
    if given in settings.models:
        return Method(given, model=settings.models[given])
    if own := OWN_PATTERN.fullmatch(given):
        kernel_and_blocks(int(own[1]))
        method = dvlae_method(int(own[1]), "linear" if own[2] else "nonlinear")
        method.configure(settings)  # Not every network has each autoregression.
        return method
    name, file, path = load_method(given)
    if file.dvlae is None:
        method = Method(name, given=given, file=file)
        if method.learns and settings.training.max_minutes is None:
            raise UserError(
                f"methods: found {name!r}, which trains for a time, allowed: with training.max_minutes only"
            )
        return method
    overrides = file.dvlae.model_dump(include={"model", "training", "prediction"})
    method = Method(name, file.dvlae.receptive_field, overrides=overrides, given=given, file=file)
    own_settings = method.configure(settings)
    if PatchSettings.of(own_settings) != PatchSettings.of(settings):
        raise UserError(
            f"{path}: dvlae: found settings for other patches than those of the configuration, allowed: the same "
            "training.patch_size, validation_fraction, max_patch_pixels and rescale, and the same stride of the model"
        )
    return method


def resolve_methods(settings: Settings, dataset: DatasetSettings) -> list[tuple[Method, int]]:
    """List the methods and seeds for a dataset.

    Parameters
    ----------
    settings, dataset
        The configuration and the dataset. If the dataset's noise has no direction, the only receptive field is 0.

    Returns
    -------
    list of (method, seed)
        Each method that has seeds with each of them, and the others with seed 0.
    """
    methods = list_methods(settings)
    if dataset.noise_direction == "none":
        methods = list(dict.fromkeys(map(_without_direction, methods)))
    return [(method, seed) for method in methods for seed in (settings.seeds if method.seeded else [0])]


def _without_direction(method: Method) -> Method:
    """Return the method with the receptive field 0, if it has one."""
    if not method.trained:
        return method
    if method.file is not None:
        return replace(method, receptive_field=0)
    return dvlae_method(0, method.overrides["model"]["autoregression"])


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
