import math

import pytest
import torch

from dvlae.models.limits import Limits, normal_tail

FAR = [-1e4, -1e3, -50.0, -5.0, -1.0, 0.0, 1.0, 5.0, 50.0, 1e4]


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
