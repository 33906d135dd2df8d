"""The comparison: mean loss on the rows kept back per arm, and differences row by row, whichever way they fall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scheduler.evaluation.curation.arms import ALL, RANDOM
from scheduler.evaluation.judges.metrics import by_group, group_interval, mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scheduler.evaluation.curation.arms import Arm
    from scheduler.evaluation.curation.rows import InstructionSet
    from scheduler.evaluation.curation.runs import Run


def compared(
    instructions: InstructionSet, arms: Sequence[Arm], runs: Mapping[str, Sequence[Run]], untrained: Run
) -> dict[str, Any]:
    """Figures of one set. A loss is the mean over rows of the mean over an answer's tokens, in nats: lower is better.

    A difference is the arm's loss minus another's, row by row, seeds averaged first; its interval draws whole groups
    of rows, and says nothing of other seeds: those stand beside it.
    """
    groups = [row.group for row in instructions.held_out]
    losses = {name: _over_seeds(found) for name, found in runs.items()}
    figures = {}
    for arm in arms:
        found = runs[arm.name]
        one: dict[str, Any] = {
            "rows": [run.rows for run in found],
            "tokens": [run.trained.tokens for run in found],
            "steps": found[0].trained.steps,
            "passes": round(mean([run.trained.passes for run in found]), 2),
            "loss": round(mean(losses[arm.name]), 4),
            "loss_by_seed": {str(run.seed): round(mean(run.trained.losses), 4) for run in found},
            "loss_per_token": round(mean([_per_token(run) for run in found]), 4),
            "train_loss": round(mean([run.trained.train_loss or 0.0 for run in found]), 4),
            "seconds": round(sum(run.seconds for run in found), 1),
        }
        one |= {
            f"against_{other}": _difference(groups, found, runs[other])
            for other in (RANDOM, ALL)
            if other in runs and other != arm.name
        }
        if arm.note:
            one["note"] = arm.note
        figures[arm.name] = one
    return {
        "set": instructions.name,
        "train_rows": len(instructions.train),
        "held_out_rows": len(instructions.held_out),
        "held_out_groups": len(set(groups)),
        "unreadable": instructions.unreadable,
        "repeated": instructions.repeated,
        "untrained_loss": round(mean(untrained.trained.losses), 4),
        "untrained_loss_per_token": round(_per_token(untrained), 4),
        "arms": figures,
        "says": [_sentence(name, one) for name, one in figures.items() if f"against_{RANDOM}" in one],
    }


def _over_seeds(runs: Sequence[Run]) -> list[float]:
    """Per row, the mean over seeds."""
    return [mean(column) for column in zip(*(run.trained.losses for run in runs), strict=True)]


def _difference(groups: Sequence[str], runs: Sequence[Run], others: Sequence[Run]) -> dict[str, Any]:
    pairs = zip(_over_seeds(runs), _over_seeds(others), strict=True)
    off = [one - other for one, other in pairs]
    interval = group_interval(by_group(groups, off, [1.0] * len(off)))
    by_seed = {
        str(run.seed): round(mean(run.trained.losses) - mean(other.trained.losses), 4)
        for run, other in zip(runs, others, strict=True)
    }
    return {
        "difference": round(mean(off), 4),
        "interval": None if interval is None else [round(end, 4) for end in interval],
        "by_seed": by_seed,
        "rows_better": round(mean([float(one < 0) for one in off]), 3),
    }


def _per_token(run: Run) -> float:
    """The loss over all tokens alike: long answers count for more."""
    counts = run.trained.answer_tokens
    return sum(loss * count for loss, count in zip(run.trained.losses, counts, strict=True)) / sum(counts)


def _sentence(name: str, figures: Mapping[str, Any]) -> str:
    """What the comparison with random rows says, and what it cannot say."""
    found = figures[f"against_{RANDOM}"]
    seeds = list(found["by_seed"].values())
    if found["interval"] is None:
        return f"{name}: too few rows are kept back to say anything."
    low, high = found["interval"]
    said = f"{name} minus random: {found['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    if low <= 0 <= high:
        return f"{said}: within chance, nothing is shown."
    better = "better" if high < 0 else "worse"
    if len(seeds) < 2:
        return f"{said}: {better} on these rows; one seed says nothing of others."
    if min(seeds) < 0 < max(seeds):
        return f"{said}: {better} on these rows, but not with every seed."
    return f"{said}: {better}, with every seed."
