"""HTML of one view: the images before and after, what was removed, and the uncertainty, each with a scale."""

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from dvlae.reporting.page.markup import encode_png, escape, figure, image, number
from dvlae.reporting.page.views import View
from dvlae.reporting.panels import Picture, colours, plot_traces

RESIDUAL_COLOURS, DEVIATION_COLOURS = "PuOr", "viridis"
GRADIENT_STOPS = 9
# The rest is clipped.
GREY_PERCENTILES = (0.2, 99.8)
# Of the denoised image, relative to the noisy one.
MIN_SPAN = 0.05
RESIDUAL_PERCENTILE, DEVIATION_PERCENTILE = 99.5, 99.8
DETAILS = "Look for details that are in one image only: the noisy image decides whether they are there."
RESIDUAL_HINT = "What was removed should be noise only. Edges or shapes of the object in it are signal that was lost."
DEVIATION_HINT = "Where the uncertainty is large, the model is not sure: compare these places with the noisy image."
NO_DEVIATION = "There is no uncertainty: it needs at least two samples of the posterior."


def render(view: View, place: int) -> str:
    """Write a view.

    Parameters
    ----------
    view
        The view.
    place
        Its number on the page, for its id.

    Returns
    -------
    str
        The element.
    """
    traces = view.noisy.ndim == 2
    height, width = view.noisy.shape[-2:]
    size = "" if traces else f' data-shape="{height} x {width}" style="--height: {height}; --width: {width}"'
    pictures = _render_traces(view) if traces else _render_images(view)
    return (
        f'<section class="view" id="view-{place}" aria-labelledby="view-{place}-label"{size}>\n'
        f'<h3 id="view-{place}-label">{escape(view.label)}</h3>\n<p class="note">{escape(view.part)}</p>\n'
        f"{pictures}\n</section>"
    )


def _render_traces(view: View) -> str:
    pictures = [
        Picture("before (noisy)", view.grey_values(view.noisy), "image"),
        Picture("after (denoised)", view.grey_values(view.denoised), "image"),
        Picture("removed: noisy − denoised", view.grey_values(view.residual, differences=True), "residual"),
    ]
    if view.deviation is not None:
        pictures.append(Picture("", view.grey_values(view.deviation, differences=True), "deviation"))
    plot = figure(
        plot_traces(pictures), "png", f"{view.label} before and after, a magnified part, and what was removed"
    )
    hints = [RESIDUAL_HINT, DEVIATION_HINT if view.deviation is not None else NO_DEVIATION]
    return plot + "".join(f'\n<p class="note">{escape(hint)}</p>' for hint in hints)


def _render_images(view: View) -> str:
    black, white = _limits(view)
    panes = [
        _pane(encode_png(colours((pixels - black) / (white - black))), f"{view.label}, {name}")
        for name, pixels in (("before", view.noisy), ("after", view.denoised))
    ]
    lowest, highest = view.grey_values([black, white]).tolist()
    counts = view.counts.any(axis=0)
    residual = view.residual.mean(axis=0)
    top = _top(np.abs(residual[counts]), RESIDUAL_PERCENTILE)
    removed = _pane(encode_png((residual / top + 1) / 2, RESIDUAL_COLOURS), f"{view.label}, removed")
    top *= view.info.scale
    parts = [
        '<div class="linked compare" tabindex="-1" role="group" aria-label="Before and after">',
        f'<figure class="before">{panes[0]}<figcaption>Before (noisy)</figcaption></figure>',
        f'<figure class="after">{panes[1]}<figcaption>After (denoised)</figcaption></figure>',
        "</div>",
        _scale(lowest, highest, "gray", "the same before and after; values beyond are clipped"),
        f'<p class="note">{DETAILS}</p>',
        '<div class="linked maps" tabindex="-1" role="group" aria-label="Removed, and uncertainty">',
        f"<figure><figcaption>Removed: before − after</figcaption>{removed}{_scale(-top, top, RESIDUAL_COLOURS)}"
        f'<p class="note">{RESIDUAL_HINT}</p></figure>',
    ]
    if view.deviation is None:
        parts.append(f'<p class="note">{NO_DEVIATION}</p>')
    else:
        deviation = np.sqrt(np.mean(view.deviation**2, axis=0))
        top = _top(deviation[counts], DEVIATION_PERCENTILE)
        shown = _pane(encode_png(deviation / top, DEVIATION_COLOURS), f"{view.label}, uncertainty")
        top *= view.info.scale
        parts.append(
            f"<figure><figcaption>Uncertainty: standard deviation of the posterior</figcaption>{shown}"
            f'{_scale(0, top, DEVIATION_COLOURS)}<p class="note">{DEVIATION_HINT}</p></figure>'
        )
    return "\n".join([*parts, "</div>"])


def _pane(png: bytes, description: str) -> str:
    return f'<div class="pane">{image(png, "image/png", description)}</div>'


def _top(values: np.ndarray, percentile: float) -> float:
    return float(np.percentile(values, percentile)) or 1.0


def _limits(view: View) -> tuple[float, float]:
    """Return the values of black and white: of the denoised image, or, if that is nearly flat, of the noisy one."""
    (black, white), (low, high) = (
        np.percentile(pixels[view.counts], GREY_PERCENTILES) for pixels in (view.denoised, view.noisy)
    )
    if white - black < MIN_SPAN * (high - low):
        black, white = low, high
    return float(black), float(white if white > black else black + 1)


def _scale(low: float, high: float, name: str, text: str = "") -> str:
    """Write which colours stand for which grey values."""
    stops = ", ".join(to_hex(matplotlib.colormaps[name](place)) for place in np.linspace(0, 1, GRADIENT_STOPS))
    return (
        f'<p class="scale"><span>{number(low, high - low)}</span>'
        f'<span class="bar" style="background: linear-gradient(to right, {stops})"></span>'
        f'<span>{number(high, high - low)}</span><span class="note">grey values{text and ", "}{text}</span></p>'
    )
