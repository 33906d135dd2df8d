"""kill -9 in every stage of a curation job: it goes on, and what it leaves is the same to the byte."""

from __future__ import annotations

import re
import signal
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from scheduler.evaluation.running import as_toml
from tests.conftest import Installation, make_installation
from tests.faults.curation_kills import KILLED, everywhere, finished, killed_run
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
    expected = finished(system, quiet, folder / "out-quiet")
    codes = [killed_run(system, *place, disturbed) for place in where]
    assert set(codes) <= {0, KILLED}
    found = finished(system, disturbed, folder / "out-kills")

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
    where = [("load", 2, "before"), ("near", 1, "after"), ("questions", 2, "before"), ("answers", 3, "after"),
             ("review", 2, "before")]  # fmt: skip

    killed = compare(system, tmp_path, 24, where, "ifd", "diversity")

    assert killed == len(where)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_two_thousand_records_killed_in_every_stage(system: Installation, tmp_path: Path) -> None:
    where = everywhere()

    killed = compare(system, tmp_path, 2000, where)

    assert killed == len(where)


REAL = """
stages = ["validate", "answers"]
in_flight = 6
[input]
file = "records.json"
[answers]
models = ["smollm2-135m", "alpha"]
params = { max_new_tokens = 12 }
keep = 0.5
"""


@pytest.mark.faults
@pytest.mark.weights
@pytest.mark.timeout(1800)
def test_what_a_real_model_has_said_is_never_generated_again(
    servers: tuple[str, str], template: str, tmp_path: Path
) -> None:
    exports: list[dict[str, bytes]] = []
    for kills in (False, True):  # each in a database of its own: stored outputs answer nobody else's questions
        folder = tmp_path / ("kills" if kills else "quiet")
        folder.mkdir()
        made = make_installation(servers, folder, template, with_real_model())
        exports.extend(real_run(system, folder, kills=kills) for system in made)

    assert exports[0] == exports[1]


def with_real_model() -> str:
    """The scripted registry with SmolLM2 of the packaged one, one input at a time, in float32."""
    packaged = tomllib.loads((Path(__file__).parents[2] / "models.toml").read_text(encoding="utf-8"))
    tables = tomllib.loads(registry("alpha", "smollm2-135m"))
    model = packaged["models"]["smollm2-135m"] | {"max_batch": 1, "dtype": "float32"}
    return as_toml({**tables, "models": tables["models"] | {"smollm2-135m": model}})


def real_run(system: Installation, folder: Path, *, kills: bool) -> dict[str, bytes]:
    """Run 20 records to their end; with kills the runner dies three times and the model's worker once."""
    write_array(folder / "records.json", conversations(20))
    recipe = folder / "recipe.toml"
    recipe.write_text(f'name = "real"\n{REAL}', encoding="utf-8")
    system.start("scheduler", "scheduler")
    system.start("alpha", "worker", "alpha", "--judge")
    system.start("smollm2", "worker", "smollm2-135m")
    system.wait_ready(3, timeout=240)
    if kills:
        for number, moment in ((2, "before"), (3, "after"), (4, "before")):
            assert killed_run(system, "answers", number, moment, str(recipe)) == KILLED
        said = done_outputs(system)
        system.stop("smollm2", signal.SIGKILL)
        system.start("smollm2", "worker", "smollm2-135m")
    left = finished(system, str(recipe), folder / "out")
    if kills:
        assert said.items() <= done_outputs(system).items()
    return left


def done_outputs(system: Installation) -> dict[str, tuple[str, str, int]]:
    """What the real model has said: text, time and attempts by candidate."""
    rows = system.query(
        "SELECT id, output, finished_at, attempt FROM candidate WHERE model = 'smollm2-135m' AND status = 'done'"
    )
    return {str(row.id): (row.output, str(row.finished_at), row.attempt) for row in rows}
