"""Keeps the processes of one `up` running: starts them in order, starts again what ends, stops them in order.

It runs in the main thread from beginning to end, because the kernel takes the children along with the thread that
started them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from db.errors import BakeoffError
from db.instance import Instance, ProcessRef
from scheduler.local import files, notices
from scheduler.local.backoff import Backoff
from scheduler.local.children import FLOWER_USER, Child, ChildSpec, flower_spec
from scheduler.local.instance import forget_instance, only_up, stop_leftovers, write_instance
from scheduler.local.processes import last_lines, rotate
from scheduler.local.servers import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

_TICK = 0.1  # seconds between two looks at the children
_LOOK = 1.0  # seconds between two questions whether the workers are ready
_ROTATE = 30.0  # seconds between two looks at the size of the logs
_GIVEN_UP_AFTER = 3  # ends in a row after which a worker that never got ready is called broken


class Supervisor:
    """One `up`. `database` and `redis` are addresses of other people's servers, or embedded ones to run."""

    def __init__(
        self,
        *,
        home: Path,
        children: Sequence[ChildSpec],
        database: str | EmbeddedServer,
        redis: str | EmbeddedServer,
        migrate: Callable[[str], None],
        states: Callable[[str], Mapping[int, str]],
        echo: Callable[[str], None],
        environment: Mapping[str, str],
        check: Callable[[], object] = lambda: None,
        profile: str = "",
        models_file: str = "",
        blob_url: str = "",
        flower: bool = False,
        api: Callable[[], ChildSpec] | None = None,
    ) -> None:
        """`states` says by process id what the workers report; `check` may refuse before anything starts.

        `api` is asked for the API's process when the home folder is ours.
        """
        self.home = home.absolute()
        self.logs = self.home / "logs"
        self._specs = list(children)
        self._addresses = {"database": database, "redis": redis}
        self._servers = [server for server in (database, redis) if isinstance(server, EmbeddedServer)]
        self._server_backoff = {server.name: Backoff() for server in self._servers}
        self._server_started: dict[str, float] = {}
        self._migrate = migrate
        self._states = states
        self._echo = echo
        self._environment = dict(environment)
        self._check = check
        self._facts = {"profile": profile, "models_file": models_file, "blob_url": blob_url}
        self._flower = flower
        self._api = api
        self._children: list[Child] = []
        self._instance: Instance | None = None
        self._stops = 0  # how many times somebody asked
        self._begun = time.monotonic()
        self._reported: dict[str, str] = {}
        self._announced = False
        self._next: dict[str, float] = {}

    def run(self) -> int:
        """Start everything and stay until a signal asks to stop. Raises `BakeoffError` when it cannot start."""
        with only_up(self.home), self._signals():
            self._begun = time.monotonic()
            try:
                self._start()
                while not self._stops:
                    self._tick()
                    time.sleep(_TICK)
            finally:
                self._stop()
        return 0

    # --- start

    def _start(self) -> None:
        left = stop_leftovers(self.home)
        if left:
            self._say(f"An earlier run was killed; stopped what it left running: {', '.join(left)}.")
        self._check()
        if not self._servers_started():
            return
        urls = {name: at.url if isinstance(at, EmbeddedServer) else at for name, at in self._addresses.items()}
        self._migrate(urls["database"])
        self._instance = Instance(
            supervisor=ProcessRef.of(os.getpid()),
            **self._facts,
            database_url=urls["database"],
            redis_url=urls["redis"],
            **self._prepare_api(),
            **self._prepare_flower(),
        )
        environment = {
            **self._environment,
            "BAKEOFF_DATABASE_URL": urls["database"],
            "BAKEOFF_REDIS_URL": urls["redis"],
        }
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self._children = [Child(spec, self.logs / f"{spec.name}.log", environment) for spec in self._specs]
        for child in self._children:
            if not self._stops:
                child.start()
                self._note()
        ours = [server.url for server in self._servers]
        self._say(notices.summary(self._instance, home=self.home, logs=self.logs, ours=ours))

    def _servers_started(self) -> bool:
        """False when somebody asked to stop in the meantime."""
        for server in self._servers:
            server.give_up = lambda: self._stops > 0
            try:
                server.start()
            except BakeoffError:
                if not self._stops:
                    raise
            if self._stops:
                return False
        return True

    def _prepare_api(self) -> dict[str, str]:
        if self._api is None:
            return {}
        spec = self._api()
        self._specs.append(spec)
        return {"api_url": files.http_url(*spec.answers_at)} if spec.answers_at else {}

    def _prepare_flower(self) -> dict[str, str]:
        if not self._flower:
            return {}
        port = files.remembered_port(self.home / "flower.port")
        password = files.stored_secret(self.home / "flower.password")
        self._specs.append(flower_spec(port, password))
        return {
            "flower_url": f"http://127.0.0.1:{port}",
            "flower_user": FLOWER_USER,
            "flower_password": password,
        }

    def _note(self) -> None:
        """Write down which processes are ours, before a kill -9 can make us forget them."""
        if self._instance is not None:
            refs = tuple(ref for child in self._children if (ref := child.ref()) is not None)
            self._instance = self._instance.model_copy(update={"children": refs})
            write_instance(self.home, self._instance)

    # --- while it runs

    def _tick(self) -> None:
        changed = False
        for child in self._children:
            line = child.ended()
            if line is not None:
                self._say(line)
                changed = True
            if child.due():
                child.start()
                changed = True
        if changed:
            self._note()
        for server in self._servers:
            self._keep_running(server)
        if self._is_time("look", _LOOK):
            self._look()
        if self._is_time("rotate", _ROTATE):
            for log in (*(child.log for child in self._children), *(server.log for server in self._servers)):
                rotate(log)

    def _keep_running(self, server: EmbeddedServer) -> None:
        backoff = self._server_backoff[server.name]
        if server.alive() or not backoff.due():
            return
        delay = backoff.failed(time.monotonic() - self._server_started.get(server.name, self._begun))
        last = last_lines(server.log) or "nothing"
        self._say(f"The {server.name} server ended, starts again; last line of {server.log}: {last}")
        try:
            server.start()
            self._server_started[server.name] = time.monotonic()
        except BakeoffError as error:
            self._say(f"{error}\nTried again in {delay:g} s.")

    def _look(self) -> None:
        """Say once that everything is ready, and what is broken when it breaks."""
        reporting = [child for child in self._children if child.spec.reports or child.spec.answers_at]
        states = self._states(self._instance.database_url) if self._instance and reporting else {}
        for child in reporting:
            state = next((states[pid] for pid in sorted(child.pids()) if pid in states), "starting")
            if child.spec.answers_at and child.alive() and files.answers(child.spec.answers_at):
                state = "ready"
            if state != "ready" and child.backoff.failures >= _GIVEN_UP_AFTER:
                state = f"broken: {last_lines(child.log) or 'it ends at once'}"
            before = self._reported.get(child.spec.name, "")
            self._reported[child.spec.name] = state
            if state.startswith("broken") and not before.startswith("broken"):
                self._say(f"{child.spec.title} is {state}")
            elif state == "ready" and before.startswith("broken"):
                self._say(f"{child.spec.title} is ready again.")
        settled = all(state == "ready" or state.startswith("broken") for state in self._reported.values())
        if settled and not self._announced:
            self._announced = True
            titles = {child.spec.name: child.spec.title for child in reporting}
            working = [titles[name] for name, state in self._reported.items() if state == "ready"]
            broken = [titles[name] for name, state in self._reported.items() if state != "ready"]
            self._say(notices.ready(time.monotonic() - self._begun, working, broken))

    def _is_time(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + seconds
        return True

    # --- stop

    def _stop(self) -> None:
        begun = time.monotonic()
        running = bool(self._children)
        if running:
            self._say("Stopping; once more to kill what still works ...")
        for rank in sorted({child.spec.stop_rank for child in self._children}):
            self._stop_together([child for child in self._children if child.spec.stop_rank == rank])
        for server in reversed(self._servers):
            server.stop(at_once=self._stops > 1)
        forget_instance(self.home)
        if running:
            seconds = time.monotonic() - begun
            self._say(f"Stopped in {seconds:.1f} s. The data is kept in {self.home}; `bakeoff up` finds it again.")

    def _stop_together(self, children: Sequence[Child]) -> None:
        for child in children:
            child.ask_to_stop()
        asked = time.monotonic()
        while any(child.alive() for child in children):
            for child in children:
                if child.alive() and (self._stops > 1 or time.monotonic() - asked > child.spec.grace):
                    child.kill()
            time.sleep(0.02)
        for child in children:
            child.kill()  # what it may have left of its group

    # --- signals and output

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._stops += 1

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup bakeoff up` outlives its terminal
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # whoever read our output may be gone; the work goes on
            self._echo(text)
