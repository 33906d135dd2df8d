"""Every transition of `db/` in any order, by several workers, judges and schedulers at once: what never happens, and
that everything ends.

`BAKEOFF_STATE_EXAMPLES` says how many examples are tried, `BAKEOFF_STATE_STEPS` how long each is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine
from state_machine_checks import check, check_all_is_final
from state_machine_people import RULES, WAYS, Judges, Schedulers, Workers
from state_machine_world import (
    CACHING,
    JUDGES,
    LEASE,
    MODELS,
    REGISTRY,
    REVISION,
    Envelope,
    World,
    world_engine,
)

from db import endings, tasks
from db.breaker import set_model_state
from db.candidates import Choice, Sent, choose_and_send, unsend
from db.lease import Leased
from db.settings import Settings
from db.states import ModelState
from db.subtasks import lock_ready
from db.verdicts import unsend_judging
from db.workers import model_states, remove_worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(7200)]

EXAMPLES = int(os.environ.get("BAKEOFF_STATE_EXAMPLES", "30"))
STEPS = int(os.environ.get("BAKEOFF_STATE_STEPS", "50"))
ROUNDS = 60  # of a healthy system, in which everything must end

OPERATED = (ModelState.ACTIVE, ModelState.PAUSED, ModelState.DRAINING)
MISHAPS = ("redis forgets", "a worker goes", "workers come back")

T = TypeVar("T")

#: Per subtask: positions it needs, candidates, quorum, judges.
Shape = list[tuple[frozenset[int], int, int, tuple[str, ...]]]
shapes = st.lists(
    st.tuples(
        st.frozensets(st.integers(0, 2), max_size=2),
        st.integers(1, 3),
        st.integers(1, 3),
        st.lists(st.sampled_from(JUDGES), min_size=1, unique=True).map(tuple),
    ),
    min_size=1,
    max_size=4,
)
parts = st.sampled_from(["schedulers", "workers", "judges", "time", "schedulers without Redis"])
some_models = st.lists(st.sampled_from(MODELS), min_size=1, max_size=3, unique=True)
outcomes = st.lists(st.sampled_from(["done", "done", "done", "input", "model", "memory"]), min_size=1, max_size=4)
recent = st.integers(0, 7)  # which one: 0 is the latest
staying_open = st.sampled_from([False, False, False, False, True])


def nth(items: Sequence[T], number: int) -> T:
    """The latest but `number`."""
    return items[-1 - number % len(items)]


class Machine(RuleBasedStateMachine):
    """What may happen. `stay_open` leaves a transaction open beside whatever comes next."""

    def __init__(self, engine: Engine, config: Settings) -> None:
        super().__init__()
        self.world = World(engine, config)
        self.workers = Workers(self.world)
        self.judges = Judges(self.world)
        self.schedulers = Schedulers(self.world)

    # Callers

    @initialize(
        shape=shapes,
        count=st.integers(1, 3),
        models=some_models,
        before=st.lists(st.tuples(parts, outcomes), max_size=8),
    )
    def begin(self, shape: Shape, count: int, models: list[str], before: list[tuple[str, list[str]]]) -> None:
        """Work is under way, more or less far."""
        for number in range(count):
            self.submit(key=None, body=f"first {number}", deadline=None, stay_open=False)
        self.plan(shape=shape, limit=count, stay_open=False)
        self.send(models=models, limit=count, stay_open=False)
        for part, said in before:
            self.go_on(part=part, said=said)

    @rule(part=parts, said=outcomes)
    def go_on(self, *, part: str, said: list[str]) -> None:
        """Everybody of a kind does what there is to do, from beginning to end."""
        if part == "schedulers":
            self.schedulers.look()
        elif part == "schedulers without Redis":
            self.world.broker.down = True
            self.schedulers.look()
            self.world.broker.down = False
        elif part == "time":
            self.world.pass_time(7)
        for letter in self.world.broker.waiting():
            if part == "workers" and isinstance(letter, Envelope):
                self.workers.finish(letter, said)
            if part == "judges" and not isinstance(letter, Envelope):
                self.judges.finish(letter)

    @rule(
        key=st.sampled_from([None, None, "k", "l"]),
        body=st.sampled_from("ab"),
        deadline=st.sampled_from([None, None, 20.0, 200.0]),
        stay_open=staying_open,
    )
    def submit(self, *, key: str | None, body: str, deadline: float | None, stay_open: bool) -> None:
        until = datetime.now(UTC) + timedelta(seconds=deadline) if deadline else None
        row = tasks.TaskRow(request=body, source=body, idempotency_key=key, deadline=until)
        self.world.act(
            lambda connection: tasks.insert_task(connection, row, max_backlog=20), self._submitted, stay_open=stay_open
        )

    def _submitted(self, got: tuple[UUID, bool]) -> None:
        task, new = got
        assert new != (task in self.world.tasks), "a key stands for one task, and each task is new once"
        if new:
            self.world.tasks.append(task)

    @precondition(lambda self: self.world.tasks)
    @rule(which=st.lists(recent, min_size=1, max_size=2), again=st.booleans(), stay_open=staying_open)
    def cancel_or_retry(self, *, which: list[int], again: bool, stay_open: bool) -> None:
        chosen = [nth(self.world.tasks, number) for number in which]
        if again:
            self.world.act(
                lambda connection: endings.retry_task(connection, chosen[0]),
                self.world.tasks.append,
                stay_open=stay_open,
            )
        else:
            self.world.act(lambda connection: endings.cancel_tasks(connection, chosen), stay_open=stay_open)

    # Schedulers

    @rule(shape=shapes, limit=st.integers(1, 3), stay_open=staying_open)
    def plan(self, *, shape: Shape, limit: int, stay_open: bool) -> None:
        def statement(connection: Connection) -> None:
            pending = tasks.read_pending(connection, tasks.lock_pending(connection, limit))
            tasks.start_tasks(connection, [row for task in pending for row in subtask_rows(task, shape)])

        self.world.act(statement, stay_open=stay_open)

    @rule(models=some_models, limit=st.integers(1, 3), stay_open=staying_open)
    def send(self, *, models: list[str], limit: int, stay_open: bool) -> None:
        def statement(connection: Connection) -> Any:
            states = model_states(connection, MODELS, lock=True)
            active = [model for model in models if states[model].status == ModelState.ACTIVE]
            return choose_and_send(connection, choices(connection, active, limit)) if active else None

        def learn(sent: Sent | None) -> None:
            for message in sent.messages if sent else ():
                self.world.broker.post(message, in_chord=True)
            if sent and sent.messages:
                subtasks = {subtask for message in sent.messages for subtask in message.subtask_ids}
                self.world.broker.calls.append((uuid4(), sorted(subtasks)))

        self.world.act(statement, learn, stay_open=stay_open)

    @rule(model=st.sampled_from(MODELS), limit=st.integers(1, 3), stay_open=staying_open)
    def send_waiting(self, *, model: str, limit: int, stay_open: bool) -> None:
        self.schedulers.send_waiting(model, limit, stay_open=stay_open)

    @rule(name=st.sampled_from(RULES), stay_open=staying_open)
    def reconcile(self, *, name: str, stay_open: bool) -> None:
        self.schedulers.run(name, stay_open=stay_open)

    @rule(empty=st.booleans(), probing=st.booleans(), stay_open=staying_open)
    def send_judging(self, *, empty: bool, probing: bool, stay_open: bool) -> None:
        self.schedulers.send_judging(queue_empty=empty, probing=probing, stay_open=stay_open)

    @precondition(lambda self: self.world.broker.history and self.world.broker.calls)
    @rule(which=recent, judging=st.booleans(), stay_open=staying_open)
    def take_back(self, *, which: int, judging: bool, stay_open: bool) -> None:
        """A message could not be published, or so it seemed."""
        if judging:
            call, _ = nth(self.world.broker.calls, which)
            self.world.act(lambda connection: unsend_judging(connection, call), stay_open=stay_open)
        else:
            message = nth(self.world.broker.history, which).message.id
            self.world.act(lambda connection: unsend(connection, [message]), stay_open=stay_open)

    # Workers

    @precondition(lambda self: self.world.broker.history)
    @rule(which=recent, all_enter=st.booleans(), stay_open=staying_open)
    def deliver(self, *, which: int, all_enter: bool, stay_open: bool) -> None:
        self.workers.take(nth(self.world.broker.history, which), all_enter=all_enter, stay_open=stay_open)

    @precondition(lambda self: self.world.held)
    @rule(which=recent, most=st.integers(1, 3), stay_open=staying_open)
    def charge(self, *, which: int, most: int, stay_open: bool) -> None:
        self.workers.charge(nth(self.world.held, which), most, stay_open=stay_open)

    @precondition(lambda self: any(held.charged for held in self.world.held))
    @rule(which=recent, outcomes=outcomes, stay_open=staying_open)
    def store(self, *, which: int, outcomes: list[str], stay_open: bool) -> None:
        charged = [held for held in self.world.held if held.charged]
        self.workers.store(nth(charged, which), outcomes, stay_open=stay_open)

    @precondition(lambda self: self.world.held)
    @rule(which=recent, way=st.sampled_from(WAYS), stay_open=staying_open)
    def let_go(self, *, which: int, way: str, stay_open: bool) -> None:
        self.workers.let_go(nth(self.world.held, which), Leased.CANDIDATE, way, stay_open=stay_open)

    @precondition(lambda self: self.world.held)
    @rule(which=recent, stay_open=staying_open)
    def look_up(self, *, which: int, stay_open: bool) -> None:
        self.workers.look_up(nth(self.world.held, which), stay_open=stay_open)

    # Judges

    @precondition(lambda self: self.world.broker.calls)
    @rule(which=recent, stay_open=staying_open)
    def deliver_to_judge(self, *, which: int, stay_open: bool) -> None:
        self.judges.take(nth(self.world.broker.calls, which), stay_open=stay_open)

    @precondition(lambda self: self.world.judging)
    @rule(which=recent, number=recent, stay_open=staying_open)
    def decide(self, *, which: int, number: int, stay_open: bool) -> None:
        self.judges.decide(nth(self.world.judging, which), number, stay_open=stay_open)

    @precondition(lambda self: self.world.judging)
    @rule(which=recent, number=recent, stay_open=staying_open)
    def decide_all(self, *, which: int, number: int, stay_open: bool) -> None:
        self.judges.decide_all(nth(self.world.judging, which), number, stay_open=stay_open)

    @precondition(lambda self: self.world.judging)
    @rule(which=recent, number=recent, way=st.sampled_from(["fails", "cannot be had", *WAYS]), stay_open=staying_open)
    def judge_does_not_decide(self, *, which: int, number: int, way: str, stay_open: bool) -> None:
        judging = nth(self.world.judging, which)
        if way in WAYS:
            self.workers.let_go(judging, Leased.SUBTASK, way, stay_open=stay_open)
        else:
            self.judges.fail(judging, number, charged=way == "fails", stay_open=stay_open)

    # Everything else

    @precondition(lambda self: self.world.opened)
    @rule(which=recent, commit=st.sampled_from([True, True, False]))
    def end(self, *, which: int, commit: bool) -> None:
        self.world.end(nth(self.world.opened, which), commit=commit)

    @rule(seconds=st.sampled_from([1.0, 7.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(model=st.sampled_from(MODELS), what=st.sampled_from([*OPERATED, *MISHAPS]), stay_open=staying_open)
    def disturb(self, *, model: str, what: str, stay_open: bool) -> None:
        """An operator does something, or a machine does."""
        if what == "redis forgets":
            self.world.broker.wipe()
        elif what == "workers come back":
            self.world.start_workers()
        elif what == "a worker goes":
            self.world.act(lambda connection: remove_worker(connection, model, 1))
        else:
            state = ModelState(what)
            self.world.act(lambda connection: set_model_state(connection, model, state, "why"), stay_open=stay_open)

    @invariant()
    def nothing_is_wrong(self) -> None:
        check(self.world)

    def teardown(self) -> None:
        """Whatever happened: a healthy system brings everything to an end."""
        for opened in sorted(self.world.opened, key=lambda opened: not opened.result.done()):
            if opened in self.world.opened:
                self.world.end(opened, commit=False)
        self._make_healthy()
        for _ in range(ROUNDS):
            self._healthy_round()
            if not check(self.world).unfinished():
                break
        check_all_is_final(check(self.world))

    def _make_healthy(self) -> None:
        self.world.broker.down = False
        self.world.start_workers()
        with self.world.engine.begin() as connection:
            for name, row in model_states(connection, MODELS).items():
                if row.status != ModelState.SUSPENDED:  # that one must recover by itself
                    set_model_state(connection, name, ModelState.ACTIVE)

    def _healthy_round(self) -> None:
        self.world.pass_time(70)
        self.plan(shape=[(frozenset(), 2, 1, JUDGES[0])], limit=100, stay_open=False)
        for part in ("schedulers", "workers", "judges"):
            self.go_on(part=part, said=["done"])


def subtask_rows(task: tasks.PendingTask, shape: Shape) -> list[tasks.SubtaskRow]:
    """A plan of this shape; a subtask needs earlier ones only."""
    return [
        tasks.SubtaskRow(
            task_id=task.id, position=position, name=f"step {position}", capability="text-generation",
            inputs=[{"request": True}], options={}, source=task.source, priority=task.priority,
            candidates_wanted=wanted, quorum=quorum, judge=judges[0], next_judges=judges[1:], deadline=task.deadline,
            needs=tuple(f"step {need}" for need in sorted(needs) if need < position),
            input_key=None if position else task.request.encode(),
        )
        for position, (needs, wanted, quorum, judges) in enumerate(shape)
    ]  # fmt: skip


def choices(connection: Connection, models: list[str], limit: int) -> list[Choice]:
    """The models for each of the next ready subtasks, a message per model."""
    messages = {model: uuid4() for model in models}
    return [
        Choice(subtask_id=subtask.id, model=model, rank=rank, proposed_by=[], max_attempts=2 + rank % 2,
               message_id=messages[model], input_key=subtask.input_key if model in CACHING else None,
               revision=REVISION)
        for subtask in lock_ready(connection, limit, ["text-generation"])
        for rank, model in enumerate(models)
    ]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    """Settings of a system with five models and two judges, whose breakers open soon."""
    models_file = tmp_path / "models.toml"
    models_file.write_text(REGISTRY)
    return Settings(models_file=models_file, profile="demo", settle_seconds=0, bind_wait=30, breaker_failures=3,
                    worker_timeout=86_400, lease_seconds=LEASE)  # fmt: skip


def test_whatever_happens_in_whatever_order_nothing_is_decided_twice_and_everything_ends(
    database: Engine, config: Settings
) -> None:
    engine = world_engine(database.url.render_as_string(hide_password=False))
    try:
        run_state_machine_as_test(
            lambda: Machine(engine, config),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize="BAKEOFF_STATE_EXAMPLES" not in os.environ,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        engine.dispose()
