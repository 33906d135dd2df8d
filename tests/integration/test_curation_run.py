"""A curation job from its input to its export, through a real system with scripted models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Installation, make_installation
from tests.integration.curation_parts import EVERYTHING, LEAKED, conversations, registry, with_faults, write_array

pytestmark = pytest.mark.integration

MODELS = ("alpha", "beta", "rewarder", "embedder", "ifd", "given-original", "given-rewrite")


@pytest.fixture(scope="module")
def system(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("curation")
    for made in make_installation(servers, folder, template, registry(*MODELS)):
        made.settings["BAKEOFF_LEASE_SECONDS"] = "2"
        made.start("scheduler", "scheduler")
        made.start("worker", "worker", *MODELS, "--judge")
        made.wait_ready(2)
        yield made


def recipe(folder: Path, name: str, text: str, records: list[dict[str, Any]]) -> str:
    write_array(folder / "records.json", records)
    evaluation = folder / "evaluation.jsonl"
    evaluation.write_text(json.dumps(LEAKED))
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\n{text}\n'.replace("FILE", "records.json").replace("SET", str(evaluation)), encoding="utf-8"
    )
    return str(path)


WALK = """
stages = ["validate", "exact", "questions"]
[input]
file = "FILE"
[questions]
keep = 0.3
"""


def test_the_best_questions_of_each_type_are_exported(system: Installation, tmp_path: Path) -> None:
    # given 60 records, a copy, and one that says nothing
    records = conversations(60)
    broken = {"id": "x", "conversations": [{"from": "human", "value": "Who?"}]}
    path = recipe(tmp_path, "walk", WALK, [*records, records[3], broken])

    # when
    done = system.run("curate", "run", path, "--out", str(tmp_path / "out"), "--json", timeout=120)

    # then
    assert done.code == 0, done.err + system.logs()
    stages = {one["stage"]: one for one in done.json["stages"]}
    assert stages["validate"]["dropped"] == {"schema": 1}
    assert stages["exact"]["dropped"] == {"exact_duplicate": 1}
    assert stages["questions"]["passed_by_type"] == {"complex": 6, "conversation": 6, "detail": 6}
    kept = json.loads((tmp_path / "out" / "kept.json").read_text())
    assert len(kept) == 18
    assert all(one in records for one in kept)


def run(system: Installation, path: str, out: Path) -> dict[str, Any]:
    done = system.run("curate", "run", path, "--out", str(out), "--json", timeout=150)
    assert done.code == 0, done.err + system.logs()
    return {one["stage"]: one for one in done.json["stages"]}


def test_every_stage_says_what_it_dropped_and_why(system: Installation, tmp_path: Path) -> None:
    # given
    records = with_faults(conversations(60))
    path = recipe(tmp_path, "everything", EVERYTHING, records)

    # when
    stages = run(system, path, tmp_path / "out")

    # then each rule found its own
    assert stages["validate"]["dropped"] == {"noise_term": 1, "schema": 1}
    assert stages["exact"]["dropped"] == {"exact_duplicate": 1}
    assert stages["near"]["dropped"] == {"near_duplicate": 1}
    assert stages["leakage"]["dropped"] == {"leak": 1}
    assert stages["questions"]["passed"] == 36
    assert stages["answers"]["passed"] == 22
    assert set(stages["ifd"]["dropped"]) <= {"ifd"}
    assert set(stages["diversity"]["dropped"]) == {"not_diverse"}
    # and what is left has the answers of the models, or their rewrites
    kept = json.loads((tmp_path / "out" / "kept.json").read_text())
    said = [turn["value"] for one in kept for turn in one["conversations"][1::2]]
    assert all(text.startswith(("Alpha", "Beta", "It is so: Alpha")) for text in said)
    assert any(text.startswith("It is so: Alpha") for text in said)
    pairs = [json.loads(line) for line in (tmp_path / "out" / "preferences.jsonl").read_text().splitlines()]
    assert all(pair["chosen_score"] > pair["rejected_score"] for pair in pairs)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["notes"]["images"].startswith("not looked at")
    assert manifest["files"][0]["rows"] == len(kept) == stages["diversity"]["passed"]
    assert "The first few of every rule" in (tmp_path / "out" / "report.html").read_text()
