import pytest
import torch
from torch import nn

from dvlae.models.decoders.autoregressive import DECODERS
from dvlae.models.dvlae import DVLAE
from dvlae.models.layers import memory_format, to_channels_last
from dvlae.models.loss_terms import LossTerms
from untrained import initial


def build(**sizes) -> DVLAE:
    """Return a model of images around 100 grey values."""
    return initial(100.0, 40.0, **sizes)


@pytest.mark.parametrize("autoregression", DECODERS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("direction", "receptive_field"), [("x", 8), ("y", 8), ("none", 0)])
def test_every_setting_learns(channels, direction, receptive_field, autoregression):
    model = build(
        image_channels=channels,
        noise_direction=direction,
        receptive_field=receptive_field,
        autoregression=autoregression,
    )
    optimizer = torch.optim.Adamax(model.parameters(), 5e-3)
    image = torch.poisson(torch.full((2, channels, 16, 16), 100.0)) + torch.linspace(-60, 60, 16)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(image).loss()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2


def terms_of(image, counts):
    torch.manual_seed(5)
    return build().eval()(image, counts=counts)


def test_values_that_do_not_count_have_no_part_in_the_likelihood_and_the_squared_error():
    image = torch.poisson(torch.full((2, 1, 16, 16), 100.0))
    half = (torch.rand(image.shape) < 0.5).to(torch.uint8)
    all_of_it, one, other = (terms_of(image, counts) for counts in (None, half, 1 - half))
    nothing, ones = (terms_of(image, torch.full_like(half, value)) for value in (0, 1))
    for name in ("log_likelihood", "mse"):
        value = getattr(all_of_it, name)
        assert getattr(nothing, name) == 0
        assert torch.allclose(getattr(ones, name), value)
        assert torch.allclose(getattr(one, name) + getattr(other, name), value, rtol=1e-4)
    assert torch.equal(nothing.kl, all_of_it.kl)


def mean_of_latent(level, mean, std):
    return mean


def test_padding_mirrors_an_image_and_does_not_count():
    model = build(levels=3, stride=(1, 8)).eval()
    image = torch.rand(2, 1, 5, 15) * 200
    mirrored = torch.cat([image, image[..., -1:]], dim=-1)
    assert torch.equal(model.pad(image), mirrored)
    terms, padded = model(image, mean_of_latent), model(mirrored, mean_of_latent)
    # The column more has terms of its own; the divergence is that of the same latents.
    assert torch.allclose(terms.kl * 15, padded.kl * 16)
    with torch.no_grad():
        x = model.normalise(mirrored)
        code, _ = model.ladder_vae(x, mean_of_latent)
        error = (model.signal_decoder(code) - x)[..., :15]
    assert torch.allclose(terms.mse, error.square().mean())


@pytest.mark.parametrize("autoregression", DECODERS)
@pytest.mark.parametrize(("direction", "shape"), [("x", (4, 16)), ("y", (4, 16)), ("y", (16, 5)), ("x", (8, 7))])
def test_a_receptive_field_larger_than_the_image_learns(direction, shape, autoregression):
    model = build(levels=3, noise_direction=direction, receptive_field=40, autoregression=autoregression)
    terms = model(torch.rand(2, 1, *shape) * 200)
    terms.loss().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_annealing_weighs_the_divergence_alone():
    terms = build()(torch.rand(2, 1, 16, 16) * 200)
    assert torch.allclose(terms.loss(0.0), terms.mse - terms.log_likelihood)
    assert torch.allclose(terms.loss(1.0), terms.loss())


def test_a_level_below_the_free_bits_feels_no_divergence_and_one_above_feels_all_of_it():
    below, above = (torch.tensor(value, requires_grad=True) for value in (0.1, 0.7))
    terms = LossTerms(torch.tensor(0.0), [below, above], torch.tensor(0.0))
    loss = terms.loss(free_bits=0.5)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5 + 0.7)
    assert (float(below.grad), float(above.grad)) == (0.0, 1.0)


def test_free_bits_are_no_part_of_the_elbo():
    terms = LossTerms(torch.tensor(-1.0), [torch.tensor(0.1), torch.tensor(0.7)], torch.tensor(0.0))
    assert float(terms.elbo) == pytest.approx(-1.8)
    assert torch.equal(terms.loss(free_bits=0.0), terms.loss())


def test_no_two_layers_share_a_weight():
    model = build()
    assert len(list(model.named_parameters(remove_duplicate=False))) == len(list(model.parameters()))


def test_signal_decoder_does_not_shape_the_code():
    model = build()
    model(torch.rand(2, 1, 16, 16) * 200).mse.backward()
    assert all(p.grad is None for p in model.ladder_vae.parameters())
    assert all(p.grad is not None for p in model.signal_decoder.parameters())


def test_a_forward_pass_changes_no_weight():
    model = build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        model(torch.rand(2, 1, 16, 16) * 200).loss().backward()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("limits", [(None, None), (None, 255.0)])
