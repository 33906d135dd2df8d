"""The page of the settings, from the fields of `db.settings.Settings`."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticUndefined

from db.settings import Settings
from docs.generator.text import code, kind_of, table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

HEAD = """# Settings

Environment variables, read once when a process starts. `bakeoff config` prints what is in force, secrets masked, and
names variables that no setting reads. Times are in seconds. Settings that do not fit together are refused with a
sentence.
"""
#: What a default is where a function makes it: its value here would be this machine's.
MADE = {"home": ".bakeoff, found upwards", "cache": "the user's cache folder"}


def page() -> str:
    """Every setting by section, with its type, default and reason."""
    parts = [HEAD]
    for title, names in sections().items():
        rows = [(code(f"BAKEOFF_{n.upper()}"), _kind(n), _default(n), _field(n).description) for n in names]
        parts += [f"## {title}", "", table(("variable", "type", "default", "meaning"), rows)]
    return "\n".join(parts)


def sections() -> dict[str, list[str]]:
    """Names of the fields under the comments that head them in the class."""
    found: dict[str, list[str]] = {}
    title = "All"
    for line in inspect.getsource(Settings).splitlines():
        if heading := re.match(r"    # ([A-Z].*)", line):
            title = heading[1].split(";")[0].replace("`", "").strip()
        elif (field := re.match(r"    ([a-z]\w*):", line)) and field[1] in Settings.model_fields:
            found.setdefault(title, []).append(field[1])
    return found


def _field(name: str) -> FieldInfo:
    return Settings.model_fields[name]


def _kind(name: str) -> str:
    bounds = " ".join(_bound(one) for one in _field(name).metadata)
    return f"{kind_of(_field(name).annotation)} {bounds}".strip()


def _bound(condition: Any) -> str:
    for attribute, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
        if (limit := getattr(condition, attribute, None)) is not None:
            return f"{sign} {limit:g}"
    return ""


def _default(name: str) -> str:
    value = _field(name).default
    if name in MADE:
        return MADE[name]
    if value is None or value is PydanticUndefined or value == ():
        return ""
    if isinstance(value, bool | float):
        return code(str(value).lower() if isinstance(value, bool) else f"{value:g}")
    return code(",".join(value) if isinstance(value, tuple) else value)
