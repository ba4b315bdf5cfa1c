"""Draw the networks: ``python docs/pictures/method.py`` writes ``docs/method.svg``.

The images in it are simulated; nothing is trained.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from scipy import ndimage

from dvlae.reporting.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, STYLE

GUIDES = Path(__file__).parents[1]
WIDTH, HEIGHT = 20.0, 9.6
LEVELS = 3
# Where things are, in units of the drawing: the levels from the finest to the top, and the columns of the ladder.
ROWS = (1.7, 4.0, 6.3)
UP, LATENT, DOWN = 4.5, 6.9, 9.3
CODE = 11.7
LIGHT = "#eef2f6"


def images() -> tuple[np.ndarray, np.ndarray]:
    """Return a clean image of beads, and the same with noise along rows."""
    random, (y, x) = np.random.default_rng(4), np.mgrid[:64, :64]
    clean = np.full((64, 64), 0.15)
    for _ in range(9):
        clean[np.hypot(y - random.uniform(0, 64), x - random.uniform(0, 64)) < random.uniform(5, 11)] = random.uniform(
            0.4, 1
        )
    clean = ndimage.gaussian_filter(clean, 0.8)
    noise = ndimage.convolve1d(random.normal(size=clean.shape), np.ones(4) / 2, axis=1)
    return clean, clean + 0.22 * noise * np.sqrt(clean)


def box(axes: Axes, x: float, y: float, text: str, colour: str, wide: float = 1.6, high: float = 0.9) -> None:
    """Draw a network, around its centre."""
    corner = (x - wide / 2, y - high / 2)
    style = {"boxstyle": "round,pad=0,rounding_size=0.15", "facecolor": LIGHT, "edgecolor": colour, "linewidth": 1.6}
    axes.add_patch(FancyBboxPatch(corner, wide, high, **style))
    axes.text(x, y, text, ha="center", va="center")


def circle(axes: Axes, x: float, y: float, text: str) -> None:
    """Draw a latent variable."""
    axes.plot(x, y, "o", markersize=27, markerfacecolor="white", markeredgecolor=ORANGE, markeredgewidth=1.6)
    axes.text(x, y, text, ha="center", va="center", fontsize=11)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], dashed: bool = False) -> None:
    """Draw an arrow."""
    style = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.1, "linestyle": "--" if dashed else "-"}
    axes.annotate("", end, start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})


def picture(axes: Axes, pixels: np.ndarray, x: float, y: float, title: str) -> None:
    """Draw an image around its centre, with a title above."""
    half = 1.15
    axes.imshow(pixels, "gray", vmin=0, vmax=1.1, extent=(x - half, x + half, y - half, y + half), zorder=2)
    axes.text(x, y + half + 0.15, title, ha="center", va="bottom")


def draw_ladder(axes: Axes) -> None:
    """Draw the encoder, the latents and the way down to the signal code."""
    grids = ("2 px", "4 px", "8 px")
    arrow(axes, (2.6, ROWS[0]), (UP - 0.8, ROWS[0]))
    for level, row in enumerate(ROWS):
        box(axes, UP, row, f"$h_{level}$", BLUE)
        circle(axes, LATENT, row, f"$z_{level}$")
        box(axes, DOWN, row, f"$t_{level}$", GREEN)
        arrow(axes, (UP + 0.8, row), (LATENT - 0.5, row))
        arrow(axes, (LATENT + 0.5, row), (DOWN - 0.8, row))
        axes.text(UP, row - 0.75, f"a value per {grids[level]}", ha="center", va="center", fontsize=7, color="0.35")
        if level + 1 < LEVELS:
            above = ROWS[level + 1]
            arrow(axes, (UP, row + 0.45), (UP, above - 0.95))
            arrow(axes, (DOWN, above - 0.45), (DOWN, row + 0.45))
            # The levels above decide on the prior, and help the posterior.
            arrow(axes, (DOWN - 0.55, above - 0.45), (LATENT + 0.35, row + 0.45), dashed=True)
            axes.text(LATENT + 0.55, row + 1.25, "prior", fontsize=7, color="0.35")
    axes.text(UP, 7.6, "encoder", ha="center", color=BLUE, fontweight="bold")
    axes.text(LATENT, 7.6, "latents", ha="center", color=ORANGE, fontweight="bold")
    axes.text(DOWN, 7.6, "top-down", ha="center", color=GREEN, fontweight="bold")
    axes.text(LATENT, 8.5, "ladder variational autoencoder", ha="center", fontsize=10)
    arrow(axes, (DOWN + 0.8, ROWS[0]), (CODE - 0.75, ROWS[0]))
    box(axes, CODE, ROWS[0], "signal\ncode $c$", PURPLE, wide=1.5, high=1.2)


def draw_decoders(axes: Axes, clean: np.ndarray, noisy: np.ndarray) -> None:
    """Draw the signal decoder and the autoregressive decoder."""
    top = 6.3
    arrow(axes, (CODE, ROWS[0] + 0.6), (CODE, top - 0.6), dashed=True)
    axes.text(CODE + 0.15, 4.4, "no gradient", fontsize=7, color="0.35")
    box(axes, CODE + 0.35, top, "signal\ndecoder", PURPLE, wide=2.0, high=1.2)
    arrow(axes, (CODE + 1.35, top), (15.2, top))
    picture(axes, clean, 16.4, top, "one sample of the denoised image")
    axes.text(16.4, top - 1.35, "the mean of samples is the estimate,\ntheir spread the uncertainty", ha="center",
              va="top", fontsize=7, color="0.35")  # fmt: skip

    arrow(axes, (CODE + 0.75, ROWS[0]), (13.3, ROWS[0]))
    box(axes, 14.4, ROWS[0], "autoregressive\nnoise decoder", PURPLE, wide=2.2, high=1.2)
    side, left, row = 0.42, 12.3, 0.05
    seen, count = range(3, 7), 10
    values = noisy[30, 14 : 14 + count]
    for i, value in enumerate(values):
        corners = (left + i * side, left + (i + 1) * side, row - side / 2, row + side / 2)
        axes.imshow([[value]], "gray", vmin=0, vmax=1.1, extent=corners, zorder=2)
        edge = ORANGE if i in seen else BLUE if i == seen.stop else "0.7"
        rectangle = {"fill": False, "edgecolor": edge, "zorder": 4 if i in [*seen, seen.stop] else 3}
        axes.add_patch(matplotlib.patches.Rectangle((corners[0], corners[2]), side, side, linewidth=1.8, **rectangle))
    axes.text(left - 0.15, row, "a row of $x$", ha="right", va="center", fontsize=8)
    middle = left + (seen.start + len(seen) / 2) * side
    arrow(axes, (middle, row + side / 2 + 0.05), (middle, ROWS[0] - 0.62))
    axes.text(
        middle, row - 0.4, "previous pixels:\nthe receptive field", ha="center", va="top", fontsize=7, color=ORANGE
    )
    pixel = left + (seen.stop + 0.5) * side
    axes.text(pixel + 0.7, row - 0.4, "the pixel\nto predict", ha="center", va="top", fontsize=7, color=BLUE)

    arrow(axes, (15.5, ROWS[0]), (16.3, ROWS[0]))
    grey = np.linspace(-1, 1, 80)
    density = 0.7 * np.exp(-((grey / 0.3) ** 2)) + 0.3 * np.exp(-(((grey - 0.5) / 0.2) ** 2))
    axes.fill_between(17.5 + 1.1 * grey, ROWS[0] - 0.4, ROWS[0] - 0.4 + 1.1 * density, color=BLUE, alpha=0.25)
    axes.plot(17.5 + 1.1 * grey, ROWS[0] - 0.4 + 1.1 * density, color=BLUE)
    axes.text(17.5, ROWS[0] + 0.85, "probability of its grey value", ha="center", fontsize=8)


def main() -> None:
    """Draw the figure."""
    clean, noisy = images()
    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(10, 5.1))
    axes = figure.add_subplot()
    picture(axes, noisy, 1.45, ROWS[0], "noisy image $x$")
    draw_ladder(axes)
    draw_decoders(axes, clean, noisy)
    axes.set(xlim=(0, WIDTH), ylim=(-1.1, HEIGHT - 0.6), aspect="equal")
    axes.set_axis_off()
    figure.savefig(GUIDES / "method.svg", metadata={"Date": None}, facecolor="white", bbox_inches="tight")


if __name__ == "__main__":
    main()
