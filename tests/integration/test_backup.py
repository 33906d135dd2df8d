"""The page on backups, done: what it says to dump is dumped, into an empty database restored, and what was under way ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import redis
from PIL import Image

from scheduler.local.postgres_server import _programs
from tests.compose import CHECKOUT
from tests.conftest import Installation, _own_database, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.deploy, pytest.mark.timeout(1200)]

BLOCKS = re.findall(r"^```sh[^\n]*\n(.*?)^```", (CHECKOUT / "docs" / "backup.md").read_text(), re.MULTILINE | re.DOTALL)


def shell(installation: Installation, script: str, folder: Path) -> None:
    """A block of the page, with the pg_dump of the embedded Postgres and this checkout's `bakeoff`."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    bakeoff = programs / "bakeoff"
    bakeoff.write_text(f'#!/bin/sh\nexec {" ".join(installation.command())} "$@"\n')
    bakeoff.chmod(0o755)
    path = os.pathsep.join([str(programs), str(_programs()), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        env={**installation.environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (_programs() / "pg_dump").exists(), reason="this embedded Postgres brings no pg_dump")
def test_a_restored_installation_goes_on_where_the_dump_was_made(
    installation: Installation, servers: tuple[str, str], tmp_path: Path
) -> None:
    back_up, restore = BLOCKS
    installation.settings["BAKEOFF_BLOB_URL"] = str(tmp_path / "blobs")
    picture = tmp_path / "scan.png"
    Image.new("RGB", (40, 20)).save(picture)
    asked = installation.run("submit", "-c", "image-to-text/ocr", "--attach", str(picture), "--without-worker")
    assert asked.code == 0, asked.err  # nobody reads it before the restore
    for number in range(5):
        installation.query("INSERT INTO task (request, capability) VALUES (:r, 'text-generation')", r=f"slow {number}")
    installation.start_all(["alpha", "beta"])
    wait_until(lambda: count(installation, "candidate WHERE status = 'running'") > 0, 60, installation.logs)
    shell(installation, back_up, tmp_path)
    installation.stop_all()

    shutil.rmtree(tmp_path / "blobs", ignore_errors=True)
    client = redis.Redis.from_url(installation.redis_url)
    client.flushdb()
    client.close()
    with _own_database(servers[0]) as empty:
        installation.database_url = empty
        shell(installation, "dump=$(date +%Y-%m-%d)\n" + restore, tmp_path)
        assert count(installation, "task WHERE status <> 'done'") > 0
        installation.start_all(["alpha", "beta", "reader-a"])
        wait_until(lambda: count(installation, "task WHERE status = 'done'") == 6, 120, installation.logs)
        assert count(installation, "verdict") == 6
        installation.stop_all()


def count(installation: Installation, what: str) -> int:
    (row,) = installation.query(f"SELECT count(*) AS n FROM {what}")
    return int(row.n)
