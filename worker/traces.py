"""The spans of a worker: one per message, one per batch that enters a model, one per candidate, one per judged subtask.

A message and a batch serve many tasks: their spans link to each. A candidate's span stands in its own task's trace, as
long as its batch and with a link to it, so that whoever looks at one task sees which model ran for it.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from db.tracing import NOTHING, Span, past_span, span, valid, wave_span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from db.candidates import Result, Work
    from db.registry import JudgeEntry, ModelEntry
    from db.thinking import Thought
    from db.verdicts import ToJudge, VerdictRow

REMOTE = ("openai",)  # backends whose model runs in another process
#: Counts of `usage` that OpenTelemetry has a name for, which is ours.
TOKENS = frozenset({"input_tokens", "output_tokens"})
SYSTEM = {"messaging__system": "celery", "messaging__operation__type": "process"}


def sender_of(request: Any) -> str | None:
    """The span that sent a Celery message, by its header."""
    return valid((request.headers or {}).get("traceparent"))


def message_span(
    model: ModelEntry, message: UUID, traces: Mapping[UUID, str], *, sender: str | None, began: int, size: int
) -> AbstractContextManager[Span]:
    """Around everything that a message with candidates brings."""
    return wave_span(
        f"run {model.name}",
        "CONSUMER",
        _each(traces.values()),
        sender=sender,
        start=began,
        **SYSTEM,
        messaging__destination__name=model.queue,
        messaging__message__id=str(message),
        messaging__batch__message_count=size,
        bakeoff__model=model.name,
    )


def batch_span(
    model: ModelEntry, work: Sequence[Work], traces: Mapping[UUID, str], *, message: Span
) -> AbstractContextManager[Span]:
    """Around one call of a model."""
    return wave_span(
        f"batch {model.name}",
        "CLIENT" if model.backend in REMOTE else "INTERNAL",
        _each(traces[item.task_id] for item in work if item.task_id in traces),
        sender=message.traceparent,
        gen_ai__operation__name=model.capability,
        gen_ai__request__model=model.name,
        gen_ai__provider__name=model.backend,
        bakeoff__capability=model.capability,
        bakeoff__batch__size=len(work),
        bakeoff__attempt=max((item.attempt for item in work), default=0),
    )


def candidate_spans(
    model: ModelEntry,
    work: Sequence[Work],
    results: Sequence[Result],
    traces: Mapping[UUID, str],
    *,
    batch: Span,
    began: int,
) -> None:
    """One for each candidate of a batch that is over, in its task's trace."""
    links = [batch.traceparent] if batch.traceparent else []
    for item, result in zip(work, results, strict=True):
        if item.task_id in traces:
            past_span(
                f"candidate {model.name}",
                parent=traces[item.task_id],
                links=links,
                start=began,
                failure=result.error["code"] if result.error is not None else None,
                gen_ai__request__model=model.name,
                bakeoff__task=str(item.task_id),
                bakeoff__subtask=str(item.subtask_id),
                bakeoff__candidate=str(item.id),
                bakeoff__attempt=item.attempt,
                bakeoff__seconds=result.seconds,
                **_tokens(result.usage),
            )


def judge_span(
    subtask: ToJudge, judge: str, entry: JudgeEntry | None, traces: Mapping[UUID, str], sender: str | None
) -> AbstractContextManager[Span]:
    """Around one subtask's judging, in its task's trace, with a link to what sent the message."""
    task = traces.get(subtask.task_id)
    if task is None:
        return nullcontext(NOTHING)
    return span(
        "judge",
        "CLIENT" if entry is not None and entry.model is not None else "INTERNAL",
        parent=task,
        links=[sender] if sender else (),
        gen_ai__request__model=entry.model if entry is not None else None,
        bakeoff__judge=judge,
        bakeoff__capability=subtask.capability,
        bakeoff__task=str(subtask.task_id),
        bakeoff__subtask=str(subtask.id),
        bakeoff__candidates=len(subtask.candidates),
        bakeoff__attempt=subtask.attempt + 1,
    )


def tell_verdict(given: Span, verdict: VerdictRow) -> None:
    """Add what was decided, not why: that may quote an answer."""
    given.set(
        bakeoff__method=verdict.method,
        bakeoff__confidence=verdict.confidence,
        bakeoff__fallback=verdict.fallback,
        bakeoff__winner=str(verdict.winner_id),
    )


def thinking_span(
    name: str, thought: Thought, traces: Mapping[UUID, str], sender: str | None, began: int
) -> AbstractContextManager[Span]:
    """Around planning or integrating one task."""
    task = traces.get(thought.id)
    if task is None:
        return nullcontext(NOTHING)
    return span(
        name,
        "CONSUMER",
        parent=task,
        links=[sender] if sender else (),
        start=began,
        **SYSTEM,
        bakeoff__task=str(thought.id),
        bakeoff__attempt=thought.attempt,
    )


def now() -> int:
    """Nanoseconds since 1970, as spans count."""
    return time.time_ns()


def _tokens(usage: Mapping[str, Any]) -> dict[str, int]:
    """What a model was paid in, where it says so in numbers: a backend without types may say anything."""
    counts = {name: usage[name] for name in TOKENS & usage.keys()}
    return {f"gen_ai__usage__{name}": int(n) for name, n in counts.items() if isinstance(n, int | float)}


def _each(traceparents: Any) -> list[str]:
    return list(dict.fromkeys(traceparents))
