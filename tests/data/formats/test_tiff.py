"""TIFF files of all kinds."""

import logging
import re
import struct
import uuid
from itertools import combinations, product
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError
from frames import read_frames

RANDOM = np.random.default_rng([0])


def random(*shape, dtype=np.uint16, most=250):
    return RANDOM.integers(0, most, shape).astype(dtype)


def refusal(*paths, **keys) -> str:
    with pytest.raises(UserError) as error:
        read_frames(*paths, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def read_all(path):
    """Read the only source of a file."""
    with open_sources(path) as (source,):
        array = source.read()
        assert (array.shape, array.dtype) == (source.shape, source.dtype)
        return source, array


# ---------------------------------------------------------------------------------------------- codecs

# All that tifffile can write.
CODECS = [
    "NONE",
    "LZW",
    "PACKBITS",
    "ADOBE_DEFLATE",
    "DEFLATE",
    "PIXTIFF",
    "LZMA",
    "ZSTD",
    "ZSTD_DEPRECATED",
    "LERC",
    "JPEG",
    "JPEG_LOSSY",
    "JPEG2000",
    "JPEG_2000_LOSSY",
    "APERIO_JP2000_RGB",
    "APERIO_JP2000_YCBC",
    "JPEGXR",
    "JPEGXR_NDPI",
    "JPEGXL",
    "JPEGXL_DNG",
    "WEBP",
    "WEBP_DEPRECATED",
    "PNG",
]
OPTIONS = {
    "codec": CODECS,
    "predictor": [None, True],
    "byteorder": ["<", ">"],
    "tile": [None, (16, 32)],
    "rowsperstrip": [None, 7],
    "samples": ["grey", "contig", "separate", "stack"],
    "dtype": ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8", "bool"],
    "bigtiff": [False, True],
}
# A pair of options that cannot be written in as many cases is given up.
ATTEMPTS = 40


def write_case(path: Path, codec, predictor, byteorder, tile, rowsperstrip, samples, dtype, bigtiff) -> None:
    shape = {"grey": (37, 45), "contig": (37, 45, 3), "separate": (3, 37, 45), "stack": (4, 37, 45)}[samples]
    array = random(*shape, dtype=dtype, most=2 if dtype == "bool" else 120)
    tifffile.imwrite(
        path,
        array,
        byteorder=byteorder,
        tile=tile,
        rowsperstrip=None if tile else rowsperstrip,
        predictor=predictor,
        bigtiff=bigtiff,
        photometric="rgb" if samples in ("contig", "separate") else "minisblack",
        planarconfig=samples if samples in ("contig", "separate") else None,
        compression=tifffile.COMPRESSION[codec],
    )


def written_cases(path):
    """Write files with combinations of options, until each pair that tifffile can write has been in one."""
    generator = np.random.default_rng(0)
    names, values = list(OPTIONS), [list(OPTIONS[name]) for name in OPTIONS]
    left = {
        pair: None
        for a, b in combinations(names, 2)
        for pair in product(*([(n, v) for v in OPTIONS[n]] for n in (a, b)))
    }
    while left:
        pair = next(iter(left))
        for _ in range(ATTEMPTS):
            case = {name: each[generator.integers(len(each))] for name, each in zip(names, values, strict=True)} | dict(
                pair
            )
            try:
                write_case(path, **case)
            # A codec takes only some types, and refuses others with errors of many classes.
            except Exception:
                continue
            yield case
            for covered in combinations(case.items(), 2):
                left.pop(covered, None)
            break
        left.pop(pair, None)


def test_all_that_tifffile_writes_is_read_equal(tmp_path):
    written = set()
    for case in written_cases(tmp_path / "a.tif"):
        expected = tifffile.imread(tmp_path / "a.tif")
        assert np.array_equal(read_all(tmp_path / "a.tif")[1], expected), case
        written.add(case["codec"])
    assert written == set(CODECS)


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 10, 12, 14, 24])
def test_packed_bits_are_unpacked(tmp_path, bits):
    array = random(30, 40, dtype=np.uint32 if bits > 16 else np.uint16 if bits > 8 else np.uint8, most=2**bits)
    tifffile.imwrite(tmp_path / "a.tif", array, bitspersample=bits)
    assert np.array_equal(read_all(tmp_path / "a.tif")[1], array)


def test_lzw_as_the_specification_has_it_is_read(tmp_path):
    side = 64
    codes = []
    for number, byte in enumerate(bytes((7 * x + 13 * y) % 251 for y in range(side) for x in range(side))):
        codes += ([256] if number % 200 == 0 else []) + [byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    strip = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    tags = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 5),
        (262, 1),
        (273, 122),
        (277, 1),
        (278, side),
        (279, len(strip)),
    ]
    pages = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "lzw.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + pages + bytes(4) + strip)
    expected = np.add.outer(13 * np.arange(side), 7 * np.arange(side)) % 251
    assert np.array_equal(read_frames(tmp_path / "lzw.tif")[0][0], expected)


