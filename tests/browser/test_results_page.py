"""The results page in a real Chromium: found by search, walked by keyboard, judged blind, followed live."""

from __future__ import annotations

import io
import json
import re
import wave
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from db.keys import Scope
from tests.browser.conftest import Served, signed_in
from tests.browser.looking import faults_of
from tests.conftest import wait_until
from tests.integration.api_parts import client_of

pytestmark = [pytest.mark.browser, pytest.mark.integration]

MODELS = ("alpha", "beta", "gamma")
LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()
STEPS = [
    {"id": "read", "capability": "image-to-text/ocr", "inputs": [{"attachment": 0}]},
    {"id": "hear", "capability": "automatic-speech-recognition", "inputs": [{"attachment": 1}]},
    {"id": "tell", "capability": "text-generation", "inputs": [{"text": "Tell:"}, {"output": "read"}, {"output": "hear"}]},
]  # fmt: skip


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (120, 40), "navy").save(out, "PNG")
    return out.getvalue()


def recording() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 8000)
    return out.getvalue()


@pytest.fixture(scope="module")
def river(served: Served) -> str:
    """A task of one step that three models answered."""
    return served.ask("Which river flows through Paris?")


@pytest.fixture(scope="module")
def dag(served: Served) -> str:
    """A task of three steps, with a picture, a recording and a file that no page shows."""
    names = {
        "label.png": picture(),
        "morning.wav": recording(),
        "page.html": b"<script>document.title = 'broken into'</script>",
    }
    files = [{"sha256": served.upload(content), "name": name} for name, content in names.items()]
    return served.ask("What is this about?", capability=None, attachments=files, options={"subtasks": STEPS})


def rows(served: Served, task: str) -> list[str]:
    """Who said what of a task's candidates."""
    found = served.installation.query(
        "SELECT p.annotator, p.better ->> 'model' AS better, p.worse ->> 'model' AS worse FROM preference AS p"
        " JOIN subtask AS s ON s.id = p.subtask_id WHERE s.task_id = :task ORDER BY 1, 2, 3",
        task=task,
    )
    return [f"{row.annotator}: {row.better} over {row.worse}" for row in found]


def tab_to(page: Page, text: str, most: int = 40) -> None:
    """Press Tab until the focus is on what says this."""
    for _ in range(most):
        page.keyboard.press("Tab")
        said = page.evaluate(
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
        )
        if text in said:
            return
    pytest.fail(f"{most} tabs lead to nothing that says {text!r}")


