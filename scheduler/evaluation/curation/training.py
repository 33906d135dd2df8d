"""A small language model fine-tuned by LoRA on a budget of tokens, and its loss on answers that it never saw.

The weights are loaded once; every run puts fresh adapters on them and takes them off again. Only answers are trained
on and measured, after their question in the model's own chat form. Steps are of equal size in tokens, so that every arm
takes as many of them, with the same schedule.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.errors import UsageError, WeightsError
from worker.backends.transformers_head import load_preprocessor, load_pretrained, on_device, plan_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from db.registry import ModelEntry
    from scheduler.curation.turns import Turn
    from scheduler.evaluation.curation.rows import Row
    from worker.backends import Place

BATCH_TOKENS = 512  # of one forward pass, padded: with 49,152 words in the vocabulary 100 MB of logits
BATCH_ROWS = 8
NOT_MEASURED = -100  # what torch's cross entropy passes over


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an arm is trained. Fixed before the first run; nothing was tuned on the rows kept back."""

    tokens: int  # read in all, questions and answers
    step_tokens: int = 512  # of one step of the optimiser
    learning_rate: float = 5e-4  # at its highest, after a tenth of the steps; then down to nothing in a straight line
    rank: int = 16
    alpha: int = 32
    longest: int = 512  # tokens of one turn; the rest is cut off


@dataclass(frozen=True)
class Piece:
    """One turn as tokens: the first `asked` of them are the question."""

    ids: list[int]
    asked: int

    @property
    def measured(self) -> int:
        """Tokens of the answer, its end included."""
        return len(self.ids) - self.asked


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run did: `losses` are the rows' mean losses per token of their answers, `tokens` what was read."""

    losses: list[float]
    answer_tokens: list[int]  # per row of `losses`
    tokens: int = 0
    steps: int = 0
    passes: float = 0.0  # over the arm's rows
    train_loss: float | None = None  # mean over the last quarter of the steps


