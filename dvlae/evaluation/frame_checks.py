"""What is odd in frames: defective pixels, bars of text, displaced or brighter lines, fixed stripes.

Each frame is checked by itself, by :func:`check_frame`, and :func:`compare_frames` says what frames have in common.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dvlae.axes import middle
from dvlae.data.defects.marks import DEAD, HOT, SATURATED, Defects
from dvlae.evaluation.noise_samples import FOURTH_DIFFERENCE, WINDOW
from dvlae.evaluation.noise_statistics import robust_variance
from dvlae.system.arrays import frame_bands, rows_of_band

# An information bar: rows of which one grey value fills most, below rows of which none fills much.
MIN_BAR = 8  # rows
MIN_TEXT_ROWS = 4
MIN_MAIN_VALUE = 0.5
MAX_MAIN_VALUE_ABOVE = 0.25
MAX_GAP = 3  # rows
# Letters change from pixel to pixel less often than noise of the same density: the ratio of the two.
MAX_MIXING = 0.8
MIN_EQUAL_ROWS = 4

# Lines are compared in the middle of a larger plane.
MAX_SIDES = (4096, 4096)  # pixels
MAX_DISPLACEMENT = 8  # pixels
# Student's t over the rows of a frame; rows are many, and frames are asked often.
MIN_T = 6.0
MIN_GAIN = 0.05  # of the squared difference between a line and its neighbours
MIN_BRIGHTNESS = 0.1  # of the standard deviation of the noise

# Fixed stripes, in standard deviations of the noise, and as a part of the stripes of one frame.
MIN_STRIPES = 0.05
MIN_STRIPES_ALIKE = 0.5
BANDS = 4  # in each of which a stripe is seen


@dataclass(frozen=True)
class Finding:
    """Something odd in the frames.

    Attributes
    ----------
    kind
        One word or two, for example ``"information bar"``.
    number
        How many, or how much.
    line
        What was found, and which key of the settings helps.
    """

    kind: str
    number: float
    line: str


@dataclass(frozen=True)
class FrameCheck:
    """What one frame shows by itself.

    Attributes
    ----------
    rows
        Height of the frame.
    bars
        Rows of an information bar at the top and at the bottom.
    equal
        Rows at the top and at the bottom that are the same as in the first frame, and not constant.
    displacement
        Pixels by which every second row is displaced; 0 if none.
    brightness
        Grey values by which every second row is brighter; 0 if none.
    profiles
        The median deviation of each column and of each row from its neighbours, in each of some bands across them, with
        its error, and the standard deviation of the noise.
    values, hot, dead, saturated
        Numbers of values of the frame, and of those that are hot, dead or saturated.
    highest
        The largest value.
    """

    rows: int
    bars: tuple[int, int]
    equal: tuple[int, int]
    displacement: int
    brightness: float
    profiles: Mapping[str, tuple[np.ndarray, float, float]]
    values: int
    hot: int
    dead: int
    saturated: int
    highest: float


def check_frame(frame: np.ndarray, first: np.ndarray, defects: Defects) -> FrameCheck:
    """Look for bars, displaced lines and stripes in one frame, and count its defects.

    Parameters
    ----------
    frame
        (C, ...). Its first channel and middle plane are compared; NaN counts as 0 there. Of a very large plane, these
        are the rows at both ends and the middle.
    first
        The first frame, to compare rows with.
    defects
        What was found in the frame.

    Returns
    -------
    FrameCheck
        What it shows.
    """
    plane, other = _plane(frame), _plane(first)
    bars, equal, displacement, brightness, profiles = (0, 0), (0, 0), 0, 0.0, {}
    if plane is not None and other is not None and min(plane.shape) >= 4 * WINDOW:
        ends = [[_last_rows(each[order]) for each in (plane, other)] for order in (slice(None, None, -1), slice(None))]
        bars = bar_rows(ends[0][0]), bar_rows(ends[1][0])
        equal = _equal_rows(*ends[0]), _equal_rows(*ends[1])
        top, bottom = (max(pair) for pair in zip(bars, equal, strict=True))
        image = plane[top : len(plane) - bottom]
        image = np.nan_to_num(image[middle(image.shape, MAX_SIDES)])
        displacement, brightness = _interlace(image)
        profiles = {"columns": _profile(image, axis=-1), "rows": _profile(image, axis=-2)}
    return FrameCheck(
        0 if plane is None else len(plane),
        bars,
        equal,
        displacement,
        brightness,
        profiles,
        frame.size,
        defects.count(HOT),
        defects.count(DEAD),
        defects.count(SATURATED),
        float(np.fmax.reduce([np.fmax.reduce(frame[at], axis=None) for at in frame_bands(frame.shape, frame)])),
    )


def _plane(frame: np.ndarray) -> np.ndarray | None:
    """Return the middle plane of the first channel; None of a trace."""
    channel = frame[0]
    if channel.ndim == 3:
        channel = channel[len(channel) // 2]
    return channel if channel.ndim == 2 else None


def _last_rows(plane: np.ndarray) -> np.ndarray:
    return np.nan_to_num(plane[-rows_of_band(plane.shape) :])


def bar_rows(plane: np.ndarray) -> int:
    """Count the rows of an information bar at the bottom of an image.

    In a bar, most pixels of a row have the same value, and the others form letters. It begins at once: in a round field
    of view or a dark background, the fraction of equal pixels changes from row to row.

    Parameters
    ----------
    plane
        (Y, X).

    Returns
    -------
    int
        0 if there is no bar.
    """
    rows = plane[::-1][: len(plane) // 2]
    main = np.array([_main_value(row) for row in rows])
    filled = main >= MIN_MAIN_VALUE
    if not filled[:1].all() or len(rows) < MIN_BAR:
        return 0
    # The first gap of several rows ends the bar; letters may fill a row or two.
    gaps = np.convolve(~filled, np.ones(MAX_GAP), "valid") == MAX_GAP
    height = int(np.argmax(gaps)) if gaps.any() else len(rows)
    above = main[height : height + WINDOW]
    text = np.count_nonzero(main[:height] < 1)
    if height < MIN_BAR or text < MIN_TEXT_ROWS or not len(above) or np.median(above) > MAX_MAIN_VALUE_ABOVE:
        return 0
    return height if _mixing(rows[:height]) < MAX_MIXING else 0


def _main_value(row: np.ndarray) -> float:
    """Return the fraction of pixels with the commonest value."""
    return float(np.unique(row, return_counts=True)[1].max() / len(row))


def _mixing(block: np.ndarray) -> float:
    """Return how often neighbours differ, relative to independent pixels of two values with the same density."""
    values, numbers = np.unique(block, return_counts=True)
    main = block == values[np.argmax(numbers)]
    expected = 2 * main.mean() * (1 - main.mean())
    changes = np.mean([np.diff(main, axis=axis).mean() for axis in (0, 1)])
    return float(changes / expected) if expected > 0 else math.inf


def _equal_rows(plane: np.ndarray, first: np.ndarray) -> int:
    """Count the rows at the bottom that are equal in two images, unless all are, or they are constant."""
    height = min(len(plane), len(first))
    if plane.shape[1] != first.shape[1]:
        return 0
    rows = plane[::-1][:height]
    equal = (rows == first[::-1][:height]).all(axis=1)
    count = height if equal.all() else int(np.argmin(equal))
    text = np.count_nonzero(np.ptp(rows[:count], axis=1))
    return count if MIN_EQUAL_ROWS <= count <= height // 2 and text >= MIN_TEXT_ROWS else 0


def _interlace(plane: np.ndarray) -> tuple[int, float]:
    """Compare every second row with the mean of the rows above and below: return its displacement and brightness."""
    odd = plane[1:-1:2].astype(np.float64)
    around = (plane[: len(plane) - 2 : 2].astype(np.float64) + plane[2::2]) / 2
    brightness = (odd - around).mean(axis=1)
    noise = math.sqrt(robust_variance(_filtered(plane, -2)))
    shown = _t(brightness) > MIN_T and abs(brightness.mean()) > MIN_BRIGHTNESS * noise
    most = min(MAX_DISPLACEMENT, plane.shape[1] // 4)
    centre = slice(most, plane.shape[1] - most)
    differences = {
        shift: np.mean((np.roll(odd, -shift, axis=1) - brightness.mean() - around)[:, centre] ** 2, axis=1)
        for shift in range(-most, most + 1)
    }
    best = min(differences, key=lambda shift: differences[shift].mean())
    gain = differences[0] - differences[best]
    displaced = best != 0 and _t(gain) > MIN_T and gain.mean() > MIN_GAIN * differences[best].mean()
    return best if displaced else 0, float(brightness.mean()) if shown else 0.0


def _t(values: np.ndarray) -> float:
    """Return the absolute value of Student's t; 0 for fewer than two values, or equal ones."""
    if len(values) < 2 or np.ptp(values) == 0:
        return 0.0
    return float(abs(values.mean()) / (values.std(ddof=1) / math.sqrt(len(values))))