def test_a_task_is_found_by_search_and_walked_by_keyboard_alone(
    page: Page, served: Served, dag: str, river: str
) -> None:
    # given the list, when somebody types what they look for
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, "Judge blind")
    page.keyboard.press("Tab")
    page.keyboard.type("this about")
    page.keyboard.press("Enter")

    # then the one task is there, and leads on
    expect(page).to_have_url(re.compile(r"q=this\+about"))
    expect(page.locator("tbody tr")).to_have_count(1)
    tab_to(page, "What is this about?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("What is this about?")
    tab_to(page, "tell: done, won by beta, needs read, hear")
    page.keyboard.press("Enter")

    # then the step shows three candidates, what differs, and the verdict
    expect(page).to_have_url(re.compile("#step-3$"))
    step = page.locator("#step-3")
    expect(step.get_by_role("article")).to_have_count(3)
    expect(step.get_by_role("article", name="beta")).to_contain_text("Winner")
    alpha = step.get_by_role("article", name="alpha")
    expect(alpha.locator("del")).to_have_text([" and Rouen to the sea"])
    thames = step.get_by_role("article", name="gamma")
    assert thames.locator("ins").all_text_contents() == ["A", "Thames"]
    expect(step).to_contain_text("Verdict: beta")
    expect(step.locator(".verdict tbody tr").first).to_contain_text("beta57")

    # and another one can be what they are compared with
    alpha.get_by_role("link", name="mark against it").click()
    expect(step.get_by_role("article", name="beta").locator("ins")).to_have_text([" and Rouen to the sea"])
    page.get_by_role("link", name="Show them plain").last.click()
    expect(page.locator("#step-3 article ins, #step-3 article del")).to_have_count(0)


def test_a_preference_is_asked_blind_and_everything_is_shown_once_it_is_stored(
    browser: Browser, served: Served
) -> None:
    task = served.ask("Which river flows through Rouen?")
    (step,) = served.story(task)["subtasks"]
    subtask, ids = step["id"], [candidate["id"] for candidate in step["candidates"]]
    orders = set()
    for annotator in ("ann", "bob", "cem", "dora", "eve"):
        # given somebody who has not judged it: no name and no verdict is in what the server sends
        sent = served.get(f"/tasks/{task}/blind/{subtask}", annotator).text
        assert not [word for word in (*MODELS, *ids, "longest", "Winner", "verdict:") if word in sent]
        assert sent == served.get(f"/tasks/{task}/blind/{subtask}", annotator).text  # the order is theirs, and stays
        orders.add(tuple(re.findall(r"The river Seine flows through Paris\.|and Rouen|Thames", sent)))
    assert len(orders) > 1

    with signed_in(browser, served) as page:
        # when ann chooses the shortest by keyboard
        page.goto(f"/tasks/{task}/blind/{subtask}")
        texts = page.locator("article .said").all_text_contents()
        page.keyboard.press(str(texts.index("A river Thames flows through Paris.") + 1))
        page.keyboard.press("Enter")

        # then it is stored once, and the models and the verdict are there
        expect(page.get_by_text("You prefer gamma; the judge prefers beta.")).to_be_visible()
        expect(page.get_by_text("you prefer gamma", exact=True)).to_be_visible()
        assert rows(served, task) == ["ann: gamma over alpha", "ann: gamma over beta"]

        # and a second thought replaces the first
        page.get_by_role("link", name="Judge it again, blind").click()
        page.locator("article", has_text="and Rouen").get_by_role("button").click()
        expect(page.get_by_text("You prefer beta; the judge does, too.")).to_be_visible()
        assert rows(served, task) == ["ann: beta over alpha", "ann: beta over gamma", "ann: gamma over alpha"]


def test_the_next_one_to_judge_is_one_that_this_visitor_has_not_judged(browser: Browser, served: Served) -> None:
    older, newer = served.ask("Which river, first?"), served.ask("Which river, second?")
    with signed_in(browser, served, "fay") as page:
        page.goto("/tasks")
        page.get_by_role("link", name="Judge blind").click()
        expect(page).to_have_url(re.compile(newer))
        page.get_by_role("link", name="Skip: I cannot say").click()
        expect(page).to_have_url(re.compile(older))
        page.get_by_role("button").first.click()
        page.get_by_role("link", name="Judge the next one").click()
        expect(page).to_have_url(re.compile(newer))
    assert not rows(served, newer)


def test_it_works_without_javascript(browser: Browser, served: Served) -> None:
    task = served.ask("Which river needs no script?")
    waiting = served.ask("Which river comes later?", wait=False, run_at=LATER)
    with signed_in(browser, served, "gus", java_script_enabled=False) as page:
        page.goto("/tasks")
        page.get_by_label("Words").fill("no script")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="Which river needs no script?").click()
        page.get_by_role("link", name="Judge it blind").click()
        page.locator("article", has_text="Thames").get_by_role("button").click()
        expect(page.locator(".stored")).to_contain_text("You prefer gamma")
        assert len(rows(served, task)) == 2

        page.goto(f"/tasks/{waiting}")
        expect(page.get_by_text("Reload the page to see it go on.")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("h1 ~ .facts, .facts").first).to_contain_text("cancelled")
        page.get_by_role("button", name="Try again").click()
        expect(page).not_to_have_url(re.compile(waiting))
        expect(page.get_by_role("link", name="tries another one again")).to_be_visible()


def test_what_a_model_or_a_client_wrote_is_text(page: Page, served: Served) -> None:
    attack = '"><script>document.title = "broken into"</script><b>'
    with client_of(served.url, served.key) as client:
        stored = client.post("/v1/tasks", json={"request": attack, "capability": "text-generation", "source": attack})
    task = stored.json()["id"]
    wait_until(lambda: served.story(task)["status"] == "done", 60, served.installation.logs)
    subtask = served.story(task)["subtasks"][0]["id"]

    for path in ("/tasks", f"/tasks/{task}", f"/tasks/{task}/blind/{subtask}"):
        page.goto(path)
        expect(page.get_by_text("document.title = 'broken into'").first).to_be_visible()
        assert "broken" not in page.title().replace(attack[:60], "")
        assert page.locator("main script, main b, main img").count() == 0


