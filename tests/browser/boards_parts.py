"""A leaderboard and curation jobs as rows: what they look like after a few hundred verdicts, without any model."""

from __future__ import annotations

import hashlib
import json
from math import log
from random import Random

from sqlalchemy import Connection, text

from db.curation import Job, create_job, fail_job, finish_job, note_counts, note_input, note_stage
from db.curation_records import (
    Dropped,
    NewRecord,
    Scored,
    add_records,
    keep_rest,
    mark_asked,
    mark_scored,
    page_of,
    pass_page,
    pass_scored,
    select_top,
)
from db.registry import ModelEntry
from db.workers import sync_models
from scheduler.curation.recipe import parse_recipe
from tests.integration.standings_parts import judged, preferred

#: By capability: how strong each model is, in log odds, and its seconds.
BOARDS = {
    "image-to-text/ocr": {
        "tesseract-best": (-0.4, 0.31),
        "rapidocr-v4": (1.1, 0.18),
        "trocr-small": (0.2, 0.92),
        "trocr-base": (0.7, 2.4),
        "ddddocr": (-1.6, 0.02),
    },
    "text-generation": {
        "qwen-0.5b": (0.3, 1.8),
        "smol-360m": (-0.5, 1.1),
        "pythia-410m": (-1.1, 1.4),
        "llama-1b": (1.3, 4.2),
    },
}
STAGES = ("validate", "exact", "near", "leakage", "questions", "answers")
SHARES = {"validate": 0.03, "exact": 0.02, "near": 0.08, "leakage": 0.004}
RULES = {
    "validate": ("no_turns", "refusal", "wrong_order", "too_long"),
    "exact": ("exact_duplicate",),
    "near": ("near_duplicate",),
    "leakage": ("leak",),
}


def seed_boards(connection: Connection, subtasks: int, seed: int = 7) -> None:
    """Verdicts over `subtasks` subtasks of each capability, some failures, and people who mostly agree."""
    random = Random(seed)  # noqa: S311 - to be repeated
    for capability, models in BOARDS.items():
        sync_models(connection, [ModelEntry(name=one, capability=capability, backend="scripted") for one in models])
        for number in range(subtasks):
            chosen = random.sample(sorted(models), 3)
            failed = {name for name in chosen[1:] if random.random() < 0.05}
            outputs = {name: None if name in failed else f"{name} says {number}" for name in chosen}
            able = [name for name in chosen if name not in failed]
            ranking = sorted(able, key=lambda name: -_played(random, models[name][0]))
            seconds = models[chosen[0]][1] * random.uniform(0.7, 1.6)
            age = (random.randrange(20) + 0.5) * 86_400  # half a day from what any filter cuts off
            subtask = judged(
                connection, outputs, ranking, capability=capability, age=age, seconds=seconds,
                usage={"output_tokens": random.randint(20, 90)},
            )  # fmt: skip
            if number % 8 == 0 and len(ranking) > 1:
                better, worse = ranking[:2] if random.random() < 0.8 else ranking[1::-1]
                preferred(connection, better, worse, subtask=subtask, capability=capability)


def _played(random: Random, strength: float) -> float:
    """How well a model did this once: the noise is Gumbel's, so that who beats whom is Bradley-Terry's."""
    return strength - log(random.expovariate(1))


def new_job(connection: Connection, name: str, records: int) -> Job:
    """A job whose input is read."""
    recipe = parse_recipe(
        {
            "name": name,
            "input": {"file": f"{name}.json"},
            "stages": STAGES,
            "tables": {
                "leakage": {"sets": ["benchmark.jsonl"]},
                "questions": {"models": ["question-reward"], "keep": 0.4},
                "answers": {"models": ["qwen-0.5b", "llama-1b"], "keep": 0.6},
            },
        }
    )
    entry = {"path": f"{name}.json", "name": f"{name}.json", "sha256": None, "read": 0, "records": 0}
    job = create_job(connection, name, recipe.model_dump(mode="json"), recipe.digest, [entry])
    add_records(connection, job.id, (_record(position) for position in range(records)))
    digest = hashlib.sha256(name.encode()).hexdigest()
    note_input(connection, job.id, 0, {"records": records, "read": records, "sha256": digest})
    return job


def _record(position: int) -> NewRecord:
    kind = ("conversation", "detail", "complex")[position % 3]
    data = {
        "conversations": [{"from": "human", "value": f"What is {position}?"}, {"from": "gpt", "value": "A number."}]
    }
    return NewRecord(
        position=position, key=hashlib.sha256(str(position).encode()).hexdigest(), type=kind, data=json.dumps(data)
    )


def seed_job(connection: Connection, name: str, records: int, *, until: str | None = None, seed: int = 3) -> Job:
    """A job that is through, or that works on `until`: half of its records have their score there."""
    random = Random(seed)  # noqa: S311 - to be repeated
    job = new_job(connection, name, records)
    seconds: dict[str, float] = {}
    for number, stage in enumerate(STAGES):
        note_stage(connection, job.id, stage)
        page = page_of(connection, job.id, number, 0, records)
        if stage in SHARES:
            rules = RULES[stage]
            dropped = [
                Dropped(position=one.position, rule=random.choice(rules), reason="It is so.")
                for one in page
                if random.random() < SHARES[stage]
            ]
            pass_page(connection, job.id, number, page, dropped)
            seconds[stage] = 0.0004 * len(page)
            continue
        done = page[: len(page) // 2] if stage == until else page
        mark_asked(connection, job.id, number, [one.position for one in page])
        scored = [Scored(position=one.position, score=random.gauss(0.4, 0.8)) for one in done]
        mark_scored(connection, job.id, number, stage, scored)
        if stage == until:
            _ask(connection, job, len(done), len(page) - len(done))
            break
        if stage == "questions":
            select_top(connection, job.id, number, stage, 0.4, per_type=True)
        else:
            select_top(connection, job.id, number, stage, 0.6, per_type=False)
        pass_scored(connection, job.id, number)
        seconds[stage] = 0.05 * len(page)
    note_counts(connection, job.id, {"seconds": seconds})
    if until is None:
        keep_rest(connection, job.id, len(STAGES))
        finish_job(connection, job.id)
    return job


def seed_failed(connection: Connection, name: str) -> Job:
    """A job that cannot go on."""
    job = new_job(connection, name, 5)
    note_stage(connection, job.id, "leakage")
    fail_job(connection, job.id, "benchmark.jsonl has none of the fields question, instruction.")
    return job


def _ask(connection: Connection, job: Job, ended: int, open_: int) -> None:
    """Tasks of the job: some ended just now, some are open."""
    fields = {"source": job.source, "ended": ended, "open": open_}
    connection.execute(
        text(
            "INSERT INTO task (request, source, status, answer, finished_at, finished_xid) SELECT 'score it', :source, "
            "'done', '0.5', now(), pg_current_xact_id() FROM generate_series(1, :ended)"
        ),
        fields,
    )
    connection.execute(
        text("INSERT INTO task (request, source) SELECT 'score it', :source FROM generate_series(1, :open)"), fields
    )
