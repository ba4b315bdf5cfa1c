import numpy as np
import pytest
from scipy import ndimage

from dvlae.data.defects import find_mask
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.evaluation.findings.frames import bar_rows, check_frame, compare_frames
from dvlae.evaluation.findings.sequence import compare_sequence, identify_frame
from noisy_images import disk, noise, scene, with_bar


def findings(*images: np.ndarray, mask: np.ndarray | str | None = None) -> dict[str, tuple[float, str]]:
    """Return the number and the line of each kind of finding in images (Y, X), called 0, 1, 2."""
    frames = []
    for image in images:
        noisy = np.asarray(image, np.float32)[None]
        frames.append(ExaminedFrame.examine(noisy, find_mask(noisy) if isinstance(mask, str) else mask))
    checks = [check_frame(frame, frames[0]) for frame in frames]
    sequence = [identify_frame(str(number), frame) for number, frame in enumerate(frames)]
    found = compare_frames(checks) + compare_sequence(sequence, len(frames))
    assert all("\n" not in finding.line for finding in found)
    return {finding.kind: (finding.number, finding.line) for finding in found}


def noisy(seed: int, shape: tuple[int, int] = (160, 200), along: str = "none") -> np.ndarray:
    return scene(seed, shape) + 10 * noise(100 + seed, shape, along)


@pytest.mark.parametrize("along", ["none", "x", "y"])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_ordinary_images_are_not_odd(along, count):
    assert findings(*(noisy(seed, along=along) for seed in range(count))) == {}
    assert findings(*(scene(0) + 10 * noise(seed, along=along) for seed in range(count))) == {}


def test_counts_of_few_photons_are_not_odd():
    assert findings(*np.random.default_rng(0).poisson(0.1, (12, 128, 128))) == {}


@pytest.mark.parametrize("texts", [["HV 5.0 kV  WD 4.1 mm  mag 20 000 x"] * 4, ["a", "bc", "def 12", "WD 4.2 mm"]])
def test_an_information_bar_is_to_be_cropped(texts):
    images = [with_bar(noisy(seed).round(), text) for seed, text in enumerate(texts)]
    number, line = findings(*images)["information bar"]
    assert number == 31
    assert "`crop: {y: [0, -31]}`" in line


def test_the_bar_of_a_single_image_is_found():
    image = with_bar(noisy(0).round(), "HV 5.0 kV  WD 4.1 mm")
    assert bar_rows(image) == 31
    assert bar_rows(image[::-1]) == 0


def test_rows_that_are_the_same_in_all_images_are_a_bar_whatever_they_show():
    images = np.stack([noisy(seed) for seed in range(4)])
    images[:, :20] = noisy(9)[:20]
    number, line = findings(*images)["information bar"]
    assert number == 20
    assert "first 20 rows" in line


@pytest.mark.parametrize(
    "image",
    [
        np.where(disk(), 150 + 10 * noise(0, (256, 256)), 0).round(),
        np.where(np.arange(256)[:, None] < 200, 150 + 10 * noise(0, (256, 256)), 0).round(),
        (100 * disk(radius=60) + 10 * noise(0, (256, 256)) - 8).clip(0).round(),
        np.where(np.arange(256)[:, None] < 150, 150, -5) + 10 * noise(0, (256, 256)).round().clip(0),
    ],
    ids=["field of view", "border", "clipped background", "vacuum"],
)
def test_dark_rows_without_letters_are_no_bar(image):
    assert bar_rows(image) == 0


@pytest.mark.parametrize("shift", [1, -3])
def test_displaced_lines_are_found(shift):
    images = np.stack([noisy(seed) for seed in range(3)])
    images[:, 1::2] = np.roll(images[:, 1::2], shift, axis=2)
    number, line = findings(*images)["interlaced lines"]
    assert number == abs(shift)
    assert f"displaced by {abs(shift)} px" in line


@pytest.mark.parametrize(
    ("shifts", "found"), [((1, -1, 1, -1), None), ((2, -1, -2, 2), None), ((2, 2, 2, -3), 2), ((-1, -2, -1, -2), 1)]
)
def test_lines_are_displaced_if_they_are_so_to_one_side(shifts, found):
    images = np.stack([noisy(seed) for seed in range(4)])
    for image, shift in zip(images, shifts, strict=True):
        image[1::2] = np.roll(image[1::2], shift, axis=1)
    assert findings(*images).get("interlaced lines", (None,))[0] == found


def test_every_second_row_brighter_is_found():
    images = np.stack([noisy(seed) for seed in range(3)])
    images[:, 1::2] += 5
    found = findings(*images)
    assert found["interlaced lines"][0] == pytest.approx(5, rel=0.2)
    assert set(found) == {"interlaced lines"}


