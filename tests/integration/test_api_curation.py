"""Curation over HTTP: made by the API, run by `bakeoff curate serve` with real workers, and nothing read from elsewhere."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from db.curation import read_job
from db.engine import transaction
from db.errors import InvalidRequest
from db.keys import Scope
from db.settings import Settings
from scheduler.curation.confined import confined
from scheduler.curation.recipe import parse_recipe
from scheduler.curation.status import status_of
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, is_problem, make_key, start_api
from tests.integration.curation_parts import LEAKED, conversations, registry, with_faults, write_array
from worker.cleaning import clean_json

pytestmark = pytest.mark.integration

MODELS = ("alpha", "beta", "rewarder")
STAGES = ["validate", "exact", "near", "leakage", "questions"]
TASKS = 20  # of twelve records, of which every third has three turns
OPEN_TASKS = "SELECT count(*) FROM task WHERE source = 'curation:{}' AND status <> 'done'"


@pytest.fixture(scope="module")
def system(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    for made in make_installation(servers, tmp_path_factory.mktemp("served"), template, registry(*MODELS)):
        folder = made.folder / "inputs"
        folder.mkdir()
        write_array(folder / "records.json", with_faults(conversations(12)))
        write_array(folder / "others.json", conversations(12))
        (folder / "set.jsonl").write_text(json.dumps(LEAKED))
        (folder / "empty").mkdir()
        write_array(made.folder / "outside.json", conversations(1))
        (folder / "link.json").symlink_to(made.folder / "outside.json")
        made.start("scheduler", "scheduler")
        made.start("worker", "worker", *MODELS, "--judge")
        made.wait_ready(2)
        yield made


@pytest.fixture(scope="module")
def client(system: Installation) -> Iterator[httpx.Client]:
    url = start_api(system, curation_folder=str(system.folder / "inputs"))
    with client_of(url, make_key(system, Scope.ADMIN)) as made:
        wait_until(lambda: httpx.get(f"{url}/v1/curation-jobs").status_code == 401)
        yield made


def recipe(name: str, **changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": name,
        "stages": STAGES,
        "input": {"file": "records.json"},
        "leakage": {"sets": ["set.jsonl"]},
        "questions": {"models": ["rewarder"], "keep": 0.5},
    }
    return {**said, **changes}


def status(client: httpx.Client, name: str) -> dict[str, Any]:
    answer = client.get(f"/v1/curation-jobs/{name}")
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def wait_for_status(system: Installation, client: httpx.Client, name: str, wanted: str) -> dict[str, Any]:
    """The job once it is so, and its lease is given back."""

    def so() -> bool:
        said = status(client, name)
        return bool(said["status"] == wanted and not said["running"])

    wait_until(so, 60, system.logs)
    return status(client, name)


def test_a_job_made_over_http_is_run_and_reported_on(system: Installation, client: httpx.Client) -> None:
    # given one job, and one whose leakage set asks nothing
    made = client.post("/v1/curation-jobs", json=recipe("whole"))
    wrong = recipe("wrong", leakage={"sets": ["set.jsonl"], "fields": ["riddle"]})
    refused = client.post("/v1/curation-jobs", json=wrong)
    assert refused.status_code == 202, refused.text

    # when
    system.start("serve", "curate", "serve")

    # then the first one ends, and the API says what the command prints
    assert made.status_code == 202, made.text
    assert made.json() == {"name": "whole", "url": "/v1/curation-jobs/whole"} | {"url": made.headers["location"]}
    said = wait_for_status(system, client, "whole", "done")
    with transaction(system.engine()) as connection:
        assert said == clean_json(status_of(connection, read_job(connection, "whole")))
    dropped = {one["stage"]: one["dropped"] for one in said["stages"]}
    assert dropped["leakage"] == {"leak": 1}
    assert said["stages"][-1]["passed"] == 6
    # and the second is left failed, while the process goes on
    failed = wait_for_status(system, client, "wrong", "failed")
    assert "has none of the fields riddle" in failed["error"]
    assert system.processes["serve"].poll() is None
    # and a failed one runs again when it is told to, one that is done does not
    assert client.post("/v1/curation-jobs/wrong/resume").status_code == 202
    is_problem(client.post("/v1/curation-jobs/whole/resume"), 409, "conflict")
    wait_for_status(system, client, "wrong", "failed")
    assert system.stop("serve") == 0
    # and the report is a page in which no browser runs anything
    page = client.get("/v1/curation-jobs/whole/report")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "near_duplicate" in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script" not in page.text


def test_the_same_recipe_is_the_same_job_and_another_is_refused(client: httpx.Client) -> None:
    # given
    first = client.post("/v1/curation-jobs", json=recipe("again"))

    # when
    same = client.post("/v1/curation-jobs", json=recipe("again"))
    other = client.post("/v1/curation-jobs", json=recipe("again", questions={"models": ["rewarder"], "keep": 0.4}))
    elsewhere = client.post("/v1/curation-jobs", json=recipe("again", input={"file": "others.json"}))

    # then
    assert (first.status_code, same.status_code) == (202, 202)
    assert first.json() == same.json()
    assert "another recipe" in is_problem(other, 409, "conflict")["detail"]
    is_problem(elsewhere, 409, "conflict")


def test_jobs_are_listed_page_by_page(client: httpx.Client) -> None:
    # given
    for name in ("page-1", "page-2", "page-3"):
        client.post("/v1/curation-jobs", json=recipe(name))

    # when
    first = client.get("/v1/curation-jobs", params={"limit": 2}).json()
    second = client.get("/v1/curation-jobs", params={"limit": 2, "cursor": first["next"]}).json()

    # then
    assert [job["name"] for job in first["jobs"]] == ["page-3", "page-2"]
    assert second["jobs"][0]["name"] == "page-1"
    assert set(first["jobs"][0]) == set(status(client, "page-3")) - {"stages"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"input": {"file": "../outside.json"}}, "input.file"),
        ({"input": {"file": "empty/../records.json"}}, "input.file"),
        ({"input": {"file": "/etc/passwd"}}, "input.file"),
        ({"input": {"file": "link.json"}}, "by a link"),
        ({"input": {"file": "empty"}}, "is no file"),
        ({"input": {"file": "x" * 5000}}, "is no file"),
        ({"input": {"file": "records.json", "image_root": ".."}}, "input.image_root"),
        ({"input": {"file": "records.json", "image_root": "records.json"}}, "is no folder"),
        ({"leakage": {"sets": ["set.jsonl", "../outside.json"]}}, "leakage.sets"),
        ({"leakage": {"sets": ["/etc/passwd"]}}, "leakage.sets"),
        ({"questions": {"models": ["rewarder"], "kept": 1}}, "questions.kept"),
        ({"riddles": {}}, "is no stage"),
    ],
)
def test_what_a_recipe_may_not_say(client: httpx.Client, changes: dict[str, Any], named: str) -> None:
    # when
    refused = client.post("/v1/curation-jobs", json=recipe("refused", **changes))

    # then
    assert named in is_problem(refused, 422, "invalid_request")["detail"]
    is_problem(client.get("/v1/curation-jobs/refused"), 404, "not_found")


def test_who_may_not_is_told_so(system: Installation, client: httpx.Client) -> None:
    # given keys that read, that are bound to a source, and that are bound to a job
    client.post("/v1/curation-jobs", json=recipe("mine"))
    url = str(client.base_url)
    reader, bound = make_key(system, Scope.READ), make_key(system, Scope.ADMIN, source="shop")
    own = make_key(system, Scope.ADMIN, source="curation:mine")

    # when, then
    with client_of(url, reader) as one:
        is_problem(one.get("/v1/curation-jobs/mine"), 403, "forbidden")
    with client_of(url, bound) as one:
        is_problem(one.post("/v1/curation-jobs", json=recipe("theirs")), 403, "forbidden")
        is_problem(one.get("/v1/curation-jobs/mine/report"), 404, "not_found")
        is_problem(one.post("/v1/curation-jobs/mine/resume"), 404, "not_found")
        assert one.get("/v1/curation-jobs").json() == {"jobs": [], "next": None}
    with client_of(url, own) as one:
        assert [job["name"] for job in one.get("/v1/curation-jobs").json()["jobs"]] == ["mine"]


def test_without_a_folder_it_says_how_to_set_one() -> None:
    # given a variable that is empty
    asked = parse_recipe({"name": "closed", "input": {"file": "records.json"}})
    folder = Settings.model_validate({"curation_folder": ""}).curation_folder

    # when, then
    with pytest.raises(InvalidRequest, match="sets BAKEOFF_CURATION_FOLDER"):
        confined(asked, folder)


def test_a_job_that_is_given_back_in_the_middle_is_finished_by_another(
    system: Installation, client: httpx.Client
) -> None:
    # given a job whose tasks nobody answers, since the scheduler is stopped
    system.query("DELETE FROM curation_job")
    system.stop("scheduler")
    client.post("/v1/curation-jobs", json=recipe("moved", input={"file": "others.json"}))
    system.start("first", "curate", "serve")
    wait_until(lambda: system.query(OPEN_TASKS.format("moved"))[0][0] == TASKS, 60, system.logs)
    wait_until(lambda: status(client, "moved")["running"], 60, system.logs)

    # when its process is told to end
    assert system.stop("first", signal.SIGTERM) == 0

    # then the job is nobody's, and goes on where two others share what there is
    assert (status(client, "moved")["status"], status(client, "moved")["running"]) == ("running", False)
    client.post("/v1/curation-jobs", json=recipe("beside"))
    system.start("second", "curate", "serve")
    system.start("third", "curate", "serve")
    wait_until(lambda: status(client, "moved")["running"] and status(client, "beside")["running"], 60, system.logs)
    system.start("scheduler", "scheduler")
    for name in ("moved", "beside"):
        wait_for_status(system, client, name, "done")
    # and nothing was asked twice
    assert status(client, "moved")["stages"][-1]["passed"] == 6
    assert system.query("SELECT count(*) FROM task WHERE source = 'curation:moved'")[0][0] == TASKS
    assert [system.stop(name) for name in ("second", "third")] == [0, 0]
