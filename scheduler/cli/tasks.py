"""Commands about tasks: submit, results, show."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from db.engine import engine_of, transaction
from db.errors import InvalidRequest, NotFound
from db.progress import progress_of
from db.queries import latest_results, task_story, tasks_starting_with
from db.settings import Settings, load_settings
from db.states import TaskState
from db.tracing import called_by
from scheduler.cli.bulk import submit_file
from scheduler.cli.completing import CAPABILITIES, INTEGRATORS, JUDGES, MODELS, PLANNERS, SELECTORS, SOURCES, TASKS
from scheduler.cli.live import happening
from scheduler.cli.output import console, errors, is_live, print_json, seconds, short, state, table
from scheduler.cli.story import mermaid, print_story
from scheduler.cli.times import moment_of
from scheduler.submit import NewTask, submit
from scheduler.waiting import wait_for

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("submit")(submit_command)
    app.command("results")(results_command)
    app.command("show")(show_command)


def submit_command(
    request: Annotated[str, typer.Argument(help="The request in words; may be empty where a file says it all.")] = "",
    capability: Annotated[
        str | None,
        typer.Option(
            "--capability",
            "-c",
            help="For example image-to-text/ocr; default: a planner decides.",
            autocompletion=CAPABILITIES,
        ),
    ] = None,
    attach: Annotated[
        list[Path] | None, typer.Option("--attach", "-a", help="A file to send along; may repeat.")
    ] = None,
    source: Annotated[str, typer.Option(help="Who asks; the queue is fair between sources.")] = "cli",
    priority: Annotated[int, typer.Option(help="From -100 to 100; higher runs first.")] = 0,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Ask this model; may repeat.", autocompletion=MODELS),
    ] = None,
    candidates: Annotated[int | None, typer.Option(help="How many models to ask.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="A judge of the registry; may repeat: the next is asked where one fails.", autocompletion=JUDGES
        ),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(help='What an answer must hold: a JSON file, or JSON, as in {"checks": [{"check": "json"}]}.'),
    ] = None,
    quorum: Annotated[
        int | None, typer.Option(help="Answers that are enough to judge when the deadline passes; default: 1.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE for the models, e.g. max_new_tokens=64.")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(min=0, help="Seconds that the others have once the quorum is in.")
    ] = None,
    selectors: Annotated[
        list[str] | None,
        typer.Option(
            "--selector",
            help="Who proposes models: downloads, track_record ...; may repeat.",
            autocompletion=SELECTORS,
        ),
    ] = None,
    adaptive: Annotated[
        float | None,
        typer.Option(help="As few candidates as give this chance (0 to 1) that the right answer is there."),
    ] = None,
    max_calls: Annotated[int | None, typer.Option(help="Candidates of the whole task, at most.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Flag results whose verdict is less sure than this (0 to 1).")
    ] = None,
    planner: Annotated[
        str | None,
        typer.Option(help="A planner of the registry, or none: one text-generation subtask.", autocompletion=PLANNERS),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A JSON file with the subtasks: id, capability, inputs; nobody is asked then.")
    ] = None,
    integrate: Annotated[
        str | None,
        typer.Option(
            help="An integrator of the registry, or none: the results as they are.", autocompletion=INTEGRATORS
        ),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take what a model answered to the same input before.")
    ] = True,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key and request is stored once.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Not before: 15m from now, or 2026-12-24T18:00:00Z.")] = None,
    deadline: Annotated[
        str | None, typer.Option(help="Judge what exists by then, or expire: 15m from now, or a time.")
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            allow_dash=True,
            help="A file of JSON lines, one task each (- reads standard input); options fill in what lines omit.",
        ),
    ] = None,
    without_worker: Annotated[
        bool, typer.Option("--without-worker", help="Store the task even where nobody serves it yet.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result and print it.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most; exit code 4 after that.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a task; models answer it, a judge picks the best."""
    settings = load_settings()
    shared: dict[str, Any] = {
        "capability": capability,
        "source": source,
        "priority": priority,
        "options": _options(
            models=model,
            candidates=candidates,
            judge=judge[0] if judge and len(judge) == 1 else judge,
            expect=None if expect is None else _json("--expect", expect),
            quorum=quorum,
            grace=grace,
            selectors=selectors,
            adaptive=adaptive,
            max_calls=max_calls,
            min_confidence=min_confidence,
            planner=planner,
            integrate=integrate,
            cache=None if cache else False,
            params=dict(_pair(text) for text in param or []),
            subtasks=_subtasks(plan),
        ),
        "run_at": moment_of("--run-at", run_at) if run_at else None,
        "deadline": moment_of("--deadline", deadline) if deadline else None,
    }
    caller = called_by(os.environ.get("TRACEPARENT"))
    if from_file is not None:
        if request or attach or idempotency_key or wait:
            raise InvalidRequest("--from takes requests, files and keys from its lines, and does not wait.")
        with caller:
            submit_file(settings, from_file, shared, needs_worker=not without_worker, as_json=as_json)
        return
    task = NewTask(request=request, attachments=attach or [], idempotency_key=idempotency_key, **shared)
    with caller:
        task_id = submit(settings, task, needs_worker=not without_worker)
    if not wait:
        _print_accepted(task_id, as_json=as_json)
        return
    try:
        _wait_and_print(settings, task_id, timeout, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(f"bakeoff: the wait ended, the work goes on: bakeoff show {task_id}", err=True)
        raise


def _options(**given: Any) -> dict[str, Any]:
    """Options as a task has them: what was not given is left out."""
    return {key: value for key, value in given.items() if value is not None and value not in ([], {})}


def _subtasks(plan: Path | None) -> Any:
    """The subtasks of a plan's file: a list, or an object with `subtasks`. Raises `InvalidRequest`."""
    if plan is None:
        return None
    said = _json("--plan", str(plan))
    steps = said.get("subtasks") if isinstance(said, dict) else said
    if not steps:
        raise InvalidRequest(f'--plan: {plan} holds no subtasks; write a list of them, or {{"subtasks": [...]}}.')
    return steps


def _json(option: str, given: str) -> Any:
    """What a file of JSON holds, or JSON itself where an object is given. Raises `InvalidRequest`."""
    try:
        return json.loads(given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{option}: cannot read {given}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{option}: {given[:200]} is not JSON: {error}.") from None


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidRequest(f"--param {text!r} is not NAME=VALUE.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _print_accepted(task_id: UUID, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": task_id, "status": TaskState.PENDING})
    else:
        console.print(f"{task_id}  pending; `bakeoff show {task_id}` tells how it goes.", soft_wrap=True)


def _wait_and_print(settings: Settings, task_id: UUID, timeout: float | None, *, as_json: bool) -> None:
    with happening(f"task {task_id}: waiting") as say:
        look = (lambda _: say(_happening(settings, task_id))) if is_live(errors) else None
        states = wait_for(settings, [task_id], timeout, look)
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        story = task_story(connection, task_id)
    if as_json:
        print_json(story)
    else:
        print_story(story)
    if states[task_id] != TaskState.DONE:
        raise typer.Exit(1)


def _happening(settings: Settings, task: UUID) -> str:
    """What the spinner says: planning, 2 of 3 candidates, judging."""
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        (now,) = progress_of(connection, [task])
    return f"task {task}: {now.doing or now.status}, {seconds(now.age)}"


def find_task(settings: Settings, text: str) -> UUID:
    """The task of an id, or of the beginning of one. Raises `NotFound`, or `InvalidRequest` for what is no id."""
    if not text or any(character not in "0123456789abcdef-" for character in text.lower()) or len(text) > 36:
        raise InvalidRequest(f"{text!r} is not a task id, nor the beginning of one; `bakeoff results` lists them.")
    plain = text.lower().replace("-", "")
    if not 4 <= len(plain) <= 32:
        raise InvalidRequest(
            f"{text!r} is no task id: it takes 4 to 32 hexadecimal digits of one; `bakeoff results` lists them."
        )
    dashed = "-".join(filter(None, (plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:])))
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        found = tasks_starting_with(connection, dashed)
    if not found:
        raise NotFound(f"No task {text}; `bakeoff results` lists the latest ones.")
    if len(found) > 1:
        raise InvalidRequest(f"{text} is the beginning of several task ids; give more of it.")
    return found[0]