def test_rows_that_differ_besides_every_second_one_are_named_besides():
    images = np.stack([noisy(seed) for seed in range(6)]) + 3 * noise(7, (160, 1))
    images[:, 1::2] += 9
    assert set(findings(*images)) == {"interlaced lines", "fixed stripes (rows)"}


@pytest.mark.parametrize(("kind", "shape"), [("columns", (1, 200)), ("rows", (160, 1))])
def test_stripes_that_are_the_same_in_all_frames_are_found(kind, shape):
    fixed = 3 * noise(7, shape)
    number, line = findings(*(noisy(seed) + fixed for seed in range(6)))[f"fixed stripes ({kind})"]
    assert number == pytest.approx(3, rel=0.3)
    assert "in all 6 images" in line


@pytest.mark.parametrize("content", ["zero", "random", "the same"])
@pytest.mark.parametrize("place", [np.s_[-12:], np.s_[:40], np.s_[:, :7], np.s_[:, -50:], np.s_[50:90, 30:160]])
def test_masked_pixels_are_not_looked_at(place, content):
    mask = np.ones((160, 200), bool)
    mask[place] = False
    images = np.stack([noisy(seed) for seed in range(4)])
    hidden = {"zero": 0, "random": 900 * np.random.default_rng(0).random(images.shape)}
    hidden["the same"] = np.broadcast_to(hidden["random"][0], images.shape) if content != "zero" else 0
    images = np.where(mask, images, hidden[content])
    assert findings(*images, mask=mask) == {}


@pytest.mark.parametrize("value", [0, np.nan])
def test_borders_are_no_stripes(value):
    shapes = {
        "bar": np.arange(200) < 20,
        "field of view": ~disk((160, 200), 75),
        "rotated": ndimage.rotate(np.ones((160, 200)), 8, reshape=False, order=0) < 0.5,
    }
    for border in shapes.values():
        images = [np.where(border, value, noisy(seed).round()) for seed in range(4)]
        assert findings(*images, mask="auto") == {}
    drifting = [np.where(np.arange(160)[:, None] < 5 * seed, value, noisy(seed).round()) for seed in range(5)]
    assert findings(*drifting, mask="auto") == {}


def test_what_is_odd_is_found_in_the_part_that_counts():
    mask = disk((160, 200), 78)
    images = np.stack([noisy(seed) for seed in range(6)])
    striped = findings(*(images + 3 * noise(7, (1, 200))), mask=mask)
    assert striped["fixed stripes (columns)"][0] == pytest.approx(3, rel=0.3)
    images[:, 1::2] = np.roll(images[:, 1::2], 2, axis=2)
    assert findings(*images, mask=mask)["interlaced lines"][0] == 2
    bars = [with_bar(noisy(seed).round(), f"HV {seed} kV WD 4.1 mm") for seed in range(3)]
    mask = np.ones(bars[0].shape, bool)
    mask[-2:] = mask[:, :9] = False
    assert findings(*bars, mask=mask)["information bar"][0] == 31
    mask[-31:] = False
    assert findings(*bars, mask=mask) == {}


@pytest.mark.parametrize("top", [100, 150, 175])
@pytest.mark.parametrize("along", ["none", "x", "y"])
def test_saturated_objects_are_neither_stripes_nor_interlaced(top, along):
    for static in (False, True):
        images = [scene(0 if static else seed) + 10 * noise(seed, along=along) for seed in range(3)]
        assert set(findings(*(image.clip(0, top).round() for image in images))) == {"saturation"}


Y, X = np.mgrid[:160, :200]


def fibres(bend: float, slope: float) -> np.ndarray:
    """Return twelve bright fibres from the top to the bottom."""
    starts = np.random.default_rng(3).uniform(0, 200, 12)
    middles = (start + slope * Y + bend * np.sin(np.pi * Y / 160) for start in starts)
    return 50 + sum(100 * np.exp(-((X - middle) ** 2) / 2.9) for middle in middles)


@pytest.mark.parametrize(
    "sample",
    [
        scene(0),
        10 * scene(1),
        fibres(15, 0),
        fibres(0, 0.06),
        100 + 900 * ndimage.gaussian_filter(noise(5), (12, 1)),
        100 + 900 * ndimage.gaussian_filter(noise(6), (1, 12)),
        100 + 100 * (np.sin(2 * np.pi * (X + 0.2 * Y + 3) / 8) > 0),
        scene(0) + 40 * ((Y > 50) & (X < 120)) + 60 * (Y > 110) * (X > 40),
    ],
    ids=["blobs", "bright blobs", "bent fibres", "tilted fibres", "texture y", "texture x", "grid", "steps"],
)
@pytest.mark.parametrize("strength", [2, 10])
def test_a_sample_that_stays_the_same_is_no_stripe(sample, strength):
    assert findings(*(sample + strength * noise(seed) for seed in range(5))) == {}