def _profile(plane: np.ndarray, axis: int) -> tuple[np.ndarray, float, float]:
    """Filter along an axis. Return medians across it in each of some bands, (bands, lines), their error, and the noise.

    The error is that of the median of all bands together.
    """
    filtered = _filtered(plane, axis)
    across = -3 - axis
    bands = np.array_split(filtered, BANDS, axis=across)
    noise = math.sqrt(robust_variance(filtered))
    # Lines at the border are often odd. The median of normal values has an error 1.25 times as large as their mean.
    profiles = np.array([np.median(band, axis=across)[WINDOW:-WINDOW] for band in bands])
    return profiles, 1.25 * noise / math.sqrt(plane.shape[across]), noise


def _filtered(plane: np.ndarray, axis: int) -> np.ndarray:
    return ndimage.correlate1d(plane.astype(np.float64), FOURTH_DIFFERENCE, axis=axis)


def compare_frames(checks: Sequence[FrameCheck]) -> list[Finding]:
    """Describe what several frames have in common.

    Parameters
    ----------
    checks
        One for each frame; the first one is that with which the others were compared.

    Returns
    -------
    list of Finding
        At most one of each kind.
    """
    found = [
        _hot(checks),
        _saturated(checks),
        _bar(checks),
        _interlaced(checks),
        *(_stripes(checks, kind) for kind in ("columns", "rows")),
    ]
    return [finding for finding in found if finding is not None]


