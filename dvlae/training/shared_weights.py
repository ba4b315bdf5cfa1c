"""The weights of a model in memory that all workers share, and what the workers do with them in each step."""

import heapq
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvlae.training.objectives.elbo import Objective
from dvlae.training.objectives.refinement import Refinement
from dvlae.training.optimizers import matrix_shape
from dvlae.training.workers import Workers

# Most values of a step for the history.
_MAX_VALUES = 64


class SharedWeights:
    """The weights that all workers of a training change together.

    The weights and their averages lie in shared memory. Each weight belongs to one worker, which alone changes it.
    In the same memory each worker has a row for its gradients, its batch statistics, and its values for the history.
    Where there is a single worker, all stays as it is, and the methods do nothing.

    Parameters
    ----------
    workers
        The workers.
    objective
        The networks, with equal weights in all workers. They are moved to the shared memory.
    batch_size
        Crops in a batch, which are divided among the workers.

    Attributes
    ----------
    part
        The part of the crops that this worker computes, from 0 to 1.
    owned
        Names of the weights that belong to this worker.
    """

    def __init__(self, workers: Workers, objective: Objective | Refinement, batch_size: int):
        self.workers = workers
        self.part = len(workers.share(batch_size)) / batch_size
        named = dict(objective.model.named_parameters())
        self._parameters = list(named.values())
        owners = _divide([_cost(parameter) for parameter in self._parameters], workers.count)
        self._is_own = [owner == workers.rank for owner in owners]
        self.owned = frozenset(name for name, is_own in zip(named, self._is_own, strict=True) if is_own)
        if workers.count == 1:
            return
        self._statistics = [
            buffer for name, buffer in objective.model.named_buffers() if name.endswith(("running_mean", "running_var"))
        ]
        sizes = [parameter.numel() for parameter in self._parameters]
        lengths = [sum(sizes), sum(map(torch.numel, self._statistics)), _MAX_VALUES]
        row = math.ceil(sum(lengths) / 2) * 2  # As many float32 as fill float64.
        # The first number is the time.
        memory = workers.shared_memory(1 + (2 * sum(sizes) + 1) // 2 + workers.count * row // 2)
        self._seconds, values = memory[:1], memory[1:].view(torch.float32)
        weights, averages, rest = values.split([sum(sizes), sum(sizes), len(values) - 2 * sum(sizes)])
        _move(self._parameters, weights, copy=workers.rank == 0)
        _move(list(objective.average.parameters()), averages, copy=workers.rank == 0)
        workers.wait()
        self._rows = rest[: workers.count * row].view(workers.count, row)
        self._sums = torch.empty(row)
        self._row = _Row(self._rows[workers.rank], lengths, self._parameters, self._statistics)
        self._sum = _Row(self._sums, lengths, self._parameters, self._statistics)

    def add_up(self, values: dict[str, Tensor], *, gradients: bool) -> dict[str, Tensor]:
        """Replace gradients, batch statistics and values by those of the complete batch.

        Parameters
        ----------
        values
            Values of this worker's crops for the history: scalars.
        gradients
            Whether the weights change in this step.

        Returns
        -------
        dict of str to Tensor
            Values of the complete batch.
        """
        if self.workers.count == 1:
            return values
        first = 0 if gradients else self._row.gradients.numel()
        if gradients:
            self._row.gradients.zero_()
            places = zip(self._row.of_parameters, self._parameters, strict=True)
            pairs = [(place, parameter.grad) for place, parameter in places if parameter.grad is not None]
            torch._foreach_copy_([place for place, _ in pairs], [gradient for _, gradient in pairs])
        torch.cat([statistic.flatten() for statistic in self._statistics], out=self._row.statistics)
        self._row.values[: len(values)] = torch.stack(list(values.values()))
        self._row.averaged.mul_(self.part)
        self.workers.wait()
        torch.sum(self._rows[:, first:], 0, out=self._sums[first:])
        torch._foreach_copy_(self._statistics, self._sum.of_statistics)
        if gradients:
            for parameter, gradient in zip(self._parameters, self._sum.of_parameters, strict=True):
                parameter.grad = gradient
        return dict(zip(values, self._sum.values.clone().unbind(), strict=False))

    def keep_own_gradients(self) -> None:
        """Remove the gradients of the other workers' weights, so that the optimiser leaves these weights alone."""
        if self.workers.count == 1:
            return
        for parameter, is_own in zip(self._parameters, self._is_own, strict=True):
            if not is_own:
                parameter.grad = None

    def end_step(self, seconds: float) -> float:
        """Wait until all workers have changed their weights, and agree on the time.

        Parameters
        ----------
        seconds
            Training time until now.

        Returns
        -------
        float
            The time of worker 0.
        """
        if self.workers.count == 1:
            return seconds
        if self.workers.rank == 0:
            self._seconds[0] = seconds
        self.workers.wait()
        return float(self._seconds)

    def gather(self, optimizer: torch.optim.Optimizer) -> None:
        """Complete the state of an optimiser, of which each worker has the part of its own weights.

        Parameters
        ----------
        optimizer
            The optimiser of these weights.
        """
        if self.workers.count == 1:
            return
        own = {i: optimizer.state[p] for i, p in enumerate(self._parameters) if self._is_own[i]}
        for rank, part in enumerate(self.workers.exchange(own)):
            if rank != self.workers.rank:
                for i, state in part.items():
                    optimizer.state[self._parameters[i]] = state


class _Row:
    """Views of one row of the shared memory: gradients, batch statistics, and values for the history."""

    def __init__(self, row: Tensor, lengths: list[int], parameters: list[nn.Parameter], statistics: list[Tensor]):
        self.gradients, self.statistics, self.values = row[: sum(lengths)].split(lengths)
        self.averaged = row[lengths[0] : sum(lengths)]
        self.of_parameters, self.of_statistics = _views(self.gradients, parameters), _views(self.statistics, statistics)


def _views(memory: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut memory into tensors with the shapes and the layouts of others."""
    parts = memory.split([tensor.numel() for tensor in like])
    return [part.as_strided(t.shape, t.stride(), part.storage_offset()) for part, t in zip(parts, like, strict=True)]


def _move(parameters: list[nn.Parameter], memory: Tensor, *, copy: bool) -> None:
    """Move parameters to other memory, which has the same values already or gets them."""
    for parameter, view in zip(parameters, _views(memory, parameters), strict=True):
        if copy:
            view.copy_(parameter.detach())
        parameter.data = view


def _cost(parameter: nn.Parameter) -> int:
    """Return what a step of the optimiser costs: a matrix of weights takes products of matrices."""
    return parameter.numel() * min(matrix_shape(parameter))


def _divide(costs: list[int], count: int) -> list[int]:
    """Give each thing to one of ``count`` workers, so that their costs are about equal; return the workers."""
    owners = [0] * len(costs)
    loads = [(0, rank) for rank in range(count)]
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        load, rank = heapq.heappop(loads)
        owners[i] = rank
        heapq.heappush(loads, (load + costs[i], rank))
    return owners
