"""A task's steps as a picture: each as far right as what it needs allows, drawn by the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 236, 58  # of a step
ACROSS, DOWN = 56, 18  # between two
EDGE = 2  # around the picture: lines have a width


@dataclass(frozen=True, kw_only=True)
class Step:
    """A box. `place` counts the subtasks of the task from 1; `said` is the text that stands for it."""

    x: int
    y: int
    place: int
    name: str
    state: str
    below: str
    said: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Boxes of one size, and lines from what is needed to what needs it, as paths of an SVG."""

    width: int
    height: int
    box: tuple[int, int] = (WIDTH, HEIGHT)
    steps: tuple[Step, ...]
    lines: tuple[str, ...]


def draw(subtasks: Sequence[Mapping[str, Any]]) -> Drawing:
    """The picture of subtasks as `db.queries.task_story` has them."""
    columns = _columns(subtasks)
    deepest = max((len(names) for names in columns), default=0)
    places: dict[str, tuple[int, int]] = {}
    for number, names in enumerate(columns):
        left_out = (deepest - len(names)) * (HEIGHT + DOWN) // 2  # a short column stands in the middle
        for row, name in enumerate(names):
            places[name] = (EDGE + number * (WIDTH + ACROSS), EDGE + left_out + row * (HEIGHT + DOWN))
    steps = tuple(
        Step(
            x=places[one["name"]][0],
            y=places[one["name"]][1],
            place=place,
            name=one["name"],
            state=one["status"],
            below=_below(one),
            said=_said(one),
        )
        for place, one in enumerate(subtasks, start=1)
    )
    lines = tuple(
        _line(places[before], places[one["name"]]) for one in subtasks for before in one["needs"] if before in places
    )
    return Drawing(
        width=2 * EDGE + len(columns) * (WIDTH + ACROSS) - ACROSS,
        height=2 * EDGE + deepest * (HEIGHT + DOWN) - DOWN,
        steps=steps,
        lines=lines,
    )


def _columns(subtasks: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Names by the length of the longest way to them; in a column, beside what they need."""
    depth = {one["name"]: 0 for one in subtasks}
    for _ in subtasks:  # as often as the longest way can be long
        for one in subtasks:
            depth[one["name"]] = max([0, *(depth[before] + 1 for before in one["needs"] if before in depth)])
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    rows: dict[str, float] = {}
    for column in range(len(columns)):
        here = [one for one in subtasks if depth[one["name"]] == column]
        for place, one in enumerate(here):
            above = [rows[before] for before in one["needs"] if before in rows]
            rows[one["name"]] = sum(above) / len(above) if above else float(place)
        columns[column] = sorted((one["name"] for one in here), key=lambda name: rows[name])
        rows |= {name: float(row) for row, name in enumerate(columns[column])}
    return columns


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + WIDTH, start[1] + HEIGHT // 2
    to_x, to_y = end[0] - 7, end[1] + HEIGHT // 2  # the arrow's point takes the rest
    half = (to_x - x) // 2
    return f"M{x} {y}C{x + half} {y} {to_x - half} {to_y} {to_x} {to_y}"


def _below(subtask: Mapping[str, Any]) -> str:
    winner = (subtask["verdict"] or {}).get("winner")
    return f"{subtask['status']} · {winner}" if winner else str(subtask["status"])


def _said(subtask: Mapping[str, Any]) -> str:
    winner = (subtask["verdict"] or {}).get("winner")
    parts = [f"{subtask['name']}: {subtask['status']}", f"won by {winner}" if winner else ""]
    parts.append(f"needs {', '.join(subtask['needs'])}" if subtask["needs"] else "")
    return ", ".join(filter(None, parts))
