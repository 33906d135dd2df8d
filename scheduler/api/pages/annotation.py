"""Annotation in a browser: the next group of a set, blind, as a form that needs no script.

What is shown and stored is `scheduler.annotating.blind`'s, as on the command line. A browser sends no Bearer header, so
these pages take HTTP Basic: the annotator's name, and a key as the password. A browser sends that along with whatever
another site makes it post, so a form must come from a page of ours.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.annotations import annotated, find_set, set_names, shares
from db.blobs import Artifact, artifacts_of
from db.engine import transaction
from db.errors import BakeoffError, InvalidRequest, NotFound
from db.keys import Scope
from scheduler.annotating.blind import Shown, annotator_name, next_group, skip_group, store_scores, undo
from scheduler.api.access import Access, Caller
from scheduler.api.attachments import HARMLESS, read_attachment
from scheduler.api.problems import Forbidden, answer_to
from scheduler.api.services import Services, Shared

MOST_FIELDS = 1000  # of a form: 26 items by 20 criteria are 520
FIELD = re.compile(r"([1-9][0-9]?)\.(.+)")  # of a form: an item's place and a criterion
BASIC = 'Basic realm="bakeoff annotation: your name, and a key as the password", charset="UTF-8"'

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, autoescape=True,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


class Page(APIRoute):
    """An endpoint whose errors are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        serve = super().get_route_handler()

        async def served(request: Request) -> Response:
            try:
                return await serve(request)
            except (BakeoffError, DBAPIError, PoolTimeout) as error:
                return _refused(request, error)

        return served


