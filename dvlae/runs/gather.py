"""The results of several jobs that share a dataset, joined into the results of a single job."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dvlae.runs.folder import DONE, RunFolder, read_json
from dvlae.system.errors import UserError
from dvlae.system.files import write_csv, write_json
from dvlae.system.hashes import combine_hashes

# These values of a record may differ between the parts: a program may be updated between two jobs.
VERSIONS = ("versions", "git_commit")
# These are added up, and rounded to so many decimals.
SUMS = {
    "seconds": 1, "processor_seconds": 1, "training_seconds": 3, "prediction_seconds": 3,
    "prediction_processor_seconds": 3, "megapixels": 6,
}  # fmt: skip
# A part takes as many workers as there are free cores when it begins.
LARGEST = ("peak_memory_mb", "workers")


def _records() -> dict[str, tuple[str, ...]]:
    """Return the records of the steps that make results, of which a part has one, by the name of the result."""
    run = RunFolder(Path())
    steps = {
        (run.prediction_record, run.method_record): (run.denoised, run.uncertainty, run.samples),
        (run.evaluation_record,): (run.psnr,),
    }
    return {
        result.name: tuple(record.name for record in records)
        for records, results in steps.items()
        for result in (*results, *records)
    }


RECORDS = _records()


def gather(
    parts: Sequence[Path], outputs: Sequence[Path], join_folders: Callable[[Sequence[Path], Path], None]
) -> None:
    """Join the results of several jobs that share a dataset. The parts are left as they are.

    Parameters
    ----------
    parts
        The folders of all parts, in order. Each contains what a single job would write into the folder of the run.
    outputs
        The paths to make, with the same names as in the parts. A table (``.csv``) gets the rows of all parts. A record
        (``.json``) gets the sums of seconds and megapixels, the largest memory and number of workers, all devices, one
        hash of the images, what was found in all of them, and the values that are the same in all parts; versions are
        those of the first part. If a part is not done, the record is that of this part. Everything else is a folder.
    join_folders
        Makes a folder out of those of all parts, such as :func:`dvlae.data.outputs.folder.join_folders`.

    Raises
    ------
    UserError
        If an output has another name or is in a part; if a part is missing, unfinished or not in its place, a file is
        in two parts, or the parts were made with different settings.
    """
    for output in outputs:
        _check_output(output, parts)
    for names in dict.fromkeys(RECORDS[output.name] for output in outputs):
        _check_parts(parts, names)
    for output in outputs:
        found = [part / output.name for part in parts]
        for path in found:
            if not path.exists():
                raise UserError(f"{path}: not found; gather after all parts are finished")
        if output.suffix == ".csv":
            _join_tables(found, output)
        elif output.suffix == ".json":
            write_json(output, _join_records(found))
        else:
            join_folders(found, output)


def _check_output(output: Path, parts: Sequence[Path]) -> None:
    """Refuse an output that no step makes, or that is in a part."""
    if output.name not in RECORDS:
        raise UserError(f"--output: found {str(output)!r}, allowed: a path that ends in {', '.join(RECORDS)}")
    if output.absolute().parent.resolve() in [part.resolve() for part in parts]:
        raise UserError(f"{output}: is in a part, which must not change, allowed: a path in another folder")


def _check_parts(parts: Sequence[Path], names: Sequence[str]) -> None:
    """Refuse parts that are not all the parts of one dataset, in order, by their records, which have these names."""
    records = []
    for number, part in enumerate(parts, start=1):
        expected = f"{number}/{len(parts)}"
        record = next((part / name for name in names if (part / name).exists()), None)
        if record is None:
            raise UserError(f"{part}: found no {' or '.join(names)}, allowed: a part that is finished")
        if (found := read_json(record).get("part", "1/1")) != expected:
            raise UserError(f"{record}: found part {found}, allowed: {expected}; name all parts, in order")
        records.append(record)
    _join_records(records)


def _join_tables(tables: Sequence[Path], output: Path) -> None:
    rows: list[list[str]] = []
    columns: list[str] = []
    for table in tables:
        try:
            with open(table, newline="", encoding="utf-8-sig") as file:
                found, *more = csv.reader(file)
        except (ValueError, csv.Error):
            raise UserError(f"{table}: not a table; remove the part's folder and run it again") from None
        if columns and found != columns:
            raise UserError(f"{table}: found columns {found}, allowed: {columns}, as in the first part")
        columns = found
        rows += more
    write_csv(output, columns, rows)


def _join_records(paths: Sequence[Path]) -> dict[str, Any]:
    records = [read_json(path) for path in paths]
    if unfinished := [record for record in records if record.get("status", DONE) != DONE]:
        return {name: value for name, value in unfinished[0].items() if name != "part"}
    joined = {name: value for name, value in records[0].items() if name != "part"}
    for name in joined:
        values: list[Any] = [record.get(name) for record in records]
        if name in SUMS and None not in values:
            joined[name] = round(sum(values), SUMS[name])
        elif name in LARGEST:
            joined[name] = max(values)
        elif name == "device":
            joined[name] = ", ".join(dict.fromkeys(values))
        elif name == "images_sha256" and isinstance(values[0], list):
            joined[name] = combine_hashes(value for hashes in values for value in hashes)
        elif name == "found":
            joined[name] = {kind: {k: v for value in values for k, v in value[kind].items()} for kind in values[0]}
        elif name not in VERSIONS:
            for path, value in zip(paths, values, strict=True):
                if value != values[0]:
                    raise UserError(f"{path}: {name}: found {value}, allowed: {values[0]}, as in the first part")
    return joined
