"""Checks come first, whoever judges: an answer that does not hold what its task expects cannot win while another does.

The judge is asked about those that pass. Where one alone does, it wins and nobody is asked; where none does, the judge
ranks them all, the verdict says so and asks for a person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded

from worker.judges import Decision, check_decision
from worker.judges.checking import LONGEST_WHY
from worker.judges.ranking import by_rank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from worker.judges import Answer, Judge, Question
    from worker.judges.checking import AnyCheck

ONLY_PASSING = "only_passing"  # the method of a verdict on the one answer that holds what was asked


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A hard check that an answer fails, and why."""

    check: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Sifted:
    """A question, and by answer what it lacks of what was expected."""

    question: Question
    faults: Mapping[UUID, tuple[Fault, ...]]

    @property
    def passing(self) -> tuple[Answer, ...]:
        """The answers that lack nothing, by rank."""
        return tuple(answer for answer in by_rank(self.question.answers) if not self.faults[answer.id])

    @property
    def contenders(self) -> tuple[Answer, ...]:
        """Who may win: those that lack nothing; all of them where each lacks something."""
        return self.passing or tuple(by_rank(self.question.answers))

    @property
    def others(self) -> tuple[Answer, ...]:
        """Who cannot win, those with the fewest faults first."""
        able = {answer.id for answer in self.contenders}
        rest = (answer for answer in by_rank(self.question.answers) if answer.id not in able)
        return tuple(sorted(rest, key=lambda answer: len(self.faults[answer.id])))

    def noted(self, decision: Decision) -> Decision:
        """A decision about the contenders as one about all, with what the checks said."""
        if self.question.expect is None or not self.question.expect.hard:
            return decision
        ranking = (*decision.ranking, *(answer.id for answer in self.others))
        orders = ({"checks": self._kept()}, *decision.orders)
        reason = " ".join(filter(None, [decision.reason, self._said()]))
        review = decision.needs_review or not self.passing
        return replace(decision, ranking=ranking, orders=orders, reason=reason, needs_review=review)

    def _kept(self) -> list[dict[str, Any]]:
        return [
            {
                "model": answer.model,
                "failed": [fault.check for fault in self.faults[answer.id]],
                "why": [fault.why for fault in self.faults[answer.id]],
            }
            for answer in by_rank(self.question.answers)
        ]

    def _said(self) -> str:
        failing = [answer for answer in by_rank(self.question.answers) if self.faults[answer.id]]
        told = "; ".join(
            f"{answer.model}: {', '.join(f'{one.check} ({one.why})' for one in self.faults[answer.id])}"
            for answer in failing
        )
        if not failing:
            return ""
        return f"Out by the checks: {told}." if self.passing else f"No answer holds what was asked: {told}."


def sift(question: Question) -> Sifted:
    """Check the answers. What cannot be checked fails, and says why; only the end of the message's time is raised."""
    hard = question.expect.hard if question.expect else ()
    faults = {
        answer.id: tuple(fault for check in hard if (fault := _fault(check, answer.text)) is not None)
        for answer in question.answers
    }
    return Sifted(question=question, faults=faults)


def _fault(check: AnyCheck, text: str) -> Fault | None:
    try:
        if check.met(text) >= 1:
            return None
        why = check.why(text)
    except SoftTimeLimitExceeded:  # the message's time is over: that says nothing about the answer
        raise
    except Exception as error:  # noqa: BLE001 - a validator may raise anything of what strangers wrote
        why = f"it could not be checked: {error or type(error).__name__}"
    return Fault(check=check.check, why=" ".join(why.split())[:LONGEST_WHY])


def decide(judge: Callable[[], Judge], sifted: Sifted) -> Decision:
    """What is decided about a sifted question. The judge is made only where it is asked.

    Raises what the judge raises, and `ValueError` where it ranks other answers than it was given.
    """
    question, contenders = sifted.question, sifted.contenders
    if len(contenders) == 1:
        return sifted.noted(_alone(question, contenders[0]))
    asked = question if not sifted.others else replace(question, answers=contenders)
    decision = judge().decide(asked)
    check_decision(decision, [answer.id for answer in contenders])
    return sifted.noted(decision)


def _alone(question: Question, answer: Answer) -> Decision:
    """The decision where nobody has to be asked: one answer holds what was asked."""
    return Decision(
        ranking=(answer.id,),
        scores={},
        reason=f"{answer.model} wins unjudged: of {len(question.answers)} answers it alone holds what was asked.",
        method=ONLY_PASSING,
    )
