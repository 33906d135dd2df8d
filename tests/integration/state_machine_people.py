"""Workers, judges and schedulers of the state machine: what each does in one transaction, as their processes do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from state_machine_world import LEASE, REVISION, Envelope, Held, Judging, Statement, World

from db import cache, candidates, endings, flight, lease, prune, subtasks, verdicts
from db.breaker import Guarded, due_probes, note_batch, note_failure, note_success, start_probe
from db.judges import ask_next_judge
from db.lease import Leased
from db.verdicts import ToJudge, VerdictRow
from scheduler.dispatch import Dispatcher
from scheduler.publishing import Publisher
from scheduler.reconcile import Reconciler
from scheduler.replacing import back_fill, rebind
from worker.deciding import fallback, only_candidate
from worker.judging import is_asked

ERRORS = {
    kind: {"kind": kind, "code": f"{kind}_error", "message": f"the {kind} is at fault"}
    for kind in ("input", "model", "memory")
}
WAYS = ("renewed", "given back", "stopped in order", "child lost", "lost")  # of a claim to end, or not
RULES = ("expire leases", "expire judging", "expire pending", "expire subtasks", "unblock", "skip unreachable",
         "back-fill", "rebind", "end strays", "finish tasks", "find lost", "prune")  # fmt: skip


class Workers:
    """Whoever runs candidates. Many of them: a claim may outlive its lease without knowing."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(self, letter: Envelope, *, all_enter: bool = False, stay_open: bool = False) -> None:
        """A message is delivered: for the first time, again, or long after its rows went another way.

        `all_enter`: it is one batch, and charged as it is claimed.
        """
        self._world.broker.taken(letter)
        message = letter.message

        def learn(got: candidates.MessageClaim) -> None:
            assert set(got.ids) <= set(message.candidate_ids)
            if got.ids:
                held = Held(got.token, got.ids, message.id, message.model, letter.in_chord)
                self._world.held.append(held)
                if all_enter:
                    self._enter(held, got.ids)

        self._world.act(
            lambda connection: candidates.claim_message(
                connection, message.candidate_ids, message.id, LEASE, charge=all_enter
            ),
            learn,
            stay_open=stay_open,
        )

    def charge(self, held: Held, most: int = 3, *, stay_open: bool = False) -> None:
        """The next batch enters the model."""
        batch = [candidate for candidate in held.ids if candidate not in held.charged][:most]

        def learn(ours: list[UUID]) -> None:
            self._enter(held, ours)

        self._world.act(
            lambda connection: lease.charge(connection, Leased.CANDIDATE, held.token, batch),
            learn,
            stay_open=stay_open,
        )

    def _enter(self, held: Held, ours: list[UUID]) -> None:
        held.charged += ours
        for candidate in ours:
            self._world.entries[candidate] = self._world.entries.get(candidate, 0) + 1

    def store(self, held: Held, outcomes: Sequence[str], *, stay_open: bool = False) -> None:
        """What came of everything that entered the model so far; a part of it may be stored already."""
        results = [
            self._result(held, candidate, outcomes[number % len(outcomes)])
            for number, candidate in enumerate(held.charged)
        ]

        def statement(connection: Connection) -> list[UUID]:
            stored = candidates.store(
                connection, held.token, results, revision=REVISION, retry_delay=2.0, in_chord=held.in_chord
            )
            note_batch(connection, held.model, results, self._world.settings.breaker)
            return stored

        def learn(stored: list[UUID]) -> None:
            assert not held.stored & set(stored), "a repeated result changed a row"
            held.stored |= set(stored)
            said = {result.id: result.output for result in results if result.output is not None}
            self._world.outputs.update({candidate: said[candidate] for candidate in stored if candidate in said})

        if results:
            self._world.act(statement, learn, stay_open=stay_open)

    def look_up(self, held: Held, *, stay_open: bool = False) -> None:
        """What others stored for the same input meanwhile needs no run."""

        def learn(answered: list[UUID]) -> None:
            held.stored |= set(answered)

        self._world.act(
            lambda connection: cache.answer_from_cache(
                connection, held.token, held.ids, REVISION, in_chord=held.in_chord
            ),
            learn,
            stay_open=stay_open,
        )

    def _result(self, held: Held, candidate: UUID, outcome: str) -> candidates.Result:
        if outcome == "done":
            return candidates.Result(id=candidate, seconds=0.1, output=f"{held.model} {next(self._world.numbers)}")
        return candidates.Result(id=candidate, seconds=0.1, error=ERRORS[outcome])

    def let_go(self, held: Held | Judging, leased: Leased, way: str, *, stay_open: bool = False) -> None:
        """A claim ends, or does not, without a result."""
        ways: dict[str, Statement] = {
            "renewed": lambda connection: lease.renew(connection, leased, held.token, LEASE),
            "given back": lambda connection: lease.give_back(connection, leased, held.token, 2.0),
            "stopped in order": lambda connection: lease.return_message(connection, held.message),
            "child lost": lambda connection: lease.end_message(connection, held.message),
            "lost": lambda connection: connection.execute(
                text(
                    f"UPDATE {leased.table} SET lease_until = now() - interval '1 s' "
                    f"WHERE token = :token AND {leased.held}"
                ),
                {"token": held.token},
            ),
        }
        self._world.act(ways[way], stay_open=stay_open)

    def finish(self, letter: Envelope, outcomes: Sequence[str]) -> None:
        """A worker runs a message from beginning to end."""
        before = len(self._world.held)
        self.take(letter)
        for held in self._world.held[before:]:
            self.look_up(held)
            self.charge(held, len(held.ids))
            self.store(held, outcomes)


