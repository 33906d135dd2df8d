"""Text generation, and the probabilities that judges read, by a causal language model."""

from __future__ import annotations

import copy
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from worker.backends import BadInput, Output
from worker.backends.transformers_head import (
    Head,
    load_preprocessor,
    load_pretrained,
    on_device,
    plan_batches,
    whole_number,
)
from worker.media import request_text
from worker.params import Params, checked_params
from worker.weights import identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from db.registry import ModelEntry
    from worker.backends import Input, Place

REMEMBERED_PROMPTS = 8  # a judge asks about the same task again and again
REMEMBERED_TOKENS = 2048  # a longer prompt is not kept: its cache takes more memory than it saves time
MOST_LOGITS = 1 << 26  # numbers in one batch of replies, tokens times vocabulary: 128 MB in half precision
MARK = "\ue000"  # of the private use area: where a chat template puts a turn's text


class TextParams(Params):
    """`params` of a text-generation model."""

    max_new_tokens: int = Field(256, ge=1)  # where the caller names none
    max_new_tokens_limit: int = Field(1024, ge=1)  # a caller's larger wish is cut to it
    batch_tokens: int = Field(8192, ge=1)  # prompt and reply of a batch, padded
    system: str = ""  # the system turn, where the model's own is not wanted


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One request as token ids, and how to answer it. `temperature` 0 is greedy."""

    ids: list[int]
    max_new_tokens: int
    temperature: float
    seed: int | None


class TextGeneration(Head[Prompt]):
    """A causal language model with its chat template; deterministic unless a caller sets a temperature.

    Batched and single runs agree up to rounding: in half precision a near tie may fall either way.
    """

    def __init__(self, model: ModelEntry, place: Place) -> None:
        self.params = checked_params(model, TextParams)
        super().__init__(model, place, self.params.batch_tokens)
        self.identity = identity(model, place.weights)
        self.network: Any = None
        self.tokenizer: Any = None
        self._kept: OrderedDict[tuple[int, ...], tuple[Any, torch.Tensor]] = OrderedDict()

    def load(self) -> None:
        """Load the weights and answer one small input."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.network, config = load_pretrained(AutoModelForCausalLM, self.model, self.place)
        self.tokenizer = load_preprocessor(AutoTokenizer, self.model, self.place)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._context = int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)
        self._end = self._end_of_turn()
        self._generate([Prompt(ids=self._chat("Hello"), max_new_tokens=1, temperature=0.0, seed=None)])

    # --- generation
    # ---------------------------------------------------------------------------------------------

    def prepare(self, item: Input) -> list[Prompt]:
        """Token ids of the chat. Raises `BadInput` for an empty or too long request, or an option out of
        range."""
        most = min(self.params.max_new_tokens_limit, self._context - 1)
        wanted = whole_number(item, "max_new_tokens", min(self.params.max_new_tokens, most), 1, most)
        temperature = item.options.get("temperature", 0)
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 5:
            raise BadInput(f"Option temperature = {temperature!r} is not a number from 0 to 5.")
        seed = whole_number(item, "seed", secrets.randbelow(2**31), 0, 2**63 - 1) if temperature else None
        ids = self._chat(request_text(item))
        if len(ids) + wanted > self._context:
            raise BadInput(
                f"The request has {len(ids)} tokens and asks for {wanted} more: {self.model.name} reads and writes "
                f"{self._context} together."
            )
        return [Prompt(ids=ids, max_new_tokens=wanted, temperature=float(temperature), seed=seed)]

    def size(self, part: Prompt) -> int:
        """Tokens of the prompt and of the longest reply."""
        return len(part.ids) + part.max_new_tokens

    def answer(self, batch: Sequence[Prompt]) -> list[Output]:
        """Greedy prompts together; each sampled one alone, so that its seed decides whatever its
        neighbours are."""
        outputs: dict[int, Output] = {}
        greedy = [index for index, prompt in enumerate(batch) if not prompt.temperature]
        sampled = [[index] for index, prompt in enumerate(batch) if prompt.temperature]
        for indices in filter(None, [greedy, *sampled]):
            outputs.update(zip(indices, self._generate([batch[index] for index in indices]), strict=True))
        return [outputs[index] for index in range(len(batch))]

    def _generate(self, batch: Sequence[Prompt]) -> list[Output]:
        import torch

        longest = max(len(prompt.ids) for prompt in batch)
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(batch), longest), pad)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, prompt in enumerate(batch):  # padded on the left: every reply starts in the same column
            ids[row, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, longest - len(prompt.ids) :] = 1
        how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if batch[0].temperature:
            how = {"do_sample": True, "temperature": batch[0].temperature, "top_p": 1.0, "top_k": 0}
            torch.manual_seed(batch[0].seed or 0)
        written = self.network.generate(
            input_ids=on_device(ids, self.network),
            attention_mask=on_device(mask, self.network),
            max_new_tokens=max(prompt.max_new_tokens for prompt in batch),
            pad_token_id=pad,
            eos_token_id=sorted(self._ends()),
            **how,
        )[:, longest:].tolist()
        return [self._output(prompt, tokens) for prompt, tokens in zip(batch, written, strict=True)]

    def _output(self, prompt: Prompt, tokens: list[int]) -> Output:
        ends = self._ends()
        stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        kept = tokens[: min(stop, prompt.max_new_tokens)]
        detail: dict[str, Any] = {"finish_reason": "stop" if stop < prompt.max_new_tokens else "length"}
        if prompt.seed is not None:
            detail["seed"] = prompt.seed
        return Output(
            text=self.tokenizer.decode(kept, skip_special_tokens=True).strip(),
            detail=detail,
            usage={"prompt_tokens": len(prompt.ids), "output_tokens": len(kept)},
        )

    def _ends(self) -> set[int]:
        ends = self.network.generation_config.eos_token_id
        own = ends if isinstance(ends, list) else [ends]
        return {end for end in [*own, self.tokenizer.eos_token_id, self._end] if end is not None}

    # --- probabilities
    # ------------------------------------------------------------------------------------------

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """See `LanguageModel`. Raises `ValueError` where two options begin with the same token."""
        import torch

        first = [self.tokenizer.encode(option, add_special_tokens=False)[0] for option in options]
        if len(set(first)) < len(first):
            raise ValueError(f"{self.model.name} does not tell the options {list(options)} apart by their first token")
        rows: list[list[float]] = []
        with torch.inference_mode():
            for prompt in prompts:  # one at a time: padding would change the figures with the company
                ids = torch.tensor([self._chat(prompt)], device=self.network.device)
                logits = self.network(input_ids=ids, logits_to_keep=1).logits[0, -1, first]
                rows.append(logits.float().log_softmax(-1).tolist())
        return rows

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """See `LanguageModel`. The prompt is read once and remembered; the replies are one batch, padded
        right."""
        import torch

        replies = [[*self._encode(text), self._end] for text in continuations]
        totals = [0.0] * len(replies)
        if not replies:
            return totals
        with torch.inference_mode():
            cache, after_prompt = self._read_prompt(tuple(self._chat(prompt)))
            for rows in plan_batches([len(reply) for reply in replies], MOST_LOGITS // len(after_prompt), len(replies)):
                values = self._score_replies(copy.deepcopy(cache), after_prompt, [replies[row] for row in rows])
                for row, value in zip(rows, values, strict=True):
                    totals[row] = value
        return totals

    def _score_replies(self, cache: Any, after_prompt: torch.Tensor, replies: list[list[int]]) -> list[float]:
        """Sums of log-probabilities. The prompt predicts a reply's first token; its last is predicted, never read."""
        import torch

        totals = [float(after_prompt[reply[0]]) for reply in replies]
        longest = max(len(reply) for reply in replies) - 1
        if longest == 0:
            return totals
        ids = torch.full((len(replies), longest), self.tokenizer.pad_token_id)
        for row, reply in enumerate(replies):
            ids[row, : len(reply) - 1] = torch.tensor(reply[:-1], dtype=torch.long)
        cache.batch_repeat_interleave(len(replies))
        ids = on_device(ids, self.network)
        logits = self.network(input_ids=ids, past_key_values=cache, use_cache=True).logits
        for row, reply in enumerate(replies):
            for start in range(1, len(reply), 128):  # float32 copies of a few tokens at a time
                wanted = torch.tensor(reply[start : start + 128], device=logits.device)
                logprobs = logits[row, start - 1 : start - 1 + len(wanted)].float().log_softmax(-1)
                totals[row] += float(logprobs.gather(1, wanted[:, None]).sum())
        return totals

    def _read_prompt(self, ids: tuple[int, ...]) -> tuple[Any, torch.Tensor]:
        """Keys and values of a prompt (a copy to write into), and the log-probabilities of what follows
        it."""
        import torch

        if ids in self._kept:
            self._kept.move_to_end(ids)
        else:
            tensor = torch.tensor([ids], device=self.network.device)
            read = self.network(input_ids=tensor, use_cache=True, logits_to_keep=1)
            kept = read.past_key_values, read.logits[0, -1].float().log_softmax(-1)
            if len(ids) > REMEMBERED_TOKENS:
                return kept
            self._kept[ids] = kept
            if len(self._kept) > REMEMBERED_PROMPTS:
                self._kept.popitem(last=False)
        return self._kept[ids]

    # --- the chat
    # -----------------------------------------------------------------------------------------------

    def _chat(self, text: str) -> list[int]:
        """Token ids of a user's turn and the opening of the reply; the bare text where there is no chat
        template."""
        if self.tokenizer.chat_template is None:
            start = "\n\n".join(filter(None, [self.params.system, text]))
            return list(self.tokenizer.encode(start, split_special_tokens=True)) or [self._end]
        turns = [{"role": "system", "content": self.params.system}] if self.params.system else []
        turns.append({"role": "user", "content": MARK})
        rendered = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        before, _, after = rendered.partition(MARK)
        return [*self._encode(before, trusted=True), *self._encode(text), *self._encode(after, trusted=True)]

    def _encode(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids; only in trusted text does `<|im_end|>` mean the end of a turn."""
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not trusted))

    def _end_of_turn(self) -> int:
        """The token that ends a reply: what the chat template writes after one, else the end of the
        text."""
        if self.tokenizer.chat_template is not None:
            turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": MARK}]
            rendered = self.tokenizer.apply_chat_template(turns, tokenize=False)
            after = self._encode(rendered.rpartition(MARK)[2].lstrip(), trusted=True)
            if after and after[0] in self.tokenizer.all_special_ids:
                return int(after[0])
        return int(self.tokenizer.eos_token_id)
