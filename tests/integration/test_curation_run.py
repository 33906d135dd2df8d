"""A curation job from its input to its export, through a real system with scripted models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Installation, make_installation, wait_until
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
    folder.mkdir(exist_ok=True)
    write_array(folder / "records.json", records)
    evaluation = folder / "evaluation.jsonl"
    evaluation.write_text(json.dumps(LEAKED))
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\n{text}\n'.replace("FILE", "records.json").replace("SET", str(evaluation)), encoding="utf-8"
    )
    return str(path)


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
    page = (tmp_path / "out" / "report.html").read_text()
    assert "near_duplicate" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


SHORT = """
stages = ["validate", "exact", "near", "questions", "diversity"]
[input]
file = "FILE"
[questions]
keep = 0.4
[diversity]
budget = 9
"""


def test_more_input_ends_as_if_all_had_been_there_from_the_beginning(system: Installation, tmp_path: Path) -> None:
    # given one job on everything, and one on the first half
    records = with_faults(conversations(48))
    first, second = records[:20], records[20:]
    whole = recipe(tmp_path / "whole", "whole", SHORT, records)
    half = recipe(tmp_path / "half", "half", SHORT, first)
    more = write_array(tmp_path / "more.json", second)

    # when the rest is added to the second one
    run(system, whole, tmp_path / "out-whole")
    run(system, half, tmp_path / "out-half")
    extended = system.run("curate", "extend", "half", str(more))
    assert extended.code == 0, extended.err
    assert system.run("curate", "export", "half", "--out", str(tmp_path / "early")).code == 3
    resumed = system.run("curate", "resume", "half", "--out", str(tmp_path / "out-half"), timeout=150)

    # then both leave the same, and nothing was asked twice
    assert resumed.code == 0, resumed.err + system.logs()
    for name in ("kept.json", "preferences.jsonl"):
        assert (tmp_path / "out-half" / name).read_bytes() == (tmp_path / "out-whole" / name).read_bytes()
    asked = dict(system.query("SELECT source, count(*) FROM task GROUP BY source"))
    assert asked["curation:half"] <= asked["curation:whole"] + 9


def test_who_may_not_run_a_job_is_told_so(system: Installation, tmp_path: Path) -> None:
    # given a job that somebody runs, and renews
    path = recipe(tmp_path, "taken", 'stages = ["validate", "exact"]\n[input]\nfile = "FILE"', conversations(3))
    assert system.run("curate", "run", path).code == 0
    system.query(
        "UPDATE curation_job SET status = 'running', finished_at = NULL, token = gen_random_uuid(), "
        "lease_until = now() + interval '1 hour' WHERE name = 'taken'"
    )

    # when
    refused = system.run("curate", "resume", "taken", env={"BAKEOFF_LEASE_SECONDS": "0.5"})
    other = system.run(
        "curate", "run", recipe(tmp_path, "taken", 'stages = ["validate", "near"]\n[input]\nfile = "FILE"', [])
    )
    unknown = system.run("curate", "resume", "nobody")

    # then
    assert refused.code == 3
    assert "Another process runs the curation job 'taken'" in refused.err
    assert other.code == 2
    assert "with another recipe" in other.err
    assert unknown.code == 2
    assert "No curation job 'nobody'" in unknown.err


def test_a_set_that_asks_nothing_ends_a_job_as_failed(system: Installation, tmp_path: Path) -> None:
    # given a leakage set that asks nothing
    text = 'stages = ["validate", "leakage"]\n[input]\nfile = "FILE"\n[leakage]\nsets = ["SET"]\nfields = ["riddle"]'
    path = recipe(tmp_path, "setless", text, conversations(3))

    # when
    failed = system.run("curate", "run", path)

    # then
    assert failed.code == 2
    assert "has none of the fields riddle" in failed.err
    assert system.query("SELECT status FROM curation_job WHERE name = 'setless'")[0].status == "failed"


def test_a_model_that_was_away_is_asked_again(installation: Installation, tmp_path: Path) -> None:
    # given two models to choose from, of which one has no worker yet
    installation.models_file.write_text(registry("alpha", "beta"))
    installation.settings["BAKEOFF_SETTLE_SECONDS"] = "0"
    text = 'stages = ["validate", "answers"]\n[input]\nfile = "FILE"\n[answers]\nmodels = ["alpha", "beta"]\nkeep = 1.0'
    path = recipe(tmp_path, "away", text, conversations(4))
    installation.start("scheduler", "scheduler")
    installation.start("alpha", "worker", "alpha", "--judge")
    installation.wait_ready(2)

    # when it comes after the tasks were answered without it
    installation.start("run", "curate", "run", path)
    done = "SELECT count(*) FROM task WHERE source = 'curation:away' AND status = 'done'"
    wait_until(lambda: installation.query(done)[0][0] == 6, 60, installation.logs)
    installation.start("beta", "worker", "beta")

    # then both are asked, and nothing is settled by one alone
    finished = "SELECT 1 FROM curation_job WHERE name = 'away' AND status = 'done'"
    wait_until(lambda: bool(installation.query(finished)), 60, installation.logs)
    fates = installation.query(
        "SELECT fate, scores ? 'answers' AS scored, count(*) AS n FROM curation_record GROUP BY 1, 2"
    )
    assert [tuple(row) for row in fates] == [("kept", True, 4)]


def test_a_job_is_forgotten_with_its_records_and_its_name_is_free(system: Installation, tmp_path: Path) -> None:
    # given a job that is done
    path = recipe(tmp_path, "gone", 'stages = ["validate", "near"]\n[input]\nfile = "FILE"', conversations(5))
    run(system, path, tmp_path / "out")

    # when
    done = system.run("curate", "delete", "gone", "--yes")

    # then nothing is left of it
    assert done.code == 0, done.err
    assert system.run("curate", "status", "gone").code != 0
    (left,) = system.query(
        "SELECT count(*) FROM curation_job AS j LEFT JOIN curation_record AS r ON r.job_id = j.id WHERE j.name = 'gone'"
    )
    assert left.count == 0
    run(system, path, tmp_path / "again")
