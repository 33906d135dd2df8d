"""Several cheap jurors and what is known of the models, weighed as preferences taught it.

A juror gives features of each answer: its form and its agreement with the others (`features`), its likelihood under a
small language model (`nll`), and where asked for the letters of `choice` or the comparisons of `llm_pairwise`. Beside
them stands whose answer it is. Which of them to believe differs by capability, so the weights are fitted per capability
on stored preferences (`bakeoff judge fit`), which writes the folder that `artifact` names.

Without an artifact, or for a capability that it does not know, a prior decides, which is written down in `PRIORS`: the
likelihood for recognition, where it was the best single juror; else a vote where answers are closed, and then the
selectors' order. It claims no calibration: its confidence is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from db.registry import JudgeEntry
from worker.judges import Decision, Judge, create_judge
from worker.judges.artifact import Artifact, read_artifact
from worker.judges.features import seen, with_models
from worker.judges.fitting import Features, Weights
from worker.judges.prompting import needed_model, render
from worker.judges.ranking import excerpt, ranked, softmax
from worker.judges.reading import Hostile, read_answers
from worker.params import Params, checked_params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker.backends import LanguageModel
    from worker.judges import Question
    from worker.judges.reading import Reading

PROMPT = "nll-1"
EMPTY = -100.0  # the strength of an empty answer: it cannot win
NAMED = 3  # features that a verdict names
#: Log odds per unit of a feature where nothing was fitted, by capability; the last one is for all others.
PRIORS: dict[str, dict[str, float]] = {
    "image-to-text/ocr": {"nll": 4.0, "rank": 0.1},
    "automatic-speech-recognition": {"nll": 4.0, "rank": 0.1},
    "": {"votes": 3.0, "rank": 0.5, "refuses": -1.0, "repeats": -2.0},
}


class JuryParams(Params):
    """`params` of a `jury`.

    `jurors`: those that ask the judge's language model; by default the likelihood, where there is a model. `identity`:
    whether it matters which model answered. A relative `artifact` is looked for from where the process starts.
    `hostile`: what becomes of text that is aimed at the judge (`worker.judges.reading`).
    """

    artifact: Path | None = None
    jurors: tuple[Literal["nll", "choice", "llm_pairwise"], ...] | None = None
    identity: bool = True
    max_answer_characters: int = Field(800, ge=1)
    max_request_characters: int = Field(2500, ge=0)
    hostile: Hostile = "remove"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Features per answer, in the order of the question's answers; `cheap` are those that cost no language model."""

    features: tuple[Features, ...]
    cheap: tuple[Features, ...]


