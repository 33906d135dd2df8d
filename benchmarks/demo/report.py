"""What the demo prints: a table per input, and the summary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.demo.inputs import OCR, DemoInput
from benchmarks.demo.score import Errors, FamilySummary, Scored, character_error, error_of, summarize, word_error

_CHOOSERS = ("best_single", "random", "consensus", "judge", "oracle")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One model's attempt, as the tables show it."""

    model: str
    output: str | None  # None: it failed
    error: str  # why, where it failed
    seconds: float | None
    score: float | None
    won: bool


def errors_of(capability: str) -> Errors:
    """How an answer of this capability is measured."""
    return character_error if capability == OCR else word_error


def candidates_of(story: Mapping[str, Any]) -> list[Candidate]:
    """The candidates of a task with one subtask, in the selectors' order."""
    found = []
    for subtask in story["subtasks"][:1]:
        verdict = subtask.get("verdict") or {}
        scores = verdict.get("scores") or {}
        for entry in subtask["candidates"]:
            worked = entry["status"] == "done" and entry["output"] is not None
            error = entry.get("error") or {}
            found.append(
                Candidate(
                    model=entry["model"],
                    output=entry["output"] if worked else None,
                    error="" if worked else str(error.get("message") or entry["status"]),
                    seconds=entry.get("seconds"),
                    score=scores.get(entry["model"]),
                    won=verdict.get("winner") == entry["model"],
                )
            )
    return found


def scored(item: DemoInput, story: Mapping[str, Any]) -> Scored:
    """The input with what the models said, ready to be summed up."""
    candidates = candidates_of(story)
    return Scored(
        family=item.family,
        truth=item.truth,
        outputs={candidate.model: candidate.output for candidate in candidates},
        winner=next((candidate.model for candidate in candidates if candidate.won), None),
    )


def summaries(items: Sequence[DemoInput], stories: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, FamilySummary]]:
    """Per capability and family."""
    by_capability: dict[str, list[Scored]] = defaultdict(list)
    for item, story in zip(items, stories, strict=True):
        by_capability[item.capability].append(scored(item, story))
    return {capability: summarize(group, errors_of(capability)) for capability, group in by_capability.items()}


def print_inputs(console: Console, items: Sequence[DemoInput], stories: Sequence[Mapping[str, Any]]) -> None:
    """A table per input."""
    for number, (item, story) in enumerate(zip(items, stories, strict=True), 1):
        console.print()
        console.print(_title(f"[{number}/{len(items)}]", item, story))
        console.print(_table(item, candidates_of(story)))


def _title(number: str, item: DemoInput, story: Mapping[str, Any]) -> Text:
    verdict = (story["subtasks"][0].get("verdict") if story["subtasks"] else None) or {}
    parts = [Text(f"{number} {item.path.name}", style="bold"), Text(f"({item.condition})")]
    if story["status"] != "done":
        reason = (story.get("error") or {}).get("message", "")
        parts.append(Text(f"{story['status']} {reason}".strip(), style="red"))
    elif verdict:
        judge = " by ".join(str(part) for part in (verdict.get("method"), verdict.get("judge")) if part)
        parts.append(Text(f"judged: {judge}" if judge else "unjudged", style="dim"))
    return Text(" ").join(parts)


def _table(item: DemoInput, candidates: Sequence[Candidate]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "model"):
        table.add_column(name, no_wrap=True)
    table.add_column("output", max_width=70, overflow="ellipsis", no_wrap=True)
    for name in ("time", "score", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    errors = errors_of(item.capability)
    for candidate in candidates:
        table.add_row(
            "*" if candidate.won else "",
            candidate.model,
            _shown(candidate),
            "" if candidate.seconds is None else f"{candidate.seconds:.2f} s",
            "" if candidate.score is None else f"{candidate.score:.2f}",
            percent(error_of(candidate.output, item.truth, errors)),
            style="bold green" if candidate.won else "",
        )
    table.add_row("", "truth", Text(one_line(item.truth)), "", "", "", style="cyan")
    return table


def _shown(candidate: Candidate) -> Text:
    if candidate.output is None:
        return Text(f"failed: {one_line(candidate.error)}", style="red")
    return Text(one_line(candidate.output) or "(nothing)")


def print_summary(console: Console, results: Mapping[str, Mapping[str, FamilySummary]]) -> None:
    """Mean errors by who chooses."""
    table = Table(
        title="Mean error by who chooses", title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    table.add_column("capability")
    table.add_column("family")
    for name in ("n", "best single", "random", "consensus", "judge", "oracle"):
        table.add_column(name, justify="right", no_wrap=True)
    for capability, families in results.items():
        for family, summary in families.items():
            shares = [percent(getattr(summary, name)) for name in _CHOOSERS]
            table.add_row(capability, family, str(summary.n), *shares, style="bold" if family == "all" else "")
    console.print()
    console.print(table)
    for capability, families in results.items():
        every = families["all"]
        console.print(
            f"{capability}: the best single model over all inputs is {every.best_model} "
            f"({percent(every.best_single)}), the judge's choice {percent(every.judge)}, "
            f"the best possible {percent(every.oracle)}.",
            soft_wrap=True,
        )


def percent(share: float) -> str:
    """A fraction for people."""
    return f"{100 * share:.1f} %"


def one_line(text: str) -> str:
    """Text on one line, without characters that a terminal would act on."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
