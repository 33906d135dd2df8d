"""Annotation in a browser: the next group of a set, blind, as a form that needs no script.

What is shown and stored is `scheduler.annotating.blind`'s, as on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from db.annotations import annotated, find_set, set_names, shares
from db.engine import transaction
from db.errors import BakeoffError, InvalidRequest, NotFound
from db.keys import Scope
from scheduler.annotating.blind import Shown, annotator_name, next_group, skip_group, store_scores, undo
from scheduler.api.attachments import read_attachment
from scheduler.api.pages.base import Form, Page, Visitor, back, check_ours, page, refuse_bound, visitor_of
from scheduler.api.pages.files import files_of
from scheduler.api.services import Services, Shared

FIELD = re.compile(r"([1-9][0-9]?)\.(.+)")  # of a form: an item's place and a criterion

router = APIRouter(prefix="/annotate", route_class=Page, include_in_schema=False)


def _annotator(visitor: Annotated[Visitor, Depends(visitor_of)], annotator: str = "") -> Visitor:
    """Who annotates: the name that was signed, else the one that the address carries."""
    visitor.caller.check_may(Scope.SUBMIT)
    refuse_bound(visitor)
    named = not visitor.signed and bool(annotator.strip())
    return replace(visitor, annotator=annotator_name(annotator)) if named else visitor


Looking = Annotated[Visitor, Depends(_annotator)]


def _poster(request: Request, visitor: Looking) -> Visitor:
    """Who posts a form of ours. Raises `InvalidRequest` where nobody is named."""
    check_ours(request)
    if not visitor.annotator:
        raise InvalidRequest("annotator: nobody is named; add ?annotator=NAME to the address.")
    return visitor


Posting = Annotated[Visitor, Depends(_poster)]


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
    return back(_address(name, visitor))


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
            return back(_address(name, visitor))
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
    return back(_address(name, visitor))


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
        files = files_of(connection, given, lambda digest: _address(name, visitor, "files", digest))
        done = sum(share.done for share in shares(connection, to_score.id) if share.annotator == visitor.annotator)
    values = {} if shown is None else _stored(shown)
    if shown is not None and typed is not None and typed.get("group") == str(shown.group):
        values = dict(typed)
    captions = [] if shown is None else shown.input.get("captions") or []
    return page(
        "annotation/group.html.j2",
        visitor,
        status=status,
        set=name,
        annotator=visitor.annotator,
        done=done,
        error=error,
        shown=shown,
        captions=[captions] if isinstance(captions, str) else captions,
        files=files,
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


def _sets(shared: Services, visitor: Visitor, names: list[str]) -> Response:
    found = []
    for name in names:
        with transaction(shared.engine) as connection:
            groups = annotated(connection, find_set(connection, name).id)
        done, wanted = sum(len(group.annotations) for group in groups), sum(group.wanted for group in groups)
        found.append({"name": name, "address": _address(name, visitor), "done": done, "wanted": wanted})
    return page("annotation/sets.html.j2", visitor, found=found, annotator=visitor.annotator, signed=visitor.signed)


def _address(name: str, visitor: Visitor, *parts: str) -> str:
    path = "/".join(["/annotate", *([quote(name, safe="")] if name else []), *parts])
    return path if visitor.signed or not visitor.annotator else f"{path}?{urlencode({'annotator': visitor.annotator})}"
