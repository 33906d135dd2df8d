"""How a reward model is fitted: -log sigmoid(r_better - r_worse) over the pairs of a group, and of a text and its
corrupted copy (Bradley-Terry). Every step's dice follow from seed, part and step alone."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from worker.reward.checkpoint import read_checkpoint, write_checkpoint
from worker.reward.corruption import corrupted
from worker.reward.pairs import margins, right
from worker.reward.trainable import Tuned, tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from worker.reward.model import Scorer
    from worker.reward.options import Options
    from worker.reward.pairs import Group

    #: steps done, steps in all, loss of the last one
    Report = Callable[[int, int, float], None]

STEP_TEXTS = 56  # texts of one step, its groups whole: eight groups of seven
CLIP = 1.0  # the largest norm of a gradient


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to; held-out figures are None where no group was held out."""

    loss: float
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None


@dataclass(kw_only=True)
class _Progress:
    """Where a training stands: what a checkpoint keeps beside tensors."""

    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps of the present epoch
    history: list[Epoch] = field(default_factory=list)
    best: int | None = None  # place in the history

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> _Progress:
        return cls(**state | {"history": [Epoch(**epoch) for epoch in state["history"]]})


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The history of a training, and how many epochs the numbers that were kept had seen."""

    history: tuple[Epoch, ...]
    epochs: int


class Training:
    """One training of one scorer. `part` names it among others of the same command, and its dice.

    `stop_after`: end after so many epochs, with the rates of a training of `options.epochs`.
    """

    def __init__(
        self,
        scorer: Scorer,
        groups: Sequence[Group],
        held_out: Sequence[Group],
        options: Options,
        *,
        part: str,
        stop_after: int | None = None,
        checkpoint: Path | None = None,
        states: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.scorer = scorer
        self.options = options
        self.part = part
        self.groups = [group for group in groups if group.pairs]
        self.held_out = [group for group in held_out if group.pairs]
        self.epochs = options.epochs if stop_after is None else min(stop_after, options.epochs)
        self.checkpoint = checkpoint
        self._seed(-1)
        self.tuned: Tuned = tuned(scorer, options, {} if states is None else states)
        self.optimizer = torch.optim.AdamW(self.tuned.rates(options), betas=(0.9, 0.999), eps=1e-8)
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self._best: list[torch.Tensor] = []
        self._at = _Progress()
        self._resume()

    def run(self, report: Report) -> Trained:
        """Train to the end. The scorer then holds the best epoch's numbers, or the last one's without held-out
        groups."""
        steps = len(self._batches(0))
        while (epoch := len(self._at.history)) < self.epochs and not self._over():
            batches = self._batches(epoch)
            for place in range(len(self._at.losses), len(batches)):
                self._at.losses.append(self._step(batches[place], epoch, steps * self.options.epochs))
                self._at.step += 1
                report(self._at.step, steps * self.epochs, self._at.losses[-1])
                if self._at.step % self.options.checkpoint_steps == 0:
                    self._save()
            self._end_epoch()
            self._save()
        if self._best:
            self._load(self._best)
        self.scorer.network.eval()
        best = len(self._at.history) if self._at.best is None else self._at.best + 1
        return Trained(history=tuple(self._at.history), epochs=best)

    def score(self, groups: Sequence[Group]) -> list[list[float]]:
        """Unscaled scores of the texts of each group, as the scorer stands."""
        self.tuned.eval()
        with torch.no_grad():
            return [self.tuned.scores(group.texts, 0.0).double().tolist() for group in groups]

    def _over(self) -> bool:
        best = self._at.best
        return best is not None and len(self._at.history) - 1 - best >= self.options.patience

    def _batches(self, epoch: int) -> list[list[Group]]:
        """Whole groups, shuffled, about `STEP_TEXTS` texts together."""
        order = sorted(self.groups, key=lambda group: group.id)
        self._dice(epoch).shuffle(order)
        batches: list[list[Group]] = [[]]
        for group in order:
            if batches[-1] and sum(len(one.texts) for one in batches[-1]) + len(group.texts) > STEP_TEXTS:
                batches.append([])
            batches[-1].append(group)
        return batches

    def _step(self, groups: Sequence[Group], epoch: int, steps: int) -> float:
        self._seed(self._at.step)
        for peak, group in zip(self._peaks, self.optimizer.param_groups, strict=True):
            group["lr"] = peak * self._share(self._at.step, steps)
        texts: list[str] = []
        pairs: list[tuple[int, int]] = []
        for one in groups:
            pairs += [(len(texts) + better, len(texts) + worse) for better, worse in one.pairs]
            own = list(one.texts)
            for place, copy in self._copies(one, epoch):
                pairs.append((len(texts) + place, len(texts) + len(own)))
                own.append(copy)
            texts += own
        self.tuned.train()
        scores = self.tuned.scores(texts, self.options.dropout)
        loss = self._loss(scores, pairs)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.tuned.parameters, CLIP)
        self.optimizer.step()
        return float(loss.detach())

    def _copies(self, group: Group, epoch: int) -> Iterator[tuple[int, str]]:
        dice = self._dice(epoch, group.id)
        for place, text in enumerate(group.texts):
            if dice.random() < self.options.corrupt and (copy := corrupted(text, dice)) is not None:
                yield place, copy

    def _loss(self, scores: torch.Tensor, pairs: Sequence[tuple[int, int]]) -> torch.Tensor:
        better, worse = torch.tensor(pairs, device=scores.device).T
        return -torch.nn.functional.logsigmoid(scores[better] - scores[worse]).mean()

    def _share(self, step: int, steps: int) -> float:
        """Of the peak rate: up over the first steps, then down in a line."""
        warm = int(self.options.warm * steps)
        return (step + 1) / (warm + 1) if step < warm else max(0.02, (steps - step) / (steps - warm))

    def _end_epoch(self) -> None:
        loss = sum(self._at.losses) / len(self._at.losses)
        self._at.losses = []
        if not self.held_out:
            self._at.history.append(Epoch(loss=loss))
            return
        found = self.score(self.held_out)
        ahead = list(chain.from_iterable(margins(group, own) for group, own in zip(self.held_out, found, strict=True)))
        held = sum(math.log1p(math.exp(-abs(value))) + max(0.0, -value) for value in ahead) / len(ahead)
        hits = sum(map(right, ahead)) / len(ahead)
        self._at.history.append(Epoch(loss=loss, held_out_loss=held, held_out_accuracy=hits))
        losses = [epoch.held_out_loss or math.inf for epoch in self._at.history]
        if held <= min(losses):
            self._at.best = len(losses) - 1
            self._best = [parameter.detach().clone() for parameter in self.tuned.parameters]

    # --- dice, and what a killed training goes on from

    def _dice(self, *of: object) -> random.Random:
        return random.Random(" ".join(map(str, (self.options.seed, self.part, *of))))  # noqa: S311 - no secret

    def _seed(self, step: int) -> None:
        torch.manual_seed(self._dice("step", step).getrandbits(48))

    def _load(self, values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.tuned.parameters, values, strict=True):
                parameter.copy_(value)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        tensors: dict[str, torch.Tensor] = {}
        for place, parameter in enumerate(self.tuned.parameters):
            tensors[f"now.{place}"] = parameter
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{place}.{name}"] = value
            if self._best:
                tensors[f"best.{place}"] = self._best[place]
        write_checkpoint(self.checkpoint, tensors, self._at.to_json())

    def _resume(self) -> None:
        found = None if self.checkpoint is None else read_checkpoint(self.checkpoint)
        if found is None:
            return
        tensors, state = found
        self._at = _Progress.from_json(state)
        places = range(len(self.tuned.parameters))
        self._load([tensors[f"now.{place}"] for place in places])
        if "best.0" in tensors:
            self._best = [
                tensors[f"best.{place}"].to(parameter.device) for place, parameter in enumerate(self.tuned.parameters)
            ]
        for place, parameter in enumerate(self.tuned.parameters):
            own = f"adam.{place}."
            moments = {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}
            if moments:
                self.optimizer.state[parameter] = {
                    name: value if name == "step" else value.to(parameter.device) for name, value in moments.items()
                }
