import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import dvlae.models.decoders.sampling as sampling
from dvlae.models.decoders.autoregressive import DECODERS
from dvlae.models.likelihood import Limits, sample_mixture
from dvlae.models.paper import PaperAutoregressiveDecoder

FLOOR = torch.full((1, 1, 1), 0.01)
# That of the paper has hidden layers of other sizes than the signal code.
KINDS = DECODERS | {"paper": lambda image, code, *sizes: PaperAutoregressiveDecoder(image, code, 5, *sizes)}


def build(receptive_field: int, direction: str, shape: tuple[int, ...], channels: int = 1, kind: str = "nonlinear"):
    """Return a decoder, a signal code for it, and noise to draw with."""
    torch.manual_seed(0)
    decoder = KINDS[kind](channels, 8, 3, receptive_field, direction, len(shape)).double()
    decoder.requires_grad_(False)
    code = torch.randn(2, 8, *shape, dtype=torch.float64)
    return decoder, code, torch.randn(2, 2 * channels, *shape, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("receptive_field", [4, 8, 14, 40, 60])
@pytest.mark.parametrize(
    ("direction", "shape"), [("x", (70,)), ("x", (3, 70)), ("y", (70, 3)), ("x", (2, 3, 70)), ("z", (70, 2, 3))]
)
def test_each_step_predicts_what_the_whole_network_predicts(kind, receptive_field, direction, shape):
    decoder, code, _ = build(receptive_field, direction, shape, 2, kind)
    x = torch.randn(2, 2, *shape, dtype=torch.float64)
    axis = decoder.axis
    expected = [sampling.to_lines(part.flatten(1, 2), axis) for part in decoder(x, code)]

    def compare(position, *parts):
        for part, whole in zip(parts, expected, strict=True):
            assert torch.allclose(part.flatten(1), whole[position], atol=1e-12)
        return sampling.to_lines(x, axis)[position]

    sampling.walk_along_lines(decoder, code, compare)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("receptive_field", "direction", "shape"),
    [
        (0, "none", (5, 6)),
        (0, "x", (5, 6)),
        (8, "x", (5, 30)),
        (40, "y", (60, 5)),
        (8, "x", (30,)),
        (8, "y", (3, 30, 4)),
    ],
)
def test_the_image_is_what_the_whole_network_would_draw_with_its_pixels_as_past(
    kind, receptive_field, direction, shape
):
    decoder, code, noise = build(receptive_field, direction, shape, 2, kind)
    floor = torch.full((2, *[1] * len(shape)), 0.01)
    x = sampling.sample_autoregressively(decoder, code, noise, floor)
    normal, choice = noise.chunk(2, dim=1)
    expected = sample_mixture(*decoder(x, code), floor, normal, torch.special.ndtr(choice))
    assert torch.allclose(x, expected, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_how_the_code_is_cut_into_chunks_changes_nothing(monkeypatch, kind):
    decoder, code, noise = build(8, "x", (4, 30), kind=kind)
    whole = sampling.sample_autoregressively(decoder, code, noise, FLOOR)
    monkeypatch.setattr(sampling, "MAX_PROJECTED_VALUES", 2 * 4 * 8 * 8 * 7)  # seven columns
    assert torch.allclose(sampling.sample_autoregressively(decoder, code, noise, FLOOR), whole, atol=1e-12)


def test_lines_do_not_know_of_each_other():
    decoder, code, noise = build(8, "x", (4, 30))
    whole = sampling.sample_autoregressively(decoder, code, noise, FLOOR)
    part = sampling.sample_autoregressively(decoder, code[..., 1:3, :], noise[..., 1:3, :], FLOOR)
    assert torch.allclose(whole[..., 1:3, :], part, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("direction", "shape"), [("x", (5, 60)), ("y", (60, 5)), ("x", (2, 3, 60)), ("x", (60,))])
def test_pixels_depend_on_none_beyond_the_range_that_was_seen_in_their_image(kind, direction, shape):
    decoder, code, noise = build(8, direction, shape, 2, kind)
    ones = [1] * len(shape)
    floor = torch.full((2, *ones), 0.01)
    seen = Limits(*(sign * torch.tensor([0.1, 0.3]).double().view(2, 1, *ones).expand(2, 2, *ones) for sign in (-1, 1)))
    x = sampling.sample_autoregressively(decoder, code, noise, floor, seen=seen)
    normal, choice = noise.chunk(2, dim=1)
    expected = sample_mixture(*decoder(seen.clip(x), code), floor, normal, torch.special.ndtr(choice))
    assert torch.allclose(x, expected, atol=1e-9)
    assert (x != seen.clip(x)).any()


def operations(length: int) -> int:
    decoder, code, noise = build(40, "x", (4, length))
    with FlopCounterMode(display=False) as counter:
        sampling.sample_autoregressively(decoder, code, noise, FLOOR)
    return counter.get_total_flops()


def test_twice_the_length_takes_twice_the_operations():
    assert operations(120) == 2 * operations(60)


def test_a_pixel_takes_as_many_operations_as_in_one_run_of_the_whole_network():
    decoder, code, noise = build(40, "x", (4, 120))
    with FlopCounterMode(display=False) as counter:
        decoder(noise[:, :1], code)
    assert 0.5 * counter.get_total_flops() < operations(120) < 1.01 * counter.get_total_flops()
