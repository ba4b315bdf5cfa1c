"""Reading image files as a dataset's settings say."""

from pathlib import Path

import numpy as np

from dvlae.config.dataset import DatasetSettings
from dvlae.config.messages import validate
from dvlae.data.reading import open_stacks


def settings(**keys) -> DatasetSettings:
    """Return the settings of a dataset, with the default axes."""
    usual = {"source": {"kind": "files"}, "noisy": "*", "noise_direction": "none"}
    return validate(DatasetSettings, usual | keys, "dataset")


def read_frames(*paths: Path, **keys) -> list[np.ndarray]:
    """Return all frames of files, (C, ...)."""
    return [frame for stack in open_stacks(paths, settings(**keys)) for frame in stack]
