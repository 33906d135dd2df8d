"""A job's input into its table: a thousand records per transaction, which also says how far the file is read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.curation import note_input, read_job
from db.curation_records import add_records
from db.errors import UsageError
from scheduler.curation.reading import Chosen, Reader, digest_of_file, is_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from db.curation_records import NewRecord
    from scheduler.curation.run import Run

AT_ONCE = 1000
NAME = "load"


def load(run: Run) -> None:
    """Store what is not stored yet of every input of the job. Raises `UsageError` for a file that cannot be read."""
    with run.reading() as connection:
        inputs = read_job(connection, run.job.name).inputs
    before = 0
    for number, entry in enumerate(inputs):
        if entry.get("sha256") is None:
            before += _load_one(run, number, entry, before)
        else:
            before += entry["records"]


def _load_one(run: Run, number: int, entry: Mapping[str, Any], before: int) -> int:
    """Store the rest of one input; returns how many records it has. Some of those taken may be there already."""
    path, stored = Path(entry["path"]), entry["records"]
    digest = digest_of_file(path)
    if stored and entry["begun"] != digest:
        raise UsageError(f"{path} changed since its first records were read; give the job another name.")
    count = 0
    records = _taken(run, path, before)
    for record in itertools.islice(records, stored):
        count = record.position + 1 - before
    while chunk := list(itertools.islice(records, AT_ONCE)):
        count += len(chunk)
        with run.changing() as connection:
            add_records(connection, run.job.id, chunk)
            note_input(connection, run.job.id, number, {"records": count, "begun": digest})
        run.progress(NAME, before + count, before + count)
    if digest_of_file(path) != digest:
        raise UsageError(f"{path} changed while it was read; give the job another name and start it anew.")
    with run.changing() as connection:
        note_input(connection, run.job.id, number, {"records": count, "sha256": digest, "array": is_array(path)})
    return count


def _taken(run: Run, path: Path, before: int) -> Iterator[NewRecord]:
    chosen = Chosen(run.recipe.input)
    position = before
    for text in Reader(path):
        if chosen.full:
            return
        record = chosen.record(text, position)
        if record is not None:
            position += 1
            yield record