@pytest.mark.parametrize("autoregression", DECODERS)
def test_half_saturated_image_trains_without_a_bad_number(autoregression, limits):
    model = build(autoregression=autoregression, limits=limits)
    image = torch.poisson(torch.full((2, 1, 16, 16), 120.0)).clamp(max=255)
    image[..., 8:] = 255.0
    optimizer = torch.optim.Adamax(model.parameters(), 2e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = model(image).loss()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_terms_are_per_pixel_value_whatever_the_size(monkeypatch):
    # Without borders (circular padding), receptive field and noise of the latents, a tiled image is the same image.
    model = build(levels_per_scale=2, receptive_field=0).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    one = torch.poisson(torch.full((1, 1, 16, 16), 100.0))
    terms = model(one)
    _, kls = model.ladder_vae(model.normalise(one))
    assert [kl.item() for kl in terms.kl_of_levels] == pytest.approx([kl.sum().item() / one.numel() for kl in kls])
    assert min(terms.kl_of_levels) > 1e-3
    for other in (one.repeat(3, 1, 1, 1), one.repeat(1, 1, 2, 4)):
        same = model(other)
        for name in ("log_likelihood", "kl", "mse"):
            assert getattr(same, name).item() == pytest.approx(getattr(terms, name).item(), rel=1e-4), name


def test_channels_last_computes_the_same():
    model = build().eval()
    image = torch.randn(1, 1, 16, 16)
    codes = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network = model.ladder_vae.to(memory_format=layout)
        codes.append(network(image.to(memory_format=layout), sample_latent=lambda level, mean, std: mean)[0])
    assert torch.allclose(*codes, atol=1e-5)


@pytest.mark.parametrize(
    ("dimensions", "layout"), [(1, torch.contiguous_format), (2, torch.channels_last), (3, torch.channels_last_3d)]
)
def test_every_number_of_axes_has_its_fast_layout(dimensions, layout):
    assert memory_format(dimensions) == layout
    model = to_channels_last(build(image_channels=2, dimensions=dimensions), dimensions).eval()
    convolutions = [module for module in model.modules() if hasattr(module, "kernel_size")]
    assert len(convolutions) > 15
    assert all(convolution.weight.is_contiguous(memory_format=layout) for convolution in convolutions)
    image = torch.rand(3, 2, *[8] * dimensions).to(memory_format=layout)
    x = model.normalise(image)
    for maps in (x, model.ladder_vae.stem(x), *model.ladder_vae.bottom_up(model.ladder_vae.stem(x))):
        assert maps.is_contiguous(memory_format=layout)
        assert dimensions == 1 or not maps.is_contiguous()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_layout_of_the_whole_model_can_be_changed(dimensions):
    # Module.to() refuses tensors of rank 4 where the layout is that of rank 5.
    model = build(image_channels=2, dimensions=dimensions).eval().to(memory_format=memory_format(dimensions))
    image = torch.zeros(3, 2, *[8] * dimensions)
    assert model.normalise(image).shape == image.shape
    assert torch.isfinite(model(image).elbo)


def test_every_convolution_meets_maps_in_its_own_layout_both_ways():
    """Else it copies them first, which costs as much as a convolution."""
    model = to_channels_last(build(), 2).train()
    met = {"forward": [], "backward": []}

    def watch(convolution: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        met["forward"].append((convolution, inputs[0]))
        output.register_hook(lambda gradient: met["backward"].append((convolution, gradient)))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(watch)
    model(torch.rand(2, 1, 16, 16) * 200).loss().backward()
    for way, maps in met.items():
        assert len(maps) > 15
        wrong = [convolution for convolution, m in maps if not m.is_contiguous(memory_format=torch.channels_last)]
        assert wrong == [], way


def test_limits_change_nothing_in_images_that_do_not_reach_them():
    image = torch.poisson(torch.full((2, 1, 16, 16), 100.0))
    found = []
    for limits in [(None, None), (None, 255.0), (0.0, None)]:
        model = build(limits=limits)
        torch.manual_seed(0)
        terms = model(image)
        terms.loss().backward()
        found.append([terms.loss().detach(), *(parameter.grad for parameter in model.parameters())])
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


@pytest.mark.parametrize("autoregression", DECODERS)
def test_the_signal_decoder_learns_the_mean_beyond_the_limit(autoregression):
    image = (120 + 30 * torch.randn(2, 1, 16, 16)).clamp(max=120)
    errors = []
    for limits in [(None, None), (None, 120.0)]:
        model = build(autoregression=autoregression, noise_direction="none", receptive_field=0, limits=limits)
        shown = []
        model.signal_decoder.register_forward_hook(lambda module, args, output, shown=shown: shown.append(output))
        terms = model(image)
        x = model.normalise(image)
        difference = (shown[0] - x).square().mean()
        errors.append((terms.mse - difference).abs().detach())
    assert errors[0] < 1e-6
    assert errors[1] > 0.01


def test_the_likelihood_of_the_paper_has_no_limits():
    sizes = {"levels": 3, "receptive_field": 16, "limits": (None, 120.0)}
    assert build(**sizes).limits is not None
    assert build(**sizes, network="paper").limits is None
