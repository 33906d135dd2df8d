"""A curation job from its input to its export, through a real system with scripted models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Installation, make_installation
from tests.integration.curation_parts import conversations, registry, write_array

pytestmark = pytest.mark.integration

MODELS = ("alpha", "beta", "rewarder")


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
    write_array(folder / f"{name}.json", records)
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\n{text}\n'.replace("FILE", f"{name}.json"), encoding="utf-8")
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