class Judges:
    """Whoever judges."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(self, call: tuple[UUID, list[UUID]], *, stay_open: bool = False) -> None:
        """A judge message is delivered: a chord's callback, or one of the scheduler's own."""
        self._world.broker.taken(call)
        message, ids = call

        def statement(connection: Connection) -> Judging:
            claim = verdicts.claim_judging(connection, ids, message, LEASE)
            loaded = verdicts.load_to_judge(connection, claim)
            assert {subtask.id for subtask in loaded} == set(claim.ids)
            return Judging(claim.token, message, loaded)

        def learn(got: Judging) -> None:
            if got.subtasks:
                self._world.judging.append(got)

        self._world.act(statement, learn, stay_open=stay_open)

    def decide(self, judging: Judging, number: int, *, stay_open: bool = False) -> None:
        """The verdict on one of the claimed subtasks, maybe for the second time, maybe too late."""
        subtask = judging.subtasks[number % len(judging.subtasks)]
        if self._goes_on(judging, subtask, subtask.attempt, stay_open=stay_open):
            return
        if self._enters(judging, subtask):
            row = self._verdict(subtask, number)
            self._world.act(lambda connection: self._store(connection, judging, row), stay_open=stay_open)

    def decide_all(self, judging: Judging, number: int, *, stay_open: bool = False) -> None:
        """A fast judge: everything claimed is charged together, and stored together."""
        self._charge(judging, judging.subtasks)
        rows = [
            self._verdict(subtask, number)
            for subtask in judging.subtasks
            if not self._goes_on(judging, subtask, subtask.attempt) and self._may_go_on(judging, subtask)
        ]
        self._world.act(lambda connection: self._store(connection, judging, *rows), stay_open=stay_open)

    def _store(self, connection: Connection, judging: Judging, *rows: VerdictRow) -> list[UUID]:
        ids = verdicts.store_verdicts(connection, judging.token, rows)
        for judge in sorted({row.judge for row in rows if row.method == "scripted"}):
            note_success(connection, Guarded.JUDGE, judge)
        return ids

    def _enters(self, judging: Judging, subtask: ToJudge) -> bool:
        """Whether it may go on: an attempt is charged before the judge is asked, where it is asked at all."""
        self._charge(judging, [subtask])
        return self._may_go_on(judging, subtask)

    def _goes_on(self, judging: Judging, subtask: ToJudge, attempts: int, *, stay_open: bool = False) -> bool:
        """Whether its attempts are spent and another judge is asked next."""
        if len(subtask.candidates) == 1 or attempts < subtask.max_attempts or not subtask.next_judges:
            return False
        self._world.act(
            lambda connection: ask_next_judge(connection, judging.token, subtask.id, "it failed"), stay_open=stay_open
        )
        return True

    def _may_go_on(self, judging: Judging, subtask: ToJudge) -> bool:
        return not is_asked(subtask) or subtask.id in judging.charged

    def _charge(self, judging: Judging, subtasks: Sequence[ToJudge]) -> None:
        entering = [s.id for s in subtasks if is_asked(s) and s.id not in judging.charged]
        if entering:
            self._world.act(
                lambda connection: lease.charge(connection, Leased.SUBTASK, judging.token, entering),
                judging.charged.update,
            )

    def _verdict(self, subtask: ToJudge, number: int) -> VerdictRow:
        if len(subtask.candidates) == 1:
            return only_candidate(subtask)
        if subtask.attempt >= subtask.max_attempts:
            return fallback(subtask, subtask.attempt, "lost each time", 0.0)
        turned = number % len(subtask.candidates)
        ranked = [c.id for c in (*subtask.candidates[turned:], *subtask.candidates[:turned])]
        return VerdictRow(
            subtask_id=subtask.id, winner_id=ranked[0], ranking=ranked, scores={ranked[0]: 1.0}, reason="because",
            method="scripted", judge=subtask.judge, seconds=0.0,
        )  # fmt: skip

    def fail(self, judging: Judging, number: int, *, charged: bool, stay_open: bool = False) -> None:
        """The judge fails on one of them: it is noted, then the subtask waits, is the next judge's, or falls back."""
        subtask = judging.subtasks[number % len(judging.subtasks)]
        if subtask.id not in judging.charged and not self._enters(judging, subtask):
            return
        breaker = self._world.settings.breaker
        self._world.act(lambda connection: note_failure(connection, Guarded.JUDGE, subtask.judge, "no", breaker))
        if charged and self._goes_on(judging, subtask, subtask.attempt + 1, stay_open=stay_open):
            return
        if charged and subtask.attempt + 1 >= subtask.max_attempts:
            row = fallback(subtask, subtask.attempt + 1, "it failed", 0.0)
            self._world.act(lambda connection: self._store(connection, judging, row), stay_open=stay_open)
            return
        self._world.act(
            lambda connection: verdicts.judge_failed(
                connection, judging.token, [subtask.id], "no", 2.0, charged=charged
            ),
            stay_open=stay_open,
        )

    def finish(self, call: tuple[UUID, list[UUID]]) -> None:
        """A healthy judge judges everything of a message."""
        before = len(self._world.judging)
        self.take(call)
        for judging in self._world.judging[before:]:
            for number in range(len(judging.subtasks)):
                self.decide(judging, number)


