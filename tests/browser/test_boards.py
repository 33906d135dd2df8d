"""The leaderboard and curation in a real Chromium: marks, figures, keyboard, phone, without script, and who may look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from db.curation import read_job
from db.curation_records import Scored, mark_scored, page_of
from db.engine import transaction
from db.figures import judge_agreement
from db.keys import Scope
from db.leaderboard import games_between_models
from tests.browser.boards_parts import BOARDS, STAGES, seed_boards, seed_failed, seed_job
from tests.browser.conftest import PATIENCE, Served, signed_in
from tests.browser.looking import faults_of
from tests.browser.pages_registry import REGISTRY
from tests.conftest import make_installation
from tests.integration.api_parts import client_of, make_key, start_api
from tests.integration.standings_parts import judged, preferred

pytestmark = [pytest.mark.browser, pytest.mark.integration]
expect.set_options(timeout=PATIENCE)

HOSTILE = "<img src=x onerror=\"document.title='broken into'\"> of a very long name that no table has ever seen before"
PAGES = ("/leaderboard", "/curation", "/curation/done", "/curation/next", "/curation/wrong")
RECORDS = 240


@pytest.fixture(scope="module")
def served(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An API whose database has verdicts and curation jobs; nobody answers."""
    for installation in make_installation(servers, tmp_path_factory.mktemp("boards"), template, REGISTRY):
        engine = installation.engine()
        with transaction(engine) as connection:
            seed_boards(connection, 40)
            judged(connection, {"qwen-0.5b": None}, age=10)
            preferred(connection, HOSTILE, "llama-1b", "import")
            seed_job(connection, "done", RECORDS)
            seed_job(connection, "next", RECORDS, until="questions")
            seed_failed(connection, "wrong")
        engine.dispose()
        key = make_key(installation, Scope.ADMIN, name="curators")
        yield Served(installation=installation, url=start_api(installation, api_rate="0"), key=key)


def of_api(served: Served, path: str) -> Any:
    with client_of(served.url, served.key) as client:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


def number(said: str) -> float:
    """A figure as a page writes it."""
    return float(said.replace("\N{MINUS SIGN}", "-").replace(",", "").replace("%", "").replace("+", "").strip())


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def section_of(page: Page, capability: str) -> Any:
    return page.get_by_role("region", name=capability, exact=True)


def check_board(page: Page, board: dict[str, Any]) -> None:
    """A capability's section has the figures that the API gives, as marks and as text."""
    section = section_of(page, board["capability"])
    rows = section.locator("table.standings tbody tr")
    assert [row.get_attribute("data-model") for row in rows.all()] == [one["model"] for one in board["standings"]]
    for row, one in zip(rows.all(), board["standings"], strict=True):
        cells = [cell.inner_text() for cell in row.get_by_role("cell").all()]
        strength, rate, interval, judged_, preferred_, tried, failed = cells[:7]
        if one["strength"] is None:
            assert strength == ""
        else:
            value, reach = map(number, strength.split("±"))
            assert value == pytest.approx(one["strength"], abs=0.006)
            assert reach == pytest.approx(one["strength_interval"][1] - one["strength"], abs=0.006)
        assert rate == ("" if one["win_rate"] is None else percent(one["win_rate"]))
        if one["win_rate_interval"]:
            assert interval == "\N{EN DASH}".join(f"{100 * end:.0f}" for end in one["win_rate_interval"])
        assert judged_ == (f"{one['wins']} of {one['judged']}" if one["judged"] else "")
        assert preferred_ == (f"{one['preferred']} of {one['compared']}" if one["compared"] else "")
        assert number(tried) == one["tried"]
        assert failed == ("" if one["failure_rate"] is None else percent(one["failure_rate"]))
    plots = section.get_by_role("img").all()
    for plot, field in zip(plots, ("strength", "win_rate"), strict=True):
        values = [one[field] for one in board["standings"] if one[field] is not None]
        places = [number(dot.get_attribute("cx") or "") for dot in plot.locator("circle").all()]
        assert len(places) == len(values)
        for place, value in zip(places, values, strict=True):  # in the order of the board, and where they belong
            assert [place < other for other in places] == [value < other for other in values]
        reaches = [
            (number(line.get_attribute("x1") or ""), number(line.get_attribute("x2") or ""))
            for line in plot.locator(".reach").all()
        ]
        assert all(low <= place <= high for place, (low, high) in zip(places, reaches, strict=True))


