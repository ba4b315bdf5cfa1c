import pytest
import torch

from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE, Architecture
from dvlae.tiling import pad_up


def build(direct_denoiser: str | None, dimensions: int = 2) -> DVLAE:
    torch.manual_seed(0)
    return DVLAE(
        Architecture(1, 6, 4, 2, 1, 3, 8, "x", dimensions, direct_denoiser=direct_denoiser), [0.0], [1.0], [0.01]
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_window_sees_as_far_as_its_halo(dimensions):
    # In double precision, with positive weights: no ReLU and no rounding hides a pixel.
    network = DirectDenoiser(1, 2, [2, 4, 8], dimensions).double().eval()
    for parameter in network.parameters():
        parameter.data.abs_().mul_(0.3)
    side = 96
    inputs = [
        torch.ones(1, channels, *[side // stride] * dimensions, dtype=torch.float64, requires_grad=True)
        for channels, stride in ((1, 1), (2, 2), (2, 4), (2, 8))
    ]
    window = slice(side // 2, side // 2 + 8)
    gradients = torch.autograd.grad(network(inputs[0], inputs[1:])[0, 0, window].sum(), inputs)
    reach = 0
    for gradient, stride in zip(gradients, (1, 2, 4, 8), strict=True):
        seen = stride * gradient[0].transpose(0, 1).reshape(side // stride, -1).sum(1).nonzero()
        reach = max(reach, window.start - int(seen.min()), int(seen.max()) + stride - window.stop)
    assert reach == pad_up([network.halo], 8)[0]


@pytest.mark.parametrize(
    ("strides", "levels"), [([2, 4, 8], [0, 1, 2]), ([1, 2, 2, 4, 4, 8, 8, 16], [2, 4, 6]), ([2, 4], [0, 1]), ([1], [])]
)
def test_the_coarsest_features_used_have_a_stride_of_8(strides, levels):
    assert DirectDenoiser(1, 4, strides, 2).levels == levels


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
