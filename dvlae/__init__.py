"""DVLAE: remove signal-dependent, row- or column-correlated noise without any clean image."""

__version__ = "0.1.0"
