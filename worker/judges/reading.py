"""What a judge reads of the answers: without what is aimed at the judge, cut to one limit, equal texts as one.

What is found never decides by itself: it is left out of what is judged, for every answer alike, and the verdict says
so. An answer that consists of nothing else is judged as it stands, unless `hostile` is `lose`: then it counts as empty,
but where all answers are of that kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from worker.judges.hostile import REPEATED, Examined, examine
from worker.judges.ranking import distinct_texts, excerpt
from worker.templates import tag_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.judges import Answer, Decision, Question

#: What is done with text that is aimed at the judge: recorded only, left out, or left out and an answer of nothing else
#: counts as empty.
Hostile = Literal["leave", "remove", "lose"]
CUT = "\n[cut here]"
QUOTES = ("answer", "task")  # tags in which prompts quote
TAG = tag_of(QUOTES)
QUOTED = 200  # characters of a finding that a verdict keeps


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A question as it is read, uncut, and its texts as they are judged: best rank first, each with the answers that
    gave it. `notes` is for the verdict."""

    question: Question
    texts: Mapping[str, list[Answer]]
    cut: frozenset[str]
    notes: Mapping[str, Any]
    warning: str

    def shown(self, text: str) -> str:
        """A text as a prompt quotes it: it cannot leave its quotes, and says where it was cut."""
        return escape_tags(text) + (CUT if text in self.cut else "")

    def noted(self, decision: Decision) -> Decision:
        """The decision with what was left out and cut, where anything was."""
        if not self.notes:
            return decision
        reason = f"{decision.reason} {self.warning}".strip()
        return replace(decision, reason=reason, orders=(*decision.orders, self.notes))


def read_answers(question: Question, limit: int, hostile: Hostile, *, copies: bool = True) -> Reading:
    """What a judge reads. The limit counts characters of what is left; without `copies` nothing is read twice."""
    before = None if copies else question.request
    examined = {answer.id: examine(answer.text, before) for answer in question.answers}
    said = {answer.id: _said(answer.text, examined[answer.id], hostile) for answer in question.answers}
    if not any(text.strip() for text in said.values()):
        said = {answer.id: answer.text for answer in question.answers}
    seen = replace(question, answers=tuple(replace(answer, text=said[answer.id]) for answer in question.answers))
    too_long = [answer for answer in seen.answers if len(answer.text.strip()) > limit]
    found = [answer for answer in question.answers if examined[answer.id].found]
    notes: dict[str, Any] = {}
    if found:
        notes |= {"hostile": hostile, "found": [_finding(answer, examined[answer.id]) for answer in found]}
    if too_long:
        lengths = [{"model": answer.model, "characters": len(answer.text.strip())} for answer in too_long]
        notes |= {"limit": limit, "cut": lengths}
    return Reading(
        question=seen,
        texts=distinct_texts(seen, limit),
        cut=frozenset(answer.text.strip()[:limit].rstrip() for answer in too_long),
        notes=notes,
        warning=_warning(found, examined, hostile),
    )


def _said(text: str, examined: Examined, hostile: Hostile) -> str:
    if hostile == "leave":
        return text
    if examined.others.strip():
        return examined.others
    aimed = any(family != REPEATED for family in examined.families)
    return "" if hostile == "lose" and aimed else text


def _finding(answer: Answer, examined: Examined) -> dict[str, Any]:
    return {
        "model": answer.model,
        "families": examined.families,
        "text": [one.text[:QUOTED] for one in examined.found],
        "nothing_else": not examined.others.strip(),
    }


def _warning(found: Sequence[Answer], examined: Mapping[Any, Examined], hostile: Hostile) -> str:
    if not found:
        return ""
    first = examined[found[0].id].found[0]
    names = ", ".join(f"{answer.model} ({', '.join(examined[answer.id].families)})" for answer in found)
    done = "Seen, and left in" if hostile == "leave" else "Left out of what was judged"
    return f"{done}: text that is aimed at a judge or repeated, as {excerpt(first.text)}, of {names}."


def escape_tags(text: str) -> str:
    """The text, unable to close the quotes that it stands in or to open others."""
    return TAG.sub("&lt;", text)
