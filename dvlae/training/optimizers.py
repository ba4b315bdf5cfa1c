"""The optimisers of training: the paper's Adamax, and Muon.

Muon (Jordan et al. 2024) came out of the races for the fastest training of a small language model. Gradient descent
with momentum moves the weights of a layer along few directions: the averaged gradient, taken as a matrix, has few large
singular values. Muon brings all of them close to 1 before each step, so that the other directions are learned as fast.
It does so without a decomposition: a polynomial of degree five, applied five times, moves all singular values at once
(Newton-Schulz), and takes nothing but products of matrices.

What differs here:

- The weights of a convolution are one matrix, outputs by inputs and places of the kernel.
- The networks have many small matrices. Those of one shape are averaged and changed together, and those with one short
  side are orthogonalised together, in batches. The polynomials are computed for the product of a matrix with its
  transpose, whose sides are the short one.
- A step has the size of Adam's usual ones (Liu et al. 2025), so that one learning rate serves for all parameters.
- Vectors, and matrices with one row or column, take the steps of Adam. There is no weight decay.
- All is computed in the precision of the weights; the reference takes bfloat16.

``torch.optim.Muon`` does not serve: it refuses parameters that are not two-dimensional, convolutions among them, it
takes one matrix after the other, which is slow for many small ones, and it needs PyTorch 2.9.

References
----------
Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon.
Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, 2025: equation 4, the size of a step.
Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, arXiv 1412.6980; section 7.1 is Adamax.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from dvlae.config.training import TrainingSettings
from dvlae.models.direct_denoiser import RefinedDenoiser
from dvlae.models.dvlae import DVLAE

# Coefficients of the Newton-Schulz iteration, from Jordan et al.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPSILON = 1e-8


def orthogonalise(batches: Sequence[Tensor]) -> list[Tensor]:
    """Bring the singular values of matrices, except very small ones, to about 0.7 to 1.2, by Newton-Schulz iterations.

    Parameters
    ----------
    batches
        Batches of matrices, each (N, rows, columns).

    Returns
    -------
    list of Tensor
        Tensors of the same shapes.
    """
    wide = [batch.mT if batch.shape[1] > batch.shape[2] else batch for batch in batches]
    # Each iteration multiplies x by a polynomial of x x^T, and these polynomials commute. Only two products involve the
    # long side, and all matrices with the same short side are computed together.
    for side in {x.shape[1] for x in wide}:
        same_side = [i for i, x in enumerate(wide) if x.shape[1] == side]
        factors = _factors(torch.cat([torch.bmm(wide[i], wide[i].mT) for i in same_side]))
        for i, factor in zip(same_side, factors.split([len(wide[i]) for i in same_side]), strict=True):
            wide[i] = torch.bmm(factor, wide[i])
    return [x.mT if x.shape != batch.shape else x for x, batch in zip(wide, batches, strict=True)]


def _factors(squares: Tensor) -> Tensor:
    """Return the factors that orthogonalise matrices x from the left, given x x^T, (N, rows, rows)."""
    a, b, c = _COEFFICIENTS

    def polynomial_of(square: Tensor) -> Tensor:
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        return polynomial

    # The iteration requires singular values of at most 1, so it begins with x divided by its norm.
    square_norm = squares.diagonal(dim1=1, dim2=2).sum(1).clamp(min=_EPSILON**2)[:, None, None]
    square = squares / square_norm
    factor = polynomial = polynomial_of(square)
    for _ in range(_ITERATIONS - 1):
        square = torch.bmm(torch.bmm(polynomial, square), polynomial)
        polynomial = polynomial_of(square)
        factor = torch.bmm(polynomial, factor)
    return factor / square_norm.sqrt()


class Muon(torch.optim.Optimizer):
    """Muon for the weights of layers, Adam for all other parameters, at one learning rate.

    The averaged gradient of a layer's weights, taken as a matrix of outputs by inputs, is replaced by the nearest
    orthogonal one, so that all directions are learned equally fast. It is scaled to the size of Adam's usual steps.
    The head of this file describes the source and the differences.

    Parameters
    ----------
    parameters
        Parameters of a network.
    lr
        Learning rate.
    betas
        Decay of Adam's averages: of the gradients, and of their squares.
    momentum
        Decay of the averaged gradients of the matrices.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: Sequence[float] = (0.9, 0.999),
        momentum: float = 0.95,
    ):
        # They are no part of the groups, so that a state of an older version can be loaded.
        self.betas, self.momentum = betas, momentum
        matrices: dict[tuple, list[nn.Parameter]] = {}
        others = []
        for parameter in parameters:
            shape = matrix_shape(parameter)
            if min(shape) > 1:
                matrices.setdefault(shape, []).append(parameter)
            else:
                others.append(parameter)
        # Matrices of one shape are computed together.
        groups = [{"params": same_shape, "is_matrix": True} for same_shape in matrices.values()]
        super().__init__([*groups, {"params": others, "is_matrix": False}], {"lr": lr, "step": 0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change the weights."""
        matrices = []
        for group in self.param_groups:
            group["step"] += 1
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters and group["is_matrix"]:
                matrices.append((parameters, group["lr"], self._nesterov(parameters)))
            elif parameters:
                self._step_adam(group, parameters)
        steps = orthogonalise([torch.stack([_as_matrix(t) for t in updates]) for *_, updates in matrices])
        for (parameters, rate, updates), of_all in zip(matrices, steps, strict=True):
            size = 0.2 * math.sqrt(max(of_all.shape[1:]))
            changes = [_as_tensor(step, like) for step, like in zip(of_all, updates, strict=True)]
            torch._foreach_add_(parameters, changes, alpha=-rate * size)

    def _buffers(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """Return a moving average for each parameter, initially zero, which has this name in a saved state."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]

    def _nesterov(self, parameters: list[Tensor]) -> list[Tensor]:
        """Return the averages of the gradients, with Nesterov's momentum."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momentum_buffers = self._buffers("average", parameters)
        torch._foreach_lerp_(momentum_buffers, gradients, 1 - self.momentum)
        return list(torch._foreach_lerp(gradients, momentum_buffers, self.momentum))

    def _step_adam(self, group: dict, parameters: list[Tensor]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        averages, squares = (self._buffers(name, parameters) for name in ("average", "square"))
        torch._foreach_lerp_(averages, gradients, 1 - self.betas[0])
        torch._foreach_mul_(squares, self.betas[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.betas[1])
        bias, bias_of_squares = (1 - beta ** group["step"] for beta in self.betas)
        divisors = torch._foreach_sqrt(torch._foreach_div(squares, bias_of_squares))
        torch._foreach_add_(divisors, _EPSILON)
        torch._foreach_addcdiv_(parameters, averages, divisors, -group["lr"] / bias)


def matrix_shape(parameter: nn.Parameter) -> tuple[int, int]:
    """Return the shape of a layer's weights as outputs by inputs; vectors have one output.

    Parameters
    ----------
    parameter
        Weights of a layer, of any number of axes.

    Returns
    -------
    tuple of int
        Outputs and inputs.
    """
    if parameter.ndim < 2:
        return 1, parameter.numel()
    return parameter.shape[0], parameter[0].numel()


def _as_matrix(weights: Tensor) -> Tensor:
    """Return a layer's weights as outputs by inputs, which are in the order of memory where channels come last."""
    return weights.movedim(1, -1).flatten(1)


def _as_tensor(matrix: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`_as_matrix`."""
    return matrix.view(like.movedim(1, -1).shape).movedim(-1, 1)


OPTIMIZERS = {"muon": Muon, "adamax": torch.optim.Adamax}


def build_optimizer(model: DVLAE | RefinedDenoiser, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return an optimiser of a model.

    Parameters
    ----------
    model
        The networks.
    settings
        Kind of the optimiser, learning rate, and decays.

    Returns
    -------
    torch.optim.Optimizer
        One for all networks: as no step depends on another network's gradients, it steps as one for each would. Where
        the learning rate follows plateaus, the groups of the signal decoder have the entry ``follows``.
    """
    options = {"momentum": settings.momentum} if settings.optimizer == "muon" else {}
    optimizer = OPTIMIZERS[settings.optimizer](
        model.parameters(), lr=settings.learning_rate, betas=settings.betas, **options
    )
    if settings.schedule == "plateau":
        own = {id(parameter) for parameter in model.signal_decoder.parameters()}
        for group in list(optimizer.param_groups):
            ours = [parameter for parameter in group["params"] if id(parameter) in own]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
            if ours:
                optimizer.add_param_group(group | {"params": ours, "follows": "mse"})
    return optimizer
