"""Commands for the operator: status, sql, config, db upgrade, db roles."""

from __future__ import annotations

import re
from typing import Annotated, Any

import redis
import typer
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from db.engine import connect, engine_of, transaction
from db.errors import BakeoffError, InvalidRequest
from db.queries import backlogs, judge_rows, model_rows, open_counts, recent_verdicts
from db.roles import VIEWS, create_roles
from db.settings import Settings, load_settings
from db.workers import live_queues, live_workers
from scheduler.cli.output import console, harmless, print_json, seconds, short, state, table
from scheduler.cli.typos import warn_of_typos
from scheduler.queues import broker_client, queue_lengths

STOPPED = ("suspended", "paused", "draining")
ALARM_SHARE = 0.05  # of verdicts by fallback; above it `status` says so in red
SECRET = re.compile("pass|secret|token|key", re.IGNORECASE)  # parameters of a URL that are not shown
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status_command)
    app.command("sql")(sql_command)
    app.command("config")(config_command)
    database = typer.Typer(help="The database.", no_args_is_help=True)
    database.command("upgrade")(upgrade_command)
    database.command("roles")(roles_command)
    app.add_typer(database, name="db")


def status_command(as_json: AsJson = False) -> None:
    """What runs, what waits: per model the backlog, its age, what is in flight, its workers, the last error."""
    settings = load_settings()
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        workers = live_workers(connection, settings.worker_timeout)
        waiting, states, counts = backlogs(connection), model_rows(connection), open_counts(connection)
        judges, verdicts = judge_rows(connection), recent_verdicts(connection)
    live, ready = live_queues(workers), live_queues(workers, ready_only=True)
    queues = {model.name: model.queue for model in settings.registry.models.values()}
    lengths = _queue_lengths(settings, [*queues.values(), "judge", "planner", "integrator", "intake"])
    rows = [
        {
            **(vars(waiting[name]) if name in waiting else {"model": name}),
            "queue": queue,
            "status": states.get(name, {}).get("status"),
            "reason": states.get(name, {}).get("reason"),
            "messages_waiting": None if lengths is None else lengths[queue],
            "live": queue in live,
            "ready": queue in ready,
            "seconds_per_item": states.get(name, {}).get("seconds_per_item"),
        }
        for name, queue in queues.items()
    ]
    document = {
        "tasks": counts["task"],
        "subtasks": counts["subtask"],
        "scheduler": any(worker.name.startswith("scheduler") and worker.status == "ready" for worker in workers),
        "redis": lengths is not None,
        **{
            role: {"messages_waiting": None if lengths is None else lengths[role], "ready": role in ready}
            for role in ("judge", "planner", "integrator")
        },
        "judges": [judges[name] for name in sorted(settings.registry.judges_in_use()) if name in judges],
        "last_10_minutes": {**vars(verdicts), "fallback_share": round(verdicts.share, 4)},
        "models": rows,
        "workers": [vars(worker) for worker in workers],
    }
    if as_json:
        print_json(document)
    else:
        _print_status(document)


def _print_status(document: dict[str, Any]) -> None:
    open_tasks = ", ".join(f"{count} {name}" for name, count in sorted(document["tasks"].items())) or "none"
    console.print(f"open tasks: {open_tasks}" + ("" if document["redis"] else "; Redis does not answer"))
    if not document["scheduler"]:
        console.print(
            "No scheduler works: nothing is sent until `bakeoff scheduler` runs. Its log says why.", style="red"
        )
    for row in (*document["models"], *document["judges"]):
        if row["status"] in STOPPED:
            name = row.get("model") or f"judge {row['name']}"
            console.print(f"{name} is {row['status']}: {harmless(row['reason'] or 'no reason given')}", style="yellow")
    recent = document["last_10_minutes"]
    if recent["fallback_share"] > ALARM_SHARE:
        console.print(
            f"A judge fails: {recent['fallbacks']} of {recent['verdicts']} verdicts in 10 minutes are fallbacks.",
            style="red",
        )
    models = table(
        "model", "status", "chosen", "sent", "running", "oldest", "worker", "s/item", "last error", wrap=("last error",)
    )
    for row in document["models"]:
        worker = "ready" if row["ready"] else "starting" if row["live"] else "none"
        models.add_row(
            row["model"],
            state(row["status"] or "unknown"),
            *(str(row.get(key, 0)) for key in ("chosen", "sent", "running")),
            seconds(row.get("oldest")),
            state(worker),
            "" if row["seconds_per_item"] is None else f"{row['seconds_per_item']:.3f}",
            short(row.get("last_error"), 50),
        )
    console.print(models)
    workers = table("worker", "pid", "status", "heard", "queues")
    for worker in document["workers"]:
        said = worker["status"] if not worker["error"] else f"{worker['status']}: {worker['error']}"
        queues = ", ".join(worker["queues"])
        workers.add_row(worker["name"], str(worker["pid"]), short(said, 70), f"{seconds(worker['age'])} ago", queues)
    console.print(
        workers if document["workers"] else "No worker is alive; start one with `bakeoff up` or `bakeoff worker`."
    )


