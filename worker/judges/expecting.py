"""What an answer must hold: checks that need no model, and components by weight, as MIA-Bench has them.

A task or a step of a plan says it (option `expect`), in the words of the registry: the checks of
`worker.judges.checking` and the components of `llm_rubric`. Checks without a weight are hard, whoever judges
(`worker.judges.passing`). What is weighted counts for `checks`, and for `llm_rubric`, which asks its model about the
components that no check can mark.
Whatever a caller writes here takes time in proportion to the answer: see `bounded`.

    {"checks": [{"check": "json"}, {"check": "length", "most": 120}],
     "components": [{"description": "names the river", "check": {"check": "mentions", "texts": ["Rhine"]}},
                    {"description": "is polite", "weight": 2}]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, model_validator

from worker.judges.checking import AnyCheck, Check, Length, Parses
from worker.judges.patterns import compiles
from worker.params import Params

if TYPE_CHECKING:
    from db.registry import JudgeEntry

MOST = 32  # checks, or components
MOST_SCHEMAS = 1000  # schemas that a JSON schema comes to, each reference followed
#: Keywords of a JSON schema by what they hold: schemas by name, schemas, one schema.
BY_NAME = ("properties", "dependentSchemas")
IN_A_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
ALONE = ("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else")
#: Keywords whose cost nobody can bound, or that reach out of the schema.
REFUSED = ("patternProperties", "unevaluatedItems", "unevaluatedProperties", "$id", "$anchor", "$dynamicRef",
           "$dynamicAnchor", "$recursiveRef")  # fmt: skip


class Component(Params):
    """One thing that an answer is to do, and how much it counts against the others.

    With a `check` code marks it, without one a language model does.
    """

    description: Annotated[str, Field(min_length=1, max_length=1000)]
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    check: AnyCheck | None = None

    @model_validator(mode="after")
    def _one_weight(self) -> Component:
        if self.check is not None and self.check.weight is not None:
            raise ValueError("the component has the weight; leave it out of its check")
        return self

    @classmethod
    def of(cls, check: AnyCheck, weight: float) -> Component:
        """The component that a weighted check is."""
        return cls(description=f"meets the check {check.check}", weight=weight, check=_weighted(check, None))

    def met(self, text: str) -> float | None:
        """How far its check is met, 0 to 1; None where it has none."""
        return None if self.check is None else _weighted(self.check, self.weight).met(text)


class Expect(Params):
    """What an answer must hold, as a task says it."""

    checks: Annotated[tuple[AnyCheck, ...], Field(max_length=MOST)] = ()
    components: Annotated[tuple[Component, ...], Field(max_length=MOST)] = ()

    @model_validator(mode="after")
    def _says_something(self) -> Expect:
        if not self.checks and not self.components:
            raise ValueError("it holds nothing; give it checks, components or both, or leave it out")
        for check in (*self.checks, *(one.check for one in self.components)):
            if isinstance(check, Parses) and check.json_schema is not None:
                bounded(check.json_schema)
        return self

    @property
    def hard(self) -> tuple[AnyCheck, ...]:
        """Checks that an answer must meet to win."""
        return tuple(check for check in self.checks if check.weight is None)

    @property
    def marked(self) -> tuple[Component, ...]:
        """What counts by its weight: the components, and the checks that have one."""
        checks = (check for check in self.checks if check.weight is not None)
        return (*self.components, *(Component.of(check, check.weight or 1.0) for check in checks))

    @property
    def weighted(self) -> tuple[AnyCheck, ...]:
        """Of those, what code marks."""
        return tuple(_weighted(one.check, one.weight) for one in self.marked if one.check is not None)


def _weighted(check: AnyCheck, weight: float | None) -> AnyCheck:
    return check.model_copy(update={"weight": weight})


def merged(checks: Sequence[AnyCheck], expect: Expect | None) -> tuple[AnyCheck, ...]:
    """A registry's checks with a task's over them: of each kind the task's own, where it has any."""
    if expect is None:
        return tuple(checks)
    own = (*expect.hard, *expect.weighted)
    kinds = {_kind(check) for check in expect.checks}
    return (*(check for check in checks if _kind(check) not in kinds), *own)


def _kind(check: AnyCheck) -> tuple[str, str]:
    return check.check, check.of if isinstance(check, Length) else ""


def lacks_components(entry: JudgeEntry, expect: Expect | None) -> bool:
    """Whether a judge marks components and neither its entry nor the task has any."""
    marks = entry.method == "llm_rubric" and not entry.params.get("components")
    return marks and (expect is None or not expect.marked)


def bounded(schema: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a JSON schema that could keep a judge busy: one that refers to itself, say."""
    count = 0
    waiting: list[tuple[Any, tuple[str, ...]]] = [(schema, ())]
    while waiting:
        one, within = waiting.pop()
        count += 1
        if count > MOST_SCHEMAS:
            raise ValueError(f"its schema comes to more than {MOST_SCHEMAS} schemas, each reference followed")
        if not isinstance(one, Mapping):
            continue
        for keyword in REFUSED:
            if keyword in one and not (keyword == "$id" and one is schema):  # the root's own name changes nothing
                raise ValueError(f"its schema has {keyword!r}, which no task may use: leave it out")
        if isinstance(one.get("pattern"), str):
            compiles(one["pattern"])
        waiting += [(inner, within) for inner in _inner(one)]
        reference = one.get("$ref")
        if reference is not None:
            if reference in within:
                raise ValueError(f"its schema refers to itself ({reference})")
            waiting.append((_referred(schema, reference), (*within, reference)))


def _inner(schema: Mapping[str, Any]) -> Iterator[Any]:
    for keyword in BY_NAME:  # and not `$defs`: what only stands there to be referred to is seen when it is
        yield from dict(schema.get(keyword) or {}).values()
    for keyword in IN_A_LIST:
        yield from schema.get(keyword) or ()
    yield from (schema[keyword] for keyword in ALONE if keyword in schema)


def _referred(schema: Mapping[str, Any], reference: str) -> Any:
    where: Any = schema
    if not reference.startswith("#/"):
        raise ValueError(f"its schema refers to {reference!r}; only references like '#/$defs/NAME' are followed")
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(where, Mapping) or name not in where:
            raise ValueError(f"its schema refers to {reference!r}, which is not in it")
        where = where[name]
    return where


def fault_of(error: ValidationError) -> str:
    """The first fault of an `expect` as a sentence with place, value and way out."""
    first = error.errors()[0]
    *place, last = [part for part in first["loc"] if part != "expect"] or [""]
    kind = next((part for part in reversed(place) if part in KINDS), None)
    shown = [str(part) for n, part in enumerate((*place, last)) if not _is_tag((*place, last), n)]
    where = ".".join(["options.expect", *filter(None, shown)])
    if first["type"] == "extra_forbidden":
        owner: type[Params] = KINDS[str(kind)] if kind else Component if "components" in place else Expect
        known = ", ".join(field.alias or name for name, field in owner.model_fields.items())
        return f"{where} is unknown; there are: {known}."
    return f"{where}: {first['msg'].removeprefix('Value error, ')}."


def _is_tag(place: Sequence[Any], number: int) -> bool:
    """Whether a part of a place is the kind of check that stands there, and no key."""
    before = place[number - 1] if number else None
    return place[number] in KINDS and (isinstance(before, int) or before == "check")


#: kind of check → its class
KINDS: dict[str, type[Check]] = {
    kind.model_fields["check"].annotation.__args__[0]: kind  # type: ignore[union-attr]
    for kind in Check.__subclasses__()
}
