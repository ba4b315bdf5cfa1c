"""Displays of a running training: a progress line, a warning where steps become slow, their rate, and TensorBoard."""

import logging
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dvlae.system.errors import UserError
from dvlae.system.files import remove_files
from dvlae.system.progress import progress
from dvlae.system.wording import minutes
from dvlae.training.schedule import Schedule
from dvlae.training.state import TrainingState

# The median of so many steps, over so many seconds, is that of ordinary steps: a validation, a checkpoint or a pause of
# the machine makes a single one longer.
MIN_COMPARED_STEPS = 5
SECONDS_OF_COMPARED_STEPS = 10
SLOW_FACTOR = 3
# Columns of the history, and what they are on the screen.
SHOWN = {"val_elbo": "ELBO", "val_mse": "signal error", "val_error": "squared error up to a constant"}
# Steps that are slow for a shorter time are not worth a message.
SECONDS_OF_SLOW_STEPS = 30
# After so long, steps are as long as all later ones, and the user is told how long everything will take.
SECONDS_TO_OUTLOOK = 60
# One sample of a pixel takes this part of the time that a pixel takes in a training step: 3.2 of 15 microseconds with
# 48 channels, on one core (docs/benchmarks.md).
COST_OF_SAMPLE = 0.2

logger = logging.getLogger(__name__)


class ProgressLine:
    """A line with the spent part of the budget, in steps or in seconds, and the last row of the history.

    Parameters
    ----------
    name
        First word of the line.
    schedule
        Schedule whose limits are the budget.
    state
        State in which the training begins.
    """

    def __init__(self, name: str, schedule: Schedule, state: TrainingState):
        self.rows, seconds = len(state.history), schedule.total_seconds
        self.is_timed = seconds is not None
        total, unit = (schedule.total_steps, "step") if seconds is None else (round(seconds), "s")
        self.bar = progress(total=total, description=name, unit=unit, initial=self._spent(state))

    def _spent(self, state: TrainingState) -> int:
        return int(state.seconds) if self.is_timed else state.steps

    def update(self, state: TrainingState) -> None:
        """Update the line.

        Parameters
        ----------
        state
            The training, after a step.
        """
        if len(state.history) > self.rows:
            self.rows, row = len(state.history), state.history[-1]
            values = [f"{words} {row[column]:.3f}" for column, words in SHOWN.items() if column in row]
            text = ", ".join([f"step {row['step']}", *values])
            self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(min(self._spent(state), self.bar.total) - self.bar.n)

    def close(self) -> None:
        """End the line, so that the next output begins on a new one."""
        self.bar.close()


@dataclass(frozen=True)
class Outlook:
    """What follows a training.

    Attributes
    ----------
    pixels
        Number of pixels that are denoised afterwards, times the number of samples of each.
    results
        What is written in the end, for the user.
    refine_fraction
        The part of the training time for a refined denoiser; 0: there is none.
    models
        Number of other models that are trained afterwards, each as long as this one.
    """

    pixels: int
    results: str
    refine_fraction: float = 0.0
    models: int = 0


class OutlookLine:
    """Says once how many steps and minutes of training and denoising are to come, and what will be written.

    Parameters
    ----------
    schedule
        Schedule of the training.
    state
        State in which the training begins.
    outlook
        What follows.
    crop_pixels
        Number of pixels in a crop.
    """

    def __init__(self, schedule: Schedule, state: TrainingState, outlook: Outlook, crop_pixels: int):
        self.schedule, self.outlook = schedule, outlook
        self.pixels = schedule.settings.batch_size * crop_pixels
        self.seconds, self.steps = state.seconds, state.steps
        self.has_told = False

    def update(self, state: TrainingState) -> None:
        """Say it after a minute.

        Parameters
        ----------
        state
            The training, after a step.
        """
        if self.has_told or state.seconds - self.seconds < SECONDS_TO_OUTLOOK:
            return
        self.has_told = True
        of_step = (state.seconds - self.seconds) / (state.steps - self.steps)
        left = of_step * (self.schedule.total_steps - state.steps)
        if self.schedule.total_seconds is not None:
            # The step during which the time ends is finished, and may be the one after which this is said.
            left = max(0.0, min(left, self.schedule.total_seconds - state.seconds))
        # Of all the time and steps of a model, the schedule has what refining leaves.
        refine = self.outlook.refine_fraction
        whole = (self.schedule.total_seconds or of_step * self.schedule.total_steps) / (1 - refine)
        then = {
            "refining the denoiser": refine * whole,
            "training with the other decoder": self.outlook.models * whole,
            "denoising": COST_OF_SAMPLE * self.outlook.pixels * of_step / self.pixels,
        }
        follows = ", ".join(f"{step} {minutes(seconds)}" for step, seconds in then.items() if seconds)
        logger.info(
            f"train: {state.steps} steps are done, about {left / of_step:.0f} are to come in {minutes(left)}; "
            f"then: {follows}; what will be written: {self.outlook.results}"
        )


