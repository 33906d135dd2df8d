"""Databases with a past: so many finished tasks, and so many open ones, made inside Postgres in a few statements.

A finished task has a subtask, three candidates and a verdict: six rows, some 4 kB. Requests have 200 characters,
outputs 400. Each table is filled in a transaction that begins with an empty file: with `wal_level = minimal` Postgres
writes no log for it. Its indexes are built at the end.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.scale.registry import WAVE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SOURCES = 20  # the first has most of the backlog
DAYS = 30  # over which the finished tasks are spread; the last one finished an hour ago

#: Ids and moments of every row, so that tables can be filled independently of each other.
_PLAN: LiteralString = """
CREATE UNLOGGED TABLE scale_plan AS
SELECT n, at, uuidv7(at - now()) AS task, uuidv7(at - now()) AS subtask, uuidv7(at - now()) AS first,
       uuidv7(at - now()) AS second, uuidv7(at - now()) AS third
FROM (SELECT n, now() - interval '1 hour' - (%(rows)s - n) * (make_interval(days => %(days)s) / %(rows)s) AS at
      FROM generate_series(1, %(rows)s) AS n) AS moments
"""

_TASK: LiteralString = """
INSERT INTO task (id, created_at, request, source, status, answer, artifacts, winners, confidence, fallback,
                  finished_at, finished_xid)
SELECT task, at, left(repeat(md5(n::text), 7), 200), 'source ' || n % 20, 'done',
       left(repeat(md5(n::text), 13), 400), '[]',
       jsonb_build_object('text-generation', jsonb_build_object(
           'capability', 'text-generation', 'model', 'alpha', 'candidate_id', first)),
       0.9, false, at + interval '2 s', pg_current_xact_id()
FROM scale_plan
"""

_SUBTASK: LiteralString = """
INSERT INTO subtask (id, created_at, task_id, position, name, capability, inputs, options, source, priority,
                     candidates_wanted, judge, status, finished_at, attempt, message_id)
SELECT subtask, at + interval '0.1 s', task, 0, 'text-generation', 'text-generation', '[{"request": true}]',
       '{"params": {}, "models": []}', 'source ' || n % 20, 0, 3, 'longest', 'done', at + interval '2 s', 1, first
FROM scale_plan
"""

_CANDIDATE: LiteralString = """
INSERT INTO candidate (id, created_at, subtask_id, model, rank, proposed_by, sends, in_chord, status, output, detail,
                       usage, seconds, revision, finished_at, attempt, sent_at, message_id)
SELECT c.id, at + interval '0.2 s', subtask, c.model, c.rank,
       jsonb_build_array(jsonb_build_object('selector', 'priority', 'rank', c.rank)), 1, true, 'done',
       left(repeat(md5(n::text), 13), 400), '{}', '{"output_chars": 400}', 0.4, '', at + interval '1 s', 1,
       at + interval '0.2 s', task
FROM scale_plan CROSS JOIN LATERAL (
    VALUES (first, 'alpha', 0), (second, 'beta', 1), (third, 'gamma', 2)) AS c (id, model, rank)
"""

_VERDICT: LiteralString = """
INSERT INTO verdict (created_at, subtask_id, winner_id, ranking, scores, reason, method, judge, prompt_version,
                     confidence, seconds)
SELECT at + interval '2 s', subtask, first, jsonb_build_array(first, second, third),
       jsonb_build_object(first, 3.0, second, 2.0, third, 1.0),
       'alpha answers the request; beta leaves out the second half of it, gamma says what nobody asked for.',
       'choice', 'longest', '1', 0.9, 0.3
FROM scale_plan
"""

_FILL_FACTOR: LiteralString = """
SELECT option_value FROM pg_class, pg_options_to_table(reloptions)
WHERE oid = %s::regclass AND option_name = 'fillfactor'
"""

#: Two lots of about the same size, for two cores.
_LOTS: tuple[tuple[tuple[str, LiteralString], ...], ...] = (
    (("candidate", _CANDIDATE),),
    (("task", _TASK), ("subtask", _SUBTASK), ("verdict", _VERDICT)),
)


def fill(dsn: str, rows: int) -> None:
    """Fill a migrated, empty database with finished tasks."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_PLAN, {"rows": rows, "days": DAYS})
        connection.execute("ANALYZE scale_plan")
    for step in (_fill_table, _tidy_table):  # tidied where nobody's transaction holds back a vacuum any more
        with ThreadPoolExecutor(len(_LOTS)) as pool:
            for done in [pool.submit(_each, step, dsn, lot) for lot in _LOTS]:
                done.result()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE scale_plan")


def _each(
    step: Callable[[str, str, LiteralString], None], dsn: str, tables: Sequence[tuple[str, LiteralString]]
) -> None:
    for table, rows in tables:
        step(dsn, table, rows)


