"""The embedded servers: real processes, real folders, killed for real."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
import redis

from db.errors import BakeoffError, RefusedNow
from scheduler.local import files, run_as
from scheduler.local.servers import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer, embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

ROOT = os.geteuid() == 0
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can pass through, unlike `tmp_path`; root's servers run as 65534 here."""
    folder = Path(tempfile.mkdtemp(prefix="bakeoff servers "))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []


def wait_gone(pids: list[int], seconds: float = 15) -> list[int]:
    deadline = time.monotonic() + seconds
    alive = pids
    while alive and time.monotonic() < deadline:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and not zombie(pid)]
        time.sleep(0.05)
    return alive


def zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_restart_finds_the_data_at_the_same_addresses(open_folder: Path) -> None:
    with embedded(open_folder) as first:
        query(first[0], "CREATE TABLE kept AS SELECT 42 AS answer")
        redis.Redis.from_url(first[1]).set("kept", "yes")

    with embedded(open_folder) as second:
        assert second == first
        assert query(second[0], "SELECT answer FROM kept") == [(42,)]
        assert redis.Redis.from_url(second[1]).get("kept") == b"yes"


def test_settings_are_what_the_queue_needs(tmp_path: Path) -> None:
    with embedded(tmp_path, durable=True) as (database_url, redis_url):
        shown = dict(query(database_url, "SELECT name, setting FROM pg_settings"))
        locale = query(database_url, "SELECT datlocale, pg_encoding_to_char(encoding) FROM pg_database")
        client = redis.Redis.from_url(redis_url, decode_responses=True)
        assert (shown["fsync"], shown["synchronous_commit"], shown["full_page_writes"]) == ("on", "on", "on")
        assert (shown["listen_addresses"], shown["unix_socket_directories"]) == ("127.0.0.1", "")
        assert int(str(shown["max_connections"])) >= 200
        assert set(locale) == {("C.UTF-8", "UTF8")}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_a_password_is_needed_and_only_the_owner_can_read_it(tmp_path: Path) -> None:
    with embedded(tmp_path) as (database_url, redis_url):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(database_url.replace(database_url.split("@")[0], "postgresql://bakeoff:wrong"))
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url("redis://" + redis_url.split("@")[1]).ping()
        secrets = {database_url.split(":")[2].split("@")[0], redis_url.split(":")[2].split("@")[0]}
        for process in psutil.Process().children(recursive=True):
            assert not any(secret in part for secret in secrets for part in process.cmdline())
    for path in tmp_path.rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_long_path_with_spaces_and_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "a b \"c\" 'd' %s é" / ("x" * 100)
    folder.mkdir(parents=True)

    with embedded(folder) as (database_url, redis_url):
        assert query(database_url, "SELECT 1") == [(1,)]
        assert redis.Redis.from_url(redis_url).ping()


