"""A judge fitted on preferences: which of two answers is better, from the difference of their features.

The chance that a is better than b is 1 / (1 + exp(w · (b - a))): a logistic model without intercept, so that it says
the same in either order, which over many answers is a Bradley-Terry model with covariates. Weights have a normal prior
around 0 (L2); how strong it is, and the temperature that calibrates the chances, are read off predictions for groups
that the weights did not see. What is kept is plain numbers; numpy is needed to fit, not to judge.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

from db.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDS = 5
PRIORS = (1.0, 3.0, 10.0, 100.0, 1000.0)  # tried, in units of one pair
#: How much stronger the prior is on features whose name begins so. Whose answer it is, votes, and what a language model
#: says are a few numbers each; the others, an answer's form and its likeness to each other answer, are dozens.
STRICTER = {"by:": 1.0, "votes": 1.0, "majority": 1.0, "alone": 1.0, "nll": 3.0, "explained": 3.0, "choice": 3.0,
            "llm_": 3.0}  # fmt: skip
#: How strict with the others: two models are fitted and averaged, one that hears them and one that hardly does, which
#: is steadier than to choose between the two on few groups.
OTHERS = (10.0, 1000.0)
RIDGE = 0.4  # the prior on weights that foretell strengths, in units of a pair
STEPS = 30
FEWEST_PAIRS = 20
BINS = 5
Features = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Example:
    """The answers to one question: features and score of each. `group` is what the question is about."""

    group: str
    features: tuple[Features, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A fitted model: weight per feature, already divided by its scale. `temperature` is part of the weights."""

    weights: Mapping[str, float]

    def strength(self, features: Mapping[str, float]) -> float:
        """How good an answer is, in log odds against another of its question."""
        return sum(self.weights.get(name, 0.0) * value for name, value in features.items())


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Weights, and how well their kind did on held-out groups: strengths per example, in the examples' order, by the
    weights of `by_fold`, each fitted without its fold."""

    weights: Weights
    by_fold: tuple[Weights, ...]
    held_out: tuple[tuple[float, ...], ...]
    card: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Differences better minus worse: `rows` (pairs x features), a weight per pair, the fold of its group."""

    rows: Any
    weights: Any
    folds: Any


def fold_of(group: str, folds: int = FOLDS) -> int:
    """The fold of a group, the same on every machine."""
    return int(hashlib.sha256(f"fold {group}".encode()).hexdigest()[:8], 16) % folds


def fit(examples: Sequence[Example], *, guarded: bool = True) -> Fit:
    """Fit on preferences between answers of one question. Raises `UsageError` where there are too few.

    Guarded, whose answer it is counts alone where all else does not choose better on held-out groups.
    """
    everything = _fit(examples)
    by_model = [
        replace(one, features=tuple({n: v for n, v in row.items() if n.startswith("by:")} for row in one.features))
        for one in examples
    ]
    if not guarded or not any(row for one in by_model for row in one.features):
        return everything
    alone = _fit(by_model)
    gain = sum(
        example.scores[_best(mine)] - example.scores[_best(theirs)]
        for example, mine, theirs in zip(examples, everything.held_out, alone.held_out, strict=True)
    ) / len(examples)
    chosen = everything if gain > 0 else alone
    return replace(chosen, card=chosen.card | {"gain_over_models_alone": gain})


def _fit(examples: Sequence[Example]) -> Fit:
    import numpy as np

    names = sorted({name for example in examples for row in example.features for name in row})
    pairs = _pairs(examples, names)
    if len(pairs.rows) < FEWEST_PAIRS or len(set(pairs.folds.tolist())) < FOLDS:
        raise UsageError(
            f"{len(pairs.rows)} preferences over {len({example.group for example in examples})} groups are too few to "
            f"fit on; {FEWEST_PAIRS} over a dozen groups are the least."
        )
    scale = np.sqrt((pairs.rows**2).mean(axis=0))
    scale[scale < 1e-9] = np.inf  # a feature that never differs has no weight
    scaled = _Pairs(rows=pairs.rows / scale, weights=pairs.weights, folds=pairs.folds)
    known = any(name.startswith("by:") for name in names)  # without names nothing but form and agreement is left
    found = [_fitted(scaled, _strictness(names, others)) for others in (OTHERS if known else OTHERS[:1])]
    margins = sum(one.margins for one in found) / len(found)
    temperature = _temperature(margins, scaled.weights)
    scale = scale * len(found) / temperature
    weights = sum(one.weights for one in found) / scale
    by_fold = tuple(_named(names, sum(rows) / scale) for rows in zip(*(one.by_fold for one in found), strict=True))
    return Fit(
        weights=_named(names, weights),
        by_fold=by_fold,
        held_out=_strengths(examples, by_fold),
        card={"priors": [one.prior for one in found], "temperature": temperature, "pairs": len(pairs.rows)}
        | calibration([float(value) * temperature for value in margins], [example.group for example in examples]),
    )


