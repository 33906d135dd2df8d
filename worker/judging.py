"""`bakeoff.judge_subtasks`: judge the subtasks of a wave, store each verdict as it comes.

Runs as the callback of a chord, or by itself where the reconciler found something unjudged. It claims what can be
judged and leaves the rest alone, so it may run any number of times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from db.engine import transaction, wait_for_postgres
from db.lease import Claim, Leased, charge
from db.logs import get_logger
from db.verdicts import (
    ToJudge,
    VerdictRow,
    claim_judging,
    fail_exhausted,
    judge_failed,
    load_to_judge,
    store_verdicts,
)
from worker.app import app
from worker.backends import failure_from
from worker.cleaning import clean_json, clean_text
from worker.judges import Answer, Question
from worker.process import ModelProcess, this_process
from worker.renewal import Renewal

log = get_logger(__name__)

T = TypeVar("T")


@app.task(name="bakeoff.judge_subtasks", ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def judge_subtasks(*, subtasks: list[str], tasks: Sequence[str] = ()) -> None:  # noqa: ARG001 - for Flower
    """Judge what can be judged of these subtasks; the others are not ready, or somebody else's."""
    judge_wave(this_process(), [UUID(subtask) for subtask in subtasks])


def judge_wave(process: ModelProcess, ids: Sequence[UUID]) -> None:
    """Fail what has no successful candidate, claim the rest, judge one by one."""
    settings = process.settings
    with transaction(process.engine) as connection:
        fail_exhausted(connection, ids)
        claim = claim_judging(connection, ids, settings.lease_seconds)
        waiting = load_to_judge(connection, claim.token) if claim.ids else []
    if not waiting:
        return
    with Renewal(process.engine, Leased.SUBTASK, claim.token, settings.lease_seconds) as renewal:
        for subtask in waiting:
            entry = process.registry.judges.get(subtask.judge)
            renewal.until(time.monotonic() + (entry.timeout if entry else 0) + settings.start_allowance)
            _judge_one(process, claim, subtask)


def _judge_one(process: ModelProcess, claim: Claim, subtask: ToJudge) -> None:
    started = time.monotonic()
    try:
        verdict = _decided(process, claim, subtask, started)
    except Exception as error:
        log.exception("A judge failed", action="judge_failed", judge=subtask.judge, subtask=str(subtask.id))
        reason = clean_text(f"{subtask.judge}: {failure_from(error).message}")
        attempts = subtask.attempt + 1
        if attempts < subtask.max_attempts:
            delay = process.settings.retry_delay * 2 ** (attempts - 1)
            _stored(process, lambda connection: judge_failed(connection, claim.token, [subtask.id], reason, delay))
            return
        verdict = fallback(subtask, attempts, reason, time.monotonic() - started)
    if verdict is None:
        return
    stored = _stored(process, lambda connection: store_verdicts(connection, claim.token, [verdict]))
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
    if not all(math.isfinite(score) for score in decision.scores.values()):
        raise ValueError("a score is not a number")
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
