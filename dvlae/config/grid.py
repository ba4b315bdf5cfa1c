"""The grid of a configuration: what is computed for each dataset."""

from dvlae.config.dataset import DatasetSettings
from dvlae.config.settings import Settings


def resolve_methods(settings: Settings, dataset: DatasetSettings) -> list[tuple[str, int | None, int]]:
    """List what is to be computed for a dataset.

    Parameters
    ----------
    settings, dataset
        The configuration and the dataset. Where the dataset's noise has no direction, the only receptive field is 0.

    Returns
    -------
    list of (method, receptive_field, seed)
        For example ``("dvlae-rf40", 40, 0)``; baselines have no receptive field (``None``) and seed 0.
    """
    fields = [0] if dataset.noise_direction == "none" else settings.receptive_fields
    trained = [(f"dvlae-rf{field}", field, seed) for field in fields for seed in settings.seeds]
    return trained + [(baseline, None, 0) for baseline in settings.baselines]
