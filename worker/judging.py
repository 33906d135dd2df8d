"""`bakeoff.judge_subtasks`: judge the subtasks of a wave, store each verdict as it comes.

Runs as the callback of a chord, or by itself where the reconciler found something unjudged. It claims what can be
judged and leaves the rest alone, so it may run any number of times.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from db.breaker import Guarded, note_failure, note_success
from db.engine import transaction, wait_for_postgres
from db.errors import RefusedNow
from db.lease import Claim, Leased, charge, give_back
from db.logs import get_logger
from db.verdicts import (
    ToJudge,
    VerdictRow,
    claim_judging,
    judge_failed,
    load_to_judge,
    store_verdicts,
)
from worker.app import app
from worker.backends import failure_from
from worker.cleaning import clean_json, clean_text
from worker.judges import Answer, Decision, Question
from worker.process import ModelProcess, this_process
from worker.renewal import Renewal

log = get_logger(__name__)

T = TypeVar("T")

UNJUDGED = ("only_candidate", "fallback")  # methods of verdicts for which no judge gave an answer


@app.task(name="bakeoff.judge_subtasks", bind=True, ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def judge_subtasks(self: Any, *, subtasks: list[str], tasks: Sequence[str] = ()) -> None:  # noqa: ARG001 - for Flower
    """Judge what can be judged of these subtasks; the others are not ready, or somebody else's."""
    judge_wave(this_process(), UUID(self.request.id), [UUID(subtask) for subtask in subtasks])


def judge_wave(process: ModelProcess, message: UUID, ids: Sequence[UUID]) -> None:
    """Claim what can be judged, judge one by one; stop where the judge is found suspended."""
    settings = process.settings

    def claim_and_load(connection: Connection) -> tuple[Claim, list[ToJudge]]:
        claim = claim_judging(connection, ids, message, settings.lease_seconds)
        return claim, load_to_judge(connection, claim.token) if claim.ids else []

    claim, waiting = _stored(process, claim_and_load)
    if not waiting:
        return
    with Renewal(process.engine, Leased.SUBTASK, claim.token, settings.lease_seconds) as renewal:
        for subtask in waiting:
            if not _judge_one(process, renewal, claim, subtask):
                _stored(process, lambda connection: give_back(connection, Leased.SUBTASK, claim.token))
                return


def _judge_one(process: ModelProcess, renewal: Renewal, claim: Claim, subtask: ToJudge) -> bool:
    """Judge one subtask and store what came of it. Returns whether it makes sense to go on with the next."""
    started = time.monotonic()
    entry = process.registry.judges.get(subtask.judge)
    renewal.until(started + (entry.timeout if entry else process.settings.start_allowance))
    try:
        verdict = _decided(process, claim, subtask, started)
        renewal.until(time.monotonic() + 2 * process.settings.lease_seconds)  # a Postgres that is away is waited for
    except Exception as error:
        renewal.until(time.monotonic() + 2 * process.settings.lease_seconds)
        log.exception("A judge failed", action="judge_failed", judge=subtask.judge, subtask=str(subtask.id))
        return _after_failure(process, claim, subtask, error, time.monotonic() - started)
    if verdict is not None:
        _store_verdict(process, claim, subtask, verdict)
    return True


def _after_failure(process: ModelProcess, claim: Claim, subtask: ToJudge, error: Exception, seconds: float) -> bool:
    """A judge that cannot be had, or fails on everything, keeps its subtasks waiting; otherwise an attempt is used up.

    Only an error on this very subtask, after its retries, becomes a fallback. Returns whether to go on.
    """
    reason = clean_text(f"{subtask.judge}: {failure_from(error).message}")
    suspended = _stored(
        process,
        lambda connection: note_failure(connection, Guarded.JUDGE, subtask.judge, reason, process.settings.breaker),
    )
    charged = not suspended and not isinstance(error, RefusedNow)
    attempts = subtask.attempt + 1
    if charged and attempts >= subtask.max_attempts:
        _store_verdict(process, claim, subtask, fallback(subtask, attempts, reason, seconds))
        return True
    delay = process.settings.retry_delay * 2 ** (attempts - 1)
    _stored(
        process,
        lambda connection: judge_failed(connection, claim.token, [subtask.id], reason, delay, charged=charged),
    )
    if suspended:
        log.error(f"{subtask.judge} is suspended: {reason}", action="judge_suspended", judge=subtask.judge)
    return not suspended


