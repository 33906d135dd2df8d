"""Every container command of `docker/compose.yaml`, run here as the image would run it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from db.settings import Settings
from tests.compose import CHECKOUT, OURS
from tests.conftest import _own_database, wait_until
from tests.integration.containers import Host, why_not

WHY_NOT = why_not()
pytestmark = [pytest.mark.integration, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

MODEL_WORKERS = {
    name for name, s in OURS.items() if s["command"][:2] == ["bakeoff", "worker"] and s["command"][2][0] != "-"
}


@pytest.fixture
def host(servers: tuple[str, str], tmp_path: Path) -> Iterator[Host]:
    """Servers with nothing in them."""
    client = redis.Redis.from_url(servers[1])
    client.flushdb()
    client.close()
    with _own_database(servers[0]) as database_url:
        made = Host(tmp_path, database_url, servers[1])
        yield made
        made.close()


def test_from_an_empty_database_to_a_task_over_http(host: Host) -> None:
    assert host.start("migrate").finish() == 0
    scheduler, api = host.start("scheduler"), host.start("api")
    scheduler.wait_healthy()
    api.wait_healthy()

    with httpx.Client(base_url=f"http://127.0.0.1:{api.port}/v1") as client:
        assert client.post("/tasks", json={"request": "Name a river."}).status_code == 401
        client.headers["Authorization"] = f"Bearer {host.api_key}"
        task = client.post("/tasks", json={"request": "Name a river.", "capability": "text-generation"})
        assert task.status_code == 202, task.text
        path = f"/tasks/{task.json()['id']}"
        wait_until(lambda: client.get(path).json()["status"] != "pending", 60, scheduler.log.read_text)
    listed = api.inside("bakeoff", "keys", "list", "--json")
    assert [key["name"] for key in json.loads(listed.stdout)] == ["first"], listed.stderr

    assert api.inside("sh", "-c", f"id -u; touch /etc/x {CHECKOUT}/x /var/lib/bakeoff/x /tmp/x").stdout == "10001\n"
    written = api.inside("sh", "-c", f"ls /etc/x {CHECKOUT}/x /var/lib/bakeoff/x /tmp/x").stdout.split()
    assert written == ["/tmp/x", "/var/lib/bakeoff/x"]  # noqa: S108
    assert scheduler.stop() == 0
    assert api.stop() in {0, -15}


def own_copy(cache: Path, to: Path) -> Path:
    """The weights of this machine in a volume of the container's user, which Docker would have had fetched.

    The files themselves are the same ones, unless they lie on another disk; the folders are the user's own.
    """

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    shutil.copytree(cache, to, symlinks=True, copy_function=link, ignore=shutil.ignore_patterns("locks", "staging"))
    for folder in (to, *to.rglob("*/")):
        os.chown(folder, 10001, 10001)
    return to


@pytest.mark.deploy
@pytest.mark.timeout(1200)
@pytest.mark.weights
def test_every_container_gets_healthy_and_stops_in_its_grace(host: Host, tmp_path: Path) -> None:
    host.cache = own_copy(Settings().cache, tmp_path / "fetched")
    assert host.start("migrate").finish() == 0
    assert host.start("weights").finish(300) == 0, host.running["weights"].log.read_text()
    for name in sorted(OURS.keys() - {"migrate", "weights", "worker-gpu"}):
        container = host.start(name)
        container.wait_healthy()
        if name in MODEL_WORKERS:
            check = container.inside
            wait_until(
                lambda ask=check: ask("python", "/opt/bakeoff/health.py", "ready").returncode == 0,
                120,
                container.log.read_text,
            )

        assert container.stop() in {0, -15}, f"{name}\n{container.log.read_text()[-3000:]}"
        assert "Traceback" not in container.log.read_text(), f"{name}\n{container.log.read_text()[-3000:]}"