class Schedulers:
    """Two of them or more: no statement of theirs knows which."""

    def __init__(self, world: World) -> None:
        self._world = world
        settings = world.settings
        self.rules: dict[str, Statement] = {
            "expire leases": self._expire_leases,
            "expire judging": self._expire_judging,
            "expire pending": endings.expire_pending,
            "expire subtasks": lambda connection: subtasks.expire_subtasks(connection, settings.deadline_grace),
            "unblock": subtasks.unblock,
            "skip unreachable": subtasks.skip_unreachable,
            "back-fill": lambda connection: back_fill(connection, settings),
            "rebind": lambda connection: rebind(connection, settings),
            "end strays": subtasks.end_stray_candidates,
            "finish tasks": lambda connection: endings.finish_tasks(
                connection, endings.unfinished_business(connection)
            ),
            "find lost": self._find_lost,
            "prune": lambda connection: prune.delete_finished(connection, 0, 2),
        }

    def run(self, rule: str, *, stay_open: bool = False) -> None:
        """One rule of the reconciler."""
        alone = not self._world.opened and not stay_open

        def learn(_: Any) -> None:
            if rule == "end strays" and alone:
                self._world.raced = False

        self._world.act(self.rules[rule], learn, stay_open=stay_open)

    def _expire_leases(self, connection: Connection) -> None:
        self._note_lost(connection, Guarded.MODEL, candidates.expire_leases(connection))

    def _expire_judging(self, connection: Connection) -> None:
        self._note_lost(connection, Guarded.JUDGE, verdicts.expire_judging(connection))

    def _note_lost(self, connection: Connection, guarded: Guarded, lost: dict[str, int]) -> None:
        for name, calls in sorted(lost.items()):
            if calls:
                note_failure(connection, guarded, name, "lost", self._world.settings.breaker, calls=calls)

    def _find_lost(self, connection: Connection) -> None:
        queues = self._world.settings.registry.queues
        empty = [name for name, queue in queues.items() if not self._world.broker.queue_lengths([queue])[queue]]
        candidates.unsend(connection, flight.lost_messages(connection, empty, 5.0), 2.0)

    def send_waiting(self, model: str, limit: int, *, stay_open: bool = False) -> None:
        def learn(message: candidates.Message | None) -> None:
            if message is not None:
                self._world.broker.post(message, in_chord=False)

        self._world.act(
            lambda connection: candidates.send_waiting(connection, model, limit), learn, stay_open=stay_open
        )

    def send_judging(self, *, queue_empty: bool, probing: bool, stay_open: bool = False) -> None:
        """One judge message of its own; `probing` where a suspended judge is due for a try."""
        breaker = self._world.settings.breaker

        patience = verdicts.Patience(grace=5.0, lost_after=5.0, queue_empty=queue_empty)

        def statement(connection: Connection) -> verdicts.JudgeMessage | None:
            for judge in due_probes(connection, Guarded.JUDGE) if probing else ():
                message = verdicts.send_judge_probe(connection, patience, judge)
                if message is not None:
                    start_probe(connection, Guarded.JUDGE, judge, breaker)
                    return message
            return verdicts.send_judging(connection, patience, 3)

        def learn(message: verdicts.JudgeMessage | None) -> None:
            if message is not None:
                self._world.broker.send_judging(message)

        self._world.act(statement, learn, stay_open=stay_open)

    def look(self) -> None:
        """One look of the real scheduler, rule by rule; one that meets a lock fails, the next ones run."""
        world = self._world
        publisher: Publisher = world.broker  # type: ignore[assignment]
        reconciler = Reconciler(world.settings, world.engine, publisher)
        dispatcher = Dispatcher(world.settings, world.engine, publisher)
        steps: tuple[Callable[[], Any], ...] = (
            reconciler.reconcile,
            lambda: dispatcher.send_waiting(dispatcher.look()),
            lambda: dispatcher.dispatch(dispatcher.look()),
        )
        for step in steps:
            world.attempt(step)