def foretell(examples: Sequence[Example], informed: Sequence[Example], said: Fit) -> Fit:
    """Weights whose strengths come closest to those that a better informed judge gives the same answers.

    `informed` are the examples as that judge knows them, `said` is its fit. Its strengths carry less noise than labels
    do. What is held out of its fit stays held out: neither it nor these weights saw the labels of an example's fold.
    """
    import numpy as np

    names = sorted({name for example in examples for row in example.features for name in row})
    place = {name: column for column, name in enumerate(names)}
    differences = [_differences(_table(example, place)) for example in examples]
    rows = np.concatenate(differences)
    folds = np.repeat([fold_of(example.group) for example in examples], [len(own) for own in differences])
    scale = np.sqrt((rows**2).mean(axis=0))
    scale[scale < 1e-9] = np.inf

    def solved(weights: Weights, used: Any) -> Weights:
        strengths = [np.array([[weights.strength(row)] for row in example.features]) for example in informed]
        wanted = np.concatenate([_differences(own) for own in strengths])[used, 0]
        scaled = rows[used] / scale
        curvature = scaled.T @ scaled + RIDGE * len(scaled) * np.eye(len(names))
        return _named(names, np.linalg.solve(curvature, scaled.T @ wanted) / scale)

    by_fold = tuple(solved(weights, folds != fold) for fold, weights in enumerate(said.by_fold))
    held_out = _strengths(examples, by_fold)
    return Fit(
        weights=solved(said.weights, folds >= 0),
        by_fold=by_fold,
        held_out=held_out,
        card={"pairs": len(rows)} | _calibrated(examples, held_out),
    )


def _differences(table: Any) -> Any:
    """Every row less every later one."""
    import numpy as np

    first, second = np.triu_indices(len(table), 1)
    return table[first] - table[second]


def _named(names: Sequence[str], weights: Any) -> Weights:
    return Weights(weights={name: float(value) for name, value in zip(names, weights, strict=True) if value})


