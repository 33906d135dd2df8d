"""What an operator sees of real processes: one task's life in the logs, its trace at a collector, the figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import SCRIPTED, Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, post, start_api
from tests.integration.collector import Collector, Seen, collecting

pytestmark = [pytest.mark.integration, pytest.mark.api]

PROCESSES = ("api", "scheduler", "worker", "intake")
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
STEPS = [
    {"id": "first", "capability": "text-generation", "inputs": [{"request": True}]},
    {"id": "second", "capability": "text-generation", "inputs": [{"text": "Again:"}, {"output": "first"}]},
]
REGISTRY = (
    SCRIPTED.replace('"lonely"]', '"lonely"]\nintegrator = "lists"') + '\n[integrators.lists]\nmethod = "report"\n'
)
A_CHILD_S_FIRST = "calling self.run()"  # line of its pool, before anything of ours is imported
CANARY = "canary-of-a-caller"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def observed(
    servers: tuple[str, str], template: str, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, str]]:
    """One worker for every role, a scheduler, an intake, and an API of two processes; all of them trace."""
    for made in make_installation(servers, tmp_path_factory.mktemp("observed"), template, REGISTRY):
        made.settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        made.settings["OTEL_BSP_SCHEDULE_DELAY"] = "100"
        made.start("scheduler", "scheduler")
        made.start("worker", "worker", "alpha", "beta", "--judge", "--integrator")
        made.start("intake", "worker", "--intake")
        url = start_api(made, api_workers="2", api_metrics="open")
        made.wait_ready(3)
        yield made, url


def traceparent(trace: str = TRACE, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{CALLER}-{flags}"}


def ask(observed: tuple[Installation, str], request: str = CANARY, trace: str = TRACE, **fields: Any) -> str:
    """A task over HTTP; returns its id once it is done."""
    installation, url = observed
    with client_of(url) as client:
        stored = post(client, request, headers=traceparent(trace), **fields)
        assert stored.status_code == 202, stored.text
    task = str(stored.json()["id"])
    await_done(installation, task)
    return task


def await_done(installation: Installation, task: str) -> None:
    def done() -> bool:
        (row,) = installation.query("SELECT status FROM task WHERE id = :task", task=task)
        assert row.status not in {"failed", "expired"}, installation.logs()
        return bool(row.status == "done")

    wait_until(done, 60, installation.logs)


def lines(installation: Installation, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole_lines(installation, name) if line.startswith("{")]


def whole_lines(installation: Installation, name: str) -> list[str]:
    """The last one may be half written."""
    return (installation.folder / f"{name}.log").read_text().rpartition("\n")[0].splitlines()


def about(installation: Installation, task: str) -> set[tuple[str, str]]:
    """Process and action of every line that `grep TASK` finds."""
    return {
        (name, line["action"])
        for name in PROCESSES
        for line in lines(installation, name)
        if task in json.dumps(line) and "action" in line
    }


def arrived(collector: Collector, id_: str) -> Seen:
    """The span with this id, once its process has exported it."""
    wait_until(lambda: any(span.id == id_ for span in list(collector.spans)), 30, lambda: str(collector.spans))
    return only([span for span in collector.spans if span.id == id_])


def only(spans: list[Seen]) -> Seen:
    (span,) = spans
    return span


def test_one_task_s_life_is_read_from_the_logs_of_all_processes(observed: tuple[Installation, str]) -> None:
    installation, _ = observed

    task = ask(observed, capability=None, options={"subtasks": STEPS, "candidates": 2, "integrate": "lists"})

    expected = {
        ("api", "tasks_stored"),
        ("scheduler", "tasks_moved"),
        ("scheduler", "wave_sent"),
        ("scheduler", "integrating_sent"),
        ("worker", "message_taken"),  # its parent
        ("worker", "batch_finished"),  # its child
        ("worker", "verdict_stored"),
        ("worker", "integrating_stored"),
        ("worker", "tasks_moved"),
    }
    wait_until(lambda: expected <= about(installation, task), 30, installation.logs)
    child = [line for line in lines(installation, "worker") if line.get("action") == "batch_finished"]
    mine = [line for line in child if task in line["tasks"]]
    assert {line["model"] for line in mine} == {"alpha", "beta"}
    assert all(line["message"] and line["subtasks"] and line["candidates"] and line["attempt"] == 1 for line in mine)
    assert {line["trace_id"] for line in mine} == {TRACE}
    stored = [line for line in lines(installation, "api") if task in line.get("tasks", ())]
    request = [line for line in lines(installation, "api") if line.get("request_id") == stored[0]["request_id"]]
    assert "request" in {line["action"] for line in request}
    assert not [name for name in PROCESSES if CANARY in (installation.folder / f"{name}.log").read_text()]


def test_every_line_is_json_celery_s_too(observed: tuple[Installation, str]) -> None:
    installation, _ = observed
    for name in ("scheduler", "worker", "intake"):
        said = [json.loads(line) for line in whole_lines(installation, name) if not line.endswith(A_CHILD_S_FIRST)]

        assert all({"event", "level", "timestamp"} <= set(line) for line in said)
        of_celery = [line["event"] for line in said if "action" not in line]
        assert name == "scheduler" or any("ready" in event for event in of_celery)


def test_one_trace_goes_from_the_caller_to_the_model_the_judge_and_the_answer(
    observed: tuple[Installation, str], collector: Collector
) -> None:
    trace = "1" * 32
    ask(observed, trace=trace, capability=None, options={"subtasks": STEPS, "candidates": 2, "integrate": "lists"})
    of_models = {f"{what} {model}": 2 for what in ("run", "batch", "candidate") for model in ("alpha", "beta")}
    expected = {"POST /v1/tasks": 1, "submit": 1, "dispatch": 2, **of_models, "judge": 2, "integrate": 1}

    def names() -> dict[str, int]:
        return Counter(span.name for span in collector.of(trace))

    wait_until(lambda: names() == expected, 30, lambda: str(names()))

    served = only(collector.named("POST /v1/tasks", trace))
    submit = only(collector.named("submit", trace))
    assert (served.parent, submit.parent, submit.process) == (CALLER, served.id, "api")
    dispatches = collector.named("dispatch", trace)
    assert [s.parent for s in dispatches] == [submit.id] * 2
    assert {s.process for s in dispatches} == {"scheduler"}
    runs = collector.named("run alpha", trace)
    assert {s.parent for s in runs} == {s.id for s in dispatches}
    batches = collector.named("batch alpha", trace)
    assert {s.parent for s in batches} == {s.id for s in runs}
    for span in (*dispatches, *runs, *batches):
        assert (trace, submit.id) in span.links
    for span in batches:
        asked = span.attributes
        assert (asked["gen_ai.request.model"], asked["bakeoff.capability"]) == ("alpha", "text-generation")
        assert (asked["bakeoff.batch.size"], asked["bakeoff.attempt"]) == (1, 1)
    for span in collector.named("candidate alpha", trace):
        assert span.parent == submit.id
        assert {span_ for _, span_ in span.links} <= {s.id for s in batches}
    for span in collector.named("judge", trace):
        assert (span.parent, span.attributes["bakeoff.judge"]) == (submit.id, "longest")
        assert {span_ for _, span_ in span.links} <= {s.id for s in dispatches}
    assert only(collector.named("integrate", trace)).parent == submit.id
    assert CANARY not in str(collector.of(trace))


def test_a_wave_of_several_traces_is_one_of_its_own_and_links_to_each(
    observed: tuple[Installation, str], collector: Collector
) -> None:
    """The tasks come in one transaction, as rows: they leave together."""
    installation, _ = observed
    traces = ["2" * 32, "3" * 32]
    values = ", ".join(
        f"('together {n}', 'text-generation', '{{\"candidates\": 2}}', '{traceparent(trace)['traceparent']}')"
        for n, trace in enumerate(traces)
    )
    rows = installation.query(
        f"INSERT INTO task (request, capability, options, traceparent) VALUES {values} RETURNING id"
    )
    for row in rows:
        await_done(installation, str(row.id))

    def both() -> bool:
        return all(collector.named("candidate alpha", trace) and collector.named("judge", trace) for trace in traces)

    wait_until(both, 30, lambda: str(collector.spans))
    batches = {link for trace in traces for s in collector.named("candidate alpha", trace) for link in s.links}
    assert len(batches) == 1
    ((_, id_),) = batches
    batch = arrived(collector, id_)
    assert batch.trace not in traces
    assert {trace for trace, _ in batch.links} == set(traces)
    run = arrived(collector, batch.parent)
    dispatch = arrived(collector, run.parent)
    assert (run.name, dispatch.name, dispatch.parent) == ("run alpha", "dispatch", "")
    assert {trace for trace, _ in dispatch.links} == set(traces)


def test_what_its_caller_does_not_keep_is_not_traced(observed: tuple[Installation, str], collector: Collector) -> None:
    installation, url = observed
    with client_of(url) as client:
        unkept = post(client, "unkept", headers=traceparent("4" * 32, "00")).json()["id"]
        wrong = post(client, "wrong", headers={"traceparent": "00-nonsense"}).json()["id"]
    after = ask(observed, trace="5" * 32)
    for task in (unkept, wrong, after):
        await_done(installation, task)
    wait_until(lambda: bool(collector.named("judge", "5" * 32)))

    assert collector.of("4" * 32) == []


def test_a_celery_message_carries_its_trace_in_a_header_or_an_argument(
    observed: tuple[Installation, str], collector: Collector
) -> None:
    installation, _ = observed
    theirs = Celery("theirs", broker=installation.redis_url)
    theirs.conf.task_ignore_result = True
    task = {"request": "from celery", "capability": "text-generation"}

    theirs.send_task("bakeoff.submit", kwargs=task, queue="intake", headers=traceparent("6" * 32))
    theirs.send_task("bakeoff.submit", kwargs={**task, "request": "again", **traceparent("7" * 32)}, queue="intake")

    for trace in ("6" * 32, "7" * 32):
        for name in ("submit", "judge"):
            wait_until(lambda name=name, trace=trace: bool(collector.named(name, trace)), 30, installation.logs)
        submit = only(collector.named("submit", trace))
        assert (submit.process, submit.parent) == ("intake", CALLER)
    theirs.close()


def test_the_figures_are_of_all_api_processes_and_never_go_back(observed: tuple[Installation, str]) -> None:
    installation, url = observed
    task = ask(observed)

    def figures() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
        return {
            (one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples
        }

    done = ("bakeoff_tasks_ended_total", (("status", "done"),))
    wins = ("bakeoff_model_wins_total", (("model", "beta"),))
    ended = installation.query("SELECT count(*) AS n FROM task WHERE status = 'done'")[0].n
    wait_until(lambda: figures()[done] >= ended and figures()[wins] >= 1, 30, lambda: str(figures()))
    assert installation.run("prune", "--older-than", "0s").code == 0
    assert installation.query("SELECT id FROM task WHERE id = :task", task=task) == []
    ask(observed)
    wait_until(lambda: figures()[done] >= ended + 1, 30)

    stored = ("bakeoff_http_request_seconds_count", (("method", "POST"), ("route", "/v1/tasks"), ("status", "202")))
    before = figures()[stored]
    for _ in range(6):  # by whichever process takes it
        with client_of(url) as client:
            assert post(client, "counted").status_code == 202
    wait_until(lambda: figures()[stored] >= before + 6)  # a request is counted once its answer has left
    assert [figures()[stored] for _ in range(4)] == [before + 6] * 4


def test_the_last_spans_leave_before_a_process_ends(observed: tuple[Installation, str], collector: Collector) -> None:
    installation, _ = observed
    installation.settings["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
    installation.stop("worker")
    installation.start("worker", "worker", "alpha", "beta", "--judge", "--integrator")
    installation.wait_ready(3)
    trace = "8" * 32
    ask(observed, trace=trace)
    assert not collector.named("judge", trace)

    installation.stop("worker")

    wait_until(lambda: bool(collector.named("judge", trace)) and bool(collector.named("batch alpha", trace)))
