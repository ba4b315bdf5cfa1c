"""What the command of a method is given, and what it writes: shared by the drivers in this folder."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile


@dataclass(frozen=True)
class Job:
    """The images to denoise, and what a method may use for it.

    Attributes
    ----------
    noisy, denoised
        Folders of the images, and of the estimates with the same names.
    seed, minutes, threads, device
        Of the training; the device is ``cpu``, ``cuda`` or ``mps``.
    settings
        The settings of the method, and what is known of the noise.
    code
        Folder of downloaded code.
    record
        What was done.
    """

    noisy: Path
    denoised: Path
    seed: int
    minutes: float
    threads: int
    device: str
    settings: dict[str, Any]
    code: Path | None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> str:
        """The spatial axes of the images, z before y before x."""
        return self.settings["axes"].replace("C", "")

    @contextmanager
    def seconds(self, key: str) -> Iterator[None]:
        """Record how long a part takes.

        Parameters
        ----------
        key
            Of the record.

        Yields
        ------
        None
        """
        start = time.perf_counter()
        yield
        self.record[key] = round(time.perf_counter() - start, 3)

    def read(self, shortest: int) -> dict[str, np.ndarray]:
        """Read the images, with a channel axis.

        Parameters
        ----------
        shortest
            Number of pixels that each spatial axis has at least; shorter ones are mirrored.

        Returns
        -------
        dict
            The images as float32, (C, ...), by the names of their files.
        """
        images = {}
        for file in sorted(self.noisy.glob("*.tif")):
            image = tifffile.imread(file).astype(np.float32)
            sides = image.shape[-len(self.axes) :]
            image = image.reshape(-1, *sides)
            images[file.name] = np.pad(
                image, [(0, 0), *((0, max(0, shortest - side)) for side in sides)], mode="symmetric"
            )
        return images

    def write(self, name: str, estimate: np.ndarray) -> None:
        """Write an estimate, in the shape of the noisy image.

        Parameters
        ----------
        name
            Name of the file.
        estimate
            Axes (C, ...); what exceeds the noisy image is left out.
        """
        shape = tifffile.imread(self.noisy / name).shape
        sides = shape[-len(self.axes) :]
        part = estimate[(..., *(slice(side) for side in sides))].reshape(shape).astype(np.float32)
        tifffile.imwrite(self.denoised / name, part, photometric="minisblack" if part.ndim > 1 else None)


@contextmanager
def open_job() -> Iterator[Job]:
    """Read the command line, and write the record in the end.

    Yields
    ------
    Job
        The job.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("noisy", type=Path)
    parser.add_argument("denoised", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--code", type=Path)
    arguments = vars(parser.parse_args())
    record = arguments.pop("record")
    settings = json.loads(arguments.pop("settings").read_text(encoding="utf-8"))
    job = Job(**arguments, settings=settings)
    yield job
    record.write_text(json.dumps(job.record), encoding="utf-8")
