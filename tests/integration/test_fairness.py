"""A flood of one source delays no other, fills no Redis, and is refused only where its clients can hear it.

One installation serves every test: source `flood` has 5,000 tasks, far more than are done while the tests run. Each
test adds tasks of its own sources and reads from the rows in which order they were sent.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from db.errors import BacklogFull
from db.settings import Settings
from scheduler.submit import NewTask, submit
from tests.conftest import Installation, make_installation, wait_until

pytestmark = pytest.mark.integration

FLOOD = 5_000
SECONDS = 0.02  # of each model per input: some 50 tasks per second, so that the judge is never behind
WAVE, WINDOW, JUDGE_WINDOW = 8, 2, 4

#: Waves that may lie between a commit and its own verdict: what the windows hold and, since a scheduler may be in the
#: middle of a look, hold once more; what waits for the judge and is with it; and the wave that carries the task.
WAVES_AHEAD = 2 * WINDOW + JUDGE_WINDOW + 1 + 1
#: Messages of waves in Redis: those that wait for models, and those that wait for the judge.
MOST_MESSAGES = 3 * WINDOW + JUDGE_WINDOW + WINDOW

REGISTRY = """
[profiles.demo]
models = ["alpha", "beta", "gamma"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"
""" + "".join(
    f"""
[models.{name}]
capability = "text-generation"
backend = "scripted"
max_batch = {WAVE}
window = {WINDOW}
params = {{ rules = [{{ match = "", sleep = {SECONDS} }}] }}
"""
    for name in ("alpha", "beta", "gamma")
)


@pytest.fixture(scope="module")
def flooded(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Everything runs, and one source has stored thousands of tasks in one statement."""
    for made in make_installation(servers, tmp_path_factory.mktemp("flooded"), template):
        start_flooded(made)
        yield made


def start_flooded(installation: Installation) -> None:
    installation.models_file.write_text(REGISTRY)
    installation.settings.update(
        BAKEOFF_WAVE_SIZE=str(WAVE), BAKEOFF_JUDGE_WINDOW=str(JUDGE_WINDOW), BAKEOFF_SETTLE_SECONDS="60"
    )
    installation.start_all(("alpha", "beta", "gamma"))
    enqueue(installation, flood=FLOOD)
    wait_until(lambda: finished(installation, "flood") > 2 * WAVE, 30, installation.logs)


def enqueue(installation: Installation, priority: int = 0, **sizes: int) -> None:
    """Store so many tasks of each source, all in one statement."""
    installation.query(
        """
        INSERT INTO task (request, source, priority)
        SELECT s.source || ' ' || n, s.source, :priority
        FROM unnest(CAST(:sources AS text[]), CAST(:sizes AS int[])) AS s (source, size), generate_series(1, s.size) AS n
        """,
        priority=priority,
        sources=list(sizes),
        sizes=list(sizes.values()),
    )


def finished(installation: Installation, source: str) -> int:
    rows = installation.query(
        "SELECT count(*) AS n FROM task WHERE source = :source AND finished_at IS NOT NULL", source=source
    )
    return int(rows[0].n)


def sent(installation: Installation, *sources: str) -> list[Any]:
    """Source, priority and moment of each subtask that was sent, in the order in which they were."""
    return installation.query(
        """
        SELECT s.source, s.priority, min(c.created_at) AS at
        FROM subtask AS s JOIN candidate AS c ON c.subtask_id = s.id
        WHERE s.source = ANY(CAST(:sources AS text[])) GROUP BY s.id ORDER BY at, s.priority DESC, s.source
        """,
        sources=list(sources),
    )


def test_a_single_task_overtakes_a_flood(flooded: Installation) -> None:
    enqueue(flooded, newcomer=1)

    wait_until(lambda: finished(flooded, "newcomer") == 1, 30, flooded.logs)

    overtaken_by = flooded.query(
        """
        SELECT count(*) AS n FROM task AS t, task AS newcomer
        WHERE newcomer.source = 'newcomer' AND t.source = 'flood'
          AND t.finished_at BETWEEN newcomer.created_at AND newcomer.finished_at
        """
    )[0].n
    assert overtaken_by <= WAVES_AHEAD * WAVE
    assert finished(flooded, "flood") < FLOOD / 2, "there was no backlog to overtake"


def test_redis_holds_a_window_whatever_the_backlog(flooded: Installation) -> None:
    client = redis.Redis.from_url(flooded.redis_url)
    before, most_messages = used_memory(client), 0
    largest = before
    began, done_before = time.monotonic(), finished(flooded, "flood")

    while time.monotonic() < began + 6:
        largest = max(largest, used_memory(client))
        most_messages = max(most_messages, waiting_messages(client))
        time.sleep(0.02)

    assert finished(flooded, "flood") > done_before + 10 * WAVE, "the flood did not flow"
    assert largest - before < 2_000_000
    assert 0 < most_messages <= MOST_MESSAGES


def used_memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def waiting_messages(client: redis.Redis) -> int:
    """Elements of all lists: Celery's queues are the only ones."""
    return sum(int(client.llen(key)) for key in client.scan_iter(_type="list"))


def test_priority_beats_fair_share(flooded: Installation) -> None:
    enqueue(flooded, flood=3 * WAVE, priority=5)  # of the source that has most in flight
    enqueue(flooded, patient=3 * WAVE)

    wait_until(lambda: finished(flooded, "patient") == 3 * WAVE, 40, flooded.logs)

    urgent = [row.at for row in sent(flooded, "flood") if row.priority == 5]
    patient = [row.at for row in sent(flooded, "patient")]
    assert len(urgent) == 3 * WAVE
    assert max(urgent) <= min(patient)


def test_sources_of_different_size_get_equal_turns(flooded: Installation) -> None:
    enqueue(flooded, large=200, medium=80, small=30)

    wait_until(lambda: finished(flooded, "small") == 30, 40, flooded.logs)

    order = [row.source for row in sent(flooded, "large", "medium", "small")]
    turns = Counter(order[: 3 * 24])
    assert all(abs(count - 24) <= WAVE for count in turns.values()), turns
    assert sorted(turns) == ["large", "medium", "small"]


def test_a_full_backlog_refuses_its_own_source_only(flooded: Installation) -> None:
    settings = Settings(
        database_url=SecretStr(flooded.database_url),
        redis_url=SecretStr(flooded.redis_url),
        models_file=flooded.models_file,
        home=flooded.folder / "home",
        max_backlog=100,
    )

    with pytest.raises(BacklogFull) as refusal:
        submit(settings, NewTask(request="one more", source="flood"))
    assert refusal.value.retry_after >= 1
    assert refusal.value.limit == 100

    accepted = submit(settings, NewTask(request="the first", source="somebody else"))
    assert flooded.query("SELECT source FROM task WHERE id = :id", id=accepted)[0].source == "somebody else"

    stored = len(flooded.query("SELECT FROM task WHERE source = 'flood'"))
    enqueue(flooded, flood=1)
    assert len(flooded.query("SELECT FROM task WHERE source = 'flood'")) == stored + 1