router = APIRouter(prefix="/annotate", route_class=Page, include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who looks at a page. `signed`: the name came with the key, so no address has to carry it."""

    caller: Caller
    annotator: str  # empty: not said yet
    signed: bool


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a group's input. `kind`: `image` or `audio`, which a page shows; else it is named only."""

    name: str
    kind: str
    address: str


async def _visitor(request: Request, annotator: str = "") -> Visitor:
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    user, token = _basic(said) if scheme.lower() == "basic" else ("", said.strip() or None)
    access: Access = request.app.state.access
    caller = await access.caller(request, token)
    if caller.key is not None and not caller.key.may(Scope.SUBMIT):
        raise Forbidden(f"To annotate takes a key with the scope {Scope.SUBMIT}.")
    if caller.source is not None:
        raise Forbidden("A set shows what every source asked; this key is bound to one. Annotate with another key.")
    signed = caller.key is not None and bool(user.strip())
    name = user if signed else annotator
    return Visitor(caller=caller, annotator=annotator_name(name) if name.strip() else "", signed=signed)


def _basic(said: str) -> tuple[str, str | None]:
    """Name and key of HTTP Basic; no key where it is not well formed."""
    try:
        user, _, key = base64.b64decode(said, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", None
    return user, key


Looking = Annotated[Visitor, Depends(_visitor)]


def _poster(request: Request, visitor: Looking) -> Visitor:
    """Who posts a form of ours. Raises `Forbidden` for one of another site, `InvalidRequest` where nobody is named."""
    headers = request.headers
    came = headers.get("origin") or headers.get("referer", "")
    same = came.partition("://")[2].partition("/")[0].lower() == headers.get("host", "").lower()
    if site := headers.get("sec-fetch-site"):  # a proxy may have changed the host, and nobody this
        same = site == "same-origin"
    if not same and not headers.get("authorization", "").lower().startswith("bearer "):
        raise Forbidden("This form was not sent by a page of this server; open the set's page and send it there.")
    if not visitor.annotator:
        raise InvalidRequest("annotator: nobody is named; add ?annotator=NAME to the address.")
    return visitor


async def _form(request: Request) -> dict[str, str]:
    try:
        fields = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest(f"The body is no form of at most {MOST_FIELDS} fields in UTF-8.") from None
    return dict(fields)


Posting = Annotated[Visitor, Depends(_poster)]
Form = Annotated[dict[str, str], Depends(_form)]


@router.get("")
def show_sets(visitor: Looking, shared: Shared) -> Response:
    """Every set, with how far it is."""
    with transaction(shared.engine) as connection:
        names = set_names(connection)
    return _sets(shared, visitor, names)


@router.post("/{name:path}/skip")
def skip(name: str, visitor: Posting, form: Form, shared: Shared) -> Response:
    """Leave the group to somebody else."""
    try:
        with transaction(shared.engine) as connection:
            skip_group(connection, find_set(connection, name), visitor.annotator, _group(form))
    except InvalidRequest as error:
        return _group_page(shared, visitor, name, error=error, status=422)
    return _back(name, visitor)


@router.post("/{name:path}/undo")
def undo_last(name: str, visitor: Posting, shared: Shared) -> Response:
    """Open the group again that the annotator finished last."""
    with transaction(shared.engine) as connection:
        to_score = find_set(connection, name)
        try:
            undo(connection, to_score, visitor.annotator)
        except NotFound as error:
            nothing = error
        else:
            return _back(name, visitor)
    return _group_page(shared, visitor, name, error=nothing, status=404)


@router.get("/{name:path}/files/{sha256}")
def show_file(name: str, sha256: str, visitor: Looking, shared: Shared) -> StreamingResponse:
    """A file of the group that the annotator has open: to score it is reason enough to see it."""
    with transaction(shared.engine) as connection:
        to_score = find_set(connection, name)
        shown = next_group(connection, to_score, visitor.annotator) if visitor.annotator else None
    if shown is None or sha256 not in {file["sha256"] for file in shown.input.get("attachments", [])}:
        raise NotFound(f"No file {sha256} in the group that you have open.")
    return read_attachment(sha256, visitor.caller, shared)


@router.get("/{name:path}")
def show_group(name: str, visitor: Looking, shared: Shared) -> Response:
    """The next group of the annotator, or who that is, if it was not said."""
    return _group_page(shared, visitor, name)


@router.post("/{name:path}")
def store(name: str, visitor: Posting, form: Form, shared: Shared) -> Response:
    """Store the scores of a form; where they are wrong the form comes back as it was filled in."""
    try:
        with transaction(shared.engine) as connection:
            to_score = find_set(connection, name)
            store_scores(connection, to_score, visitor.annotator, _group(form), _scores(form))
    except InvalidRequest as error:
        return _group_page(shared, visitor, name, error=error, typed=form, status=422)
    return _back(name, visitor)


def _group(form: Mapping[str, str]) -> UUID:
    try:
        return UUID(form.get("group", ""))
    except ValueError:
        raise InvalidRequest(f"group = {form.get('group', '')[:40]!r} is no group's id.") from None


def _scores(form: Mapping[str, str]) -> list[dict[str, float | str] | None]:
    """Per item what was typed; what is no number goes on as it is, to be refused by name."""
    typed: dict[int, dict[str, float | str]] = {}
    for field, said in form.items():
        if match := FIELD.fullmatch(field):
            item = typed.setdefault(int(match[1]), {})
            if said.strip():
                item[match[2]] = _number(said)
    return [typed.get(place) or None for place in range(1, max(typed, default=0) + 1)]


def _number(said: str) -> float | str:
    try:
        return float(said.replace(",", "."))  # as half of the world writes it
    except ValueError:
        return said


def _group_page(
    shared: Services,
    visitor: Visitor,
    name: str,
    *,
    error: BakeoffError | None = None,
    typed: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    if not visitor.annotator:
        return _sets(shared, visitor, [name])
    with transaction(shared.engine) as connection:
        to_score = find_set(connection, name)
        shown = next_group(connection, to_score, visitor.annotator)
        given = [] if shown is None else shown.input.get("attachments", [])
        known = artifacts_of(connection, [file["sha256"] for file in given])
        done = sum(share.done for share in shares(connection, to_score.id) if share.annotator == visitor.annotator)
    values = {} if shown is None else _stored(shown)
    if shown is not None and typed is not None and typed.get("group") == str(shown.group):
        values = dict(typed)
    captions = [] if shown is None else shown.input.get("captions") or []
    return _html(
        "group.html.j2",
        status,
        set=name,
        annotator=visitor.annotator,
        done=done,
        error=error,
        shown=shown,
        captions=[captions] if isinstance(captions, str) else captions,
        files=[_file(name, visitor, file, known.get(file["sha256"])) for file in given],
        values=values,
        criteria=to_score.criteria,
        sets=_address("", visitor),
        address=lambda *parts: _address(name, visitor, *parts),
    )


def _stored(shown: Shown) -> dict[str, str]:
    """Scores given before, as the form has them."""
    return {
        f"{place}.{criterion}": str(value).removesuffix(".0")
        for place, scores in enumerate(shown.scores, start=1)
        for criterion, value in (scores or {}).items()
    }


def _file(name: str, visitor: Visitor, said: Mapping[str, str], artifact: Artifact | None) -> File:
    harmless = artifact is not None and artifact.media_type.startswith(HARMLESS)
    kind = artifact.media_type.partition("/")[0] if artifact is not None and harmless else ""
    return File(
        name=said.get("name") or said["sha256"], kind=kind, address=_address(name, visitor, "files", said["sha256"])
    )


def _sets(shared: Services, visitor: Visitor, names: list[str]) -> Response:
    found = []
    for name in names:
        with transaction(shared.engine) as connection:
            groups = annotated(connection, find_set(connection, name).id)
        done, wanted = sum(len(group.annotations) for group in groups), sum(group.wanted for group in groups)
        found.append({"name": name, "address": _address(name, visitor), "done": done, "wanted": wanted})
    return _html("sets.html.j2", 200, found=found, annotator=visitor.annotator, signed=visitor.signed)


def _address(name: str, visitor: Visitor, *parts: str) -> str:
    path = "/".join(["/annotate", *([quote(name, safe="")] if name else []), *parts])
    return path if visitor.signed or not visitor.annotator else f"{path}?{urlencode({'annotator': visitor.annotator})}"


def _back(name: str, visitor: Visitor) -> Response:
    return RedirectResponse(_address(name, visitor), 303, {"Cache-Control": "no-store"})


def _refused(request: Request, error: Exception) -> Response:
    """The page of an error: status, sentence and headers are those of its problem document."""
    problem = answer_to(request, error)
    headers = {key: problem.headers[key] for key in ("Retry-After",) if key in problem.headers}
    if problem.status_code == 401:
        headers["WWW-Authenticate"] = BASIC
    said = json.loads(bytes(problem.body))
    return _html("refused.html.j2", problem.status_code, headers, title=said["title"], detail=said["detail"])


def _html(template: str, status: int, headers: Mapping[str, str] | None = None, **context: Any) -> HTMLResponse:
    """A page that runs nothing, loads nothing from elsewhere, and is framed and kept by nobody."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'; media-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(
        _ENVIRONMENT.get_template(template).render(nonce=nonce, **context),
        status,
        {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",  # without a referrer a browser posts with `Origin: null`
            "Cache-Control": "no-store",
            **(headers or {}),
        },
    )