def test_a_port_that_was_asked_for_and_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedRedis(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(RefusedNow, match="is taken"):
            server.start()


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    server.stop()
    assert server.port
    with socket.create_server(("127.0.0.1", server.port)):
        second = EmbeddedRedis(tmp_path)
        second.start()
        second.stop()
    assert second.port != server.port


def test_two_on_one_folder_are_refused(tmp_path: Path) -> None:
    first = EmbeddedRedis(tmp_path)
    first.start()
    try:
        with pytest.raises(RefusedNow, match="Another process"):
            EmbeddedRedis(tmp_path).start()
    finally:
        first.stop()


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_killed_server_starts_again_at_its_address(tmp_path: Path, kind: type[EmbeddedServer]) -> None:
    server = kind(tmp_path, durable=False)
    url = server.start()
    try:
        server.kill()
        assert not server.alive()
        assert server.start() == url
        assert server.alive()
    finally:
        server.stop()


def test_a_stale_lock_file_with_the_id_of_another_program(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, durable=False)
    server.start()
    lock_file = (server.data / "postmaster.pid").read_text().splitlines()
    server.stop()
    lock_file[0] = str(os.getpid())  # what the kernel may do after a reboot
    (server.data / "postmaster.pid").write_text("\n".join(lock_file))

    server.start()
    server.stop()


def test_an_initdb_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    half = tmp_path / "new-half"
    (half / "data").mkdir(parents=True)
    (half / "data" / "PG_VERSION").write_text("18\n")

    server = EmbeddedPostgres(tmp_path, durable=False)
    server.start()
    server.stop()

    assert not half.exists()


def test_data_of_another_major_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(BakeoffError, match="made by Postgres 14"):
        EmbeddedPostgres(tmp_path).start()


PARENT = """
import sys, time
from pathlib import Path
from scheduler.local.servers import EmbeddedPostgres, EmbeddedRedis
servers = [kind(Path(sys.argv[1]) / kind.name) for kind in (EmbeddedPostgres, EmbeddedRedis)]
print(*[server.start() for server in servers], *[server.process.pid for server in servers], flush=True)
time.sleep(float(sys.argv[2]))
[server.stop() for server in servers]
"""


def start_parent(folder: Path, seconds: float, *prefix: str) -> tuple[subprocess.Popen[str], list[str], list[int]]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", textwrap.dedent(PARENT), str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert len(words) == 4
    return process, words[:2], [int(word) for word in words[2:]]


def test_servers_die_with_a_killed_parent_and_keep_the_data(open_folder: Path) -> None:
    parent, (database_url, _), pids = start_parent(open_folder, 60)
    query(database_url, "CREATE TABLE kept AS SELECT 7 AS n")

    parent.kill()
    parent.wait()

    assert wait_gone(pids) == []
    with embedded(open_folder) as (again, _):
        assert again == database_url
        assert query(again, "SELECT n FROM kept") == [(7,)]


def test_a_server_whose_parent_could_not_take_it_along_is_found_and_stopped(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path, durable=False)
    first.start()
    assert first.process is not None
    assert first._lock is not None
    os.close(first._lock)  # as if its parent had died without a word

    second = EmbeddedPostgres(tmp_path, durable=False)
    second.start()
    try:
        assert first._process is not None
        assert first._process.poll() is not None
        assert query(second.url, "SELECT 1") == [(1,)]
    finally:
        second.stop()


@pytest.mark.skipif(not ROOT, reason="the other tests are the ones of a normal user")
def test_as_a_normal_user(tmp_path: Path) -> None:
    as_user = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    parent, (database_url, redis_url), _ = start_parent(tmp_path, 1, *as_user)

    assert query(database_url, "SELECT 1") == [(1,)]
    assert redis.Redis.from_url(redis_url).ping()
    assert parent.wait(20) == 0


@pytest.mark.skipif(not ROOT, reason="only root changes user")
class TestAsRoot:
    def test_it_runs_as_nobody_where_nobody_reaches_the_folder(self, open_folder: Path) -> None:
        server = EmbeddedPostgres(open_folder, durable=False)
        if run_as.choose(open_folder, server.program()) != run_as.AS_NOBODY:
            pytest.skip("the packages lie in a folder closed to others")
        server.start()
        assert server.process is not None
        assert psutil.Process(server.process.pid).uids().effective == run_as.NOBODY
        server.stop()

    def test_it_runs_in_a_user_namespace_below_a_closed_folder(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        server = EmbeddedPostgres(tmp_path / "closed", durable=False)
        server.start()
        assert server.process is not None
        assert psutil.Process(server.process.pid).uids().effective == 0
        server.stop()

    def test_it_moves_between_the_two(self, open_folder: Path) -> None:
        owners = []
        for mode in (0o755, 0o700, 0o755):
            open_folder.chmod(mode)
            with embedded(open_folder) as (database_url, redis_url):
                query(database_url, "CREATE TABLE IF NOT EXISTS moved (n int)")
                query(database_url, "INSERT INTO moved VALUES (1)")
                redis.Redis.from_url(redis_url).incr("moved")
            owners.append((open_folder / "postgres" / "data").stat().st_uid)
        with embedded(open_folder) as (database_url, redis_url):
            assert query(database_url, "SELECT count(*) FROM moved") == [(3,)]
            assert redis.Redis.from_url(redis_url).get("moved") == b"3"
        assert owners[1] == 0

    def test_nothing_outside_of_its_folder_changes(self, open_folder: Path) -> None:
        around = [open_folder, open_folder.parent, CHECKOUT, *CHECKOUT.parents, Path(sys.prefix)]
        secret = open_folder / "of-somebody-else"
        secret.write_text("x")
        secret.chmod(0o640)
        before = [(path.stat().st_mode, path.stat().st_uid) for path in (*around, secret)]

        with embedded(open_folder / "home"):
            pass

        assert [(path.stat().st_mode, path.stat().st_uid) for path in (*around, secret)] == before

    def test_where_nothing_works_it_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_as, "_try", lambda *_: "not here")
        with pytest.raises(BakeoffError, match=r"normal user.*BAKEOFF_DATABASE_URL"):
            EmbeddedPostgres(tmp_path).start()


def test_logs_are_cut_when_they_grow(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    server.stop()
    server.log.write_bytes(b"x" * (11 * 1024 * 1024))

    server.start()
    server.stop()

    assert server.log.stat().st_size < 100_000
    assert server.log.with_name("redis.log.1").stat().st_size == 11 * 1024 * 1024


def test_a_free_port_is_one_that_nobody_listens_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not files.port_is_free(server.getsockname()[1])
    assert files.port_is_free(files.free_port())


def test_a_port_is_looked_for_at_the_address_that_it_is_for(tmp_path: Path) -> None:
    if not files.port_is_free(0, "::1"):
        pytest.skip("this machine has no ::1")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        taken = server.getsockname()[1]

        assert not files.port_is_free(taken, "::1")
        found = files.remembered_port(tmp_path / "api.port", taken, "::1")

    assert found != taken
    assert files.port_is_free(found, "::1")
    assert files.remembered_port(tmp_path / "api.port", taken, "::1") == taken  # once it is free again


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, durable=False)
    server.start()
    server.stop()
    (server.data / "pg_hba.conf").write_text("nonsense\n")

    with pytest.raises(BakeoffError, match=r"(?s)does not start.*pg_hba\.conf"):
        server.start()
    assert server.process is None
    assert signal.SIGINT in dict(server.stop_steps)
