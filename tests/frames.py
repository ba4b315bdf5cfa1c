"""Reading image files as a dataset's settings say."""

import math
from pathlib import Path

import numpy as np

from dvlae.config.dataset import DatasetSettings
from dvlae.config.messages import validate
from dvlae.config.settings import OutputSettings
from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.folder import OutputFolder
from dvlae.data.outputs.reading import read_output
from dvlae.data.prepare import prepare
from dvlae.data.reading import open_stacks
from dvlae.data.sources import Calibration, Source


def settings(**keys) -> DatasetSettings:
    """Return the settings of a dataset, with the default axes."""
    usual = {"source": {"kind": "files"}, "noisy": "*", "noise_direction": "none"}
    return validate(DatasetSettings, usual | keys, "dataset")


def read_frames(*paths: Path, **keys) -> list[np.ndarray]:
    """Return all frames of files, (C, ...)."""
    return [frame for stack in open_stacks(paths, settings(**keys)) for frame in stack]


def pass_through(folder: Path, output: OutputSettings | None = None, **keys) -> Path:
    """Prepare the file ``a`` in a folder, give each frame back as it is, and return the result."""
    prepare(settings(noisy="a.*", **keys), folder, None, folder / "images")
    images = read_manifest(folder / "images")
    (folder / "out").mkdir()
    outputs = OutputFolder(folder / "out", images, output)
    for image in images:
        outputs.write(image, read_noisy(image))
    for image in images:
        assert np.array_equal(read_output(folder / "out", image), read_noisy(image))
    outputs.report.log("test")
    (path,) = (folder / "out").iterdir()
    return path


class Memory(Source):
    """A source of numbers that are different everywhere."""

    def __init__(self, axes, shape):
        self.axes, self.shape, self.dtype = axes, shape, np.dtype(np.int64)
        self.path, self.files, self.series, self.kind, self.calibration = "a", ("a",), "", "tiff", Calibration()

    def read(self, index=()):
        return np.arange(math.prod(self.shape)).reshape(self.shape)[index]
