import pytest
import torch

from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE, Architecture


def build(direct_denoiser: str | None, dimensions: int = 2) -> DVLAE:
    torch.manual_seed(0)
    return DVLAE(
        Architecture(1, 6, 4, 2, 1, 3, 8, "x", dimensions, direct_denoiser=direct_denoiser), [0.0], [1.0], [0.01]
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_window_sees_as_far_as_its_halo(dimensions):
    # In double precision, with positive weights and inputs: no ReLU and no rounding hides a pixel.
    network = DirectDenoiser(1, 2, dimensions).double()
    for parameter in network.parameters():
        parameter.data.abs_().mul_(0.3)
    side = 12 * network.stride
    x = torch.ones(1, 1, side, *[8] * (dimensions - 1), dtype=torch.float64, requires_grad=True)
    window = slice(side // 2, side // 2 + network.stride)
    (gradient,) = torch.autograd.grad(network(x)[0, 0, window].sum(), x)
    seen = gradient[0, 0].reshape(side, -1).sum(1).nonzero()
    assert max(window.start - int(seen.min()), int(seen.max()) - (window.stop - 1)) == network.halo


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_it_learns_without_changing_the_gradients_of_the_rest(dimensions):
    x = torch.randn(2, 1, *[16] * dimensions)
    gradients = []
    for direct in (None, "mean"):
        model = build(direct, dimensions)
        torch.manual_seed(1)
        model(x).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    alone, beside = gradients
    for name, gradient in alone.items():
        torch.testing.assert_close(gradient, beside[name], rtol=0, atol=0)
    learned = [name for name in beside if name.startswith("direct_denoiser")]
    assert all(beside[name].abs().sum() > 0 for name in learned)


def test_the_mean_is_learned_by_the_squared_error_and_the_median_by_the_absolute_error():
    x = torch.randn(2, 1, 16, 16)
    losses = {}
    for direct in ("mean", "median"):
        model = build(direct)
        torch.nn.init.zeros_(model.direct_denoiser.head.weight)
        torch.nn.init.zeros_(model.direct_denoiser.head.bias)
        signals = []
        model.signal_decoder.register_forward_hook(lambda *arguments, signals=signals: signals.append(arguments[2]))
        losses[direct] = (model(x).direct, signals[0])
    value, signal = losses["mean"]
    torch.testing.assert_close(value, signal.square().mean())
    value, signal = losses["median"]
    torch.testing.assert_close(value, signal.abs().mean())
