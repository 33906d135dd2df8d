"""The arms: the product's own selectors, taught by the fit rows alone, against random and the best single models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

from db.errors import InvalidRequest
from db.registry import ModelEntry
from scheduler.evaluation.running import plain_name
from scheduler.evaluation.selectors.measure import Tally, expected_at_random, outcome
from scheduler.evaluation.selectors.rows import Row, Rows, split
from scheduler.selectors import Chosen, History, Situation, choose, enough
from scheduler.selectors.adaptive import first_to_reach, predicted
from scheduler.selectors.run_log import Entry, RunLog
from scheduler.selectors.strength import fit_strengths, games_of

CAPABILITY = "text-generation"
MOST = 5  # k
RANDOM, BEST_SINGLE, ADAPTIVE = "random", "best_single", "adaptive"

#: arm → the selectors that it names.
SELECTING: dict[str, tuple[str, ...]] = {
    "track_record": ("track_record",),
    "nearest": ("nearest",),
    "explore": ("explore",),
    "track_record+nearest": ("track_record", "nearest"),
    "nearest+explore": ("nearest", "explore"),
}
ADAPTS = ("nearest",)  # what `adaptive` takes the first of
TARGETS = tuple(place / 1000 for place in range(800, 1001))


@dataclass(frozen=True, kw_only=True)
class Taught:
    """Models as registry entries, and what the fit rows taught about them."""

    entries: tuple[ModelEntry, ...]
    names: Mapping[str, str]  # of entries → as the file writes them
    history: History
    best_first: tuple[str, ...]  # by mean score on the fit rows

    def choose(self, selectors: Sequence[str], k: int, text: str, seed: int) -> tuple[list[Chosen], Situation]:
        """What these selectors choose for an input, and the situation that they saw."""
        situation = Situation(capability=CAPABILITY, text=text, seed=seed, history=self.history)
        return choose(selectors, k, self.entries, situation), situation

    def written(self, chosen: Sequence[Chosen]) -> list[str]:
        """The chosen models as the file writes them."""
        return [self.names[one.model.name] for one in chosen]


def teach(fit: Sequence[Row], models: Sequence[str]) -> Taught:
    """What fit rows say: every row is a verdict that ranked all of the models, and an entry of the run log."""
    plain = {model: plain_name(model) for model in models}
    if len(set(plain.values())) < len(plain):
        plain = {model: f"{place}-{name}" for place, (model, name) in enumerate(plain.items())}
    scores = [score for row in fit for score in row.scores.values()]
    low, high = min(scores), max(scores)
    scale = (high - low) or 1.0
    wins: dict[tuple[str, str], float] = defaultdict(float)
    entries = []
    for row in fit:
        for pair, weight in games_of(_groups(row, plain)).items():
            wins[pair] += weight
        entries.append(
            Entry(text=row.text, scores={plain[model]: (score - low) / scale for model, score in row.scores.items()})
        )
    return Taught(
        entries=tuple(ModelEntry(name=plain[model], capability=CAPABILITY, backend="replay") for model in models),
        names={name: model for model, name in plain.items()},
        history=History(strengths=fit_strengths(wins), log=RunLog(entries)),
        best_first=tuple(sorted(models, key=lambda model: -sum(row.scores[model] for row in fit))),
    )


def _groups(row: Row, plain: Mapping[str, str]) -> list[list[str]]:
    groups: dict[float, list[str]] = defaultdict(list)
    for model, score in row.scores.items():
        groups[score].append(plain[model])
    return [groups[score] for score in sorted(groups, reverse=True)]


def run_arms(data: Rows, seeds: Sequence[int], target: float | None, keep: float) -> tuple[Tally, list[float]]:
    """Let every arm choose for the test rows of each split.

    `target` is that of `adaptive`; None: the lowest that keeps `keep` of the score on the fit rows. Returns the
    outcomes and the targets.
    """
    tally, targets = Tally(), []
    for seed in seeds:
        fit, test = split(data.rows, seed)
        taught = teach(fit, data.models)
        aim = fitted_target(fit, data.models, seed, keep) if target is None else target
        targets.append(aim)
        for number, row in enumerate(test):
            _add_baselines(tally, taught, row)
            for arm, k, chosen in _choices(taught, row, 1000 * seed + number, aim):
                tally.add(arm, k, row.id, outcome(row, chosen))
    return tally, targets


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What went through the real queue: the models that answered an input, or the winner alone, as the file writes
    them."""

    arm: str
    k: int
    row: str
    models: Sequence[str]


def tally_of(data: Rows, seed: int, picks: Iterable[Pick]) -> Tally:
    """The same measure for choices that were made elsewhere, beside random and best single.

    Raises `InvalidRequest` for a pick whose input is not one of the split's test rows, or names no model.
    """
    fit, test = split(data.rows, seed)
    taught, rows = teach(fit, data.models), {row.id: row for row in test}
    tally, seen = Tally(), set()
    for pick in picks:
        if pick.row not in rows or not pick.models or not set(pick.models) <= set(data.models):
            raise InvalidRequest(
                f"{pick.arm}, k = {pick.k}: row {pick.row!r} with the models {list(pick.models)} is no test row of "
                f"seed {seed} with models of the file."
            )
        if pick.row not in seen:
            seen.add(pick.row)
            _add_baselines(tally, taught, rows[pick.row])
        tally.add(pick.arm, pick.k, pick.row, outcome(rows[pick.row], pick.models))
    return tally


def _add_baselines(tally: Tally, taught: Taught, row: Row) -> None:
    for k in range(1, most_of(taught.entries) + 1):
        tally.add(RANDOM, k, row.id, expected_at_random(row, k))
        tally.add(BEST_SINGLE, k, row.id, outcome(row, taught.best_first[:k]))


def most_of(models: Sized) -> int:
    """The largest k."""
    return min(MOST, len(models))


def _choices(taught: Taught, row: Row, seed: int, target: float) -> Iterator[tuple[str, int, Sequence[str]]]:
    most = most_of(taught.entries)
    for arm, selectors in SELECTING.items():
        chosen, _ = taught.choose(selectors, most, row.text, seed)
        for k in range(1, most + 1):
            yield arm, k, taught.written(chosen[:k])
    chosen, situation = taught.choose(ADAPTS, most, row.text, seed)
    yield ADAPTIVE, most, taught.written(chosen[: enough(chosen, situation, target)])


def fitted_target(fit: Sequence[Row], models: Sequence[str], seed: int, keep: float) -> float:
    """The lowest target that keeps this share of the largest k's score within the fit rows: one half teaches, and the
    other is asked, then the other way round."""
    halves = split(fit, seed)
    kept: dict[float, float] = dict.fromkeys(TARGETS, 0.0)
    whole = 0.0
    for teaching, asked in (halves, halves[::-1]):
        taught = teach(teaching, models)
        for row in asked:
            chosen, situation = taught.choose(ADAPTS, most_of(models), row.text, 0)
            whole += outcome(row, taught.written(chosen)).score
            for target, score in _scores_by_target(taught, row, chosen, situation):
                kept[target] += score
    return next((target for target in TARGETS if kept[target] >= keep * whole), TARGETS[-1])


def _scores_by_target(
    taught: Taught, row: Row, chosen: Sequence[Chosen], situation: Situation
) -> Iterator[tuple[float, float]]:
    by_size = [outcome(row, taught.written(chosen[:size])).score for size in range(1, len(chosen) + 1)]
    chances = predicted(chosen, situation)
    for target in TARGETS:
        yield target, by_size[(first_to_reach(chances, target) or len(chosen)) - 1]
