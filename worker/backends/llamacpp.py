"""GGUF files by llama.cpp: text, JSON by schema, and the probabilities that judges read.

A JSON schema binds what is written token by token, so even a small model's reply can be parsed, unless
`max_new_tokens` cuts it short (`finish_reason` says so).
"""

from __future__ import annotations

import codecs
import json
import math
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.errors import WeightsError
from worker.backends import BadInput, Input, OneByOne, Output
from worker.backends.constrained import wanted_schema
from worker.backends.llamacpp_engine import Engine, EngineError
from worker.backends.transformers_head import whole_number
from worker.media import request_text
from worker.params import Params, checked_params
from worker.weights import identity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from db.registry import ModelEntry
    from worker.backends import Place

MARK = "\ue000"  # of the private use area: where a chat template puts a turn's text
LARGEST_SEED = 2**32 - 2  # llama.cpp takes one more as "choose one"
FORCED = 100.0  # added to a logit, it outweighs all others
LIKELIEST = 500  # tokens whose probability is asked for at first ...
WHOLE_VOCABULARY = 1 << 24  # ... and where one that is wanted is not among them: megabytes of JSON
REMEMBERED_SCHEMAS = 64
# At most one blank between two marks: a small model may else write blank lines until its tokens are used up. And what
# may be one of several forms is not refused because two of them could overlap.
GUIDANCE = {"whitespace_pattern": " ?", "item_separator": ",", "key_separator": ":", "coerce_one_of": True}


