"""Judges in a row: where one fails, the next is asked. An error is not a tie, and neither is garbage.

All are of one entry and ask its model where they need one: a language model behind a server, then its likelihoods, then
agreement, which nobody can take away. Where all fail the subtask is tried again, and at last the selectors' first
choice stands, as with any judge.

    [judges.steadfast]
    method = "relay"
    model = "llama-3.3-70b"
    params = { judges = [{ method = "llm_pairwise" }, { method = "consensus" }] }
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from celery.exceptions import SoftTimeLimitExceeded
from pydantic import Field

from db.logs import get_logger
from worker.judges import Decision, Judge, check_decision, create_judge
from worker.judges.checks import Then
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from db.registry import JudgeEntry
    from worker.backends import Backend, LanguageModel
    from worker.judges import Question, check_decision

log = get_logger(__name__)


class RelayParams(Params):
    """`params` of a `relay` judge: who is asked, in this order."""

    judges: Annotated[tuple[Then, ...], Field(min_length=2, max_length=8)]


class Relay(Judge):
    """Decides as the first judge that can."""

    embeds = True

    def __init__(
        self, entry: JudgeEntry, language_model: LanguageModel | None, embedder: Backend | None = None
    ) -> None:
        super().__init__(entry, language_model)
        row = checked_params(entry, RelayParams).judges
        entries = [entry.model_copy(update={"method": one.method, "params": one.params}) for one in row]
        self._judges = [create_judge(one, language_model, embedder) for one in entries]

    def decide(self, question: Question) -> Decision:
        """Ask one after the other. Raises what the last one raises."""
        failed: list[dict[str, str]] = []
        for judge in self._judges[:-1]:
            try:
                decision = judge.decide(question)
                check_decision(decision, [answer.id for answer in question.answers])
            except SoftTimeLimitExceeded:  # the message's time is over, whoever would be asked next
                raise
            except Exception as error:  # noqa: BLE001 - a judge may raise anything; that is what the next one is for
                text = " ".join(str(error).split())[:300] or type(error).__name__
                failed.append({"method": judge.entry.method, "error": text})
                log.warning(
                    f"{judge.entry.method} failed, the next judge is asked: {text}",
                    action="judge_relayed", judge=self.entry.name, subtask=str(question.id),
                )  # fmt: skip
            else:
                return _noted(decision, failed)
        return _noted(self._judges[-1].decide(question), failed)


def _noted(decision: Decision, failed: list[dict[str, str]]) -> Decision:
    if not failed:
        return decision
    names = ", ".join(f"{one['method']} ({one['error']})" for one in failed)
    reason = f"{decision.reason} {decision.method} was asked because of what failed before: {names}."
    return replace(decision, reason=reason, orders=(*decision.orders, {"failed": failed}))
