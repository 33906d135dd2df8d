"""A job from where it stands to its end: input, stages one after the other, the records that are left.

Killed anywhere, it is run again and finds in its rows what is left to do: a record's stage is a row, and the key of its
tasks refuses a second one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from db.curation import (
    add_input,
    claim_job,
    create_job,
    delete_job,
    fail_job,
    finish_job,
    hold,
    note_counts,
    note_stage,
    read_job,
    release_job,
    reopen_job,
)
from db.curation_records import keep_rest, pending_again
from db.curation_tasks import asked_of, merged
from db.engine import engine_of, transaction
from db.errors import BakeoffError, RefusedNow, UsageError
from db.logs import get_logger
from db.schema.curation import JobState
from scheduler.curation import loading
from scheduler.curation.reading import digest_of_file
from scheduler.curation.recipe import Recipe, parse_recipe
from scheduler.curation.run import ASKED, SECONDS, Run, silent
from scheduler.curation.stages import create_stage
from worker.cleaning import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy import Engine

    from db.curation import Job
    from db.settings import Settings
    from scheduler.curation.run import Progress

log = get_logger(__name__)

LOOK = 0.2  # seconds between two looks at a lease that somebody else holds


class OtherRecipe(UsageError):
    """The name belongs to a job with another recipe or input."""


def start_job(settings: Settings, recipe: Recipe) -> Job:
    """The job of a recipe, made where there is none. Raises `OtherRecipe` where its name is taken."""
    path = recipe.input.file
    if not path.is_file():
        raise UsageError(
            f"input.file = {str(path)!r} is no file here"
            + (", and BAKEOFF_EVAL_DATA, where it may lie, is not set." if settings.eval_data is None else ".")
        )
    entry = {"path": str(path), "name": path.name, "records": 0, "sha256": None}
    with transaction(_engine(settings)) as connection:
        job = create_job(connection, recipe.name, recipe.model_dump(mode="json"), recipe.digest, [entry])
    read = job.inputs[0]["sha256"] or job.inputs[0].get("begun")
    if job.recipe_hash != recipe.digest or (read is not None and read != digest_of_file(path)):
        raise OtherRecipe(
            f"There is a curation job {recipe.name!r} with another recipe or input; say --name NEW for this one, or go "
            f"on with that one by `bakeoff curate resume {recipe.name}`."
        )
    return job


def extend_job(settings: Settings, name: str, file: Path) -> Job:
    """Give a job more input; it is to run again, and ends as one that had all of it from the beginning.

    Raises `UsageError` for a file that is not there, `RefusedNow` while somebody runs the job.
    """
    if not file.is_file():
        raise UsageError(f"{file} is no file.")
    engine = _engine(settings)
    with transaction(engine) as connection:
        job = read_job(connection, name)
    token = _claim(engine, job, settings.lease_seconds)
    entry = {"path": str(file.absolute()), "name": file.name, "records": 0, "sha256": None}
    with transaction(engine) as connection:
        hold(connection, job.id, token, settings.lease_seconds)
        add_input(connection, job.id, entry)
        pending_again(connection, job.id)
        release_job(connection, job.id, token)
        return read_job(connection, name)


def run_job(settings: Settings, name: str, progress: Progress = silent) -> Job:
    """Run a job to its end; one that is done stays as it is.

    Raises `RefusedNow` where another process runs it, and what a stage raises: `UsageError` ends the job as failed
    until somebody runs it again, anything else leaves it as it stands.
    """
    engine = _engine(settings)
    with transaction(engine) as connection:
        job = read_job(connection, name)
    if job.status == JobState.DONE:
        return job
    return run_claimed(settings, job, _claim(engine, job, settings.lease_seconds), progress)


def _is_usage(error: Exception) -> bool:
    return isinstance(error, UsageError)


def run_claimed(
    settings: Settings,
    job: Job,
    token: UUID,
    progress: Progress = silent,
    *,
    ends: Callable[[Exception], bool] = _is_usage,
) -> Job:
    """Run a job whose lease is held, and give the lease back. An error that `ends` the job leaves it failed."""
    engine = _engine(settings)
    try:
        recipe = parse_recipe(job.recipe, f"the recipe of {job.name}")
        _take_through(Run(settings=settings, engine=engine, job=job, recipe=recipe, token=token, progress=progress))
    except Exception as error:
        if ends(error):
            with transaction(engine) as connection:
                hold(connection, job.id, token, settings.lease_seconds)
                fail_job(connection, job.id, _sentence(error))
        raise
    finally:
        with transaction(engine) as connection:
            release_job(connection, job.id, token)
    with transaction(engine) as connection:
        return read_job(connection, job.name)


def _sentence(error: Exception) -> str:
    """What a failed job says: our own words, never a statement or a trace."""
    if isinstance(error, BakeoffError):
        return clean_text(str(error))
    return f"A fault of Bakeoff's own ({type(error).__name__}); the log of the process that ran the job has the trace."


def remove_job(settings: Settings, name: str) -> None:
    """Forget a job and its records. Raises `NotFound`, and `RefusedNow` while somebody runs it."""
    engine = _engine(settings)
    with transaction(engine) as connection:
        job = read_job(connection, name)
    _claim(engine, job, settings.lease_seconds)
    with transaction(engine) as connection:
        delete_job(connection, job.id)


def _take_through(run: Run) -> None:
    with run.changing() as connection:
        reopen_job(connection, run.job.id)
        note_stage(connection, run.job.id, loading.NAME)
    with _timed(run, loading.NAME):
        loading.load(run)
    for number, name in enumerate(run.recipe.stages):
        with _timed(run, name):
            with run.changing() as connection:
                note_stage(connection, run.job.id, name)
            create_stage(name, number, run.recipe.tables.get(name, {})).run(run)
    with run.changing() as connection:
        keep_rest(connection, run.job.id, len(run.recipe.stages))
        note_counts(connection, run.job.id, run.notes)
        finish_job(connection, run.job.id)


@contextmanager
def _timed(run: Run, name: str) -> Iterator[None]:
    """Add the seconds to those of the stage; a run that is killed in it leaves none."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    seconds = run.notes.setdefault(SECONDS, dict(run.job.counts.get(SECONDS, {})))
    seconds[name] = round(seconds.get(name, 0.0) + took, 3)
    with run.reading() as connection:
        found = asked_of(connection, run.job.source)
    run.notes[ASKED] = merged(run.notes.get(ASKED) or run.job.counts.get(ASKED, {}), found)
    with run.changing() as connection:
        note_counts(connection, run.job.id, {SECONDS: seconds, ASKED: run.notes[ASKED]})
    log.info(f"{run.job.name}: {name} is through", action="curation_stage_finished", job=run.job.name, seconds=took)


def _claim(engine: Engine, job: Job, seconds: float) -> UUID:
    """The job's lease. One whose runner was killed is waited for; one that is renewed meanwhile is somebody's."""
    deadline = time.monotonic() + seconds + LOOK
    left = job.lease_left
    while True:
        with transaction(engine) as connection:
            token = claim_job(connection, job.id, seconds)
            now = read_job(connection, job.name).lease_left
        if token is not None:
            return token
        renewed = left is not None and now is not None and now > left
        if renewed or time.monotonic() > deadline:
            raise RefusedNow(f"Another process runs the curation job {job.name!r}; `bakeoff curate status` follows it.")
        left = now
        time.sleep(LOOK)


def _engine(settings: Settings) -> Engine:
    return engine_of(settings.dsn, "curate")