def show_command(
    task: Annotated[str, typer.Argument(help="A task id, or its beginning.", autocompletion=TASKS)],
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Its DAG as a Mermaid flowchart.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything about one task: plan, candidates and who proposed them, verdicts with reasons, costs, answer."""
    settings = load_settings()
    found = find_task(settings, task)
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        story = task_story(connection, found)
    if as_json:
        print_json(story)
    elif as_mermaid:
        print(mermaid(story))
    else:
        print_story(story)


def results_command(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    source: Annotated[str | None, typer.Option(help="Of this source only.", autocompletion=SOURCES)] = None,
    status: Annotated[TaskState | None, typer.Option(help="In this state only.")] = None,
    before: Annotated[str | None, typer.Option(help="Older than this task id: the next page.")] = None,
    as_json: AsJson = False,
) -> None:
    """The latest tasks and their answers, newest first."""
    settings = load_settings()
    before_id = find_task(settings, before) if before else None
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        rows = latest_results(connection, limit=limit, source=source, status=status, before=before_id)
    if as_json:
        print_json(rows)
        return
    out = table("task", "source", "status", "request", "answer, or why not")
    for row in rows:
        said = row["answer"] if row["answer"] is not None else (row["error"] or {}).get("message")
        out.add_row(row["task_id"], row["source"], state(row["status"]), short(row["request"], 40), short(said, 70))
    console.print(out if rows else "No tasks yet; `bakeoff submit` stores one.")
