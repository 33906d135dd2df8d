"""`bakeoff watch`: tasks as they go, as a table that redraws itself, a line per change, or JSON per change."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy.exc import OperationalError

from db.engine import engine_of, transaction
from db.errors import Unreachable, WaitTimeout
from db.progress import Progress, progress_of
from db.queries import open_tasks
from db.settings import load_settings
from db.states import TaskState
from scheduler.cli.completing import TASKS
from scheduler.cli.output import console, errors, harmless, is_live, json_line, seconds, short, state, table
from scheduler.cli.tasks import find_task
from scheduler.waiting import POLL_SECONDS, Notices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from rich.console import RenderableType

    from db.settings import Settings

    Show = Callable[[Sequence[Progress]], None]

MOST = 200  # tasks that are followed at once where none is named: the newest
ROWS = 30  # of the table, which shall fit on a screen
LEAST_WAIT = 0.2  # seconds between two looks, however much is notified


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch")(watch_command)


def watch_command(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(help="Tasks to follow; default: everything that is open.", autocompletion=TASKS),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to watch at most; exit code 4 after that.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per change, one a line.")] = False,
) -> None:
    """Follow tasks live until they end; without a task: the open ones, until Ctrl-C or nothing is open.

    Where the output is no terminal, a line is printed per change. Ends with 1 where a task that was named does not end
    as done.
    """
    settings = load_settings()
    watched = Watched(settings, [find_task(settings, task) for task in tasks or []])
    try:
        if as_json:
            watched.follow(timeout, by_change(_print_json))
        elif is_live(console):
            _follow_live(watched, timeout)
        else:
            watched.follow(timeout, by_change(_print_line))
    except KeyboardInterrupt:
        errors.print("bakeoff: the watching ended, the work goes on.")
        return
    if not watched.seen and not as_json:
        console.print("Nothing is open.")
    if tasks and any(one.status != TaskState.DONE for one in watched.seen.values()):
        raise typer.Exit(1)


@dataclass
class Watched:
    """The tasks that are followed: those named, or all that are open and those that were."""

    settings: Settings
    named: list[UUID]
    seen: dict[UUID, Progress] = field(default_factory=dict)
    away: bool = False  # Postgres does not answer at the moment

    def follow(self, timeout: float | None, show: Show) -> None:
        """Look until everything has ended. Raises `WaitTimeout`, and `Unreachable` where the first look fails."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with Notices(self.settings.dsn) as notices:
            while True:
                looked = self._look()
                show(list(self.seen.values()))
                if looked and all(one.final for one in self.seen.values()):
                    return
                left = POLL_SECONDS if deadline is None else min(POLL_SECONDS, deadline - time.monotonic())
                if left <= 0:
                    still = sum(not one.final for one in self.seen.values())
                    raise WaitTimeout(f"{still} task(s) not finished after {timeout:g} s. The work goes on.")
                began = time.monotonic()
                notices.doze(left)
                time.sleep(max(0.0, min(left, LEAST_WAIT) - (time.monotonic() - began)))

    def _look(self) -> bool:
        """Read where the tasks are; False where Postgres is away under a watch that it began with."""
        try:
            with transaction(engine_of(self.settings.dsn, "cli")) as connection:
                wanted = self.named or self._open(open_tasks(connection, MOST))
                found = progress_of(connection, wanted)
        except (Unreachable, OperationalError):
            if not self.seen:
                raise
            self.away = True
            return False
        self.away = False
        ended = [one for one in self.seen.values() if one.final]  # of those that nobody named, the latest are kept
        self.seen = {one.id: one for one in (*([] if self.named else ended[-ROWS:]), *found)}
        return True

    def _open(self, now: list[UUID]) -> list[UUID]:
        """What is open now, and what was at the last look: how that ended is news."""
        return now + [task for task, one in self.seen.items() if not one.final and task not in set(now)]


def by_change(emit: Callable[[Progress], None]) -> Show:
    """Hand on what changed since the last look; that a task grew older is no change."""
    before: dict[UUID, dict[str, Any]] = {}

    def show(tasks: Sequence[Progress]) -> None:
        now = {one.id: {key: value for key, value in asdict(one).items() if key != "age"} for one in tasks}
        for one in tasks:
            if before.get(one.id) != now[one.id]:
                emit(one)
        before.clear()
        before.update(now)

    return show


def _print_json(one: Progress) -> None:
    console.file.write(json_line({**asdict(one), "age": round(one.age, 3), "doing": one.doing}) + "\n")
    console.file.flush()


def _print_line(one: Progress) -> None:
    said = [
        f"{datetime.now().astimezone():%H:%M:%S}",
        str(one.id),
        one.status,
        *filter(None, [_doing(one), _said(one)]),
    ]
    console.print("  ".join(said), soft_wrap=True)
    console.file.flush()


def _follow_live(watched: Watched, timeout: float | None) -> None:
    from rich.live import Live

    with Live(console=console, refresh_per_second=4, get_renderable=lambda: drawn(watched)) as live:
        watched.follow(timeout, lambda _: live.refresh())


def drawn(watched: Watched) -> RenderableType:
    """The table: what is open first, then what ended last."""
    from rich.console import Group
    from rich.text import Text

    tasks = sorted(watched.seen.values(), key=lambda one: (one.final, -one.id.int))
    out = table("task", "status", "step", "age", "what happens", wrap=("what happens",))
    for one in tasks[:ROWS]:
        steps = f"{one.steps_done}/{one.steps}" if one.steps else ""
        said = _said(one) if one.final else _doing(one)
        out.add_row(str(one.id), state(one.status), steps, seconds(one.age), Text(said))
    return Group(out, *(Text(line, style="dim") for line in _below(watched, tasks)))


def _below(watched: Watched, tasks: Sequence[Progress]) -> Iterator[str]:
    if len(tasks) > ROWS:
        yield f"and {len(tasks) - ROWS} more"
    if watched.away:
        yield "Postgres does not answer; looking again."
    still = sum(not one.final for one in tasks)
    if still:
        yield f"{still} open, {len(tasks) - still} ended; Ctrl-C ends the watching, not the work."


def _doing(one: Progress) -> str:
    """`1 of 3 candidates; on it: alpha; waiting: beta`."""
    parts = [one.doing]
    parts += [f"on it: {', '.join(dict.fromkeys(one.running))}"] if one.running else []
    parts += [f"waiting: {', '.join(dict.fromkeys(one.waiting))}"] if one.waiting else []
    return harmless("; ".join(filter(None, parts)))


def _said(one: Progress) -> str:
    return short(one.answer if one.answer is not None else one.error, 70) if one.final else ""
