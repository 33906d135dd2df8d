"""What a run shows: every arm's share of right answers against the best single models, and where it comes from."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.judges.metrics import mean, paired_interval
from scheduler.evaluation.pipeline.arms import BEST_SINGLE, DOWNLOADS, JUDGED, best_by, picks_of
from scheduler.evaluation.pipeline.items import ANSWER, OPERATIONS, STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.registry import Registry
    from scheduler.evaluation.pipeline.arms import ItemRun, Outcome, Picks


def halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Two halves of so many items, drawn from the seed: each is what the other is tested by."""
    order = list(range(count))
    Random(f"halves {seed}").shuffle(order)  # noqa: S311 - not cryptography
    return sorted(order[: count // 2]), sorted(order[count // 2 :])


def most_downloaded(registry: Registry, models: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], str]:
    """The model of each step with the most downloads, and a word on where that comes from."""
    figures = {
        name: downloads
        for names in models.values()
        for name in names
        if isinstance(downloads := registry.models[name].metadata.get("downloads"), int)
    }
    known = [step for step, names in models.items() if any(name in figures for name in names)]
    chosen = {step: max(names, key=lambda name: figures.get(name, -1)) for step, names in models.items()}
    unknown = [step for step in models if step not in known]
    note = "by downloads" if not unknown else f"no downloads known for {', '.join(unknown)}: first of the registry"
    return chosen, note


def all_picks(
    arms: Sequence[str],
    runs: Sequence[ItemRun],
    models: Mapping[str, Sequence[str]],
    downloads: Mapping[str, str],
    seed: int,
) -> dict[str, list[Picks]]:
    """Whose answers each arm takes for each item. Best single models of an item are those of the other half."""
    fit: dict[int, dict[str, str]] = {}
    for here, there in (parts := halves(len(runs), seed), parts[::-1]):
        best = best_by([runs[place] for place in there], models)
        fit.update(dict.fromkeys(here, best))
    found: dict[str, list[Picks]] = {}
    for arm in arms:
        random = Random(f"{arm} {seed}")  # noqa: S311 - not cryptography
        fixed = [downloads if arm == DOWNLOADS else fit[place] for place in range(len(runs))]
        found[arm] = [picks_of(arm, run, fixed[place], random) for place, run in enumerate(runs)]
    return found


def arm_figures(outcomes: Mapping[str, Sequence[Outcome]], runs: Sequence[ItemRun]) -> dict[str, dict[str, Any]]:
    """Of each arm: the share that is right, the paired difference to the best single models, what an item costs."""
    found = {}
    for arm, ended in outcomes.items():
        figures: dict[str, Any] = {
            "right": mean([float(one.right) for one in ended]),
            "n": len(ended),
            "calls": mean([one.calls for one in ended]),
            "seconds": mean([one.seconds for one in ended]),
            "by_operation": {
                operation: mean([float(one.right) for one, run in zip(ended, runs, strict=True)
                                 if run.item.operation == operation])
                for operation in OPERATIONS
            },
        }  # fmt: skip
        if arm != BEST_SINGLE and BEST_SINGLE in outcomes:
            differences = [
                float(one.right) - float(other.right) for one, other in zip(ended, outcomes[BEST_SINGLE], strict=True)
            ]
            figures |= {"difference": mean(differences), "interval": list(paired_interval(differences))}
        found[arm] = figures
    return found


def step_figures(runs: Sequence[ItemRun], models: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Of each step: how often each model is right, the verdict's winner, and any of them.

    The answers are those to what the winners before them said.
    """
    found = {}
    for step in STEPS:
        right = [run.right_models(step) for run in runs]
        winners = [run.steps[step].winner for run in runs]
        found[step] = {
            "models": {model: mean([float(model in names) for names in right]) for model in models[step]},
            JUDGED: mean([float(winner in names) for winner, names in zip(winners, right, strict=True)]),
            "any": mean([float(bool(names)) for names in right]),
        }
    return found


def planner_figures(runs: Sequence[ItemRun], stories: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the planner's plans of the first items did, beside the given plans of the same items."""
    ended = [_final_text(story) for story in stories]
    same = runs[: len(stories)]
    return {
        "n": len(stories),
        "right_plans": mean([float(_shape(story) == RIGHT_SHAPE) for story in stories]),
        "right": mean([float(run.item.is_right(ANSWER, text)) for run, text in zip(same, ended, strict=True)]),
        "right_by_given_plans": mean(
            [float(run.item.is_right(ANSWER, run.text(ANSWER, run.steps[ANSWER].winner))) for run in same]
        ),
        "refused": sum(not story["subtasks"] for story in stories),
        "plans": [
            [f"{step['capability']}({', '.join(step['needs'])})" for step in story["subtasks"]] for story in stories
        ],
    }


#: Each step's capability with those of the steps that it reads.
RIGHT_SHAPE = sorted(
    (capability, sorted(other for other in STEPS.values() if other != capability) if name == ANSWER else [])
    for name, capability in STEPS.items()
)


def _shape(story: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    capabilities = {step["name"]: step["capability"] for step in story["subtasks"]}
    return sorted(
        (step["capability"], sorted(capabilities[name] for name in step["needs"])) for step in story["subtasks"]
    )


def _final_text(story: Mapping[str, Any]) -> str | None:
    """What the last steps say: those whose results no other step reads."""
    needed = {name for step in story["subtasks"] for name in step["needs"]}
    said = []
    for step in story["subtasks"]:
        winner = (step["verdict"] or {}).get("winner")
        if step["name"] not in needed and winner is not None:
            said += [one["output"] for one in step["candidates"] if one["model"] == winner]
    return "\n".join(said) or None
