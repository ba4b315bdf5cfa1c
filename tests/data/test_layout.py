"""What the axes of files are, by what the files say and what the settings say."""

import math
import re

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dvlae.data.layout import lay_out, note_thin
from dvlae.system.errors import UserError
from frames import Memory, read_frames, settings


def refusal(source, **keys) -> str:
    with pytest.raises(UserError) as error:
        lay_out(source, settings(**keys))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("axes", "shape", "read"),
    [
        ("TYX", (50, 1, 9), "YSX"),
        ("SYX", (50, 1, 9), "YSX"),
        ("TCYX", (50, 2, 9, 1), "XCYS"),
        ("YXT", (1, 9, 50), "SXY"),
    ],
)
def test_lines_that_are_stored_as_images_can_be_read_as_one_image(axes, shape, read):
    (note,) = note_thin(axes, shape)
    assert f"has 1 pixel along {'x' if shape[-1] == 1 else 'y'}" in note and f"`axes: {read}`" in note
    layout = lay_out(Memory(axes, shape), settings(axes=read, axes_override=True))
    assert (layout.axes, layout.shape) == (read, shape)


@pytest.mark.parametrize(
    ("axes", "shape", "words"),
    [
        ("YX", (1, 200), "has 1 pixel along y, across which nothing is learned"),
        ("TYX", (9, 3, 200), "has 3 pixels along y, across which little is learned"),
        ("ZTYX", (9, 8, 200, 2), "has 2 pixels along x, across which little is learned"),
    ],
)
def test_few_pixels_along_an_axis_are_noted(axes, shape, words):
    assert note_thin(axes, shape) == (words,)


@pytest.mark.parametrize(("axes", "shape"), [("TYX", (9, 4, 4)), ("ZYX", (1, 20, 20)), ("SX", (1, 200)), ("X", (2,))])
def test_enough_pixels_planes_and_traces_are_not_noted(axes, shape):
    assert note_thin(axes, shape) == ()


@pytest.mark.parametrize(
    ("stated", "shape", "axes"),
    [
        ("", (8, 9), "YX"),
        ("", (9,), "X"),
        ("YX", (8, 9), "YX"),
        ("YXC", (8, 9, 3), "YXC"),
        ("TZCYX", (2, 3, 4, 8, 9), "TZCYX"),
        ("?YX", (1, 8, 9), "SYX"),
        ("SSYX", (2, 3, 8, 9), "SSYX"),
        ("ZX", (8, 9), "YX"),
        ("TX", (8, 9), "TX"),
    ],
)
def test_a_file_that_says_its_axes_is_read_so(stated, shape, axes):
    layout = lay_out(Memory(stated, shape), settings())
    assert (layout.axes, layout.shape) == (axes, shape)


@pytest.mark.parametrize(
    ("stated", "shape", "choices"),
    [
        ("?YX", (5, 8, 9), "TYX (times), ZYX (planes of a volume), CYX (channels) or SYX (images)"),
        ("?CYX", (5, 2, 8, 9), "TCYX (times), ZCYX (planes of a volume) or SCYX (images)"),
        ("??YX", (5, 2, 8, 9), "TZYX, TCYX, TSYX, ZCYX, ZSYX or CSYX"),
        ("", (5, 8, 9), "TYX (times), ZYX (planes of a volume), CYX (channels) or SYX (images)"),
        ("", (8, 9, 3), "YXC (colours), TYX (times), ZYX (planes of a volume) or SYX (images)"),
    ],
)
def test_a_file_that_does_not_say_its_axes_makes_us_ask_with_the_choices(stated, shape, choices):
    message = refusal(Memory(stated, shape))
    assert message.endswith(f"the file does not say what its axes of shape {shape}, int64 are; set `axes` to {choices}")


