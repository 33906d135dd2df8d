"""What every page has: who looks at it, whose form it takes, how it is rendered, and errors that are pages, too.

A browser sends no Bearer header, so pages take HTTP Basic: a name, and a key as the password. A browser sends that
along with whatever another site makes it post, so a form must come from a page of ours.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from db.errors import InvalidRequest
from db.keys import Scope
from scheduler.annotating.blind import annotator_name
from scheduler.api.access import Access, Caller, brought
from scheduler.api.pages.assets import static_address
from scheduler.api.pages.words import FILTERS
from scheduler.api.problems import Forbidden, answer_to

MOST_FIELDS = 1000  # of a form: 26 items by 20 criteria are 520
BASIC = 'Basic realm="bakeoff: your name, and a key as the password", charset="UTF-8"'
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without a referrer a browser posts with `Origin: null`
    "Cache-Control": "no-store",
}

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, autoescape=True,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_ENVIRONMENT.filters.update(FILTERS)
_ENVIRONMENT.globals["static"] = static_address


class Page(APIRoute):
    """An endpoint whose errors are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        serve = super().get_route_handler()

        async def served(request: Request) -> Response:
            try:
                return await serve(request)
            except (HTTPException, RequestValidationError):
                raise  # of the framework: the body is too large, or there is no such address
            except Exception as error:  # noqa: BLE001 - what nobody foresaw is logged, and a page, too
                return _refused(request, error)

        return served


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who looks at a page. `signed`: the name came with the key, so no address has to carry it."""

    caller: Caller
    annotator: str  # empty: not said yet
    signed: bool

    @property
    def name(self) -> str:
        """Who says what they say here: the name that was signed, else the key's."""
        return self.annotator or self.caller.name

    @property
    def submits(self) -> bool:
        """Whether they may cancel, retry and prefer."""
        return self.caller.may(Scope.SUBMIT)


async def visitor_of(request: Request) -> AsyncIterator[Visitor]:
    """Who asks for a page, whatever they may do. Raises what `Access.caller` raises."""
    user, token = brought(request)
    access: Access = request.app.state.access
    caller = await access.caller(request, token)
    signed = caller.key is not None and bool(user.strip())
    with access.holding(caller):
        yield Visitor(caller=caller, annotator=annotator_name(user) if signed else "", signed=signed)


def _reader(visitor: Annotated[Visitor, Depends(visitor_of)]) -> Visitor:
    visitor.caller.check_may(Scope.READ)
    return visitor


def refuse_bound(visitor: Visitor) -> None:
    """Raise `Forbidden` for a key of one source, on a page about every source at once."""
    if visitor.caller.source is not None:
        raise Forbidden("This page shows what every source asked; this key is bound to one. Sign in with another key.")


def check_ours(request: Request) -> None:
    """Raise `Forbidden` for a form that a page of another site sent."""
    headers = request.headers
    came = headers.get("origin") or headers.get("referer", "")
    same = came.partition("://")[2].partition("/")[0].lower() == headers.get("host", "").lower()
    if site := headers.get("sec-fetch-site"):  # a proxy may have changed the host, and nobody this
        same = site == "same-origin"
    if not same and not headers.get("authorization", "").lower().startswith("bearer "):
        raise Forbidden("This form was not sent by a page of this server; open the page and send it there.")


def _poster(request: Request, visitor: Annotated[Visitor, Depends(visitor_of)]) -> Visitor:
    check_ours(request)
    visitor.caller.check_may(Scope.SUBMIT)
    return visitor


async def _form(request: Request) -> dict[str, str]:
    try:
        fields = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest(f"The body is no form of at most {MOST_FIELDS} fields in UTF-8.") from None
    return dict(fields)


Reading = Annotated[Visitor, Depends(_reader)]
Posting = Annotated[Visitor, Depends(_poster)]
Form = Annotated[dict[str, str], Depends(_form)]


def page(
    template: str,
    visitor: Visitor | None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """A page that runs and loads nothing but our own files, and is framed and kept by nobody."""
    rendered = _ENVIRONMENT.get_template(template).render(visitor=visitor, **context)
    return HTMLResponse(rendered, status, {**HEADERS, **(headers or {})})


def back(address: str) -> Response:
    """Where a form leads to once it is stored."""
    return RedirectResponse(address, 303, {"Cache-Control": "no-store"})


def _refused(request: Request, error: Exception) -> Response:
    """The page of an error: status, sentence and headers are those of its problem document."""
    problem = answer_to(request, error)
    headers = {key: problem.headers[key] for key in ("Retry-After",) if key in problem.headers}
    if problem.status_code == 401:
        headers["WWW-Authenticate"] = BASIC
    said = json.loads(bytes(problem.body))
    return page(
        "refused.html.j2",
        None,
        status=problem.status_code,
        headers=headers,
        title=said["title"],
        detail=said["detail"],
        unknown=problem.status_code == 401,
    )
