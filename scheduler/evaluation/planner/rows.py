"""Labelled requests: read from files, split into what planners may look up and what they are tested on.

A row of a file: `{"id", "request", "nodes": [tool, ...], "links": [[tool, tool], ...], "type"}`, optionally `kinds` (of
the attachments) and `types` ([[tool, kind of argument], ...]). A tool: `{"id", "desc"}`, optionally `input-type` and
`output-type`; a tool without them reads and writes text. Names become capabilities: `Image Editing` is `image-editing`.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from db.errors import UsageError
from db.plan import OfAttachment, OfOutput, OfRequest, Plan, Reference, Step, Tool
from worker.planners import Example
from worker.planners.faults import FILES, WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from worker.planners.similarity import Encoder

SEED = 5
NEAR_DUPLICATE = 0.9  # cosine of two requests
FILE_NAMES = {
    "image": re.compile(r"[\w-]+\.(?:jpe?g|png|gif|bmp|tiff?)\b", re.IGNORECASE),
    "audio": re.compile(r"[\w-]+\.(?:wav|mp3|flac|ogg|m4a)\b", re.IGNORECASE),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A request and the plan that is right for it. `types` are (tool, kind) of arguments, None where unlabelled."""

    id: str
    request: str
    plan: Plan
    type: str
    kinds: tuple[str, ...] = ()
    types: frozenset[tuple[str, str]] | None = None
    links: frozenset[tuple[str, str]] | None = None  # as labelled; None: the plan's own edges

    @property
    def example(self) -> Example:
        """The row as a planner may look it up."""
        return Example(request=self.request, plan=self.plan, kinds=self.kinds)


@dataclass(frozen=True, kw_only=True)
class Halves:
    """`train` is what planners look up; what was too near to a test request is in `near`, and not in it."""

    train: tuple[Row, ...]
    test: tuple[Row, ...]
    near: tuple[Row, ...]
    twins: frozenset[str]  # ids of test rows that a row of `near` is near to

    @property
    def removed(self) -> int:
        """Rows taken out of `train`."""
        return len(self.near)

    @property
    def turned(self) -> Halves:
        """The halves the other way round."""
        return Halves(
            train=tuple(row for row in self.test if row.id not in self.twins),
            test=(*self.train, *self.near),
            near=tuple(row for row in self.test if row.id in self.twins),
            twins=frozenset(row.id for row in self.near),
        )