def test_plots_and_tables_are_the_figures_of_the_api(served: Served, page: Page) -> None:
    page.goto("/leaderboard")

    boards = of_api(served, "/v1/leaderboard")["boards"]
    assert {board["capability"] for board in boards} == set(BOARDS)
    for board in boards:
        check_board(page, board)
    assert page.title() == "Leaderboard · Bakeoff"  # nothing that a name says was run


def test_it_is_narrowed_by_capability_and_time_with_the_keyboard(served: Served, page: Page) -> None:
    page.goto("/leaderboard")
    page.get_by_label("Capability").focus()
    page.keyboard.type("image")
    page.keyboard.press("Tab")
    page.keyboard.type("a week")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/leaderboard?capability=*")

    assert page.url.endswith("/leaderboard?capability=image-to-text%2Focr&days=7")
    expect(page.get_by_label("Since")).to_have_value("7")
    (board,) = of_api(served, "/v1/leaderboard?capability=image-to-text/ocr&days=7")["boards"]
    assert sum(one["judged"] for one in board["standings"]) < sum(
        one["judged"] for one in of_api(served, "/v1/leaderboard")["boards"][0]["standings"]
    )
    check_board(page, board)
    expect(section_of(page, "text-generation")).to_have_count(0)


def test_who_beats_whom_opens_with_the_keyboard(served: Served, page: Page) -> None:
    # given
    won: dict[tuple[str, str], int] = {}
    engine = served.installation.engine()
    with transaction(engine) as connection:
        for game in games_between_models(connection, "image-to-text/ocr", None, 10_000):
            won[game.better, game.worse] = won.get((game.better, game.worse), 0) + game.count
    engine.dispose()

    # when
    page.goto("/leaderboard?capability=image-to-text/ocr")
    table = page.get_by_role("region", name="Who beats whom in image-to-text/ocr")
    expect(table).to_be_hidden()
    page.locator("summary").focus()
    page.keyboard.press("Enter")

    # then
    expect(table).to_be_visible()
    names = [re.sub(r"^\d+ ", "", one.inner_text().strip()) for one in table.locator("tbody th").all()]
    assert sorted(names) == sorted(BOARDS["image-to-text/ocr"])
    for row, name in zip(table.locator("tbody tr").all(), names, strict=True):
        for cell, other in zip(row.get_by_role("cell").all(), names, strict=True):
            met = won.get((name, other), 0) + won.get((other, name), 0)
            if name == other:
                assert cell.inner_text() == ""
            elif met:
                assert cell.get_attribute("title") == f"{won.get((name, other), 0)} of {met}"
                assert cell.inner_text() == percent(won.get((name, other), 0) / met)
            else:
                assert cell.inner_text() == "\N{EN DASH}"


def test_it_says_how_often_people_agree_with_the_judge(served: Served, page: Page) -> None:
    engine = served.installation.engine()
    with transaction(engine) as connection:
        (people,) = judge_agreement(connection, ["image-to-text/ocr"])
    engine.dispose()

    page.goto("/leaderboard?capability=image-to-text/ocr")

    said = f"People agree with the judge j in {people.agreed} of {people.compared} comparisons: {percent(people.agreed / people.compared)}"
    expect(page.locator(".judges")).to_contain_text(said)


def test_times_of_ones_own_and_wrong_ones(served: Served, page: Page) -> None:
    page.goto("/leaderboard?days=3.5")
    expect(page.get_by_label("Since").locator("option:checked")).to_have_text("3.5 days ago")
    for wrong in ("none", "0", "-1", "nan", "inf", "1e9"):
        refused = served.get(f"/leaderboard?days={wrong}")
        assert refused.status_code == 422, wrong
        assert "is no number of days" in refused.text
    assert "Nothing is known of that" in served.get("/leaderboard?capability=riddles").text


