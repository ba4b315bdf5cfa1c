"""The network whose training fits into the time on this machine, which is measured first."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dvlae.config.fields import Autoregression
from dvlae.config.settings import TrainSettings
from dvlae.system.files import write_json
from dvlae.system.wording import count

logger = logging.getLogger(__name__)

# A measurement takes so many seconds, and at most this part of the training.
SECONDS_OF_MEASUREMENT, MAX_PART = 8, 0.05
# With fewer steps, a smaller network is better (docs/notes/experiments.md).
ENOUGH_STEPS = 1500
# With fewer steps, even the smallest network leaves images blurred.
FEW_STEPS = 500
# With fewer steps, samples of a model that was trained to the end are better than a refined denoiser.
STEPS_TO_REFINE = 750
# With fewer steps for each of two models, half of the time costs more than 0.1 dB (docs/notes/experiments.md).
STEPS_TO_COMPARE = 3000
COMPARES = (
    "trains two models, one with the nonlinear and one with the linear decoder, half of the time each, and keeps the "
    "one with the smaller estimated error"
)


@dataclass(frozen=True)
class Plan:
    """How a model is trained.

    Attributes
    ----------
    settings
        Sizes and limits of each model.
    expected_steps
        Number of steps that each has time for on this machine; None: not measured, as the time does not limit them.
    decoders
        Kinds of the decoder of the models that are trained like this, one after the other.
    """

    settings: TrainSettings
    expected_steps: int | None = None
    decoders: tuple[Autoregression, ...] = ("nonlinear",)

    @property
    def refines(self) -> bool:
        """Whether the training ends with that of a refined denoiser."""
        return self.settings.model.refines

    def divided(self, decoders: Sequence[Autoregression]) -> "Plan":
        """Divide the limits of a training.

        Parameters
        ----------
        decoders
            Kinds of the decoder of the models that share them.

        Returns
        -------
        Plan
            The plan for these models.
        """
        limits = self.settings.training.part(1 / len(decoders))
        return replace(self, settings=self.settings.model_copy(update={"training": limits}), decoders=tuple(decoders))

    @classmethod
    def choose(
        cls,
        candidates: Sequence[TrainSettings],
        measure: Callable[[TrainSettings, float], float],
        *,
        must_refine: bool = False,
        decoders: Sequence[Autoregression] = ("nonlinear",),
        must_compare: bool = False,
        can_compare: Callable[[], bool] = lambda: True,
    ) -> "Plan":
        """Choose the largest network that gets enough steps, or the smallest one, and say what was chosen and why.

        Parameters
        ----------
        candidates
            Settings from the largest network to the smallest, with a limit of time, which is that of all models.
        measure
            Function that trains with settings for some seconds, and returns the number of steps in a second.
        must_refine
            Whether a denoiser is refined even in so few steps that samples would be better.
        decoders
            Kinds of the decoder that come into question. All are trained if each then has enough steps, in equal parts
            of the time, and else the first one.
        must_compare
            Whether all of them are trained even in few steps.
        can_compare
            Function that says whether models can be compared on the images.

        Returns
        -------
        Plan
            The screen warns if there are too few steps for good images.
        """
        limit = candidates[0].training.max_minutes
        assert limit is not None
        seconds = min(SECONDS_OF_MEASUREMENT, MAX_PART * 60 * limit)
        models = len(decoders) if must_compare and len(decoders) > 1 and can_compare() else 1
        reason = ""
        for settings in candidates:
            rate = measure(settings, seconds)
            steps = max(1, round(rate * 60 * limit / models))
            if steps >= ENOUGH_STEPS or settings is candidates[-1]:
                break
            reason = (
                f"; {settings.model.channels} channels would get about {steps} steps on this machine as it is now, and "
                f"need {ENOUGH_STEPS}"
            )
        if not must_compare and len(decoders) > 1 and steps >= len(decoders) * STEPS_TO_COMPARE and can_compare():
            models = len(decoders)
            steps = round(steps / models)
        if steps < STEPS_TO_REFINE and not must_refine:
            model = settings.model.model_copy(update={"direct_denoiser": False})
            settings = settings.model_copy(update={"model": model})
        plan = cls(settings, steps).divided(decoders[:models])
        for line in plan.lines(reason):
            logger.info(f"denoise: {line}")
        if steps < FEW_STEPS:
            enough = _round_up(models * FEW_STEPS / rate / 60)
            logger.warning(
                f"denoise: WARNING: about {count(steps, 'step')} {'is' if steps == 1 else 'are'} too few for good "
                f"images; --minutes {enough} has time for {FEW_STEPS}, or end other programs that compute"
            )
        return plan

    @classmethod
    def read(cls, path: Path, device: str) -> "Plan | None":
        """Read a plan.

        Parameters
        ----------
        path
            The file.
        device
            The device of the training.

        Returns
        -------
        Plan or None
            The plan; None if there is none, or one for another device.
        """
        if not path.exists():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        if "decoders" not in found:  # An older version has begun.
            return None
        plan = cls(TrainSettings.model_validate(found["settings"]), found["expected_steps"], tuple(found["decoders"]))
        return plan if plan.settings.device == device else None

    def lines(self, more: str = "") -> list[str]:
        """Describe what is trained.

        Parameters
        ----------
        more
            What is said after it.

        Returns
        -------
        list of str
            Lines, which begin with a verb or ``each``.
        """
        line = describe(self.settings, self.expected_steps) + more
        return [line] if len(self.decoders) == 1 else [COMPARES, f"each {line}"]

    def write(self, path: Path) -> None:
        """Write the plan, so that a training that was interrupted goes on with it.

        Parameters
        ----------
        path
            The file.
        """
        write_json(path, vars(self) | {"settings": self.settings.model_dump(mode="json")})

    def check(self, steps: int) -> None:
        """Warn of a training that got too few steps, unless this was foreseen.

        Parameters
        ----------
        steps
            The number of steps of the training.
        """
        if self.expected_steps is not None and steps < FEW_STEPS <= self.expected_steps:
            enough = _round_up(len(self.decoders) * (self.settings.training.max_minutes or 0) * FEW_STEPS / steps)
            logger.warning(
                f"denoise: WARNING: the training got {steps} steps instead of about {self.expected_steps}, too few for "
                f"good images, as other programs used the machine; --overwrite --minutes {enough} has time for "
                f"{FEW_STEPS}"
            )


def describe(settings: TrainSettings, expected_steps: int | None = None) -> str:
    """Describe a training in a phrase.

    Parameters
    ----------
    settings
        Sizes and limits.
    expected_steps
        Number of steps that there is time for; None: not known.

    Returns
    -------
    str
        The phrase, which begins with a verb.
    """
    sizes, limits = settings.model, settings.training
    minutes = f"{limits.max_minutes:g} minute{'' if limits.max_minutes == 1 else 's'}"
    end = minutes if limits.max_steps is None else count(limits.max_steps, "step")
    denoiser = ", with a direct denoiser" if sizes.direct_denoiser else ""
    if sizes.refines:
        denoiser = f", and refines the denoiser in the last {limits.refine_fraction:.0%} of them"
    about = "" if expected_steps is None else f", about {count(expected_steps, 'step')}"
    return (
        f"trains for {end} on {settings.device}{about}: {sizes.levels} levels, {sizes.channels} channels, "
        f"{limits.batch_size} crops in a batch{denoiser}"
    )


def _round_up(minutes: float) -> str:
    return f"{math.ceil(minutes)}" if minutes > 1 else f"{math.ceil(10 * minutes) / 10:g}"
