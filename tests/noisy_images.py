"""Images of many kinds of noise, and of what may be mistaken for noise."""

import numpy as np
from scipy import ndimage, signal

from dvlae.axes import AXES


def scene(seed: int = 0, shape: tuple[int, ...] = (160, 200)) -> np.ndarray:
    """Return blobs with sharp edges, 30 to 180."""
    blobs = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 9)
    return 30.0 + 150 * ndimage.gaussian_filter((blobs > 0).astype(float), 0.7)


def noise(seed: int = 0, shape: tuple[int, ...] = (160, 200), along: str = "none", rho: float = 0.6) -> np.ndarray:
    """Return noise of variance 1 that is white, or of which neighbours along an axis are correlated by ``rho``."""
    white = np.random.default_rng(seed).normal(size=shape)
    if along == "none":
        return white
    # The first values are as they are, so that the variance is the same everywhere.
    lines = np.moveaxis(white, AXES[along], -1)
    first, rest = lines[..., :1], lines[..., 1:] * np.sqrt(1 - rho**2)
    lines = signal.lfilter([1], [1, -rho], np.concatenate([first, rest], axis=-1))
    return np.moveaxis(lines, -1, AXES[along])


def disk(shape: tuple[int, int] = (256, 256), radius: float = 100) -> np.ndarray:
    """Return which pixels lie in a round field of view, bool."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - shape[0] / 2, x - shape[1] / 2) < radius


def with_bar(image: np.ndarray, text: str, height: int = 31) -> np.ndarray:
    """Return an image with an information bar at the bottom: light letters on a dark ground."""
    from PIL import Image, ImageDraw

    bar = Image.new("L", (image.shape[1], height), 20)
    ImageDraw.Draw(bar).text((8, height // 3), text, fill=230)
    return np.concatenate([image, np.asarray(bar, image.dtype)])
