"""The API as a process: when it starts at all, what it survives, how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import httpx
import pytest
from fastapi import Request
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from db.engine import make_engine, transaction
from db.errors import SettingsError
from db.keys import Scope, create_key, revoke_key, verified_key
from db.settings import Settings
from scheduler.api.access import Access
from scheduler.api.problems import TooMany
from tests.conftest import Installation, wait_until
from tests.integration.api_parts import client_of, is_problem, post, start_api

pytestmark = pytest.mark.integration


def test_an_api_that_others_reach_needs_a_key_to_start(database: Engine) -> None:
    here = Settings(api_host="127.0.0.1")
    everywhere = Settings(api_host="0.0.0.0")  # noqa: S104

    Access(here, database).check_start()
    with pytest.raises(SettingsError, match="bakeoff keys create"):
        Access(everywhere, database).check_start()
    with transaction(database) as connection:
        create_key(connection, name="first", scopes=[Scope.ADMIN], source=None)
    Access(everywhere, database).check_start()


def test_the_first_key_may_come_as_a_secret(database: Engine) -> None:
    token = f"bakeoff_{'0a' * 16}_{'x' * 43}"
    settings = Settings(api_host="0.0.0.0", api_first_key=token)  # noqa: S104

    Access(settings, database).check_start()
    with transaction(database) as connection:
        assert verified_key(connection, token).scopes == (Scope.ADMIN,)
        revoke_key(connection, "first")
    Access(settings, database).check_start()  # a key that was revoked stays so

    with transaction(database) as connection:
        assert verified_key(connection, token) is None
    with pytest.raises(SettingsError, match="BAKEOFF_API_FIRST_KEY is no key"):
        Access(Settings(api_first_key="my password"), database).check_start()


def test_a_key_may_send_so_many_requests_a_second(database: Engine) -> None:
    with transaction(database) as connection:
        _, key = create_key(connection, name="eager", scopes=[Scope.READ], source=None)
    access = Access(Settings(api_rate=0.001), database)
    request = Request({"type": "http", "headers": []})

    assert asyncio.run(access.caller(request, key)).name == "eager"
    with pytest.raises(TooMany) as refused:
        asyncio.run(access.caller(request, key))

    assert 0 < int(refused.value.headers["Retry-After"]) <= 1000


def test_whoever_kills_it_no_accepted_task_is_lost(installation: Installation) -> None:
    url = start_api(installation)
    accepted: list[str] = []
    stop = threading.Event()

    def submit() -> None:
        with client_of(url) as client:
            while not stop.is_set():
                try:
                    done = post(client, "under fire")
                except httpx.TransportError:
                    return
                assert done.status_code == 202
                accepted.append(done.json()["id"])

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(accepted) > 20)
    installation.stop("api", signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()

    stored = {str(row.id) for row in installation.query("SELECT id FROM task")}
    assert set(accepted) <= stored


def test_it_lives_while_postgres_is_away_and_stops_in_order(
    installation: Installation, servers: tuple[str, str]
) -> None:
    url = start_api(installation)
    name = make_url(installation.database_url).database
    admin = make_engine(servers[0], application="test").execution_options(isolation_level="AUTOCOMMIT")
    with client_of(url) as client, admin.connect() as server:
        server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        server.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"), {"n": name})

        wait_until(lambda: post(client).status_code == 503)
        refused = post(client)
        is_problem(refused, 503, "unreachable")
        assert refused.headers["retry-after"] == "5"
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        wait_until(lambda: post(client).status_code == 202)

        with client.stream("GET", "/v1/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": keep-alive"
            assert installation.stop("api") == 0
            assert not [line for line in lines if line and not line.startswith((":", "id: "))]
    admin.dispose()


def test_several_processes_share_the_port_and_leave_with_their_parent(installation: Installation) -> None:
    url = start_api(installation, api_workers="2")
    with client_of(url) as client:
        assert {post(client, f"number {number}").status_code for number in range(8)} == {202}

    kill_parent_alone(installation)

    wait_until(lambda: is_closed(url), 60, installation.logs)


def test_processes_that_start_later_than_their_parent_ends_leave_too(installation: Installation) -> None:
    installation.settings["BAKEOFF_API_WORKERS"] = "2"
    installation.start("api", "api", "--port", "0")
    log = installation.folder / "api.log"
    wait_until(lambda: "listens on" in log.read_text(), 60, installation.logs)
    url = log.read_text().split("listens on ")[1].split()[0]

    kill_parent_alone(installation)  # its children are still at their imports

    wait_until(lambda: is_closed(url), 60, installation.logs)


def kill_parent_alone(installation: Installation) -> None:
    """As the kernel would where memory is short."""
    parent = installation.processes.pop("api")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)


def is_closed(url: str) -> bool:
    """Whether no process listens there any more."""
    try:
        httpx.get(f"{url}/healthz", timeout=5)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False
