import torch

from dvlae.models.decoders.autoregressive import LinearAutoregressiveDecoder


def build() -> LinearAutoregressiveDecoder:
    torch.manual_seed(0)
    return LinearAutoregressiveDecoder(1, 8, 3, 4, "x")


def test_pixels_before_move_the_means_of_all_components_alike_and_nothing_else():
    decoder, code = build(), torch.randn(1, 8, 5, 20)
    x, other = torch.randn(2, 1, 1, 5, 20)
    (logits, means, scales), (logits2, means2, scales2) = decoder(x, code), decoder(other, code)
    assert torch.equal(logits, logits2) and torch.equal(scales, scales2)
    moved = means2 - means
    assert moved.abs().max() > 0.1
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved))


def test_codes_of_one_signal_are_one_to_it():
    decoder, x, code = build(), torch.randn(1, 1, 5, 20), torch.randn(1, 8, 5, 20)
    weight = decoder.signal.weight[0]
    hidden = torch.randn_like(code)
    hidden -= weight[:, None, None] * (hidden.movedim(1, -1) @ weight / weight.square().sum())[:, None]
    for part, other in zip(decoder(x, code), decoder(x, code + hidden), strict=True):
        torch.testing.assert_close(part, other, atol=1e-4, rtol=1e-4)


def test_noise_of_one_tap_is_learned():
    torch.manual_seed(0)
    noise = torch.randn(1, 1, 64, 256)
    for column in range(1, 256):
        noise[..., column] += 0.6 * noise[..., column - 1]
    decoder, code = build(), torch.zeros(1, 8, 64, 256)
    optimizer = torch.optim.Adam(decoder.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        _, means, _ = decoder(noise, code)
        (means.mean(1) - noise).square().mean().backward()
        optimizer.step()
    taps = decoder.regression.conv.weight.flatten().tolist()  # the nearest last
    assert abs(taps[-1] - 0.6) < 0.02 and max(map(abs, taps[:-1])) < 0.02


def test_the_signal_keeps_its_precision_in_bfloat16():
    decoder, code, x = build(), torch.randn(1, 8, 5, 20), torch.randn(1, 1, 5, 20)
    with torch.no_grad():
        exact, _ = decoder.decode(code)
        with torch.autocast("cpu", torch.bfloat16):
            signal, _ = decoder.decode(code)
            _, means, _ = decoder(x, code)
    torch.testing.assert_close(signal, exact, rtol=0, atol=0)
    assert means.dtype == torch.float32
