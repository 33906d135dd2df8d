"""`bakeoff.judge_subtasks`: judge the subtasks of a wave; a fast judge's verdicts are stored together, a slow one's
as they come.

Runs as the callback of a chord, or by itself where the reconciler found something unjudged. It claims what can be
judged and leaves the rest alone, so it may run any number of times.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from db.breaker import Guarded, note_failure, note_success
from db.errors import RefusedNow
from db.judges import ask_next_judge
from db.lease import Claim, Leased, charge, give_back
from db.logs import get_logger, ids
from db.states import ErrorKind
from db.tracing import traced
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
from worker.cleaning import clean_text
from worker.deciding import ask, fallback, judge_of, only_candidate
from worker.judges.passing import ONLY_PASSING
from worker.pace import asks
from worker.process import ModelProcess, this_process
from worker.renewal import Renewal
from worker.traces import judge_span, sender_of, tell_verdict

log = get_logger(__name__)

T = TypeVar("T")

STORE_WITHIN = 0.5  # seconds that a verdict waits for others to be stored with it
TIME_TO_END = 15.0  # seconds before a message's hard limit in which no further question is begun
LOST = "its process was lost each time"
UNJUDGED = ("only_candidate", "fallback", ONLY_PASSING)  # methods of verdicts for which no judge gave an answer


@app.task(name="bakeoff.judge_subtasks", bind=True, ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def judge_subtasks(self: Any, *, subtasks: list[str], tasks: Sequence[str] = ()) -> None:  # noqa: ARG001 - for Flower
    """Judge what can be judged of these subtasks; the others are not ready, or somebody else's."""
    with bound_contextvars(message=self.request.id):
        message, sender = UUID(self.request.id), sender_of(self.request)
        judge_wave(this_process(), message, [UUID(subtask) for subtask in subtasks], sender)


def judge_wave(process: ModelProcess, message: UUID, ids: Sequence[UUID], sender: str | None = None) -> None:
    """Claim what can be judged, judge it, store the verdicts; stop where the judge is found suspended.

    `sender` is the span that sent the message.
    """
    settings = process.settings

    def claim_and_begin(connection: Connection) -> tuple[Claim, deque[ToJudge], list[ToJudge], dict[UUID, str]]:
        claim = claim_judging(connection, ids, message, settings.lease_seconds)
        waiting = deque(load_to_judge(connection, claim) if claim.ids else [])
        traces = traced(connection, {subtask.task_id for subtask in waiting})
        return claim, waiting, _enter(connection, claim, process.judge_pace.next_of(waiting)), traces

    claim, waiting, first, traces = process.stored(claim_and_begin)
    if not first and not waiting:
        return
    with Renewal(process.engine, Leased.SUBTASK, claim.token, settings.lease_seconds) as renewal:
        _Sitting(process, renewal, claim, traces, sender).judge(first, waiting)


def _enter(connection: Connection, claim: Claim, chunk: Sequence[ToJudge]) -> list[ToJudge]:
    """Charge an attempt to those of a chunk that the judge is going to be asked about. Returns what is still ours."""
    asked = [subtask.id for subtask in chunk if is_asked(subtask)]
    ours = set(charge(connection, Leased.SUBTASK, claim.token, asked)) if asked else set()
    return [subtask for subtask in chunk if subtask.id in ours or not is_asked(subtask)]


def is_asked(subtask: ToJudge) -> bool:
    """Whether a judge is asked at all: not about a single survivor, nor about what cost it its process each time."""
    return asks(subtask) and subtask.attempt < subtask.max_attempts


