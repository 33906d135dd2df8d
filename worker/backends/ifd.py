"""How much an instruction helps a language model to write its answer: instruction-following difficulty.

The ratio of two mean losses of the answer's tokens: given the instruction as a chat turn, and given nothing. Near 0 the
instruction says it all; near 1 it helps little; above 1 it misleads, and the pair is not worth training on (Li et al.,
"From Quantity to Quality", 2023). Input is `worker.reward.text.rendered(instruction, answer)`, output the ratio.

    [models.ifd-smollm2]
    capability = "text-classification/ifd"
    backend = "ifd"                          # with the source of a causal language model
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.backends import BadInput, Input, OneByOne, Output
from worker.reward.text import as_text, parted

if TYPE_CHECKING:
    from db.registry import ModelEntry
    from worker.backends import Place
    from worker.backends.transformers_text import TextGeneration

MOST_CHARACTERS = 8000  # of an answer: what follows says no more about how it is written


class IFD(OneByOne):
    """A causal language model that reads, one pair at a time: padding would change the figures with the company."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        from worker.backends.transformers_text import TextGeneration

        self._head: TextGeneration = TextGeneration(model, place)

    def load(self) -> None:
        """Load the weights."""
        self._head.load()

    def answer(self, item: Input) -> Output:
        """The ratio. Raises `BadInput` where there is no instruction, or no answer of two tokens."""
        instruction, answer = parted(item.text)
        answer = answer.strip()[:MOST_CHARACTERS]
        if not instruction or not answer:
            raise BadInput("An instruction and its answer are needed, as worker.reward.text.rendered puts them.")
        tokens = self._head.tokenizer.encode(answer, add_special_tokens=False)
        if len(tokens) < 2:
            raise BadInput("The answer has one token: nothing precedes it, so it has no loss of its own.")
        # The reply's tokens and the end of its turn, as the model's own template closes it.
        with_it = -self._head.continuation_logprobs(instruction, [answer])[0] / (len(tokens) + 1)
        alone = self._loss_alone(tokens)
        if alone <= 0:
            raise BadInput("The answer has no loss of its own: there is nothing to divide by.")
        detail = {"loss": round(with_it, 6), "loss_alone": round(alone, 6)}
        return Output(text=as_text(with_it / alone), detail=detail, usage={"prompt_tokens": len(tokens)})

    def _loss_alone(self, tokens: list[int]) -> float:
        """Mean loss of the tokens after the first, with nothing before them."""
        import torch

        network: Any = self._head.network
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=network.device)
            logits = network(input_ids=ids).logits[0, :-1].float()
            return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))

    def close(self) -> None:
        """Give the memory back."""
        from worker.backends.transformers_head import free_memory

        self._head.network = None
        free_memory()