def test_pages_can_be_read_by_everybody_in_the_light_in_the_dark_and_on_a_phone(
    browser: Browser, served: Served, dag: str, river: str
) -> None:
    served.installation.query("UPDATE verdict SET orders = CAST(:orders AS jsonb)", orders=json.dumps(ORDERS))
    subtask = served.story(river)["subtasks"][0]["id"]
    long = served.ask("Which river has a name like " + "W" * 200 + "?")
    failed = served.ask("one fails")
    paths = [
        "/tasks", "/tasks?q=nothing+like+it", f"/tasks/{dag}", f"/tasks/{river}", f"/tasks/{long}", f"/tasks/{failed}",
        f"/tasks/{river}/blind/{subtask}", f"/tasks/{river}/blind/{subtask}?marks=on", f"/tasks/{river}/asked/{subtask}",
        f"/tasks/{subtask}", "/annotate",
    ]  # fmt: skip
    for scheme in ("light", "dark"):
        for width in (360, 1280):
            options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
            with signed_in(browser, served, **options) as page:
                for path in paths:
                    page.goto(path)
                    for summary in page.locator("summary").all():
                        summary.click()
                    assert faults_of(page) == [], f"{path}, {scheme}, {width}"


#: What a judge that compares two at a time in both orders keeps (`worker.judges.pairwise`).
ORDERS = [
    {
        "prompt": "Is A or B better?",
        "swapped": "Is B or A better?",
        "ties": "rank",
        "read": [
            {"models": ["beta"], "outcome": 0.5, "log_odds": [1.25, -0.5]},
            {"models": ["alpha"], "outcome": 0.5},
        ],
    },
    {"checks": [{"model": "gamma", "failed": ["length"], "why": ["too short"]}]},
]


def test_a_verdict_shows_both_orders_and_what_was_asked(page: Page, served: Served) -> None:
    task = served.ask("Which river was judged in both orders?")
    served.installation.query(
        "UPDATE verdict AS v SET orders = CAST(:orders AS jsonb), confidence = 0.625, judge_model = 'a judge of ours'"
        " FROM subtask AS s WHERE s.id = v.subtask_id AND s.task_id = :task",
        orders=json.dumps(ORDERS),
        task=task,
    )
    page.goto(f"/tasks/{task}")
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("a judge of ours")
    expect(verdict).to_contain_text("0.62")
    expect(verdict.get_by_role("row", name="gamma")).to_contain_text("length")
    verdict.get_by_text("What the judge read").click()
    expect(verdict.get_by_role("heading", name="beta against alpha")).to_be_visible()
    expect(verdict.get_by_role("row", name="beta 0.500")).to_contain_text("1.250, \N{MINUS SIGN}0.500")

    page.get_by_role("link", name="what was asked").click()
    expect(page.get_by_text("Is B or A better?")).to_be_visible()


def test_a_page_follows_its_task_without_being_loaded_again(page: Page, served: Served) -> None:
    # given a page of a task that waits for its time, and the list
    task = served.ask("Which river is live?", wait=False, run_at=LATER)
    listed = page.context.new_page()
    listed.goto("/tasks?q=is+live")
    page.goto(f"/tasks/{task}")
    for one in (page, listed):
        one.evaluate("window.loadedOnce = true")
        expect(one.locator(".chip").first).to_have_text("pending")

    # when its time comes
    served.installation.query("UPDATE task SET run_at = NULL WHERE id = :task", task=task)

    # then both show it, and what is on them
    expect(page.locator(".answer")).to_have_text("The river Seine flows through Paris and Rouen to the sea.")
    expect(page.locator("#said")).to_have_text("done")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    expect(listed.locator(".chip").first).to_have_text("done")
    assert page.evaluate("window.loadedOnce") is True
    assert listed.evaluate("window.loadedOnce") is True


