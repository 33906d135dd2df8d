"""`bakeoff.run_candidates`: one message, the candidates of one model; each one's output is stored in its row.

The task returns a constant whatever happens, so that a chord counts it once and no error of a candidate reaches Celery.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore

from db.blobs import BlobStore, artifacts_of, blob_store
from db.breaker import note_batch
from db.candidates import Result, Work, load_work, store
from db.engine import transaction, wait_for_postgres
from db.errors import NotFound, Unreachable
from db.lease import Claim, Leased, charge, claim_message, give_back
from db.logs import get_logger
from db.settings import Settings
from db.states import ErrorKind
from db.workers import note_speed
from worker.app import app
from worker.backends import Backend, Failure, File, Input, Output, failure_from
from worker.batching import DEVICE_LOST, ends_the_message, run_batch
from worker.cleaning import clean_json, clean_text
from worker.process import ModelProcess, this_process
from worker.renewal import Renewal

log = get_logger(__name__)


@app.task(name="bakeoff.run_candidates", bind=True)  # type: ignore[untyped-decorator] # celery has no types
def run_candidates(
    self: Any,
    *,
    model: str,
    candidates: list[str],
    in_chord: bool,
    subtasks: Sequence[str] = (),  # noqa: ARG001 - for people who read Flower
    tasks: Sequence[str] = (),  # noqa: ARG001 - for people who read Flower
) -> str:
    """Run the candidates of one message. Raises `Ignore` where the message's first delivery still works on them."""
    run_message(
        this_process(),
        message=UUID(self.request.id),
        model=model,
        ids=[UUID(candidate) for candidate in candidates],
        in_chord=in_chord,
    )
    return "ok"


def run_message(process: ModelProcess, *, message: UUID, model: str, ids: Sequence[UUID], in_chord: bool) -> None:
    """Claim, then run batch by batch; a batch is charged when it enters the model and stored when it leaves."""
    settings = process.settings

    @wait_for_postgres(settings.lease_seconds)
    def claimed() -> Claim:
        with transaction(process.engine) as connection:
            return claim_message(connection, ids, message, settings.lease_seconds)

    claim = claimed()
    if claim.held:
        raise Ignore
    if not claim.ids:
        log.info("Nothing left to run", action="message_empty", model=model, message=str(message))
        return
    try:
        backend = process.backend(model)
    except Exception:
        log.exception("The model is not loaded: its message goes back", action="message_given_back", model=model)
        with transaction(process.engine) as connection:
            give_back(connection, Leased.CANDIDATE, claim.token, settings.retry_delay)
        return
    with Renewal(process.engine, Leased.CANDIDATE, claim.token, settings.lease_seconds) as renewal:
        last = _run_batches(process, backend, renewal, claim, in_chord=in_chord)
    if last is not None:
        _end_early(process, model, claim.token, last)


def _run_batches(
    process: ModelProcess, backend: Backend, renewal: Renewal, claim: Claim, *, in_chord: bool
) -> Failure | None:
    """Run batch by batch. Returns the failure after which this process tries no further one, or None."""
    size = backend.model.max_batch
    for start in range(0, len(claim.ids), size):
        batch = claim.ids[start : start + size]
        answers = _run_batch(process, backend, renewal, claim.token, batch, in_chord=in_chord)
        for answer in answers:
            if isinstance(answer, Failure) and ends_the_message(answer):
                return answer
    return None


def _end_early(process: ModelProcess, model: str, token: UUID, last: Failure) -> None:
    """Give back what was not tried, uncharged; a process whose device is lost ends, a fresh one starts."""
    with transaction(process.engine) as connection:
        returned = give_back(connection, Leased.CANDIDATE, token)
    log.warning(last.message, action="message_ended_early", model=model, given_back=returned)
    if last.code == DEVICE_LOST:
        log.error("This process can use its device no more: a fresh one starts", action="process_unusable", model=model)
        os.kill(os.getpid(), signal.SIGKILL)


def _run_batch(
    process: ModelProcess, backend: Backend, renewal: Renewal, token: UUID, ids: Sequence[UUID], *, in_chord: bool
) -> list[Output | Failure]:
    limit = backend.model.timeout
    renewal.until(time.monotonic() + limit)  # for reading what the batch is about
    with transaction(process.engine) as connection:
        ours = charge(connection, Leased.CANDIDATE, token, ids)
        work = load_work(connection, token, ours)
        known = artifacts_of(connection, [a["sha256"] for item in work for a in item.attachments])
    if not work:
        return []
    types = {digest: artifact.media_type for digest, artifact in known.items()}
    inputs = [_input(process, item, types) for item in work]
    started = time.monotonic()
    renewal.until(started + limit)
    answers = _answers(process, backend, inputs)
    share = (time.monotonic() - started) / len(inputs)
    results = [_result(item.id, answer, share, process.settings) for item, answer in zip(work, answers, strict=True)]
    renewal.until(time.monotonic() + 2 * process.settings.lease_seconds)  # a Postgres that is away is waited for
    _store(process, backend.model.name, token, results, in_chord=in_chord, seconds_per_item=share)
    return answers