class _Sitting:
    """One claim being judged, chunk by chunk: a chunk is charged in one statement, and stored in one."""

    def __init__(
        self, process: ModelProcess, renewal: Renewal, claim: Claim, traces: dict[UUID, str], sender: str | None
    ) -> None:
        self._traces = traces
        self._sender = sender
        self._process = process
        self._renewal = renewal
        self._claim = claim
        self._decided: list[tuple[ToJudge, VerdictRow]] = []
        self._decided_since = time.monotonic()
        self._ends = time.monotonic() + process.settings.message_limit - TIME_TO_END
        self._asked = 0
        self._not_begun: list[ToJudge] = []  # charged, and given back after all

    def judge(self, chunk: Sequence[ToJudge], waiting: deque[ToJudge]) -> None:
        """Judge a chunk that has entered, then those that wait.

        What is left where the judge is suspended, or the message has no time for another question, is given back.
        """
        while True:
            for number, subtask in enumerate(chunk):
                if not self._judge_one(subtask):
                    left = [later.id for later in (*self._not_begun, *chunk[number + 1 :]) if is_asked(later)]
                    self._write(partial(give_back, leased=Leased.SUBTASK, token=self._claim.token, uncharge=left))
                    return
            self._store_decided()
            if not waiting:
                return
            entering = self._process.judge_pace.next_of(waiting)
            chunk = self._write(partial(_enter, claim=self._claim, chunk=entering))

    def _judge_one(self, subtask: ToJudge) -> bool:
        """Judge one subtask. Returns whether it makes sense to go on with the next."""
        started = time.monotonic()
        name = judge_of(self._process.registry, subtask)
        entry = self._process.registry.judges.get(name)
        timeout = entry.timeout if entry else self._process.settings.start_allowance
        if is_asked(subtask) and self._asked and started + timeout > self._ends:
            self._store_decided()
            self._not_begun.append(subtask)
            return False
        self._renewal.until(started + timeout)
        if asks(subtask) and not is_asked(subtask) and self._goes_on(subtask, LOST):
            return True
        try:
            with judge_span(subtask, name, entry, self._traces, self._sender) as spanned:
                verdict = self._verdict(subtask, started)
                tell_verdict(spanned, verdict)
        except SoftTimeLimitExceeded:  # the message's, not this question's: nobody is at fault
            self._store_decided()
            self._not_begun.append(subtask)
            return False
        except Exception as error:
            log.exception(
                "A judge failed",
                action="judge_failed", judge=subtask.judge, task=str(subtask.task_id), subtask=str(subtask.id),
                attempt=subtask.attempt + 1,
            )  # fmt: skip
            self._store_decided()  # first: what worked before it failed was a success
            return self._after_failure(subtask, error, time.monotonic() - started)
        finally:
            self._renewal.until(time.monotonic() + 2 * self._process.settings.lease_seconds)  # to store, if need be
        self._decided.append((subtask, verdict))
        if time.monotonic() - self._decided_since >= STORE_WITHIN:
            self._store_decided()
        return True

    def _verdict(self, subtask: ToJudge, started: float) -> VerdictRow:
        if not asks(subtask):
            return only_candidate(subtask)
        if not is_asked(subtask):
            return fallback(subtask, subtask.attempt, LOST, 0.0)
        self._asked += 1
        if self._decided and self._process.judge_pace.size(subtask.judge) == 1:
            self._store_decided()  # what is decided does not wait for a slow question
        verdict = ask(self._process, subtask, started)
        if verdict.method != ONLY_PASSING:  # nobody was asked
            self._process.judge_pace.took(subtask.judge, verdict.seconds)
        return verdict

    def _after_failure(self, subtask: ToJudge, error: Exception, seconds: float) -> bool:
        """A judge that cannot be had, or fails on everything, keeps its subtasks waiting; else an attempt is used up.

        Only an error on this very subtask, after its retries, sends it to the next judge of its list, and without one
        becomes a fallback. Returns whether to go on.
        """
        settings = self._process.settings
        failure = failure_from(error)
        reason = clean_text(f"{subtask.judge}: {failure.message}")
        suspended = failure.kind != ErrorKind.INPUT and self._write(
            lambda connection: note_failure(connection, Guarded.JUDGE, subtask.judge, reason, settings.breaker)
        )
        charged = not suspended and not isinstance(error, RefusedNow)
        attempts = subtask.attempt + 1
        if charged and attempts >= subtask.max_attempts:
            if self._goes_on(subtask, reason):
                return True
            self._decided.append((subtask, fallback(subtask, attempts, reason, seconds)))
            return True
        delay = settings.retry_delay * 2 ** (attempts - 1)
        self._write(
            lambda connection: judge_failed(connection, self._claim.token, [subtask.id], reason, delay, charged=charged)
        )
        if suspended:
            log.error(f"{subtask.judge} is suspended", action="judge_suspended", judge=subtask.judge, said=reason)
        return not suspended

    def _goes_on(self, subtask: ToJudge, reason: str) -> bool:
        """Give a subtask on which its judge failed for good to the next of its list. Returns whether there is one."""
        if not subtask.next_judges:
            return False
        self._write(partial(ask_next_judge, token=self._claim.token, subtask=subtask.id, error=reason))
        log.warning(
            f"{subtask.judge} failed, {subtask.next_judges[0]} is asked next",
            action="judge_relayed", judge=subtask.judge, task=str(subtask.task_id), subtask=str(subtask.id),
            said=reason,
        )  # fmt: skip
        return True

    def _store_decided(self) -> None:
        """Store the verdicts that have come together. One transaction."""
        decided, self._decided = self._decided, []
        self._decided_since = time.monotonic()
        if not decided:
            return
        stored = set(self._write(partial(store_decided, token=self._claim.token, decided=decided)))
        _tell([one for one in decided if one[0].id in stored], "verdict_stored")
        _tell([one for one in decided if one[0].id not in stored], "verdict_too_late")

    def _write(self, statement: Callable[[Connection], T]) -> T:
        return self._process.stored(statement)


def _tell(decided: Sequence[tuple[ToJudge, VerdictRow]], action: str) -> None:
    """A line for each judge of what was stored together. Why it decided so stands in the rows."""
    for judge in sorted({subtask.judge for subtask, _ in decided}):
        mine = [(subtask, verdict) for subtask, verdict in decided if subtask.judge == judge]
        log.info(
            f"{judge}: {len(mine)} {'too late' if action == 'verdict_too_late' else 'decided'}",
            action=action,
            judge=judge,
            tasks=ids(subtask.task_id for subtask, _ in mine),
            subtasks=ids(subtask.id for subtask, _ in mine),
            fallbacks=sum(verdict.fallback for _, verdict in mine),
            attempt=max(subtask.attempt for subtask, _ in mine) + 1,
            seconds=round(sum(verdict.seconds for _, verdict in mine), 3),
        )


def store_decided(connection: Connection, token: UUID, decided: Sequence[tuple[ToJudge, VerdictRow]]) -> list[UUID]:
    """Store verdicts under the token of their claim, and note that their judges work. Returns what was still ours."""
    ids = store_verdicts(connection, token, [verdict for _, verdict in decided])
    # After the subtasks: the reconciler locks them in this order, too.
    for judge in sorted({subtask.judge for subtask, verdict in decided if verdict.method not in UNJUDGED}):
        note_success(connection, Guarded.JUDGE, judge)
    return ids