def test_pictures_and_recordings_are_shown_and_other_files_are_not_run(page: Page, served: Served, dag: str) -> None:
    page.goto(f"/tasks/{dag}")
    image = page.get_by_role("img", name="label.png")
    expect(image).to_be_visible()
    assert image.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 120
    page.wait_for_function("document.querySelector('audio').duration === 1")

    link = page.get_by_role("link", name="page.html")
    with page.expect_download() as download:
        link.click()
    assert download.value.path().read_bytes().startswith(b"<script>")
    answer = served.get(str(link.get_attribute("href")))
    assert answer.headers["content-type"] in {"application/octet-stream", "text/plain; charset=utf-8"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "broken" not in page.title()


def test_a_key_of_one_source_sees_its_own_tasks_only(browser: Browser, served: Served, river: str) -> None:
    key = served.made_key(Scope.READ, Scope.SUBMIT, source="shop")
    own = served.ask("Which river has a shop?", key=key)
    digest = served.upload(b"not the shop's")
    with signed_in(browser, served, "hal", key=key) as page:
        page.goto("/tasks")
        expect(page.locator("tbody tr")).to_have_count(1)
        page.goto("/tasks?source=api")  # asks for another's: gets their own
        expect(page.locator("tbody tr")).to_have_count(1)
        page.goto(f"/tasks?q={river}")
        expect(page.get_by_text("No task is like that.")).to_be_visible()
        page.goto(f"/tasks/{own}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Which river has a shop?")
        page.goto("/blind")
        expect(page).to_have_url(re.compile(own))
    subtask = served.story(river)["subtasks"][0]["id"]
    for path in ("", "/live", f"/blind/{subtask}", f"/asked/{subtask}", f"/files/{digest}"):
        assert served.get(f"/tasks/{river}{path}", key=key).status_code == 404, path
    assert served.get(f"/tasks/{own}/blind/{subtask}", key=key).status_code == 404
    assert served.get(f"/tasks/{own}/files/{digest}", key=key).status_code == 404


def test_a_key_that_only_reads_is_offered_nothing_else(browser: Browser, served: Served, river: str) -> None:
    key = served.made_key(Scope.READ)
    subtask = served.story(river)["subtasks"][0]["id"]
    with signed_in(browser, served, "ida", key=key) as page:
        page.goto(f"/tasks/{river}")
        expect(page.get_by_role("article")).to_have_count(3)
        assert page.get_by_role("button").count() == 0
        assert page.get_by_role("link", name="blind").count() == 0
        page.goto("/blind")
        expect(page.get_by_role("alert")).to_contain_text("scope submit")
    with client_of(served.url, key) as client:
        for path in ("retry", "cancel", f"blind/{subtask}"):
            assert client.post(f"/tasks/{river}/{path}").status_code == 403


def test_a_form_of_another_site_changes_nothing(served: Served, river: str) -> None:
    subtask = served.story(river)["subtasks"][0]
    form = {"better": subtask["candidates"][0]["id"]}
    with httpx.Client(base_url=served.url, auth=("jan", served.key), timeout=60) as client:
        for headers in (
            {},
            {"Origin": "https://elsewhere.example"},
            {"Origin": served.url, "Sec-Fetch-Site": "cross-site"},
        ):
            for path in ("retry", "cancel", f"blind/{subtask['id']}"):
                refused = client.post(f"/tasks/{river}/{path}", data=form, headers=headers)
                assert (refused.status_code, "page of this server" in refused.text) == (403, True)
    assert not [said for said in rows(served, river) if said.startswith("jan")]


def test_a_long_list_goes_on_with_older_tasks(page: Page, served: Served) -> None:
    many = [
        {"request": f"river {n}", "capability": "text-generation", "source": "many", "run_at": LATER} for n in range(51)
    ]
    with client_of(served.url, served.key) as client:
        assert client.post("/v1/task-batches", json={"tasks": many}).json()["stored"] == 51

    page.goto("/tasks?source=many&state=pending")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.get_by_label("Source", exact=True).input_value() == "many"
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("tbody tr")).to_have_count(50)


def test_who_has_no_key_is_asked_to_sign_in(browser: Browser, served: Served) -> None:
    context = browser.new_context(base_url=served.url, http_credentials={"username": "x", "password": "no key"})
    page = context.new_page()
    page.goto("/tasks")
    expect(page.get_by_role("alert")).to_contain_text("unknown or revoked")
    expect(page.get_by_text("a key of bakeoff keys create as the password")).to_be_visible()
    context.close()
