import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dvlae.models.layers import (
    CONVOLUTIONS,
    BatchNorm,
    Pointwise,
    ResidualBlock,
    fused_upsample_conv,
    memory_format,
    mish,
    upsampled,
)


def test_mish_and_its_gradient_are_pytorchs():
    x = torch.cat([torch.linspace(-100, 100, 2001), torch.randn(1000)]).requires_grad_()
    (expected,) = torch.autograd.grad(F.mish(x).sum(), x)
    (found,) = torch.autograd.grad(mish(x).sum(), x)
    assert torch.allclose(mish(x), F.mish(x), rtol=1e-5, atol=1e-6)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_mish_and_its_gradient_are_right_in_bfloat16():
    x = torch.linspace(-20, 20, 2001)
    half = x.bfloat16().requires_grad_()
    exact = half.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(F.mish(exact).sum(), exact)
    (found,) = torch.autograd.grad(mish(half).sum(), half)
    assert mish(half).dtype == found.dtype == torch.bfloat16
    assert torch.allclose(mish(half).double(), F.mish(exact), rtol=2**-8, atol=1e-6)
    assert torch.allclose(found.double(), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_pointwise_is_a_convolution_with_kernel_1(dimensions):
    layer = Pointwise(3, 5)
    convolution = CONVOLUTIONS[dimensions](3, 5, 1)
    convolution.weight.data = layer.weight.data.view(5, 3, *[1] * dimensions)
    convolution.bias.data = layer.bias.data
    x = torch.randn(2, 3, *[6] * dimensions).to(memory_format=memory_format(dimensions))
    assert torch.allclose(layer(x), convolution(x), atol=1e-6)
    assert layer(x).is_contiguous(memory_format=memory_format(dimensions)) or dimensions == 1


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_batch_norm_falls_back_where_a_batch_has_one_value(dimensions):
    norm = BatchNorm(3).train()
    x = torch.randn(1, 3, *[1] * dimensions)
    assert torch.allclose(norm(x), x, atol=1e-4)
    more = torch.randn(4, 3, *[5] * dimensions)
    assert torch.allclose(norm(more), {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions](3)(more))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_residual_block_adds_the_gated_value_of_two_convolutions(dimensions):
    block = ResidualBlock(4, dimensions).double().train()
    x = torch.randn(2, 4, *[6, 5, 7][:dimensions], dtype=torch.double)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dimensions]

    def normalise(h: torch.Tensor) -> torch.Tensor:
        var, mean = torch.var_mean(h, [0, *range(2, h.ndim)], correction=0, keepdim=True)
        return (h - mean) / (var + block.norm1.eps).sqrt()

    h = convolve(F.mish(normalise(x)), block.conv1.weight, padding=1)
    h = convolve(F.mish(normalise(h)), block.conv2.weight, block.conv2.bias, padding=1)
    value, gate = (F.linear(h.movedim(1, -1), layer.weight, layer.bias) for layer in (block.value, block.gate))
    expected = x + (value.tanh() * gate.sigmoid()).movedim(-1, 1)
    assert expected.shape == x.shape
    torch.testing.assert_close(block(x), expected)


FACTORS = [(2,), (2, 2), (1, 2), (2, 2, 2), (1, 2, 2), (2, 1, 1)]


@pytest.mark.parametrize("factors", FACTORS)
def test_the_convolution_of_an_upsampled_map_needs_no_upsampled_map(factors):
    dimensions = len(factors)
    convolution = CONVOLUTIONS[dimensions](3, 5, 3, padding=1, bias=False).double()
    x = torch.randn(2, 3, *[4, 5, 6][:dimensions], dtype=torch.double)
    found = fused_upsample_conv(x, convolution.weight, factors)
    assert torch.allclose(found, convolution(upsampled(x, factors)))


@pytest.mark.parametrize("factors", [None, (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("planes", [1, 2, 3])
def test_gradients_of_thin_volumes_in_bfloat16_are_right(planes, factors):
    block = ResidualBlock(16, 3, factors).to(memory_format=torch.channels_last_3d)
    x = torch.randn(4, 16, planes, 9, 9).to(memory_format=torch.channels_last_3d)
    gradients = []
    for enabled in (False, True):
        block.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = block(x).float()
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in (block.conv1.weight, block.conv2.weight)])
    for exact, found in zip(*gradients, strict=True):
        assert (found - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("factors", FACTORS)
def test_a_block_that_upsamples_is_a_block_of_the_upsampled_input(factors, training):
    dimensions = len(factors)
    block = ResidualBlock(4, dimensions, factors).double().train(training)
    same = ResidualBlock(4, dimensions).double().train(training)
    same.load_state_dict(block.state_dict())
    x = torch.randn(2, 4, *[6] * dimensions, dtype=torch.double)
    assert torch.allclose(block(x), same(upsampled(x, factors)))


NARROW = [(1,), (2,), (5,), (9, 1), (9, 2), (1, 9), (2, 2), (7, 5), (7, 6), (9, 9, 1), (2, 9, 9), (9, 9, 2), (6, 7, 5)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("sides", "kernel", "padding"), [(s, 3, 1) for s in NARROW] + [(s, 5, 0) for s in NARROW if min(s) >= 5]
)
def test_narrow_maps_are_convolved_in_bfloat16_as_in_float32(sides, kernel, padding, stride):
    torch.manual_seed(0)
    layer = CONVOLUTIONS[len(sides)](16, 16, kernel, stride=stride, padding=padding)
    assert_same_in_bfloat16(layer, list(layer.parameters()), sides)


@pytest.mark.parametrize("sides", [(1,), (3,), (9, 1), (1, 9), (9, 3), (2, 2), (1, 9, 9), (9, 9, 1)])
def test_narrow_maps_are_upsampled_in_bfloat16_as_in_float32(sides):
    torch.manual_seed(0)
    weight = torch.randn(16, 16, *[3] * len(sides), requires_grad=True)
    assert_same_in_bfloat16(lambda x: fused_upsample_conv(x, weight, [2] * len(sides)), [weight], sides)


def assert_same_in_bfloat16(function, parameters, sides):
    """Compare results and gradients; what is wrong with them depends on what is left in memory, hence some attempts."""
    x = torch.randn(2, 16, *sides).contiguous(memory_format=memory_format(len(sides))).requires_grad_()
    expected = function(x)
    gradient = torch.randn_like(expected)
    exact = [expected, *torch.autograd.grad(expected, [x, *parameters], gradient)]
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            found = function(x)
        rounded = [found, *torch.autograd.grad(found, [x, *parameters], gradient.to(found.dtype))]
        for one, other in zip(exact, rounded, strict=True):
            assert (one - other).abs().max() < 0.03 * one.abs().max()
