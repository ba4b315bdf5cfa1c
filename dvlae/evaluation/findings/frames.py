"""What is odd in frames: defective pixels, bars of text, displaced or brighter lines, fixed stripes.

Each frame is checked by itself, by :func:`check_frame`, and :func:`compare_frames` says what frames have in common.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dvlae.axes import middle
from dvlae.data.defects.frames import ExaminedFrame
from dvlae.data.defects.marks import DEAD, DOUBTFUL, HOT, SATURATED
from dvlae.evaluation.findings.finding import Finding
from dvlae.evaluation.findings.stripes import (
    BLOCK,
    Profile,
    block_means,
    filter_lines,
    find_fixed_stripes,
    measure_profile,
)
from dvlae.evaluation.noise_samples import WINDOW
from dvlae.evaluation.noise_statistics import robust_variance
from dvlae.system.arrays import count_true, frame_bands, rows_of_band
from dvlae.system.wording import count

# An information bar: rows of which one grey value fills most, below rows of which none fills much.
MIN_BAR = 8  # rows
MIN_TEXT_ROWS = 4
MIN_MAIN_VALUE = 0.5
MAX_MAIN_VALUE_ABOVE = 0.25
MAX_GAP = 3  # rows
# Letters change from pixel to pixel less often than noise of the same density: the ratio of the two.
MAX_MIXING = 0.8
MIN_EQUAL_ROWS = 4

# Of a very large plane, at least this many rows at each end are looked at, and lines in the middle of it.
MIN_END_ROWS = 256
MAX_SIDES = (4096, 4096)  # pixels

MAX_DISPLACEMENT = 8  # pixels
# Student's t over the rows of a frame; rows are many, and frames are asked often.
MIN_T = 6.0
MIN_GAIN = 0.05  # of the squared difference between a line and its neighbours
MIN_BRIGHTNESS = 0.1  # of the standard deviation of the noise


@dataclass(frozen=True)
class FrameCheck:
    """What one frame shows by itself. Only pixels that count are looked at.

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
        Of the columns and of the rows, in the middle of a very large frame; none if the part that counts is too small.
    blocks
        Means of squares of the frame, or of the middle of a very large one, (Y, X), NaN where too few pixels count.
    values, hot, dead, doubtful, saturated
        Numbers of values of the frame that count, and of those that are hot, dead, doubtful or saturated.
    highest
        The largest value that counts.
    """

    rows: int
    bars: tuple[int, int]
    equal: tuple[int, int]
    displacement: int
    brightness: float
    profiles: Mapping[str, Profile]
    blocks: np.ndarray
    values: int
    hot: int
    dead: int
    doubtful: int
    saturated: int
    highest: float


def check_frame(frame: ExaminedFrame, first: ExaminedFrame) -> FrameCheck:
    """Look for bars, displaced lines and stripes in one frame, and count its defects.

    Parameters
    ----------
    frame
        The first channel and the middle plane of it are looked at; of a very large plane, the rows at both ends and the
        middle.
    first
        The first frame, to compare rows with.

    Returns
    -------
    FrameCheck
        What it shows.
    """
    bars, equal, displacement, brightness, profiles = (0, 0), (0, 0), 0, 0.0, {}
    rows, measured = 0, np.full((0, 0), np.nan)
    if frame.noisy.ndim > 2 and min(frame.noisy.shape[-2:]) >= 4 * WINDOW:
        # Letters may be saturated, but what is saturated says nothing of stripes.
        (top_bar, top_equal), (bottom_bar, bottom_equal) = _end(frame, first, top=True), _end(frame, first, top=False)
        bars, equal = (top_bar, bottom_bar), (top_equal, bottom_equal)
        top, bottom = (max(pair) for pair in zip(bars, equal, strict=True))
        counts = None if frame.measured is None else frame.measured[0]
        rows = frame.noisy.shape[-2]
        part = middle((rows, frame.noisy.shape[-1]), MAX_SIDES)
        measured = _plane(frame, counts, part).astype(np.float64)
        start = part[0].start
        measured[: max(0, top - start)] = measured[max(0, rows - bottom - start) :] = np.nan
    if min(_sides(np.isfinite(measured))) >= 4 * WINDOW:
        displacement, brightness = _interlace(measured)
        profiles = {"columns": measure_profile(measured, axis=-1), "rows": measure_profile(measured, axis=-2)}
    highest = -math.inf
    for channel, band in frame_bands(frame.noisy.shape, frame.noisy, frame.mask):
        numbers = frame.noisy[channel, band] if frame.mask is None else frame.noisy[channel, band][frame.mask[band]]
        highest = max(highest, float(np.fmax.reduce(numbers, axis=None, initial=-np.inf)))
    return FrameCheck(
        rows,
        bars,
        equal,
        displacement,
        brightness,
        profiles,
        block_means(measured, BLOCK),
        frame.noisy.size if frame.mask is None else len(frame.noisy) * count_true(frame.mask),
        frame.defects.count(HOT),
        frame.defects.count(DEAD),
        frame.defects.count(DOUBTFUL),
        frame.defects.count(SATURATED),
        highest,
    )


def _end(frame: ExaminedFrame, first: ExaminedFrame, *, top: bool) -> tuple[int, int]:
    """Return the rows of an information bar at an end of a frame, and those that are the same as in the first one."""
    plane, other = (_last_rows(each, top=top) for each in (frame, first))
    return bar_rows(plane), _equal_rows(plane, other)


def _last_rows(frame: ExaminedFrame, *, top: bool) -> np.ndarray:
    """Return the rows at the bottom, or those at the top upside down; all rows, unless there are very many."""
    height, width = frame.noisy.shape[-2:]
    number = min(height, max(MIN_END_ROWS, rows_of_band((height, width))))
    rows = slice(0, number) if top else slice(height - number, height)
    plane = _plane(frame, frame.mask, (rows, slice(0, width)))
    return plane[::-1] if top else plane


def _plane(frame: ExaminedFrame, counts: np.ndarray | None, part: tuple[slice, ...]) -> np.ndarray:
    """Return a part of the middle plane of the first channel of an image or a volume, NaN where it does not count."""
    channel = frame.noisy[0]
    place: tuple[int | slice, ...] = part if channel.ndim == 2 else (len(channel) // 2, *part)
    return channel[place].copy() if counts is None else np.where(counts[place], channel[place], np.nan)


def _sides(counts: np.ndarray) -> tuple[int, ...]:
    """Return the sides of the smallest box around the pixels that count."""
    lines = (np.flatnonzero(counts.any(axis=axis)) for axis in (1, 0))
    return tuple(int(shown[-1] - shown[0]) + 1 if len(shown) else 0 for shown in lines)


def bar_rows(plane: np.ndarray) -> int:
    """Count the rows of an information bar at the bottom of an image.

    In a bar, most pixels of a row have the same value, and the others form letters. It begins at once: in a round field
    of view or a dark background, the fraction of equal pixels changes from row to row.

    Parameters
    ----------
    plane
        (Y, X); NaN where a pixel does not count.

    Returns
    -------
    int
        With the rows below it in which no pixel counts; 0 if there is no bar.
    """
    shown = np.flatnonzero(np.isfinite(plane).any(axis=1))
    if not len(shown):
        return 0
    below = len(plane) - 1 - int(shown[-1])
    plane = plane[shown[0] : shown[-1] + 1]
    rows = plane[::-1][: len(plane) // 2]
    main = np.array([_main_value(row[np.isfinite(row)]) for row in rows])
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
    return below + height if _mixing(rows[:height]) < MAX_MIXING else 0


def _main_value(values: np.ndarray) -> float:
    """Return the fraction of pixels with the commonest value; 1 if there are none."""
    return float(np.unique(values, return_counts=True)[1].max() / len(values)) if len(values) else 1.0


def _mixing(block: np.ndarray) -> float:
    """Return how often neighbours differ, relative to independent pixels of two values with the same density."""
    counts = np.isfinite(block)
    values, numbers = np.unique(block[counts], return_counts=True)
    main = block == values[np.argmax(numbers)]
    density = main[counts].mean()
    expected = 2 * density * (1 - density)
    changes = []
    for axis in (0, 1):
        before, after = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        changes.append((main[before] != main[after])[counts[before] & counts[after]].mean())
    return float(np.mean(changes) / expected) if expected > 0 else math.inf


def _equal_rows(plane: np.ndarray, first: np.ndarray) -> int:
    """Count the rows at the bottom that are equal in two images, unless all are, or they are constant."""
    height = min(len(plane), len(first))
    if plane.shape[1] != first.shape[1]:
        return 0
    rows, others = plane[::-1][:height], first[::-1][:height]
    counts = np.isfinite(rows) & np.isfinite(others)
    equal = ((rows == others) | ~counts).all(axis=1)
    number = height if equal.all() else int(np.argmin(equal))
    shown = counts[:number].any(axis=1)
    highest = rows[:number].max(axis=1, where=counts[:number], initial=-np.inf)
    lowest = rows[:number].min(axis=1, where=counts[:number], initial=np.inf)
    text = np.count_nonzero(highest > lowest)
    return number if shown.sum() >= MIN_EQUAL_ROWS and number <= height // 2 and text >= MIN_TEXT_ROWS else 0


def _interlace(plane: np.ndarray) -> tuple[int, float]:
    """Compare every second row with the mean of the rows above and below: return its displacement and brightness."""
    # What the scene shows changes its sign no more than its curvature does from row to row; a brighter row does.
    rows = _row_means(plane[1:-1] - (plane[:-2] + plane[2:]) / 2)
    rows = rows[: len(rows) // 2 * 2].reshape(-1, 2)
    told = (rows[:, 0] - rows[:, 1])[np.isfinite(rows).all(axis=1)] / 2
    brightness = float(told.mean()) if len(told) else 0.0
    odd, around = plane[1:-1:2], (plane[: len(plane) - 2 : 2] + plane[2::2]) / 2
    noise = math.sqrt(robust_variance(filter_lines(plane, -2)))
    shown = _t(told) > MIN_T and abs(brightness) > MIN_BRIGHTNESS * noise
    most = min(MAX_DISPLACEMENT, plane.shape[1] // 4)
    centre = slice(most, plane.shape[1] - most)
    shifts = range(-most, most + 1)
    squares = np.array(
        [_row_means((np.roll(odd, -shift, axis=1) - brightness - around)[:, centre] ** 2) for shift in shifts]
    )
    squares = squares[:, np.isfinite(squares).all(axis=0)]
    if not squares.size:
        return 0, brightness if shown else 0.0
    best = int(np.argmin(squares.mean(axis=1)))
    gain = squares[most] - squares[best]  # The middle one is not displaced.
    displaced = _t(gain) > MIN_T and gain.mean() > MIN_GAIN * squares[best].mean()
    return shifts[best] if displaced else 0, brightness if shown else 0.0


def _row_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row; NaN of rows in which hardly any pixel counts."""
    counts = np.isfinite(values)
    number = counts.sum(axis=1)
    means = values.sum(axis=1, where=counts) / np.maximum(1, number)
    return np.where(number >= WINDOW, means, np.nan)


