"""The names of all tables and figures, for the workflow and for the commands that make them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dvlae.config.dataset import DatasetSettings
from dvlae.config.grid import Method, resolve_methods
from dvlae.config.methods import OWN_PATTERN
from dvlae.config.settings import Settings

# These tables are also written as Markdown, LaTeX and HTML.
TYPESET_TABLES = ("summary", "methods", "measures", "receptive_field", "per_image", "comparisons")
TABLES = (*TYPESET_TABLES, "psnr", "noise", "timing", "provenance")


@dataclass(frozen=True)
class Contents:
    """The contents of a dataset's results, on which its figures depend.

    Attributes
    ----------
    methods
        The methods that denoise the dataset.
    measured
        Whether there are clean images.
    sampled
        Whether the trained methods estimate the standard deviation of the posterior.
    """

    methods: Sequence[Method]
    measured: bool
    sampled: bool

    @property
    def receptive_fields(self) -> set[int]:
        """The receptive fields in pixels that are compared: of the methods that differ in nothing else."""
        fields = {method.receptive_field for method in self.methods if OWN_PATTERN.fullmatch(method.name)}
        return {field for field in fields if isinstance(field, int)}

    @property
    def trained(self) -> bool:
        """Whether a method trains our own network."""
        return any(method.trained for method in self.methods)

    @property
    def several(self) -> bool:
        """Whether there are methods to compare."""
        return len(self.methods) > 1


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes
    ----------
    kind
        The kind of the figure, for example ``"panel"``.
    dataset
        The dataset that it shows; None: all datasets.
    """

    kind: str
    dataset: str | None = None

    @property
    def name(self) -> str:
        """The name of its file, without a suffix."""
        return self.kind if self.dataset is None else f"{self.kind}_{self.dataset}"


def planned_contents(settings: Settings, datasets: Mapping[str, DatasetSettings]) -> dict[str, Contents]:
    """Derive the contents of each dataset's results from a configuration.

    Parameters
    ----------
    settings
        The configuration.
    datasets
        Its datasets by name.

    Returns
    -------
    dict
        The contents for each name of a dataset.
    """
    found = {}
    for name, dataset in datasets.items():
        methods = list(dict.fromkeys(method for method, _ in resolve_methods(settings, dataset)))
        predictions = [method.configure(settings).prediction for method in methods if method.trained]
        found[name] = Contents(
            methods=methods,
            measured=dataset.has_clean,
            sampled=any(how.has_deviation for how in predictions),
        )
    return found


def figures(contents: Mapping[str, Contents]) -> list[Figure]:
    """List the figures for datasets with these contents.

    Parameters
    ----------
    contents
        The contents for each name of a dataset.

    Returns
    -------
    list of Figure
        The figures of each dataset, then those of all datasets.
    """
    found = [Figure(kind, name) for name, content in contents.items() for kind in _kinds(content)]
    if any(len(content.receptive_fields) > 1 for content in contents.values()):
        found.append(Figure("receptive_field"))
    if any(content.measured and content.several for content in contents.values()):
        found.append(Figure("quality_over_time"))
    return found


def _kinds(content: Contents) -> list[str]:
    """Return the kinds of figures of a single dataset."""
    kinds = {
        "panel": True,
        "side_by_side": content.several,
        "spectra": content.measured,
        "removed_noise": True,
        "training_curves": content.trained,
        "kl_per_level": content.trained,
        "calibration": content.trained and content.measured and content.sampled,
        "paired_psnr": content.measured and content.several,
    }
    return [kind for kind, wanted in kinds.items() if wanted]