def _store_verdict(process: ModelProcess, claim: Claim, subtask: ToJudge, verdict: VerdictRow) -> None:
    def store(connection: Connection) -> list[UUID]:
        ids = store_verdicts(connection, claim.token, [verdict])
        if verdict.method not in UNJUDGED:  # after the subtask: the reconciler locks them in this order, too
            note_success(connection, Guarded.JUDGE, subtask.judge)
        return ids

    stored = _stored(process, store)
    log.info(
        f"{subtask.capability}: {verdict.reason}",
        action="verdict_stored" if stored else "verdict_too_late",
        task=str(subtask.task_id),
        subtask=str(subtask.id),
        judge=subtask.judge,
        seconds=round(verdict.seconds, 3),
    )


def _decided(process: ModelProcess, claim: Claim, subtask: ToJudge, started: float) -> VerdictRow | None:
    """The verdict, or None where the subtask is no longer ours. An attempt is charged before the judge is asked."""
    if len(subtask.candidates) == 1:
        return only_candidate(subtask)
    if subtask.attempt >= subtask.max_attempts:
        return fallback(subtask, subtask.attempt, "its process was lost each time", 0.0)
    if not _stored(process, lambda connection: charge(connection, Leased.SUBTASK, claim.token, [subtask.id])):
        return None
    return _ask(process, subtask, started)


def _stored(process: ModelProcess, statement: Callable[[Connection], T]) -> T:
    """Run one transaction; a Postgres that is away is waited for, for up to one lease."""

    @wait_for_postgres(process.settings.lease_seconds)
    def attempt() -> T:
        with transaction(process.engine) as connection:
            return statement(connection)

    return attempt()


def _ask(process: ModelProcess, subtask: ToJudge, started: float) -> VerdictRow:
    judge = process.judge(subtask.judge)
    decision = judge.decide(
        Question(
            id=subtask.id,
            capability=subtask.capability,
            instruction=process.registry.capabilities[subtask.capability].instruction,
            request=subtask.request,
            answers=tuple(Answer(id=c.id, model=c.model, text=c.output, rank=c.rank) for c in subtask.candidates),
        )
    )
    check_decision(decision, [candidate.id for candidate in subtask.candidates])
    return VerdictRow(
        subtask_id=subtask.id,
        winner_id=decision.ranking[0],
        ranking=list(decision.ranking),
        scores=decision.scores,
        reason=clean_text(decision.reason),
        method=decision.method,
        judge=subtask.judge,
        judge_model=decision.model,
        prompt_version=decision.prompt_version,
        orders=clean_json(decision.orders),
        confidence=decision.confidence,
        seconds=time.monotonic() - started,
    )


def check_decision(decision: Decision, candidates: Sequence[UUID]) -> None:
    """Raise `ValueError` where a judge ranked other things than it was given, or scored them with no number."""
    if Counter(decision.ranking) != Counter(candidates):
        raise ValueError("the ranking is not one of the candidates that were asked about")
    if not set(decision.scores) <= set(candidates):
        raise ValueError("a score is about something that was not asked about")
    if not all(math.isfinite(score) for score in decision.scores.values()):
        raise ValueError("a score is not a number")


def only_candidate(subtask: ToJudge) -> VerdictRow:
    """The verdict on a single survivor: it wins unjudged, and the verdict says so."""
    (winner,) = subtask.candidates
    others = f"the {subtask.failed} other(s) failed" if subtask.failed else "it was the only one asked"
    return _unjudged(subtask, winner.id, "only_candidate", f"{winner.model} wins unjudged: {others}.", 0.0)


def fallback(subtask: ToJudge, attempts: int, reason: str, seconds: float) -> VerdictRow:
    """The verdict where the judge failed on this very subtask until its attempts were used up: the selectors' first."""
    winner = min(subtask.candidates, key=lambda candidate: candidate.rank)
    text = f"{winner.model} was chosen first by the selectors; the judge failed {attempts} times ({reason})."
    return _unjudged(subtask, winner.id, "fallback", text, seconds, is_fallback=True)


def _unjudged(
    subtask: ToJudge, winner: UUID, method: str, reason: str, seconds: float, *, is_fallback: bool = False
) -> VerdictRow:
    ranked: list[Any] = sorted(subtask.candidates, key=lambda candidate: (candidate.id != winner, candidate.rank))
    return VerdictRow(
        subtask_id=subtask.id,
        winner_id=winner,
        ranking=[candidate.id for candidate in ranked],
        scores={},
        reason=reason,
        method=method,
        judge=subtask.judge,
        seconds=seconds,
        fallback=is_fallback,
    )
