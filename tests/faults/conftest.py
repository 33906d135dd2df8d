"""Fixtures of the fault suite. Run it with `make test-faults`.

BAKEOFF_FAULT_SEED repeats the moments of a run, BAKEOFF_FAULT_RUNS runs every fault so often, BAKEOFF_FAULT_WAVE is the
largest wave (32), BAKEOFF_FAULT_REPORT names a file for the figures, BAKEOFF_FAULT_FULL=1 makes outages as long as the ones that are promised to be survived.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db import migrate
from db.engine import make_engine
from tests.conftest import wait_until
from tests.faults import guard, report
from tests.faults.cluster import QUIET_WITHIN, SETTINGS, Cluster, Servers
from tests.faults.load import Load, Outcome
from tests.faults.registry import write_registry

SEED = int(os.environ.get("BAKEOFF_FAULT_SEED") or secrets.randbelow(1_000_000))
RUNS = int(os.environ.get("BAKEOFF_FAULT_RUNS") or 1)
FULL = os.environ.get("BAKEOFF_FAULT_FULL") == "1"
TASKS = 200

MEASUREMENTS = pytest.StashKey[list[report.Measurement]]()
FAILED = pytest.StashKey[bool]()


def pytest_report_header() -> str:
    return f"faults: BAKEOFF_FAULT_SEED={SEED}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The whole suite takes a quarter of an hour: it runs where `-m` asks for `faults`, and nowhere by chance."""
    if re.search(r"\bfaults\b", config.option.markexpr):
        return
    long = [item for item in items if item.get_closest_marker("faults")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", range(RUNS), ids=[f"run{number}" for number in range(RUNS)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    result = yield
    if result.failed:  # type: ignore[attr-defined]
        item.config.stash[FAILED] = True
        for measurement in item.stash.get(MEASUREMENTS, []):
            measurement.passed = False
    return result  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    measurements = config.stash.get(MEASUREMENTS, [])
    if not measurements:
        return
    terminalreporter.section(f"faults (seed {SEED})")
    for line in report.table(measurements):
        terminalreporter.write_line(line)
    if path := os.environ.get("BAKEOFF_FAULT_REPORT"):
        report.write_json(Path(path), measurements)


class Clusters:
    """The one cluster that tests share; after a test that failed they get a new one."""

    def __init__(self, servers: Servers, folders: pytest.TempPathFactory) -> None:
        self._servers = servers
        self._folders = folders
        self._cluster: Cluster | None = None

    def sound(self, *, new: bool) -> Cluster:
        """A cluster with everything running and nothing to do."""
        if self._cluster is not None and (new or not self._becomes_quiet(self._cluster)):
            self.close()
        self._servers.start()
        if self._cluster is None:
            self._cluster = self._build()
        self._cluster.resume_everything()
        return self._cluster

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    @staticmethod
    def _becomes_quiet(cluster: Cluster) -> bool:
        try:
            wait_until(cluster.quiet, QUIET_WITHIN)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the next test gets another one
            return False
        return True

    def _build(self) -> Cluster:
        folder = self._folders.mktemp("cluster")
        switches = folder / "switches"
        switches.mkdir()
        write_registry(folder / "models.toml", switches)
        cluster = Cluster(
            folder=folder,
            database_url=_new_database(self._servers.postgres.url),
            redis_url=self._servers.redis.url,
            models_file=folder / "models.toml",
            settings=dict(SETTINGS),
            servers=self._servers,
            switches=switches,
        )
        migrate.upgrade(cluster.database_url)
        guard.install(cluster)
        with cluster.redis_client() as client:
            client.flushall()
        try:
            cluster.start_everything()
        except BaseException:
            cluster.close()
            raise
        return cluster


def _new_database(server_url: str) -> str:
    name = f"faults_{uuid4().hex[:12]}"
    engine = make_engine(server_url, application="test").execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    servers = Servers.in_folder(tmp_path_factory.mktemp("fault-servers"))
    servers.start()
    clusters = Clusters(servers, tmp_path_factory)
    try:
        yield clusters
    finally:
        clusters.close()
        servers.stop()


@pytest.fixture
def cluster(clusters: Clusters, request: pytest.FixtureRequest) -> Cluster:
    """Everything runs, nothing is in flight."""
    failed = request.config.stash.get(FAILED, False)
    request.config.stash[FAILED] = False
    return clusters.sound(new=failed)


@pytest.fixture(scope="module")
def baseline(clusters: Clusters, request: pytest.FixtureRequest) -> float:
    """Seconds that the same number of tasks takes where nothing goes wrong."""
    failed = request.config.stash.get(FAILED, False)
    request.config.stash[FAILED] = False
    load = Load(clusters.sound(new=failed), f"baseline {uuid4().hex[:8]}", tasks_of(request), Random(0))  # noqa: S311
    load.add()
    outcome = load.settle()
    outcome.assert_sound()
    assert outcome.repeated_calls == 0
    return outcome.seconds


def tasks_of(request: pytest.FixtureRequest) -> int:
    """How many tasks the tests of a module put in flight."""
    return int(getattr(request.module, "TASKS", TASKS))


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Randomness that `BAKEOFF_FAULT_SEED` repeats, different for every test."""
    return Random(f"{SEED} {request.node.nodeid}")  # noqa: S311 - it must repeat


@pytest.fixture
def in_flight(cluster: Cluster, chance: Random, request: pytest.FixtureRequest) -> Callable[..., Load]:
    """Puts the module's number of tasks in flight; see `Load.add`."""

    def start(**what: object) -> Load:
        load = Load(cluster, f"{request.node.name[:70]} {uuid4().hex[:8]}", tasks_of(request), chance)
        load.add(**what)  # type: ignore[arg-type]
        return load

    return start


@pytest.fixture
def settled(baseline: float, request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """Waits for the end of a load and measures it; see `Load.settle`."""

    def settle(load: Load, **how: float) -> Outcome:
        outcome = load.settle(**how)
        name = request.node.originalname.removeprefix("test_").replace("_", " ")
        variant = re.sub(r"-?run\d+", "", request.node.callspec.id) if hasattr(request.node, "callspec") else ""
        measured = outcome.measurement(f"{name} [{variant}]" if variant else name, SEED, baseline)
        for stash in (request.config.stash, request.node.stash):
            stash.setdefault(MEASUREMENTS, []).append(measured)
        return outcome

    return settle
