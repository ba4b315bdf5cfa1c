"""DVLAE: remove signal-dependent, row- or column-correlated noise without any clean image."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvlae.api.model import Diagnosis, Model, diagnose, fit, load

__version__ = "0.1.0"
__all__ = ["Diagnosis", "Model", "__version__", "diagnose", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Import what computes, and with it PyTorch, when it is asked for."""
    if name in __all__:
        return getattr(import_module("dvlae.api.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
