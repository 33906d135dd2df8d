"""The one process that owns a device: it loads its models once and answers through them.

Lives in the worker's child. `ModelProcess` is made when the child starts and warms everything up before it takes the
first message; a model that cannot be loaded is tried again until it can.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.blobs import kind_of
from db.engine import make_engine, transaction, wait_for_postgres
from db.errors import BakeoffError, RegistryError
from db.logs import configure_logging, get_logger
from db.plan import PlanError
from db.planning import stored_plans
from db.registry import JudgeEntry
from db.settings import Settings, load_settings
from db.states import WorkerState
from db.tracing import configure_tracing, flush
from db.workers import set_worker_state
from worker.backends import Backend, LanguageModel, Place, SeeingModel, create_backend
from worker.batching import Ceilings
from worker.child import settle_in
from worker.integrators import Integrator, create_integrator
from worker.judges import Judge, create_judge
from worker.judges.asking import Asking
from worker.pace import JudgePace, Speeds
from worker.planners import Example, Planner, create_planner
from worker.planners.checking import read_plan
from worker.planners.library import load_examples
from worker.role import WorkerRole
from worker.weights import locate

log = get_logger(__name__)

T = TypeVar("T")

FLUSH = 0.8  # seconds that the last spans get; the parent gives the child one to end (`worker.stopping.QUIET`)
FIRST_RETRY, LAST_RETRY = 2.0, 30.0  # seconds between two tries to load a model


class ModelProcess:
    """Backends, judges, planners and integrators of this process, each loaded at most once."""

    def __init__(self, settings: Settings, role: WorkerRole, engine: Engine) -> None:
        self.settings = settings
        self.role = role
        self.engine = engine
        self.registry = settings.registry
        self.ceilings = Ceilings()
        self.judge_pace = JudgePace()
        self.speeds = Speeds()
        self._backends: dict[str, Backend] = {}
        self._judges: dict[str, Judge] = {}
        self._planners: dict[str, Planner] = {}
        self._integrators: dict[str, Integrator] = {}

    def backend(self, name: str) -> Backend:
        """The loaded backend of a model. Raises whatever loading raised, in words for a person."""
        if name not in self._backends:
            entry = self.registry.model(name)
            started = time.monotonic()
            place = Place(
                weights=locate(entry, self.settings.cache), device=self._device(entry.device), threads=self._threads()
            )
            backend = create_backend(entry, place)
            backend.load()
            self._backends[name] = backend
            log.info(
                f"{name} is loaded",
                action="model_loaded",
                model=name,
                seconds=round(time.monotonic() - started, 2),
            )
        return self._backends[name]

    def judge(self, name: str) -> Judge:
        """The judge of the registry, its language model loaded. Raises whatever loading raised."""
        if name not in self._judges:
            entry: JudgeEntry = self.registry.judges[name]
            language_model = None
            if entry.model is not None:
                backend = self.backend(entry.model)
                if backend.model.reads and not isinstance(backend, SeeingModel):
                    raise RegistryError(
                        f"models.{entry.model}.reads = {list(backend.model.reads)}: "
                        f"backend {backend.model.backend!r} shows a judge no files; leave it out."
                    )
                if not isinstance(backend, LanguageModel):
                    raise TypeError(
                        f"Judge {name!r} needs probabilities, which backend of {entry.model!r} does not give."
                    )
                language_model = Asking(backend)
            embedder = self.backend(entry.embedder) if entry.embedder else None
            self._judges[name] = create_judge(entry, language_model, embedder)
        return self._judges[name]

    def planner(self, name: str) -> Planner:
        """The planner of the registry, with the models that it asks loaded. Raises whatever loading raised."""
        if name not in self._planners:
            entry = self.registry.planners[name]
            self._planners[name] = create_planner(
                entry,
                model=self.backend(entry.model) if entry.model else None,
                embedder=self.backend(entry.embedder) if entry.embedder else None,
                examples=[*load_examples(), *self._stored_examples()],
            )
        return self._planners[name]

    def _stored_examples(self) -> list[Example]:
        """Plans that worked in this installation, as far as they are looked up."""
        most = self.settings.stored_plans
        if not most:
            return []
        with transaction(self.engine) as connection:
            stored = stored_plans(connection, most)
        examples = []
        for plan in stored:
            with contextlib.suppress(PlanError):  # of an older version, whose steps were others
                steps = [{**step, "options": {}} for step in plan.steps]
                kinds = tuple(kind_of(media_type) or "file" for media_type in plan.media_types)
                examples.append(Example(request=plan.request, plan=read_plan({"steps": steps}), kinds=kinds))
        return examples

    def integrator(self, name: str) -> Integrator:
        """The integrator of the registry, its language model loaded. Raises whatever loading raised."""
        if name not in self._integrators:
            entry = self.registry.integrators[name]
            self._integrators[name] = create_integrator(entry, self.backend(entry.model) if entry.model else None)
        return self._integrators[name]

    def stored(self, statement: Callable[[Connection], T]) -> T:
        """Run one transaction; a Postgres that is away is waited for, for up to one lease."""

        @wait_for_postgres(self.settings.lease_seconds)
        def attempt() -> T:
            with transaction(self.engine) as connection:
                return statement(connection)

        return attempt()

    def warm_up(self) -> None:
        """Load everything this worker is for, however often it takes, and say so in the table `worker`.

        Until then the child takes no message: a worker that cannot load its model must not eat the queue of one that
        can. What is transient (a model server that starts later, a Postgres that restarts) heals by itself.
        """
        delay = FIRST_RETRY
        while not self._loaded_everything():
            time.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)

    def _loaded_everything(self) -> bool:
        try:
            for model in self.role.models:
                self.backend(model)
            if self.role.judge:
                self._load_judges()
            if self.role.planner and self.registry.planner is not None:
                self.planner(self.registry.planner)
            if self.role.integrator and self.registry.integrator is not None:
                self.integrator(self.registry.integrator)
            self._say(WorkerState.READY)
        except Exception as error:
            log.exception("A model could not be loaded", action="model_broken", worker=self.role.name)
            with contextlib.suppress(BakeoffError, SQLAlchemyError):
                self._say(WorkerState.BROKEN, " ".join(str(error).split())[:500] or type(error).__name__)
            return False
        return True

    def _load_judges(self) -> None:
        """Load the judges in use. One that cannot be had now is left to the next of its list, if that can."""
        failed: dict[str, Exception] = {}
        for name in sorted(self.registry.judges_in_use()):
            try:
                self.judge(name)
            except Exception as error:  # noqa: BLE001 - whatever a model's loading raises
                failed[name] = error
        for capability in sorted(self.registry.served):
            judges = self.registry.capabilities[capability].judges
            if all(name in failed for name in judges):
                raise failed[judges[0]]
        for name, reason in failed.items():
            log.warning(f"Judge {name} cannot be had: {reason}", action="judge_missing", judge=name)

    def say_starting(self) -> None:
        """This child is new: its models are not loaded, whatever the one before it said."""
        self._say(WorkerState.STARTING)

    def _say(self, state: WorkerState, error: str | None = None) -> None:
        with transaction(self.engine) as connection:
            set_worker_state(connection, self.role.name, state, error)

    def _threads(self) -> int:
        return self.settings.threads or max(1, (os.cpu_count() or 2) // 2)

    def _device(self, of_model: str) -> str:
        return self.settings.device if self.settings.device != "auto" else of_model


@lru_cache(maxsize=1)
def this_process() -> ModelProcess:
    """The `ModelProcess` of this child."""
    settings = load_settings()
    role = WorkerRole.of_this_process() or WorkerRole(name=f"worker-{os.getpid()}")
    return ModelProcess(settings, role, make_engine(settings.dsn, application=role.name, pool_size=2))


@setup_logging.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _log_as_we_do(**_: object) -> None:
    """Before Celery would set up its own, in the child too."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, content=settings.log_content)


@worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _start_child(**_: object) -> None:
    settle_in()
    role = WorkerRole.of_this_process()
    if role is not None and role.computes:
        configure_tracing(role.name)
        process = this_process()
        with contextlib.suppress(BakeoffError, SQLAlchemyError):
            process.say_starting()
        process.warm_up()


@worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _end_child(**_: object) -> None:
    flush(FLUSH)
