import math

import pytest
import torch

from dvlae.models.likelihood import (
    HALF_BIN,
    Limits,
    censored_log_likelihood,
    mixture_log_likelihood,
    normal_tail,
    sample_mixture,
    scale_floor,
)

FAR = [-1e4, -1e3, -50.0, -5.0, -1.0, 0.0, 1.0, 5.0, 50.0, 1e4]
FLOOR = torch.tensor([[[0.01]]])
NOWHERE = Limits(torch.tensor([[[-torch.inf]]]), torch.tensor([[[torch.inf]]]))


def limits_at(lower: float, upper: float) -> Limits:
    return Limits(torch.tensor([[[lower]]]), torch.tensor([[[upper]]]))


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


def test_density_and_the_mass_at_the_limits_add_up_to_one():
    torch.manual_seed(1)
    mixture, limits, half = parameters(1, 3, 1, 1, 1), limits_at(-1.0, 0.5), HALF_BIN * 0.01
    inside = torch.linspace(-1 + half, 0.5 - half, 3001)[1:-1]
    x = torch.cat([torch.tensor([-1.0]), inside, torch.tensor([0.5])])
    expanded = (part.expand(1, 3, 1, 1, len(x)) for part in mixture)
    density = censored_log_likelihood(x.view(1, 1, 1, -1), *expanded, FLOOR, limits)[0].exp().flatten()
    masses = density[[0, -1]] * 2 * half
    assert masses.min() > 0.05
    assert abs(float(torch.trapezoid(density[1:-1], inside) + masses.sum()) - 1) < 1e-3


def test_limits_change_nothing_where_no_pixel_is_at_them():
    x, mixture = torch.randn(2, 1, 4, 5).clamp(-2, 2), parameters(2, 3, 1, 4, 5)
    expected = mixture_log_likelihood(x, *mixture, FLOOR)
    for limits in (NOWHERE, limits_at(-2.1, 2.1), limits_at(5.0, 6.0)):
        found, values = censored_log_likelihood(x, *mixture, FLOOR, limits)
        assert torch.equal(found, expected)
        assert torch.equal(values, x)


def test_expectation_at_the_upper_limit_is_the_mean_of_what_lies_beyond():
    torch.manual_seed(0)
    logits, means, raw = (torch.tensor(part).view(1, 2, 1, 1, 1) for part in ([0.3, -0.3], [0.5, 1.2], [-0.5, 0.1]))
    normal, uniform = torch.randn(1, 1, 1, 10**6), torch.rand(1, 1, 1, 10**6)
    expanded = (part.expand(-1, -1, -1, 1, 10**6) for part in (logits, means, raw))
    sampled = sample_mixture(*expanded, FLOOR, normal, uniform)
    x = torch.tensor([-1.0, 0.3, 1.0]).view(1, 1, 1, 3)
    expanded = (part.expand(-1, -1, -1, 1, 3) for part in (logits, means, raw))
    _, values = censored_log_likelihood(x, *expanded, FLOOR, limits_at(-1.0, 1.0))
    lower, between, upper = values.flatten().tolist()
    assert (lower, between) == (-1, x.flatten()[1])
    assert abs(upper - float(sampled[sampled > 1 - HALF_BIN * 0.01].mean())) < 0.003


def test_clipped_noise_has_the_mean_that_it_had_before():
    torch.manual_seed(0)
    signal, limits = 0.8, limits_at(-torch.inf, 1.0)
    x = (signal + 0.5 * torch.randn(1, 1, 1, 5_000)).clamp(max=1)
    assert signal - x.mean() > 0.08
    fitted = torch.zeros(2, requires_grad=True)
    for _ in range(100):
        mean, raw = fitted
        mixture = (torch.zeros(1, 1, 1, 1, 1), mean.view(1, 1, 1, 1, 1), raw.view(1, 1, 1, 1, 1))
        log_likelihood, values = censored_log_likelihood(x, *mixture, FLOOR, limits)
        fitted.data += 0.3 * torch.autograd.grad(log_likelihood.mean(), fitted)[0]
    assert abs(mean.item() - signal) < 0.03
    assert abs(values.mean().item() - signal) < 0.03


def test_pixels_at_a_limit_stay_finite_far_from_their_mixture():
    x = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
    logits, raw = torch.zeros(1, 2, 1, 1, 2), torch.full((1, 2, 1, 1, 2), -80.0)
    means = torch.tensor([[-300.0, -200.0], [200.0, 300.0]]).view(1, 2, 1, 1, 2)
    means, raw = means.flip(1).requires_grad_(), raw.requires_grad_()
    value, values = censored_log_likelihood(x, logits, means, raw, FLOOR, limits_at(-1.0, 1.0))
    value.sum().backward()
    for found in (value, values, means.grad, raw.grad):
        assert torch.isfinite(found).all()


def test_what_is_expected_of_a_signal_far_beyond_the_limit_stays_near_it():
    x, zeros = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1)
    _, expected = censored_log_likelihood(x, zeros, zeros + 1e4, zeros, FLOOR, limits_at(-1.0, 1.0))
    assert 1 < float(expected) < 1 + 3 * float(torch.nn.functional.softplus(torch.zeros(())))


def test_the_tail_is_that_of_double_precision():
    expected = torch.special.log_ndtr(torch.tensor(FAR, dtype=torch.float64)).float()
    assert torch.allclose(normal_tail(torch.tensor(FAR))[0], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("z", FAR)
def test_the_hazard_is_the_gradient_of_the_tail(z):
    value = torch.tensor(z, requires_grad=True)
    log_cdf, hazard = normal_tail(value)
    log_cdf.backward()
    log_density = -z * z / 2 - math.log(2 * math.pi) / 2
    # Far below, it approaches -z.
    expected = -z if z < -500 else math.exp(log_density - log_cdf.item())
    assert [value.grad.item(), hazard.item()] == pytest.approx([expected] * 2, rel=1e-3, abs=1e-20)


def test_only_values_at_a_limit_are_at_it():
    limits = Limits(torch.tensor([[[-1.0]]]), torch.tensor([[[2.0]]]))
    x = torch.tensor([-1.5, -1.0, -0.9, 0.0, 1.9, 2.0, 2.5]).view(1, 1, 1, -1)
    assert limits.side(x, torch.tensor([[[0.05]]])).flatten().tolist() == [0, -1, 0, 0, 0, 1, 0]
    assert limits.clip(x).flatten().tolist() == pytest.approx([-1, -1, -0.9, 0, 1.9, 2, 2])
