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


def test_every_second_row_brighter_is_found():
    images = np.stack([noisy(seed) for seed in range(3)])
    images[:, 1::2] += 5
    assert findings(*images)["interlaced lines"][0] == pytest.approx(5, rel=0.2)


@pytest.mark.parametrize(("kind", "shape"), [("columns", (1, 200)), ("rows", (160, 1))])
def test_stripes_that_are_the_same_in_all_frames_are_found(kind, shape):
    fixed = 3 * noise(7, shape)
    number, line = findings(*(noisy(seed) + fixed for seed in range(6)))[f"fixed stripes ({kind})"]
    assert number == pytest.approx(3, rel=0.3)
    assert "in all 6 images" in line


def test_stripes_that_change_are_not_fixed():
    assert findings(*(noisy(seed) + 3 * noise(seed, (160, 1)) for seed in range(6))) == {}


def test_frames_that_are_repeated_are_counted():
    first, second = noisy(0), noisy(1)
    assert findings(first, first, second, first)["duplicate frames"][0] == 2


def test_blank_frames_are_counted():
    found = findings(noisy(0), np.zeros((160, 200)), np.zeros((160, 200)), noisy(1))
    assert found["blank frames"][0] == 2
    assert "duplicate frames" not in found


def test_bleaching_is_the_fall_of_the_mean():
    number, line = findings(*(np.exp(-0.05 * i) * scene(0) + noise(i) for i in range(12)))["bleaching"]
    assert number == pytest.approx(1 - np.exp(-0.55), abs=0.02)
    assert f"{number:.0%}" in line
    assert "bleaching" not in findings(*(noisy(i) for i in range(12)))


def test_hot_pixels_and_saturated_ones_are_counted():
    image = scene(0) + 10 * noise(0)
    image[[10, 50, 90], [20, 60, 100]] = 60_000
    number, line = findings(image)["hot pixels"]
    assert number == 3
    assert "3 hot" in line
    number, line = findings((scene(0) + 10 * noise(0)).clip(0, 150).round())["saturation"]
    assert number > 0.1
    assert "clipped at 150" in line


def test_an_interpolated_image_is_not_interlaced():
    assert findings(ndimage.shift(noisy(0), (0.5, 0.5))) == {}