def test_a_compression_that_nobody_reads_is_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random(30, 40))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(32809)
    assert refusal(path) == (
        f"{path}: compression THUNDERSCAN is not supported; save the file with another one, such as LZW or Deflate"
    )


def test_a_codec_that_is_not_installed_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random(30, 40, dtype=np.uint8), compression="jpegxl")

    def missing(*_, **__):
        raise imagecodecs.DelayedImportError("jpegxl_decode")

    monkeypatch.setitem(tifffile.TIFF.DECOMPRESSORS._codecs, 50002, missing)
    message = refusal(path)
    assert message.startswith(f"{path}: imagecodecs is installed without a part that reads it: ")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "png", "jpeg2000"])
def test_a_damaged_strip_is_named(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random(4, 40, 50), compression=compression, photometric="minisblack", rowsperstrip=10)
    with tifffile.TiffFile(path) as file:
        page = file.pages[2]
        offset, size = page.dataoffsets[1], page.databytecounts[1]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    assert f"{path}: cannot be read, is it damaged or incomplete? (page 2: " in refusal(path, axes="TYX")


def test_a_missing_strip_is_named_and_not_read_as_zeros(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random(40, 50), compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = file.pages[0].tags["StripByteCounts"]
        counts.overwrite((counts.value[0], 0, *counts.value[2:]))
    assert "(page 0: 1 of its 4 strips or tiles are missing)" in refusal(path)


@pytest.mark.parametrize(
    ("compression", "before", "sides"),
    [
        ("jpeg", b"\xff\xc0\0\x11\x08", b"\xff\xff\xff\xff"),
        ("jpeg2000", b"\xff\x4f\xff\x51\0\x2f\0\0", b"\0\xff\xff\xff" * 2),
        ("png", b"IHDR", b"\0\xff\xff\xff" * 2),
    ],
)
def test_a_strip_that_claims_to_hold_more_than_the_memory_is_refused(tmp_path, compression, before, sides):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random(40, 50, 3, dtype=np.uint8), compression=compression, photometric="rgb")
    content = path.read_bytes()
    assert content.count(before) == 1
    place = content.index(before) + len(before)
    path.write_bytes(content[:place] + sides + content[place + len(sides) :])
    assert re.search(r"strip 0 contains \d+ x \d+ pixels \(.*\), but the page says 40 x 50", refusal(path))


# Codecs that decode to an image of their own size, with what loses something.
IMAGE_CODECS = {
    "jpeg": ({"level": 90}, True),
    "jpeg2000": ({"level": 40}, True),
    "jpegxl": ({"level": 90}, True),
    "jpegxr": ({"level": 90}, None),
    "webp": ({"lossless": False, "level": 90}, True),
    "lerc": ({"level": 4}, True),
    "png": ({}, False),
}


@pytest.mark.parametrize("codec", IMAGE_CODECS)
@pytest.mark.parametrize("sides", [(16, 48), (64, 48), (32, 32), (32, 64)])
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_a_strip_or_tile_of_another_size_than_its_place_is_refused(tmp_path, codec, sides, tile):
    path = tmp_path / "a.tif"
    rows = {"tile": tile} if tile else {"rowsperstrip": 32}
    options = {"compression": codec, "photometric": "rgb", "predictor": False}
    tifffile.imwrite(path, random(*sides, 3, dtype=np.uint8), **options, rowsperstrip=sides[0])
    with tifffile.TiffFile(path) as file:
        strip = path.read_bytes()[file.pages[0].dataoffsets[0] :][: file.pages[0].databytecounts[0]]
    tifffile.imwrite(path, random(96, 48, 3, dtype=np.uint8), **options, **rows)
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages[0].tags
        kind = "Tile" if tile else "Strip"
        offsets, counts = tags[f"{kind}Offsets"], tags[f"{kind}ByteCounts"]
        end = path.stat().st_size
        offsets.overwrite((offsets.value[0], end, offsets.value[2]))
        counts.overwrite((counts.value[0], len(strip), counts.value[2]))
    with path.open("ab") as file:
        file.write(strip)
    kind = kind.lower()
    assert f"{kind} 1 contains {sides[0]} x {sides[1]} pixels" in refusal(path)
    assert "but the page says 32 x 48" in refusal(path)


