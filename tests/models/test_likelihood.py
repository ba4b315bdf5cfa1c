import torch

from dvlae.models.likelihood import mixture_log_likelihood, sample_mixture, scale_floor


def parameters(*shape: int):
    return tuple(torch.randn(*shape) for _ in range(3))


def test_density_integrates_to_one():
    logits, means, raw = parameters(1, 3, 1, 1, 1)
    grid = torch.linspace(-30, 30, 60001)
    expanded = (part.expand(1, 3, 1, 1, len(grid)) for part in (logits, means, raw))
    density = mixture_log_likelihood(grid.view(1, 1, 1, -1), *expanded, torch.tensor([[[0.01]]])).exp()
    assert abs(float(torch.trapezoid(density.flatten(), grid)) - 1) < 1e-3


def test_one_component_is_the_normal_density():
    x, (logits, means, raw) = torch.randn(2, 1, 4, 5), parameters(2, 1, 1, 4, 5)
    floor = torch.tensor([[[0.1]]])
    expected = torch.distributions.Normal(means[:, 0], floor + torch.nn.functional.softplus(raw[:, 0])).log_prob(x)
    assert torch.allclose(mixture_log_likelihood(x, logits, means, raw, floor), expected, atol=1e-5)


def test_adding_a_constant_to_the_log_weights_changes_nothing():
    x, (logits, means, raw), floor = torch.randn(1, 1, 4, 5), parameters(1, 3, 1, 4, 5), torch.tensor([[[0.1]]])
    shifted = mixture_log_likelihood(x, logits + 50, means, raw, floor)
    assert torch.allclose(mixture_log_likelihood(x, logits, means, raw, floor), shifted, atol=1e-4)


def test_far_pixels_and_vanishing_weights_stay_finite():
    x = torch.full((1, 1, 1, 1), 500.0, requires_grad=True)
    logits = torch.tensor([-1e4, 0.0, -1e4]).view(1, 3, 1, 1, 1)
    value = mixture_log_likelihood(
        x, logits, torch.zeros(1, 3, 1, 1, 1), torch.full((1, 3, 1, 1, 1), -80.0), torch.tensor([[[1e-3]]])
    )
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(x.grad).all()


def test_floor_bounds_the_density_of_a_saturated_pixel():
    floor = scale_floor(torch.tensor([1.0]), torch.tensor([50.0])).view(-1, 1, 1)
    perfect = mixture_log_likelihood(
        torch.zeros(1, 1, 1, 1), *(torch.full((1, 1, 1, 1, 1), v) for v in (0.0, 0.0, -1e4)), floor
    )
    # A density of 1 / (rounding error * sqrt(2 pi)) at most.
    assert abs(float(perfect) + float(torch.log(floor)) + 0.9189385) < 1e-4


def test_continuous_grey_values_have_a_floor_too():
    assert float(scale_floor(torch.tensor([0.0]), torch.tensor([50.0]))) > 0


def test_samples_follow_the_density():
    torch.manual_seed(0)
    floor, count = torch.tensor([[[0.1]]]), 200_000
    mixture = (torch.tensor([0.3, -0.5, 1.0]), torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([-1.0, 0.5, 0.0]))
    normal, uniform = torch.randn(1, 1, 1, count), torch.rand(1, 1, 1, count)
    sampled = sample_mixture(
        *(part.view(1, 3, 1, 1, 1).expand(-1, -1, -1, 1, count) for part in mixture), floor, normal, uniform
    )
    grid = torch.linspace(-8, 8, 1601)
    expanded = (part.view(1, 3, 1, 1, 1).expand(1, 3, 1, 1, len(grid)) for part in mixture)
    density = mixture_log_likelihood(grid.view(1, 1, 1, -1), *expanded, floor).exp().flatten()
    expected = torch.cumulative_trapezoid(density, grid)
    found = torch.searchsorted(sampled.flatten().sort().values, grid[1:]) / count
    assert (found - expected).abs().max() < 0.005  # Kolmogorov-Smirnov: 0.004 is passed once in 300 times


def test_a_choice_above_the_last_weight_takes_the_last_component():
    zeros = torch.zeros(1, 3, 1, 1, 1)
    means = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1, 1)
    one = torch.ones(1, 1, 1, 1)
    assert sample_mixture(zeros, means, zeros, torch.tensor([[[0.1]]]), 0 * one, 1.1 * one).item() == 3
