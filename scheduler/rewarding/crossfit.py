"""One command's training: a model per fold for honest figures, then one on everything, which is kept.

What is finished is written into the folder's `checkpoint`, what is under way as well: a command that was killed goes on
from there and comes to the same model.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from db.errors import UsageError
from scheduler.evaluation.judges.metrics import mean
from worker.judges.fitting import fold_of
from worker.reward.artifact import is_artifact
from worker.reward.checkpoint import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from db.registry import ModelEntry
    from scheduler.rewarding.figures import Rewards
    from worker.backends import Place
    from worker.reward.model import Scorer
    from worker.reward.pairs import Group
    from worker.reward.training import Epoch, Options

    #: what is trained, steps done, steps in all, loss of the last step
    Progress = Callable[[str, int, int, float], None]

STOP = 10  # one group in so many is held out of a fold's training, to say when it should end
FEWEST = 40  # groups of a fold's training below which none is spared for that


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one command trains. `fingerprint` tells its data from others'."""

    base: ModelEntry
    place: Place
    options: Options
    folds: int
    max_tokens: int
    out: Path
    fingerprint: str

    @property
    def checkpoint(self) -> Path:
        """Where unfinished work lies."""
        return self.out / "checkpoint"

    def described(self) -> dict[str, Any]:
        """What must be the same for a training to go on."""
        return {
            "base": self.base.name,
            "data": self.fingerprint,
            "folds": self.folds,
            "max_tokens": self.max_tokens,
            "options": asdict(self.options),
        }


@dataclass(frozen=True, kw_only=True)
class Crossfit:
    """Held-out raw rewards of every group, each fold's history, and the epochs that its best numbers had seen."""

    rewards: Rewards
    histories: list[list[Epoch]]
    epochs: list[int]


def begin(plan: Plan, *, resume: bool) -> None:
    """Make the folder, or go on in it. Raises `UsageError` where it holds something else."""
    path = plan.checkpoint / "run.json"
    if is_artifact(plan.out):
        raise UsageError(f"--out = {str(plan.out)!r} holds a finished reward model; name another folder, or delete it.")
    if not path.is_file():
        if resume:
            raise UsageError(f"--resume: {plan.out} holds no unfinished training; leave it out to begin one.")
        if plan.out.is_dir() and any(plan.out.iterdir()):
            raise UsageError(f"--out = {str(plan.out)!r} is not empty; name another folder.")
        write_json(path, plan.described())
        return
    if not resume:
        raise UsageError(f"--out = {str(plan.out)!r} holds an unfinished training: --resume goes on, or delete it.")
    before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(plan.described()))
    changed = sorted(key for key in now if before.get(key) != now[key])
    if changed:
        raise UsageError(
            f"--resume: the training in {plan.out} was begun with another {' and '.join(changed)}; give the same, or "
            "name another folder."
        )


def finish(plan: Plan) -> None:
    """Delete what only an unfinished training needs."""
    shutil.rmtree(plan.checkpoint, ignore_errors=True)


def new_scorer(plan: Plan) -> Scorer:
    """The base with an empty head, in float32. Raises `WeightsError` where it is missing."""
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - torch: only where something is trained

    from worker.backends.transformers_head import load_preprocessor, load_pretrained  # noqa: PLC0415
    from worker.reward.model import Scorer, reading_for  # noqa: PLC0415

    exact = plan.base.model_copy(update={"dtype": "float32"})
    network, config = load_pretrained(AutoModel, exact, plan.place)
    tokenizer = load_preprocessor(AutoTokenizer, exact, plan.place)
    return Scorer(network, tokenizer, reading_for(config, plan.max_tokens))


def crossfit(plan: Plan, groups: Sequence[Group], progress: Progress) -> Crossfit:
    """A training per fold, each scored on the groups that it did not see."""
    return _crossfit(plan, groups, progress, "fold", plan.options)


def frozen_head(plan: Plan, groups: Sequence[Group], progress: Progress) -> Rewards:
    """Held-out rewards of a linear head on the frozen base, on the same folds."""
    from worker.reward.training import options_for  # noqa: PLC0415

    options = replace(options_for("head", seed=plan.options.seed), corrupt=0.0)
    return _crossfit(plan, groups, progress, "linear head, fold", options).rewards


def final(
    plan: Plan, groups: Sequence[Group], epochs: Sequence[int], progress: Progress
) -> tuple[Scorer, Sequence[Epoch]]:
    """A model of all groups, trained for as many epochs as were best on the folds."""
    from worker.reward.trainable import merged  # noqa: PLC0415
    from worker.reward.training import Training  # noqa: PLC0415

    scorer = new_scorer(plan)
    training = Training(
        scorer,
        groups,
        [],
        plan.options,
        part="all",
        stop_after=max(1, round(median(epochs))) if epochs else None,
        checkpoint=plan.checkpoint / "all.safetensors",
    )
    trained = training.run(lambda done, steps, loss: progress("all groups", done, steps, loss))
    merged(scorer)
    return scorer, trained.history


def _crossfit(plan: Plan, groups: Sequence[Group], progress: Progress, name: str, options: Options) -> Crossfit:
    from worker.reward.training import Epoch  # noqa: PLC0415

    rewards: Rewards = {}
    histories, epochs = [], []
    states: dict[str, Any] = {}
    for fold in range(plan.folds):
        path = plan.checkpoint / f"{name.replace(', ', '-').replace(' ', '-')}-{fold}.json"
        if not path.is_file():
            write_json(path, _fold(plan, groups, progress, f"{name} {fold + 1} of {plan.folds}", fold, options, states))
        done = json.loads(path.read_text(encoding="utf-8"))
        rewards |= done["rewards"]
        histories.append([Epoch(**epoch) for epoch in done["history"]])
        epochs.append(int(done["epochs"]))
    return Crossfit(rewards=rewards, histories=histories, epochs=epochs)


def _fold(
    plan: Plan,
    groups: Sequence[Group],
    progress: Progress,
    name: str,
    fold: int,
    options: Options,
    states: dict[str, Any],
) -> dict[str, Any]:
    from worker.reward.training import Training  # noqa: PLC0415

    mine = [group for group in groups if fold_of(group.id, plan.folds) == fold]
    rest = [group for group in groups if fold_of(group.id, plan.folds) != fold]
    stop = [group for group in rest if fold_of(f"stop {group.id}", STOP) == 0] if len(rest) >= FEWEST else []
    held = {group.id for group in stop}
    training = Training(
        new_scorer(plan),
        [group for group in rest if group.id not in held],
        stop,
        options,
        part=name,
        checkpoint=plan.checkpoint / f"{options.mode}-{fold}.safetensors",
        states=states,
    )
    trained = training.run(lambda done, steps, loss: progress(name, done, steps, loss))
    found = training.score(mine)
    # Only differences mean something: without this, folds would differ by a constant that groups are compared across.
    centre = mean([value for own in found for value in own])
    (plan.checkpoint / f"{options.mode}-{fold}.safetensors").unlink(missing_ok=True)
    return {
        "rewards": {group.id: [value - centre for value in own] for group, own in zip(mine, found, strict=True)},
        "history": [asdict(epoch) for epoch in trained.history],
        "epochs": trained.epochs,
    }