LAYERS = 20 * ((Y // 7) % 2 + (Y // 23) % 2) + 100.0


@pytest.mark.parametrize(
    ("sample", "told"),
    [(scene, True), (lambda _: scene(0), False), (lambda _: 100.0, False), (lambda i: (1 - i / 30) * scene(0), False)],
    ids=["changes", "stays", "is empty", "fades"],
)
def test_stripes_are_of_the_detector_only_if_the_scene_changes(sample, told):
    fixed = 3 * noise(7, (1, 200))
    _, line = findings(*(sample(i) + 10 * noise(i) + fixed for i in range(6)))["fixed stripes (columns)"]
    assert ("the sample" in line) != told
    assert ("correct the offset of the detector" in line) == told


def test_layers_of_a_sample_may_be_stripes():
    _, line = findings(*(LAYERS + 10 * noise(i) for i in range(6)))["fixed stripes (rows)"]
    assert "the detector" in line and "the sample, such as layers" in line


def test_stripes_that_change_are_not_fixed():
    assert findings(*(noisy(seed) + 3 * noise(seed, (160, 1)) for seed in range(6))) == {}


def test_frames_that_are_repeated_are_counted():
    first, second = noisy(0), noisy(1)
    number, line = findings(first, first, second, first)["duplicate frames"]
    assert number == 2 and line.startswith("2 of 4 frames are copies: 1 of 0, 3 of 0; ")
    assert findings(first, second, first)["duplicate frames"][1].startswith("1 of 3 frames is a copy: 2 of 0; ")
    mask = np.ones(first.shape, bool)
    mask[:9] = False
    masked = first + ~mask
    assert "duplicate frames" not in findings(first, masked)
    assert findings(first, masked, mask=mask)["duplicate frames"][0] == 1


def test_blank_frames_are_counted():
    found = findings(noisy(0), np.zeros((160, 200)), np.zeros((160, 200)), noisy(1))
    number, line = found["blank frames"]
    assert number == 2 and line.startswith("2 of 4 frames are blank: 1, 2; ")
    assert "duplicate frames" not in found


def test_bleaching_is_the_fall_of_the_mean():
    number, line = findings(*(np.exp(-0.05 * i) * scene(0) + noise(i) for i in range(12)))["bleaching"]
    assert number == pytest.approx(1 - np.exp(-0.55), abs=0.02)
    assert f"{number:.0%}" in line
    assert "bleaching" not in findings(*(noisy(i) for i in range(12)))
    # A masked border that fades is not the sample.
    mask = np.ones((160, 200), bool)
    mask[:60] = False
    fading = [np.where(mask, scene(0) + noise(i), 5000 - 400 * i) for i in range(12)]
    assert "bleaching" not in findings(*fading, mask=mask)


def test_hot_pixels_and_saturated_ones_are_counted():
    image = scene(0) + 10 * noise(0)
    image[[10, 50, 90], [20, 60, 100]] = 60_000
    number, line = findings(image)["hot pixels"]
    assert number == 3
    assert line.startswith("3 hot pixel values in 1 of 1 image; ")
    assert (
        "hot pixels" in findings(image, noisy(1)) and "in 1 of 2 images" in findings(image, noisy(1))["hot pixels"][1]
    )
    number, line = findings((scene(0) + 10 * noise(0)).clip(0, 150).round())["saturation"]
    assert number > 0.1
    assert "clipped at 150, in 1 of 1 image" in line


def test_an_interpolated_image_is_not_interlaced():
    assert findings(ndimage.shift(noisy(0), (0.5, 0.5))) == {}


@pytest.mark.parametrize("masked", [False, True])
def test_the_same_is_found_in_bands(masked, small_bands):
    images = [noisy(seed).round().clip(0, 200) + 3 * noise(7, (1, 200)) for seed in range(4)]
    images[1][40, 50] = images[2][60, 70] = 9000
    images[3] = images[0]
    images = [with_bar(image, f"HV {seed % 3} kV  WD 4.1 mm") for seed, image in enumerate(images)]
    mask = np.ones(images[0].shape, bool) if masked else None
    if masked:
        mask[:, :9] = mask[70:75, 90:] = False
    whole = findings(*images, mask=mask)
    assert {"hot pixels", "information bar", "fixed stripes (columns)", "duplicate frames"} <= set(whole)
    small_bands()
    assert findings(*images, mask=mask) == whole


def test_in_the_middle_of_a_very_large_image_the_same_is_found(monkeypatch):
    images = [with_bar(noisy(seed).round() + 3 * noise(7, (1, 200)), f"HV {seed} kV  WD 4 mm") for seed in range(6)]
    whole = findings(*images)
    monkeypatch.setattr("dvlae.evaluation.findings.frames.MAX_SIDES", (100, 120))
    found = findings(*images)
    assert set(found) == set(whole) == {"information bar", "fixed stripes (columns)"}
    assert found["information bar"] == whole["information bar"]
    assert found["fixed stripes (columns)"][0] == pytest.approx(3, rel=0.3)
