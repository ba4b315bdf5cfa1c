"""Writing the page of results."""

from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

import matplotlib

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.manifest import read_manifest
from dvlae.evaluation.register import Targets
from dvlae.reporting.page import sections
from dvlae.reporting.page.markup import escape, sentences, table
from dvlae.reporting.page.measurements import Measurement, Score, measure, score
from dvlae.reporting.page.pictures import render
from dvlae.reporting.page.records import Records
from dvlae.reporting.page.views import Frame, choose_frames, iterate_views
from dvlae.reporting.style import STYLE
from dvlae.system.files import atomic_file


@matplotlib.rc_context(STYLE)
def write_page(
    output: Path,
    *,
    title: str,
    images: Path,
    denoised: Path,
    uncertainty: Path,
    diagnosis: Path,
    model: Path | None,
    warnings: Sequence[str],
    preview: bool,
    evaluation: EvaluationSettings | None = None,
    kept: Path | None = None,
    reword: Callable[[str], str] = str,
) -> None:
    """Write what became of noisy images as one HTML file, which contains its pictures and needs no network.

    Parameters
    ----------
    output
        The file to make.
    title
        The heading.
    images
        Folder of canonical images, with ``manifest.csv``. At most five of them are shown.
    denoised, uncertainty
        Folders made by ``dvlae predict``, with the record of the prediction next to the first. The second may be empty
        or missing.
    diagnosis
        The JSON file of ``dvlae diagnose``, with its SVG next to it.
    model
        Folder made by ``dvlae train``; None: unknown.
    warnings
        What the user has to know, one sentence each.
    preview
        Whether the model is not trained to its end.
    evaluation
        How estimates are compared with clean images, where there are some; None: the defaults.
    kept
        Where the model will be when the page is read; None: where it is. Of a preview, the page does not say it.
    reword
        Takes what the diagnosis says of the images, and returns it in the words of the command.

    Raises
    ------
    UserError
        If a file is missing or cannot be read.
    """
    records = Records.read(model, denoised)
    found, noise = sections.read_diagnosis(diagnosis, reword)
    evaluation = evaluation or EvaluationSettings()
    targets = Targets(evaluation)
    manifest = read_manifest(images)
    chosen = choose_frames(manifest, records.unchanged)
    measured: list[Measurement] = []
    scores: dict[str, Score] = {}
    choices: list[str] = []
    views: list[str] = []
    first: int | None = None
    parts: dict[tuple[int, ...], tuple[slice, ...]] = {}
    # One frame is in memory at a time.
    for image in chosen:
        frame = Frame.read(image, denoised, uncertainty)
        measured += measure(frame, found["direction"], targets)
        if (compared := score(frame, targets)) is not None:
            scores[image.name] = compared
        for view in iterate_views(frame, len(chosen), parts):
            if first is None and view.middle:
                first = len(views)
            choices.append(
                f'<option value="view-{len(views)}"{" selected" * (first == len(views))}>{escape(view.label)}</option>'
            )
            views.append(render(view, len(views)))
    settings, others = records.tables()
    values = {
        "title": escape(f"Preview: {title}" if preview else title),
        "preview": sections.preview(records) if preview else "",
        "warnings": sentences(warnings) or "<p>None.</p>",
        "summary": sections.summary(manifest, chosen, measured, scores, found, evaluation, records),
        "choices": "\n".join(choices),
        "views": "\n".join(views),
        "numbers": sections.numbers(measured, scores, records),
        "noise": noise,
        "training": sections.training(model, records),
        "use": "" if preview else sections.use(kept or model),
        "settings": table(["", "training", "prediction"], settings),
        "records": table(["", "training", "prediction"], others),
        "style": _read("page.css"),
        "script": _read("page.js"),
    }
    with atomic_file(output) as temporary:
        temporary.write_text(Template(_read("page.html")).substitute(values), encoding="utf-8", newline="\n")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
