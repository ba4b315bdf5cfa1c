"""What takes the disk space, and what of it can be made again."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dvlae.config.loading import RESERVED_NAMES
from dvlae.config.settings import Settings
from dvlae.runs.folder import DatasetFolder, RunFolder
from dvlae.runs.status import survey
from dvlae.system.errors import UserError

_RUN, _DATASET = RunFolder(Path()), DatasetFolder(Path())
# The folders whose sizes are shown one by one.
KINDS = {
    folder.name
    for folder in (
        *(_RUN.model, _RUN.denoised, _RUN.uncertainty, _RUN.samples, _RUN.checkpoints, _RUN.tensorboard),
        *(_DATASET.images, _DATASET.simulated, _DATASET.patches),
    )
}
# An unfinished file that has not changed for this long is nobody's any more.
MIN_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Removable:
    """Something that can be made again, or is no longer needed.

    Attributes
    ----------
    path
        A file or a folder.
    why
        What makes it removable.
    size
        In bytes.
    """

    path: Path
    reason: str
    size: int


def clean(settings: Settings, *, remove: bool, patches: bool) -> str:
    """Find what takes the disk space of a configuration's results, and remove what can be made again.

    Parameters
    ----------
    settings
        The configuration.
    remove
        Remove it; else only say what would be removed.
    patches
        Patches, too: of the datasets whose runs are all finished.

    Returns
    -------
    str
        What takes the space, what was or would be removed and why, in lines for a screen.

    Raises
    ------
    UserError
        Where there are no results, or a dataset's file is missing or wrong.
    """
    results = Path(settings.results)
    if not results.is_dir():
        raise UserError(f"results: found {settings.results!r}, but there is no such folder; nothing to clean")
    lines = _describe_sizes(results)
    candidates = [*_checkpoints(results), *_abandoned(results), *(_patches(settings) if patches else [])]
    if not candidates:
        kept = "" if patches else " (patches are kept without --patches)"
        return "\n".join([*lines, "", f"nothing that can be removed{kept}"])
    lines += ["", "removed:" if remove else "would be removed:"]
    for candidate in candidates:
        if remove:
            _remove(candidate.path)
        lines.append(f"  {_format_size(candidate.size):>9}  {candidate.path} ({candidate.reason})")
    if not remove:
        lines += ["", "nothing was removed; add --remove to do so"]
    return "\n".join(lines)


def _describe_sizes(results: Path) -> list[str]:
    """Return a line for the size of each kind of file, the largest first."""
    sizes: Counter[str] = Counter()
    for path in _files(results):
        sizes[_kind(path.relative_to(results).parts)] += path.lstat().st_size
    total = f"{results}: {_format_size(sum(sizes.values()))}"
    return [total, *(f"  {_format_size(size):>9}  {kind}" for kind, size in sizes.most_common())]


def _kind(parts: tuple[str, ...]) -> str:
    """Say what a file is by the folders it is in: those of DATASET/METHOD/seedN, of a dataset, or of all."""
    if parts[0] in RESERVED_NAMES:
        return parts[0]
    return next((part for part in parts[1:4] if part in KINDS), "other")


def _files(folder: Path) -> Iterable[Path]:
    """Yield all files below a folder, but follow no links."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in _files(path))


def _checkpoints(results: Path) -> Iterable[Removable]:
    """Find the checkpoints of trainings whose model is not only made, but has been used: it is not asked for again."""
    for path in sorted(results.glob("*/*/seed*")):
        run = RunFolder(path)
        used = run.architecture.exists() and run.denoised.is_dir()
        if used and run.checkpoints.is_dir() and not run.checkpoints.is_symlink():
            yield Removable(run.checkpoints, "its training is finished", _size(run.checkpoints))


def _abandoned(results: Path) -> Iterable[Removable]:
    """Find what killed jobs left half-written (see `dvlae.system.files`), but not what one may be writing now."""
    for path in sorted(results.rglob(".unfinished-*")):
        newest = max(file.lstat().st_mtime for file in [path, *(_files(path) if path.is_dir() else [])])
        if time.time() - newest > MIN_ABANDONED_SECONDS:
            yield Removable(path, "left by a job that was killed", _size(path))


def _patches(settings: Settings) -> Iterable[Removable]:
    """Find the patches of the datasets whose runs are all finished."""
    runs, _ = survey(settings)
    for dataset in dict.fromkeys(run.cell.dataset for run in runs):
        folder = DatasetFolder(Path(settings.results) / dataset).patches
        done = all(run.state == "finished" for run in runs if run.cell.dataset == dataset)
        if done and folder.is_dir() and not folder.is_symlink():
            yield Removable(folder, "all runs of the dataset are finished", _size(folder))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _format_size(size: int) -> str:
    """Write a size in bytes with three digits or so."""
    power = min(4, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.{min(power, 1)}f} {['B', 'kB', 'MB', 'GB', 'TB'][power]}"
