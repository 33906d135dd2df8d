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

    import torch

    from db.registry import ModelEntry
    from scheduler.rewarding.figures import Rewards
    from worker.backends import Place
    from worker.reward.model import Scorer
    from worker.reward.options import Options
    from worker.reward.pairs import Group
    from worker.reward.training import Epoch, Report, Training

    #: what is trained, steps done, steps in all, loss of the last step
    Progress = Callable[[str, int, int, float], None]

STOP = 10  # one group in so many is held out of a fold's training, to say when it should end
AT_ONCE = 256  # texts
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
    """Held-out raw rewards of every group, the history of each fold's members, and the epochs that their best numbers
    had seen."""

    rewards: Rewards
    histories: list[list[Epoch]]
    epochs: list[int]


@dataclass(frozen=True, kw_only=True)
class Final:
    """The model that is kept, its members' histories, and how many numbers of a member were tuned."""

    members: tuple[Scorer, ...]
    histories: list[list[Epoch]]
    tuned: int


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
    return _crossfit(plan, groups, progress, "fold", plan.options, {})


def base_states(base: Scorer, groups: Sequence[Group], progress: Progress) -> dict[str, torch.Tensor]:
    """States of the frozen base's last two layers, by rendered text."""
    import torch  # noqa: PLC0415

    texts = list(dict.fromkeys(text for group in groups for text in group.texts))
    found: dict[str, torch.Tensor] = {}
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        with torch.inference_mode():
            states = base.layers([base.tokens(text)[0] for text in some]).cpu()
        found.update(zip(some, states, strict=True))
        progress("states of the base", len(found), len(texts), 0.0)
    return found


def counted(plan: Plan, groups: Sequence[Group], states: dict[str, torch.Tensor]) -> Rewards:
    """Held-out rewards of the steady half, on the same folds."""
    import torch  # noqa: PLC0415

    from worker.reward.counted import fit_counted  # noqa: PLC0415

    rewards: Rewards = {}
    for fold in range(plan.folds):
        fitted = fit_counted([group for group in groups if fold_of(group.id, plan.folds) != fold], states)
        for group in groups:
            if fold_of(group.id, plan.folds) == fold:
                own = torch.stack([states[text] for text in group.texts])
                rewards[group.id] = fitted.scores(group.texts, own).double().tolist()
    return rewards


def frozen_head(plan: Plan, groups: Sequence[Group], states: dict[str, torch.Tensor], progress: Progress) -> Rewards:
    """Held-out rewards of a linear head on the frozen base, whose states are known, on the same folds."""
    from worker.reward.options import options_for  # noqa: PLC0415

    options = replace(options_for("head", seed=plan.options.seed), corrupt=0.0)
    last = {text: own[-1] for text, own in states.items()}
    return _crossfit(plan, groups, progress, "linear head, fold", options, last).rewards


def final(plan: Plan, groups: Sequence[Group], epochs: Sequence[int], progress: Progress) -> Final:
    """A model of all groups, trained for as many epochs as were best on the folds."""
    from worker.reward.trainable import merged  # noqa: PLC0415

    members, histories, tuned = [], [], 0
    stop_after = round(median(epochs))
    for member in range(plan.options.members):
        training = _training(plan, groups, [], "all groups", member, plan.options, stop_after=stop_after)
        trained = training.run(_reporting(progress, "all groups", member, plan.options))
        tuned = sum(parameter.numel() for parameter in training.tuned.parameters)
        merged(training.scorer)
        members.append(training.scorer)
        histories.append(list(trained.history))
    return Final(members=tuple(members), histories=histories, tuned=tuned)


def _crossfit(
    plan: Plan,
    groups: Sequence[Group],
    progress: Progress,
    name: str,
    options: Options,
    states: dict[str, torch.Tensor],
) -> Crossfit:
    from worker.reward.training import Epoch  # noqa: PLC0415

    rewards: Rewards = {}
    histories, epochs = [], []
    for fold in range(plan.folds):
        said = f"{name} {fold + 1} of {plan.folds}"
        mine = [group for group in groups if fold_of(group.id, plan.folds) == fold]
        rest = [group for group in groups if fold_of(group.id, plan.folds) != fold]
        parts = []
        for member in range(options.members):
            path = plan.checkpoint / f"{_file(said, member)}.json"
            if not path.is_file():
                write_json(path, _fold(plan, mine, rest, progress, said, member, options, states))
            parts.append(json.loads(path.read_text(encoding="utf-8")))
        for group in mine:
            rewards[group.id] = [mean(own) for own in zip(*(part["rewards"][group.id] for part in parts), strict=True)]
        histories += [[Epoch(**epoch) for epoch in part["history"]] for part in parts]
        epochs += [int(part["epochs"]) for part in parts]
    return Crossfit(rewards=rewards, histories=histories, epochs=epochs)


def _fold(
    plan: Plan,
    mine: Sequence[Group],
    rest: Sequence[Group],
    progress: Progress,
    name: str,
    member: int,
    options: Options,
    states: dict[str, Any],
) -> dict[str, Any]:
    """Train one member on a fold's groups, and score those that are left out."""
    many = len(rest) >= FEWEST and options.epochs > 1
    spared = {group.id for group in rest if fold_of(f"stop {group.id}", STOP) == 0} if many else set()
    # One epoch leaves nothing to choose: its plot may show the groups that are scored in the end.
    stop = mine if options.epochs == 1 else [group for group in rest if group.id in spared]
    others = [group for group in rest if group.id not in spared]
    training = _training(plan, others, stop, name, member, options, states=states)
    trained = training.run(_reporting(progress, name, member, options))
    found = training.score(mine)
    # Only differences mean something: without this, folds would differ by a constant that groups are compared across.
    centre = mean([value for own in found for value in own])
    if training.checkpoint is not None:
        training.checkpoint.unlink(missing_ok=True)
    return {
        "rewards": {group.id: [value - centre for value in own] for group, own in zip(mine, found, strict=True)},
        "history": [asdict(epoch) for epoch in trained.history],
        "epochs": trained.epochs,
    }


def _training(
    plan: Plan,
    groups: Sequence[Group],
    stop: Sequence[Group],
    name: str,
    member: int,
    options: Options,
    *,
    stop_after: int | None = None,
    states: dict[str, Any] | None = None,
) -> Training:
    from worker.reward.training import Training  # noqa: PLC0415

    return Training(
        new_scorer(plan),
        groups,
        stop,
        options,
        part=f"{name}, member {member}",
        stop_after=stop_after,
        checkpoint=plan.checkpoint / f"{_file(name, member)}.safetensors",
        states=states,
    )


def _reporting(progress: Progress, name: str, member: int, options: Options) -> Report:
    said = name if options.members == 1 else f"{name}, model {member + 1} of {options.members}"
    return lambda done, steps, loss: progress(said, done, steps, loss)


def _file(name: str, member: int) -> str:
    return f"{'-'.join(name.replace(',', '').split())}-{member}"