@pytest.mark.parametrize(
    ("stated", "shape", "wanted", "axes", "lengths"),
    [
        ("?YX", (5, 8, 9), "ZYX", "ZYX", (5, 8, 9)),
        ("TYX", (5, 8, 9), "SYX", "SYX", (5, 8, 9)),
        ("YX", (8, 9), "TYX", "TYX", (1, 8, 9)),
        ("YX", (8, 9), "ZYX", "ZYX", (1, 8, 9)),
        ("YX", (8, 9), "YXC", "YXC", (8, 9, 1)),
        ("TYX", (5, 8, 9), "TZCYX", "TZCYX", (5, 1, 1, 8, 9)),
        ("TZCYX", (1, 1, 1, 8, 9), "YX", "SSSYX", (1, 1, 1, 8, 9)),
        ("YX", (8, 9), "SX", "SX", (8, 9)),
        ("", (8, 9, 4, 5), "YXCT", "YXCT", (8, 9, 4, 5)),
        ("", (8, 9), "XY", "XY", (8, 9)),
        ("?", (9,), "X", "X", (9,)),
    ],
)
def test_axes_may_be_named_and_be_missing_in_the_file(stated, shape, wanted, axes, lengths):
    layout = lay_out(Memory(stated, shape), settings(axes=wanted))
    assert (layout.axes, layout.shape) == (axes, lengths)


@pytest.mark.parametrize(
    ("stated", "shape", "wanted"),
    [
        ("TYX", (5, 8, 9), "XYT"),
        ("TYX", (5, 8, 9), "ZYX"),
        ("ZYX", (5, 8, 9), "TYX"),
        ("TCYX", (5, 2, 8, 9), "CTYX"),
        ("CYX", (2, 8, 9), "TYX"),
        ("YX", (8, 9), "XY"),
        ("YXC", (8, 9, 3), "CYX"),
        ("YXC", (8, 9, 3), "YX"),
        ("TYX", (5, 8, 9), "YX"),
    ],
)
def test_axes_that_contradict_the_file_are_refused_and_a_key_overrides_it(stated, shape, wanted):
    message = refusal(Memory(stated, shape), axes=wanted)
    assert f"axes: found {wanted!r}, but the file says {stated!r}, of shape {shape}" in message
    # What the message allows is possible.
    assert ("`axes_override: true`" in message) == (len(wanted) == len(shape))
    if len(wanted) == len(shape):
        assert lay_out(Memory(stated, shape), settings(axes=wanted, axes_override=True)).axes == wanted


@pytest.mark.parametrize("wanted", ["YX", "TYX", "ZYX", "TCYX", "XYT", "YXC"])
@pytest.mark.parametrize(("stated", "shape"), [
    ("?YX", (5, 18, 19)), ("??YX", (5, 4, 18, 19)), ("?CYX", (5, 4, 18, 19)), ("???YX", (5, 4, 3, 18, 19)),
    ("??YX", (50, 4, 18, 19)), ("", (5, 18, 19)), ("", (18, 19, 3)), ("", (5, 4, 18, 19)), ("TYX", (5, 18, 19)),
])  # fmt: skip
@pytest.mark.parametrize("override", [False, True])
def test_each_of_the_axes_that_a_message_proposes_works(stated, shape, wanted, override):
    source = Memory(stated, shape)
    keys = {"axes": wanted} | ({"axes_override": True} if override else {})
    try:
        lay_out(source, settings(**keys))
        return
    except UserError as error:
        message = str(error)
    choices = re.findall(r"\b[STCZYX]{2,6}\b(?!')", message.partition("set `axes` to ")[2].partition(";")[0])
    if "leave out the axes" not in message and set(stated) & {"", "?"}:
        assert str(shape) in message
        assert choices
    for choice in choices:
        lay_out(source, settings(**keys | {"axes": choice}))
    if "`axes: auto` follows" in message:
        lay_out(source, settings())
    if "`axes_override: true` follows" in message:
        lay_out(source, settings(**keys | {"axes_override": True}))


@pytest.mark.parametrize("wanted", ["XYT", "YXT", "TXY", "YX", "YXC"])
def test_rows_and_columns_of_a_page_are_what_they_are(wanted):
    assert "the file says '?YX' (? may be any other)" in refusal(Memory("?YX", (5, 8, 9)), axes=wanted)