def _t(values: np.ndarray) -> float:
    """Return the absolute value of Student's t; 0 for fewer than two values, or equal ones."""
    if len(values) < 2 or np.ptp(values) == 0:
        return 0.0
    return float(abs(values.mean()) / (values.std(ddof=1) / math.sqrt(len(values))))


def compare_frames(checks: Sequence[FrameCheck]) -> list[Finding]:
    """Describe what several frames have in common, and count defects.

    Parameters
    ----------
    checks
        One for each frame; the first one is that with which the others were compared.

    Returns
    -------
    list of Finding
        At most one of each kind.
    """
    interlaced = _interlaced(checks)
    found = [_hot(checks), _doubtful(checks), _saturated(checks), _bar(checks), interlaced]
    shown = [check for check in checks if check.profiles]
    for kind in ("columns", "rows"):
        profiles = [check.profiles[kind] for check in shown]
        if kind == "rows" and interlaced is not None:
            # They are named already.
            profiles = [profile.without_alternation for profile in profiles]
        found.append(find_fixed_stripes(profiles, [check.blocks for check in shown], kind))
    return [finding for finding in found if finding is not None]


def _hot(checks: Sequence[FrameCheck]) -> Finding | None:
    numbers = {kind: [getattr(check, kind) for check in checks] for kind in ("hot", "dead")}
    found = [
        f"{count(sum(counts), f'{kind} pixel value')} in {np.count_nonzero(counts)} of {count(len(checks), 'image')}"
        for kind, counts in numbers.items()
        if any(counts)
    ]
    if not found:
        return None
    line = (
        f"{', '.join(found)}; they are not learned from, and filled in; `prediction.hot_pixels: keep` leaves them as "
        "they are"
    )
    return Finding("hot pixels", sum(map(sum, numbers.values())), line)


