"""What commands there are, in which module each is, and the sentence that `bakeoff --help` says of it.

A module is imported when one of its commands is run, asked for help or completed: `bakeoff --help` and a completed
command name need none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

#: panel of the help → name → (module, what it does: its first sentence)
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Ask": {
        "submit": ("tasks", "Store a task; models answer it, a judge picks the best."),
        "watch": ("watch", "Follow tasks live until they end."),
        "results": ("tasks", "The latest tasks and their answers, newest first."),
        "show": ("tasks", "Everything about one task: plan, candidates, verdicts with reasons, costs, answer."),
        "why": ("operate", "What a task waits for, in one sentence."),
        "cancel": ("operate", "Cancel tasks and everything under them; a result that came first stays."),
        "retry": ("operate", "Ask finished tasks again, each as a new task that names the old one."),
    },
    "Run": {
        "up": ("processes", "Start everything on this machine; Ctrl-C stops it."),
        "down": ("processes", "Stop the `bakeoff up` of this folder; its data stays."),
        "worker": ("processes", "Run a worker: models, judge, planner, integrator, or the intake from Celery."),
        "scheduler": ("processes", "Run a scheduler; any number may run side by side."),
        "api": ("api", "Run the HTTP API; any number may run side by side."),
        "flower": ("flower", "Run Flower: read-only, behind a password, with bounded memory."),
        "db": ("upkeep", "The database: its schema, roles for other systems."),
        "keys": ("keys", "Keys of the HTTP API."),
        "webhooks": ("webhooks", "Who hears of every task that ends."),
    },
    "Operate": {
        "status": ("upkeep", "What runs, what waits: per model the backlog, its age, workers, the last error."),
        "models": ("models", "The models of the registry, and who serves them."),
        "pause": ("operate", "Choose and send a model no longer; what is sent and not yet taken comes back."),
        "drain": ("operate", "Choose a model no longer; what is bound to it still runs."),
        "resume": ("operate", "Choose and send a model again; ask a suspended judge again."),
        "prune": ("operate", "Delete finished tasks of an age, and files that no task names any more."),
        "sql": ("upkeep", "Run a statement, such as `select * from results`."),
        "config": ("upkeep", "The settings of this process; secrets are masked."),
    },
    "Learn": {
        "prefer": ("prefer", "Say which candidate of a subtask is the better one."),
        "preferences": ("prefer", "What people and labels say is better."),
        "leaderboard": ("leaderboard", "The models of each capability, the strongest first."),
        "annotate": ("annotate", "Score items blind, by named criteria."),
        "curate": ("curate", "Many machine-made instructions in, the best of them out."),
        "reward": ("reward", "Scorers that are trained on preferences."),
        "judge": ("judge", "Judges that learn."),
        "evaluate": ("evaluate", "What planners, selectors and judges are worth."),
    },
}
COMMANDS = {name: part for panel in PANELS.values() for name, part in panel.items()}


class Commands(MutableMapping[str, Any]):
    """The commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module, _ = COMMANDS[name]
            part = typer.Typer()
            import_module(f"scheduler.cli.{module}").register(part)
            part.callback()(_nothing)  # a part of one command is a group, too
            for loaded, command in typer.main.get_group(part).commands.items():
                self._loaded.setdefault(loaded, command)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**COMMANDS, **self._loaded})

    def __len__(self) -> int:
        return len({**COMMANDS, **self._loaded})

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS or name in self._loaded

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]


def _nothing() -> None:
    """What a group does before its command."""


class LazyGroup(TyperGroup):
    """`bakeoff` itself: lists its commands without importing them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast(Any, Commands())

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - see click
        """See click."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See click; the sentences stand in `PANELS`."""
        self._listed().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """See click."""
        listed = self._listed()
        return listed.shell_complete(typer.Context(listed, info_name=ctx.info_name), incomplete)

    def _listed(self) -> TyperGroup:
        commands = [
            TyperCommand(name=name, short_help=sentence, help=sentence, rich_help_panel=panel)
            for panel, names in PANELS.items()
            for name, (_, sentence) in names.items()
        ]
        return TyperGroup(name=self.name, commands=commands, help=self.help, params=self.params)