def test_jobs_are_listed_as_the_api_lists_them(served: Served, page: Page) -> None:
    page.goto("/curation")

    rows = page.locator("tr[data-job]")
    jobs = of_api(served, "/v1/curation-jobs")["jobs"]
    assert [row.get_attribute("data-job") for row in rows.all()] == [job["name"] for job in jobs]
    for row, job in zip(rows.all(), jobs, strict=True):
        status, stage, records, kept, _ = [cell.inner_text() for cell in row.get_by_role("cell").all()]
        last = of_api(served, f"/v1/curation-jobs/{job['name']}")["stages"][-1]
        assert status == job["status"]
        assert stage.startswith(job["stage"] or "")
        assert number(records) == job["records"]
        assert kept == (str(last["passed"]) if job["status"] == "done" else "")
    page.get_by_role("link", name="done").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("done")


@pytest.mark.parametrize("name", ["done", "next", "wrong"])
def test_the_funnel_has_the_figures_of_the_api(served: Served, page: Page, name: str) -> None:
    page.goto(f"/curation/{name}")

    stages = of_api(served, f"/v1/curation-jobs/{name}")["stages"]
    rows = page.locator("tr[data-stage]").all()
    assert [row.get_attribute("data-stage") for row in rows] == [one["stage"] for one in stages] == list(STAGES)
    for row, one in zip(rows, stages, strict=True):
        came, passed, waiting, dropped, why, _ = [cell.inner_text() for cell in row.get_by_role("cell").all()]
        assert [number(said) for said in (came, passed, waiting)] == [one["came"], one["passed"], one["waiting"]]
        assert number(dropped) == sum(one["dropped"].values())
        assert all(f"{rule.replace('_', ' ')} {n}" in why for rule, n in one["dropped"].items())
    plot = page.get_by_role("img", name=re.compile("^How many records came"))
    for field, bars in (("came", plot.locator("rect.all")), ("passed", plot.locator("rect.part"))):
        shares = [number(bar.get_attribute("width") or "") for bar in bars.all()]
        assert shares == [pytest.approx(100 * one[field] / stages[0]["came"], abs=0.01) for one in stages]


def test_scores_are_drawn_as_often_as_they_were_given(served: Served, page: Page) -> None:
    page.goto("/curation/done")

    stages = {one["stage"]: one for one in of_api(served, "/v1/curation-jobs/done")["stages"]}
    for stage in ("questions", "answers"):
        plot = page.get_by_role("img", name=f"Histogram of the scores of {stage}")
        titles = [re.findall(r"[\d,]+", one.text_content() or "") for one in plot.locator("title").all()]
        assert sum(number(n) for n, _ in titles) == stages[stage]["came"]
        assert sum(number(kept) for _, kept in titles) == stages["answers"]["passed"]


def test_progress_is_followed_without_a_reload(served: Served, page: Page) -> None:
    # given a job whose stage is half through, with tasks that ended just now
    served.installation.query("UPDATE task SET finished_at = now() WHERE source = 'curation:next' AND status = 'done'")
    page.goto("/curation/next")
    came = of_api(served, "/v1/curation-jobs/next")["stages"][STAGES.index("questions")]["came"]
    done = came // 2
    progress = page.get_by_role("progressbar", name=re.compile("^questions"))
    expect(progress).to_have_attribute("value", str(done))
    expect(page.locator(".progress")).to_contain_text(
        f"{came - done} records left at this stage, {came - done} tasks open"
    )
    expect(page.locator(".progress")).to_contain_text("tasks a minute; about")
    expect(page.locator("#live")).to_contain_text("Nobody runs it now")
    page.evaluate("window.same = true")

    # when ten more records have their score
    engine = served.installation.engine()
    number_ = STAGES.index("questions")
    with transaction(engine) as connection:
        job = read_job(connection, "next").id
        more = page_of(connection, job, number_, 1, 10)
        mark_scored(connection, job, number_, "questions", [Scored(position=one.position, score=1.0) for one in more])
    engine.dispose()

    # then
    expect(progress).to_have_attribute("value", str(done + 10))
    assert page.evaluate("window.same")