@pytest.mark.parametrize("codec", IMAGE_CODECS)
def test_lossy_compression_is_named_once(tmp_path, caplog, codec):
    options, lossy = IMAGE_CODECS[codec]
    pixels = random(3, 64, 48, 3, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=codec, photometric="rgb", compressionargs=options)
    read_frames(tmp_path / "a.tif", axes="TYXC")
    found = [record.getMessage() for record in caplog.records if "lossy" in record.getMessage()]
    words = {True: "which is lossy: it has changed the noise", None: "which may be lossy"}
    assert len(found) == (lossy is not False)
    assert all(words[lossy] in message for message in found)


@pytest.mark.parametrize(
    "options", [{"compressionargs": {"level": 0}}, {"compressionargs": {"compression": "deflate"}}]
)
def test_lerc_without_an_error_is_exact(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", random(64, 48, dtype=np.float32), compression="lerc", **options)
    assert read_all(tmp_path / "a.tif")[0].notes == ()


@pytest.mark.parametrize("compression", ["zstd", "zlib", "lzma", "lzw", None])
def test_a_blank_stack_is_read_however_densely_it_is_packed(tmp_path, monkeypatch, compression):
    monkeypatch.setattr("dvlae.data.pixels.ALWAYS_READ_BYTES", 2**16)
    pixels = np.zeros((3, 2000, 2000), np.uint8)
    options = {"compression": compression, "photometric": "minisblack", "rowsperstrip": 2000}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    assert np.array_equal(read_all(tmp_path / "a.tif")[1], pixels)


def test_a_page_beyond_the_free_memory_is_refused_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("dvlae.data.pixels.ALWAYS_READ_BYTES", 2**16)
    monkeypatch.setattr("dvlae.data.pixels.free_memory", lambda: 10**6)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2000, 2000), np.uint8), compression="zstd")
    assert "does not fit into the memory (4000000 bytes, of which 1000000 are free)" in refusal(tmp_path / "a.tif")


# ---------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "CYX", "TCYX", "TZYX", "ZCYX", "TZCYX", "YXS", "TYXS", "TZYXS"])
def test_imagej_says_the_axes(tmp_path, axes):
    sizes = {"T": 3, "Z": 4, "C": 2, "Y": 20, "X": 24, "S": 3}
    array = random(*(sizes[axis] for axis in axes), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": axes})
    source, pixels = read_all(tmp_path / "a.tif")
    assert (source.axes, source.kind) == (axes.replace("S", "C"), "imagej")
    assert np.array_equal(pixels, array)
    assert len(read_frames(tmp_path / "a.tif")) == (3 if "T" in axes else 1)


@pytest.mark.parametrize("axes", ["YX", "TYX", "CZYX", "TCZYX", "ZTYX", "YXS", "ZYXS", "QYX", "HYX"])
def test_ome_says_the_axes(tmp_path, axes):
    sizes = {"T": 3, "Z": 4, "C": 2, "Y": 20, "X": 24, "S": 3, "Q": 5, "H": 6}
    array = random(*(sizes[axis] for axis in axes), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": axes}, photometric="rgb" if "S" in axes else None)
    source, pixels = read_all(tmp_path / "a.ome.tif")
    assert source.kind == "ome"
    assert source.axes == axes.translate(str.maketrans("SQH", "C?S"))
    assert np.array_equal(pixels, array)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}])
def test_plain_pages_are_only_counted(tmp_path, options):
    array = random(3, 20, 24)
    for number, metadata in enumerate(({}, None)):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, array, photometric="minisblack", metadata=metadata, **options)
        source, pixels = read_all(path)
        assert (source.axes, source.kind) == ("?YX", "tiff")
        assert np.array_equal(pixels, array)
        assert "set `axes` to TYX (times), ZYX" in refusal(path)
        assert len(read_frames(path, axes="TYX")) == 3


def test_one_part_of_a_file_is_read_at_a_time(tmp_path):
    array = random(3, 4, 2, 20, 24)
    for options in ({"imagej": True}, {"ome": True}, {"compression": "zlib"}, {}):
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata={"axes": "TZCYX"}, **options)
        with open_sources(tmp_path / "a.tif") as (source,):
            for index in [(), (1,), (2, 3), (0, 1, 1), (2, 0, 1, 7), (2, 0, 1, 7, 9)]:
                assert np.array_equal(source.read(index), array[index])