def _answers(process: ModelProcess, backend: Backend, inputs: Sequence[Input | Failure]) -> list[Output | Failure]:
    """Run the readable inputs as one batch; the others keep their failure."""
    readable = [item for item in inputs if isinstance(item, Input)]
    answered = iter(run_batch(backend, readable, process.ceilings))
    return [item if isinstance(item, Failure) else next(answered) for item in inputs]


def _input(process: ModelProcess, work: Work, types: dict[str, str]) -> Input | Failure:
    """Resolve the references of a subtask's inputs."""
    store_of_blobs = blob_store(process.settings.blobs)
    texts, files = [], []
    try:
        for reference in work.inputs:
            if "request" in reference:
                texts.append(work.request)
            elif "text" in reference:
                texts.append(reference["text"])
            elif "attachment" in reference:
                files.append(_file(store_of_blobs, work.attachments[reference["attachment"]], types))
    except NotFound as error:
        return Failure(kind=ErrorKind.INPUT, code="attachment_missing", message=str(error))
    except Unreachable as error:
        return Failure(kind=ErrorKind.MODEL, code="blobs_unreachable", message=str(error))
    except Exception as error:
        log.exception("Inputs could not be resolved", action="inputs_failed", candidate=str(work.id))
        return failure_from(error)
    return Input(
        text="\n\n".join(text for text in texts if text),
        instruction=process.registry.capabilities[work.capability].instruction,
        files=tuple(files),
        options=work.options.get("params", {}),
    )


def _file(blobs: BlobStore, attachment: dict[str, Any], types: dict[str, str]) -> File:
    digest = attachment["sha256"]
    return File(
        name=attachment.get("name", ""),
        media_type=types.get(digest, "application/octet-stream"),
        data=blobs.get(digest),
    )


def _result(candidate: UUID, answer: Output | Failure, seconds: float, settings: Settings) -> Result:
    try:
        said = _storable(answer, settings.max_output_chars) if isinstance(answer, Output) else answer
    except Exception as problem:
        log.exception("An answer cannot be stored", action="answer_not_storable", candidate=str(candidate))
        said = failure_from(problem)
    if isinstance(said, Output):
        return Result(id=candidate, seconds=seconds, output=said.text, detail=said.detail, usage=said.usage)
    error = {"kind": str(said.kind), "code": said.code, "message": clean_text(said.message)}
    return Result(id=candidate, seconds=seconds, error=error)


def _storable(answer: Output, most: int) -> Output | Failure:
    """The output as Postgres takes it, or why it is none. A plug-in without types may have put anything in it."""
    if not isinstance(answer.text, str):
        kind = type(answer.text).__name__  # type: ignore[unreachable]
        return Failure(kind=ErrorKind.MODEL, code="no_text", message=f"The model returned {kind}, not text.")
    longest = len(answer.text)
    if longest <= most:
        said = Output(text=clean_text(answer.text), detail=clean_json(answer.detail), usage=clean_json(answer.usage))
        longest = max(longest, len(json.dumps(said.detail)), len(json.dumps(said.usage)))
        if longest <= most:
            return said
    message = f"{longest} characters came; BAKEOFF_MAX_OUTPUT_CHARS allows {most}."
    return Failure(kind=ErrorKind.MODEL, code="output_too_long", message=message)


def _store(
    process: ModelProcess,
    model: str,
    token: UUID,
    results: Sequence[Result],
    *,
    in_chord: bool,
    seconds_per_item: float,
) -> None:
    """Store a batch under its token; a Postgres that is away is waited for, for up to one lease."""
    settings = process.settings

    @wait_for_postgres(settings.lease_seconds)
    def attempt() -> tuple[list[UUID], bool]:
        with transaction(process.engine) as connection:
            ids = store(
                connection,
                token,
                results,
                revision=process.registry.model(model).revision,
                retry_delay=settings.retry_delay,
                in_chord=in_chord,
            )
            note_speed(connection, model, seconds_per_item)
            suspended = note_batch(connection, model, [r for r in results if r.id in set(ids)], settings.breaker)
            return ids, suspended

    ids, suspended = attempt()
    stored = set(ids)
    if suspended:
        log.error(f"{model} is suspended: its calls fail one after the other", action="model_suspended", model=model)
    for result in results:
        log.info(
            f"{model}: {'done' if result.error is None else result.error['message']}",
            action="candidate_finished" if result.id in stored else "result_too_late",
            model=model,
            candidate=str(result.id),
            seconds=round(result.seconds, 3),
        )
