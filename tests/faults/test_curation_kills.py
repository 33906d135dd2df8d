"""kill -9 in every stage of a curation job: it goes on, and what it leaves is the same to the byte."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import Installation, make_installation
from tests.faults.curation_kills import KILLED, everywhere, export, killed_run
from tests.integration.curation_parts import EVERYTHING, LEAKED, conversations, registry, with_faults, write_array

MODELS = ("alpha", "beta", "rewarder", "embedder", "ifd", "given-original", "given-rewrite")


@pytest.fixture(scope="module")
def system(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("killed")
    for made in make_installation(servers, folder, template, registry(*MODELS)):
        made.start("scheduler", "scheduler")
        made.start("worker", "worker", *MODELS, "--judge")
        made.wait_ready(2)
        yield made


def recipes(folder: Path, count: int, without: Sequence[str]) -> tuple[str, str]:
    """The same recipe, but for some stages, for two jobs whose names are as long as each other."""
    write_array(folder / "records.json", with_faults(conversations(count)))
    evaluation = write_array(folder / "evaluation.json", [LEAKED])
    text = EVERYTHING.replace("FILE", "records.json").replace("SET", str(evaluation))
    for stage in without:
        text = text.replace(f', "{stage}"', "")
        text = re.sub(rf"\[{stage}\]\n[^\[]*", "", text)
    paths = []
    for name in ("quiet", "kills"):
        path = folder / name / "recipe.toml"
        path.parent.mkdir()
        path.write_text(f'name = "{name}"\n{text.replace("records.json", "../records.json")}', encoding="utf-8")
        paths.append(str(path))
    return paths[0], paths[1]


def compare(
    system: Installation, folder: Path, count: int, where: Sequence[tuple[str, int, str]], *without: str
) -> int:
    """Run one job in peace and one with kills; returns how many kills there were."""
    quiet, disturbed = recipes(folder, count, without)
    done = system.run("curate", "run", quiet, "--json", timeout=600)
    assert done.code == 0, done.err + system.logs()
    codes = [killed_run(system, *place, disturbed) for place in where]
    assert set(codes) <= {0, KILLED}
    done = system.run("curate", "run", disturbed, "--json", timeout=600)
    assert done.code == 0, done.err + system.logs()

    expected = export(system, "quiet", folder / "out-quiet")
    found = export(system, "kills", folder / "out-kills")
    assert set(expected) == {"kept.json", "preferences.jsonl", "manifest.json", "report.html"}
    for name, content in expected.items():
        assert found[name].replace(b"kills", b"quiet") == content.replace(b"kills", b"quiet"), name
    twice = system.query(
        "SELECT idempotency_key FROM task WHERE source = 'curation:kills' GROUP BY 1 HAVING count(*) > 1"
    )
    asked = dict(system.query("SELECT source, count(*) FROM task WHERE source LIKE 'curation:%' GROUP BY source"))
    assert not twice
    assert asked["curation:kills"] == asked["curation:quiet"]
    return codes.count(KILLED)


@pytest.mark.faults_smoke
def test_a_job_that_is_killed_leaves_what_one_in_peace_leaves(system: Installation, tmp_path: Path) -> None:
    where = [("load", 2, "before"), ("near", 1, "after"), ("questions", 1, "before"), ("answers", 2, "after"),
             ("review", 1, "before")]  # fmt: skip

    killed = compare(system, tmp_path, 24, where, "ifd", "diversity")

    assert killed == len(where)


@pytest.mark.faults
def test_two_thousand_records_killed_in_every_stage(system: Installation, tmp_path: Path) -> None:
    where = everywhere()

    killed = compare(system, tmp_path, 2000, where)

    assert killed == len(where)
