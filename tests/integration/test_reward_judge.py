"""A judge with a trained reward model, in the judge's process, from claimed candidates to a stored verdict."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
import torch
from sqlalchemy import Engine
from transformers import AutoModel, AutoTokenizer

from db.settings import Settings
from db.workers import sync_registry
from tests.conftest import SCRIPTED
from tests.integration.test_rules import plan, send
from tests.integration.test_transitions import finish_all, rows
from tests.unit.tiny_models import bert
from worker.judging import judge_wave
from worker.process import ModelProcess
from worker.reward.artifact import read_artifact, write_artifact
from worker.reward.counted import fit_counted
from worker.reward.ensemble import Ensemble
from worker.reward.model import Reading, Scorer
from worker.reward.pairs import scored_group
from worker.reward.text import rendered
from worker.role import WorkerRole

pytestmark = pytest.mark.integration

CARD = {
    "for": "answers", "base": "tiny", "parameters": 1, "tuned": 1, "date": "", "data": [], "split": "",
    "figures": {"interval": [0.5, 0.6], "pairwise_accuracy": 0.55, "pairs": 1, "groups": 1, "against": {}},
    "calibration": {"brier": 0.25, "reliability": []}, "training": {"members": 2},
}  # fmt: skip


def made(folder: Path) -> Path:
    """A reward model of two tiny networks, with heads of their own dice."""
    base = bert(folder / "bert")
    members = []
    for seed in (1, 2):
        scorer = Scorer(
            AutoModel.from_pretrained(base), AutoTokenizer.from_pretrained(base), Reading(pooling="mean", max_tokens=64)
        )
        torch.manual_seed(seed)
        torch.nn.init.normal_(scorer.head.weight)
        members.append(scorer)
    states = torch.zeros(2, scorer.head.in_features)
    counted = fit_counted([scored_group("g", ["a", "b"], [0.1, 0.9])], {"a": states, "b": states})
    model = Ensemble(base=scorer, counted=counted, counted_scale=1.0, members=tuple(members))
    return write_artifact(folder / "answers", model, "tiny", CARD)


def test_the_verdict_is_what_the_reward_model_says(tmp_path: Path, database: Engine) -> None:
    # given a registry whose text-generation is judged by a reward model, and two answers
    folder = made(tmp_path)
    models_file = tmp_path / "models.toml"
    models_file.write_text(
        SCRIPTED.replace('judge = "longest"', 'judge = "reward"', 1)
        + f'\n[judges.reward]\nmethod = "reward"\nparams = {{ artifact = "{folder}" }}\n'
    )
    settings = Settings(models_file=models_file, profile="demo")
    with database.begin() as connection:
        sync_registry(connection, settings.registry)
    process = ModelProcess(settings, WorkerRole(name="judge", judge=True), database)
    messages = send(database, plan(database, judge="reward"), "alpha", "beta")
    said = {"alpha": "It is blue.", "beta": "I could not say what colour it is!"}
    for message in messages:
        finish_all(database, [message], said[message.model])

    # when the judge's process judges
    judge_wave(process, uuid4(), messages[0].subtask_ids)

    # then the winner is the one with the higher reward, and the verdict says how sure that is
    rewards = dict(
        zip(said, read_artifact(folder).score([rendered("hello", text) for text in said.values()]), strict=True)
    )
    (verdict,) = rows(
        database,
        "SELECT v.*, c.model AS winner FROM verdict AS v JOIN candidate AS c ON c.id = v.winner_id",
    )
    assert verdict.winner == max(rewards, key=lambda model: rewards[model])
    assert (verdict.method, verdict.judge, verdict.fallback) == ("reward", "reward", False)
    assert verdict.judge_model.startswith("answers@")
    assert 0.5 <= verdict.confidence <= 1
    assert sorted(verdict.scores.values()) == pytest.approx(sorted(rewards.values()), abs=2e-4)
