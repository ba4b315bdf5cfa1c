"""Where one command writes its results, and which command made what is there."""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvlae.api.inputs import read_record
from dvlae.api.session import Session
from dvlae.config.dataset import DatasetSettings
from dvlae.config.fields import expand_home
from dvlae.data.files import unique_names
from dvlae.data.reading import open_stacks
from dvlae.runs.folder import RunFolder
from dvlae.system.errors import UserError
from dvlae.system.files import check_folder, is_too_long, write_json
from dvlae.system.hashes import sha256

ELSEWHERE = "rename it, or give --output DIR to write elsewhere"


@dataclass(frozen=True)
class Places:
    """The files and folders of the results of one command.

    Attributes
    ----------
    base
        The path that the names of the model, the page and the record begin with.
    together
        The folder of the denoised images; None: each is beside its noisy image.
    """

    base: Path
    together: Path | None

    @classmethod
    def choose(cls, patterns: Sequence[str], inputs: Sequence[Path], output: Path | None) -> "Places":
        """Choose where the results go.

        Parameters
        ----------
        patterns, inputs
            What the user names, and the image files that were found.
        output
            The folder for all results; None: beside each image, or, of a folder, in a new one beside it. They are named
            after the first image, or after the folder.

        Returns
        -------
        Places
            The places.
        """
        folder = expand_home(patterns[0]).absolute()
        if folder.is_dir() and folder not in inputs:
            # Results are beside a link, as those of files are, and not beside what it points to.
            folder = folder.resolve() if ".." in folder.parts else folder
            output = output or folder.with_name(f"{folder.name}_denoised")
            return cls(output.absolute() / folder.name, output.absolute())
        first = inputs[0].with_suffix("").name
        together = None if output is None else output.absolute()
        return cls((together or inputs[0].parent) / first, together)

    def _named(self, end: str) -> Path:
        return self.base.with_name(f"{self.base.name}_denoised{end}")

    @property
    def model(self) -> Path:
        """The folder of the model."""
        return self._named("_model")

    @property
    def page(self) -> Path:
        """The page to look at."""
        return self._named(".html")

    @property
    def record(self) -> Path:
        """What the results were made of, and how: JSON."""
        return self._named(".json")

    @property
    def work(self) -> Path:
        """The folder of what is unfinished."""
        return self._named("_work")

    @property
    def begun(self) -> Path:
        """What the results in the working folder depend on: JSON."""
        return self.work / "request.json"

    def lock(self) -> Path:
        """Return the file that is locked while the results are made, and make its folder.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        UserError
            If its name is too long, or its folder cannot be made.
        """
        _check_name(self._named("_model"))
        check_folder(self.base.parent)
        self.base.parent.mkdir(parents=True, exist_ok=True)
        return self.base.with_name(f".lock-{self.base.name}_denoised")

    def result(self, source: Path, name: str, kind: str) -> Path:
        """Return the file of a result.

        Parameters
        ----------
        source
            The noisy image file.
        name
            The name of the image, which no other image has: that of the file, perhaps with those of folders before it
            and that of a series after it.
        kind
            ``denoised`` or ``uncertainty``.

        Returns
        -------
        Path
            The file.
        """
        if self.together is not None:
            return self.together / f"{name}_{kind}.tif"
        # Beside the image, its name need not begin with those of folders.
        parts = source.with_suffix("").parts
        longer = ("_".join(parts[first:]) for first in range(len(parts)))
        whole = next(prefix for prefix in longer if name.startswith(prefix))
        return source.with_name(f"{parts[-1]}{name.removeprefix(whole)}_{kind}.tif")

    def results_of(self, inputs: Sequence[Path], dataset: DatasetSettings) -> list[Path]:
        """List the results to expect, before the files are read.

        Parameters
        ----------
        inputs
            The image files.
        dataset
            How they are read.

        Returns
        -------
        list of Path
            Two for each image.

        Raises
        ------
        UserError
            If one would be that of two images, or its name is too long.
        """
        named = list(zip(inputs, unique_names(inputs), strict=True))
        if dataset.series == "all":
            named = [(stack.source.path, stack.name) for stack in open_stacks(inputs, dataset)]
        results = [self.result(file, name, kind) for file, name in named for kind in ("denoised", "uncertainty")]
        seen: set[Path] = set()
        for path in results:
            _check_name(path)
            if path in seen:
                raise UserError(f"{path}: would be the result of two images; rename one of them, or denoise them apart")
            seen.add(path)
        return results

    def is_complete(self, request: dict[str, Any]) -> bool:
        """Return whether a command has finished.

        Parameters
        ----------
        request
            All that its results depend on.

        Returns
        -------
        bool
            True if its results are there, as it wrote them.
        """
        record = read_record(self.record) or {}
        return record.get("request") == request and "sha256" in record and self._damaged(record) is None

    def _damaged(self, record: dict[str, Any]) -> Path | None:
        """Return a result that is not there, or not as it was written."""
        hashes = {self.base.parent / path: value for path, value in record.get("sha256", {}).items()}
        return next((path for path, value in hashes.items() if not path.is_file() or sha256(path) != value), None)

    def begin(self, request: dict[str, Any], targets: Iterable[Path], *, overwrite: bool) -> None:
        """Begin a command, or go on with it, and refuse to replace what another one made.

        Parameters
        ----------
        request
            All that its results depend on.
        targets
            The files and folders that it will make.
        overwrite
            Whether they may be replaced.

        Raises
        ------
        UserError
            If there is something of another command, or a folder that no command made.
        """
        targets = list(targets)
        self.check_folders(targets)
        if read_record(self.begun) == request:
            return
        if not overwrite:
            self.refuse_unfinished(request)
            self.refuse(targets, request)
        self.discard()
        write_json(self.begun, request)

    def check_folders(self, targets: Iterable[Path]) -> None:
        """Refuse to remove a folder that no command made.

        Parameters
        ----------
        targets
            The files and folders that a command will make.

        Raises
        ------
        UserError
            If there is something else in the place of the working folder, of the model or of a file.
        """
        check_folder(self.base.parent)
        if self.work.exists() and read_record(self.begun) is None:
            raise UserError(f"{self.work}: is not from this command, which would remove it; {ELSEWHERE}")
        for target in targets:
            if target.is_dir() and not (target == self.model and (target / "model.json").is_file()):
                raise UserError(f"{target}: is a folder that is not from this command; {ELSEWHERE}")

    def discard(self) -> None:
        """Remove the working folder, and last of all the file that shows whose it is."""
        for path in self.work.iterdir() if self.work.exists() else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self.begun:
                path.unlink()
        shutil.rmtree(self.work, ignore_errors=True)

    def refuse_unfinished(self, request: dict[str, Any]) -> None:
        """Refuse to replace the training of another command that has not finished.

        Parameters
        ----------
        request
            All that the results of this command depend on.

        Raises
        ------
        UserError
            If there is one. What was done before a training takes no time.
        """
        other, run = read_record(self.begun), RunFolder(self.work)
        if other != request and (run.checkpoints.exists() or run.model.exists()):
            raise UserError(
                f"{self.work}: found what another command has not finished ({_differences(other, request)}); type that "
                "command again to finish it, or add --overwrite to begin anew, or --output DIR to write elsewhere"
            )

    def refuse(self, targets: Iterable[Path], request: dict[str, Any]) -> None:
        """Refuse to replace something.

        Parameters
        ----------
        targets
            Files and folders that a command would make.
        request
            All that its results depend on.

        Raises
        ------
        UserError
            If one of them exists.
        """
        if (there := next((target for target in targets if target.exists()), None)) is not None:
            record = read_record(self.record)
            if record and record.get("request") == request and (damaged := self._damaged(record)) is not None:
                raise UserError(
                    f"{damaged}: is missing, or not as this command wrote it; add --overwrite to make all "
                    "results again, or --output DIR to write elsewhere"
                )
            if record is None:
                how = f"is there, and no {self.record.name} says that dvlae made it"
            else:
                how = f"was made by another command ({_differences(record.get('request'), request)})"
            raise UserError(f"{there}: {how}; add --overwrite to replace it, or --output DIR to write elsewhere")

    @property
    def finished(self) -> Path:
        """The record, as long as the results are in the working folder: from now on they are only moved."""
        return self.work / "finished.json"

    def relative(self, paths: Iterable[Path]) -> list[str]:
        """Return how a record lists files.

        Parameters
        ----------
        paths
            The files and folders.

        Returns
        -------
        list of str
            Their paths from the folder of the record.
        """
        return [os.path.relpath(path, self.base.parent) for path in paths]

    def finish(self, session: Session) -> list[Path]:
        """Move the results to their places, write the record, and remove the working folder.

        Parameters
        ----------
        session
            Its working folder is :attr:`work`, and all steps are done.

        Returns
        -------
        list of Path
            What was written.
        """
        record = json.loads(self.finished.read_text(encoding="utf-8"))
        made: list[Path] = []
        for file, source in {image.noisy: Path(image.source) for image in session.manifest()}.items():
            made += _move(session.run.denoised / file.name, self.result(source, file.stem, "denoised"))
            deviation = self.result(source, file.stem, "uncertainty")
            if record["uncertainty"]:
                made += _move(session.run.uncertainty / file.name, deviation)
            else:
                # That of results that are replaced.
                deviation.unlink(missing_ok=True)
        if record["request"]["model"] is None:
            made += _move(session.run.model, self.model)
        made.append(self.page)
        files = [file for path in made for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        hashes = dict(zip(self.relative(files), map(sha256, files), strict=True))
        write_json(self.record, {**record, "results": self.relative(made), "sha256": hashes})
        self.discard()
        return [*made, self.record]


def _move(old: Path, new: Path) -> list[Path]:
    """Move a result, unless an earlier attempt has, and return where it is; nothing if there is none."""
    if old.exists():
        if new.is_dir():
            shutil.rmtree(new)
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(old, new)
    return [new] if new.exists() else []


def _check_name(path: Path) -> None:
    if is_too_long(path):
        raise UserError(f"{path}: no file can have such a long name; rename the image to a shorter one")


def _differences(older: dict[str, Any] | None, newer: dict[str, Any]) -> str:
    """Say in which options two commands differ."""
    if older is None:
        return "it is not known which"
    changes = [
        f"other {key}" if isinstance(value, list) else f"{key} {older.get(key)} instead of {value}"
        for key, value in newer.items()
        if older.get(key) != value
    ]
    return ", ".join(changes) or "of another version"
