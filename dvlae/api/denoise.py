"""The command that denoises a user's own images: one model is trained on all of them, or one that exists is used."""

import logging
import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dvlae.api.choices import MAX_CHANNELS, SAMPLES, choose_prediction
from dvlae.api.inputs import choose_dataset, find_inputs, name_paths
from dvlae.api.notes import Warnings, name_options, options_named
from dvlae.api.options import Wishes
from dvlae.api.places import Places
from dvlae.api.plan import COMPARES, STEPS_TO_COMPARE, Plan
from dvlae.api.session import Session
from dvlae.axes import format_sides
from dvlae.config.settings import PredictSettings
from dvlae.data.prepare import list_files
from dvlae.data.reading import open_stacks
from dvlae.inference.posterior import check_model_input
from dvlae.models.files import read_architecture
from dvlae.reporting.page import write_page
from dvlae.system.errors import UserError
from dvlae.system.files import exclusive_lock, write_json
from dvlae.system.hardware.devices import choose_device
from dvlae.system.hashes import hash_files, sha256
from dvlae.system.software import software
from dvlae.system.wording import minutes as in_minutes

logger = logging.getLogger(__name__)

# With what comes before it, a page can be looked at after two minutes.
PREVIEW_MINUTES = 1.5
MINUTES_TO_CONTINUE = 6.0


