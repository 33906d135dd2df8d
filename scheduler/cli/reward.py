"""Commands about reward models: reward train, reward eval, reward card."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from db.errors import UsageError
from db.registry import read_registry
from db.settings import load_settings
from scheduler.cli.output import console, errors, is_live, print_json, table

if TYPE_CHECKING:
    from db.settings import Settings
    from scheduler.rewarding.crossfit import Progress
    from scheduler.rewarding.reading import Source

LATEST = 100_000  # stored preferences that are read
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[Path, typer.Argument(help="The folder of a reward model.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    reward = typer.Typer(help="Scorers that are trained on preferences.", no_args_is_help=True)
    reward.command("train")(train_command)
    reward.command("eval")(eval_command)
    reward.command("card")(card_command)
    app.add_typer(reward, name="reward")


def train_command(
    out: Annotated[Path, typer.Option("--out", help="The folder to write; must be new, or --resume.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Files of scored groups or of pairs; or names in BAKEOFF_EVAL_DATA.")
    ] = None,
    stored: Annotated[
        list[str] | None, typer.Option(help="Also this system's own preferences about a capability; repeatable.")
    ] = None,
    base: Annotated[str, typer.Option(help="An encoder or decoder of the registry.")] = "minilm-l6",
    mode: Annotated[
        Literal["head", "lora", "full"],
        typer.Option(help="What is tuned beside the counted half: nothing, LoRA, or blocks."),
    ] = "full",
    layers: Annotated[int, typer.Option(min=0, help="Upper blocks that `full` tunes; 0: all of them.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, max=1000, help="Default: by mode.")] = None,
    members: Annotated[
        int | None, typer.Option(min=1, max=16, help="Models that are averaged; default: by mode.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Peak learning rate of the body.")] = None,
    max_tokens: Annotated[int, typer.Option(min=8, help="Of a text; a longer one loses its middle.")] = 256,
    seed: Annotated[int, typer.Option(help="Of every die that is thrown.")] = 1,
    folds: Annotated[int, typer.Option(min=2, max=20, help="For the card's figures.")] = 5,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a reward model on preferences, measure it on groups that it did not see, and write folder and card.

    A training that was killed goes on with --resume, and comes to the same model on a CPU.
    """
    from scheduler.rewarding.crossfit import Plan
    from scheduler.rewarding.making import fingerprint, trained
    from worker.backends import Place
    from worker.reward.options import options_for
    from worker.weights import fetch

    if mode == "head":
        _refuse_tuning(epochs=epochs, members=members, rate=rate)
    settings = load_settings()
    sources = _sources(settings, files or [], stored or [])
    entry = read_registry(settings.registry_file).model(base)
    plan = Plan(
        base=entry,
        place=Place(
            weights=fetch(entry, settings.cache),
            device=settings.device,
            threads=settings.threads or os.cpu_count() or 1,
        ),
        options=options_for(mode, epochs=epochs, members=members, rate=rate, layers=layers, seed=seed),
        folds=folds,
        max_tokens=max_tokens,
        out=out,
        fingerprint=fingerprint(sources),
    )
    with _bar() as progress:
        card = trained(plan, sources, progress, resume=resume)
    if as_json:
        print_json({"folder": str(out), "card": card})
        return
    _print_figures(card["figures"])
    console.print(f"Written to {out}; its card is card.md. As a model of the registry:", soft_wrap=True)
    console.print(_entry(out, card), soft_wrap=True)


def _refuse_tuning(**given: float | None) -> None:
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"--{option} = {value}: --mode head tunes no network; leave it out, or name another mode.")


def eval_command(
    model: Model,
    file: Annotated[str, typer.Argument(help="A file of scored groups or of pairs; or a name in BAKEOFF_EVAL_DATA.")],
    as_json: AsJson = False,
) -> None:
    """Measure a reward model on other preferences: pairwise accuracy with its interval, beside longest and random."""
    from scheduler.rewarding.making import evaluated

    settings = load_settings()
    (source,) = _sources(settings, [file], [])
    device = "cpu" if settings.device == "auto" else settings.device
    found = evaluated(model, source, device=device)
    if as_json:
        print_json(found)
        return
    _print_figures(found)


def card_command(model: Model, as_json: AsJson = False) -> None:
    """Print what a reward model says of itself."""
    from worker.reward.artifact import CARD, CARD_TEXT, read_settings

    read_settings(model)
    if as_json:
        print_json(json.loads((model / CARD).read_text(encoding="utf-8")))
        return
    console.print((model / CARD_TEXT).read_text(encoding="utf-8"), soft_wrap=True)


def _sources(settings: Settings, files: list[str], stored: list[str]) -> list[Source]:
    from scheduler.evaluation.judges.rows import find_set
    from scheduler.rewarding.reading import read_source, stored_source

    if not files and not stored:
        raise UsageError("There is nothing to learn from: name a file, or a capability with --stored.")
    found = [read_source(find_set(name, settings.eval_data)) for name in files]
    if stored:
        from db.engine import engine_of, transaction
        from db.preferences import preferred_texts

        with transaction(engine_of(settings.dsn, "cli")) as connection:
            found += [stored_source(name, preferred_texts(connection, name, LATEST)) for name in stored]
    return found


class _bar:  # noqa: N801 - used as a function
    """A progress bar of several trainings, one line each; where none can be drawn, a line when one is through."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        loss = TextColumn("loss {task.fields[loss]:.3f}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), loss)
        self._live = is_live(errors)
        self._bars = Progress(*columns, console=errors, redirect_stdout=False, disable=not self._live)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def _report(self, name: str, done: int, steps: int, loss: float) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=steps, loss=loss)
        self._bars.update(self._tasks[name], completed=done, total=steps, loss=loss)
        if done >= steps and not self._live:
            errors.print(f"{name}: {done} of {steps} steps, loss {loss:.3f}", soft_wrap=True)


def _print_figures(found: dict[str, Any]) -> None:
    low, high = found["interval"]
    console.print(
        f"Pairwise accuracy {found['pairwise_accuracy']:.3f} [{low:.3f}, {high:.3f}] of {found['pairs']} pairs in "
        f"{found['groups']} groups.",
        soft_wrap=True,
    )
    out = table("against", "accuracy", "difference", "interval", wrap=())
    for name, one in found["against"].items():
        low, high = one["interval"]
        out.add_row(name, f"{one['accuracy']:.3f}", f"{one['difference']:+.3f}", f"[{low:+.3f}, {high:+.3f}]")
    console.print(out)
    if found["kept_human_score"] is not None:
        console.print(
            f"The best-rewarded 30 % of groups: mean human score {found['kept_human_score']:.3f} (random "
            f"{found['kept_random']:.3f}, longest {found['kept_longest']:.3f}, oracle {found['kept_oracle']:.3f}).",
            soft_wrap=True,
        )


def _entry(folder: Path, card: dict[str, Any]) -> str:
    """The table of models.toml that names the folder; the hash tells stored scores of this model from others'."""
    from worker.reward.artifact import WEIGHTS, digest
    from worker.reward.text import ANSWER_REWARD, QUESTION_REWARD

    capability = QUESTION_REWARD if card["for"] == "questions" else ANSWER_REWARD
    return (
        f'[models.{folder.name}]\ncapability = "{capability}"\nbackend = "reward"\nmax_batch = 64\n'
        f'deterministic = true\n\n[models.{folder.name}.source]\nfolder = "{folder}"\n'
        f'sha256 = {{ "{WEIGHTS}" = "{digest(folder / WEIGHTS)}" }}'
    )
