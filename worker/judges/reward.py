"""A scorer that was trained on preferences (`bakeoff reward train`) scores each answer, and the highest score wins.

Scores are log odds: the confidence is the chance that a person prefers the first to the second, sigma of their
difference, as calibrated on held-out groups. It reads text only; what is aimed at a judge is left out before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from db.errors import RegistryError
from worker.judges import Decision, Judge
from worker.judges.fitting import chance
from worker.judges.ranking import excerpt, ranked, unanimous
from worker.judges.reading import Hostile, read_answers
from worker.params import Params, checked_params
from worker.reward.artifact import WEIGHTS, artifact_of, digest, read_artifact
from worker.reward.text import FORM, PLACES, rendered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from db.registry import JudgeEntry
    from worker.backends import LanguageModel
    from worker.judges import Answer, Question

EMPTY = -100.0  # the score of an empty answer


class RewardParams(Params):
    """`params` of a `reward` judge. A relative `artifact` is looked for from where the process starts."""

    artifact: Path
    device: str = "cpu"
    max_answer_characters: int = Field(8000, ge=1)
    hostile: Hostile = "remove"


class RewardJudge(Judge):
    """Ranks by reward."""

    def __init__(self, entry: JudgeEntry, language_model: LanguageModel | None) -> None:
        super().__init__(entry, language_model)
        if "artifact" not in entry.params:
            raise RegistryError(
                f"judges.{entry.name}.method = 'reward' needs params.artifact, a folder of `bakeoff reward train`."
            )
        self.params = checked_params(entry, RewardParams)
        folder = artifact_of(self.params.artifact, f"judges.{entry.name}.params.artifact")
        self._scorer = read_artifact(folder, device=self.params.device)
        self._model = f"{folder.name}@{digest(folder / WEIGHTS)[:12]}"

    def decide(self, question: Question) -> Decision:
        """Rank the answers; equal texts are scored once, empty ones lose."""
        reading = read_answers(question, self.params.max_answer_characters, self.params.hostile)
        texts = list(reading.texts)
        asked = question.request.strip() or question.instruction
        found = self._scorer.score([rendered(asked, text) for text in texts])
        rewards = {text: round(value, PLACES) for text, value in zip(texts, found, strict=True)}
        scores = dict.fromkeys((answer.id for answer in question.answers), EMPTY)
        scores |= {answer.id: rewards[text] for text, same in reading.texts.items() for answer in same}
        order = sorted(rewards.values(), reverse=True)
        sure = chance(order[0] - order[1]) if len(order) > 1 else None
        decision = Decision(
            ranking=ranked(question, scores),
            scores=scores,
            reason=unanimous(question, reading.texts) if sure is None else _reason(reading.texts, rewards, sure),
            method="reward",
            model=self._model,
            prompt_version=f"reward-{FORM}",
            confidence=sure,
        )
        return reading.noted(decision)


def _reason(texts: Mapping[str, list[Answer]], rewards: Mapping[str, float], sure: float) -> str:
    best, second = sorted(texts, key=lambda text: -rewards[text])[:2]
    return (
        f"{excerpt(best)} ({_names(texts[best])}) has the highest reward: {rewards[best]:.2f} against "
        f"{rewards[second]:.2f} ({_names(texts[second])}); a person would agree with a chance of {sure:.2f}."
    )


def _names(answers: list[Answer]) -> str:
    return ", ".join(answer.model for answer in answers)
