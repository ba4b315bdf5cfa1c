"""The loop of a training."""

from collections.abc import Sequence

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn

from dvlae.training.checkpoints import Checkpoints
from dvlae.training.crops import RandomCrops, ValidationBatch
from dvlae.training.displays import Display
from dvlae.training.objectives.elbo import Objective
from dvlae.training.objectives.refinement import Refinement
from dvlae.training.processes import Clock, average_over_processes
from dvlae.training.schedule import Schedule
from dvlae.training.shared_weights import SharedWeights
from dvlae.training.state import TrainingState
from dvlae.training.workers import Workers


def fit(
    fabric: Fabric,
    shared: SharedWeights,
    state: TrainingState,
    schedule: Schedule,
    crops: RandomCrops,
    validation: Sequence[ValidationBatch],
    checkpoints: Checkpoints | None,
    displays: Sequence[Display],
    pause: float | None = None,
) -> None:
    """Train until a limit is reached, or until a pause.

    Parameters
    ----------
    fabric
        The devices, the precision and the connection between their processes.
    shared
        The weights, and the workers that share each batch.
    state
        State of the training, which is changed in place.
    schedule
        Rates and limits.
    crops
        Batches for training. Each process computes a step of its own at the same time.
    validation
        Batches for validation.
    checkpoints
        Folder in which the unfinished training is saved; None: it is not saved.
    displays
        Displays that show the state to the user after each step.
    pause
        Seconds of training after which the loop ends early, with a checkpoint; None: never.

    Raises
    ------
    UserError
        If the weights do not stay finite.
    """
    network = fabric.setup_module(state.objective)
    processes = fabric.world_size
    accumulate = schedule.settings.accumulate // processes
    chosen = shared.workers.share(crops.batch_size)
    clock = Clock(state.seconds, processes)
    paused = False
    while state.stopped_by is None and not paused:
        step, last_step = state.steps + fabric.global_rank, state.steps + processes - 1
        epoch_ends = schedule.ends_epoch(state.steps, processes)
        weights_change = schedule.changes_weights(state.steps, processes)
        # The seed depends on the step, so that a resumed training samples the same as an uninterrupted one.
        torch.manual_seed(int(np.random.SeedSequence([crops.seed, step, 1]).generate_state(1)[0]))
        if state.is_check_due(processes):
            state.check_finite_or_roll_back()

        # From here to the validation, nothing waits for the device.
        state.set_learning_rates(schedule.learning_rates(last_step, state.seconds, state.history))
        with fabric.no_backward_sync(network, enabled=not weights_change):
            batch, counts = fabric.to_device((crops.batch(step, chosen), crops.counts(step, chosen)))
            loss, values = network(batch, schedule.kl_weight(step, state.seconds), counts)
            fabric.backward(loss / (accumulate / shared.part))
        values = shared.add_up(values, gradients=weights_change)
        if weights_change:
            if (norm := schedule.settings.gradient_clip_norm) is not None:
                clip_gradients(state.model, norm)
            shared.keep_own_gradients()
            state.optimizer.step()
            state.optimizer.zero_grad()
        if processes > 1:  # The weights are equal in all processes; this makes the rest of the state equal, too.
            average_over_processes([*filter(torch.is_floating_point, state.model.buffers()), *values.values()])
        state.update_average(processes)
        state.count(values, processes, shared.end_step(clock.read()))

        state.stopped_by = schedule.reached_limit(state.steps, state.seconds, state.history)
        paused = pause is not None and state.seconds >= pause and weights_change
        if epoch_ends or state.stopped_by or paused:
            state.check_finite_or_roll_back()  # Only finite weights are validated.
            state.add_row(validate(fabric, state.objective, validation, shared.workers), schedule.steps_per_epoch)
        # A state does not hold gradients that wait for others.
        if checkpoints is not None and (
            state.stopped_by or paused or (weights_change and checkpoints.are_due(state.seconds, validated=epoch_ends))
        ):
            shared.gather(state.optimizer)
            checkpoints.save(state.state_dict())
        for display in displays:
            display.update(state)


def clip_gradients(model: nn.Module, norm: float) -> None:
    """Clip the gradients of the direct denoiser separately, so that it does not influence the other networks.

    Parameters
    ----------
    model
        Model whose gradients are scaled in place.
    norm
        The largest norm that they then have.

    References
    ----------
    Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013, arXiv 1211.5063.
    """
    denoiser = getattr(model, "direct_denoiser", None)
    direct = [] if denoiser is None else list(denoiser.parameters())
    apart = {id(parameter) for parameter in direct}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    for part in (rest, direct):
        nn.utils.clip_grad_norm_(part, norm)


@torch.inference_mode()
def validate(
    fabric: Fabric, objective: Objective | Refinement, batches: Sequence[ValidationBatch], workers: Workers
) -> dict[str, float]:
    """Evaluate the averaged weights.

    Parameters
    ----------
    fabric
        The device and the precision.
    objective
        Objective with the averaged weights.
    batches
        Held-out images.
    workers
        Workers that share the batches.

    Returns
    -------
    dict of str to float
        Values for the history: means over the batches.
    """
    rows: list[dict[str, float]] = []
    # The latent noise is the same at every validation, so that epochs can be compared.
    with torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []), fabric.autocast():
        for number in workers.share(len(batches)):
            torch.manual_seed(number)
            values = objective.evaluate(*fabric.to_device(batches[number]))
            rows.append({name: float(value) for name, value in values.items()})
    rows = [row for of_worker in workers.exchange(rows) for row in of_worker]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
