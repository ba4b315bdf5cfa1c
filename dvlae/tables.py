"""The tables over all runs: PSNR, summary, receptive field, timing."""

from pathlib import Path


def make_tables(psnr_csvs: list[Path], output: Path) -> None:
    """Write ``psnr.csv``, ``summary.{csv,md,tex}``, ``receptive_field.{csv,md,tex}`` and ``timing.csv``."""
    raise NotImplementedError


def print_summary(tables: Path) -> None:
    """Print the summary table in a folder that :func:`make_tables` made."""
    raise NotImplementedError
