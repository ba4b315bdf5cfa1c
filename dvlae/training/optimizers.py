"""The optimisers of training."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Coefficients of the Newton-Schulz iteration, from the reference below.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def orthogonalise(batches: Sequence[Tensor]) -> list[Tensor]:
    """Bring the singular values of matrices, save very small ones, to about 0.7 to 1.2, by Newton-Schulz iterations.

    Parameters
    ----------
    batches
        Each (N, rows, columns).

    Returns
    -------
    list of Tensor
        Of the same shapes.
    """
    wide = [batch.mT if batch.shape[1] > batch.shape[2] else batch for batch in batches]
    # Each iteration is a polynomial of x x^T times x, and those commute: the long side enters but two products, and
    # all matrices with one short side are computed together.
    for side in {x.shape[1] for x in wide}:
        alike = [i for i, x in enumerate(wide) if x.shape[1] == side]
        factors = _factors(torch.cat([torch.bmm(wide[i], wide[i].mT) for i in alike]))
        for i, factor in zip(alike, factors.split([len(wide[i]) for i in alike]), strict=True):
            wide[i] = torch.bmm(factor, wide[i])
    return [x.mT if x.shape != batch.shape else x for x, batch in zip(wide, batches, strict=True)]


def _factors(squares: Tensor) -> Tensor:
    """Return what orthogonalises matrices x, from the left, given x x^T, (N, rows, rows)."""
    a, b, c = _COEFFICIENTS

    def polynomial_of(square: Tensor) -> Tensor:
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        return polynomial

    # The iteration asks for singular values of at most 1: it begins with x over its norm.
    square_norm = squares.diagonal(dim1=1, dim2=2).sum(1).clamp(min=_EPSILON**2)[:, None, None]
    square = squares / square_norm
    factor = polynomial = polynomial_of(square)
    for _ in range(_ITERATIONS - 1):
        square = torch.bmm(torch.bmm(polynomial, square), polynomial)
        polynomial = polynomial_of(square)
        factor = torch.bmm(polynomial, factor)
    return factor / square_norm.sqrt()


class Muon(torch.optim.Optimizer):
    """Muon for the weights of layers, Adam for all else, at one learning rate.

    The averaged gradient of a layer's weights, taken as a matrix of outputs by inputs, is replaced by the nearest
    orthogonal one: all directions are learned alike fast. Its size is scaled to that of Adam's usual steps.

    Parameters
    ----------
    parameters
        Of a network.
    lr
        Learning rate.

    References
    ----------
    Jordan et al.: Muon: an optimizer for hidden layers in neural networks, 2024,
    https://kellerjordan.github.io/posts/muon. The scale: Liu et al., arXiv 2502.16982, equation 4.
    """

    def __init__(self, parameters, lr: float):
        matrices: dict[tuple, list[nn.Parameter]] = {}
        others = []
        for parameter in parameters:
            shape = _matrix_shape(parameter)
            if min(shape) > 1:
                matrices.setdefault(shape, []).append(parameter)
            else:
                others.append(parameter)
        # Matrices of one shape are computed together.
        groups = [{"params": alike, "is_matrix": True} for alike in matrices.values()]
        super().__init__([*groups, {"params": others, "is_matrix": False}], {"lr": lr, "step": 0})

    @torch.no_grad()
    def step(self, closure=None):
        """Change the weights; return the loss that ``closure``, where there is one, computes first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = []
        for group in self.param_groups:
            group["step"] += 1
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters and group["is_matrix"]:
                matrices.append((parameters, group["lr"], self._ahead(parameters)))
            elif parameters:
                self._step_adam(group, parameters)
        steps = orthogonalise([torch.stack([_as_matrix(t) for t in ahead]) for *_, ahead in matrices])
        for (parameters, rate, ahead), of_all in zip(matrices, steps, strict=True):
            size = 0.2 * math.sqrt(max(of_all.shape[1:]))
            changes = [_as_tensor(step, like) for step, like in zip(of_all, ahead, strict=True)]
            torch._foreach_add_(parameters, changes, alpha=-rate * size)
        return loss

    def _averages(self, name: str, parameters: list[nn.Parameter]) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]

    def _ahead(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """Return the averages of the gradients, with Nesterov's momentum."""
        gradients = [parameter.grad for parameter in parameters]
        averages = self._averages("average", parameters)
        torch._foreach_lerp_(averages, gradients, 1 - _MOMENTUM)
        return torch._foreach_lerp(gradients, averages, _MOMENTUM)

    def _step_adam(self, group: dict, parameters: list[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        averages, squares = (self._averages(name, parameters) for name in ("average", "square"))
        torch._foreach_lerp_(averages, gradients, 1 - _BETAS[0])
        torch._foreach_mul_(squares, _BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - _BETAS[1])
        bias, bias_of_squares = (1 - beta ** group["step"] for beta in _BETAS)
        divisors = torch._foreach_sqrt(torch._foreach_div(squares, bias_of_squares))
        torch._foreach_add_(divisors, _EPSILON)
        torch._foreach_addcdiv_(parameters, averages, divisors, -group["lr"] / bias)


def _matrix_shape(parameter: nn.Parameter) -> tuple[int, int]:
    """Return the shape of a layer's weights as outputs by inputs; vectors have one output."""
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
