"""The use of disk space by results, and the removal of files that can be made again."""

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
_RUN_KINDS = (_RUN.model, _RUN.denoised, _RUN.uncertainty, _RUN.samples, _RUN.checkpoints, _RUN.tensorboard, _RUN.parts)
# The sizes of these folders are shown one by one.
KINDS = {folder.name for folder in (*_RUN_KINDS, _DATASET.images, _DATASET.simulated, _DATASET.patches)}
# No job writes an unfinished file any more that has not changed for this long.
MIN_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be made again or is no longer needed.

    Attributes
    ----------
    path
        The file or folder.
    reason
        Why it can be removed.
    size
        Size in bytes.
    """

    path: Path
    reason: str
    size: int


def clean(settings: Settings, *, remove: bool, patches: bool) -> str:
    """Describe the disk space that a configuration's results use, and remove what can be made again.

    Parameters
    ----------
    settings
        The configuration.
    remove
        Remove the files; otherwise only list them.
    patches
        Also include the patches of datasets whose runs are all finished.

    Returns
    -------
    str
        Lines of text: the sizes of the results, the files that were or would be removed, and why.

    Raises
    ------
    UserError
        If there are no results, or a dataset's file is missing or wrong.
    """
    results = Path(settings.results)
    if not results.is_dir():
        raise UserError(f"results: found {settings.results!r}, but there is no such folder; nothing to clean")
    lines = _describe_sizes(results)
    candidates = [*_checkpoints(results), *_parts(results), *_abandoned(results)]
    candidates += _patches(settings) if patches else []
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
    """Return a line with the size of each kind of file, the largest first."""
    sizes: Counter[str] = Counter()
    for path in _files(results):
        sizes[_kind(path.relative_to(results).parts)] += path.lstat().st_size
    total = f"{results}: {_format_size(sum(sizes.values()))}"
    return [total, *(f"  {_format_size(size):>9}  {kind}" for kind, size in sizes.most_common())]


def _kind(parts: tuple[str, ...]) -> str:
    """Return the kind of a file from its path relative to the results, which may start with DATASET/METHOD/seedN."""
    if parts[0] in RESERVED_NAMES:
        return parts[0]
    return next((part for part in parts[1:4] if part in KINDS), "other")


def _files(folder: Path) -> Iterable[Path]:
    """Yield all files below a folder without following links."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _newest(path: Path) -> float:
    """Return the time of the last change of a file, or of a folder and all files in it."""
    return max(file.lstat().st_mtime for file in [path, *_files(path)])


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in (_files(path) if path.is_dir() else [path]))


def _checkpoints(results: Path) -> Iterable[Removable]:
    """Find the checkpoints of trainings whose model is complete and has denoised its images."""
    for path in sorted(results.glob("*/*/seed*")):
        run = RunFolder(path)
        used = run.architecture.exists() and run.denoised.is_dir()
        if used and run.checkpoints.is_dir() and not run.checkpoints.is_symlink():
            yield Removable(run.checkpoints, "its training is finished", _size(run.checkpoints))


def _parts(results: Path) -> Iterable[Removable]:
    """Find parts that are older than the last measurement of their run. Snakemake leaves them only if it is killed."""
    for path in sorted(results.glob("*/*/seed*")):
        run = RunFolder(path)
        if run.psnr.exists() and run.parts.is_dir() and _newest(run.parts) < run.psnr.stat().st_mtime:
            yield Removable(run.parts, "its run is finished", _size(run.parts))


def _abandoned(results: Path) -> Iterable[Removable]:
    """Find incomplete files of killed jobs (see `dvlae.system.files`) that no running job can be writing."""
    for path in sorted(results.rglob(".unfinished-*")):
        if time.time() - _newest(path) > MIN_ABANDONED_SECONDS:
            yield Removable(path, "left by a job that was killed", _size(path))


def _patches(settings: Settings) -> Iterable[Removable]:
    """Find the patches of datasets whose runs are all finished."""
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
    """Write a size in bytes with about three digits."""
    power = min(4, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.{min(power, 1)}f} {['B', 'kB', 'MB', 'GB', 'TB'][power]}"