class Student:
    """The model that is fine-tuned. Raises `WeightsError` where it or peft is not there."""

    def __init__(self, model: ModelEntry, place: Place) -> None:
        self.model = model
        try:
            import peft  # noqa: F401, PLC0415 - said before anything is loaded
            from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - takes seconds
        except ModuleNotFoundError as error:
            raise WeightsError(f'Fine-tuning needs {error.name}: `pip install "bakeoff[training]"`.') from None
        self.tokenizer = load_preprocessor(AutoTokenizer, model, place)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token_id = self.tokenizer.eos_token_id
        self.network, _ = load_pretrained(AutoModelForCausalLM, model, place)

    def count(self, rows: Sequence[Row], recipe: Recipe) -> int:
        """Tokens of one pass over rows."""
        return sum(len(piece.ids) for row in rows for piece in self._pieces(row, recipe))

    def untrained(self, held_out: Sequence[Row], recipe: Recipe) -> Trained:
        """The losses of the weights as they are."""
        return self._measured(self.network, held_out, recipe)

    def trained(
        self,
        rows: Sequence[Row],
        held_out: Sequence[Row],
        recipe: Recipe,
        seed: int,
        progress: Callable[[int, int], None] = lambda _, __: None,
    ) -> Trained:
        """Train adapters on rows for the budget of the recipe, measure, and take them off."""
        import peft  # noqa: PLC0415 - takes seconds
        import torch  # noqa: PLC0415 - takes seconds

        pieces = [piece for row in rows for piece in self._pieces(row, recipe)]
        if not pieces:
            raise UsageError(f"None of {len(rows)} rows has an answer within {recipe.longest} tokens.")
        torch.manual_seed(seed)
        config = peft.LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is about to go
            adapted = peft.get_peft_model(self.network, config)
        try:
            read, losses = self._fit(adapted, pieces, recipe, seed, progress)
            measured = self._measured(adapted, held_out, recipe)
        finally:
            self.network = adapted.unload()
        late = losses[-max(1, len(losses) // 4) :]
        return Trained(
            losses=measured.losses,
            answer_tokens=measured.answer_tokens,
            tokens=read,
            steps=len(losses),
            passes=read / sum(len(piece.ids) for piece in pieces),
            train_loss=sum(late) / len(late),
        )

    def _fit(
        self, adapted: Any, pieces: Sequence[Piece], recipe: Recipe, seed: int, progress: Callable[[int, int], None]
    ) -> tuple[int, list[float]]:
        """Tokens read, and the mean loss of every step."""
        import torch  # noqa: PLC0415 - takes seconds

        weights = [weight for weight in adapted.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
        steps = max(1, recipe.tokens // recipe.step_tokens)
        feed, read, losses = _endless(pieces, seed), 0, []
        adapted.train()
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, steps)
            taken: list[Piece] = []
            while read + sum(len(piece.ids) for piece in taken) < (step + 1) * recipe.step_tokens:
                taken.append(next(feed))
            read += sum(len(piece.ids) for piece in taken)
            measured = sum(piece.measured for piece in taken)
            total = 0.0
            for batch in _batches(taken):
                loss = self._losses(adapted, [taken[place] for place in batch]).sum() / max(1, measured)
                loss.backward()
                total += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(total)
            progress(step + 1, steps)
        adapted.eval()
        return read, losses

    def _measured(self, network: Any, rows: Sequence[Row], recipe: Recipe) -> Trained:
        import torch  # noqa: PLC0415 - takes seconds

        network.eval()
        pieces = [(number, piece) for number, row in enumerate(rows) for piece in self._pieces(row, recipe)]
        totals, counts = [0.0] * len(rows), [0] * len(rows)
        with torch.inference_mode():
            for batch in _batches([piece for _, piece in pieces]):
                sums = self._losses(network, [pieces[place][1] for place in batch]).tolist()
                for place, value in zip(batch, sums, strict=True):
                    number, piece = pieces[place]
                    totals[number] += value
                    counts[number] += piece.measured
        if 0 in counts:
            raise UsageError(f"A row that is kept back has no answer within {recipe.longest} tokens.")
        means = [total / count for total, count in zip(totals, counts, strict=True)]
        return Trained(losses=means, answer_tokens=counts)

    def _losses(self, network: Any, batch: Sequence[Piece]) -> Any:
        """Sums of the losses of each piece's answer, in single precision."""
        import torch  # noqa: PLC0415 - takes seconds

        longest = max(len(piece.ids) for piece in batch)
        ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        wanted = torch.full((len(batch), longest), NOT_MEASURED)
        for row, piece in enumerate(batch):
            ids[row, : len(piece.ids)] = torch.tensor(piece.ids)
            mask[row, : len(piece.ids)] = 1
            wanted[row, piece.asked : len(piece.ids)] = torch.tensor(piece.ids[piece.asked :])
        ids, mask, wanted = (on_device(tensor, network) for tensor in (ids, mask, wanted))
        logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        each = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), wanted[:, 1:], ignore_index=NOT_MEASURED, reduction="none"
        )
        return each.sum(-1)

    def _pieces(self, row: Row, recipe: Recipe) -> list[Piece]:
        """The turns of a row as tokens; those whose question alone is too long are left out."""
        found = [self._piece(turn, recipe.longest) for turn in row.turns]
        return [piece for piece in found if piece.measured > 0]

    def _piece(self, turn: Turn, longest: int) -> Piece:
        if self.tokenizer.chat_template is None:
            asked = self.tokenizer.encode(f"{turn.question}\n\n", add_special_tokens=False)
            said = self.tokenizer.encode(turn.answer, add_special_tokens=False)
            whole = [*asked, *said, self.tokenizer.eos_token_id]
        else:
            turns = [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
            how = {"tokenize": True, "return_dict": False}
            asked = self.tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, **how)
            whole = self.tokenizer.apply_chat_template(turns, **how)
        return Piece(whole[:longest], min(len(asked), longest))


def _endless(pieces: Sequence[Piece], seed: int) -> Iterator[Piece]:
    """The pieces in an order by lot, then in another one."""
    dice = random.Random(seed)  # noqa: S311 - an order of training rows, not a secret
    while True:
        yield from dice.sample(list(pieces), len(pieces))


def _batches(pieces: Sequence[Piece]) -> list[list[int]]:
    return plan_batches([len(piece.ids) for piece in pieces], BATCH_TOKENS, BATCH_ROWS)


def _schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate: up over the first tenth, then down in a straight line."""
    rise = max(1, steps // 10)
    return (step + 1) / rise if step < rise else (steps - step) / max(1, steps - rise)