def test_a_stack_of_imagej_beyond_4_gib_has_one_page_for_all_images(tmp_path):
    array = random(5, 20, 24)
    path = tmp_path / "a.tif"
    description = "ImageJ=1.54\nimages=5\nslices=5\nloop=false\n"
    tifffile.imwrite(path, array, shape=None, metadata=None, description=description, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        first = file.pages[0]
        place = first.offset + file.tiff.tagnosize + len(first.tags) * file.tiff.tagsize
        data = [page.dataoffsets[0] for page in file.pages]
    assert data[1] - data[0] == array[0].nbytes
    content = bytearray(path.read_bytes())
    content[place : place + 4] = bytes(4)
    path.write_bytes(content)
    source, pixels = read_all(path)
    assert source.axes == "ZYX"
    assert np.array_equal(pixels, array)
    path.write_bytes(content[: data[3]])
    assert "ImageJ wrote 5 images, and the file ends before the last" in refusal(path)


# ---------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.bool_])
def test_where_0_is_white_the_values_are_inverted(tmp_path, dtype, caplog):
    array = random(20, 24, dtype=dtype, most=2 if dtype == np.bool_ else 120)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    expected = ~array
    assert np.array_equal(read_all(tmp_path / "a.tif")[1], expected)


def test_a_colour_map_of_many_colours_is_applied(tmp_path):
    colours = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16) * 257
    array = random(20, 24, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="palette", colormap=colours)
    source, pixels = read_all(tmp_path / "a.tif")
    assert (source.axes, source.dtype) == ("YXC", np.uint8)
    assert np.array_equal(pixels, np.moveaxis(colours // 257, 0, -1)[array])
    assert source.notes == ("its numbers stand for the colours of its colour map: reads red, green and blue",)


def test_pages_with_different_colour_maps_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(2):
            colours = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16) * 257
            file.write(random(20, 24, dtype=np.uint8), photometric="palette", colormap=colours, metadata=None)
    assert "its pages have different colour maps" in refusal(tmp_path / "a.tif", axes="TYXC")


def test_a_colour_map_that_shows_grey_values_is_left_out_with_a_word(tmp_path):
    ramp = np.arange(256, dtype=np.uint16) * 257
    colours = np.stack([ramp, 0 * ramp, 0 * ramp])
    array = random(20, 24, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="palette", colormap=colours)
    source, pixels = read_all(tmp_path / "a.tif")
    assert np.array_equal(pixels, array)
    assert "takes its numbers for grey values" in source.notes[0]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="palette", colormap=np.stack([ramp] * 3))
    assert read_all(tmp_path / "a.tif")[0].notes == ()


