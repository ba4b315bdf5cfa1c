import pytest
import torch

from dvlae.inference.tiling import padded_shape
from dvlae.models.direct_denoiser import DirectDenoiser
from dvlae.models.dvlae import DVLAE
from dvlae.training.objectives.distillation import distillation_loss
from untrained import initial


def normalised(direct_denoiser: str, dimensions: int = 2) -> DVLAE:
    """Return a model of images that are normalised as they are."""
    return initial(0.0, 1.0, 0.01, dimensions=dimensions, direct_denoiser=direct_denoiser)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_window_sees_as_far_as_its_halo(dimensions):
    # In double precision, with positive weights: no ReLU and no rounding hides a pixel.
    network = DirectDenoiser(1, 2, [(stride,) * dimensions for stride in (2, 4, 8)], dimensions).double().eval()
    for parameter in network.parameters():
        parameter.data.abs_().mul_(0.3)
    side = 96
    network.head.weight.data.fill_(0.3)
    inputs = [
        torch.ones(1, channels, *[side // stride] * dimensions, dtype=torch.float64, requires_grad=True)
        for channels, stride in ((1, 1), (1, 1), (2, 2), (2, 4), (2, 8))
    ]
    window = slice(side // 2, side // 2 + 8)
    estimate = network(inputs[0], inputs[1], inputs[2:])
    gradients = torch.autograd.grad(estimate[0, 0, window].sum(), inputs)
    reach = 0
    for gradient, stride in zip(gradients, (1, 1, 2, 4, 8), strict=True):
        seen = stride * gradient[0].transpose(0, 1).reshape(side // stride, -1).sum(1).nonzero()
        reach = max(reach, window.start - int(seen.min()), int(seen.max()) + stride - window.stop)
    assert padded_shape(network.halo, [8] * dimensions) == (reach,) * dimensions


@pytest.mark.parametrize(
    ("strides", "levels"), [([2, 4, 8], [0, 1, 2]), ([1, 2, 2, 4, 4, 8, 8, 16], [2, 4, 6]), ([2, 4], [0, 1]), ([1], [])]
)
def test_the_coarsest_features_used_have_a_stride_of_8(strides, levels):
    assert DirectDenoiser(1, 4, [(1, stride) for stride in strides], 2).levels == levels


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_it_alone_learns_from_the_model(dimensions):
    model = normalised("mean", dimensions).eval()
    network = normalised("mean", dimensions).direct_denoiser
    torch.nn.init.ones_(network.head.weight)
    distillation_loss(model, network, torch.randn(2, 1, *[16] * dimensions)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("side", [8, 16, 24])  # without and with room for other places on the grid
def test_it_learns_of_other_views_at_the_same_pixels(monkeypatch, side):
    # A ladder and a signal decoder that show the image itself: where the views lie differently, it is seen.
    model, shown = normalised("mean").eval(), []
    model.ladder_vae.stem = model.signal_decoder = torch.nn.Identity()
    monkeypatch.setattr(model.ladder_vae, "bottom_up", lambda image: shown.append(image) or [image])
    monkeypatch.setattr(model.ladder_vae, "to_code", lambda features, sample_latent: (features[0], []))
    model.direct_denoiser.levels = []
    for _ in range(20):
        assert distillation_loss(model, model.direct_denoiser, torch.randn(3, 1, side, side)) == 0
    moved = [not torch.equal(*both.chunk(2)) for both in shown]
    assert any(moved) and len({both.shape for both in shown}) == 1
    assert (shown[0].shape[-1] < side) == (side >= 16)


def test_the_mean_is_learned_by_the_squared_error_and_the_median_by_the_absolute_error():
    x = torch.randn(2, 1, 16, 16)
    losses = {}
    for direct in ("mean", "median"):
        model = normalised(direct).eval()
        torch.nn.init.constant_(model.direct_denoiser.head.bias, 100.0)  # larger than all that the views differ by
        losses[direct] = distillation_loss(model, model.direct_denoiser, x).item()
    assert losses["mean"] == pytest.approx(100**2, rel=0.1)
    assert losses["median"] == pytest.approx(100, rel=0.1)
