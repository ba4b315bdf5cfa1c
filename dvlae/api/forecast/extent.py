"""How many images a dataset has, and how large they are, before they are prepared or even there."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvlae.config.dataset import DatasetSettings
from dvlae.config.settings import Settings
from dvlae.config.sizes.patch_size import training_crop
from dvlae.data.files import find_images
from dvlae.data.manifest import read_manifest, select
from dvlae.data.prepare import source_folder
from dvlae.data.reading import find_window, open_stacks
from dvlae.data.registry import read_registry
from dvlae.runs.folder import DatasetFolder
from dvlae.system.errors import UserError


@dataclass(frozen=True)
class Extent:
    """The images of a dataset.

    Attributes
    ----------
    shape
        Shape of the most frequent kind of image, (C, ...).
    images
        Number of images.
    pixels
        Pixels of all images, without their channels.
    """

    shape: tuple[int, ...]
    images: int
    pixels: int

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, ...]]) -> "Extent":
        """Describe images with these shapes.

        Parameters
        ----------
        shapes
            The shape of each image, (C, ...).

        Returns
        -------
        Extent
            Their number and size.
        """
        (shape, _), *_ = Counter(shapes).most_common(1)
        return cls(shape, len(shapes), sum(math.prod(each[1:]) for each in shapes))

    @classmethod
    def find(cls, name: str, dataset: DatasetSettings, settings: Settings) -> "Extent | None":
        """Find the images of a dataset: prepared ones, those in files, or what its file states.

        Parameters
        ----------
        name, dataset
            The dataset.
        settings
            The configuration, which says where its images are.

        Returns
        -------
        Extent or None
            None if its files are not here, and it does not state their size.
        """
        images = DatasetFolder(Path(settings.results) / name).images
        if (images / "manifest.csv").exists():
            return cls.of([image.shape for image in read_manifest(images)])
        shapes = _shapes_in_files(dataset, Path(settings.data)) or _stated_shapes(dataset)
        frames = 1 if dataset.simulate is None else dataset.simulate.frames
        return cls.of(shapes * frames) if shapes else None

    def evaluated(self, dataset: DatasetSettings) -> int:
        """Return how many images are evaluated.

        Parameters
        ----------
        dataset
            The dataset, which says which.

        Returns
        -------
        int
            All of them where a file names them.
        """
        chosen = dataset.evaluation.images
        if isinstance(chosen, list):
            return len(chosen)
        try:
            return len(select([str(number) for number in range(self.images)], chosen))
        except UserError:
            return self.images

    def patch(self, settings: Settings) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the sides of a training crop and of a patch, as the patches are cut.

        Parameters
        ----------
        settings
            The configuration.

        Returns
        -------
        crop, patch
            In pixels.
        """
        sides = self.shape[1:]
        crop = training_crop(settings.training.patch_size, sides, settings.model.stride)
        return crop, tuple(max(own, min(2 * own, side)) for own, side in zip(crop, sides, strict=True))


def _shapes_in_files(dataset: DatasetSettings, data: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the images in a dataset's files; none if files are missing or cannot be read."""
    if dataset.source.registry is not None and not all(
        (data / file).is_file() for file in read_registry(dataset.source.registry)
    ):
        return []
    try:
        files = find_images(dataset.noisy, source_folder(dataset, data), "noisy")
        return [stack.frame_shape for stack in open_stacks(files, dataset) for _ in range(len(stack))]
    except UserError:
        # The step that reads them says what is wrong with them.
        return []


def _stated_shapes(dataset: DatasetSettings) -> list[tuple[int, ...]]:
    """Return the shapes that the dataset's file states, with one channel; none if it states none."""
    if dataset.size is None:
        return []
    axes = "ZYX"[-len(dataset.size.sides) :]
    window = find_window(dataset.crop, dict(zip(axes, dataset.size.sides, strict=True)), "crop")
    return [(1, *(part.stop - part.start for part in window))] * dataset.size.images