@pytest.mark.parametrize("samples", [2, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("opacity", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("pages", [1, 3])
def test_opacity_that_is_the_same_everywhere_is_left_out(tmp_path, samples, planar, opacity, pages):
    array = random(pages, 20, 24, samples, dtype=np.uint16)
    for value, words in ((65535, "leaves out its opacity"), (None, "its last channel is opacity")):
        if value is None:
            array[-1, 3, 4, -1] = 0
        else:
            array[..., -1] = value
        stored = array if planar == "contig" else np.moveaxis(array, -1, 1)
        photometric = "rgb" if samples == 4 else "minisblack"
        options = {"photometric": photometric, "planarconfig": planar, "extrasamples": [opacity], "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", stored[0] if pages == 1 else stored, **options)
        expected = stored if value is None else stored.take(range(samples - 1), -1 if planar == "contig" else 1)
        source, pixels = read_all(tmp_path / "a.tif")
        assert words in source.notes[0]
        assert np.array_equal(pixels, expected[0] if pages == 1 else expected)
        assert np.array_equal(source.read((0,)), pixels[0])


def test_a_sample_without_a_meaning_is_a_channel(tmp_path):
    array = np.concatenate([random(20, 24, 3, dtype=np.uint8), np.full((20, 24, 1), 255, np.uint8)], -1)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unspecified"])
    source, pixels = read_all(tmp_path / "a.tif")
    assert np.array_equal(pixels, array) and source.notes == ()


@pytest.mark.parametrize(("shape", "axes"), [((3, 20, 24), "TYX"), ((5, 3, 20, 24), "STYX")])
def test_frames_tagged_as_colours_have_a_way_that_is_said_only_if_it_is_not_taken(tmp_path, caplog, shape, axes):
    array = random(*shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig="separate")
    hint = f"if they are frames, set `axes: {axes}` and `axes_override: true`"
    if len(shape) == 3:
        read_frames(tmp_path / "a.tif")
        assert hint in caplog.text
        assert "`axes_override: true`" in refusal(tmp_path / "a.tif", axes="TYX")
    with open_sources(tmp_path / "a.tif") as (source,):
        assert hint in source.axes_notes[0]
    caplog.clear()
    frames = read_frames(tmp_path / "a.tif", axes=axes, axes_override=True)
    assert np.array_equal(np.concatenate(frames), array.reshape(-1, 20, 24))
    assert not caplog.messages


def test_planes_that_a_file_says_are_times_are_no_colours(tmp_path):
    # tifffile tags three planes so unasked.
    array, metadata = random(3, 20, 24, dtype=np.uint8), {"axes": "TYX"}
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig="separate", metadata=metadata)
    source, _ = read_all(tmp_path / "a.tif")
    assert (source.axes, source.notes, source.axes_notes) == ("TYX", (), ())


def test_colours_of_jpeg_are_red_green_and_blue(tmp_path):
    array = np.zeros((32, 32, 3), np.uint8) + np.array([200, 40, 90], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", compression="jpeg", subsampling=(2, 2))
    source, pixels = read_all(tmp_path / "a.tif")
    assert (source.axes, len(source.notes)) == ("YXC", 1)
    assert "JPEG" in source.notes[0]
    assert np.abs(pixels.astype(int) - array).max() < 4


def test_other_colours_are_read_with_a_word(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random(20, 24, 4, dtype=np.uint8), photometric="separated")
    assert "its channels are inks (CMYK)" in read_all(tmp_path / "a.tif")[0].notes[0]


# ---------------------------------------------------------------------------------------------- series


def write_pages(path, *arrays, **options):
    with tifffile.TiffWriter(path) as file:
        for array in arrays:
            file.write(array, photometric="minisblack", metadata=None, **options)
    return arrays


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_largest_series_is_taken_and_a_preview_is_named(tmp_path, order, caplog):
    images = random(24, 32), random(96, 128)
    write_pages(tmp_path / "a.tif", *(images[number] for number in order))
    (frame,) = read_frames(tmp_path / "a.tif")
    assert np.array_equal(frame[0], images[1])
    number = order.index(0)
    assert caplog.messages == [f"{tmp_path / 'a.tif'}: leaves out series {number} (YX 24 x 32 uint16, a preview)"]
    assert np.array_equal(read_frames(tmp_path / "a.tif", series=number)[0][0], images[0])


@pytest.mark.parametrize(
    ("sizes", "left_out"),
    [
        ([(2, 64, 64), (4, 32, 32)], None),
        ([(64, 64), (2, 32, 32)], None),
        ([(64, 64), (32, 32), (30, 30)], None),
        ([(2, 64, 64), (30, 20)], [1]),
        ([(1, 1)], []),
        ([(65, 97), (33, 49), (16, 24)], [1, 2]),
    ],
)
def test_full_frames_are_no_previews_because_they_are_small(tmp_path, sizes, left_out):
    write_pages(tmp_path / "a.tif", *(random(*size) for size in sizes))
    with open_sources(tmp_path / "a.tif") as sources:
        assert [number for number, source in enumerate(sources) if source.left_out] == (left_out or [])
    if left_out is None:
        assert f"found {len(sizes)} series of images" in refusal(tmp_path / "a.tif", axes="auto")


@pytest.mark.parametrize("options", [{"subfiletype": 4}, {"photometric": 4}, {"subfiletype": 4, "photometric": 4}])
def test_a_transparency_mask_is_named_once_and_the_number_of_its_series_is_right(tmp_path, caplog, options):
    image = random(64, 64)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(image, photometric="minisblack", metadata=None)
        file.write(image > 100, **{"photometric": "minisblack", "metadata": None} | options)
    assert np.array_equal(read_frames(tmp_path / "a.tif")[0][0], image)
    (message,) = caplog.messages
    said = "1 (YX 64 x 64 uint8, a transparency mask, which is not used; set `mask`)"
    assert message.endswith(f"a.tif: leaves out series {said}")


def test_pages_of_several_sizes_are_listed_and_can_be_chosen(tmp_path):
    images = write_pages(tmp_path / "a.tif", random(96, 128), random(90, 128), random(24, 32))
    message = refusal(tmp_path / "a.tif")
    said = "0 (YX 96 x 128 uint16), 1 (YX 90 x 128 uint16), 2 (YX 24 x 32 uint16, a preview)"
    assert f"found 2 series of images: {said}; set `series` to the number or the name" in message
    for number in (0, 1, 2):
        assert np.array_equal(read_frames(tmp_path / "a.tif", series=number)[0][0], images[number])
    assert [frame.shape for frame in read_frames(tmp_path / "a.tif", series="all")] == [(1, 96, 128), (1, 90, 128)]
    assert "allowed: auto, all, or one of 0 (" in refusal(tmp_path / "a.tif", series=3)


@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"compression": "zlib"}])
def test_appended_pages_of_one_shape_are_frames(tmp_path, options):
    images = [random(20, 24) for _ in range(5)]
    for image in images:
        tifffile.imwrite(tmp_path / "a.tif", image, append=True, photometric="minisblack", **options)
    assert np.array_equal(np.concatenate(read_frames(tmp_path / "a.tif", axes="TYX")), images)
    assert read_all(tmp_path / "a.tif")[0].axes == "?YX"