class LlamaCppParams(Params):
    """`params` of a model run by llama.cpp."""

    context: int = Field(4096, ge=64)  # tokens of prompt and reply together; takes memory from the start
    max_new_tokens: int = Field(256, ge=1)  # where the caller names none
    max_new_tokens_limit: int = Field(1024, ge=1)  # a caller's larger wish is cut to it
    system: str = ""  # the system turn, where the model's own is not wanted


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How one request is to be answered. `temperature` 0 is greedy; `schema` is JSON."""

    max_new_tokens: int
    temperature: float
    seed: int | None
    schema: str | None


class LlamaCpp(OneByOne):
    """A causal language model in a GGUF file, with its chat template (ChatML where the file has none).

    Deterministic unless a caller sets a temperature, up to rounding: a prompt's beginning is reused from the one
    before, and then a near tie may fall either way.
    """

    constrains = True

    def __init__(self, model: ModelEntry, place: Place) -> None:
        super().__init__(model, place)
        self.params = checked_params(model, LlamaCppParams)
        self.identity = identity(model, place.weights)
        self._engine: Engine | None = None
        self._end = self._brace = -1  # tokens: what ends a turn, and "}"
        self._schemas: OrderedDict[str, None] = OrderedDict()

    @property
    def engine(self) -> Engine:
        """The loaded engine. Raises `RuntimeError` before `load` and after `close`."""
        if self._engine is None:
            raise RuntimeError(f"{self.model.name} is not loaded")
        return self._engine

    def load(self) -> None:
        """Load the file and answer one small input. Raises `WeightsError`."""
        self._engine = Engine(
            self.model,
            self._file(),
            context=self.params.context,
            threads=self.place.threads,
            gpu=self.place.device != "cpu",
        )
        turns = [{"role": role, "content": MARK} for role in ("user", "assistant", "user")]
        after = self.engine.conversation(turns).split(MARK)[2].lstrip()
        self._end = self.engine.tokens(after, special=True)[0]  # what the chat template writes after a reply
        self._brace = self.engine.tokens("}")[-1]
        self.engine.complete(self._chat("Hello"), 1)

    def close(self) -> None:
        """Give back the memory."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _file(self) -> Path:
        """The GGUF file; the first part of one that is split."""
        folder = self.place.weights
        found = sorted(folder.glob("*.gguf")) if folder is not None else []
        parts = [file for file in found if "-of-" in file.stem]
        if len(found) == 1 or (found and len(parts) == len(found)):
            return found[0]
        names = ", ".join(file.name for file in found) or "none"
        raise WeightsError(f"Model {self.model.name} needs one GGUF file in {folder}; there are: {names}.")

    # --- generation ---------------------------------------------------------------------------------------------

    def answer(self, item: Input) -> Output:
        """The reply. Raises `BadInput` for an empty or too long request, or an option that is wrong."""
        wish = self._wish(item)
        ids = self._chat(request_text(item))
        if len(ids) + wish.max_new_tokens > self.params.context:
            raise BadInput(
                f"The request has {len(ids)} tokens and asks for {wish.max_new_tokens} more: {self.model.name} reads "
                f"and writes {self.params.context} together."
            )
        how: dict[str, Any] = {}
        if wish.schema is not None:
            how["json_schema"] = json.loads(wish.schema)
            self._check_schema(wish.schema, ids)
        if wish.seed is not None:
            how |= {"temperature": wish.temperature, "seed": wish.seed, "samplers": ["temperature"]}
        read = self.engine.complete(ids, wish.max_new_tokens, **how)
        detail: dict[str, Any] = {"finish_reason": "length" if read["stop_type"] == "limit" else "stop"}
        if wish.seed is not None:
            detail["seed"] = wish.seed
        return Output(
            text=str(read["content"]).strip(),
            detail=detail,
            usage={"prompt_tokens": len(ids), "output_tokens": int(read["tokens_predicted"])},
        )

    def _wish(self, item: Input) -> Wish:
        most = min(self.params.max_new_tokens_limit, self.params.context - 1)
        temperature = item.options.get("temperature", 0)
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 5:
            raise BadInput(f"Option temperature = {temperature!r} is not a number from 0 to 5.")
        schema = wanted_schema(item)
        return Wish(
            max_new_tokens=whole_number(item, "max_new_tokens", min(self.params.max_new_tokens, most), 1, most),
            temperature=float(temperature),
            seed=whole_number(item, "seed", secrets.randbelow(2**31), 0, LARGEST_SEED) if temperature else None,
            schema=None if schema is None else json.dumps({"x-guidance": GUIDANCE, **schema}),
        )

    def _check_schema(self, schema: str, ids: list[int]) -> None:
        """Refuse a schema that cannot be followed: llama.cpp only logs it, and writes without.

        One token is written with the closing brace, which begins no JSON, made the likeliest by far: where it comes
        out, no schema is in force. The prompt is read here and reused for the reply.
        """
        if schema in self._schemas:
            self._schemas.move_to_end(schema)
            return
        try:
            read = self.engine.complete(ids, 1, json_schema=json.loads(schema), logit_bias=[[self._brace, FORCED]])
        except EngineError as error:
            raise BadInput(f"Option json_schema cannot be followed: {error}.") from None
        if "}" in read["content"]:
            raise BadInput(
                "Option json_schema cannot be followed: an unknown type, an unknown keyword, or a contradiction."
            )
        self._schemas[schema] = None
        if len(self._schemas) > REMEMBERED_SCHEMAS:
            self._schemas.popitem(last=False)

    # --- probabilities ------------------------------------------------------------------------------------------

    def option_logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """See `LanguageModel`. Exact: a softmax over the whole vocabulary, before any sampling.

        Raises `ValueError` where two options begin with the same token.
        """
        first = [self.engine.tokens(option)[0] for option in options]
        if len(set(first)) < len(first):
            raise ValueError(f"{self.model.name} does not tell the options {list(options)} apart by their first token")
        return [_normalised(self._logprobs(self._chat(prompt), first)) for prompt in prompts]

    def _logprobs(self, ids: list[int], wanted: Sequence[int]) -> list[float]:
        """Log-probability of tokens as the next one after a prompt."""
        for most in (LIKELIEST, WHOLE_VOCABULARY):
            # A plain token is forced out: of one that is half a character llama.cpp tells nothing.
            read = self.engine.complete(ids, 1, n_probs=most, logit_bias=[[self._brace, FORCED]])
            likeliest = read["completion_probabilities"][0]["top_logprobs"]
            found = {int(one["id"]): float(one["logprob"]) for one in likeliest}
            if set(wanted) <= set(found):
                return [found[token] for token in wanted]
        raise EngineError(f"{self.model.name} has no tokens {sorted(set(wanted) - set(found))}")

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """See `LanguageModel`. Exact, and as slow as writing the replies: llama.cpp tells no probabilities of a prompt.

        So each reply is written anew under a grammar that allows its tokens and no others; what is told of a token is
        its probability before the grammar. Tokens that are parts of a character are asked for one by one.
        """
        ids = self._chat(prompt)
        return [self._continuation(ids, self.engine.pieces(_encodable(text))) for text in continuations]

    def _continuation(self, ids: list[int], reply: list[tuple[int, bytes]]) -> float:
        tokens = [token for token, _ in reply]
        total, start = 0.0, 0
        for place in _parts_of_characters([piece for _, piece in reply]):
            total += self._written([*ids, *tokens[:start]], tokens[start:place])
            total += self._logprobs([*ids, *tokens[:place]], [tokens[place]])[0]
            start = place + 1
        return total + self._written([*ids, *tokens[:start]], tokens[start:], ended=True)

    def _written(self, ids: list[int], reply: list[int], *, ended: bool = False) -> float:
        """Log-probability of a reply of whole characters, and of the turn's end after it."""
        expected = [*reply, self._end] if ended else reply
        if not expected:
            return 0.0
        read = self.engine.complete(
            ids,
            len(expected),
            grammar=" ".join(["root ::=", *(f"<[{token}]>" for token in reply)]) if reply else 'root ::= ""',
            logit_bias=[[self._end, FORCED]],  # of the tokens that may end a text, the one that ends a turn
            n_probs=1,
        )
        told = read["completion_probabilities"]
        if [int(one["id"]) for one in told] != expected:
            raise EngineError(f"{self.model.name} did not write the reply that it was given to score")
        return sum(float(one["logprob"]) for one in told)

    # --- the chat -----------------------------------------------------------------------------------------------

    def _chat(self, text: str) -> list[int]:
        """Token ids of a user's turn and the opening of the reply; markup in the text is text."""
        turns = [{"role": "system", "content": self.params.system}] if self.params.system else []
        before, _, after = self.engine.conversation([*turns, {"role": "user", "content": MARK}]).partition(MARK)
        return [
            *self.engine.tokens(before, special=True, start=True),
            *self.engine.tokens(_encodable(text)),
            *self.engine.tokens(after, special=True),
        ]


def _normalised(logprobs: Sequence[float]) -> list[float]:
    highest = max(logprobs)
    total = highest + math.log(sum(math.exp(value - highest) for value in logprobs))
    return [value - total for value in logprobs]


def _encodable(text: str) -> str:
    """The text, lone surrogates replaced."""
    return text.encode(errors="replace").decode()


def _parts_of_characters(pieces: Sequence[bytes]) -> list[int]:
    """Places of the tokens that begin, go on with, or end a character which others make up with them."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    places, inside = [], False
    for place, piece in enumerate(pieces):
        decoder.decode(piece)
        was_inside, inside = inside, bool(decoder.getstate()[0])
        if inside or was_inside:
            places.append(place)
    return places