def test_the_report_opens_from_the_page(page: Page) -> None:
    page.goto("/curation/done")
    page.get_by_role("link", name="Report with samples").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Curation of done")


def test_who_may_not_look_is_told_so(served: Served) -> None:
    made = served.installation
    reader, bound = make_key(made, Scope.READ), make_key(made, Scope.ADMIN, source="curation:done")
    assert httpx.get(f"{served.url}/curation").status_code == 401
    assert served.get("/leaderboard", key=reader).status_code == 200
    for path in PAGES[1:]:
        refused = served.get(path, key=reader)
        assert refused.status_code == 403, path
        assert "scope admin" in refused.text
    assert [path for path in PAGES[2:] if served.get(path, key=bound).status_code == 200] == ["/curation/done"]
    assert re.findall(r'data-job="(\w+)"', served.get("/curation", key=bound).text) == ["done"]
    assert served.get("/curation/wrong/report", key=bound).status_code == 404
    for missing in ("/curation/riddle", "/curation/%00", "/curation?before=x"):
        assert served.get(missing).status_code in {400, 404, 422}, missing


def test_every_page_works_without_a_script(browser: Browser, served: Served) -> None:
    with signed_in(browser, served, java_script_enabled=False) as page:
        for path in PAGES:
            page.goto(path)
            assert page.get_by_role("table").count() > 0, path
        page.goto("/leaderboard")
        page.get_by_label("Capability").select_option("text-generation")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**/leaderboard?capability=text-generation*")
        page.locator("summary").click()
        expect(page.get_by_role("region", name="Who beats whom in text-generation")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_is_readable_on_a_phone_and_a_desk(
    browser: Browser, served: Served, width: int, scheme: Any
) -> None:
    with signed_in(browser, served, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        for path in PAGES:
            page.goto(path)
            for hidden in page.locator("details").all():
                hidden.evaluate("one => { one.open = true; }")
            assert faults_of(page) == [], path
            for plot in page.get_by_role("img").all():
                assert plot.evaluate(OUTSIDE) == [], path


#: Text of a plot that leaves it, or that other text of it covers.
OUTSIDE = """(plot) => {
  const whole = plot.getBoundingClientRect();
  const texts = [...plot.querySelectorAll('text')].map((one) => [one.textContent, one.getBoundingClientRect()]);
  const wrong = texts.filter(([, box]) => box.left < whole.left - 1 || box.right > whole.right + 1);
  texts.forEach(([said, a], n) => texts.slice(n + 1).forEach(([other, b]) => {
    if (a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom) wrong.push([said, other]);
  }));
  return wrong.map(String);
}"""


def test_everything_is_reached_with_the_tab_key(page: Page) -> None:
    page.goto("/leaderboard?capability=text-generation")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        said = page.evaluate(
            "(({tagName, id, className}) => tagName === 'BODY' ? '' : [tagName, id, className].join(' ').trim())(document.activeElement)"
        )
        if not said:
            break
        reached.append(said.split()[0].lower())
    assert reached.count("select") == 2
    assert reached.index("select") < reached.index("button") < reached.index("div") < reached.index("summary")


def test_a_failed_job_is_set_going_again(served: Served, page: Page) -> None:
    page.goto("/curation/wrong")
    expect(page.locator(".wrong")).to_contain_text("none of the fields")
    page.get_by_role("button", name="Set it going again").click()

    expect(page.locator(".facts .chip")).to_have_text("running")
    assert of_api(served, "/v1/curation-jobs/wrong")["status"] == "running"
    again = httpx.post(f"{served.url}/curation/wrong/resume", auth=("ann", served.key), headers={"Origin": served.url})
    assert again.status_code == 409
    assert httpx.post(f"{served.url}/curation/wrong/resume", auth=("ann", served.key)).status_code == 403
