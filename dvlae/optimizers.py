"""The optimisers of training."""

import math

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, from the reference below
_ITERATIONS = 5
_MOMENTUM = 0.95
_BETAS = (0.9, 0.999)
_SMALLEST = 1e-8


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices, save very small ones, to about 0.7 to 1.2, by Newton-Schulz iterations.

    Parameters
    ----------
    matrices
        (N, rows, columns).

    Returns
    -------
    Tensor
        (N, rows, columns).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_SMALLEST)
    a, b, c = _COEFFICIENTS
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

    def polynomial_of(square: Tensor) -> Tensor:
        return torch.baddbmm(a * identity + b * square, square, square, alpha=c)

    # Each iteration is a polynomial of x x^T times x, and those commute: the long side enters but two products.
    square = torch.bmm(x, x.mT)
    polynomials = polynomial = polynomial_of(square)
    for _ in range(_ITERATIONS - 1):
        square = torch.bmm(torch.bmm(polynomial, square), polynomial)
        polynomial = polynomial_of(square)
        polynomials = torch.bmm(polynomial, polynomials)
    x = torch.bmm(polynomials, x)
    return x.mT if tall else x


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
        for group in self.param_groups:
            group["step"] += 1
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                (self._step_matrices if group["is_matrix"] else self._step_adam)(group, parameters)
        return loss

    def _averages(self, name: str, parameters: list[nn.Parameter]) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]

    def _step_matrices(self, group: dict, parameters: list[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        averages = self._averages("average", parameters)
        torch._foreach_lerp_(averages, gradients, 1 - _MOMENTUM)
        ahead = torch._foreach_lerp(gradients, averages, _MOMENTUM)  # Nesterov's momentum
        steps = orthogonalise(torch.stack([matrix.flatten(1) for matrix in ahead]))
        size = 0.2 * math.sqrt(max(steps.shape[1:]))
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.add_(step.reshape(parameter.shape), alpha=-group["lr"] * size)

    def _step_adam(self, group: dict, parameters: list[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        averages, squares = (self._averages(name, parameters) for name in ("average", "square"))
        torch._foreach_lerp_(averages, gradients, 1 - _BETAS[0])
        torch._foreach_mul_(squares, _BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - _BETAS[1])
        bias, bias_of_squares = (1 - beta ** group["step"] for beta in _BETAS)
        divisors = torch._foreach_sqrt(torch._foreach_div(squares, bias_of_squares))
        torch._foreach_add_(divisors, _SMALLEST)
        torch._foreach_addcdiv_(parameters, averages, divisors, -group["lr"] / bias)


def _matrix_shape(parameter: nn.Parameter) -> tuple[int, int]:
    """Return the shape of a layer's weights as outputs by inputs; vectors have one output."""
    if parameter.ndim < 2:
        return 1, parameter.numel()
    return parameter.shape[0], parameter[0].numel()


OPTIMIZERS = {"muon": Muon, "adamax": torch.optim.Adamax}
