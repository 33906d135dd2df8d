"""The paper's proposal: one prompt with all answers and how alike they are, the choice read as in `choice`.

The similarity matrix follows the order of the letters, so that it says the same in every cyclic order. It stands
outside of the quoted answers, where no answer can write. The paper's other arm, the language model alone, is the method
`choice`, also known as `llm`.
"""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from worker.judges.choice import Choice
from worker.judges.prompting import JudgeParams, checked_prompt
from worker.judges.similarity import Similarity, matrix, needed_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import JudgeEntry
    from worker.backends import Backend, LanguageModel


class LLMConsensusParams(JudgeParams):
    """`params` of an `llm_consensus` judge."""

    prompt: str = "llm-consensus-1"
    similarity: Similarity = "words"


class LLMConsensus(Choice):
    """Ranks by the probability that the model, shown the similarities, names an answer's letter."""

    embeds = True

    def __init__(
        self, entry: JudgeEntry, language_model: LanguageModel | None, embedder: Backend | None = None
    ) -> None:
        super().__init__(entry, language_model)
        self._similarity = checked_prompt(entry, LLMConsensusParams).similarity
        self._encoder = needed_encoder(entry, self._similarity, embedder)

    def _checked(self, entry: JudgeEntry) -> JudgeParams:
        return checked_prompt(entry, LLMConsensusParams)

    def _beside(self, order: Sequence[str]) -> dict[str, Any]:
        rows = matrix(order, self._similarity, self._encoder)
        letters = ascii_uppercase[: len(order)]
        return {
            "letters": letters,
            "similarities": [
                {"letter": letter, "values": [f"{value:.2f}" for value in row]}
                for letter, row in zip(letters, rows, strict=True)
            ],
        }
