"""Figures: what each counts, that it is documented, and that alerts and the dashboard name figures that exist."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import promql_parser
import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import Engine, event, text

from db.engine import transaction
from db.figures import judge_agreement, judge_backlog, message_sizes, oldest_open, open_deliveries, thinking_backlogs
from db.prune import delete_finished
from db.settings import Settings
from db.tally import count_ended, counts
from db.watching import end_of_row
from scheduler.api.metrics import Figures
from scheduler.api.services import Services
from scheduler.api.traffic import FOLDER, Traffic, route_of, shared_figures
from tests.conftest import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OURS = re.compile(r"bakeoff_\w+")
SAMPLES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}

FILL = """
INSERT INTO model (name, capability, backend, source, queue)
    SELECT m, 'text-generation', 'scripted', '', 'model.' || m FROM unnest(ARRAY['alpha', 'beta']) AS m
    ON CONFLICT DO NOTHING;
"""
TASK = """
WITH t AS (
    INSERT INTO task (request, capability, status, answer, finished_at, finished_xid)
    SELECT 'x', 'text-generation', CAST(:status AS text), CASE WHEN :status = 'done' THEN 'a' END,
           CASE WHEN :status = 'done' THEN now() END, CASE WHEN :status = 'done' THEN pg_current_xact_id() END
    FROM generate_series(1, :n) RETURNING id
), s AS (
    INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, judge,
                         status, finished_at)
    SELECT id, 0, 'main', 'text-generation', '[{"request": true}]', 'sql', 0, 2, 'longest', CAST(:status AS text),
           CASE WHEN :status = 'done' THEN now() END FROM t RETURNING id
), c AS (
    INSERT INTO candidate (subtask_id, model, rank, status, output, seconds, message_id, finished_at)
    SELECT s.id, m.name, 0, 'done', 'x', 0.5, CAST(m.message AS uuid), now()
    FROM s, (VALUES ('alpha', '00000000-0000-0000-0000-00000000000a'),
                    ('beta', '00000000-0000-0000-0000-00000000000b')) AS m (name, message)
    RETURNING id, subtask_id, model
)
INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, seconds)
SELECT subtask_id, id, '[]', '{}', 'r', 'scripted', 'longest', 0.1 FROM c WHERE model = 'beta' AND :status = 'done'
"""


def fill(engine: Engine, n: int, status: str = "done") -> None:
    with transaction(engine) as connection:
        connection.execute(text(FILL))
        connection.execute(text(TASK), {"n": n, "status": status})
        own = connection.execute(text("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")).scalar_one()

    def is_alone() -> bool:
        with transaction(engine) as connection:
            return end_of_row(connection).xid > int(own)

    wait_until(is_alone)  # an autovacuum that began before would hold the count back


def counted(engine: Engine) -> dict[tuple[str, str, str], float]:
    with transaction(engine) as connection:
        while count_ended(connection, 3) == 3:
            pass
    with transaction(engine) as connection:
        return {(one.name, one.label, one.kind): one.value for one in counts(connection)}


def test_what_ended_is_counted_once_whatever_is_deleted(database: Engine) -> None:
    fill(database, 7)

    first = counted(database)
    again = counted(database)
    with transaction(database) as connection:
        assert delete_finished(connection, -1, 100) == 7
    fill(database, 2)
    last = counted(database)

    assert first == again
    assert first["tasks", "done", ""] == 7
    assert (first["candidates", "alpha", "done"], first["compared", "alpha", ""]) == (7, 7)
    assert ("wins", "alpha", "") not in first
    assert (first["wins", "beta", ""], first["seconds", "beta", ""]) == (7, 3.5)
    assert first["verdicts", "longest", "judged"] == 7
    assert (last["tasks", "done", ""], last["wins", "beta", ""]) == (9, 9)


def test_what_is_deleted_before_anybody_read_the_figures_is_counted(database: Engine) -> None:
    fill(database, 5)

    with transaction(database) as connection:
        delete_finished(connection, -1, 100)

    assert counted(database)["tasks", "done", ""] == 5


def test_two_who_count_at_once_count_once(database: Engine) -> None:
    fill(database, 5)

    with transaction(database) as one, transaction(database) as other:
        assert count_ended(one, 100) == 5
        assert count_ended(other, 100) == 0

    assert counted(database)["tasks", "done", ""] == 5


def test_the_queues_of_judges_and_thinkers_have_a_backlog(database: Engine) -> None:
    fill(database, 3, "running")
    with transaction(database) as connection:
        connection.execute(text("UPDATE subtask SET message_id = :id, sent_at = now() WHERE id IN "
                                "(SELECT id FROM subtask LIMIT 1)"), {"id": UUID(int=1)})  # fmt: skip
        connection.execute(text("INSERT INTO task (request, status, created_at) VALUES ('p', 'planning', now() - "
                                "interval '1 minute'), ('i', 'integrating', now())"))  # fmt: skip
    with transaction(database) as connection:
        judge, thinking, ages = judge_backlog(connection), thinking_backlogs(connection), oldest_open(connection)

    assert (judge.waiting, judge.sent, judge.running) == (2, 1, 0)
    assert judge.oldest >= 0
    assert (thinking["planning"].waiting, thinking["integrating"].waiting) == (1, 1)
    assert thinking["planning"].oldest >= 60
    assert ages["planning"] >= 60
    assert set(ages) == {"planning", "integrating"}


def test_a_message_s_size_is_what_it_carried(database: Engine) -> None:
    fill(database, 4)

    with transaction(database) as connection:
        assert message_sizes(connection) == {"alpha": [4], "beta": [4]}
        assert open_deliveries(connection).pending == 0


@pytest.fixture
def exposition(database: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a scrape gives, with at least one request counted."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    fill(database, 2)
    settings = Settings(
        database_url=SecretStr(database.url.render_as_string(hide_password=False)), models_file=ROOT / "models.toml"
    )
    figures = Figures(Services(settings=settings, engine=database, hub=cast("Any", None)))
    traffic = Traffic()
    traffic.took({"type": "http", "method": "BREW", "path": "/coffee/1"}, 404, 0.01)
    return (figures.text() + traffic.text()).decode()


def names_of(exposition: str) -> set[str]:
    types = re.findall(r"^# TYPE (bakeoff_\w+) (\w+)$", exposition, re.MULTILINE)
    found = {f"{name}{end}" for name, kind in types for end in SAMPLES[kind]}
    spread = {name.removesuffix("_gcount") for name in found if name.endswith("_gcount")}  # of a window: no `_count`
    return found - {f"{name}{end}" for name in spread for end in ("_count", "_sum")}


def test_alerts_name_figures_that_exist_and_every_query_is_one(exposition: str) -> None:
    document = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]

    for rule in rules:
        promql_parser.parse(rule["expr"])
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in {"page", "ticket"}
    assert len({rule["alert"] for rule in rules}) == len(rules)
    asked = set(OURS.findall(" ".join(rule["expr"] for rule in rules)))
    assert asked - names_of(exposition) == set()


def test_the_dashboard_names_figures_that_exist_and_every_query_is_one(exposition: str) -> None:
    document = json.loads((DOCS / "monitoring" / "dashboard.json").read_text())
    queries = [target["expr"] for panel in document["panels"] for target in panel["targets"]]

    for query in queries:
        promql_parser.parse(query.replace("$__rate_interval", "5m"))
    assert set(OURS.findall(" ".join(queries))) - names_of(exposition) == set()


def test_every_figure_stands_on_the_page_with_its_type_labels_and_alert(exposition: str) -> None:
    page = (DOCS / "observability.md").read_text()
    rows = dict(re.findall(r"^\| `(bakeoff_\w+)` \|(.*)\|$", page, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (bakeoff_\w+) (\w+)$", exposition, re.MULTILINE))
    alerts = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text())
    named = {rule["alert"]: rule["expr"] for group in alerts["groups"] for rule in group["rules"]}
    made = {name for name in types if name.endswith(("_created", "_gcount", "_gsum"))}

    told: set[str] = set()
    assert set(rows) == set(types) - made
    for name, row in rows.items():
        kind, _, meaning, alert = (cell.strip() for cell in row.split("|"))
        assert kind == types[name], name
        assert len(meaning.split()) >= 3, name
        for one in re.findall(r"`(\w+)`", alert):
            assert name in named[one], name
        told.update(re.findall(r"`(\w+)`", alert))
    assert told == set(named) - {"BakeoffApiDown"}  # which is about Prometheus's own `up`


def test_a_path_is_no_label(exposition: str) -> None:
    assert "/coffee" not in exposition
    assert 'method="OTHER",route="unmatched",status="404"' in exposition
    assert route_of({"type": "http"}) == "unmatched"


def test_the_folder_of_shared_figures_leaves_nothing_behind() -> None:
    with shared_figures():
        folder = Path(os.environ[FOLDER])
        assert folder.is_dir()

    assert not folder.exists()
    assert FOLDER not in os.environ


def test_what_people_prefer_is_found_among_what_was_imported(database: Engine) -> None:
    asked: list[tuple[str, Any]] = []
    with transaction(database) as connection:
        connection.execute(
            text(
                "INSERT INTO preference (capability, origin, group_key, input, better, worse) "
                "SELECT 'text-generation', 'import', i, '{}', '{\"text\": \"a\"}', '{\"text\": \"b\"}' "
                "FROM generate_series(1, 3000) AS i"
            )
        )
        connection.execute(text("ANALYZE preference"))
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        assert judge_agreement(connection, ["text-generation"]) == []
        statement, parameters = asked[0]
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()

    assert any("ix_preference_human_created_at" in line for line in plan), plan
