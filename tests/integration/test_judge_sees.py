"""What a judge has of a subtask's files, on a real database and against a real server: it sees, is told, or says neither."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from db.blobs import blob_store
from db.errors import RegistryError
from db.queries import task_story
from db.settings import Settings
from db.verdicts import claim_judging, load_to_judge
from db.workers import sync_registry
from scheduler.cli.output import console
from scheduler.cli.story import print_story
from tests.conftest import SCRIPTED
from tests.integration.test_rules import plan, send
from tests.integration.test_transitions import finish_all, rows, run
from tests.unit.test_openai_backend import Answer, Fake, chat, picture, serving
from worker.judging import judge_wave
from worker.process import ModelProcess
from worker.role import WorkerRole

pytestmark = pytest.mark.integration

JUDGES = """
[judges.looks]
method = "choice"
model = "seer"

[judges.reads]
method = "choice"
model = "writer"

[models.seer]
capability = "text-generation"
backend = "openai"
source = { server = "URL", model = "m" }
reads = ["image"]

[models.writer]
capability = "text-generation"
backend = "openai"
source = { server = "URL", model = "m" }

[models.blind]
capability = "text-generation"
backend = "scripted"
reads = ["image"]

[judges.mistaken]
method = "choice"
model = "blind"
"""


def first_letter(_path: str, body: Any, _raw: bytes) -> Answer:
    """The probabilities of a model that prefers what says `beta`; the writer tells none, and replies."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    letter = "A" if '<answer letter="A">\nbeta' in text else "B"
    if not body.get("logprobs"):
        return 200, chat(json.dumps({"choice": letter}))
    if isinstance(content, str):
        return 400, {"error": {"message": "no logprobs here"}}
    top = [{"token": one, "logprob": -0.1 if one == letter else -3.0} for one in "AB"]
    return 200, chat(letter, logprobs={"content": [{"top_logprobs": top}]})


@pytest.fixture
def server() -> Iterator[Fake]:
    with serving(first_letter) as running:
        yield running


@pytest.fixture
def process(tmp_path: Path, database: Engine, server: Fake) -> ModelProcess:
    models_file = tmp_path / "models.toml"
    text = SCRIPTED.replace('"lonely"]', '"lonely", "seer", "writer", "blind"]')
    models_file.write_text(text + JUDGES.replace("URL", server.url))
    settings = Settings(models_file=models_file, profile="demo", blob_url=(tmp_path / "blobs").as_uri())
    with database.begin() as connection:
        sync_registry(connection, settings.registry)
    return ModelProcess(settings, WorkerRole(name="judge", judge=True), database)


def described(
    process: ModelProcess, database: Engine, judge: str, said: dict[str, str], *, judged: bool = True
) -> tuple[UUID, list[UUID]]:
    """Captions of a picture, of which other steps of the task said something, that wait for a judge."""
    digest = blob_store(process.settings.blobs).put(picture().data)
    run(database, "INSERT INTO artifact (sha256, size, media_type) VALUES (:s, 1, 'image/png')", s=digest)
    task = plan(database, needs={"caption": (), **dict.fromkeys(said, ())}, inputs=[{"attachment": 0}])
    attachments = json.dumps([{"sha256": digest, "name": "cat.png"}])
    run(database, "UPDATE task SET attachments = CAST(:a AS jsonb)", a=attachments)
    run(database, "UPDATE subtask SET capability = CASE name WHEN 'caption' THEN 'image-to-text/caption' ELSE name END")
    for name, text in said.items():
        messages = send(database, task, "alpha", name=name)
        finish_all(database, messages, text)
        if judged:
            judge_wave(process, uuid4(), messages[0].subtask_ids)
    run(database, "UPDATE subtask SET judge = :judge WHERE name = 'caption'", judge=judge)
    messages = send(database, task, "alpha", "beta", name="caption")
    for message in messages:
        finish_all(database, [message], f"{message.model}'s")
    return task, messages[0].subtask_ids


def verdict_of(database: Engine, task: UUID) -> dict[str, Any]:
    with database.begin() as connection:
        (told,) = [s["verdict"] for s in task_story(connection, task)["subtasks"] if s["name"] == "caption"]
    verdict: dict[str, Any] = told
    return verdict


def test_a_judge_whose_model_can_see_is_shown_the_picture(
    process: ModelProcess, database: Engine, server: Fake
) -> None:
    task, subtasks = described(process, database, "looks", {"image-to-text/ocr": "EXIT"})
    judge_wave(process, uuid4(), subtasks)
    verdict = verdict_of(database, task)
    assert (verdict["winner"], verdict["seen"]) == ("beta", "image")
    assert verdict["prompt_version"] == "choice-1+exhibits-1"
    images = [
        part for _, body, _ in server.seen for part in body["messages"][0]["content"] if part["type"] == "image_url"
    ]
    assert len(images) == 2  # one in each order
    assert "EXIT" not in json.dumps(server.seen[0][1])


