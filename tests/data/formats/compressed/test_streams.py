import imagecodecs
import numpy as np
import pytest

from dvlae.data.formats.compressed.streams import READERS, loss_note

RANDOM = np.random.default_rng([0])
CASES = [
    ("JPEG", "jpeg_encode", {"level": 90}, True),
    ("JPEG", "ljpeg_encode", {}, False),
    ("JPEG 2000", "jpeg2k_encode", {"level": 40}, True),
    ("JPEG 2000", "jpeg2k_encode", {"level": 40, "codecformat": "j2k"}, True),
    ("JPEG 2000", "jpeg2k_encode", {"reversible": True}, False),
    ("JPEG XL", "jpegxl_encode", {"lossless": True}, False),
    ("JPEG XL", "jpegxl_encode", {"distance": 1.0}, True),
    ("JPEG XR", "jpegxr_encode", {}, None),
    ("LERC", "lerc_encode", {"level": 0}, False),
    ("LERC", "lerc_encode", {"level": 3}, True),
    ("PNG", "png_encode", {}, False),
    ("WebP", "webp_encode", {"lossless": True}, False),
    ("WebP", "webp_encode", {"lossless": False, "level": 80}, True),
]


@pytest.mark.parametrize(("name", "encode", "options", "lossy"), CASES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "shape", [(37, 45), (64, 96), (40, 40), (30, 40), (45, 90), (37, 45, 3), (37, 45, 4), (300, 700, 3)]
)
def test_the_beginning_says_the_size_and_what_was_lost(name, encode, options, lossy, dtype, shape):
    image = RANDOM.integers(0, 200, shape).astype(dtype)
    try:
        content = getattr(imagecodecs, encode)(image, **options)
    # A codec takes only some types, and refuses others with errors of many classes.
    except Exception:
        return
    stream = READERS[name](content[:4096])
    assert stream.sides == shape[:2]
    assert stream.lossy == lossy


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("size", [0, 1, 7, 12, 30, 60])
def test_a_beginning_that_breaks_off_or_is_another_says_nothing_wrong(name, size):
    image = np.zeros((37, 45, 3), np.uint8)
    cases = [(encode, options) for _, encode, options, _ in CASES if encode != "ljpeg_encode"]
    contents = [getattr(imagecodecs, encode)(image, **options) for encode, options in cases]
    for content in [*contents, bytes(100), b"\xff" * 100]:
        READERS[name](content[:size])


@pytest.mark.parametrize("name", READERS)
def test_a_beginning_of_another_kind_says_no_size(name):
    # A strip of an old JPEG in a TIFF has no beginning of its own.
    for content in (b"", *RANDOM.integers(0, 256, (200, 300), dtype=np.uint8)):
        assert READERS[name](bytes(content)).sides == ()


def test_a_loss_is_named_and_what_is_exact_needs_no_word():
    assert loss_note("PNG", False) == ""
    assert "JPEG, which is lossy: it has changed the noise" in loss_note("JPEG", True)
    assert "JPEG XR, which may be lossy" in loss_note("JPEG XR", None)
