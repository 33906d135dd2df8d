"""Preferences as JSON lines, in two forms.

`{"capability", "input", "better": {"text", "model"}, "worse": {...}, "annotator", "group", "origin", "id"}`: what may
be left out is the models, and everything after them; `input` is a text, or `{"text", "attachments"}`.

`{"instruction", "input", "output_1", "output_2", "label"}`, as published sets of pairs have it: label 1 or 2 says which
is better, 0 that neither is, as where both are the same. `human`, the labels of several people, stands for a label
where most of them agree; `model_1` or `system_1` names who said `output_1`; `source` or `question` stands for an
instruction; other fields are passed over.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from db.errors import InvalidRequest
from db.prefer import ORIGINS, NewPreference, Side
from db.registry import Capability
from worker.cleaning import clean_json

FIELDS = ("capability", "input", "better", "worse", "annotator", "group", "origin", "id")
SHOWN = 10  # reasons that an error gives, and lines that it names for each
SHA256 = re.compile(r"[0-9a-f]{64}")

_CAPABILITY: TypeAdapter[str] = TypeAdapter(Capability)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The preferences of a file, and how many of its lines said that neither is better."""

    preferences: list[NewPreference]
    ties: int


def read_labels(lines: Iterable[str], defaults: Mapping[str, Any]) -> Labels:
    """Read a whole file; blank lines are passed over. `defaults` fills in what a line leaves out.

    Raises `InvalidRequest`, which names the bad lines (the first is 1): a file is right as a whole or not stored.
    """
    preferences, ties = [], 0
    bad: dict[str, list[int]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            preference = _preference(line, defaults)
        except InvalidRequest as error:
            bad.setdefault(str(error), []).append(number)
        else:
            preferences += [preference] if preference else []
            ties += preference is None
    if bad:
        raise InvalidRequest(_sentences(bad))
    return Labels(preferences=preferences, ties=ties)


def _sentences(bad: Mapping[str, list[int]]) -> str:
    said = []
    for reason, numbers in list(bad.items())[:SHOWN]:
        more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
        lines = ", ".join(map(str, numbers[:SHOWN])) + more
        said.append(f"Line{'s' if len(numbers) > 1 else ''} {lines}: {reason}")
    if len(bad) > SHOWN:
        said.append(f"and {sum(map(len, list(bad.values())[SHOWN:]))} more.")
    return "\n".join(said)


def object_of(line: str) -> dict[str, Any]:
    """A line of JSON lines, cleaned. Raises `InvalidRequest` where it is no JSON object."""
    try:
        read = clean_json(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON ({error}).") from None
    if not isinstance(read, dict):
        raise InvalidRequest(f"{line.strip()[:60]} is not an object.")
    return read


def _preference(line: str, defaults: Mapping[str, Any]) -> NewPreference | None:
    read = object_of(line)
    said = _of_pair(read) if "output_1" in read or "output_2" in read else _of_preference(read)
    if said is None:
        return None
    given = {field: value for field in FIELDS if (value := read.get(field, defaults.get(field))) is not None}
    return NewPreference(
        **said,
        capability=_capability(given.get("capability")),
        origin=_origin(given.get("origin", "import")),
        annotator=_text("annotator", given["annotator"]) if "annotator" in given else None,
        group=_text("group", given["group"]) if "group" in given else None,
        key=json.dumps(given["id"]) if "id" in given else None,
    )


def _of_preference(read: dict[str, Any]) -> dict[str, Any]:
    for key in read:
        if key not in FIELDS:
            raise InvalidRequest(f"{key!r} is not a field of a preference; there are: {', '.join(FIELDS)}.")
    given = read.get("input")
    if isinstance(given, str):
        given = {"text": given}
    if not isinstance(given, dict) or not given or set(given) - {"text", "attachments"}:
        raise InvalidRequest('input must be a text, or {"text": ..., "attachments": [...]}.')
    files = given.get("attachments") or []
    if not isinstance(files, list) or not all(map(_is_file, files)):
        raise InvalidRequest('input.attachments must be a list of {"sha256": 64 hexadecimal digits, "name": ...}.')
    text = given.get("text", "")
    if not isinstance(text, str) or not (text or files):
        raise InvalidRequest("input says nothing: it takes a text or attachments.")
    better, worse = _side(read, "better"), _side(read, "worse")
    if better.text == worse.text:
        raise InvalidRequest("both outputs are the same, word for word: neither is better.")
    return {"text": text, "attachments": tuple(files), "better": better, "worse": worse}


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str) and bool(SHA256.fullmatch(value["sha256"]))


def _side(read: dict[str, Any], field: str) -> Side:
    side = read.get(field)
    if not isinstance(side, dict) or not isinstance(side.get("text"), str) or set(side) - {"text", "model"}:
        raise InvalidRequest(f'{field} must be {{"text": ..., "model": ...}}; the model may be left out.')
    return Side(text=side["text"], model=_model(f"{field}.model", side.get("model")))


def _of_pair(read: dict[str, Any]) -> dict[str, Any] | None:
    """What a line of a set of pairs says; None where it says that neither is better."""
    label = _label(read)
    asked = next((read[key] for key in ("instruction", "source", "question") if read.get(key)), None)
    words = [_text("instruction", asked)]
    if read.get("input"):
        words.append(_text("input", read["input"]))
    sides = [
        Side(
            text=_text(f"output_{place}", read.get(f"output_{place}"), empty=True),
            model=_model(f"model_{place}", read.get(f"model_{place}", read.get(f"system_{place}"))),
        )
        for place in (1, 2)
    ]
    if label == 0 or sides[0].text == sides[1].text:
        return None
    return {"text": "\n\n".join(words), "better": sides[label - 1], "worse": sides[2 - label]}


def _label(read: dict[str, Any]) -> int:
    """1 or 2, or 0 for a tie: where several people were asked, what more than half of them said, else a tie."""
    if (label := read.get("label")) is None and isinstance(people := read.get("human"), list) and people:
        for said in people:
            _check_label("human", said)
        label, votes = Counter(people).most_common(1)[0]
        return int(label) if 2 * votes > len(people) else 0
    if label is None:
        raise InvalidRequest("no label: 1 or 2 for the better output, 0 where neither is; nor a list of them as human.")
    _check_label("label", label)
    return int(label)


def _check_label(field: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value not in {0, 1, 2}:
        raise InvalidRequest(f"{field} = {value!r} must be 1 or 2 for the better output, or 0 where neither is.")


def _capability(value: Any) -> str:
    if value is None:
        raise InvalidRequest("no capability; give the line one, or all lines with --capability.")
    try:
        return _CAPABILITY.validate_python(value, strict=True)
    except ValidationError:
        raise InvalidRequest(f"capability = {value!r} is none, such as text-generation or image-to-text/ocr.") from None


def _origin(value: Any) -> str:
    if value not in ORIGINS:
        raise InvalidRequest(f"origin = {value!r} must be one of: {', '.join(ORIGINS)}.")
    return str(value)


def _model(field: str, value: Any) -> str | None:
    return None if value is None else _text(field, value)


def _text(field: str, value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise InvalidRequest(f"{field} must be a text{'' if empty else ' that says something'}.")
    return value