def test_a_judge_of_words_is_told_what_others_read_in_the_picture(
    process: ModelProcess, database: Engine, server: Fake
) -> None:
    task, subtasks = described(process, database, "reads", {"image-to-text/ocr": "EXIT", "feature-extraction": "no"})
    judge_wave(process, uuid4(), subtasks)
    verdict = verdict_of(database, task)
    assert (verdict["winner"], verdict["seen"]) == ("beta", "text")
    assert verdict["prompt_version"] == "choice-1+exhibits-1+reply-1"
    assert rows(database, "SELECT orders FROM verdict WHERE method = 'choice'")[0].orders[-1] == {
        "replies": {"read": 2, "unparseable": 0}
    }
    assert '<file number="1" is="text">\\nEXIT\\n</file>' in json.dumps(server.seen[-1][1]).replace('\\"', '"')


def test_where_nobody_said_anything_the_verdict_and_the_prompt_say_unseen(
    process: ModelProcess, database: Engine, server: Fake
) -> None:
    task, subtasks = described(process, database, "reads", {})
    judge_wave(process, uuid4(), subtasks)
    assert verdict_of(database, task)["seen"] == "unseen"
    assert "nothing is known of it" in json.dumps(server.seen[-1][1])
    with database.begin() as connection, console.capture() as captured:
        print_story(task_story(connection, task))
    assert "files unseen" in " ".join(captured.get().split())


def test_a_judge_that_asks_no_model_has_seen_nothing(process: ModelProcess, database: Engine) -> None:
    task, subtasks = described(process, database, "longest", {"image-to-text/ocr": "EXIT"})
    judge_wave(process, uuid4(), subtasks)
    assert verdict_of(database, task)["seen"] == "unseen"


def test_words_alone_are_not_seen_at_all(process: ModelProcess, database: Engine) -> None:
    task = plan(database)
    messages = send(database, task, "alpha", "beta")
    finish_all(database, messages)
    judge_wave(process, uuid4(), messages[0].subtask_ids)
    assert rows(database, "SELECT seen FROM verdicts")[0].seen is None


def test_what_another_step_has_not_said_yet_is_not_waited_for(process: ModelProcess, database: Engine) -> None:
    # given a step that reads the same picture, with a candidate and no verdict yet
    _, subtasks = described(process, database, "reads", {"image-to-text/ocr": "EXIT"}, judged=False)
    with database.begin() as connection:
        (subtask,) = load_to_judge(connection, claim_judging(connection, subtasks, uuid4(), 60))
    (file,) = subtask.files
    assert (file.name, file.media_type, file.said) == ("cat.png", "image/png", [])


def test_a_picture_that_is_gone_is_unseen_and_no_failure(process: ModelProcess, database: Engine, server: Fake) -> None:
    task, subtasks = described(process, database, "looks", {})
    blob_store(process.settings.blobs).delete(rows(database, "SELECT sha256 FROM artifact")[0].sha256)
    judge_wave(process, uuid4(), subtasks)
    assert verdict_of(database, task)["seen"] == "unseen"


@pytest.mark.parametrize("judge", ["looks", "reads"])
def test_files_that_cannot_be_read_suspend_no_judge(
    process: ModelProcess, database: Engine, server: Fake, monkeypatch: pytest.MonkeyPatch, judge: str
) -> None:
    # given a server that refuses what it is sent, and a judge that two failures in a row would suspend
    monkeypatch.setattr(server, "script", lambda *_: (400, {"error": {"message": "cannot identify image file"}}))
    process.settings = process.settings.model_copy(update={"breaker_failures": 2})
    task, subtasks = described(process, database, judge, {})
    for _ in range(3):
        judge_wave(process, uuid4(), subtasks)
    # then its subtask has its fallback after as many tries as any, and the judge still judges
    assert verdict_of(database, task)["method"] == "fallback"
    assert rows(database, "SELECT status FROM judge WHERE name = :judge", judge=judge)[0].status == "active"


def test_a_backend_that_shows_nothing_cannot_be_said_to_read_pictures(process: ModelProcess) -> None:
    with pytest.raises(RegistryError, match=r"models\.blind\.reads = \['image'\]: backend 'scripted' shows a judge no"):
        process.judge("mistaken")
