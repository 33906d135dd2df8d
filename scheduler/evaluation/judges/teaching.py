"""What a jury is fitted on: stored preferences, or a set of answers with scores."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from scheduler.evaluation.judges.cases import case_of, is_pair
from scheduler.evaluation.judges.rows import part_of
from worker.judges import Answer, Question
from worker.judges.artifact import fit_capability
from worker.judges.fitting import Example

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from db.preferences import PreferredText
    from scheduler.evaluation.judges.rows import EvaluationSet
    from worker.judges.artifact import Fitted
    from worker.judges.fitting import Features
    from worker.judges.jury import Evidence, Jury

MOST_ANSWERS = 16  # of one question: more are compared among themselves in no task
UNKNOWN = "unknown"  # the model of an output of which nobody said whose it is


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A question, what it is about, and a score per answer, in the order of its answers."""

    group: str
    question: Question
    scores: tuple[float, ...]


def lessons_of_preferences(preferences: Iterable[PreferredText], capability: str, instruction: str) -> list[Lesson]:
    """Questions whose answers were compared: preferences about one request are one, a score is wins less losses.

    A text with two models' names counts once, under the first. A question that ends without a better answer teaches
    nothing and is left out.
    """
    asked: dict[tuple[str, str], dict[str, tuple[str, int]]] = defaultdict(dict)
    for one in preferences:
        said = asked[one.group, one.request]
        for text, model, won in ((one.better, one.better_model, 1), (one.worse, one.worse_model, -1)):
            known, score = said.get(text, (model or UNKNOWN, 0))
            said[text] = known, score + won
    lessons = []
    for (group, request), said in asked.items():
        kept = list(said.items())[:MOST_ANSWERS]
        scores = tuple(float(score) for _, (_, score) in kept)
        if len(set(scores)) > 1:
            texts = [(text, model) for text, (model, _) in kept]
            lessons.append(
                Lesson(group=group, question=_question(capability, instruction, request, texts), scores=scores)
            )
    return lessons


def lessons_of_set(evaluation: EvaluationSet) -> list[Lesson]:
    """The rows to fit and to tune on of a set; those to report stay unseen."""
    lessons = []
    for row in evaluation.rows:
        if part_of(row.group) == "report":
            continue
        case = case_of(row, sorted(row.answers)[:MOST_ANSWERS], evaluation.kind, blind=is_pair(row) and not row.names)
        scores = tuple(row.scores[case.key(answer.id)] for answer in case.question.answers)
        if len(set(scores)) > 1:
            lessons.append(Lesson(group=row.group, question=case.question, scores=scores))
    return lessons


def taught(jury: Jury, lessons: Iterable[Lesson]) -> Fitted:
    """Fit a jury's weights on lessons of one capability. Raises `UsageError` where they are too few."""
    return taught_by([(lesson, jury.read(lesson.question)) for lesson in lessons], jury.speaks_with)


def taught_by(read: Sequence[tuple[Lesson, Evidence]], speaks_with: str | None) -> Fitted:
    """Fit weights on lessons whose evidence is read. `speaks_with`: whose features are part of it beside cheap ones."""
    cheap = [_example(lesson, evidence.cheap) for lesson, evidence in read]
    full = None if speaks_with is None else [_example(lesson, evidence.features) for lesson, evidence in read]
    return fit_capability(cheap, full, speaks_with)


def _example(lesson: Lesson, features: Sequence[Features]) -> Example:
    """What is learned from a lesson: all but the rank, which on rows that chose the models is a score in disguise."""
    return Example(
        group=lesson.group,
        features=tuple(
            {name: value for name, value in row.items() if name != "rank" and not name.endswith(f":{UNKNOWN}")}
            for row in features
        ),
        scores=lesson.scores,
    )


def _question(capability: str, instruction: str, request: str, texts: Sequence[tuple[str, str]]) -> Question:
    answers = (
        Answer(id=UUID(int=place), model=model, text=text, rank=place) for place, (text, model) in enumerate(texts)
    )
    return Question(
        id=UUID(int=0), capability=capability, instruction=instruction, request=request, answers=tuple(answers)
    )


def card_line(capability: str, fitted: Fitted) -> dict[str, Any]:
    """One capability's card in a line: what it was fitted on, and how far it can be trusted on held-out groups."""
    card = fitted.card.get("full") or fitted.card["cheap"]
    return {
        "capability": capability,
        "groups": fitted.card["groups"],
        **{name: card[name] for name in ("pairs", "accuracy", "accuracy_interval", "brier", "reliability")},
        "language_model": fitted.language_model,
        "threshold": fitted.threshold,
        "cascade": fitted.card.get("cascade"),
    }
