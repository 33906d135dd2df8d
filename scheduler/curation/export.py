"""What a job leaves: the kept records in the form in which they came, pairs for DPO, a manifest that says how.

Everything is decided by recipe and input: no clock, no id, no path; the same job gives the same bytes anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from db.curation import read_job
from db.curation_records import kept_page
from db.curation_report import funnel
from db.engine import engine_of, transaction
from db.errors import BakeoffError, RefusedNow
from db.schema.curation import JobState
from scheduler.curation.found import changed_answers
from scheduler.curation.recipe import parse_recipe
from scheduler.curation.report import notes_of, report_of
from scheduler.curation.run import ASKED
from scheduler.curation.turns import with_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from db.curation import Job
    from db.curation_records import Record
    from db.settings import Settings
    from scheduler.curation.recipe import Recipe

PAGE = 1000
FORM = 1  # of the manifest


def export_job(settings: Settings, name: str, folder: Path) -> dict[str, Any]:
    """Write everything that a job leaves into a folder; returns the manifest.

    Raises `NotFound`, `RefusedNow` for a job that is not done, `BakeoffError` where the folder cannot be written.
    """
    engine = engine_of(settings.dsn, "curate")
    with transaction(engine) as connection:
        job = read_job(connection, name)
        stages = funnel(connection, job.id, job.recipe["stages"])
    if job.status != JobState.DONE:
        raise RefusedNow(
            f"The curation job {name!r} is {job.status}, not done; `bakeoff curate resume {name}` runs it."
        )
    recipe = parse_recipe(job.recipe, f"the recipe of {name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [_write_kept(engine, job, recipe, folder), _write_pairs(engine, job, folder)]
        manifest = _manifest(job, recipe, stages, files)
        with transaction(engine) as connection, _replaced(folder / "report.html") as file:
            file.write(report_of(connection, job))
        with _replaced(folder / "manifest.json") as file:
            file.write(json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    except OSError as error:
        raise BakeoffError(f"Cannot write to {folder}: {error.strerror}.") from None
    return manifest


def _manifest(job: Job, recipe: Recipe, stages: list[dict[str, Any]], files: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "form": FORM,
        "job": job.name,
        "recipe": recipe.shown,
        "recipe_sha256": job.recipe_hash,
        "inputs": [{key: entry[key] for key in ("name", "sha256", "records")} for entry in job.inputs],
        "stages": stages,
        "notes": notes_of(job),
        "files": files,
        **job.counts[ASKED],
    }


def _write_kept(engine: Engine, job: Job, recipe: Recipe, folder: Path) -> dict[str, Any]:
    array = job.inputs[0]["array"]
    path = folder / ("kept.json" if array else "kept.jsonl")
    count = 0
    with _replaced(path) as file:
        for record in _kept(engine, job):
            answers = changed_answers(record.found, len(recipe.stages))
            data = with_answers(record.data, answers, recipe.input) if answers else record.data
            line = json.dumps(data, ensure_ascii=False)
            file.write(("[\n" if count == 0 else ",\n") + line if array else line + "\n")
            count += 1
        if array:
            file.write("\n]\n" if count else "[]\n")
    return _described(path, count)


def _write_pairs(engine: Engine, job: Job, folder: Path) -> dict[str, Any]:
    path = folder / "preferences.jsonl"
    count = 0
    with _replaced(path) as file:
        for record in _kept(engine, job):
            for stage in sorted(key for key in record.found if key.startswith("pairs")):
                for pair in record.found[stage]:
                    file.write(json.dumps({"record": record.position, **pair}, ensure_ascii=False) + "\n")
                    count += 1
    return _described(path, count)


def _kept(engine: Engine, job: Job) -> Iterator[Record]:
    after = -1
    while True:
        with transaction(engine) as connection:
            page = kept_page(connection, job.id, PAGE, after)
        if not page:
            return
        yield from page
        after = page[-1].position


def _described(path: Path, count: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "rows": count, "sha256": digest}


@contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    """A file that is there as a whole, or as it was before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
