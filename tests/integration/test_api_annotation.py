"""Annotation in a browser, against a real API process: what is shown and stored, to whom, and what is refused."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from db.annotations import NewGroup, add_groups, annotated, find_set
from db.engine import transaction
from db.keys import Scope
from scheduler.annotating.criteria import read_criteria
from scheduler.annotating.exporting import exported
from tests.conftest import Installation, make_installation
from tests.integration.api_parts import make_key, start_api

pytestmark = pytest.mark.integration

CRITERIA = read_criteria()
ITEMS = ["<image>\nWhy so?", "What is it, then?"]
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 40


@dataclass
class Served:
    """An API that asks for keys, and what it serves."""

    installation: Installation
    url: str
    key: str

    def browser(self, name: str, key: str | None = None) -> httpx.Client:
        """What a browser sends once its user has signed in; redirects are not followed."""
        return httpx.Client(base_url=self.url, auth=(name, key or self.key), headers={"Origin": self.url}, timeout=60)

    def made(self, *groups: NewGroup) -> str:
        """A new set of these groups."""
        return made(self.installation, *groups)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """What the set's export would write."""
        engine = self.installation.engine()
        with transaction(engine) as connection:
            found = list(exported(annotated(connection, find_set(connection, name).id), CRITERIA.version))
        engine.dispose()
        return found


@dataclass
class Form:
    """The form of a page, as a browser reads it."""

    page: str
    group: str = field(init=False)
    items: list[str] = field(init=False)
    values: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.group = next(iter(re.findall(r'name="group" value="([0-9a-f-]{36})"', self.page)))
        sets = re.findall(r"<fieldset>(.*?)</fieldset>", self.page, re.DOTALL)
        self.items = [
            html.unescape(re.findall(r'<p class="said" dir="auto">(.*?)</p>', one, re.DOTALL)[0]) for one in sets
        ]
        self.values = dict(re.findall(r'name="(\d+\.\w+)" type="number"[^>]*? value="(.*?)"', self.page))

    def filled(self, values: Sequence[str]) -> dict[str, str]:
        """Every criterion of an item at the item's value."""
        scores = {f"{n}.{name}": value for n, value in enumerate(values, start=1) for name in CRITERIA.names}
        return {"group": self.group, **scores}


def group(key: str = "g", wanted: int = 1, items: Sequence[str] = ITEMS, **given: Any) -> NewGroup:
    said = [{"said": one, "models": [f"model-of-{n}"]} for n, one in enumerate(items)]
    return NewGroup(key=key, field="questions", input={"text": "Look.", **given}, items=said, wanted=wanted)


def made(installation: Installation, *groups: NewGroup, name: str = "") -> str:
    name = name or f"set-{uuid4().hex[:8]}"
    engine = installation.engine()
    with transaction(engine) as connection:
        add_groups(connection, name, CRITERIA.model_dump(mode="json"), groups)
    engine.dispose()
    return name


def form_of(client: httpx.Client, address: str) -> Form:
    response = client.get(address)
    assert response.status_code == 200, response.text
    return Form(response.text)


def is_page(response: httpx.Response, status: int) -> str:
    assert (response.status_code, response.headers["content-type"]) == (status, "text/html; charset=utf-8")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in response.text
    assert "Traceback" not in response.text
    return html.unescape(response.text)