def _calibrated(examples: Sequence[Example], strengths: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The calibration of strengths by the pairs of answers with different scores."""
    margins, groups = [], []
    for example, own in zip(examples, strengths, strict=True):
        for better, worse in permutations(range(len(own)), 2):
            if example.scores[better] > example.scores[worse]:
                margins.append(own[better] - own[worse])
                groups.append(example.group)
    return calibration(margins, groups)


def _best(strengths: Sequence[float]) -> int:
    return max(range(len(strengths)), key=lambda place: strengths[place])


@dataclass(frozen=True, kw_only=True)
class _One:
    """One fit: its prior, weights, each pair's margin without its fold, and the weights fitted without each fold."""

    prior: float
    weights: Any
    margins: Any
    by_fold: list[Any]


def _strictness(names: Sequence[str], others: float) -> Any:
    import numpy as np

    return np.array([next((value for start, value in STRICTER.items() if n.startswith(start)), others) for n in names])


def _fitted(pairs: _Pairs, stricter: Any) -> _One:
    """Fit with the prior that predicts held-out groups best."""
    tried = {prior: _held_out(pairs, prior * stricter) for prior in PRIORS}
    prior = min(PRIORS, key=lambda value: _loss(tried[value][0], pairs.weights))
    margins, by_fold = tried[prior]
    weights = _solve(pairs.rows, pairs.weights, prior * stricter)
    return _One(prior=prior, weights=weights, margins=margins, by_fold=by_fold)


def _pairs(examples: Sequence[Example], names: Sequence[str]) -> _Pairs:
    """Every pair of answers with different scores, weighed by the difference: a large one costs more to get wrong."""
    import numpy as np

    place = {name: column for column, name in enumerate(names)}
    rows, weights, folds = [], [], []
    for example in examples:
        table = _table(example, place)
        spread = [(i, j, a - b) for i, a in enumerate(example.scores) for j, b in enumerate(example.scores) if a > b]
        for better, worse, difference in spread:
            rows.append(table[better] - table[worse])
            weights.append(difference)
            folds.append(fold_of(example.group))
    table, weight = np.array(rows).reshape(len(rows), len(names)), np.array(weights, dtype=float)
    if len(weight):
        weight = weight / weight.mean()
    return _Pairs(rows=table, weights=weight, folds=np.array(folds, dtype=int))


def _table(example: Example, place: Mapping[str, int]) -> Any:
    import numpy as np

    table = np.zeros((len(example.features), len(place)))
    for row, features in enumerate(example.features):
        for name, value in features.items():
            table[row, place[name]] = value
    return table


def _solve(rows: Any, weights: Any, prior: Any) -> Any:
    """The weights that make every better answer likely (Newton's method)."""
    import numpy as np

    found = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        chances = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        gradient = rows.T @ (weights * (1 - chances)) - prior * found
        curvature = (rows * (weights * chances * (1 - chances))[:, None]).T @ rows + np.diag(prior)
        step = np.linalg.solve(curvature, gradient)
        found = found + step
        if float(np.abs(step).max()) < 1e-6:
            break
    return found


def _held_out(pairs: _Pairs, prior: Any) -> tuple[Any, list[Any]]:
    """Each pair's margin by weights fitted without its fold, and those weights per fold."""
    import numpy as np

    margins, found = np.zeros(len(pairs.rows)), []
    for fold in range(FOLDS):
        left_out = pairs.folds == fold
        found.append(_solve(pairs.rows[~left_out], pairs.weights[~left_out], prior))
        margins[left_out] = pairs.rows[left_out] @ found[-1]
    return margins, found


def _loss(margins: Any, weights: Any) -> float:
    import numpy as np

    return float((weights * np.logaddexp(0, -margins)).mean())


def _temperature(margins: Any, weights: Any) -> float:
    """What the margins must be multiplied with to be log odds; never 0, never sharper than three times."""
    import numpy as np

    tried = np.geomspace(0.05, 3.0, 60)
    return float(min(tried, key=lambda value: _loss(margins * value, weights)))


def _strengths(examples: Sequence[Example], by_fold: Sequence[Weights]) -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(by_fold[fold_of(example.group)].strength(row) for row in example.features) for example in examples
    )


def chance(margin: float) -> float:
    """The probability that a difference in log odds stands for."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, margin))))


def calibration(margins: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    """How far held-out chances can be believed: share of pairs right with its interval, Brier score, reliability.

    `margins` are the log odds given to the answer that was better. A bin holds pairs by the chance of their favourite:
    how sure the model was on average, and how often it was right.
    """
    chances = [chance(margin) for margin in margins]
    count = max(1, len(chances))
    right = sum((value > 0.5) + 0.5 * (value == 0.5) for value in chances) / count
    # Pairs of one group are not independent: its size is what an interval may count on at least.
    error = math.sqrt(max(right * (1 - right), 1e-9) / max(1, min(count, len(set(groups)))))
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for value in chances:
        sure = max(value, 1 - value)
        bins[min(BINS - 1, int((sure - 0.5) * 2 * BINS))].append((sure, value > 0.5))
    return {
        "accuracy": right,
        "accuracy_interval": [max(0.0, right - 1.96 * error), min(1.0, right + 1.96 * error)],
        "brier": sum((1 - value) ** 2 for value in chances) / count,
        "reliability": [
            {
                "pairs": len(held),
                "sure": sum(sure for sure, _ in held) / len(held),
                "right": sum(hit for _, hit in held) / len(held),
            }
            for held in bins
            if held
        ],
    }