def capability_of(name: str) -> str:
    """A tool's name as a capability."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def read_tools(path: Path) -> tuple[Tool, ...]:
    """Tools of a file. Raises `UsageError`, which names the line or the two names that clash."""
    tools: dict[str, Tool] = {}
    for number, row in _lines(path):
        try:
            name = capability_of(row["id"])
            reads, writes = row.get("input-type") or ["text"], row.get("output-type") or ["text"]
            media = next((kind for kind in reads if kind in FILES), "text")
            tool = Tool(
                name=name,
                input=cast("Literal['text', 'image', 'audio']", media),
                output=str(writes[0]),
                description=str(row.get("desc", "")),
                files=max(1, list(reads).count(media)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}, line {number} is no tool ({type(error).__name__}: {error}).") from None
        if name in tools:
            raise UsageError(f"{path}, line {number}: two tools are called {name!r}; give each its own name.")
        tools[name] = tool
    return tuple(tools.values())


def read_rows(path: Path, tools: Sequence[Tool]) -> tuple[Row, ...]:
    """Labelled rows of a file. Raises `UsageError` for a row without labels, or with a tool that nobody described."""
    by_name = {tool.name: tool for tool in tools}
    typed = any(tool.input != "text" or tool.output != "text" for tool in tools)
    rows = []
    for number, row in _lines(path):
        try:
            rows.append(_row(row, by_name, typed=typed))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path}, line {number} is no labelled request ({type(error).__name__}: {error}); it needs request, "
                "nodes and links, with the names of the tools file."
            ) from None
    if len(rows) < 2:
        raise UsageError(f"{path} holds {len(rows)} rows; two halves need two at least.")
    return tuple(rows)


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [(number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON lines: {error}.") from None


def _row(row: Mapping[str, Any], tools: Mapping[str, Tool], *, typed: bool) -> Row:
    nodes = [capability_of(name) for name in row["nodes"]]
    unknown = [name for name in nodes if name not in tools]
    if unknown:
        raise ValueError(f"no tool {unknown[0]!r}")
    links = [(capability_of(before), capability_of(after)) for before, after in row["links"]]
    kinds = tuple(row["kinds"]) if "kinds" in row else (_named_files(row["request"]) if typed else ())
    plan = plan_of(nodes, links, tools, kinds)
    labelled = row.get("types")
    if labelled is not None:
        types: frozenset[tuple[str, str]] | None = frozenset((capability_of(tool), kind) for tool, kind in labelled)
    else:
        types = argument_types(plan, tools, kinds) if typed else None
    return Row(
        id=str(row["id"]),
        request=str(row["request"]),
        plan=plan,
        type=str(row.get("type", "all")),
        kinds=kinds,
        types=types,
        links=frozenset(links),
    )


def _named_files(request: str) -> tuple[str, ...]:
    """Kinds of the files that a request names, in its order: published requests come without the files."""
    found = {match[0]: (match.start(), kind) for kind, name in FILE_NAMES.items() for match in name.finditer(request)}
    return tuple(kind for _, kind in sorted(found.values()))


def plan_of(
    nodes: Sequence[str], links: Sequence[tuple[str, str]], tools: Mapping[str, Tool], kinds: Sequence[str]
) -> Plan:
    """The plan that names and links stand for: a step reads what its links bring, else the request or the files."""
    before: dict[int, list[int]] = {place: [] for place in range(len(nodes))}
    for source, target in links:
        pairs = [
            (place, other)
            for place, name in enumerate(nodes)
            for other, reader in enumerate(nodes)
            if name == source and reader == target and place != other and place not in before[other]
        ]
        if pairs:
            first, second = min(pairs, key=lambda pair: (pair[1] < pair[0], abs(pair[1] - pair[0]), pair))
            before[second].append(first)
    steps = []
    for place, name in enumerate(nodes):
        tool = tools[name]
        brought = {other: tools[nodes[other]].output for other in before[place]}
        inputs: list[Reference] = [
            OfOutput(output=f"n{other + 1}") for other, kind in brought.items() if kind in WORDS or kind == tool.input
        ]
        if tool.input in FILES and tool.input not in brought.values():
            files = [number for number, kind in enumerate(kinds) if kind == tool.input][: tool.files]
            inputs = [*(OfAttachment(attachment=number) for number in files), *inputs]
        waits = tuple(f"n{other + 1}" for other in brought)
        steps.append(Step(id=f"n{place + 1}", capability=name, inputs=tuple(inputs or [OfRequest()]), depends_on=waits))
    return Plan(steps=tuple(steps))


def argument_types(plan: Plan, tools: Mapping[str, Tool], kinds: Sequence[str]) -> frozenset[tuple[str, str]]:
    """(tool, kind) of everything that a step reads; labels are read as text."""
    written = {step.id: tools[step.capability].output for step in plan.steps if step.capability in tools}
    found = set()
    for step in plan.steps:
        for item in step.inputs:
            kind = "text"
            if isinstance(item, OfOutput):
                kind = written.get(item.output, "text")
            elif isinstance(item, OfAttachment) and item.attachment < len(kinds):
                kind = kinds[item.attachment]
            found.add((step.capability, "text" if kind in WORDS else kind))
    return frozenset(found)


def halves(rows: Sequence[Row], encoder: Encoder, seed: int = SEED) -> Halves:
    """One half to look up, one to test on; look-ups that nearly are a test request are taken out and counted."""
    order = list(rows)
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    middle = len(order) // 2
    train, test = order[:middle], order[middle:]
    tested = encoder.encode([row.request for row in test])
    near, twins = [], set()
    for row, vector in zip(train, encoder.encode([row.request for row in train]), strict=True):
        same = {
            other.id for other, there in zip(test, tested, strict=True) if encoder.alike(vector, there) > NEAR_DUPLICATE
        }
        twins |= same
        near += [row] if same else []
    kept = tuple(row for row in train if row not in near)
    return Halves(train=kept, test=tuple(test), near=tuple(near), twins=frozenset(twins))


def sample(rows: Sequence[Row], most: int | None, seed: int = SEED) -> tuple[Row, ...]:
    """A fixed sample in the rows' own order; all of them where there are no more."""
    if most is None or most >= len(rows):
        return tuple(rows)
    places = random.Random(seed).sample(range(len(rows)), most)  # noqa: S311 - a sample, not a secret
    return tuple(rows[place] for place in sorted(places))