class SlowSteps:
    """Warns once when steps take several times the shortest time that they took before, for half a minute.

    Parameters
    ----------
    schedule
        Schedule of the training.
    state
        State in which the training begins.
    workers
        Number of workers of the training.
    """

    def __init__(self, schedule: Schedule, state: TrainingState, workers: int):
        self.schedule, self.seconds, self.workers = schedule, state.seconds, workers
        self.steps: list[float] = []
        self.shortest = float("inf")
        self.slow_seconds = 0.0
        self.has_warned = False

    def update(self, state: TrainingState) -> None:
        """Compare the time of the last steps with the shortest, and warn if it is due.

        Parameters
        ----------
        state
            The training, after a step.
        """
        self.steps.append(state.seconds - self.seconds)
        self.seconds = state.seconds
        if len(self.steps) < MIN_COMPARED_STEPS or sum(self.steps) < SECONDS_OF_COMPARED_STEPS:
            return
        usual, count = median(self.steps), len(self.steps)
        self.steps = []
        self.shortest = min(self.shortest, usual)
        # A pause is not counted with its length, but as one of the steps.
        self.slow_seconds = self.slow_seconds + usual * count if usual >= SLOW_FACTOR * self.shortest else 0.0
        if self.slow_seconds >= SECONDS_OF_SLOW_STEPS and not self.has_warned:
            self.has_warned = True
            logger.warning(self._message(usual))

    def _message(self, usual: float) -> str:
        limits = self.schedule.settings
        helps = "end that program"
        if self.workers > 1 and limits.workers == "auto" and limits.max_steps is None:
            helps += ", or interrupt this training and repeat its command: it then goes on with as many workers as "
            helps += "there are free cores"
        return (
            f"train: WARNING: a step takes {usual / self.shortest:.1f} times as long as before, "
            f"{1000 * usual:.0f} instead of {1000 * self.shortest:.0f} ms, probably because another program uses the "
            f"cores; {helps}"
            + (". training.max_minutes now leaves time for fewer steps" if limits.max_minutes is not None else "")
        )


class StepRate:
    """Measures how many steps a training takes in a second, and writes it in the end.

    The first step counts only if there is no other, as it also prepares the device.

    Parameters
    ----------
    path
        The file to write.
    """

    def __init__(self, path: Path):
        self.path = path
        self.seconds: list[float] = []

    def update(self, state: TrainingState) -> None:
        """Note the time.

        Parameters
        ----------
        state
            The training, after a step.
        """
        self.seconds.append(state.seconds)

    def close(self) -> None:
        """Write the number, unless an error came before the first step."""
        if not self.seconds:
            return
        first, *others = self.seconds
        rate = len(others) / (others[-1] - first) if others else 1 / first
        self.path.write_text(repr(rate), encoding="utf-8", newline="\n")


class TensorBoard:
    """Writes each new row of the history as events.

    Parameters
    ----------
    folder
        Folder for the events. Those of an earlier training are removed, those of a resumed training are kept.
    state
        State in which the training begins.

    Raises
    ------
    UserError
        If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, state: TrainingState):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard: found true, but TensorBoard is not installed; set it to false, or install it: "
                'pip install --editable ".[tensorboard]" --constraint constraints.txt'
            ) from None
        if state.steps == 0:
            remove_files(folder, ["events.out.tfevents.*"])
        # Steps after the last checkpoint are repeated, so their older events are hidden.
        self.writer = SummaryWriter(folder, purge_step=state.steps + 1)
        self.rows = len(state.history)

    def update(self, state: TrainingState) -> None:
        """Write the new rows: ``train_elbo`` and ``val_elbo`` become two curves of one group, ``elbo``.

        Parameters
        ----------
        state
            The training, after a step.
        """
        for row in state.history[self.rows :]:
            for name, value in row.items():
                part, _, rest = name.partition("_")
                tag = f"{rest}/{part}" if part in ("train", "val") else f"training/{name}"
                if name != "step":
                    self.writer.add_scalar(tag, value, row["step"])
            self.writer.flush()
        self.rows = len(state.history)

    def close(self) -> None:
        """Close the file of events."""
        self.writer.close()


Display = ProgressLine | OutlookLine | SlowSteps | StepRate | TensorBoard
