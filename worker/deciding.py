"""From a claimed subtask to its verdict: what its judge is asked and shown, and verdicts for which nobody is asked."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from db.blobs import blob_store, kind_of
from db.errors import NotFound
from db.logs import get_logger
from db.states import Seen
from db.verdicts import DESCRIBING, VerdictRow
from worker.backends import File
from worker.cleaning import clean_json, clean_text
from worker.inputs import words_of
from worker.judges import Answer, Decision, Question
from worker.judges.asking import Asked, Asking
from worker.judges.exhibits import Exhibit, Exhibits, Said
from worker.judges.expecting import Expect
from worker.judges.passing import decide, sift

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import Registry
    from db.verdicts import Attached, ToJudge
    from worker.judges import Judge
    from worker.process import ModelProcess

log = get_logger(__name__)


def judge_of(registry: Registry, subtask: ToJudge) -> str:
    """The judge that a subtask named when it was planned; its capability's, where that one left the registry."""
    if subtask.judge in registry.judges or subtask.capability not in registry.capabilities:
        return subtask.judge
    return registry.capabilities[subtask.capability].judge


def ask(process: ModelProcess, subtask: ToJudge, started: float) -> VerdictRow:
    """The verdict of a subtask's judge, checks first. Raises whatever the judge raises."""
    name = judge_of(process.registry, subtask)
    question = _question(process, subtask, name)
    asked = Asked()

    def judge() -> Judge:
        return process.judge(name)

    sifted = sift(question)
    asking = judge().language_model if len(sifted.contenders) > 1 else None
    with asking.about(question.exhibits) if isinstance(asking, Asking) else nullcontext(asked) as asked:
        decision = decide(judge, sifted)
    return _row(subtask, _noted(decision, subtask, asked), name, _seen(subtask, asked), started)


def only_candidate(subtask: ToJudge) -> VerdictRow:
    """The verdict on a single survivor: it wins unjudged, and the verdict says so, and what it lacks."""
    (winner,) = subtask.candidates
    others = f"the {subtask.failed} other(s) failed" if subtask.failed else "it was the only one asked"
    decision = Decision(
        ranking=(winner.id,),
        scores={},
        reason=f"{winner.model} wins unjudged: {others}.",
        method="only_candidate",
    )
    decision = sift(_asked_about(subtask)).noted(decision)
    return _row(subtask, decision, subtask.judge, _seen(subtask, None))


def fallback(subtask: ToJudge, attempts: int, reason: str, seconds: float) -> VerdictRow:
    """The verdict where every judge failed on this very subtask until its attempts were used up: the selectors' first
    of those that hold what was asked."""
    sifted = sift(_asked_about(subtask))
    winner = sifted.contenders[0]
    decision = Decision(
        ranking=tuple(answer.id for answer in sifted.contenders),
        scores={},
        reason=f"{winner.model} was chosen first by the selectors; the judge failed {attempts} times ({reason}).",
        method="fallback",
    )
    decision = _noted(sifted.noted(decision), subtask, None, [{"judge": subtask.judge, "error": reason}])
    row = _row(subtask, decision, subtask.judge, _seen(subtask, None))
    return replace(row, fallback=True, seconds=seconds)


def _row(
    subtask: ToJudge, decision: Decision, judge: str, seen: Seen | None, started: float | None = None
) -> VerdictRow:
    return VerdictRow(
        subtask_id=subtask.id,
        winner_id=decision.ranking[0],
        ranking=list(decision.ranking),
        scores=decision.scores,
        reason=clean_text(decision.reason),
        method=decision.method,
        judge=judge,
        judge_model=decision.model,
        prompt_version=decision.prompt_version,
        orders=clean_json(decision.orders),
        confidence=decision.confidence,
        seconds=0.0 if started is None else time.monotonic() - started,
        seen=seen,
        needs_review=decision.needs_review,
    )


def _noted(decision: Decision, subtask: ToJudge, asked: Asked | None, last: Sequence[dict[str, Any]] = ()) -> Decision:
    """The decision with who was asked before and failed (`last`: at last), and with how its model was asked."""
    if asked is not None and asked.prompts and decision.prompt_version is not None:
        decision = replace(decision, prompt_version="+".join((decision.prompt_version, *asked.prompts)))
    if asked is not None and asked.replies:
        counts = {"replies": {"read": asked.replies, "unparseable": asked.unparseable}}
        decision = replace(decision, orders=(*decision.orders, counts))
    if subtask.failed_judges:
        told = "; ".join(f"{one['judge']} ({one['error']})" for one in subtask.failed_judges)
        decision = replace(decision, reason=f"{decision.reason} Asked before, without a verdict: {told}.")
    failed = [*subtask.failed_judges, *last]
    return replace(decision, orders=(*decision.orders, {"failed": failed})) if failed else decision


def _seen(subtask: ToJudge, asked: Asked | None) -> Seen | None:
    """What the judge had of the files; None where there are none."""
    if not subtask.files:
        return None
    return asked.seen if asked is not None and asked.seen is not None else Seen.UNSEEN


def _asked_about(subtask: ToJudge) -> Question:
    """The subtask as what can be checked without anybody's help."""
    return Question(
        id=subtask.id,
        capability=subtask.capability,
        instruction="",
        request="",
        answers=_answers(subtask),
        expect=_expect(subtask),
    )


def _question(process: ModelProcess, subtask: ToJudge, judge: str) -> Question:
    return replace(
        _asked_about(subtask),
        instruction=process.registry.capabilities[subtask.capability].instruction,
        request=words_of(subtask.inputs, subtask.request, subtask.results),
        exhibits=_exhibits(process, subtask, judge),
    )


def _answers(subtask: ToJudge) -> tuple[Answer, ...]:
    return tuple(Answer(id=c.id, model=c.model, text=c.output, rank=c.rank) for c in subtask.candidates)


def _expect(subtask: ToJudge) -> Expect | None:
    """What the answers must hold. It was checked when the task came; only another version of us may not know it."""
    if subtask.expect is None:
        return None
    try:
        return Expect.model_validate(subtask.expect)
    except ValidationError as error:
        log.warning(
            "What the subtask expects is not understood, and not checked",
            action="expect_unknown", subtask=str(subtask.id), said=error.errors()[0]["msg"],
        )  # fmt: skip
        return None


def _exhibits(process: ModelProcess, subtask: ToJudge, judge: str) -> Exhibits | None:
    if not subtask.files:
        return None
    entry = process.registry.judges.get(judge)
    model = process.registry.models.get(entry.model) if entry is not None and entry.model is not None else None
    reads = model.reads if model is not None else ()
    return Exhibits(items=tuple(_exhibit(process, attached, reads) for attached in subtask.files))


def _exhibit(process: ModelProcess, attached: Attached, reads: Sequence[str]) -> Exhibit:
    kind: Any = kind_of(attached.media_type) or "file"
    if kind in reads:
        try:
            data = blob_store(process.settings.blobs).get(attached.sha256)
        except NotFound:  # pruned, or lost: the candidates that ran read it before
            log.warning("A file is gone that a judge could see", action="exhibit_missing", file=attached.sha256)
        else:
            return Exhibit(kind=kind, file=File(name=attached.name, media_type=attached.media_type, data=data))
    return Exhibit(kind=kind, said=tuple(_said(one) for one in attached.said))


def _said(one: dict[str, str]) -> Said:
    return Said(what=DESCRIBING[one["capability"]], text=one["text"])
