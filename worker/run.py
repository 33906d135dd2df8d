"""`bakeoff.run_candidates`: one message, the candidates of one model; each one's output is stored in its row.

The task returns a constant whatever happens, so that a chord counts it once and no error of a candidate reaches Celery.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from celery.exceptions import Ignore
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from db.blobs import artifacts_of
from db.breaker import note_batch
from db.cache import answer_from_cache
from db.candidates import Result, Work, claim_message, store
from db.engine import transaction, wait_for_postgres
from db.lease import Leased, charge, give_back
from db.logs import get_logger, ids
from db.registry import ModelEntry
from db.settings import Settings
from db.states import ErrorKind
from db.tracing import NOTHING, Span, traced
from db.workers import note_speed
from worker.app import app
from worker.backends import Backend, Failure, Input, Output, failure_from
from worker.batching import DEVICE_LOST, ends_the_message, run_batch
from worker.cleaning import clean_json, clean_text
from worker.inputs import resolved
from worker.process import ModelProcess, this_process
from worker.renewal import Renewal
from worker.traces import batch_span, candidate_spans, message_span, now, sender_of

log = get_logger(__name__)

#: What a line of the log says of a batch, by its action.
SAYS = {"batch_finished": "done", "candidate_failed": "failed", "result_too_late": "too late"}
SAID = 5  # messages of failures in one line, where logs quote at all


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
    with bound_contextvars(message=self.request.id):
        run_message(
            this_process(),
            message=UUID(self.request.id),
            model=model,
            ids=[UUID(candidate) for candidate in candidates],
            in_chord=in_chord,
            sender=sender_of(self.request),
        )
    return "ok"


def run_message(
    process: ModelProcess,
    *,
    message: UUID,
    model: str,
    ids: Sequence[UUID],
    in_chord: bool,
    sender: str | None = None,
) -> None:
    """Claim, then run batch by batch; a batch is charged when it enters the model and stored when it leaves.

    `sender` is the span that sent it.
    """
    began = now()
    try:
        backend = process.backend(model)
    except Exception:
        log.exception("The model is not loaded: its message goes back", action="message_given_back", model=model)
        _give_back(process, message, ids)
        return
    run = _Run(process, backend, in_chord=in_chord)
    first = run.claim(message, ids)
    if run.held:
        raise Ignore
    if not run.claimed:
        log.info("Nothing left to run", action="message_empty", model=model, message=str(message))
        return
    spanning = message_span(backend.model, message, run.traces, sender=sender, began=began, size=len(ids))
    with (
        spanning as run.span,
        Renewal(process.engine, Leased.CANDIDATE, run.token, process.settings.lease_seconds) as renewal,
    ):
        last = run.batches(renewal, first)
    if last is not None:
        _end_early(process, model, run.token, last)


def _give_back(process: ModelProcess, message: UUID, ids: Sequence[UUID]) -> None:
    settings = process.settings
    with transaction(process.engine) as connection:
        claim = claim_message(connection, ids, message, settings.lease_seconds, charge=False)
        give_back(connection, Leased.CANDIDATE, claim.token, settings.retry_delay)


@dataclass(frozen=True)
class _Batch:
    """Candidates that have entered the model, and what is known of the files that they read."""

    work: list[Work]
    types: dict[str, str]  # media type by digest


class _Run:
    """One message on its way through a model.

    Where the model's outputs are cached, what is stored already is answered from there, and of equal inputs one runs.
    """

    def __init__(self, process: ModelProcess, backend: Backend, *, in_chord: bool) -> None:
        self._process = process
        self._backend = backend
        self._in_chord = in_chord
        self._left: list[Work] = []
        self._ran: set[bytes] = set()  # input keys
        self.token = UUID(int=0)
        self.held = 0
        self.claimed = 0
        self.traces: dict[UUID, str] = {}  # traceparent by task
        self.span: Span = NOTHING

    def claim(self, message: UUID, ids: Sequence[UUID]) -> _Batch:
        """Claim the message's candidates, and let the first batch enter. One transaction."""
        settings, model = self._process.settings, self._backend.model
        all_enter = not model.caches and len(ids) <= model.max_batch

        @wait_for_postgres(settings.lease_seconds)
        def attempt() -> _Batch:
            with transaction(self._process.engine) as connection:
                claim = claim_message(connection, ids, message, settings.lease_seconds, charge=all_enter)
                self.token, self.held, self.claimed = claim.token, claim.held, len(claim.work)
                self._left = claim.work
                if claim.held:
                    return _Batch([], {})
                self.traces = traced(connection, {work.task_id for work in claim.work})
                return self._enter(connection, charged=all_enter, look_up=any(map(self._key, claim.work)))

        return attempt()

    def _key(self, work: Work) -> bytes | None:
        return work.input_key if self._backend.model.caches else None

    def batches(self, renewal: Renewal, batch: _Batch) -> Failure | None:
        """Run batch by batch. Returns the failure after which this process tries no further one, or None."""
        limit = self._backend.model.timeout
        while True:
            renewal.until(time.monotonic() + limit)
            for answer in self._run_batch(renewal, batch):
                if isinstance(answer, Failure) and ends_the_message(answer):
                    return answer
            if not self._left:
                return None
            renewal.until(time.monotonic() + 2 * self._process.settings.lease_seconds)  # a Postgres that is away
            batch = self._next_batch()

    def _next_batch(self) -> _Batch:
        left = list(self._left)

        @wait_for_postgres(self._process.settings.lease_seconds)
        def attempt() -> _Batch:
            self._left = list(left)  # it may be the second try
            with transaction(self._process.engine) as connection:
                return self._enter(connection, look_up=any(self._key(work) in self._ran for work in left))

        return attempt()

    def _enter(self, connection: Connection, *, look_up: bool, charged: bool = False) -> _Batch:
        """Charge the next batch, where it is not yet; before that, `look_up` what needs no run any more."""
        if look_up:
            revision = self._backend.model.exact_revision
            ids = [work.id for work in self._left]
            answered = set(answer_from_cache(connection, self.token, ids, revision, in_chord=self._in_chord))
            self._left = [work for work in self._left if work.id not in answered]
        batch = distinct(self._left, self._key, self._backend.model.max_batch)
        entering = {work.id for work in batch}
        self._left = [work for work in self._left if work.id not in entering]
        self._ran.update(key for key in map(self._key, batch) if key)
        if batch and not charged:
            ours = set(charge(connection, Leased.CANDIDATE, self.token, list(entering)))
            batch = [work for work in batch if work.id in ours]
        digests = [file["sha256"] for work in batch for file in work.attachments]
        known = artifacts_of(connection, digests) if digests else {}
        return _Batch(batch, {digest: artifact.media_type for digest, artifact in known.items()})

    def _run_batch(self, renewal: Renewal, batch: _Batch) -> list[Output | Failure]:
        if not batch.work:
            return []
        process, settings = self._process, self._process.settings
        inputs = [resolved(process, item, batch.types) for item in batch.work]
        model, began = self._backend.model, now()
        started = time.monotonic()
        renewal.until(started + model.timeout)
        with batch_span(model, batch.work, self.traces, message=self.span) as spanned:
            answers = _answers(process, self._backend, inputs)
        share = (time.monotonic() - started) / len(inputs)
        results = [_result(item.id, answer, share, settings) for item, answer in zip(batch.work, answers, strict=True)]
        if self.traces:
            candidate_spans(model, batch.work, results, self.traces, batch=spanned, began=began)
        renewal.until(time.monotonic() + 2 * settings.lease_seconds)  # a Postgres that is away is waited for
        stored = _store(process, model, self.token, results, in_chord=self._in_chord, seconds_per_item=share)
        _tell(model.name, batch.work, results, stored)
        return answers


