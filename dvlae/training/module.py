"""One training step, its schedule, its moving average and its limits."""

import copy
import math
import time
from collections.abc import Callable

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from dvlae.config.settings import TrainingSettings
from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE, LossTerms
from dvlae.system.errors import UserError
from dvlae.system.progress import log
from dvlae.training.optimizers import OPTIMIZERS
from dvlae.training.processes import Clock, average_over_processes

# The learning rate rises over this many steps.
WARM_UP_STEPS = 100
# At full weight from the start, the code can stay empty: the other decoder needs it least then.
KL_WARM_UP_STEPS = 500
# A warm-up takes at most this part of a training that is limited by steps.
MAX_WARM_UP_FRACTION = 0.1

EMA_DECAY = 0.999

# The direct denoiser learns from this part of a batch; more would make a step more than 1.4 times as long.
DISTILLED_FRACTION = 0.25

# Each check that all weights are finite waits for the device.
STEPS_BETWEEN_CHECKS = 50
# Each return to an earlier state halves the learning rate.
MAX_ROLLBACKS = 20


def float_tensors(module: nn.Module) -> list[Tensor]:
    """Return a module's weights and batch statistics, to be changed in place."""
    return [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]


class DVLAETraining(lightning.LightningModule):
    """The training of one :class:`~dvlae.models.dvlae.DVLAE`: optimiser, schedule, moving average, limits, history.

    Parameters
    ----------
    model
        The networks, trained in place.
    settings
        Limits, learning rate and sizes.
    seed
        With the step, it alone fixes the latent noise of that step.
    steps_per_epoch
        Batches in one pass over the training pixels.
    """

    def __init__(self, model: DVLAE, settings: TrainingSettings, seed: int, steps_per_epoch: int):
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.settings, self.seed, self.steps_per_epoch = settings, seed, steps_per_epoch
        self.steps, self.seconds, self.attempts = 0, 0.0, 1
        self.history: list[dict] = []
        self.best_elbo, self.best_epoch = -math.inf, 0
        self.stopped_by: str | None = None
        self.optimizer_state: dict | None = None
        self.rollbacks = 0
        self.joules: dict[str, float] = {}
        self._good: dict | None = None
        self._compiled: Callable | None = None
        self._sums: dict[str, Tensor] = {}
        self._validation: list[dict[str, Tensor]] = []

    @property
    def total_steps(self) -> int:
        """Steps at which ``max_steps`` or ``max_epochs`` ends the training."""
        steps = self.settings.max_epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps or steps)

    def spent(self, step: int) -> float:
        """Return the part of the budget that is spent at this step, 0 to 1: what the learning rate follows.

        Time counts only where no number of steps is set, so that what is limited by steps can be repeated exactly.
        """
        spent = step / self.total_steps
        if self.settings.max_steps is None and self.settings.max_minutes is not None:
            spent = max(spent, self.seconds / (60 * self.settings.max_minutes))
        return min(1.0, spent)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser; a resumed training gets its state back."""
        optimizer = OPTIMIZERS[self.settings.optimizer](self.model.parameters(), lr=self.settings.learning_rate)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        return optimizer

    def training_step(self, batch: Tensor) -> Tensor:
        """Compute the loss of one batch (N, C, ...)."""
        # Several processes compute as many steps at once, each its own; the last sets the learning rate for all.
        step, last = self.steps + self.global_rank, self.steps + self.trainer.world_size - 1
        # Seeded by the step: a resumed training draws what the uninterrupted one would have drawn.
        torch.manual_seed(int(np.random.SeedSequence([self.seed, step, 1]).generate_state(1)[0]))
        if self._good is None or self.steps % STEPS_BETWEEN_CHECKS < self.trainer.world_size:
            self.check_finite_or_roll_back()
        rate = self.settings.learning_rate * 0.5**self.rollbacks * 0.5 * (1 + math.cos(math.pi * self.spent(last)))
        for group in self.optimizers().param_groups:
            group["lr"] = rate * self._warm_up(WARM_UP_STEPS, last)
        terms = self._forward(batch)
        terms.direct = self._distillation_loss(self.model.direct_denoiser, batch)
        self._terms = _values(terms, self.settings.free_bits)
        return terms.annealed_loss(self._warm_up(KL_WARM_UP_STEPS, step), self.settings.free_bits)

    def _forward(self, batch: Tensor) -> LossTerms:
        if self._compiled is not None:
            try:
                return self._compiled(batch)
            except Exception as error:  # whatever a missing compiler or an unknown processor raises
                log(f"train: torch.compile failed, going on without ({str(error).strip().splitlines()[0]})")
                self._compiled = None
        return self.model(batch)

    def _distillation_loss(self, network: DirectDenoiser | None, batch: Tensor) -> Tensor | None:
        """Return the loss of a direct denoiser on part of a batch; its teacher is the averaged model, the one saved."""
        if network is None:
            return None
        return self.average.eval().distillation_loss(network, batch[: math.ceil(DISTILLED_FRACTION * len(batch))])

    def _warm_up(self, steps: int, step: int) -> float:
        """Rise from 0 to 1 over so many steps, or over the first part of a short training."""
        return min(1.0, (step + 1) / min(steps, math.ceil(MAX_WARM_UP_FRACTION * self.total_steps)))

    def configure_gradient_clipping(self, optimizer, gradient_clip_val: float, gradient_clip_algorithm=None) -> None:
        """Clip the direct denoiser's gradients apart, so that the rest learns the same with it as without."""
        direct = list(self.model.direct_denoiser.parameters()) if self.model.direct_denoiser is not None else []
        ours = {id(parameter) for parameter in direct}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in ours]
        for part in (rest, direct):
            nn.utils.clip_grad_norm_(part, gradient_clip_val)

    def on_train_batch_end(self, outputs, batch: Tensor, batch_idx: int) -> None:
        """Count the steps, one a process, follow with the moving average, stop at a limit."""
        # Nothing here, nor in a step, waits for the device.
        processes = self.trainer.world_size
        if processes > 1:  # the weights are equal in all, and from here on so is the rest of the state
            average_over_processes([*filter(torch.is_floating_point, self.model.buffers()), *self._terms.values()])
        for name, value in self._terms.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._sums["steps"] = self._sums.get("steps", 0) + 1
        for step in range(self.steps, self.steps + processes):  # the averaged weights follow, early on quickly
            torch._foreach_lerp_(self._averaged, self._current, max(1 - EMA_DECAY, 9 / (9 + step)))
        self.steps += processes
        now = time.monotonic()
        self.seconds += now - self._now
        if processes > 1:
            self.seconds = self._clock.agree(self.seconds)
        self._now = now
        s = self.settings
        if s.max_minutes is not None and self.seconds >= 60 * s.max_minutes:
            self.stopped_by = "max_minutes"
        elif self.steps >= self.total_steps:
            self.stopped_by = "max_steps" if self.total_steps == s.max_steps else "max_epochs"
        elif s.patience is not None and len(self.history) - self.best_epoch > s.patience:
            self.stopped_by = "patience"
        self.trainer.should_stop = self.stopped_by is not None

    def on_fit_start(self) -> None:
        """Translate the model where that is asked for; start the clock of the time budget."""
        if self.settings.compile:
            self._compiled = torch.compile(self.model.forward)
        self._averaged, self._current = float_tensors(self.average), float_tensors(self.model)  # where they are now
        self._clock = Clock() if self.trainer.world_size > 1 else None
        self._now = time.monotonic()

    def validation_step(self, batch: Tensor) -> None:
        """Evaluate the averaged weights on one batch (N, C, ...)."""
        # The same latent noise at every validation: epochs can then be compared.
        with torch.random.fork_rng(devices=[batch.device] if batch.is_cuda else []):
            torch.manual_seed(len(self._validation))
            terms = self.average.eval()(batch)
            terms.direct = self._distillation_loss(self.average.direct_denoiser, batch)
            self._validation.append(_values(terms, self.settings.free_bits))

    def on_validation_epoch_start(self) -> None:
        """Validate nothing but good weights."""
        self.check_finite_or_roll_back()

    def on_validation_epoch_end(self) -> None:
        """Add one row to the history."""
        steps = self._sums.pop("steps", 1)
        row = {
            "step": self.steps,
            "epoch": round(self.steps / self.steps_per_epoch, 4),
            "minutes": round(self.seconds / 60, 4),
            "learning_rate": self.optimizers().param_groups[0]["lr"],
        }
        row |= {f"train_{name}": float(total) / steps for name, total in self._sums.items()}
        names = self._validation[0]
        row |= {f"val_{name}": float(np.mean([float(v[name]) for v in self._validation])) for name in names}
        self.history.append(row)
        self._sums, self._validation = {}, []
        if row["val_elbo"] > self.best_elbo:
            self.best_elbo, self.best_epoch = row["val_elbo"], len(self.history)

    def check_finite_or_roll_back(self) -> None:
        """Remember this state; or, where a weight is not finite, roll back to the last finite one.

        The learning rate is halved at each return. Very deep ladders do need it now and then.

        Raises
        ------
        UserError
            Where that did not help many times.
        """
        finite = [tensor.isfinite().all() for tensor in self.average.state_dict().values()]
        if torch.stack(finite).all():
            self._good = copy.deepcopy(self._learned_state())
            return
        self.rollbacks += 1
        rate = self.settings.learning_rate * 0.5**self.rollbacks
        if self.rollbacks > MAX_ROLLBACKS or self._good is None:
            raise UserError(
                f"training: the weights became infinite or NaN {self.rollbacks} times, the last time before step "
                f"{self.steps}; lower training.learning_rate (now {self.settings.learning_rate})"
            )
        log(
            f"train: before step {self.steps} the weights became infinite or NaN; going on from those of at most "
            f"{STEPS_BETWEEN_CHECKS} steps ago with half the learning rate, at most {rate:.2g}"
        )
        good = copy.deepcopy(self._good)
        self.model.load_state_dict(good["model"])
        self.average.load_state_dict(good["average"])
        self.optimizers().optimizer.load_state_dict(good["optimizer"])
        self._sums = good["sums"]

    def _learned_state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizers().optimizer.state_dict(),
            "sums": self._sums,
        }

    def state(self) -> dict:
        """Return all that a resumed training needs."""
        self.check_finite_or_roll_back()
        counters = {name: getattr(self, attribute) for name, attribute in _COUNTERS.items()}
        return self._learned_state() | counters | {"joules": self.joules}

    def resume(self, state: dict) -> None:
        """Go on from a :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer_state, self._sums = state["optimizer"], state["sums"]
        for name, attribute in _COUNTERS.items():
            setattr(self, attribute, state[name])
        self.joules = state.get("joules", {})  # older ones did not count them
        self.attempts += 1


# Their names in a state that is saved: the attributes that hold them.
_COUNTERS = {
    name: name for name in ("steps", "seconds", "attempts", "history", "best_elbo", "best_epoch", "stopped_by")
} | {"rescues": "rollbacks"}


def _values(terms: LossTerms, free_bits: float) -> dict[str, Tensor]:
    """Return what the history records; free bits are in the loss, which is minimised, and nowhere else."""
    values = {"loss": terms.annealed_loss(1.0, free_bits)}
    values |= {name: getattr(terms, name) for name in ("elbo", "kl", "log_likelihood", "mse")}
    if terms.direct is not None:
        values["direct"] = terms.direct
    values |= {f"kl_level{level}": kl for level, kl in enumerate(terms.kl_of_levels)}
    return {name: value.detach() for name, value in values.items()}
