"""The commands, against a small server that speaks the hub's API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import typer
from typer.testing import CliRunner

from db.errors import InvalidRequest, Unreachable
from db.metadata import read_metadata
from db.settings import load_settings
from scheduler.cli.metadata import import_command, refresh_command
from scheduler.metadata.hub import fetch_metadata

REGISTRY = """
[profiles.demo]
models = ["tiny"]

[capabilities.automatic-speech-recognition]
input = "audio"
instruction = "Write down what is said."
judge = "j"

[judges.j]
method = "scripted"

[models.tiny]
capability = "automatic-speech-recognition"
backend = "transformers"
source = { hub = "openai/whisper-tiny" }

[models.served]
capability = "automatic-speech-recognition"
backend = "openai"
source = { server = "http://gpu/v1", model = "org/private" }

[models.scripted]
capability = "automatic-speech-recognition"
backend = "scripted"
"""


class Hub(BaseHTTPRequestHandler):
    """`GET /api/models/ORG/NAME?expand=...` as the hub answers it."""

    models: dict[str, dict[str, Any]]
    asked: list[tuple[str, list[str]]]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name = url.path.removeprefix("/api/models/")
        self.asked.append((name, sorted(parse_qs(url.query).get("expand", []))))
        model = self.models.get(name)
        if model is None:
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        else:
            self._send(200, {"_id": "1", "id": name, **model}, {})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    Hub.models = {"openai/whisper-tiny": {"downloads": 400, "likes": 30, "trendingScore": 7, "pipeline_tag": "automatic-speech-recognition"}}  # fmt: skip
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[typer.Typer]:
    (tmp_path / "models.toml").write_text(REGISTRY)
    monkeypatch.setenv("BAKEOFF_MODELS_FILE", str(tmp_path / "models.toml"))
    load_settings.cache_clear()
    app = typer.Typer()
    app.command("import")(import_command)
    app.command("refresh")(refresh_command)
    yield app
    load_settings.cache_clear()


def run(app: typer.Typer, *arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_hubs_figures_are_read(hub: str) -> None:
    fetched = fetch_metadata(["openai/whisper-tiny"], hub, "now")

    model = fetched.models["openai/whisper-tiny"]
    assert (model.downloads, model.likes, model.trending, model.origin) == (400, 30, 7, hub)
    assert Hub.asked == [("openai/whisper-tiny", ["downloads", "likes", "pipeline_tag", "trendingScore"])]


def test_a_model_that_the_hub_does_not_know_does_not_stop_the_others(hub: str) -> None:
    fetched = fetch_metadata(["no/such", "bad//name", "openai/whisper-tiny"], hub, "now")

    assert list(fetched.models) == ["openai/whisper-tiny"]
    assert fetched.failed["no/such"] == "the hub knows no such model, or shows it to others only"
    assert "bad//name" in fetched.failed


def test_a_hub_that_does_not_answer_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 does not answer .*HF_ENDPOINT"):
        fetch_metadata(["a/b"], "http://127.0.0.1:9", "now", seconds=2)


def test_offline_is_said_as_such(monkeypatch: pytest.MonkeyPatch, hub: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        fetch_metadata(["a/b"], hub, "now")


def test_refresh_writes_beside_the_registry_and_fails_where_a_model_did(
    app: typer.Typer, hub: str, tmp_path: Path
) -> None:
    done = run(app, "refresh", "--endpoint", hub, "--json")

    assert done.exit_code == 1  # org/private is not shown
    assert json.loads(done.stdout)["models"]["openai/whisper-tiny"]["downloads"] == 400
    assert list(json.loads(done.stdout)["failed"]) == ["org/private"]
    assert read_metadata(tmp_path / "models.metadata.json")["openai/whisper-tiny"].trending == 7


def test_refresh_asks_for_imported_models_only_when_told(app: typer.Typer, hub: str, tmp_path: Path) -> None:
    Hub.models["org/private"] = Hub.models["org/more"] = {"downloads": 1, "likes": 1}
    (tmp_path / "list.jsonl").write_text('{"id": "org/more", "likes": 5}\n')
    run(app, "import", str(tmp_path / "list.jsonl"))

    assert run(app, "refresh", "--endpoint", hub).exit_code == 0
    assert "org/more" not in [name for name, _ in Hub.asked]
    assert run(app, "refresh", "--endpoint", hub, "--all").exit_code == 0
    assert read_metadata(tmp_path / "models.metadata.json")["org/more"].likes == 1


def test_import_says_which_of_our_models_it_knows(app: typer.Typer, tmp_path: Path) -> None:
    rows = [{"id": "openai/whisper-tiny", "downloads": 9}, {"id": "scripted", "likes": 1}, {"id": "x/y"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))

    done = run(app, "import", str(tmp_path / "list.jsonl"), "--json")

    said = json.loads(done.stdout)
    assert (said["imported"], said["models"]) == (3, {"tiny": "openai/whisper-tiny", "scripted": "scripted"})
    assert read_metadata(tmp_path / "models.metadata.json")["openai/whisper-tiny"].downloads == 9


def test_import_of_a_folder_takes_its_name_from_the_caller(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "README.md").write_text("A model that says nothing itself.")

    run(app, "import", str(tmp_path / "weights"), "--id", "scripted")

    assert (
        read_metadata(tmp_path / "models.metadata.json")["scripted"].description == "A model that says nothing itself."
    )


def test_import_refuses_what_is_not_there_and_an_id_for_a_list(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text("")

    assert isinstance(run(app, "import", str(tmp_path / "gone")).exception, InvalidRequest)
    assert "--id" in str(run(app, "import", str(tmp_path / "list.jsonl"), "--id", "x").exception)
