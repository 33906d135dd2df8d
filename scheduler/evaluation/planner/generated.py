"""Requests with known graphs: the graph is sampled first, with types that fit along every edge, then put in words.

`single` is one tool, `sequential` a chain, `graph` anything else: fan-out, fan-in, both, or parts that have nothing to
do with each other. The same seed gives the same requests.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from db.plan import OfAttachment, OfOutput, OfRequest, Plan, Reference, Step, Tool
from scheduler.evaluation.planner.rows import Row, argument_types
from scheduler.evaluation.planner.toolbox import TEXTS, TOOLBOX
from worker.planners.faults import FILES, WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

TYPES = ("single", "sequential", "graph")
TOOLS: tuple[Tool, ...] = tuple(tool for tool, _ in TOOLBOX.values())
NUMBERS = ("first", "second", "third", "fourth")
OPENINGS = ("Please ", "Could you ", "I would like you to ", "", "I need you to ")


def generated(count: int, seed: int = 0) -> tuple[Row, ...]:
    """So many different requests, the three types in turn."""
    source = random.Random(seed)  # noqa: S311 - test data, not a secret
    rows: list[Row] = []
    asked: set[str] = set()
    while len(rows) < count:
        kind = TYPES[len(rows) % len(TYPES)]
        graph = Graph(source)
        SHAPES[kind](graph)
        request = graph.in_words()
        if request not in asked:
            asked.add(request)
            rows.append(graph.row(f"generated-{len(rows)}", request, kind))
    return tuple(rows)


class Graph:
    """A graph under construction: tools by step, what each reads, and the files that it needs."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.tools: list[str] = []
        self.reads: list[list[int]] = []
        self.files: list[int | None] = []  # attachment of each step, None for a step that reads texts
        self.kinds: list[str] = []
        self.parts: list[int] = []  # steps that begin a part which has nothing to do with those before it

    def root(self, *, writes: Sequence[str] = ("text", "labels", "image", "audio")) -> int:
        """A step that reads the request or a file of its own."""
        name = self._pick(lambda tool: tool.output in writes)
        reads = TOOLBOX[name][0].input
        self.files.append(len(self.kinds) if reads in FILES else None)
        self.kinds += [reads] if reads in FILES else []
        return self._add(name, [])

    def after(self, before: int, *, writes: Collection[str] = ("text", "labels", "image", "audio")) -> int | None:
        """A step that reads the output of another; None where no tool is left that can."""
        kind = TOOLBOX[self.tools[before]][0].output
        reads = "text" if kind in WORDS else kind
        able = [
            name
            for name, (tool, speech) in TOOLBOX.items()
            if name not in self.tools and tool.input == reads and tool.output in writes and not speech.joins
        ]
        if not able:
            return None
        self.files.append(None)
        return self._add(self.source.choice(able), [before])

    def join(self, before: Sequence[int]) -> int:
        """A step that reads several outputs, all of them words."""
        name = self.source.choice([name for name in self._left() if TOOLBOX[name][1].joins])
        self.files.append(None)
        return self._add(name, list(before))

    def _add(self, name: str, reads: list[int]) -> int:
        self.tools.append(name)
        self.reads.append(reads)
        return len(self.tools) - 1

    def _pick(self, fits: Callable[[Tool], bool]) -> str:
        able = [name for name in self._left() if fits(TOOLBOX[name][0]) and not TOOLBOX[name][1].joins]
        return self.source.choice(able)

    def _left(self) -> list[str]:
        return [name for name in TOOLBOX if name not in self.tools]

    # --- words ----------------------------------------------------------------------------------------------------

    def in_words(self) -> str:
        """The graph as a person would ask for it."""
        text = self.source.choice(OPENINGS)
        for place in range(len(self.tools)):
            text += self._connector(place) + self._clause(place)
        text = text[0].upper() + text[1:] + "."
        needed = any(not reads and file is None for reads, file in zip(self.reads, self.files, strict=True))
        return text + (f" The text: “{self.source.choice(TEXTS)}.”" if needed else "")

    def _connector(self, place: int) -> str:
        if place == 0:
            return ""
        if place in self.parts:
            return self.source.choice((". Apart from that, ", "; independently of this, ", ". Another thing: "))
        if not self.reads[place]:
            return self.source.choice((", ", " and ", ". Also "))
        return self.source.choice((", then ", " and then ", ". After that, ", ", and ", ". Next, "))

    def _clause(self, place: int) -> str:
        phrase = self.source.choice(TOOLBOX[self.tools[place]][1].phrases)
        return phrase.format(it=self._object(place))

    def _object(self, place: int) -> str:
        reads, file = self.reads[place], self.files[place]
        if len(reads) > 1:
            return " and ".join(TOOLBOX[self.tools[other]][1].noun for other in reads)
        if reads:
            said = TOOLBOX[self.tools[reads[0]]][1].noun
            return self.source.choice((said, said, "the result")) if reads[0] == place - 1 else said
        if file is None:
            return "the text below"
        kind = self.kinds[file]
        names = ("photo", "picture", "image") if kind == "image" else ("recording", "voice memo", "audio file")
        place_in_kind = self.kinds[:file].count(kind)
        number = f"{NUMBERS[place_in_kind]} " if self.kinds.count(kind) > 1 else ""
        return f"the {number}{self.source.choice(names)}"

    # --- the row --------------------------------------------------------------------------------------------------

    def row(self, id_: str, request: str, kind: str) -> Row:
        """The request with its plan."""
        steps = []
        for place, name in enumerate(self.tools):
            file = self.files[place]
            inputs: list[Reference] = [OfOutput(output=f"s{other + 1}") for other in self.reads[place]]
            if not inputs:
                inputs = [OfRequest()] if file is None else [OfAttachment(attachment=file)]
            steps.append(Step(id=f"s{place + 1}", capability=name, inputs=tuple(inputs)))
        plan = Plan(steps=tuple(steps))
        tools: Mapping[str, Tool] = {tool.name: tool for tool in TOOLS}
        return Row(
            id=id_,
            request=request,
            plan=plan,
            type=kind,
            kinds=tuple(self.kinds),
            types=argument_types(plan, tools, self.kinds),
        )


def _single(graph: Graph) -> None:
    graph.root()


def _sequential(graph: Graph) -> None:
    last: int | None = graph.root()
    for _ in range(graph.source.choice((1, 1, 2, 3))):
        last = graph.after(last) if last is not None else None


def _fan_out(graph: Graph) -> None:
    root = graph.root(writes=("text",))
    for _ in range(graph.source.choice((2, 2, 3))):
        graph.after(root)


def _fan_in(graph: Graph) -> None:
    roots = [graph.root(writes=("text", "labels")) for _ in range(graph.source.choice((2, 2, 3)))]
    graph.join(roots)


def _diamond(graph: Graph) -> None:
    root = graph.root(writes=("text",))
    branches = [graph.after(root, writes=WORDS) for _ in range(2)]
    graph.join([place for place in branches if place is not None])


def _independent(graph: Graph) -> None:
    for part in range(graph.source.choice((2, 2, 3))):
        start = graph.root()
        if part:
            graph.parts.append(start)
        if graph.source.random() < 0.5:
            graph.after(start)


SHAPES: dict[str, Callable[[Graph], None]] = {
    "single": _single,
    "sequential": _sequential,
    "graph": lambda graph: graph.source.choice((_fan_out, _fan_in, _diamond, _independent))(graph),
}
