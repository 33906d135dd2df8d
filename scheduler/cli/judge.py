"""Commands about judges: judge fit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.errors import UsageError
from db.registry import read_registry
from db.settings import load_settings
from scheduler.cli.output import console, print_json, table

if TYPE_CHECKING:
    from db.settings import Settings
    from scheduler.evaluation.judges.teaching import Lesson

LATEST = 20_000  # preferences of one capability: more teach dozens of weights nothing


def register(app: typer.Typer) -> None:
    """Add the commands."""
    judge = typer.Typer(help="Judges that learn.", no_args_is_help=True)
    judge.callback()(lambda: None)  # so that a group of one command stays a group
    judge.command("fit")(fit_command)
    app.add_typer(judge, name="judge")


def fit_command(
    folder: Annotated[Path, typer.Argument(help="Where jury.json is written: the judge's param `artifact`.")],
    judge: Annotated[
        str, typer.Option(help="The judge whose params and language model are meant: of the registry, or a method.")
    ] = "jury",
    judge_model: Annotated[
        str | None, typer.Option(help="The language model of its jurors, from the registry; `none` for none.")
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option("--capability", "-c", help="Repeatable; default: all that have preferences.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--from", help="Fit on a set of answers with scores instead; its rows to report stay unseen."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit a jury on stored preferences, per capability, and say how well it does on groups that it did not see.

    A capability with too few preferences is left to the documented prior, and named.
    """
    from scheduler.evaluation.judges.evaluation import asking, judge_entry
    from scheduler.evaluation.judges.teaching import card_line, taught
    from worker.judges import create_judge
    from worker.judges.artifact import Artifact, write_artifact
    from worker.judges.jury import Jury

    settings = load_settings()
    entry = judge_entry(read_registry(settings.registry_file), judge, judge_model)
    entry = entry.model_copy(update={"params": {k: v for k, v in entry.params.items() if k != "artifact"}})
    lessons, data = _lessons_of_file(settings, file) if file else _lessons_stored(settings, capability or [])
    fitted, left_out = {}, {}
    with asking(settings, entry) as model:
        jury = create_judge(entry, model)
        if not isinstance(jury, Jury):
            raise UsageError(f"--judge = {judge!r}: its method {entry.method!r} learns nothing; jury and cascade do.")
        for name, own in lessons.items():
            try:
                fitted[name] = taught(jury, own)
            except UsageError as error:
                left_out[name] = str(error)
    if not fitted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "there are no preferences"
        raise UsageError(f"Nothing was fitted: {reasons}.".replace("..", "."))
    made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "judge": entry.name, "method": entry.method}
    path = write_artifact(folder, Artifact(capabilities=fitted, data=data | made))
    cards = [card_line(name, one) for name, one in fitted.items()]
    if as_json:
        print_json({"file": str(path), "data": data | made, "capabilities": cards, "left_out": left_out})
        return
    _print(path, cards, left_out)


def _lessons_of_file(settings: Settings, name: str) -> tuple[dict[str, list[Lesson]], dict[str, Any]]:
    from scheduler.evaluation.judges.rows import find_set, read_set
    from scheduler.evaluation.judges.teaching import lessons_of_set

    found = read_set(find_set(name, settings.eval_data))
    data = {"source": found.name, "split": "fit and tune rows, 70 % of groups by sha256; accuracy by 5 folds of them"}
    return {found.kind.capability: lessons_of_set(found)}, data


def _lessons_stored(settings: Settings, wanted: list[str]) -> tuple[dict[str, list[Lesson]], dict[str, Any]]:
    from db.engine import engine_of, transaction
    from db.preferences import capabilities_with_preferences, preferred_texts
    from scheduler.evaluation.judges.teaching import lessons_of_preferences

    known = settings.registry.capabilities
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        stored = capabilities_with_preferences(connection)
        missing = [name for name in wanted if name not in stored]
        if missing:
            there = ", ".join(stored) or "none"
            raise UsageError(f"--capability = {missing[0]!r} has no preferences; capabilities that have: {there}.")
        texts = {name: preferred_texts(connection, name, LATEST) for name in wanted or stored}
    lessons = {
        name: lessons_of_preferences(own, name, known[name].instruction if name in known else "")
        for name, own in texts.items()
    }
    counts = {name: len(own) for name, own in texts.items()}
    return lessons, {"source": "preferences", "preferences": counts, "split": "accuracy by 5 folds of groups"}


def _print(path: Path, cards: list[dict[str, Any]], left_out: dict[str, str]) -> None:
    out = table("capability", "groups", "pairs", "held-out accuracy", "Brier", "asks below", wrap=())
    for card in cards:
        low, high = card["accuracy_interval"]
        out.add_row(
            card["capability"],
            str(card["groups"]),
            str(card["pairs"]),
            f"{card['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
            f"{card['brier']:.3f}",
            f"{card['threshold']:.2f}" if card["language_model"] else "",
        )
    console.print(out)
    for name, reason in left_out.items():
        console.print(f"{name} keeps the prior: {reason}", soft_wrap=True)
    named = f'params = {{ artifact = "{path.parent}" }}'
    console.print(f"Written to {path}. A judge of the registry reads it by {named}.", soft_wrap=True)