def test_pages_of_one_shape_and_several_compressions_keep_their_order(tmp_path):
    images = [random(20, 24) for _ in range(4)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, image in enumerate(images):
            file.write(image, metadata=None, compression=["zlib", None][number % 2])
    assert np.array_equal(np.concatenate(read_frames(tmp_path / "a.tif", axes="TYX")), images)


def test_a_page_of_another_size_deep_in_a_file_is_seen(tmp_path):
    images = [random(20, 24) for _ in range(12)]
    images[6] = random(20, 25)
    write_pages(tmp_path / "a.tif", *images)
    assert "found 2 series of images: 0 (?YX 11 x 20 x 24 uint16), 1 (YX 20 x 25" in refusal(tmp_path / "a.tif")


def test_scenes_of_ome_are_listed_and_can_be_chosen_by_name(tmp_path):
    scenes = random(3, 20, 24), random(20, 24), random(20, 24)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for name, scene in zip(("first", "second", "third"), scenes, strict=True):
            file.write(scene, photometric="minisblack", metadata={"Name": name, "axes": "TYX"[-scene.ndim :]})
    assert "found 3 series of images: 0 (first, TYX 3 x 20 x 24 uint16), 1 (second" in refusal(tmp_path / "a.ome.tif")
    assert len(read_frames(tmp_path / "a.ome.tif", series="all")) == 5
    assert np.array_equal(read_frames(tmp_path / "a.ome.tif", series="second")[0][0], scenes[1])


def test_a_pyramid_gives_its_finest_level(tmp_path):
    image = random(64, 64)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(image, subifds=2, photometric="minisblack", tile=(16, 16))
        file.write(image[::2, ::2], subfiletype=1, photometric="minisblack", tile=(16, 16))
        file.write(image[::4, ::4], subfiletype=1, photometric="minisblack", tile=(16, 16))
    source, pixels = read_all(tmp_path / "a.ome.tif")
    assert source.notes == ()
    assert np.array_equal(pixels, image)


# ---------------------------------------------------------------------------------------------- sets of OME-TIFF files


@pytest.fixture
def ome_set(tmp_path):
    """Return a function that writes a set of OME-TIFF files, one for each time."""

    def make(folder="set", frames=3, companion=False, names="t{}.ome.tif", stated=None):
        ids = [uuid.uuid4().urn for _ in range(frames)]
        images = [random(20, 24) for _ in range(frames)]
        data = "".join(
            f'<TiffData FirstT="{number}" IFD="0" PlaneCount="1"><UUID FileName="{names.format(number)}">{urn}</UUID>'
            "</TiffData>"
            for number, urn in enumerate(ids)
        )

        def xml(urn, content=None):
            content = content or (
                f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="24" SizeY="20" '
                f'SizeZ="1" SizeC="1" SizeT="{stated or frames}" PhysicalSizeX="0.1" PhysicalSizeXUnit="µm">'
                f'<Channel ID="Channel:0:0" SamplesPerPixel="1" Name="GFP"/>{data}</Pixels></Image>'
            )
            head = (
                '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
            )
            return f'{head} UUID="{urn}">{content}</OME>'.encode()

        (tmp_path / folder).mkdir(parents=True)
        elsewhere = None
        if companion:
            elsewhere = f'<BinaryOnly MetadataFile="set.companion.ome" UUID="{uuid.uuid4().urn}"/>'
            (tmp_path / folder / "set.companion.ome").write_bytes(xml(uuid.uuid4().urn))
        paths = [tmp_path / folder / names.format(number) for number in range(frames)]
        for path, urn, image in zip(paths, ids, images, strict=True):
            tifffile.imwrite(path, image, description=xml(urn, elsewhere), metadata=None)
        return paths, images

    return make


@pytest.mark.parametrize("companion", [False, True])
def test_a_set_of_files_is_read_once(ome_set, companion):
    paths, images = ome_set(companion=companion)
    for some in (paths, paths[1:], paths[2:]):
        assert np.array_equal(np.concatenate(read_frames(*some)), images)
    with open_sources(paths[0]) as (source,):
        assert (source.axes, source.files, source.path) == ("TYX", tuple(paths), paths[0])
        assert source.calibration.channels == ("GFP",)
        assert (source.calibration.sizes, source.calibration.unit) == ({"x": 0.1}, "um")


def test_scenes_in_files_of_their_own_are_read_from_these(tmp_path):
    ids = [uuid.uuid4().urn for _ in range(2)]
    scenes = [random(3, 20, 24) for _ in ids]
    content = "".join(
        f'<Image ID="Image:{number}" Name="scene {number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" '
        f'Type="uint16" SizeX="24" SizeY="20" SizeZ="1" SizeC="1" SizeT="3"><Channel ID="Channel:{number}:0" '
        f'SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="3">'
        f'<UUID FileName="{number}.ome.tif">{urn}</UUID></TiffData>'
        "</Pixels></Image>"
        for number, urn in enumerate(ids)
    )
    paths = [tmp_path / f"{number}.ome.tif" for number in range(2)]
    for path, urn, scene, order in zip(paths, ids, scenes, "<>", strict=True):
        xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{urn}">{content}</OME>'
        tifffile.imwrite(path, scene, description=xml, metadata=None, byteorder=order, photometric="minisblack")
    for some in (paths, paths[:1], paths[1:]):
        expected = [scenes[paths.index(path)] for path in some]
        assert np.array_equal(np.concatenate(read_frames(*some)), np.concatenate(expected))
        assert np.array_equal(np.concatenate(read_frames(*some, series="all")), np.concatenate(expected))


def test_a_set_that_is_linked_to_is_read(ome_set, tmp_path):
    paths, images = ome_set()
    links = []
    (tmp_path / "links").mkdir()
    for number, path in enumerate(paths):
        path = path.rename(path.with_name(f"object{number}"))
        links.append(tmp_path / "links" / f"t{number}.ome.tif")
        links[-1].symlink_to(path)
    assert np.array_equal(np.concatenate(read_frames(*links)), images)
    with open_sources(links[1]) as (source,):
        assert source.files == tuple(links)


@pytest.mark.parametrize("gone", [0, 2])
def test_a_missing_file_of_a_set_is_named(ome_set, gone):
    paths, _ = ome_set()
    paths.pop(gone).unlink()
    message = refusal(*paths)
    assert (
        f"belongs to a set of 3 OME-TIFF files, of which 1 is missing in {paths[0].parent}: t{gone}.ome.tif" in message
    )


def test_a_single_file_may_have_been_renamed(ome_set):
    (path,), images = ome_set(frames=1)
    renamed = path.rename(path.with_name("other.tif"))
    assert np.array_equal(read_frames(renamed)[0][0], images[0])


def test_a_set_does_not_lead_out_of_its_folder(ome_set, tmp_path):
    paths, _ = ome_set(folder="a/set", names="../t{}.ome.tif")
    assert "2 are missing" in refusal(paths[0])


def test_a_recording_that_was_stopped_is_read_as_far_as_it_goes(ome_set):
    paths, _ = ome_set(stated=5)
    assert len(read_frames(paths[0])) == 3
    with open_sources(paths[0]) as (source,):
        assert "the recording was stopped: reads the first 3 of 5 along T" in source.notes


# ---------------------------------------------------------------------------------------------- calibration


def test_imagej_says_the_size_of_its_pixels(tmp_path):
    metadata = {"axes": "TYX", "unit": "um", "finterval": 2.5, "spacing": 0.5, "Labels": ["a", "b", "c"]}
    tifffile.imwrite(
        tmp_path / "a.tif", random(3, 20, 24), imagej=True, resolution=(1 / 0.125, 1 / 0.25), metadata=metadata
    )
    calibration = read_all(tmp_path / "a.tif")[0].calibration
    assert calibration.sizes == {"z": 0.5, "y": 0.25, "x": 0.125}
    assert (calibration.unit, calibration.time_step, calibration.labels) == ("um", 2.5, ("a", "b", "c"))


def test_ome_says_the_size_of_its_pixels(tmp_path):
    metadata = {
        "axes": "TCYX",
        "PhysicalSizeX": 65,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 65,
        "PhysicalSizeYUnit": "nm",
        "TimeIncrement": 250,
        "TimeIncrementUnit": "ms",
        "Channel": {"Name": ["DAPI", "GFP"]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", random(3, 2, 20, 24), metadata=metadata)
    calibration = read_all(tmp_path / "a.ome.tif")[0].calibration
    assert (calibration.sizes, calibration.unit) == ({"y": 65.0, "x": 65.0}, "nm")
    assert (calibration.time_step, calibration.channels) == (0.25, ("DAPI", "GFP"))
    assert calibration.description.endswith("OME>")


@pytest.mark.parametrize("imagej", [False, True])
@pytest.mark.parametrize(("resolution", "unit", "sizes", "name"), [
    ((20000, 10000), "CENTIMETER", {"y": 1e-4, "x": 5e-5}, "cm"),
    ((20000, 10000), "INCH", {"y": 1e-4, "x": 5e-5}, "inch"),
    ((20000, 10000), "NONE", {"y": 1e-4, "x": 5e-5}, ""),
    ((72, 72), "INCH", {}, ""),
    ((1, 1), "NONE", {}, ""),
])  # fmt: skip
def test_the_resolution_is_the_size_of_a_pixel_in_its_unit(tmp_path, imagej, resolution, unit, sizes, name):
    tifffile.imwrite(tmp_path / "a.tif", random(20, 24), imagej=imagej, resolution=resolution, resolutionunit=unit)
    calibration = read_all(tmp_path / "a.tif")[0].calibration
    if name == "cm" and not imagej:
        sizes, name = {axis: 1e4 * size for axis, size in sizes.items()}, "um"
    assert (calibration.sizes, calibration.unit) == (pytest.approx(sizes), name)


@pytest.mark.parametrize(("tag", "text", "sizes", "name"), [
    (34682, "[Scan]\nPixelWidth=4e-9\nPixelHeight=5e-9\n", {"y": 0.005, "x": 0.004}, "um"),
    (34680, "[Scan]\nDwelltime=1e-6\n", {}, ""),
    (34118, "0\n\nAP_PIXEL_SIZE\nP = 2.5 nm\nAP_IMAGE_PIXEL_SIZE\nI = 5.0 nm\n", {"y": 5.0, "x": 5.0}, "nm"),
    (34118, "0\n\nAP_PIXEL_SIZE\nPixel Size = 1.2 µm\n", {"y": 1.2, "x": 1.2}, "um"),
    (34118, "0\n\nDP_BRIGHTNESS\nBrightness = 50 %\n", {}, ""),
])  # fmt: skip
def test_electron_microscopes_say_the_size_of_a_pixel_in_their_own_tags(tmp_path, tag, text, sizes, name):
    content = text.replace("\n", "\r\n").encode("cp1252")
    tifffile.imwrite(tmp_path / "a.tif", random(20, 24), extratags=[(tag, 2, len(content), content, True)])
    calibration = read_all(tmp_path / "a.tif")[0].calibration
    assert (calibration.sizes, calibration.unit) == (pytest.approx(sizes), name)


# ---------------------------------------------------------------------------------------------- other kinds


def test_lsm_files_say_their_axes_and_hold_previews(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    array = random(4, 3, 20, 24)
    info = np.zeros(1, np.dtype([(name or f"f{n}", kind) for n, (name, kind) in enumerate(tifffile.TIFF.CZ_LSMINFO)]))
    sizes = {"X": 24, "Y": 20, "Z": 1, "Channels": 3, "Time": 4}
    info["MagicNumber"], info["StructureSize"], info["ScanType"] = 67127628, info.nbytes, 3
    info["VoxelSizeX"] = info["VoxelSizeY"] = 1e-7
    for name, size in sizes.items():
        info[f"Dimension{name}"] = size
    tag = (34412, 1, info.nbytes, info.tobytes(), True)
    path = tmp_path / "a.lsm"
    with tifffile.TiffWriter(path, byteorder="<") as file:
        for number, frame in enumerate(array):
            tags = [tag] if number == 0 else []
            options = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
            file.write(frame, extratags=tags, **options)
            file.write(frame[:, ::4, ::4], subfiletype=1, **options)
    frames = read_frames(path)
    assert np.array_equal(frames, array)
    with open_sources(path) as sources:
        assert [source.axes for source in sources] == ["TCYX", "TCYX"]
        assert sources[0].calibration.sizes == pytest.approx({"y": 0.1, "x": 0.1})


@pytest.mark.parametrize(("distance", "axes"), [(0, "?YX"), (2, "ZYX")])
def test_stk_files_have_one_page_for_all_planes(tmp_path, distance, axes):
    array = random(4, 20, 24)
    # For each plane its distance, a fraction, and when it was recorded and changed, in days and milliseconds.
    planes = np.array([[distance, 1, 2460000, 5, 2460000, 5]] * 4, np.uint32)
    path = tmp_path / "a.stk"
    tags = [(33628, 4, 2, (4, 16), True), (33629, 5, 4, planes.tobytes(), True)]
    tifffile.imwrite(path, array[0], metadata=None, extratags=tags)
    # The tag counts planes, whatever its length.
    content = re.sub(struct.pack("<HH", 33629, 5) + b"....", struct.pack("<HHI", 33629, 5, 4), path.read_bytes())
    path.write_bytes(content + array[1:].tobytes())
    source, pixels = read_all(path)
    assert (source.axes, source.kind) == (axes, "tiff")
    assert source.calibration.sizes == {}
    assert np.array_equal(pixels, array)


@pytest.mark.parametrize("suffix", [".btf", ".tf8", ".TIFF", ".svs"])
def test_tiff_files_with_other_suffixes_are_read(tmp_path, suffix):
    array = random(20, 24)
    tifffile.imwrite(tmp_path / f"a{suffix}", array, bigtiff=True)
    assert np.array_equal(read_frames(tmp_path / f"a{suffix}")[0][0], array)
