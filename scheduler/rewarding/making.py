"""`bakeoff reward train` and `bakeoff reward eval`: from groups to a folder with its card, from a folder to figures."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from db.errors import UsageError
from scheduler.rewarding.baselines import surface
from scheduler.rewarding.crossfit import base_states, begin, counted, crossfit, final, finish, frozen_head, new_scorer
from scheduler.rewarding.figures import accuracy, added, calibrated, figures, fitted_scale, hits, spread
from scheduler.rewarding.plots import Line, lines
from scheduler.rewarding.reading import all_groups, subject
from worker.judges.fitting import fold_of
from worker.reward.artifact import read_artifact, write_artifact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scheduler.rewarding.crossfit import Crossfit, Final, Plan, Progress
    from scheduler.rewarding.figures import Rewards
    from scheduler.rewarding.reading import Source
    from worker.reward.pairs import Group

FEWEST_PAIRS = 20
#: How far the tuned half may set the texts of a group apart where the counted half does by 1. Of .15, .3, .5, .75, 1
#: and 1.5, it was best for three trainings of other dice, on the very folds of published scores that the docs report.
TUNED = 0.3
SCORED_AT_ONCE = 256  # texts


def fingerprint(sources: Sequence[Source]) -> str:
    """A hash of all data."""
    return hashlib.sha256("\n".join(source.sha256 for source in sources).encode()).hexdigest()


def trained(plan: Plan, sources: Sequence[Source], progress: Progress, *, resume: bool = False) -> dict[str, Any]:
    """Train, measure, write the folder. Returns its card. Raises `UsageError` for a folder or data that will not do."""
    groups = all_groups(sources)
    pairs, useful = sum(len(group.pairs) for group in groups), sum(bool(group.pairs) for group in groups)
    folds = {fold_of(group.id, plan.folds) for group in groups if group.pairs}
    if pairs < FEWEST_PAIRS or useful < 2 * plan.folds or len(folds) < 2:
        raise UsageError(
            f"{pairs} pairs in {useful} groups are too few: a reward model needs {FEWEST_PAIRS} pairs in "
            f"{2 * plan.folds} groups at least (--folds {plan.folds})."
        )
    from worker.reward.counted import fit_counted  # noqa: PLC0415 - torch: only where something is trained
    from worker.reward.ensemble import Ensemble  # noqa: PLC0415

    begin(plan, resume=resume)
    started = time.monotonic()
    base = new_scorer(plan)
    states = base_states(base, groups, progress)
    others = {name: rewards for name, rewards in (("surface", surface(groups)),) if rewards is not None}
    others["frozen_head"] = frozen_head(plan, groups, states, progress)
    steady = counted(plan, groups, states)
    share = 1 / spread(steady)
    raw = added(steady, share, steady, 0.0)
    model = Ensemble(base=base, counted=fit_counted(groups, states), counted_scale=share)
    tuned = None if plan.options.mode == "head" else _tuned(plan, groups, progress)
    if tuned is not None:
        model.members, model.scale = tuned.kept.members, TUNED / spread(tuned.fitted.rewards)
        raw = added(raw, 1.0, tuned.fitted.rewards, model.scale)
    scale = fitted_scale(groups, raw)
    model.scale, model.counted_scale = scale * model.scale, scale * model.counted_scale
    card = _card(plan, sources, groups, (raw, scale), others) | {
        "parameters": sum(parameter.numel() for parameter in base.network.parameters()),
        "tuned": 0 if tuned is None else tuned.kept.tuned,
        "training": _training(plan, tuned) | {"seconds": round(time.monotonic() - started, 1)},
    }
    if tuned is not None:
        card["halves"] = {
            "tuned": accuracy(hits(groups, tuned.fitted.rewards)),
            "counted": accuracy(hits(groups, steady)),
        }
        _plots(plan.out, tuned)
    write_artifact(plan.out, model, plan.base.name, card)
    finish(plan)
    return card


@dataclass(frozen=True, kw_only=True)
class _Tuned:
    """The half that is tuned: on folds, and on everything."""

    fitted: Crossfit
    kept: Final


def _tuned(plan: Plan, groups: Sequence[Group], progress: Progress) -> _Tuned:
    fitted = crossfit(plan, groups, progress)
    return _Tuned(fitted=fitted, kept=final(plan, groups, fitted.epochs, progress))


def _training(plan: Plan, tuned: _Tuned | None) -> dict[str, Any]:
    said: dict[str, Any] = {"mode": plan.options.mode, "folds": plan.folds, "max_tokens": plan.max_tokens}
    if tuned is None:
        return said | {"members": 0, "seed": plan.options.seed}
    epochs = {"epochs_of_folds": tuned.fitted.epochs, "epochs_of_all": len(tuned.kept.histories[0])}
    return said | asdict(plan.options) | epochs


def _card(
    plan: Plan,
    sources: Sequence[Source],
    groups: Sequence[Group],
    scaled: tuple[Rewards, float],
    others: dict[str, Rewards],
) -> dict[str, Any]:
    """What a card says of any model. `scaled`: raw held-out rewards, and what makes them log odds."""
    raw, scale = scaled
    rewards = added(raw, scale, raw, 0.0)
    return {
        "for": subject(groups),
        "base": plan.base.name,
        "saw_image": False,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": [source.described() for source in sources],
        "split": f"{plan.folds} folds of whole groups by sha256 of their id; the figures are of groups that the model "
        "of their fold did not see, the model that is kept was then trained on all of them.",
        "figures": figures(groups, rewards, others),
        "calibration": {"scale": scale, **calibrated(groups, rewards)},
    }


def evaluated(folder: Path, source: Source, *, device: str = "cpu") -> dict[str, Any]:
    """Figures of a finished reward model on the groups of one file. Raises `WeightsError` where there is no model."""
    scorer = read_artifact(folder, device=device)
    groups = list(source.groups)
    texts = list(dict.fromkeys(text for group in groups for text in group.texts))
    found: dict[str, float] = {}
    for start in range(0, len(texts), SCORED_AT_ONCE):
        some = texts[start : start + SCORED_AT_ONCE]
        found.update(zip(some, scorer.score(some), strict=True))
    rewards = {group.id: [found[text] for text in group.texts] for group in groups}
    return {
        "model": str(folder),
        "file": source.name,
        **figures(groups, rewards, {}),
        "calibration": calibrated(groups, rewards),
    }


def _plots(folder: Path, tuned: _Tuned) -> None:
    fitted, kept = tuned.fitted, tuned.kept
    held_out = [[epoch.held_out_loss for epoch in own if epoch.held_out_loss is not None] for own in fitted.histories]
    drawn = [Line(label="folds", values=tuple(epoch.loss for epoch in own)) for own in fitted.histories]
    drawn += [Line(label="held out", values=tuple(own), colour="#c8682c") for own in held_out if own]
    drawn += [
        Line(label="all groups", values=tuple(epoch.loss for epoch in own), colour="#222222", strong=True)
        for own in kept.histories
    ]
    (folder / "loss.svg").write_text(lines("Loss", "-log sigmoid(better - worse)", drawn), encoding="utf-8")
    right = [
        Line(label="folds", values=tuple(values))
        for own in fitted.histories
        if (values := [e.held_out_accuracy for e in own if e.held_out_accuracy is not None])
    ]
    plot = lines("Accuracy on groups held out to stop by", "share of pairs", right)
    (folder / "accuracy.svg").write_text(plot, encoding="utf-8")