@options_named("denoise")
def denoise(
    files: Sequence[str],
    *,
    output: Path | None = None,
    minutes: float | None = None,
    noise_direction: str = "auto",
    receptive_field: int | str = "auto",
    decoder: str | None = None,
    axes: str = "auto",
    override_axes: bool = False,
    channel: int | Literal["grey"] | None = None,
    series: int | str = "auto",
    model: Path | None = None,
    start_from: Path | None = None,
    rescale: bool = False,
    samples: int | None = None,
    quick: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> str | None:
    """Denoise image files, and write what is needed to judge and to repeat it.

    For each image ``stack.tif``, ``stack_denoised.tif`` and ``stack_uncertainty.tif`` are written, and once
    ``stack_denoised_model``, ``stack_denoised.html`` and ``stack_denoised.json``, which are named after the first image
    or the folder. What is unfinished is in ``stack_denoised_work``. The same call goes on where it was interrupted.

    Parameters
    ----------
    files
        Files, folders and globs.
    output
        Folder for all results. None: each is beside its image, or, of a folder of images, in ``FOLDER_denoised``.
    minutes
        Time for the training. None: 30, or 6 with ``start_from``.
    noise_direction, receptive_field
        Those of the noise; ``auto``: they are measured.
    decoder
        Kind of the autoregressive decoder, as in :class:`dvlae.api.options.Wishes`. None: auto.
    axes, channel, series
        The settings of a dataset, which say how the files are read. ``axes: auto`` follows the files, but reads planes,
        many channels, and pages of unknown meaning as images.
    override_axes
        Whether ``axes`` counts even where a file says otherwise, which is an error without this.
    model
        Folder of a trained model. None: one is trained.
    start_from
        Folder of a trained model whose training is continued on these images; None: a new one is trained.
    rescale
        With such a model: whether images of another gain and offset are brought to the scale of its training.
    samples
        Number of samples; 0: the direct denoiser. None: 16 after a training; with a model that exists, the direct
        denoiser, or few samples if it has none.
    quick
        Stop at the preview. The same call without this goes on from there.
    overwrite
        Replace results of other calls.
    dry_run
        Write nothing, and return what would be done.
    seed
        Seed of the training and of the samples.
    device
        Where to compute.

    Returns
    -------
    str or None
        What would be done, if nothing else is wanted.

    Raises
    ------
    UserError
        If the images or the model cannot be used, a value is not allowed, or there are results of another call.
    """
    _check_options(
        {"--noise-direction": noise_direction, "--receptive-field": receptive_field, "--decoder": decoder},
        {"--minutes": minutes, "--quick": quick, "--start-from": start_from},
        {"--rescale": rescale},
        model=model,
        start_from=start_from,
    )
    if minutes is None:
        minutes = Wishes.minutes if start_from is None else MINUTES_TO_CONTINUE
    wishes = Wishes(
        noise_direction=noise_direction,
        receptive_field=receptive_field,
        minutes=minutes,
        seed=seed,
        device=device,
        direct=samples == 0,
        start_from=None if start_from is None else start_from.absolute(),
        decoder=decoder or Wishes.decoder,
    )
    inputs, _ = find_inputs(files)
    together = noise_direction == "z"
    if (given := model or start_from) is not None:
        architecture = read_architecture(given)
        noise_direction = architecture.noise_direction
        together = architecture.dimensions > 2 or architecture.image_channels > MAX_CHANNELS
    warnings = Warnings()
    with warnings.noted():
        dataset = choose_dataset(
            inputs,
            "denoise",
            axes=axes,
            override_axes=override_axes,
            channel=channel,
            series=series,
            noise_direction=noise_direction,
            together=together,
        )
    places = Places.choose(files, inputs, output)
    call = _Call(
        inputs=inputs,
        places=places,
        session=Session(places.work, dataset, Path.cwd(), wishes),
        model=None if model is None else model.absolute(),
        samples=samples,
        rescale=rescale,
        warnings=warnings,
    )
    if dry_run:
        return call.describe(overwrite=overwrite)
    with exclusive_lock(places.lock()), warnings.noted():
        call.run(quick=quick, overwrite=overwrite)
    return None


def _check_options(
    of_noise: dict[str, Any],
    of_training: dict[str, Any],
    of_model: dict[str, Any],
    *,
    model: Path | None,
    start_from: Path | None,
) -> None:
    """Refuse options that would have no effect."""
    given = "--model" if model else "--start-from" if start_from else None
    useless = {} if given is None else dict(of_noise)
    useless |= of_training if model else of_model
    for option, value in useless.items():
        if value not in (None, "auto", False):
            allowed = "with --model" if option in of_model else f"without {given}"
            found = "" if value is True else f"found {value}, "
            raise UserError(f"{option}: {found}allowed only {allowed}")


class _Call:
    """One call of :func:`denoise`, after its arguments were checked."""

    def __init__(
        self,
        inputs: Sequence[Path],
        places: Places,
        session: Session,
        model: Path | None,
        samples: int | None,
        rescale: bool,
        warnings: Warnings,
    ):
        self.inputs, self.places, self.session, self.model = inputs, places, session, model
        self.samples, self.rescale, self.warnings = samples, rescale, warnings
        self.targets = [
            *places.results_of(inputs, session.dataset),
            places.page,
            places.record,
            *([] if model else [places.model]),
        ]
        images = {file.resolve() for file in inputs}
        if (target := next((target for target in self.targets if target.resolve() in images), None)) is not None:
            raise UserError(
                f"{target}: is an image to denoise and would be replaced; give --output DIR, or leave it out, as "
                "patterns in quotes ('*.tif') leave out what earlier commands made"
            )
        # Before anything takes time.
        choose_device(session.wishes.device)
        # A model that is not trained yet may get a direct denoiser.
        prediction = self._prediction("refined" if model is None else self._denoiser).prediction
        self.has_uncertainty = prediction.has_deviation

    @property
    def written(self) -> list[Path]:
        """The targets without those that only would have to go."""
        return [path for path in self.targets if self.has_uncertainty or not path.name.endswith("_uncertainty.tif")]

    def request(self) -> dict[str, Any]:
        """Return all that the results depend on."""
        wishes, dataset = self.session.wishes, self.session.dataset
        common = {
            "images": [[file.name, hash_files([file])] for file in list_files(dataset, self.session.data)],
            **dataset.model_dump(include={"axes", "channel", "series"}),
            "samples": self.samples,
            "seed": wishes.seed,
        }
        if self.model is not None:
            weights = sha256(self.model / "weights.safetensors")
            return {**common, "model": weights, "rescale": self.rescale}
        training = {name: getattr(wishes, name) for name in ("noise_direction", "receptive_field", "minutes")}
        if wishes.decoder != Wishes.decoder:
            training["decoder"] = wishes.decoder
        first = None if wishes.start_from is None else sha256(wishes.start_from / "weights.safetensors")
        return {**common, "model": None, **training, "start_from": first}

    def run(self, *, quick: bool, overwrite: bool) -> None:
        """Do what is left to do."""
        start, request, places, session = time.monotonic(), self.request(), self.places, self.session
        if places.is_complete(request):
            logger.info(
                f"denoise: all is there already, and nothing is left to do: {name_paths([places.record])} lists it"
            )
            return
        places.begin(request, self.targets, overwrite=overwrite)
        try:
            if not (places.finished.exists() or self._run_steps(request, quick=quick)):
                return
        except (KeyboardInterrupt, SystemExit):
            logger.info(f"denoise: the same command goes on with what is in {name_paths([places.work])}")
            raise
        made = places.finish(session)
        logger.info(f"denoise: done in {_duration(time.monotonic() - start)}; written: {name_paths(made, 12)}")
        if self.model is None:
            logger.info(
                "denoise: other images like these take seconds: dvlae denoise --model "
                f"{shlex.quote(name_paths([places.model]))} FILES"
            )

    def _run_steps(self, request: dict[str, Any], *, quick: bool) -> bool:
        """Run all steps, or those up to the preview; return whether all are done."""
        places, session = self.places, self.session
        self.warnings.keep(places.work / "warnings.txt")
        try:
            session.prepare()
        except UserError:
            places.discard()
            raise
        if self.model is not None:
            session.diagnose(read_architecture(self.model).noise_direction)
        elif not self._train(quick=quick):
            return False
        settings = self._prediction(self._denoiser)
        if not self.has_uncertainty:
            logger.info("denoise: the direct denoiser gives no uncertainty; --samples 16 does, and takes more time")
        session.denoise(self._model, settings)
        session.check_removed(self._model)
        self._write_page(session, self._model, preview=False)
        record = {
            "request": request,
            "uncertainty": self.has_uncertainty,
            "warnings": self.warnings.lines,
            **software(),
        }
        record["results"] = places.relative(self.targets)
        write_json(places.finished, record)
        return True

    @property
    def _model(self) -> Path:
        return self.model or self.session.run.model

    @property
    def _denoiser(self) -> str | None:
        """The kind of direct denoiser that the model has."""
        return read_architecture(self._model).direct_denoiser

    def _prediction(self, denoiser: str | None) -> PredictSettings:
        """Return how the images are denoised, with this kind of direct denoiser."""
        return choose_prediction(
            self.samples,
            self.session.wishes.device,
            trained=self.model is None,
            denoiser=denoiser,
            rescale=self.rescale,
        )

    def _train(self, *, quick: bool) -> bool:
        """Train, with a preview where there is time for one; return whether the training has ended."""
        session, samples = self.session, SAMPLES if self.samples is None else max(self.samples, 1)
        limit = session.plan.settings.training.max_minutes
        assert limit is not None
        pause = min(PREVIEW_MINUTES, limit / 2)
        results = name_paths(self.written, 12)
        has_time = pause == PREVIEW_MINUTES and not session.run.model.exists()
        if quick or (has_time and not session.preview.run.denoised.exists()):
            session.train(samples, results, pause_minutes=pause)
            session.make_preview()
            self._write_page(session.preview, session.preview.run.model, preview=True)
            logger.info(
                f"denoise: {name_paths([self.places.page])} shows a preview, after {pause:g} minutes of training; as "
                f"measured with it, denoising takes {in_minutes(session.seconds_to_denoise(samples))}"
            )
            results = ""
        if quick:
            logger.info("denoise: the same command without --quick goes on with the training")
            return False
        session.train(samples, results)
        return True

    def _write_page(self, shown: Session, model: Path, *, preview: bool) -> None:
        write_page(
            self.places.page,
            title=self.places.base.name,
            images=shown.images,
            denoised=shown.run.denoised,
            uncertainty=shown.run.uncertainty,
            diagnosis=self.session.noise,
            model=model,
            warnings=self.warnings.for_page(),
            preview=preview,
            kept=self.places.model if self.model is None else None,
            reword=partial(name_options, command="denoise"),
        )

    def describe(self, *, overwrite: bool) -> str:
        """Return what would be done, for the user; what would be refused is an error."""
        session, wishes, request = self.session, self.session.wishes, self.request()
        self.places.check_folders(self.targets)
        if not overwrite:
            self.places.refuse_unfinished(request)
        given, found, shapes = self.model or wishes.start_from, set(), []
        architecture = None if given is None else read_architecture(given)
        for stack in open_stacks(self.inputs, session.dataset):
            if architecture is not None:
                check_model_input(architecture, stack.frame_shape, str(stack.source.path))
            found.add(f"{stack.axes} {format_sides(stack.shape)}")
            shapes.append(stack.frame_shape)
        lines = [f"reads {name_paths(self.inputs)}: {', '.join(sorted(found))}"]
        if self.model is None:
            first, *smaller = session.trainings(shapes)
            lines.append(
                f"measures the noise (direction: {wishes.noise_direction}, receptive field: {wishes.receptive_field})"
            )
            plan = Plan(first).divided(wishes.decoders if wishes.decoder == "best" else wishes.decoders[:1])
            lines += plan.lines("".join(f", or {s.model.channels} channels if the machine is slow" for s in smaller))
            if wishes.decoder == "auto" and wishes.start_from is None:
                lines.append(f"where there is time for {len(wishes.decoders) * STEPS_TO_COMPARE} steps, {COMPARES}")
        else:
            lines.append(f"uses the model in {self.model}")
        lines.append(f"writes {name_paths(self.written, 12)}")
        there = [target for target in self.targets if target.exists()]
        if self.places.is_complete(request):
            lines.append("all of this is there already: nothing would be done")
        elif there:
            lines.append(f"of these, there are already: {name_paths(there)}; --overwrite replaces them")
        return "\n".join(f"would do: {line}" for line in lines)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
