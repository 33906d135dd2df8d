"""Who works on the filled databases: three scripted models, one judge, and a broker that takes everything."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from db.settings import Settings
from db.states import WorkerState
from db.workers import beat, set_worker_state, sync_registry
from scheduler.publishing import Publisher
from worker.app import app
from worker.role import JUDGE_QUEUE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from db.candidates import Message
    from db.registry import ModelEntry
    from db.verdicts import JudgeMessage

MODELS = ("alpha", "beta", "gamma", "spare")
WAVE = 32  # subtasks of a wave, and inputs of a message
WINDOW = 8  # messages per model: eight waves of 32 are what a scheduler locks in one look
LONG = 3600.0  # seconds; nobody renews a lease or says that he lives while a statement is measured

REGISTRY = """
[profiles.demo]
models = ["alpha", "beta", "gamma", "spare"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"
""" + "".join(
    f"""
[models.{name}]
capability = "text-generation"
backend = "scripted"
priority = {priority}
max_batch = {WAVE}
window = {WINDOW}
params = {{ rules = [{{ match = "all fail", fail = "input" }}, {{ match = "retry", fail = "model", times = 1 }}] }}
"""
    for priority, name in enumerate(MODELS)
)


def settings_of(url: str, folder: Path) -> Settings:
    """Settings of everybody who works on the database at `url`; `folder` holds the registry."""
    models_file = folder / "models.toml"
    models_file.write_text(REGISTRY)
    return Settings(
        home=folder / "home",
        database_url=SecretStr(url),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),  # nobody connects to it
        models_file=models_file,
        profile="demo",
        blob_url=None,
        wave_size=WAVE,
        settle_seconds=0,
        max_backlog=1_000_000,  # a submission counts the whole backlog, and is not refused
        worker_timeout=LONG,
        lost_after=LONG / 6,
    )


def everybody_is_ready(connection: Connection, settings: Settings) -> None:
    """The registry is known, and every model and the judge have a ready worker for `LONG` seconds."""
    sync_registry(connection, settings.registry)
    for name in (*MODELS, JUDGE_QUEUE):
        queue = settings.registry.queues.get(name, JUDGE_QUEUE)
        beat(connection, name=name, host=socket.gethostname(), pid=1, queues=[queue])
        set_worker_state(connection, name, WorkerState.READY)


class NoBroker(Publisher):
    """Its queues are always empty; what was sent to it is kept until somebody takes it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, app)
        self.messages: list[tuple[Message, bool]] = []  # and whether it is part of a chord
        self.judgings: list[tuple[UUID | None, Sequence[UUID]]] = []  # message, where it is one of its own; subtasks

    def queue_lengths(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, 0)

    def send_wave(
        self,
        messages: Sequence[Message],
        subtasks: Sequence[UUID],
        registry: dict[str, ModelEntry],  # noqa: ARG002 - the publisher's own
    ) -> None:
        self.messages += [(message, True) for message in messages]
        self.judgings.append((None, subtasks))

    def send_again(self, message: Message, model: ModelEntry) -> None:  # noqa: ARG002 - the publisher's own
        self.messages.append((message, False))

    def send_judging(self, message: JudgeMessage) -> None:
        self.judgings.append((message.id, message.subtask_ids))

    def forget(self) -> None:
        """Drop what was sent."""
        self.messages.clear()
        self.judgings.clear()
