import pytest
import torch
from torch import nn

from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_model, save_model
from dvlae.models.latents import gaussian_kl
from dvlae.models.paper import PaperAutoregressiveDecoder, PaperLadderVAE, split_softplus
from untrained import initial

# The authors' sizes, as our settings have them.
PAPER = Architecture(1, 128, 64, 14, 2, 3, 40, "x", network="paper")


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_paper_has_this_many_parameters():
    with torch.device("meta"):
        model = DVLAE(PAPER, [0.0], [1.0], [0.0])
    # One layer of the signal decoder is used twice, and the prior of the top has a value for each of 2 x 2 positions.
    shared, fixed = 128 * (128 * 9 + 1), 2 * 64 * (2 * 2 - 1)
    assert (shared, fixed) == (147_584, 384)
    assert count(model) - shared + fixed == 25_941_386
    assert count(model) == 26_088_586


def test_the_prior_of_imported_weights_is_for_one_grid_and_a_mean_for_others():
    torch.manual_seed(0)
    vae = PaperLadderVAE(1, 8, 4, 3, 1, top_grid=[2, 3]).eval()
    vae.levels[-1].top_prior.data.normal_()
    mean = PaperLadderVAE(1, 8, 4, 3, 1).eval()
    mean.load_state_dict(vae.state_dict() | {"levels.2.top_prior": vae.levels[-1].top_prior.mean((2, 3), keepdim=True)})

    def of_top(ladder, *sides):
        torch.manual_seed(1)
        return ladder(torch.zeros(1, 1, *sides), lambda level, mean, std: mean)[1][-1]

    torch.testing.assert_close(of_top(vae, 32, 24), of_top(mean, 32, 24))
    # Bottom-up features of an empty image do not depend on the prior; the divergence of each position does.
    own, other = of_top(vae, 16, 24), of_top(mean, 16, 24)
    assert own.shape == other.shape == (1, 4, 2, 3)
    assert (own - other).abs().max() > 0.1
    assert vae.sample_prior((2, 16, 24)).shape == (2, 8, 16, 24)
    assert vae.sample_prior((2, 40, 8)).shape == (2, 8, 40, 8)


@pytest.mark.parametrize("raw", [-80.0, -16.0, -14.9, 0.0, 30.0])
def test_no_deviation_is_zero_and_its_gradient_is_finite(raw):
    parameters = torch.tensor([0.5, raw], requires_grad=True)
    mean, log_std = split_softplus(parameters.view(1, 2, 1))
    assert mean.item() == 0.5
    expected = nn.functional.softplus(torch.tensor(raw, dtype=torch.float64)).log()
    assert log_std.item() == pytest.approx(expected.item(), rel=1e-6)
    log_std.sum().backward()
    assert torch.isfinite(parameters.grad).all()
    assert parameters.grad[1] > 0
    assert gaussian_kl(mean, log_std, mean, log_std) == 0


@pytest.mark.parametrize(("direction", "receptive_field"), [("x", 8), ("y", 14), ("none", 0)])
def test_every_direction_learns(direction, receptive_field):
    model = initial(100.0, 40.0, network="paper", noise_direction=direction, receptive_field=receptive_field)
    optimizer = torch.optim.Adamax(model.parameters(), 5e-3)
    image = torch.poisson(torch.full((2, 1, 16, 16), 100.0)) + torch.linspace(-60, 60, 16)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(image).loss()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2


def test_all_weights_learn_but_those_of_the_tap_that_is_not_used():
    model = initial(network="paper", levels=3, levels_per_scale=2, blocks=2)
    model(torch.rand(2, 1, 16, 16) * 100).loss().backward()
    # A bias before a batch norm changes nothing in training.
    unused = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad.abs().max() < 1e-6 and not name.endswith("conv1.bias")
    ]
    assert unused == []
    first = model.autoregressive_decoder.layers[0].convolution.conv.weight.grad
    assert first[..., -1].abs().max() == 0
    assert first[..., :-1].abs().min() > 0


def test_as_many_channels_as_the_decoder_has_do_not_let_it_see_the_pixel_itself():
    """The authors' code adds the image to the first layer where both have as many channels."""
    decoder = PaperAutoregressiveDecoder(3, 4, 3, 2, 8, "x")
    x = torch.randn(1, 3, 2, 20, requires_grad=True)
    torch.cat(decoder(x, torch.randn(1, 4, 2, 20)))[..., 15].sum().backward()
    assert x.grad[..., 15:].abs().max() == 0
    assert x.grad[..., 7:15].abs().sum() > 0


def test_border_values_are_seen_where_the_paper_pads_with_them():
    model = initial(network="paper", levels=1, levels_per_scale=2)
    stem, top = model.ladder_vae.stem.conv, model.ladder_vae.levels[0].posterior
    for layer in (stem, top):
        flat = torch.ones(1, layer.conv.in_channels, 6, 6)
        out = layer(flat)
        torch.testing.assert_close(out, out[..., 3:4, 3:4].expand_as(out))  # zeros would be seen at the border
    reflecting = model.signal_decoder[0]
    x = torch.randn(1, 8, 5, 5)
    padded = nn.functional.conv2d(
        nn.functional.pad(x, [1] * 4, "reflect"), reflecting.conv.weight, reflecting.conv.bias
    )
    torch.testing.assert_close(reflecting(x), padded)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5,), (1,), (1, 4, 6), (3, 1, 1)])
def test_images_of_one_pixel_have_nothing_to_reflect(shape):
    model = initial(network="paper", dimensions=len(shape), levels=1, levels_per_scale=2)
    assert model.stride == (1,) * len(shape)
    terms = model(torch.rand(2, 1, *shape) * 100)
    assert torch.isfinite(terms.elbo)
    assert torch.isfinite(terms.mse)


def test_a_model_comes_back_as_it_was(tmp_path):
    model = initial(network="paper", decoder_channels=3, top_grid=[2, 4])
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.architecture == model.architecture
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
