"""The cascade asks its language model only where the cheap jurors are not sure."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest

from db.errors import RegistryError
from db.registry import JudgeEntry
from worker.judges import Answer, Question, create_judge
from worker.judges.artifact import Artifact, Fitted
from worker.judges.cascade import Cascade


class Counting:
    """A language model that likes the word `good`, and counts."""

    identity = "counting@1"
    calls = 0

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        raise NotImplementedError

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:  # noqa: ARG002
        self.calls += len(continuations)
        return [-1.0 if "good" in text else -9.0 for text in continuations]


def question(*texts: str) -> Question:
    answers = tuple(
        Answer(id=UUID(int=place), model=f"m{place}", text=text, rank=place) for place, text in enumerate(texts)
    )
    return Question(id=UUID(int=9), capability="c", instruction="Answer.", request="", answers=answers)


def cascade(threshold: float | None = None, **params: object) -> tuple[Cascade, Counting]:
    model = Counting()
    judge = create_judge(JudgeEntry(name="c", method="cascade", params=params), model)
    assert isinstance(judge, Cascade)
    if threshold is not None:
        fitted = Fitted(cheap={"length": 1.0}, full={"nll": 5.0}, language_model=judge.speaks_with, threshold=threshold)
        judge.artifact = Artifact(capabilities={"c": fitted})
    return judge, model


def test_where_the_cheap_jurors_are_sure_nobody_is_asked() -> None:
    judge, model = cascade(threshold=0.8)
    decision = judge.decide(question("good", "b" * 200))
    assert (decision.ranking[0].int, model.calls) == (1, 0)
    assert decision.model is None
    assert "No language model was asked" in decision.reason


def test_where_they_are_not_the_full_jury_decides() -> None:
    judge, model = cascade(threshold=0.8)
    decision = judge.decide(question("good", "badly"))
    assert decision.ranking[0].int == 0
    assert model.calls == 2
    assert decision.model == "counting@1"
    assert "was asked" in decision.reason


def test_answers_that_say_the_same_need_nobody() -> None:
    judge, model = cascade(threshold=1.0)
    judge.decide(question("same", "same "))
    assert model.calls == 0


def test_a_threshold_of_the_registry_comes_first() -> None:
    judge, model = cascade(threshold=0.8)
    other, asked = cascade(threshold=0.8)
    other.params = other._checked(JudgeEntry(name="c", method="cascade", params={"threshold": 0.0}))
    judge.decide(question("good", "badly"))
    other.decide(question("good", "badly"))
    assert (model.calls, asked.calls) == (2, 0)


def test_without_an_artifact_it_asks_where_the_prior_is_unsure() -> None:
    judge, model = cascade()
    judge.decide(question("A: 1", "A: 2", "A: 2", "A: 2"))
    sure = model.calls
    judge.decide(question("One thing or another, who knows.", "Quite another thing, as they say."))
    assert (sure, model.calls) == (0, 2)


def test_it_needs_a_model() -> None:
    with pytest.raises(RegistryError, match="model"):
        create_judge(JudgeEntry(name="c", method="cascade"), None)
