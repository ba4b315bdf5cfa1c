import itertools

import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError
from microscope_files import adam7, chunk, png, unfiltered

RANDOM = np.random.default_rng([0])
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def read(path, content):
    path.write_bytes(content)
    with open_sources(path) as (source,):
        assert source.kind == "png"
        pixels = source.read()
        assert (pixels.shape, pixels.dtype) == (source.shape, source.dtype)
        assert np.array_equal(source.read((1,)), pixels[1])
        return source.axes, pixels


@pytest.mark.parametrize(("colour", "depth", "interlaced"), list(itertools.product(CHANNELS, [8, 16], [0, 1])))
def test_pixels_keep_their_depth_and_all_channels(tmp_path, colour, depth, interlaced):
    shape = (13, 9, CHANNELS[colour])[: 2 if colour == 0 else 3]
    pixels = RANDOM.integers(0, 2**depth, shape).astype(f"u{depth // 8}")
    rows = adam7(pixels) if interlaced else unfiltered(pixels)
    axes, found = read(tmp_path / "a.png", png(9, 13, depth, colour, rows, interlaced=interlaced))
    assert axes == ("YX" if colour == 0 else "YXC")
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize(("colour", "axes"), [(4, "YX"), (6, "YXC")])
def test_opacity_that_is_the_same_everywhere_is_left_out(tmp_path, colour, axes):
    pixels = RANDOM.integers(0, 256, (13, 9, CHANNELS[colour])).astype(np.uint8)
    for value, words in ((255, "leaves out its opacity"), (None, "its last channel is opacity")):
        if value is not None:
            pixels[..., -1] = value
        else:
            pixels[3, 4, -1] = 0
        (tmp_path / "a.png").write_bytes(png(9, 13, 8, colour, unfiltered(pixels)))
        with open_sources(tmp_path / "a.png") as (source,):
            assert words in source.notes[0]
            shown = pixels if value is None else pixels[..., :-1].squeeze()
            assert source.axes == ("YXC" if value is None else axes)
            assert np.array_equal(source.read(), shown) and np.array_equal(source.read((3,)), shown[3])


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_are_scaled_to_eight(tmp_path, depth):
    pixels = RANDOM.integers(0, 2**depth, (5, 11)).astype(np.uint8)
    bits = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - depth :].reshape(5, -1)
    axes, found = read(tmp_path / "a.png", png(11, 5, depth, 0, unfiltered(np.packbits(bits, axis=1))))
    assert axes == "YX"
    assert np.array_equal(found, pixels * (255 // (2**depth - 1)))


@pytest.mark.parametrize(("grey", "axes"), [(True, "YX"), (False, "YXC")])
def test_a_palette_gives_its_colours_and_a_grey_one_grey_values(tmp_path, grey, axes):
    palette = RANDOM.integers(0, 256, (16, 3)).astype(np.uint8)
    palette = np.repeat(palette[:, :1], 3, axis=1) if grey else palette
    numbers = RANDOM.integers(0, 16, (6, 7)).astype(np.uint8)
    transparent = chunk(b"tRNS", b"\x80\0")
    content = png(7, 6, 8, 3, unfiltered(numbers), chunk(b"PLTE", palette.tobytes()), transparent)
    found_axes, found = read(tmp_path / "a.png", content)
    assert found_axes == axes
    assert np.array_equal(found, palette[numbers][..., 0] if grey else palette[numbers])


@pytest.mark.parametrize(("colour", "transparent"), [(0, b"\0\2"), (2, b"\0\2\0\3\0\4")])
def test_a_transparent_colour_makes_no_channel(tmp_path, colour, transparent):
    pixels = RANDOM.integers(0, 256, (5, 6, CHANNELS[colour])).astype(np.uint8)
    _, found = read(tmp_path / "a.png", png(6, 5, 8, colour, unfiltered(pixels), chunk(b"tRNS", transparent)))
    assert np.array_equal(found, pixels.squeeze())


def test_a_file_that_claims_more_than_it_can_contain_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "a.png").write_bytes(png(10**6, 10**6, 16, 6, b"\0"))
    said = "it claims to contain 8000000000000 bytes of pixels in a file of"
    with pytest.raises(UserError, match=said), open_sources(tmp_path / "a.png"):
        pass


def test_an_animation_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(3, 2, 8, 0, bytes(8), chunk(b"acTL", bytes(8))))
    with pytest.raises(UserError, match="it is an animation"), open_sources(tmp_path / "a.png"):
        pass


def test_a_file_that_breaks_off_is_refused_and_not_filled_up(tmp_path):
    pixels = RANDOM.integers(0, 2**16, (40, 50)).astype(np.uint16)
    content = png(50, 40, 16, 0, unfiltered(pixels))
    for kept in (0, 8, 20, 60, len(content) // 2, len(content) - 20):
        (tmp_path / "a.png").write_bytes(content[:kept])
        with pytest.raises(UserError, match=r"a\.png: "), open_sources(tmp_path / "a.png") as (source,):
            source.read()