def test_a_stack_taken_for_channels_is_refused_unless_the_settings_insist():
    source = Memory("", (5, 40, 40))
    message = refusal(source, axes="YXC")
    assert "which makes 40 channels of 5 x 40 pixels" in message
    assert lay_out(source, settings(axes="YXC", axes_override=True)).axes == "YXC"


@pytest.mark.parametrize(
    ("shape", "axes", "pages", "lengths"),
    [
        ((10, 8, 9), "TCYX", {"C": 2}, (5, 2, 8, 9)),
        ((10, 8, 9), "CTYX", {"C": 2}, (2, 5, 8, 9)),
        ((12, 8, 9), "TZCYX", {"C": 2, "Z": 3}, (2, 3, 2, 8, 9)),
        ((10, 8, 9), "TCYX", {"C": 2, "T": 5}, (5, 2, 8, 9)),
    ],
)
def test_pages_may_count_several_axes(shape, axes, pages, lengths):
    assert lay_out(Memory("?YX", shape), settings(axes=axes, pages=pages)).shape == lengths


@pytest.mark.parametrize(
    ("stated", "axes", "pages", "said"),
    [
        ("?YX", "TCYX", {"C": 3}, "found 10 pages, allowed: a number of pages that 3 divides"),
        ("?YX", "TCYX", {"C": 2, "T": 4}, "found 10 pages, allowed: 8 pages"),
        ("?YX", "TZCYX", {"C": 2}, "allowed: all but one of the axes before Y and X in 'TZCYX'"),
        ("TYX", "TCYX", {"C": 2}, "the file says 'TYX'"),
        ("?YX", "TCYX", {}, "set `pages` if its pages count several"),
    ],
)
def test_pages_that_do_not_fit_are_refused(stated, axes, pages, said):
    assert said in refusal(Memory(stated, (10, 8, 9)), axes=axes, pages=pages)


AXES = st.permutations("STCZYX").flatmap(lambda order: st.integers(1, 6).map(lambda n: "".join(order[-n:])))


@hypothesis_settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_frames_of_any_axes_contain_what_the_file_contains(data, tmp_path_factory):
    order = "".join(data.draw(st.permutations("STCZYX")))
    spatial = data.draw(st.sampled_from(["X", "YX", "ZYX"]))
    others = data.draw(st.sets(st.sampled_from("STC")))
    axes = "".join(axis for axis in order if axis in spatial or axis in others)
    shape = tuple(data.draw(st.integers(1, 4)) for _ in axes)
    path = tmp_path_factory.getbasetemp() / "hypothesis.npy"
    array = np.arange(math.prod(shape)).reshape(shape)
    np.save(path, array)
    frames = read_frames(path, axes=axes, axes_override=True)
    counted = [axis for axis in axes if axis in "ST"]
    expected = array.transpose([axes.index(axis) for axis in (*counted, *(a for a in "C" + spatial if a in axes))])
    expected = expected.reshape(-1, *([] if "C" in axes else [1]), *expected.shape[len(counted) :])
    assert np.array_equal(np.stack(frames), expected)


@hypothesis_settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_what_tifffile_writes_with_axes_is_read_with_these(data, tmp_path_factory):
    others = data.draw(st.permutations("TZC"))[: data.draw(st.integers(0, 3))]
    axes = "".join(others) + "YX"
    shape = (*(data.draw(st.integers(2, 4)) for _ in others), 8, 9)
    array = np.arange(math.prod(shape), dtype=np.uint16).reshape(shape)
    kind = data.draw(st.sampled_from(["shaped", "ome"]))
    path = tmp_path_factory.getbasetemp() / "written.tif"
    tifffile.imwrite(path, array, ome=kind == "ome", photometric="minisblack", metadata={"axes": axes})
    (first, *rest) = read_frames(path)
    assert np.array_equal(np.stack([first, *rest]), np.stack(read_frames(path, axes=axes)))
    assert len(rest) + 1 == (shape[axes.index("T")] if "T" in axes else 1)
    assert first.shape == tuple(shape[axes.index(a)] if a in axes else 1 for a in "C" + "Z" * ("Z" in axes) + "YX")