class Jury(Judge):
    """Ranks by fitted strengths."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        self.params = self._checked(entry)
        asked = self.params.jurors
        self.jurors = (("nll",) if language_model is not None else ()) if asked is None else asked
        if self.jurors:
            needed_model(entry, language_model)
        self.artifact = Artifact(capabilities={})
        if self.params.artifact is not None:
            self.artifact = read_artifact(self.params.artifact, f"judges.{entry.name}.params.artifact")
        self._others = {
            method: create_judge(JudgeEntry(name=entry.name, method=method), language_model)
            for method in self.jurors
            if method != "nll"
        }

    def _checked(self, entry: JudgeEntry) -> JuryParams:
        return checked_params(entry, JuryParams)

    @property
    def speaks_with(self) -> str | None:
        """Which language model and jurors its features come from; None where it asks none."""
        if self.language_model is None or not self.jurors:
            return None
        return f"{self.language_model.identity} {'+'.join(self.jurors)}"

    def decide(self, question: Question) -> Decision:
        """Rank the answers. Raises what the language model raises."""
        heard = self.hear(question)
        return heard.noted(self.weigh(heard.question, self.read(question), asked=bool(self.jurors)))

    # --- evidence

    def hear(self, question: Question) -> Reading:
        """The question without what its answers say to a judge; features are read off the rest."""
        return read_answers(question, self.params.max_answer_characters, self.params.hostile)

    def look(self, question: Question) -> Evidence:
        """What costs no language model."""
        question = self.hear(question).question
        found = seen(question.request, [answer.text for answer in question.answers])
        models = [answer.model for answer in question.answers]
        rows = []
        for place, (answer, row) in enumerate(zip(question.answers, found.features, strict=True)):
            features = with_models(row, place, models, found.alike[place]) if self.params.identity else dict(row)
            features["rank"] = -float(answer.rank)
            rows.append(features)
        return Evidence(features=tuple(rows), cheap=tuple(rows))

    def read(self, question: Question) -> Evidence:
        """Everything: what costs nothing, and what the jurors say who ask the language model."""
        cheap = self.look(question).cheap
        rows = [dict(row) for row in cheap]
        if "nll" in self.jurors:
            for row, found in zip(rows, self._likelihoods(self.hear(question).question), strict=True):
                row.update(found)
        for method, judge in self._others.items():
            scores = judge.decide(question).scores
            for row, answer in zip(rows, question.answers, strict=True):
                row[method] = max(0.0, scores[answer.id])
        return Evidence(features=tuple(rows), cheap=cheap)

    def _likelihoods(self, question: Question) -> list[Features]:
        """Log-probability of each answer, per letter and in all, and how much of it the request explains."""
        model = needed_model(self.entry, self.language_model)
        texts = [answer.text.strip()[: self.params.max_answer_characters].rstrip() for answer in question.answers]
        said = sorted({text for text in texts if text})
        request = question.request.strip()[: self.params.max_request_characters]

        def read(shown: str) -> dict[str, float]:
            prompt = render(PROMPT, capability=question.capability, instruction=question.instruction, request=shown)
            return dict(zip(said, model.continuation_logprobs(prompt, said), strict=True)) if said else {}

        with_request = read(request)
        without = read("") if request else with_request
        rows = []
        for text in texts:
            letters = max(1, sum(character.isalnum() for character in text))
            value, alone = with_request.get(text, 0.0), without.get(text, 0.0)
            rows.append(
                {"nll": max(-50.0, value / letters), "nll_sum": value / 100, "explained": (value - alone) / letters}
                | {"explained_sum": (value - alone) / 100}
            )
        return rows

    # --- the verdict

    def weights(self, capability: str, *, asked: bool) -> tuple[Weights, bool]:
        """The weights for a capability, and whether they were fitted."""
        fitted = self.artifact.capabilities.get(capability)
        if fitted is None:
            return Weights(weights=PRIORS.get(capability, PRIORS[""])), False
        return fitted.weights(self.speaks_with if asked else None), True

    def weigh(self, question: Question, evidence: Evidence, *, asked: bool) -> Decision:
        """The decision that evidence comes to."""
        weights, fitted = self.weights(question.capability, asked=asked)
        strengths = {
            answer.id: weights.strength(row) if answer.text.strip() else EMPTY
            for answer, row in zip(question.answers, evidence.features, strict=True)
        }
        ranking = ranked(question, strengths)
        spoken = asked and self.language_model is not None
        return Decision(
            ranking=ranking,
            scores=strengths,
            reason=self._reason(question, evidence, weights, ranking[0], fitted=fitted),
            method=self.entry.method,
            model=self.language_model.identity if spoken and self.language_model is not None else None,
            prompt_version=PROMPT if spoken else None,
            orders=(_kept(question, evidence, weights),),
            confidence=certainty(question, strengths) if fitted else None,
        )

    def _reason(self, question: Question, evidence: Evidence, weights: Weights, winner: UUID, *, fitted: bool) -> str:
        place = next(place for place, answer in enumerate(question.answers) if answer.id == winner)
        best = question.answers[place]
        gains = contributions(evidence.features, weights, place)
        named = ", ".join(f"{name} {value:+.2f}" for name, value in gains[:NAMED]) or "nothing but its rank"
        by = "fitted weights" if fitted else "the prior: nothing was fitted for this capability"
        return f"{excerpt(best.text)} ({best.model}) leads by {by}; what sets it apart, in log odds: {named}."


def contributions(rows: Sequence[Mapping[str, float]], weights: Weights, place: int) -> list[tuple[str, float]]:
    """What each feature adds to an answer against the mean of the others, the largest first."""
    others = [row for other, row in enumerate(rows) if other != place]
    found = []
    for name, weight in weights.weights.items():
        mean = sum(row.get(name, 0.0) for row in others) / len(others) if others else 0.0
        found.append((name, weight * (rows[place].get(name, 0.0) - mean)))
    return sorted(((name, value) for name, value in found if abs(value) > 1e-3), key=lambda one: -abs(one[1]))


def certainty(question: Question, strengths: Mapping[UUID, float]) -> float:
    """The chance that the winner's text is the best of all; equal texts are one."""
    by_text: dict[str, float] = {}
    for answer in question.answers:
        said = answer.text.strip()
        by_text[said] = max(by_text.get(said, EMPTY), strengths[answer.id])
    return max(softmax(list(by_text.values())))


def _kept(question: Question, evidence: Evidence, weights: Weights) -> dict[str, Any]:
    read = []
    for place, answer in enumerate(question.answers):
        gains = contributions(evidence.features, weights, place)[: 2 * NAMED]
        read.append({"models": [answer.model], "contributions": {name: round(value, 4) for name, value in gains}})
    return {"read": read}
