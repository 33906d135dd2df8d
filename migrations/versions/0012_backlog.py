"""the view `backlog`: what waits for whom, for whatever starts and stops workers

A view only: the code of the version before runs beside it.

Revision ID: 0012
Revises: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None

#: A model without workers is never chosen, so its own candidates alone would say that nobody needs it: the ready
#: subtasks that it could take count, too. A paused model is sent nothing, a suspended one a single probe.
BACKLOG = """
CREATE VIEW backlog AS
SELECT m.queue, m.name AS model,
       CASE m.status WHEN 'paused' THEN 0 WHEN 'draining' THEN own.n WHEN 'suspended' THEN own.n + least(ready.n, 1)
                     ELSE own.n + ready.n END AS waiting,
       own.running, least(own.oldest, CASE WHEN m.status IN ('active', 'suspended') THEN ready.oldest END) AS oldest
FROM model AS m
CROSS JOIN LATERAL (
    SELECT count(*) AS n, count(*) FILTER (WHERE c.status = 'running') AS running, min(c.created_at) AS oldest
    FROM (SELECT status, created_at FROM candidate
          WHERE model = m.name AND message_id IS NULL AND finished_at IS NULL
          UNION ALL
          SELECT status, created_at FROM candidate
          WHERE model = m.name AND message_id IS NOT NULL AND finished_at IS NULL) AS c) AS own
CROSS JOIN LATERAL (
    SELECT count(*) AS n, min(s.created_at) AS oldest FROM subtask AS s
    WHERE s.status = 'ready' AND s.capability = m.capability
      AND (coalesce(s.options -> 'models', '[]') = '[]' OR s.options -> 'models' ? m.name)) AS ready
UNION ALL
SELECT 'judge', NULL, count(*), count(*) FILTER (WHERE s.status = 'judging'), min(s.created_at) FROM subtask AS s
WHERE s.status = 'judging'
   OR s.status = 'running' AND NOT EXISTS (
       SELECT FROM candidate AS c WHERE c.subtask_id = s.id AND c.finished_at IS NULL)
UNION ALL
SELECT r.queue, NULL, count(t.id), count(t.token), min(t.created_at)
FROM (VALUES ('planner', 'planning'), ('integrator', 'integrating')) AS r (queue, status)
LEFT JOIN task AS t ON t.status = r.status AND t.status IN ('planning', 'integrating') AND NOT t.planned
GROUP BY r.queue
"""


def upgrade() -> None:
    op.execute(BACKLOG)


def downgrade() -> None:
    op.execute("DROP VIEW backlog")