@pytest.fixture(scope="module")
def served(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    for installation in make_installation(servers, tmp_path_factory.mktemp("annotation"), template):
        key = make_key(installation, Scope.SUBMIT)  # before the API starts: it is asked for from the first request on
        yield Served(installation, start_api(installation, api_rate="0"), key)


def test_two_annotators_score_a_group_blind_and_both_are_stored(served: Served) -> None:
    # given a group that wants two
    name = served.made(group(wanted=2))

    for annotator in ("ann", "bob"):
        with served.browser(annotator) as client:
            # when each fills in the form, in the order that is shown to them
            form = form_of(client, f"/annotate/{name}")
            assert "model-of" not in form.page
            assert sorted(form.items) == ["What is it, then?", "Why so?"]
            assert all(criterion.asks in html.unescape(form.page) for criterion in CRITERIA.criteria)
            stored = client.post(f"/annotate/{name}", data=form.filled([str(len(said) / 100) for said in form.items]))

            # then the way leads to the next group, of which there is none
            assert (stored.status_code, stored.headers["location"]) == (303, f"/annotate/{name}")
            assert "Nothing in" in is_page(client.get(f"/annotate/{name}"), 200)

    (row,) = served.rows(name)
    assert row["score"] == [0.07, 0.17]
    assert row["annotation"]["annotators"] == ["ann", "bob"]
    with served.browser("ann") as client:
        assert f"{name}</th><td>2 of 2</td>" in is_page(client.get("/annotate"), 200)


def test_wrong_scores_come_back_with_the_sentence_and_what_was_typed(served: Served) -> None:
    name = served.made(group())
    with served.browser("ann") as client:
        form = form_of(client, f"/annotate/{name}")
        wrong = {**form.filled(["0.5", "0,25"]), "2.clear": "1.7"}

        refused = client.post(f"/annotate/{name}", data=wrong)

        assert "Item 2: clear = 1.7 is not a number from 0 to 1." in is_page(refused, 422)
        assert {"group": form.group, **Form(refused.text).values} == wrong
        for place, said in (("1.clear", "much"), ("1.clear", ""), ("1.funny", "1"), ("1.clear", "nan")):
            assert "Item 1: " in is_page(client.post(f"/annotate/{name}", data={**wrong, place: said}), 422)
        assert "no group's id" in is_page(client.post(f"/annotate/{name}", data={"group": "x"}), 422)
        assert served.rows(name) == []


def test_an_item_left_empty_keeps_the_group_open_with_the_scores_of_the_others(served: Served) -> None:
    name = served.made(group())
    with served.browser("ann") as client:
        form = form_of(client, f"/annotate/{name}")

        assert client.post(f"/annotate/{name}", data=form.filled(["1", ""])).status_code == 303
        again = form_of(client, f"/annotate/{name}")

        assert (again.group, again.items) == (form.group, form.items)
        assert {**form.filled(["1", ""])} == {"group": form.group, **again.values}
        assert served.rows(name) == []


def test_what_one_skips_another_gets(served: Served) -> None:
    name = served.made(group())
    with served.browser("ann") as ann, served.browser("bob") as bob:
        form = form_of(ann, f"/annotate/{name}")
        assert "Nothing in" in bob.get(f"/annotate/{name}").text

        assert ann.post(f"/annotate/{name}/skip", data={"group": form.group}).status_code == 303

        assert "Nothing in" in ann.get(f"/annotate/{name}").text
        assert form_of(bob, f"/annotate/{name}").group == form.group


def test_undo_opens_the_last_group_with_its_scores(served: Served) -> None:
    name = served.made(group())
    with served.browser("ann") as client:
        assert "nothing to undo" in is_page(client.post(f"/annotate/{name}/undo"), 404)
        form = form_of(client, f"/annotate/{name}")
        client.post(f"/annotate/{name}", data=form.filled(["0.25", "1"]))
        assert "undo it first" in is_page(client.post(f"/annotate/{name}/skip", data={"group": form.group}), 422)

        assert client.post(f"/annotate/{name}/undo").status_code == 303

        opened = form_of(client, f"/annotate/{name}")
        assert {"group": opened.group, **opened.values} == form.filled(["0.25", "1"])
        assert served.rows(name) == []


def test_a_group_of_somebody_else_is_not_taken(served: Served) -> None:
    name = served.made(group())
    with served.browser("ann") as ann, served.browser("bob") as bob:
        form = form_of(ann, f"/annotate/{name}")

        refused = bob.post(f"/annotate/{name}", data=form.filled(["1", "1"]))

        assert "never given to 'bob'" in is_page(refused, 404)
        assert served.rows(name) == []


def test_everything_that_somebody_wrote_is_escaped(served: Served) -> None:
    attack = '"><script>alert(1)</script>'
    name = made(
        served.installation,
        group(items=[attack, "b"], text=attack, captions=attack, image=attack, attachments=[{"sha256": "0" * 64, "name": attack}]),
        name=f"{attack} a/b?c#d",
    )  # fmt: skip
    with served.browser(attack) as client:
        address = httpx.URL(served.url).copy_with(raw_path=b"/annotate/" + _quoted(name))

        shown = client.get(address)
        assert is_page(shown, 200).count(attack) >= 7  # the set, the annotator, the input's four, the item
        form = Form(shown.text)
        assert attack in form.items
        refused = client.post(address, data={**form.filled([attack, attack]), "group": form.group})
        assert attack in is_page(refused, 422)
        assert client.post(address, data=form.filled(["1", "1"])).status_code == 303
        assert attack in is_page(client.get("/annotate"), 200)
        assert attack in is_page(client.get("/annotate/" + _quoted(attack + "?").decode()), 404)


def _quoted(name: str) -> bytes:
    return "".join(f"%{byte:02X}" for byte in name.encode()).encode()


def test_files_are_shown_to_whoever_has_their_group_open(served: Served) -> None:
    # given a group with a picture that is stored, and one that is not
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.key}"}, timeout=60) as script:
        digest = script.post("/v1/attachments", content=PNG).json()["sha256"]
    files = [{"sha256": digest, "name": "seen.png"}, {"sha256": "0" * 64, "name": "gone.png"}]
    name = served.made(group(attachments=files, image="https://elsewhere.example/x.png"))
    with served.browser("ann") as ann, served.browser("bob") as bob:
        page = ann.get(f"/annotate/{name}").text

        assert re.findall(r'src="(.*?)"', page) == [f"/annotate/{name}/files/{digest}"]
        assert "gone.png" in page
        picture = ann.get(f"/annotate/{name}/files/{digest}")
        assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
        assert "No file" in is_page(bob.get(f"/annotate/{name}/files/{digest}"), 404)
        assert "No file" in is_page(ann.get(f"/annotate/{name}/files/{'1' * 64}"), 404)


