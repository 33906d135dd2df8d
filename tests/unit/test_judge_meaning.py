"""Likeness by meaning: what a sentence embedder finds alike, whatever the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from db.errors import RegistryError
from db.registry import JudgeEntry, ModelEntry
from tests.unit.test_judges import Reader, order, question
from worker.backends import Backend, Failure, Input, Output, Place
from worker.judges.consensus import Consensus
from worker.judges.listwise import LLMConsensus

VECTORS = {"A cat sleeps.": [1.0, 0.0], "The feline is dozing": [0.8, 0.6], "A dog sleeps.": [-0.28, 0.96]}


class Embedder(Backend):
    """Knows the vectors of a few texts, and fails on others."""

    def load(self) -> None:
        """Nothing to load."""

    def run(self, inputs: Sequence[Input]) -> list[Output | Failure]:
        """Vectors by text."""
        return [Output(text="", detail={"vector": VECTORS[item.text]}) for item in inputs]


def embedder() -> Embedder:
    return Embedder(ModelEntry(name="small", capability="feature-extraction", backend="scripted"), Place(weights=None))


def entry(method: str, **params: Any) -> JudgeEntry:
    return JudgeEntry(name="alike", method=method, model="reader", params=params)


def test_the_medoid_is_the_text_that_means_most_like_the_others() -> None:
    # given two texts that mean the same in other words, and one that has the words of the first
    texts = ("A dog sleeps.", "A cat sleeps.", "The feline is dozing")
    by_words = Consensus(entry("consensus", answers="open"), None).decide(question(*texts))
    by_meaning = Consensus(entry("consensus", answers="open", similarity="meaning"), None, embedder())
    decision = by_meaning.decide(question(*texts))
    # then words and meaning disagree, and the verdict keeps what was compared
    assert order(by_words)[0] == 0
    assert order(decision)[0] == 2
    assert decision.orders[0]["similarity"] == "meaning"
    assert decision.orders[0]["matrix"][1][2] == pytest.approx(0.8)
    assert decision.orders[0]["matrix"][0][1] == 0  # an angle beyond a right one is no likeness


def test_the_prompt_with_similarities_can_show_meaning() -> None:
    reader = Reader(best="A cat sleeps.")
    judge = LLMConsensus(entry("llm_consensus", similarity="meaning"), reader, embedder())
    judge.decide(question("A cat sleeps.", "The feline is dozing"))
    assert "A 1.00 0.80" in reader.prompts[0]


@pytest.mark.parametrize("kind", [Consensus, LLMConsensus])
def test_without_an_embedder_it_is_refused(kind: Any) -> None:
    with pytest.raises(RegistryError, match=r"judges\.alike\.embedder"):
        kind(entry("x", similarity="meaning"), Reader())
