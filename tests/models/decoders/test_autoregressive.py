import pytest
import torch

from dvlae.models.decoders.autoregressive import DECODERS
from dvlae.models.paper import PaperAutoregressiveDecoder

SIDE = 90
KINDS = DECODERS | {"paper": lambda image, code, *sizes: PaperAutoregressiveDecoder(image, code, 5, *sizes)}
pytestmark = pytest.mark.parametrize("kind", KINDS)


def influence(kind: str, receptive_field: int, direction: str, at: tuple[int, int]) -> torch.Tensor:
    """Largest gradient of the output at one pixel with respect to every input pixel, over a few random decoders."""
    total = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for seed in range(4):
        torch.manual_seed(seed)
        decoder = KINDS[kind](1, 4, 2, receptive_field, direction).double()
        x = torch.randn(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
        code = torch.randn(1, 4, SIDE, SIDE, dtype=torch.float64)
        outputs = torch.cat(decoder(x, code), dim=1)
        outputs[..., at[0], at[1]].abs().sum().backward()
        total = torch.maximum(total, x.grad[0, 0].abs())
    return total


@pytest.mark.parametrize("receptive_field", [4, 8, 14, 20, 40, 60, 80])
def test_sees_exactly_the_receptive_field_along_the_row(kind, receptive_field):
    seen = influence(kind, receptive_field, "x", (30, 85)).nonzero()
    assert set(seen[:, 0].tolist()) == {30}
    assert sorted(seen[:, 1].tolist()) == list(range(85 - receptive_field, 85))


def test_sees_exactly_the_receptive_field_along_the_column(kind):
    seen = influence(kind, 40, "y", (85, 30)).nonzero()
    assert set(seen[:, 1].tolist()) == {30}
    assert sorted(seen[:, 0].tolist()) == list(range(45, 85))


@pytest.mark.parametrize("direction", ["x", "y", "none"])
def test_zero_receptive_field_sees_no_pixel(kind, direction):
    decoder = KINDS[kind](1, 4, 2, 0, direction)
    code = torch.randn(1, 4, 8, 8)
    first = decoder(torch.randn(1, 1, 8, 8), code)
    second = decoder(torch.randn(1, 1, 8, 8), code)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_sees_the_signal_code_at_the_pixel_itself(kind):
    decoder = KINDS[kind](1, 4, 2, 8, "x")
    code = torch.randn(1, 4, 8, 20, requires_grad=True)
    decoder(torch.randn(1, 1, 8, 20), code)[0][0, :, 0, 3, 10].sum().backward()
    assert code.grad[0, :, 3, 10].abs().min() > 0
    assert code.grad[0, :, 3, 11:].abs().max() == 0


def test_several_channels_give_one_mixture_each(kind):
    parts = KINDS[kind](3, 8, 5, 8, "x")(torch.randn(2, 3, 6, 7), torch.randn(2, 8, 6, 7))
    assert [tuple(part.shape) for part in parts] == [(2, 5, 3, 6, 7)] * 3


def test_gradients_reach_all_that_learns(kind):
    decoder = KINDS[kind](1, 4, 2, 8, "x")
    torch.cat(decoder(torch.randn(1, 1, 8, 20), torch.randn(1, 4, 8, 20))).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())