def test_a_form_of_another_site_is_refused(served: Served) -> None:
    name = served.made(group())
    with served.browser("ann") as client:
        form = form_of(client, f"/annotate/{name}")
        del client.headers["Origin"]
        for headers in (
            {},
            {"Origin": "null"},
            {"Origin": "https://elsewhere.example"},
            {"Referer": f"https://elsewhere.example/?{served.url}/"},
            {"Origin": served.url, "Sec-Fetch-Site": "cross-site"},
            {"Origin": served.url, "Sec-Fetch-Site": "same-site"},
        ):
            for rest in ("", "/skip", "/undo"):
                refused = client.post(f"/annotate/{name}{rest}", data=form.filled(["1", "1"]), headers=headers)
                assert "page of this server" in is_page(refused, 403), headers
        assert served.rows(name) == []

        for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Referer": f"{served.url}/annotate/{name}"}):
            assert client.post(f"/annotate/{name}", data=form.filled(["1", "1"]), headers=headers).status_code == 303


def test_without_a_key_that_may_annotate_nothing_is_shown(served: Served) -> None:
    name = served.made(group())
    reader = make_key(served.installation, Scope.READ)
    bound = make_key(served.installation, Scope.SUBMIT, source="shop")

    for headers in ({}, {"Authorization": "Basic !"}, {"Authorization": "Basic YW5u"}):
        for path in ("", f"/{name}", "/no-such-set"):
            refused = httpx.get(f"{served.url}/annotate{path}", headers=headers)
            assert "key" in is_page(refused, 401)
            assert refused.headers["www-authenticate"].startswith("Basic ")
    for key, said in ((reader, "scope submit"), (bound, "bound to one")):
        with served.browser("ann", key) as client:
            assert said in is_page(client.get(f"/annotate/{name}"), 403)


def test_an_unknown_set_is_a_page_that_names_those_there_are(served: Served) -> None:
    name = served.made(group())
    with served.browser("ann") as client:
        for path in ("no-such-set", "no/such/set"):
            assert name in is_page(client.get(f"/annotate/{path}"), 404)
        assert "No set" in is_page(client.post("/annotate/no-such-set", data={"group": str(uuid4())}), 404)


def test_nonsense_is_refused_by_a_page_and_never_a_fault(served: Served) -> None:
    name = served.made(group())
    bearer = {"Authorization": f"Bearer {served.key}"}
    with httpx.Client(base_url=served.url, headers=bearer, timeout=60) as client:
        address = f"/annotate/{name}?annotator=ann"
        is_page(client.get("/annotate/%00"), 422)
        is_page(client.get("/annotate/%FF"), 404)
        is_page(client.get("/annotate/"), 404)
        assert "1 to 100 characters" in is_page(client.get(f"/annotate/{name}?annotator={'a' * 101}"), 422)
        assert "is no form" in is_page(client.post(address, content=b"\xff"), 422)
        assert "is no form" in is_page(client.post(address, content=b"&".join([b"a=1"] * 1001)), 422)
        form = form_of(client, address)
        assert "for 2 items" in is_page(client.post(address, data={"group": form.group, "99.clear": "1"}), 422)
        assert "is no criterion" in is_page(client.post(address, data={**form.filled(["1", "1"]), "1.\0": "1"}), 422)
        is_page(client.post(f"/annotate/{name}/skip?annotator=ann", data={"group": "\0"}), 422)
        assert served.rows(name) == []


def test_on_its_own_machine_an_annotator_only_says_a_name(installation: Installation) -> None:
    # given an API without any key
    url = start_api(installation)
    name = made(installation, group())
    with httpx.Client(base_url=url, headers={"Origin": url}, timeout=60) as client:
        # when nobody is named, then the page asks for the name
        assert f'formaction="/annotate/{name}"' in is_page(client.get("/annotate"), 200)
        assert 'name="annotator"' in is_page(client.get(f"/annotate/{name}"), 200)
        assert "nobody is named" in is_page(client.post(f"/annotate/{name}", data={}), 422)

        # and when somebody is, every address goes on with it
        form = form_of(client, f"/annotate/{name}?annotator=Ann+B")
        assert f'action="/annotate/{name}?annotator=Ann+B"' in form.page
        stored = client.post(f"/annotate/{name}?annotator=Ann+B", data=form.filled(["1", "0"]))
        assert stored.headers["location"] == f"/annotate/{name}?annotator=Ann+B"
        assert (
            client.post(stored.headers["location"], headers={"Origin": "https://elsewhere.example"}).status_code == 403
        )
        assert client.post(f"/annotate/{name}/undo?annotator=Ann+B").status_code == 303