def _queue_lengths(settings: Settings, queues: list[str]) -> dict[str, int] | None:
    try:
        return queue_lengths(broker_client(settings), queues)
    except (redis.RedisError, OSError, BakeoffError):
        return None


def sql_command(
    query: Annotated[str, typer.Argument(help="One statement; read-only unless --write.")],
    write: Annotated[bool, typer.Option("--write", help="Allow changes, and commit them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a statement, such as `select * from results`."""
    settings = load_settings()
    with connect(settings.dsn, "sql", read_only=not write) as connection:
        cursor = connection.execute(query.encode())
        columns = [column.name for column in cursor.description or ()]
        rows = [list(row) for row in cursor] if columns else []
        changed = cursor.rowcount
    if as_json:
        print_json([dict(zip(_distinct(columns), row, strict=True)) for row in rows])
        return
    if not columns:
        console.print(f"{max(changed, 0)} row(s)")
        return
    out = table(*columns, wrap=columns)
    for row in rows:
        out.add_row(*("" if value is None else short(str(value), 200) for value in row))
    console.print(out)
    console.print(f"({len(rows)} row{'' if len(rows) == 1 else 's'})", style="dim")


def _distinct(columns: list[str]) -> list[str]:
    """Column names of which none hides another: the second `n` is `n_2`."""
    return [
        name if (before := columns[:place].count(name)) == 0 else f"{name}_{before + 1}"
        for place, name in enumerate(columns)
    ]


def config_command(
    dsn: Annotated[
        bool, typer.Option("--dsn", help="Print the Postgres URL, password included, and nothing else.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The settings of this process; secrets are masked."""
    settings = load_settings()
    if dsn:
        print(settings.dsn)
        return
    rows = [
        {
            "variable": f"BAKEOFF_{name.upper()}",
            "value": _shown(name, getattr(settings, name)),
            "set": name in settings.model_fields_set,
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    warn_of_typos()
    if as_json:
        print_json(rows)
        return
    out = table("variable", "value", "meaning")
    for row in rows:
        out.add_row(str(row["variable"]), f"{row['value']}{' *' if row['set'] else ''}", str(row["meaning"]))
    console.print(out)
    console.print("* set in the environment", style="dim")


def _shown(name: str, value: Any) -> str | None:
    if isinstance(value, SecretStr):
        if not name.endswith("_url"):
            return "***"
        try:
            url = make_url(value.get_secret_value())
            query = {name: "***" if SECRET.search(name) else item for name, item in url.query.items()}
            return url.set(query=query).render_as_string(hide_password=True)
        except Exception:  # noqa: BLE001 - whatever it is, it is not shown
            return "***"
    return None if value is None else str(value)


def upgrade_command(as_json: AsJson = False) -> None:
    """Bring the database to this version's schema; two at once are safe."""
    from db import migrate

    settings = load_settings()
    before, after = migrate.current(settings.dsn), migrate.head()
    if before is not None and not migrate.known(before):
        raise InvalidRequest(
            f"The database's schema ({before}) is newer than this version, which knows {after}; upgrade Bakeoff here."
        )
    migrate.upgrade(settings.dsn)
    if as_json:
        print_json({"before": before, "after": after})
        return
    console.print(f"The schema is at {after}" + (" already." if before == after else f" (was {before or 'empty'})."))


def roles_command(as_json: AsJson = False) -> None:
    """Create the roles of other systems: enqueue only, read only."""
    from db import migrate

    settings = load_settings()
    if migrate.current(settings.dsn) is None:
        raise InvalidRequest("The database has no schema yet; run `bakeoff db upgrade` first.")
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        enqueue, read = create_roles(connection)
    if as_json:
        print_json({"enqueue": enqueue, "read": read})
        return
    console.print(f"{enqueue}: may insert tasks\n{read}: may read the views {', '.join(VIEWS)}")
    console.print(f"Grant one to a login: GRANT {enqueue} TO your_login;", style="dim")
