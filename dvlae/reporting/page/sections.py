"""HTML of the parts of a page that are text, numbers and plots."""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.manifest import Image
from dvlae.reporting.diagnosis import describe, list_notes
from dvlae.reporting.page.markup import decimal, escape, figure, number, plotted, sentences, table
from dvlae.reporting.page.measurements import Measurement, Score, judge
from dvlae.reporting.page.records import Records
from dvlae.reporting.training_figures import plot_histories, read_history
from dvlae.system.errors import UserError


def read_diagnosis(path: Path, reword: Callable[[str], str] = str) -> tuple[dict[str, Any], str]:
    """Read what is known of the noise.

    Parameters
    ----------
    path
        The JSON file of ``dvlae diagnose``, with its SVG next to it.
    reword
        Takes what the file says of the images, and returns it in the words of the command.

    Returns
    -------
    found
        The content of the file.
    section
        HTML.

    Raises
    ------
    UserError
        If one of the files is missing or is not what ``dvlae diagnose`` writes.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        line, notes = describe(found), [reword(note) for note in list_notes(found)]
        # Without a correlation, the figure has no plots.
        svg = path.with_suffix(".svg").read_bytes() if found["autocorrelation"].values() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what dvlae diagnose writes ({error!r}); run it again") from None
    shows = "correlation of the noise with distance, and its variance against the signal"
    plot = "" if svg is None else plotted(svg, "image/svg+xml", shows)
    return found, f"<p>{escape(line[0].upper() + line[1:])}.</p>\n{plot}\n{sentences(notes)}"


def preview(records: Records) -> str:
    """Say that the page is a preview.

    Parameters
    ----------
    records
        The record of the training says how long it was.

    Returns
    -------
    str
        The element.
    """
    when = "" if records.minutes is None else f" after {records.minutes:.1f} minutes of training"
    return (
        f'<p class="preview"><strong>This is a preview{when}.</strong> The training was not finished; the final '
        "result will differ.</p>"
    )


def summary(
    manifest: Sequence[Image],
    shown: Sequence[Image],
    measured: Sequence[Measurement],
    scores: Mapping[str, Score],
    diagnosis: Mapping[str, Any],
    evaluation: EvaluationSettings,
    records: Records,
) -> str:
    """Write the most important numbers.

    Parameters
    ----------
    manifest, shown
        All images, and those on the page.
    measured, scores
        What was measured in those on the page.
    diagnosis
        The content of the JSON file of ``dvlae diagnose``.
    evaluation
        How estimates were compared with clean images.
    records
        The records of the training and the prediction.

    Returns
    -------
    str
        The items of a list of descriptions.
    """
    number = "all" if len(shown) == len(manifest) else f"{len(shown)} of them, evenly spread, are"
    images = f"{len(manifest)}; {number} shown on this page"
    if count := sum(image.name in records.unchanged for image in manifest):
        images += f"; {count} left as {'it was' if count == 1 else 'they were'} (blank, masked or overexposed)"
    facts = {"Images": images}
    if levels := [one.noise for one in measured if one.noise is not None]:
        how = "estimated from the noisy images" if shown[0].clean is None else "noisy − clean"
        facts["Noise before"] = f"standard deviation {_range(levels)} grey values ({how})"
    else:
        facts["Noise before"] = f"not known: {diagnosis['reason'] or 'too few pixels'}"
    facts["Removed"] = f"standard deviation {_range([one.removed for one in measured])} grey values"
    if meaning := " ".join(judge(measured, diagnosis)):
        facts["Assessment"] = meaning
    if scores:
        before = _range([one.before[0] for one in scores.values()])
        after = _range([one.after[0] for one in scores.values()])
        how = f"register: {str(evaluation.register).lower()}, fit: {evaluation.fit}"
        facts["PSNR"] = f"{before} dB before, {after} dB after, against the clean images ({how})"
    if records.minutes is not None:
        said = {"on {}": "device", "{} steps": "steps", "ended by {}": "stopped_by"}
        known = [text.format(records.training[key]) for text, key in said.items() if records.training.get(key)]
        facts["Training"] = ", ".join([f"{records.minutes:.1f} minutes", *known])
    return "\n".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())


def _range(values: Sequence[float]) -> str:
    """Write the smallest and the largest value, or one if they look equal."""
    return " to ".join(dict.fromkeys(_number(value) for value in (min(values), max(values))))


def _number(value: float | None) -> str:
    """Write a number; nothing if it is not known."""
    return "" if value is None or math.isnan(value) else number(value)


def numbers(measured: Sequence[Measurement], scores: Mapping[str, Score], records: Records) -> str:
    """Write the table of what was measured in each image that is shown.

    Parameters
    ----------
    measured, scores
        What was measured.
    records
        What the prediction found in the images.

    Returns
    -------
    str
        The element.
    """
    axes = [axis for axis in "xyz" if any(axis in one.correlation for one in measured)]
    columns = ["image", "noise before", "removed", *(f"correlation along {axis}" for axis in axes)]
    compared = ["PSNR before (dB)", "PSNR after (dB)", "SSIM before", "SSIM after"] if scores else []
    notes = {one.image: records.notes(one.image) for one in measured}
    found = ["found"] if any(notes.values()) else []
    rows = []
    for one in measured:
        row = [
            f"{one.image}, channel {one.channel}" if one.channel else one.image,
            _number(one.noise),
            _number(one.removed),
        ]
        row += [decimal(one.correlation[axis], 2) if axis in one.correlation else "" for axis in axes]
        if scores:
            row += [_number(value) for value in (scores[one.image].numbers if one.image in scores else [None] * 4)]
        rows.append(row + [notes[one.image]] * len(found))
    return table([*columns, *compared, *found], rows)


def training(model: Path | None, records: Records) -> str:
    """Write the section about the training.

    Parameters
    ----------
    model
        Folder made by ``dvlae train``; None: unknown.
    records
        The record of the training.

    Returns
    -------
    str
        HTML.
    """
    if model is None or "receptive_field" not in records.training or not (model / "history.csv").exists():
        return "<p>The records of the training are not with the model.</p>"
    history = read_history(model / "history.csv")
    title = f"training, {history.minutes.iloc[-1]:.1f} minutes"
    plot = plot_histories([(records.training["receptive_field"], history)], title)
    hint = "A curve that still rises (ELBO) at its end says that a longer training would help."
    return f'{figure(plot, "svg", "losses against the training step")}\n<p class="note">{hint}</p>'


def use(model: Path | None) -> str:
    """Say how the model is used again.

    Parameters
    ----------
    model
        Folder of the model; None: unknown.

    Returns
    -------
    str
        HTML; empty without a model.
    """
    if model is None:
        return ""
    command = f"dvlae denoise --model {shlex.quote(str(model.absolute()))} FILES"
    return (
        "<h2>Use the model again</h2>\n"
        "<p>For images of the same microscope with the same settings, without training:</p>\n"
        f'<pre tabindex="0"><code>{escape(command)}</code></pre>'
    )