def _fill_table(dsn: str, table: str, rows: LiteralString) -> None:
    name, order = Identifier(table), Identifier(f"pk_{table}")
    with psycopg.connect(dsn, autocommit=True) as connection, connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # no foreign key is checked row by row
        connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
        (fill_factor,) = connection.execute(_FILL_FACTOR, (table,)).fetchone() or ("100",)
        # Updates fill what inserts leave free, so the pages of finished rows are full.
        connection.execute(SQL("ALTER TABLE {} SET (fillfactor = 100)").format(name))
        # A new, empty file: what fills it within this transaction needs no log.
        connection.execute(SQL("CLUSTER {} USING {}").format(name, order))
        # What `REINDEX` mends: an index that is not ready gets no entries.
        connection.execute("UPDATE pg_index SET indisready = false WHERE indrelid = %s::regclass", (table,))
        connection.execute(rows)
        connection.execute(SQL("REINDEX TABLE {}").format(name))
        connection.execute(SQL("ALTER TABLE {} SET (fillfactor = {})").format(name, int(fill_factor)))


def _tidy_table(dsn: str, table: str, _: LiteralString) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SQL("VACUUM (FREEZE, ANALYZE) {}").format(Identifier(table)))


# --- what is open

#: A backlog: four fifths of it of one source.
_PENDING: LiteralString = """
INSERT INTO task (request, source)
SELECT left(repeat(md5(n::text), 7), 200), 'source ' || CASE WHEN n %% 5 = 0 THEN n %% 20 ELSE 0 END
FROM generate_series(1, %(rows)s) AS n
"""

_READY: LiteralString = """
WITH planned AS (
    INSERT INTO subtask (task_id, position, name, capability, inputs, options, source, priority, candidates_wanted,
                         judge, status)
    SELECT id, 0, 'text-generation', 'text-generation', '[{"request": true}]', '{"params": {}, "models": []}', source,
           priority, 3, 'longest', 'ready'
    FROM task WHERE status = 'pending' ORDER BY id
    RETURNING task_id
)
UPDATE task SET status = 'running' WHERE id IN (SELECT task_id FROM planned)
"""

#: Half of the messages are being worked on, half wait.
_RUNNING: LiteralString = """
WITH waves AS (
    SELECT id, (row_number() OVER (ORDER BY id) - 1) / %(wave)s AS wave FROM subtask WHERE status = 'ready'
), messages AS MATERIALIZED (
    SELECT wave, m.model, m.rank, gen_random_uuid() AS id, wave %% 2 = 0 AS runs
    FROM (SELECT DISTINCT wave FROM waves) AS w
    CROSS JOIN (VALUES ('alpha', 0), ('beta', 1), ('gamma', 2)) AS m (model, rank)
), sent AS (
    INSERT INTO candidate (subtask_id, model, rank, max_attempts, sends, in_chord, status, message_id, sent_at, token,
                           lease_until, attempt)
    SELECT w.id, m.model, m.rank, 3, 1, true, CASE WHEN m.runs THEN 'running' ELSE 'sent' END, m.id, now(),
           CASE WHEN m.runs THEN m.id END, CASE WHEN m.runs THEN now() + interval '1 hour' END, m.runs::int
    FROM waves AS w JOIN messages AS m ON m.wave = w.wave
)
UPDATE subtask SET status = 'running' WHERE id IN (SELECT id FROM waves)
"""

#: Everything that was sent is answered and judged, as workers and judges would leave it.
_FINISHED: LiteralString = """
WITH sent AS (
    SELECT id, task_id FROM subtask WHERE status = 'running'
), answered AS (
    UPDATE candidate AS c SET status = 'done', output = left(repeat(md5(c.id::text), 13), 400), detail = '{}',
           usage = '{}', seconds = 0.4, revision = '', token = NULL, lease_until = NULL, finished_at = now()
    WHERE c.subtask_id IN (SELECT id FROM sent) AND c.finished_at IS NULL
    RETURNING c.id, c.subtask_id, c.rank
), judged AS (
    INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, confidence, seconds)
    SELECT subtask_id, id, jsonb_build_array(id), '{}', 'It is the best.', 'choice', 'longest', 0.9, 0.3
    FROM answered WHERE rank = 0
), ended AS (
    UPDATE subtask SET status = 'done', finished_at = now() WHERE id IN (SELECT id FROM sent)
)
UPDATE task SET status = 'done', answer = left(repeat(md5(id::text), 13), 400), winners = '{}', artifacts = '[]',
       confidence = 0.9, fallback = false, finished_at = now(), finished_xid = pg_current_xact_id()
WHERE id IN (SELECT task_id FROM sent)
"""


def add_backlog(connection: psycopg.Connection, rows: int) -> None:
    """Store tasks that nobody has looked at."""
    connection.execute(_PENDING, {"rows": rows})


def plan_backlog(connection: psycopg.Connection) -> None:
    """Every pending task has a ready subtask."""
    connection.execute(_READY)


def send_backlog(connection: psycopg.Connection) -> None:
    """Every ready subtask runs, its candidates in messages of a wave."""
    connection.execute(_RUNNING, {"wave": WAVE})


def finish_running(connection: psycopg.Connection) -> None:
    """Every running subtask is answered and judged, its task done."""
    connection.execute(_FINISHED)


def note_sizes(connection: psycopg.Connection) -> None:
    """What autovacuum would do within a minute: the planner learns what the tables hold now."""
    connection.execute("ANALYZE task, subtask, candidate")
