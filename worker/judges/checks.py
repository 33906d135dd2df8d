"""Rules first: an answer that fails a hard check cannot win, whatever a language model thinks of it.

Answers that meet all hard checks stand before the others. Among them the weighted checks decide, then the judge that
`then` names, then rank. Where none meets them all, the fewest failures stand first and the verdict says so: somebody
has to win. What a task expects stands over the registry's checks: of each kind the task's own, where it has any.

    [judges.json-checked]
    method = "checks"
    model = "smollm2-135m"
    params = { checks = [{ check = "json" }, { check = "length", of = "words", most = 50, weight = 1 }],
               then = { method = "nll" } }
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from worker.judges import Decision, Judge, Question, create_judge
from worker.judges.checking import AnyCheck
from worker.judges.expecting import merged
from worker.judges.ranking import by_rank
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from db.registry import JudgeEntry
    from worker.backends import Backend, LanguageModel
    from worker.judges import Answer


class Then(Params):
    """The judge of those that pass: a method with its params. It asks the model of the entry that names it."""

    method: str
    params: dict[str, Any] = Field(default_factory=dict)


class ChecksParams(Params):
    """`params` of a `checks` judge."""

    checks: Annotated[tuple[AnyCheck, ...], Field(max_length=64)] = ()  # none: those of the task alone
    then: Then | None = None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """How an answer did: names of the hard checks that it failed, and its mean of the weighted ones, 0..1."""

    failed: tuple[str, ...]
    share: float
    met: tuple[float, ...]


class Checks(Judge):
    """Ranks by checks, and by another judge among those that pass."""

    embeds = True

    def __init__(
        self, entry: JudgeEntry, language_model: LanguageModel | None, embedder: Backend | None = None
    ) -> None:
        super().__init__(entry, language_model)
        self._params = checked_params(entry, ChecksParams)
        self._then = None
        if self._params.then is not None:
            then = {"method": self._params.then.method, "params": self._params.then.params}
            self._then = create_judge(entry.model_copy(update=then), language_model, embedder)

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the judge behind raises."""
        checks = merged(self._params.checks, question.expect)
        checked = {answer.id: _check(checks, answer.text) for answer in question.answers}
        fewest = min(len(one.failed) for one in checked.values())
        passing = [answer for answer in by_rank(question.answers) if len(checked[answer.id].failed) == fewest]
        behind = self._asked(question, passing)
        places = {} if behind is None else {id_: place for place, id_ in enumerate(behind.ranking)}
        order = sorted(
            by_rank(question.answers),
            key=lambda one: (len(checked[one.id].failed), -checked[one.id].share, places.get(one.id, 0)),
        )
        return Decision(
            ranking=tuple(answer.id for answer in order),
            scores=_scores(checks, checked, fewest, behind),
            reason=_reason(order, checked, fewest, behind),
            method="checks",
            model=behind.model if behind else None,
            prompt_version=behind.prompt_version if behind else None,
            orders=({"checks": _kept(question, checked)}, *(behind.orders if behind else ())),
            confidence=behind.confidence if behind and not fewest else None,
            needs_review=bool(fewest),
        )

    def _asked(self, question: Question, passing: Sequence[Answer]) -> Decision | None:
        """What the judge behind says of those that pass; None where there is none, or nothing to ask it about."""
        if self._then is None or len(passing) < 2:
            return None
        return self._then.decide(replace(question, answers=tuple(passing)))


def _check(checks: Sequence[AnyCheck], text: str) -> Checked:
    met = tuple(check.met(text) for check in checks)
    pairs = list(zip(checks, met, strict=True))
    weights = sum(check.weight for check, _ in pairs if check.weight is not None)
    gained = sum(check.weight * value for check, value in pairs if check.weight is not None)
    return Checked(
        failed=tuple(check.check for check, value in pairs if check.weight is None and value < 1),
        share=gained / weights if weights else 1.0,
        met=met,
    )


def _scores(
    checks: Sequence[AnyCheck], checked: Mapping[UUID, Checked], fewest: int, behind: Decision | None
) -> dict[UUID, float]:
    """Share of the weighted checks met, or without any the scores of the judge behind; one less per failure."""
    weighted = any(check.weight is not None for check in checks)
    own = {id_: one.share for id_, one in checked.items()}
    base = 0.0
    if behind is not None and not weighted:
        own |= behind.scores
        base = min(behind.scores.values(), default=0.0)
    return {id_: own[id_] if len(one.failed) == fewest else base - len(one.failed) for id_, one in checked.items()}


def _kept(question: Question, checked: Mapping[UUID, Checked]) -> list[dict[str, Any]]:
    return [
        {"model": answer.model, "failed": checked[answer.id].failed, "share": checked[answer.id].share,
         "met": checked[answer.id].met}
        for answer in by_rank(question.answers)
    ]  # fmt: skip


def _reason(order: Sequence[Answer], checked: Mapping[UUID, Checked], fewest: int, behind: Decision | None) -> str:
    best = order[0]
    if fewest:
        said = (
            f"No answer meets every hard check; {best.model} fails the fewest ({', '.join(checked[best.id].failed)})."
        )
    else:
        out = [f"{one.model} ({', '.join(checked[one.id].failed)})" for one in order if checked[one.id].failed]
        said = f"{len(order) - len(out)} of {len(order)} answers meet every hard check"
        said += f"; out: {', '.join(out)}." if out else "."
    shares = {checked[one.id].share for one in order if len(checked[one.id].failed) == fewest}
    if len(shares) > 1:
        said += f" {best.model} meets {checked[best.id].share:.0%} of the weighted ones."
    return f"{said} {behind.reason}" if behind else said
