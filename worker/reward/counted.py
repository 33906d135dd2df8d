"""The steady half of a reward model: one linear map over the frozen base's states, the words and the form of a text.

It has no dice and is convex. It is fitted by the same loss, -log sigmoid(better - worse), with a penalty on its
weights; a pair counts by the difference of its people's scores where there are any.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from worker.reward.surface import form_of
from worker.reward.text import parted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.reward.pairs import Group

WORD = re.compile(r"[\w']+|\?")
SEEN = 3  # texts that a word or pair of words must stand in
MOST_GRAMS = 20_000
PENALTY = 60.0  # in pairs of the mean weight; 60 to 150 did best on folds of published scores
STEPS = 60
NEVER = 1e-6  # a deviation of a feature that is rounding alone
FARTHEST = 5.0  # deviations from the mean that a feature may count: what was rare in training would be worth anything


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A fitted map. `grams` are words and pairs of words by place; states are those of the base's last two layers.

    `form` names features of `worker.reward.surface` in the order of their means, scales and weights.
    """

    grams: dict[str, int]
    rarity: torch.Tensor
    gram_weights: torch.Tensor
    means: torch.Tensor  # (layers, width)
    layer_weights: torch.Tensor
    form: tuple[str, ...]
    form_means: torch.Tensor
    form_scales: torch.Tensor
    form_weights: torch.Tensor

    def scores(self, texts: Sequence[str], states: torch.Tensor) -> torch.Tensor:
        """Unscaled scores of rendered texts, given their states (texts, layers, width)."""
        words = torch.sparse.mm(_sparse(texts, self.grams, self.rarity), self.gram_weights[:, None])[:, 0]
        form = _standard(texts, self.form, self.form_means, self.form_scales) @ self.form_weights
        return words + form + _flat(states, self.means) @ self.layer_weights.flatten()


def fit_counted(groups: Sequence[Group], states: dict[str, torch.Tensor]) -> Counted:
    """Fit on the pairs of groups; `states` by rendered text, each (layers, width)."""
    texts = list(dict.fromkeys(text for group in groups for text in group.texts))
    place = {text: number for number, text in enumerate(texts)}
    grams, rarity = _vocabulary(texts)
    dense = torch.stack([states[text] for text in texts]).float()
    means = dense.mean(0)
    names = tuple(sorted(form_of("")))
    form_means, form_scales = _scales(texts, names)
    flat = torch.cat([_flat(dense, means), _standard(texts, names, form_means, form_scales)], dim=1)
    sparse = _sparse(texts, grams, rarity)
    pairs = torch.tensor([(place[g.texts[b]], place[g.texts[w]]) for g in groups for b, w in g.pairs])
    share = torch.tensor([g.scores[b] - g.scores[w] if g.scores else 1.0 for g in groups for b, w in g.pairs])
    share = share / share.mean()
    found = torch.zeros(flat.shape[1] + len(grams), requires_grad=True)
    solver = torch.optim.LBFGS([found], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        scores = flat @ found[: flat.shape[1]] + torch.sparse.mm(sparse, found[flat.shape[1] :, None])[:, 0]
        ahead = scores[pairs[:, 0]] - scores[pairs[:, 1]]
        value = (share * torch.nn.functional.softplus(-ahead)).sum() + 0.5 * PENALTY * (found * found).sum()
        value.backward()
        return value

    solver.step(loss)
    layers, form, words = found.detach().split([means.numel(), len(names), len(grams)])
    return Counted(
        grams=grams,
        rarity=rarity,
        gram_weights=words.clone(),
        means=means,
        layer_weights=layers.reshape(means.shape).clone(),
        form=names,
        form_means=form_means,
        form_scales=form_scales,
        form_weights=form.clone(),
    )


def _vocabulary(texts: Sequence[str]) -> tuple[dict[str, int], torch.Tensor]:
    seen = Counter(gram for text in texts for gram in set(_grams(text)))
    kept = sorted((gram for gram, count in seen.items() if count >= SEEN), key=lambda gram: (-seen[gram], gram))
    kept = kept[:MOST_GRAMS] or ["?"]
    rarity = torch.tensor([math.log((1 + len(texts)) / (1 + seen[gram])) for gram in kept])
    return {gram: number for number, gram in enumerate(kept)}, rarity


def _grams(text: str) -> list[str]:
    words = WORD.findall(parted(text)[1].casefold())
    return [*words, *(f"{one} {other}" for one, other in pairwise(words))]


def _sparse(texts: Sequence[str], grams: dict[str, int], rarity: torch.Tensor) -> torch.Tensor:
    """Known words and pairs of words of each text, weighed by rarity, of length 1 in all."""
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        counts = {grams[gram]: count for gram, count in Counter(_grams(text)).items() if gram in grams}
        own = {column: (1 + math.log(count)) * float(rarity[column]) for column, count in counts.items()}
        length = math.sqrt(sum(value * value for value in own.values())) or 1.0
        rows += [row] * len(own)
        columns += list(own)
        values += [value / length for value in own.values()]
    places = torch.tensor([rows, columns], dtype=torch.long).reshape(2, -1)
    return torch.sparse_coo_tensor(
        places, torch.tensor(values), (len(texts), len(grams)), check_invariants=False
    ).coalesce()


def _form(texts: Sequence[str], names: Sequence[str]) -> torch.Tensor:
    rows = map(form_of, texts)
    return torch.tensor([[row[name] for name in names] for row in rows]).reshape(len(texts), len(names))


def _scales(texts: Sequence[str], names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each feature of the answers; what never differs is infinitely wide, and so counts 0."""
    answers = [text for text in texts if parted(text)[0]]
    if not answers:
        return torch.zeros(len(names)), torch.full((len(names),), math.inf)
    rows = _form(answers, names)
    deviation = rows.std(0, correction=0)
    return rows.mean(0), torch.where(deviation > NEVER, deviation, math.inf)


def _standard(texts: Sequence[str], names: Sequence[str], means: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Standardised features of answers. An item alone has none: on folds of published questions they cost accuracy."""
    answers = torch.tensor([bool(parted(text)[0]) for text in texts])
    return ((_form(texts, names) - means) / scales).clamp(-FARTHEST, FARTHEST) * answers[:, None]


def _flat(states: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Each layer's states around their mean, of length 1; the layers side by side."""
    return torch.nn.functional.normalize(states.float() - means, dim=-1).flatten(1)
