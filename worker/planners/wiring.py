"""A list of capabilities as a plan: who reads what follows from kinds, order, and the habits of the examples."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from db.plan import OfAttachment, OfOutput, OfRequest, Plan, PlanError, Reference, Step
from worker.planners.checking import checked
from worker.planners.faults import FILES, WORDS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from db.plan import Tool
    from worker.planners import Asked


def joining(plans: Sequence[Plan]) -> frozenset[str]:
    """Capabilities that read several results more often than not, where plans hold several results to read."""
    times: Counter[str] = Counter()
    joined: Counter[str] = Counter()
    for plan in plans:
        for step in plan.steps:
            times[step.capability] += bool(step.reads)
            joined[step.capability] += len(step.reads) > 1
    return frozenset(name for name, count in joined.items() if 2 * count > times[name])


def wired(chain: Sequence[Tool], asked: Asked, joins: Collection[str]) -> Plan | None:
    """These capabilities in this order; None where that cannot run.

    A step reads the latest output of its kind that nobody has read yet; one that joins reads all of them. A step that
    reads files and finds no such output takes the next file, one that reads texts the request.
    """
    steps: list[Step] = []
    unread: dict[str, str] = {}  # kind of output by step
    taken: Counter[str] = Counter()
    for number, tool in enumerate(chain, start=1):
        wanted = WORDS if tool.input == "text" else frozenset({tool.input})
        ready = [id_ for id_, kind in unread.items() if kind in wanted]
        read = ready if tool.name in joins else ready[-1:]
        inputs: list[Reference] = [OfOutput(output=id_) for id_ in read]
        if not inputs and tool.input in FILES:
            inputs = list(_files(tool, asked, taken))
        elif not inputs:
            inputs = [OfRequest()]
        for id_ in read:
            del unread[id_]
        name = f"s{number}"
        steps.append(Step(id=name, capability=tool.name, inputs=tuple(inputs)))
        unread[name] = tool.output
    try:
        return checked(
            Plan(steps=tuple(steps)),
            tools=chain,
            kinds=asked.kinds,
            has_request=bool(asked.request.strip()),
            max_steps=asked.max_steps,
            repair=False,
        )[0]
    except PlanError:
        return None


def _files(tool: Tool, asked: Asked, taken: Counter[str]) -> list[OfAttachment]:
    """The next files of a kind, as many as the capability takes; the first again when all are taken."""
    places = [place for place, kind in enumerate(asked.kinds) if kind == tool.input]
    start = taken[tool.input] if taken[tool.input] < len(places) else 0
    chosen = places[start : start + tool.files]
    taken[tool.input] = start + len(chosen)
    return [OfAttachment(attachment=place) for place in chosen]
