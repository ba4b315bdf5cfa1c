"""Images that must be held out together: neighbours, and images of one scene."""

from collections.abc import Callable, Hashable, Sequence

from dvlae.data.manifest import Image


def scene_of(image: Image) -> Hashable:
    """Return what images of one scene have in common: their clean image.

    Parameters
    ----------
    image
        A row of a manifest.

    Returns
    -------
    Hashable
        The clean frame; without one, the name of the image, which it shares with no other.
    """
    return image.name if image.clean is None else (image.clean, image.clean_frame)


def divide(images: Sequence[Image], block: int, scene: Callable[[Image], Hashable] = scene_of) -> list[list[Image]]:
    """Divide images into blocks of neighbours. Blocks that show one scene become one.

    Parameters
    ----------
    images
        The images, in the dataset's order.
    block
        Number of neighbours that belong together.
    scene
        Returns the same for images of one scene.

    Returns
    -------
    list of list of Image
        The images of each block.
    """
    blocks: list[list[Image]] = []
    for start in range(0, len(images), block):
        joined = list(images[start : start + block])
        scenes = {scene(image) for image in joined}
        apart = []
        for other in blocks:
            if scenes.isdisjoint(map(scene, other)):
                apart.append(other)
            else:
                joined = other + joined
        blocks = [*apart, joined]
    return blocks
