"""Postgres and Redis over TLS, with passwords and client certificates: what must work does, what must not is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import kombu
import pytest
import redis
from celery import Celery
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db.engine import listen, make_engine, transaction
from db.errors import Unreachable
from db.settings import Settings
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.tls_parts import Front, Papers, fronts, make_papers

pytestmark = [pytest.mark.integration, pytest.mark.api]

USER, PASSWORD = "bakeoff-tls", "an ACL's / own @ word"


@dataclass(frozen=True)
class Secured:
    """An installation whose servers are reached over TLS only."""

    installation: Installation
    papers: Papers
    postgres: Front
    valkey: Front

    def database(self, host: str = "localhost", **changed: Any) -> str:
        papers = self.papers
        query = {
            "sslmode": "verify-full",
            "sslrootcert": papers.ca,
            "sslcert": papers.certificate,
            "sslkey": papers.key,
        }
        said = {name: str(value) for name, value in (query | changed).items() if value}
        url = make_url(self.installation.database_url).set(host=host, port=self.postgres.port, query=said)
        return url.render_as_string(hide_password=False)

    def broker(self, host: str = "localhost", password: str = PASSWORD, scheme: str = "rediss", **changed: Any) -> str:
        papers = self.papers
        query = {"ssl_ca_certs": papers.ca, "ssl_certfile": papers.certificate, "ssl_keyfile": papers.key} | changed
        said = urlencode({name: value for name, value in query.items() if value})
        account = urlencode({USER: password}).replace("=", ":").replace("+", "%20")
        return f"{scheme}://{account}@{host}:{self.valkey.port}/0" + (f"?{said}" if scheme == "rediss" else "")


@pytest.fixture(scope="module")
def secured(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    database, broker = make_url(servers[0]), make_url(servers[1])
    papers = make_papers(tmp_path_factory.mktemp("papers"))
    postgres = Front(papers, (str(database.host), int(database.port or 0)), postgres=True)
    valkey = Front(papers, (str(broker.host), int(broker.port or 0)))
    client = redis.Redis.from_url(servers[1])
    client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
    with fronts(postgres, valkey):
        for made in make_installation(servers, tmp_path_factory.mktemp("tls"), template):
            found = Secured(made, papers, postgres, valkey)
            made.settings |= {"BAKEOFF_DATABASE_URL": found.database(), "BAKEOFF_REDIS_URL": found.broker()}
            yield found
    client.execute_command("ACL", "DELUSER", USER)
    client.close()


def test_a_task_runs_from_end_to_end_with_every_connection_in_tls(secured: Secured) -> None:
    here = secured.installation
    here.start("intake", "worker", "--intake")
    here.start_all(("alpha", "beta"))
    here.wait_ready(5)

    told = here.run("submit", "over TLS", "--capability", "text-generation", "--wait", "--json")
    with Celery("elsewhere", broker=Settings(redis_url=secured.broker()).broker) as elsewhere:
        elsewhere.send_task("bakeoff.submit", kwargs={"request": "by Celery", "capability": "text-generation"})
    wait_until(lambda: here.query("SELECT 1 FROM task WHERE source = 'celery' AND status = 'done'"), 60, here.logs)

    assert told.code == 0, told.err + here.logs()
    rows = here.query(
        "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() AND application_name NOT LIKE '%test%'"
    )
    assert len(rows) > 4
    assert {row.client_port for row in rows} <= secured.postgres.upstream
    assert secured.postgres.plain == 0
    assert len(secured.valkey.upstream) > 4
    here.stop_all()


@pytest.mark.parametrize(
    ("host", "changed", "says"),
    [
        ("127.0.0.1", {}, "does not match"),  # the certificate is that of localhost
        ("localhost", {"sslrootcert": "stranger"}, "certificate verify failed"),
        ("localhost", {"sslcert": None, "sslkey": None}, "does not answer"),  # the server asks for a client's own
        ("localhost", {"sslmode": "disable"}, "does not answer"),
    ],
)
def test_postgres_is_refused_where_a_paper_is_wrong(
    secured: Secured, host: str, changed: dict[str, Any], says: str
) -> None:
    if changed.get("sslrootcert"):
        changed = {"sslrootcert": secured.papers.stranger}
    url = secured.database(host, **changed)
    engine = make_engine(url, application="test")

    with pytest.raises(Unreachable, match=says) as refused, transaction(engine) as connection:
        connection.execute(text("SELECT 1"))
    with pytest.raises(Unreachable, match=says):
        listen(url)

    engine.dispose()
    assert str(make_url(url).password) not in str(refused.value)


def test_postgres_refuses_a_wrong_password_over_tls(secured: Secured) -> None:
    url = make_url(secured.database()).set(password="wrong")  # noqa: S106 - of nobody
    engine = make_engine(url.render_as_string(hide_password=False), application="test")

    with pytest.raises(Unreachable, match="password authentication failed"), transaction(engine):
        pass
    engine.dispose()


def by_client(broker: str) -> bool:
    """As a worker's watch does."""
    with redis.Redis.from_url(broker, socket_timeout=10) as client:
        return bool(client.ping())


def by_broker(broker: str) -> bool:
    """As whoever sends and takes messages."""
    options = {"max_retries": 0}
    with kombu.Connection(broker, transport="worker.thrift:Transport", transport_options=options) as connection:
        return bool(connection.default_channel.client.ping())


def by_counter(broker: str) -> bool:
    """As the counter of chords."""
    app = Celery("counts", broker=broker, backend=f"worker.coordination:ChordCounter+{broker}")
    return bool(app.backend.client.ping())


CLIENTS = {"client": by_client, "broker": by_broker, "counter": by_counter}


@pytest.mark.parametrize("by", CLIENTS)
def test_redis_is_reached_by_an_acl_user_over_tls(secured: Secured, by: str) -> None:
    assert CLIENTS[by](Settings(redis_url=secured.broker()).broker)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "host": ({"host": "127.0.0.1"}, "not valid for '127.0.0.1'"),
    "authority": ({"ssl_ca_certs": "stranger"}, "certificate verify failed"),
    "no certificate": ({"ssl_certfile": None, "ssl_keyfile": None}, "(?i)certificate required|closed|reset|lost"),
    "password": ({"password": "wrong"}, "(?i)invalid username-password"),
    "no TLS": ({"scheme": "redis"}, "(?i)closed|reset|lost"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("by", CLIENTS)
def test_redis_is_refused_where_a_paper_is_wrong(secured: Secured, wrong: str, by: str) -> None:
    changed, says = WRONG[wrong]
    if "ssl_ca_certs" in changed:
        changed = {"ssl_ca_certs": secured.papers.stranger}
    broker = Settings(redis_url=secured.broker(**changed)).broker

    with pytest.raises((redis.RedisError, kombu.exceptions.OperationalError, OSError), match=says):
        CLIENTS[by](broker)


def test_a_command_says_which_server_it_was_without_its_password(secured: Secured, tmp_path: Path) -> None:
    wrong = secured.database("127.0.0.1")

    told = secured.installation.run("results", env={"BAKEOFF_DATABASE_URL": wrong})

    assert told.code == 3
    assert "does not match host name" in told.err
    assert str(make_url(wrong).password) not in told.err + told.out
