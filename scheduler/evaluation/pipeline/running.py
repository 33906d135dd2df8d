"""The system under measurement: servers, scheduler, judge, planner and a worker per model of its own, in one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from db.engine import engine_of, transaction
from db.errors import UsageError, WeightsError
from db.queries import task_story
from db.registry import Registry, parse_registry
from scheduler.evaluation.pipeline.items import STEPS
from scheduler.local.cluster import Cluster
from scheduler.submit import submit_many
from scheduler.waiting import wait_for
from worker.weights import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from db.settings import Settings
    from scheduler.submit import NewTask

PROFILE = "evaluate-pipeline"
#: Models that are asked, of each step as many as a judge gets; those whose weights are not there are left out.
WANTED = (
    ("rapidocr", "rapidocr-onnxruntime", "ddddocr"),
    ("whisper-base", "whisper-tiny-en", "pocketsphinx-en-us"),
    ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"),
)
READY_WITHIN = 600.0  # seconds; weights are loaded on a machine that others may use too
PATIENCE = 3600.0  # seconds for one round of tasks


class Selection:
    """The models of a run: those wanted, in the registry's order, whose weights are there."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.missing: list[str] = []
        self.models: dict[str, list[str]] = {}
        for step, wanted in zip(STEPS, WANTED, strict=True):
            known = [name for name in registry.models if name in wanted]
            self.models[step] = [name for name in known if self._is_there(settings, registry, name)]
            if len(self.models[step]) < 2:
                raise UsageError(
                    f"The step {step!r} needs two of {', '.join(wanted)} to compare; "
                    f"fetch them: `bakeoff models pull {' '.join(wanted)}`. {' '.join(self.missing)}"
                )

    def _is_there(self, settings: Settings, registry: Registry, name: str) -> bool:
        try:
            locate(registry.models[name], settings.cache)
        except WeightsError as error:
            self.missing.append(str(error))
            return False
        return True

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [name for models in self.models.values() for name in models]


def registry_text(base: str, selection: Selection, *, judge: str | None, planner: str | None) -> str:
    """The given registry, with a profile of these models besides."""
    roles = {key: name for key, name in (("judge", judge), ("planner", planner)) if name is not None}
    lines = [f"[profiles.{PROFILE}]", f"models = [{', '.join(_quoted(name) for name in selection.names)}]"]
    lines += [f"{key} = {_quoted(name)}" for key, name in roles.items()]
    return base.rstrip() + "\n\n" + "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return f'"{name}"'


class Running:
    """A running system; use it as a context."""

    def __init__(self, settings: Settings, folder: Path, registry: str, tables: dict[str, Any]) -> None:
        own = {
            "BAKEOFF_CACHE": str(settings.cache),
            "BAKEOFF_THREADS": "1",
            "BAKEOFF_CANDIDATES": str(len(WANTED[0])),
            "HF_HUB_OFFLINE": "1",
        }
        folder.chmod(0o755)  # Postgres runs as somebody else where we are root
        self.cluster = Cluster(folder, registry, own, profile=PROFILE)
        self.registry = parse_registry(tables, PROFILE).restricted_to(PROFILE)

    def __enter__(self) -> Self:
        """Start everything; returns when all models are loaded."""
        try:
            self.cluster.start_servers()
            self.cluster.add("scheduler", "scheduler")
            for name, arguments in workers_of(self.registry).items():
                self.cluster.add(name, "worker", *arguments, "--name", name)
            self.cluster.wait_ready(READY_WITHIN)
        except BaseException:
            self.cluster.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        settings = self.cluster.settings()
        engine_of(settings.dsn, "wait").dispose()
        self.cluster.stop()

    def ask(self, tasks: Sequence[NewTask], progress: Callable[[int, int], None]) -> list[dict[str, Any]]:
        """Submit tasks, wait until all have ended, return their stories in order."""
        if not tasks:
            return []
        settings = self.cluster.settings()
        ids = submit_many(settings, tasks)

        def look(states: Mapping[Any, str]) -> None:
            self.cluster.supervise()
            progress(sum(state in {"done", "failed", "expired", "cancelled"} for state in states.values()), len(ids))

        wait_for(settings, ids, PATIENCE, look)
        with transaction(engine_of(settings.dsn, "wait")) as connection:
            return [task_story(connection, task) for task in ids]


def workers_of(registry: Registry) -> dict[str, tuple[str, ...]]:
    """Arguments of each worker process: one per model; judge and planner go where the model is that they ask."""
    asked_by_judges = registry.asked_by_judges()
    planner = registry.planners[registry.planner] if registry.planner else None
    candidates = registry.profiles[PROFILE].models
    workers: dict[str, tuple[str, ...]] = {name: (name,) for name in candidates}
    judge_at = next((name for name in candidates if name in asked_by_judges), "judge")
    workers[judge_at] = (*workers.get(judge_at, ()), "--judge")
    if planner is not None:
        planner_at = next((name for name in candidates if name in planner.asks), "planner")
        workers[planner_at] = (*workers.get(planner_at, ()), "--planner")
    return workers
