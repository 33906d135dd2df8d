"""schemathesis over the whole API with every check on, a real server and workers behind it: `make test-api`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from db.keys import Scope
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import make_key, start_api
from tests.integration.curation_parts import conversations, write_array

pytestmark = [pytest.mark.integration, pytest.mark.api, pytest.mark.timeout(900)]

EXAMPLES = os.environ.get("BAKEOFF_API_EXAMPLES", "15")  # per operation and phase
SEED = os.environ.get("BAKEOFF_API_SEED", "1")


@pytest.fixture
def served(servers: tuple[str, str], template: str, tmp_path: Path) -> Iterator[tuple[Installation, str]]:
    for made in make_installation(servers, tmp_path, template):
        made.start_all(("alpha", "beta", "gamma"))
        write_array(tmp_path / "instructions.json", conversations(3))  # of the schema's own example
        yield (
            made,
            start_api(
                made,
                api_rate="0",
                curation_folder=str(tmp_path),
                api_keep_alive="0.2",
                api_stream_seconds="0.3",
                api_chat_timeout="300",
                max_request_chars="20000",
                max_bulk="20",  # or chats wait behind the largest batches that the schema allows
            ),
        )


def test_the_api_is_what_its_schema_says(served: tuple[Installation, str], tmp_path: Path) -> None:
    installation, url = served
    key = make_key(installation, Scope.ADMIN)
    wait_until(lambda: httpx.get(f"{url}/v1/tasks").status_code == 401)

    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
            "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}", "--checks", "all",
            "--seed", SEED, "--max-examples", EXAMPLES, "--continue-on-failure", "--no-color", "--request-timeout", "100",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "Tested: 24" in done.stdout