def _doubtful(checks: Sequence[FrameCheck]) -> Finding | None:
    numbers = [check.doubtful for check in checks]
    if not any(numbers):
        return None
    line = (
        f"{count(sum(numbers), 'pixel value')} in {np.count_nonzero(numbers)} of {count(len(checks), 'image')} may be "
        "hot or an object: two equally bright pixels side by side; they are not learned from, and kept"
    )
    return Finding("doubtful pixels", sum(numbers), line)


def _saturated(checks: Sequence[FrameCheck]) -> Finding | None:
    saturated = [check for check in checks if check.saturated]
    if not saturated:
        return None
    number, values = sum(check.saturated for check in saturated), sum(check.values for check in checks)
    line = (
        f"{count(number, 'saturated pixel value')}, clipped at {max(check.highest for check in saturated):g}, in "
        f"{len(saturated)} of {count(len(checks), 'image')}; they do not count here"
    )
    return Finding("saturation", number / values, line)


def _bar(checks: Sequence[FrameCheck]) -> Finding | None:
    for end, where in ((1, "last"), (0, "first")):
        bars = [check.bars[end] for check in checks if check.bars[end]]
        equal = [check.equal[end] for check in checks[1:] if check.equal[end]]
        height, what = 0, ""
        if 2 * len(bars) > len(checks):
            height, what = max(bars), f"hold text on one grey value in {len(bars)} of {count(len(checks), 'image')}"
        elif 2 * len(equal) > len(checks) - 1:
            height, what = min(equal), "are the same in all images"
        if height:
            rows = min(check.rows for check in checks)
            bounds = f"[0, -{height}]" if end else f"[{height}, {rows}]"
            line = f"the {where} {height} rows {what}; `crop: {{y: {bounds}}}` cuts them off"
            return Finding("information bar", height, line)
    return None


def _interlaced(checks: Sequence[FrameCheck]) -> Finding | None:
    total = count(len(checks), "image")
    # Rows that a scanner displaces are displaced to one side.
    sides = [[check.displacement for check in checks if sign * check.displacement > 0] for sign in (1, -1)]
    displaced = max(sides, key=len)
    brighter = [check.brightness for check in checks if check.brightness]
    if 2 * len(displaced) > len(checks):
        shift = abs(int(np.median(displaced)))
        return Finding(
            "interlaced lines",
            shift,
            f"every second row is displaced by {shift} px in {len(displaced)} of {total}; no key corrects "
            "this: correct the phase of the scan, or deinterlace, before `dvlae prepare`",
        )
    if 2 * len(brighter) > len(checks):
        value = float(np.median(np.abs(brighter)))
        return Finding(
            "interlaced lines",
            value,
            f"every second row differs by {value:.3g} grey values in {len(brighter)} of {total}; no key "
            "corrects this: make the rows equally bright before `dvlae prepare`",
        )
    return None
