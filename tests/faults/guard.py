"""A witness inside the test's database: it writes down every change of a final row and every call of a model.

Triggers of the test's own; the product knows nothing of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from tests.faults.cluster import Cluster

#: Columns of a final row that may still change: none of them is part of a result.
HARMLESS = ("needs_review",)

_WITNESS = f"""
CREATE TABLE fault_violation (
    at timestamptz NOT NULL DEFAULT clock_timestamp(), kind text NOT NULL, row_id uuid NOT NULL, before jsonb,
    after jsonb);
CREATE TABLE fault_call (
    at timestamptz NOT NULL DEFAULT clock_timestamp(), kind text NOT NULL, row_id uuid NOT NULL);

CREATE FUNCTION fault_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    harmless CONSTANT text[] := '{{{",".join(HARMLESS)}}}';
    was CONSTANT jsonb := to_jsonb(OLD);
    becomes CONSTANT jsonb := CASE WHEN TG_OP = 'UPDATE' THEN to_jsonb(NEW) END;
BEGIN
    IF becomes IS NULL OR (was - harmless) IS DISTINCT FROM (becomes - harmless) THEN
        INSERT INTO fault_violation (kind, row_id, before, after)
        VALUES (TG_TABLE_NAME || ' ' || lower(TG_OP), OLD.id, was, becomes);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION fault_note_call() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_call (kind, row_id) VALUES (TG_TABLE_NAME, NEW.id);
    RETURN NULL;
END $$;

CREATE TRIGGER fault_call AFTER UPDATE OF attempt ON candidate
    FOR EACH ROW WHEN (NEW.attempt > OLD.attempt) EXECUTE FUNCTION fault_note_call();
CREATE TRIGGER fault_call AFTER UPDATE OF attempt ON subtask
    FOR EACH ROW WHEN (NEW.attempt > OLD.attempt) EXECUTE FUNCTION fault_note_call();
CREATE TRIGGER fault_verdict_change AFTER UPDATE OR DELETE ON verdict
    FOR EACH ROW EXECUTE FUNCTION fault_note_change();
"""

_FINAL_ROWS = """
CREATE TRIGGER fault_final_change AFTER UPDATE OR DELETE ON {table}
    FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION fault_note_change();
"""


def install(cluster: Cluster) -> None:
    """Add the witness to a migrated, empty database."""
    final_rows = "".join(_FINAL_ROWS.format(table=table) for table in ("task", "subtask", "candidate"))
    with psycopg.connect(cluster.database_url, autocommit=True) as connection:
        connection.execute(_WITNESS + final_rows)


def violations(cluster: Cluster) -> list[Any]:
    """Every change of a final row since the last time somebody asked."""
    return cluster.query("DELETE FROM fault_violation RETURNING at, kind, row_id, before, after")


def repeated_calls(cluster: Cluster, source: str) -> int:
    """Model calls beyond the first one of each candidate."""
    return int(
        cluster.query(
            """
            SELECT count(*) - count(DISTINCT c.id) AS n
            FROM fault_call AS f JOIN candidate AS c ON c.id = f.row_id JOIN subtask AS s ON s.id = c.subtask_id
            WHERE f.kind = 'candidate' AND s.source = :source
            """,
            source=source,
        )[0].n
    )
