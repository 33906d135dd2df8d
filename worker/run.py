"""`bakeoff.run_candidates`: one message, the candidates of one model; each one's output is stored in its row.

The task returns a constant whatever happens, so that a chord counts it once and no error of a candidate reaches Celery.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore, SoftTimeLimitExceeded

from db.blobs import BlobStore, artifacts_of, blob_store
from db.candidates import Result, Work, load_work, store
from db.engine import transaction, wait_for_postgres
from db.errors import NotFound, Unreachable
from db.lease import Leased, charge, claim_message, give_back
from db.logs import get_logger
from db.settings import Settings
from db.states import ErrorKind
from db.workers import note_speed
from worker.app import app
from worker.backends import Backend, Failure, File, Input, Output, failure_from
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
    with transaction(process.engine) as connection:
        claim = claim_message(connection, ids, message, settings.lease_seconds)
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
    entry = process.registry.model(model)
    with Renewal(process.engine, Leased.CANDIDATE, claim.token, settings.lease_seconds) as renewal:
        for start in range(0, len(claim.ids), entry.max_batch):
            batch = claim.ids[start : start + entry.max_batch]
            renewal.until(time.monotonic() + entry.timeout)
            _run_batch(process, backend, claim.token, batch, in_chord=in_chord)


def _run_batch(process: ModelProcess, backend: Backend, token: UUID, ids: Sequence[UUID], *, in_chord: bool) -> None:
    with transaction(process.engine) as connection:
        ours = charge(connection, Leased.CANDIDATE, token, ids)
        work = load_work(connection, token, ours)
        known = artifacts_of(connection, [a["sha256"] for item in work for a in item.attachments])
    if not work:
        return
    types = {digest: artifact.media_type for digest, artifact in known.items()}
    inputs = [_input(process, item, types) for item in work]
    started = time.monotonic()
    answers = _answers(backend, inputs)
    share = (time.monotonic() - started) / len(inputs)
    results = [_result(item.id, answer, share, process.settings) for item, answer in zip(work, answers, strict=True)]
    _store(process, backend.model.name, token, results, in_chord=in_chord, seconds_per_item=share)


def _answers(backend: Backend, inputs: Sequence[Input | Failure]) -> list[Output | Failure]:
    """Run the readable inputs as one batch; the others keep their failure."""
    readable = [item for item in inputs if isinstance(item, Input)]
    outputs: list[Output | Failure] = []
    try:
        outputs = backend.run(readable) if readable else []
    except SoftTimeLimitExceeded:
        late = Failure(kind=ErrorKind.MODEL, code="timeout", message="The message ran into its time limit.")
        outputs = [late] * len(readable)
    except Exception as error:
        log.exception("A batch failed", action="batch_failed", model=backend.model.name)
        outputs = [failure_from(error)] * len(readable)
    if len(outputs) != len(readable):
        odd = Failure(
            kind=ErrorKind.MODEL, code="wrong_count", message=f"{len(outputs)} answers came for {len(readable)} inputs."
        )
        outputs = [odd] * len(readable)
    answered = iter(outputs)
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
    if isinstance(answer, Output) and not isinstance(answer.text, str):  # a plug-in without types may return anything
        answer = Failure(  # type: ignore[unreachable]
            kind=ErrorKind.MODEL, code="no_text", message=f"The model returned {type(answer.text).__name__}, not text."
        )
    if isinstance(answer, Output):
        text, detail, usage = clean_text(answer.text), clean_json(answer.detail), clean_json(answer.usage)
        longest = max(len(text), len(json.dumps(detail)))
        if longest <= settings.max_output_chars:
            return Result(id=candidate, seconds=seconds, output=text, detail=detail, usage=usage)
        answer = Failure(
            kind=ErrorKind.MODEL,
            code="output_too_long",
            message=f"{longest} characters came; BAKEOFF_MAX_OUTPUT_CHARS allows {settings.max_output_chars}.",
        )
    error = {"kind": str(answer.kind), "code": answer.code, "message": clean_text(answer.message)}
    return Result(id=candidate, seconds=seconds, error=error)


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
    def attempt() -> list[UUID]:
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
            return ids

    stored = set(attempt())
    for result in results:
        log.info(
            f"{model}: {'done' if result.error is None else result.error['message']}",
            action="candidate_finished" if result.id in stored else "result_too_late",
            model=model,
            candidate=str(result.id),
            seconds=round(result.seconds, 3),
        )