def distinct(works: Sequence[Work], key_of: Callable[[Work], bytes | None], most: int) -> list[Work]:
    """The first `most` of these, without those whose key one of them has."""
    batch: list[Work] = []
    seen: set[bytes] = set()
    for work in works:
        key = key_of(work)
        if len(batch) < most and (key is None or key not in seen):
            batch.append(work)
            seen.update([] if key is None else [key])
    return batch


def _end_early(process: ModelProcess, model: str, token: UUID, last: Failure) -> None:
    """Give back what was not tried, uncharged; a process whose device is lost ends, a fresh one starts."""
    with transaction(process.engine) as connection:
        returned = give_back(connection, Leased.CANDIDATE, token)
    log.warning(
        f"A message ended early: {last.code}",
        action="message_ended_early", model=model, given_back=returned, said=last.message,
    )  # fmt: skip
    if last.code == DEVICE_LOST:
        log.error("This process can use its device no more: a fresh one starts", action="process_unusable", model=model)
        os.kill(os.getpid(), signal.SIGKILL)


def _answers(process: ModelProcess, backend: Backend, inputs: Sequence[Input | Failure]) -> list[Output | Failure]:
    """Run the readable inputs as one batch; the others keep their failure."""
    readable = [item for item in inputs if isinstance(item, Input)]
    answered = iter(run_batch(backend, readable, process.ceilings))
    return [item if isinstance(item, Failure) else next(answered) for item in inputs]


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
    model: ModelEntry,
    token: UUID,
    results: Sequence[Result],
    *,
    in_chord: bool,
    seconds_per_item: float,
) -> set[UUID]:
    """Store a batch under its token; a Postgres that is away is waited for, for up to one lease.

    Returns the candidates that were still ours.
    """
    settings = process.settings
    process.speeds.took(model.name, seconds_per_item)
    speed = process.speeds.news(model.name)

    @wait_for_postgres(settings.lease_seconds)
    def attempt() -> tuple[set[UUID], bool, bool]:
        with transaction(process.engine) as connection:
            ids = store(
                connection,
                token,
                results,
                revision=model.exact_revision,
                retry_delay=settings.retry_delay,
                in_chord=in_chord,
            )
            ours = set(ids)
            written = speed is not None and note_speed(connection, model.name, speed)
            told = [result for result in results if result.id in ours]
            return ours, note_batch(connection, model.name, told, settings.breaker), written

    stored, suspended, written = attempt()
    if speed is not None and written:
        process.speeds.told(model.name, speed)
    if suspended:
        log.error(
            f"{model.name} is suspended: its calls fail one after the other", action="model_suspended", model=model.name
        )
    return stored


def _tell(model: str, work: Sequence[Work], results: Sequence[Result], stored: set[UUID]) -> None:
    """A line for what a batch answered, one for what failed in it, one for what came too late."""
    told: dict[str, list[tuple[Work, Result]]] = {}
    for item, result in zip(work, results, strict=True):
        late, failed = result.id not in stored, result.error is not None
        told.setdefault("result_too_late" if late else "candidate_failed" if failed else "batch_finished", []).append(
            (item, result)
        )
    for action, pairs in told.items():
        codes = sorted({str(result.error["code"]) for _, result in pairs if result.error})
        log.info(
            f"{model}: {len(pairs)} {SAYS[action]}{' (' if codes else ''}{', '.join(codes)}{')' if codes else ''}",
            action=action,
            model=model,
            tasks=ids(item.task_id for item, _ in pairs),
            subtasks=ids(item.subtask_id for item, _ in pairs),
            candidates=ids(item.id for item, _ in pairs),
            attempt=max(item.attempt for item, _ in pairs),
            seconds=round(sum(result.seconds for _, result in pairs), 3),
            said=[str(result.error["message"]) for _, result in pairs if result.error][:SAID] or None,
        )
