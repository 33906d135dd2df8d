"""The same against a Postgres that is built with TLS, where this machine has one: the packaged one is not.

It binds the password to the connection (SCRAM-SHA-256-PLUS), which no front can do for it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db import migrate
from db.engine import listen, make_engine, transaction
from db.errors import Unreachable
from tests.conftest import wait_until
from tests.integration.tls_parts import Papers, make_papers

pytestmark = [pytest.mark.integration, pytest.mark.api]

PASSWORD = "of-a-test"  # noqa: S105


@dataclass(frozen=True)
class Server:
    """A Postgres that takes nobody without TLS, a password and a certificate of its authority."""

    papers: Papers
    port: int

    def url(self, host: str = "localhost", **changed: str) -> str:
        papers = self.papers
        query = {"sslmode": "verify-full", "sslrootcert": str(papers.ca), "sslcert": str(papers.certificate),
                 "sslkey": str(papers.key), "channel_binding": "require"} | changed  # fmt: skip
        url = make_url("postgresql://").set(
            username="bakeoff", password=PASSWORD, host=host, port=self.port, database="postgres", query=query
        )
        return url.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = shutil.which("postgres")
    programs = Path(found).resolve().parent if found else Path("nowhere")
    if not (programs / "initdb").is_file() or b"OpenSSL" not in (programs / "postgres").read_bytes():
        pytest.skip("no Postgres with TLS on the PATH")
    papers = make_papers(tmp_path_factory.mktemp("papers"))
    with tempfile.TemporaryDirectory(prefix="bakeoff-tls-") as folder:
        user = "nobody" if os.geteuid() == 0 else None  # Postgres refuses to be root
        data = _cluster(programs, Path(folder), papers, user)
        for _ in range(3):  # somebody else may take the port that was free
            made, process = _started(programs, data, papers, user)
            wait_until(lambda made=made, process=process: process.poll() is not None or _answers(made), 60)
            if process.poll() is None:
                break
        try:
            assert process.poll() is None
            yield made
        finally:
            process.terminate()
            process.wait(30)


def _cluster(programs: Path, folder: Path, papers: Papers, user: str | None) -> Path:
    data, secret = folder / "data", folder / "password"
    data.mkdir(mode=0o700)
    secret.write_text(PASSWORD)
    folder.chmod(0o755)
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(data, account.pw_uid, account.pw_gid)
    command = [programs / "initdb", "-D", data, "-U", "bakeoff", "--pwfile", secret, "-A", "scram-sha-256", "--no-sync"]
    subprocess.run(command, user=user, check=True, capture_output=True, cwd="/")
    certificate = papers.authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(data / "server.pem")
    certificate.private_key_pem.write_to_path(data / "server.key")
    (data / "server.key").chmod(0o600)
    shutil.copy(papers.ca, data / "ca.pem")
    (data / "pg_hba.conf").write_text("hostssl all all localhost scram-sha-256 clientcert=verify-ca\n")
    if user is not None:
        for name in ("server.pem", "server.key", "ca.pem"):
            os.chown(data / name, account.pw_uid, account.pw_gid)
    return data


def _started(programs: Path, data: Path, papers: Papers, user: str | None) -> tuple[Server, subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = {"port": port, "listen_addresses": "localhost", "unix_socket_directories": "", "ssl": "on", "fsync": "off",
            "ssl_cert_file": "server.pem", "ssl_key_file": "server.key", "ssl_ca_file": "ca.pem"}  # fmt: skip
    options = [part for name, value in said.items() for part in ("-c", f"{name}={value}")]
    return Server(papers, port), subprocess.Popen([programs / "postgres", "-D", data, *options], user=user)


def _answers(server: Server) -> bool:
    try:
        listen(server.url()).close()
    except Unreachable:
        return False
    return True


def test_the_schema_is_made_and_read_over_tls(server: Server) -> None:
    migrate.upgrade(server.url())
    engine = make_engine(server.url(), application="test")
    with transaction(engine) as connection:
        connection.execute(text("INSERT INTO task (request) VALUES ('over TLS')"))
        version = connection.execute(text("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar()
    engine.dispose()

    assert str(version).startswith("TLSv1.")


@pytest.mark.parametrize(
    ("host", "changed", "says"),
    [
        ("127.0.0.1", {}, "does not match"),
        ("localhost", {"sslrootcert": "stranger"}, "certificate verify failed"),
        ("localhost", {"sslcert": "/nowhere", "sslkey": "/nowhere"}, "certificate"),
        ("localhost", {"sslmode": "disable", "channel_binding": "prefer"}, "no pg_hba.conf entry"),
    ],
)
def test_it_refuses_and_is_refused_where_a_paper_is_wrong(
    server: Server, host: str, changed: dict[str, str], says: str
) -> None:
    if "sslrootcert" in changed:
        changed = {"sslrootcert": str(server.papers.stranger)}
    engine = make_engine(server.url(host, **changed), application="test")

    with pytest.raises(Unreachable, match=says), transaction(engine):
        pass
    engine.dispose()
