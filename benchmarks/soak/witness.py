"""A witness in the soak's own database: every change of a final row, and every call of a model or judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from scheduler.local.cluster import Cluster

_WITNESS = """
CREATE TABLE soak_change (
    at timestamptz NOT NULL DEFAULT clock_timestamp(), kind text NOT NULL, row_id uuid NOT NULL, before jsonb,
    after jsonb);
CREATE TABLE soak_call (
    at timestamptz NOT NULL DEFAULT clock_timestamp(), kind text NOT NULL, row_id uuid NOT NULL);

CREATE FUNCTION soak_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was CONSTANT jsonb := to_jsonb(OLD) - 'needs_review';  -- what a person may mark later
    becomes CONSTANT jsonb := CASE WHEN TG_OP = 'UPDATE' THEN to_jsonb(NEW) - 'needs_review' END;
BEGIN
    IF becomes IS NULL OR was IS DISTINCT FROM becomes THEN
        INSERT INTO soak_change (kind, row_id, before, after)
        VALUES (TG_TABLE_NAME || ' ' || lower(TG_OP), OLD.id, was, becomes);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION soak_note_call() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO soak_call (kind, row_id) VALUES (TG_TABLE_NAME, NEW.id);
    RETURN NULL;
END $$;

CREATE TRIGGER soak_call AFTER UPDATE OF attempt ON candidate
    FOR EACH ROW WHEN (NEW.attempt > OLD.attempt) EXECUTE FUNCTION soak_note_call();
CREATE TRIGGER soak_call AFTER UPDATE OF attempt ON subtask
    FOR EACH ROW WHEN (NEW.attempt > OLD.attempt) EXECUTE FUNCTION soak_note_call();
CREATE TRIGGER soak_change AFTER UPDATE OR DELETE ON verdict FOR EACH ROW EXECUTE FUNCTION soak_note_change();
CREATE TRIGGER soak_change AFTER UPDATE OR DELETE ON task
    FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION soak_note_change();
CREATE TRIGGER soak_change AFTER UPDATE OR DELETE ON subtask
    FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION soak_note_change();
CREATE TRIGGER soak_change AFTER UPDATE OR DELETE ON candidate
    FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION soak_note_change();
"""


def install(cluster: Cluster) -> None:
    """Add the witness to the migrated, empty database."""
    with psycopg.connect(cluster.postgres.url, autocommit=True) as connection:
        connection.execute(_WITNESS)


#: One row of figures. A verdict's call is counted for its subtask.
FIGURES = """
SELECT
    (SELECT count(*) FROM soak_change) AS changed,
    (SELECT count(*) FROM soak_call WHERE kind = 'candidate') AS calls,
    (SELECT count(DISTINCT row_id) FROM soak_call WHERE kind = 'candidate') AS called,
    (SELECT coalesce(sum(attempt - 1), 0) FROM candidate WHERE attempt > 1) AS charged_again,
    (SELECT count(*) FROM soak_call WHERE kind = 'subtask') AS judgings,
    (SELECT count(DISTINCT row_id) FROM soak_call WHERE kind = 'subtask') AS judged,
    (SELECT count(*) FROM verdict WHERE fallback) AS fallbacks,
    (SELECT count(*) FROM verdict WHERE method = 'only_candidate') AS unjudged,
    (SELECT count(*) FROM (SELECT FROM task GROUP BY source, idempotency_key HAVING count(*) > 1) AS d) AS stored_twice,
    (SELECT count(*) FROM task WHERE status = 'done' AND position(request IN answer) = 0) AS wrong_answers,
    (SELECT count(*) FROM subtask WHERE status = 'done'
     AND NOT EXISTS (SELECT FROM verdict WHERE subtask_id = subtask.id)) AS without_verdict
"""

STATES = "SELECT status, count(*) AS n FROM task GROUP BY status"

#: (key, is it final) of every task that was stored.
STORED = "SELECT idempotency_key AS key, finished_at IS NOT NULL AS final FROM task"

#: Seconds from commit to finish, and whether all of it lay before the first fault.
WAITS = """
SELECT extract(epoch FROM finished_at - created_at)::double precision AS seconds, finished_at < :first_fault AS calm
FROM task WHERE finished_at IS NOT NULL
"""

#: The longest time in which nothing finished although something was open, after the first fault.
LONGEST_PAUSE = """
WITH ends AS (
    SELECT finished_at, lag(finished_at) OVER (ORDER BY finished_at) AS before FROM task
    WHERE finished_at >= :first_fault
)
SELECT coalesce(max(extract(epoch FROM finished_at - before)), 0)::double precision AS seconds FROM ends
WHERE EXISTS (SELECT FROM task AS t WHERE t.created_at < ends.before AND t.finished_at >= ends.finished_at)
"""

OPEN = """
SELECT t.id, t.source, t.status, s.status AS subtask, s.attempt AS judged, s.not_before AS judge_not_before, s.error,
       c.model, c.status AS candidate, c.attempt, c.isolate, c.in_chord, c.message_id, c.sent_at, c.lease_until,
       c.not_before
FROM task AS t LEFT JOIN subtask AS s ON s.task_id = t.id LEFT JOIN candidate AS c ON c.subtask_id = s.id
WHERE t.finished_at IS NULL ORDER BY t.id, c.rank LIMIT 30
"""

FAILED = """
SELECT id, status, error ->> 'message' AS message FROM task
WHERE finished_at IS NOT NULL AND status <> 'done' LIMIT 20
"""

CHANGES = "SELECT at, kind, row_id, before, after FROM soak_change ORDER BY at LIMIT 20"