def _hot(checks: Sequence[FrameCheck]) -> Finding | None:
    hot, dead, values = (
        sum(counts) for counts in zip(*((one.hot, one.dead, one.values) for one in checks), strict=True)
    )
    if not hot + dead:
        return None
    line = (
        f"{hot} hot and {dead} dead of {values} values in {len(checks)} images; they are not learned from, and filled "
        "in; `prediction.hot_pixels: keep` leaves them as they are"
    )
    return Finding("hot pixels", hot + dead, line)


def _saturated(checks: Sequence[FrameCheck]) -> Finding | None:
    number, values = sum(one.saturated for one in checks), sum(one.values for one in checks)
    if not number:
        return None
    highest = max(one.highest for one in checks if one.saturated)
    line = f"{number} of {values} values in {len(checks)} images are clipped at {highest:g}; they do not count here"
    return Finding("saturation", number / values, line)


def _bar(checks: Sequence[FrameCheck]) -> Finding | None:
    for end, where in ((1, "last"), (0, "first")):
        bars = [check.bars[end] for check in checks if check.bars[end]]
        equal = [check.equal[end] for check in checks[1:] if check.equal[end]]
        height, what = 0, ""
        if 2 * len(bars) > len(checks):
            height, what = max(bars), f"hold text on one grey value in {len(bars)} of {len(checks)} images"
        elif 2 * len(equal) > len(checks) - 1:
            height, what = min(equal), "are the same in all images"
        if height:
            rows = min(check.rows for check in checks)
            bounds = f"[0, -{height}]" if end else f"[{height}, {rows}]"
            line = f"the {where} {height} rows {what}; `crop: {{y: {bounds}}}` cuts them off"
            return Finding("information bar", height, line)
    return None


def _interlaced(checks: Sequence[FrameCheck]) -> Finding | None:
    displaced = [check.displacement for check in checks if check.displacement]
    brighter = [check.brightness for check in checks if check.brightness]
    if 2 * len(displaced) > len(checks):
        shift = abs(int(np.median(displaced)))
        return Finding(
            "interlaced lines",
            shift,
            f"every second row is displaced by {shift} px in {len(displaced)} of {len(checks)} images; no key corrects "
            "this: correct the phase of the scan, or deinterlace, before `dvlae prepare`",
        )
    if 2 * len(brighter) > len(checks):
        value = float(np.median(np.abs(brighter)))
        return Finding(
            "interlaced lines",
            value,
            f"every second row differs by {value:.3g} grey values in {len(brighter)} of {len(checks)} images; no key "
            "corrects this: make the rows equally bright before `dvlae prepare`",
        )
    return None


def _stripes(checks: Sequence[FrameCheck], kind: str) -> Finding | None:
    every = [check.profiles[kind] for check in checks if kind in check.profiles]
    lengths = [profiles.shape[1] for profiles, _, _ in every]
    found = [one for one in every if one[0].shape[1] == max(lengths, key=lengths.count)]
    if len(found) < 2:
        return None
    profiles, errors, noise = (np.array(part) for part in zip(*found, strict=True))
    number = len(profiles)
    profiles -= profiles.mean(axis=-1, keepdims=True)
    mean = profiles.mean(axis=0)
    # Between two bands of one frame, and of the mean of all frames, which has 1 / number of what changes.
    each = np.einsum("tal,tbl->ab", profiles, profiles) / profiles.shape[-1] / number
    fixed = (mean @ mean.T / mean.shape[-1] - each / number) / (1 - 1 / number)
    # What the scene shows along a line ends somewhere; a stripe goes through all bands.
    weakest = np.unravel_index(np.argmin(fixed + np.diag(np.full(BANDS, np.inf))), fixed.shape)
    strength = math.sqrt(max(0.0, fixed[weakest]))
    if strength <= max(MIN_STRIPES * noise.mean(), errors.mean()) or fixed[weakest] < MIN_STRIPES_ALIKE * each[weakest]:
        return None
    return Finding(
        f"fixed stripes ({kind})",
        strength,
        f"the {kind} differ by {strength:.3g} grey values ({strength / noise.mean():.2g} standard deviations of the "
        f"noise) alike in all {number} images; no key corrects this: correct the offset of the detector before `dvlae "
        "prepare`",
    )
