"""Commands about own annotation: annotate SET, annotate load, next, score, skip, undo, status, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from typer.core import TyperGroup

from db.annotations import SetOfGroups, add_groups, annotated, contests_done, find_set, set_names
from db.engine import engine_of, transaction
from db.errors import InvalidRequest, NotFound
from db.settings import load_settings
from scheduler.annotating.blind import Scores, Shown, next_group, skip_group, store_scores, undo
from scheduler.annotating.criteria import Criteria, read_criteria
from scheduler.annotating.exporting import exported
from scheduler.annotating.groups import groups_of, read_groups, twice
from scheduler.annotating.standing import standing
from scheduler.cli.output import console, harmless, print_json, table
from scheduler.cli.prefer import lines_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

SESSION = "session"  # the command that a set's name stands for
HELP = "numbers: scores · Enter: as shown · u: back, or undo · s: skip the group · ?: the criteria · q: leave"

SetName = Annotated[str, typer.Argument(help="A set that `bakeoff annotate load` made.")]
Annotator = Annotated[str, typer.Option(help="Who you are; the same every time.")]
Group = Annotated[UUID, typer.Option(help="A group's id, as `next` prints it.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the pictures, to print their whole paths.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class SetOrCommand(TyperGroup):
    """What is none of its commands is the name of a set: `bakeoff annotate SET` begins a session."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click."""
        named = bool(args) and args[0] not in self.commands and not args[0].startswith("-")
        return super().resolve_command(ctx, [SESSION, *args] if named else args)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    annotate = typer.Typer(
        cls=SetOrCommand,
        help="Score items blind, by named criteria: `bakeoff annotate SET --annotator ID`, or one of:",
        no_args_is_help=True,
    )
    annotate.command(SESSION, hidden=True)(session_command)
    annotate.command("load")(load_command)
    annotate.command("next")(next_command)
    annotate.command("score")(score_command)
    annotate.command("skip")(skip_command)
    annotate.command("undo")(undo_command)
    annotate.command("status")(status_command)
    annotate.command("export")(export_command)
    app.add_typer(annotate, name="annotate")


def load_command(
    name: Annotated[str, typer.Option(help="Of the set; groups that it has already are passed over.")],
    file: Annotated[
        Path | None, typer.Argument(help="Groups as JSON lines (- reads standard input).", allow_dash=True)
    ] = None,
    from_verdicts: Annotated[
        str | None, typer.Option(help="Instead of a file: candidates of this capability's subtasks that are done.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Subtasks at most, the latest.")] = 1000,
    share_twice: Annotated[
        float, typer.Option("--twice", min=0, max=1, help="Share of the groups that two annotators score.")
    ] = 0.2,
    criteria: Annotated[Path | None, typer.Option(help="A criteria file of your own; default: criteria-1.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a set of groups to score, or add to one.

    A line is {"id", "image", "questions": ["...", ...]}, or {"id", "instruction", "answers": [...]}.
    """
    if name in {"load", "next", "score", "skip", "undo", "status", "export", SESSION} or name.startswith("-"):
        raise InvalidRequest(f"--name = {name!r} is a command of `bakeoff annotate`; choose another name.")
    if not 1 <= len(name) <= 100:
        raise InvalidRequest(f"--name = {name[:40]!r} has {len(name)} characters; it takes 1 to 100.")
    if (file is None) == (from_verdicts is None):
        raise InvalidRequest("Give either a FILE of groups or --from-verdicts CAPABILITY.")
    by = read_criteria(criteria)
    groups = [] if file is None else read_groups(lines_of(file))
    with _database() as connection:
        if from_verdicts is not None:
            groups = groups_of(contests_done(connection, from_verdicts, limit))
            if not groups:
                raise NotFound(f"No subtask of {from_verdicts!r} is done with two different outputs.")
        groups = twice(groups, share_twice)
        new = add_groups(connection, name, by.model_dump(mode="json"), groups)
    found = {"set": name, "criteria": by.version, "new": new, "known": len(groups) - new}
    if as_json:
        print_json(found)
        return
    console.print(
        f"{name}: {new} new group(s), {len(groups) - new} there already; {by.version}. "
        f"`bakeoff annotate {name} --annotator YOU` begins.",
        soft_wrap=True,
    )


def next_command(name: SetName, annotator: Annotator, images: Images = None, as_json: AsJson = False) -> None:
    """Show the next group of an annotator: the same one until it is scored, skipped or a day old."""
    with _set(name) as (connection, to_score):
        shown = next_group(connection, to_score, annotator)
    if as_json:
        print_json({"group": None} if shown is None else {**asdict(shown), "criteria": to_score.criteria})
    elif shown is None:
        console.print(f"Nothing in {name} waits for {annotator}.", soft_wrap=True)
    else:
        _show(shown, images)


def score_command(
    name: SetName,
    annotator: Annotator,
    group: Group,
    scores: Annotated[
        str, typer.Option(help="A JSON list in the order shown: an object of scores by criterion per item, or null.")
    ],
    as_json: AsJson = False,
) -> None:
    """Store an annotator's scores of a group; null for an item leaves the group open."""
    try:
        read = json.loads(scores)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"--scores is not JSON ({error}).") from None
    if not isinstance(read, list):
        raise InvalidRequest("--scores is not a list, one object per item in the order shown.")
    with _set(name) as (connection, to_score):
        finished = store_scores(connection, to_score, annotator, group, read)
    _say({"group": group, "finished": finished}, "Stored." if finished else "Stored; items are left.", as_json=as_json)


def skip_command(name: SetName, annotator: Annotator, group: Group, as_json: AsJson = False) -> None:
    """Leave a group to somebody else: this annotator cannot say."""
    with _set(name) as (connection, to_score):
        skip_group(connection, to_score, annotator, group)
    _say({"group": group, "skipped": True}, "Left to somebody else.", as_json=as_json)


def undo_command(name: SetName, annotator: Annotator, as_json: AsJson = False) -> None:
    """Open the group again that an annotator finished last; `next` shows it with its scores."""
    with _set(name) as (connection, to_score):
        shown = undo(connection, to_score, annotator)
    _say({"group": shown.group}, "The last group is open again.", as_json=as_json)


def status_command(
    name: Annotated[str | None, typer.Argument(help="A set; default: the names of all.")] = None,
    as_json: AsJson = False,
) -> None:
    """How far a set is, who did what, and how well annotators agree (Krippendorff's alpha, 95 % interval)."""
    with _database() as connection:
        if name is None:
            names = set_names(connection)
            _say({"sets": names}, "\n".join(names) or "No sets yet: `bakeoff annotate load`.", as_json=as_json)
            return
        found = standing(connection, find_set(connection, name))
    if as_json:
        print_json(found)
        return
    console.print(
        f"{name}: {found['finished_groups']} of {found['groups']} groups finished, {found['annotations_done']} of "
        f"{found['annotations_wanted']} annotations; {found['groups_scored_twice']} of "
        f"{found['groups_wanted_twice']} scored twice.",
        soft_wrap=True,
    )
    people = table("annotator", "done", "open", "skipped", "lapsed", wrap=("annotator",))
    for one in found["annotators"]:
        people.add_row(harmless(one["annotator"]), *(str(one[key]) for key in ("done", "open", "skipped", "lapsed")))
    console.print(people)
    out = table("criterion", "alpha", "95 % interval", "items", wrap=())
    for criterion, one in {**found["alpha"], "overall": found["alpha_overall"]}.items():
        alpha = "" if one["alpha"] is None else f"{one['alpha']:.3f}"
        interval = "" if one["interval"] is None else "{:.3f} to {:.3f}".format(*one["interval"])
        out.add_row(criterion, alpha, interval, str(one["units"]))
    console.print(out)


def export_command(
    name: SetName,
    out: Annotated[Path, typer.Option(help="The file to write, JSON lines.")],
    as_json: AsJson = False,
) -> None:
    """Write what is scored in the paper's format, for `bakeoff reward train`: means over criteria and annotators."""
    with _set(name) as (connection, to_score):
        rows = list(exported(annotated(connection, to_score.id), to_score.criteria["version"]))
    if not rows:
        raise NotFound(f"Nothing in {name!r} is scored yet.")
    try:
        out.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"Cannot write {out}: {error.strerror}.") from None
    items = sum(len(row["score"]) for row in rows)
    _say({"groups": len(rows), "items": items}, f"{len(rows)} groups, {items} items: {out}", as_json=as_json)


def session_command(name: SetName, annotator: Annotator, images: Images = None) -> None:
    """Score one group after the other, until you leave or nothing is left."""
    with _set(name) as (_, to_score):
        criteria = Criteria.model_validate(to_score.criteria)
    _show_criteria(criteria)
    while True:
        with _set(name) as (connection, to_score):
            shown = next_group(connection, to_score, annotator)
        if shown is None:
            console.print(f"Nothing in {name} waits for {annotator}. `bakeoff annotate status {name}`", soft_wrap=True)
            return
        _show(shown, images)
        if not _score_group(shown, criteria, name, annotator):
            console.print("Left. The same command goes on where you were.")
            return


def _score_group(shown: Shown, criteria: Criteria, name: str, annotator: str) -> bool:
    """Ask for every item's scores, storing each at once; False where the annotator leaves."""
    scores = list(shown.scores)
    place = next((place for place, one in enumerate(scores) if one is None), 0)
    while place < len(scores):
        said = _asked(place, scores[place], criteria)
        if said == "q":
            return False
        if said == "?":
            _show_criteria(criteria)
        elif said == "u" and place > 0:
            place -= 1
        elif said == "u":
            return _undone(name, annotator)
        elif said == "s":
            with _set(name) as (connection, to_score):
                skip_group(connection, to_score, annotator, shown.group)
            return True
        elif isinstance(said, dict):
            scores[place] = said
            if place == len(scores) - 1 or None in scores:  # a group that was undone is stored when it is gone through
                with _set(name) as (connection, to_score):
                    store_scores(connection, to_score, annotator, shown.group, scores)
            place += 1
    return True


def _undone(name: str, annotator: str) -> bool:
    try:
        with _set(name) as (connection, to_score):
            undo(connection, to_score, annotator)
    except NotFound as error:
        console.print(harmless(str(error)), soft_wrap=True)
    return True


def _asked(place: int, before: Scores | None, criteria: Criteria) -> Scores | str:
    """One line of an annotator: scores, or one of `HELP`'s letters."""
    hint = "" if before is None else f" [{' '.join(f'{before[name]:g}' for name in criteria.names)}]"
    while True:
        try:
            said = console.input(f"{_letter(place)} ({' '.join(criteria.names)}){hint}: ").strip().lower()
        except EOFError:
            return "q"
        if said in {"q", "u", "s", "?"}:
            return said
        if not said and before is not None:
            return before
        numbers = said.replace(",", " ").split()
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = []
        if len(values) == len(criteria.names) and all(0 <= value <= 1 for value in values):
            return dict(zip(criteria.names, values, strict=True))
        console.print(f"{len(criteria.names)} numbers from 0 to 1, as in `{' '.join(['.5'] * len(criteria.names))}`.")
        console.print(HELP)


def _show(shown: Shown, images: Path | None) -> None:
    """The input, then the items, lettered; nothing says who made them."""
    console.rule()
    if image := shown.input.get("image"):
        console.print(f"picture: {harmless(str(images / image if images else image))}", soft_wrap=True)
    for file in shown.input.get("attachments", []):
        console.print(f"file: {harmless(file.get('name') or file['sha256'])}", soft_wrap=True)
    captions = shown.input.get("captions") or []
    for line in [captions] if isinstance(captions, str) else captions:
        console.print(f"caption: {harmless(line)}")
    if shown.input.get("text"):
        console.print(harmless(shown.input["text"]))
    console.print()
    for place, texts in enumerate(shown.items):
        console.print(f"{_letter(place)}  " + harmless("\n   ".join(texts)))
    console.print()


def _show_criteria(criteria: Criteria) -> None:
    out = table("criterion", "asks", "0", "1", wrap=("asks", "0", "1"))
    for one in criteria.criteria:
        out.add_row(one.name, one.asks, one.low, one.high)
    console.print(out)
    console.print(HELP)


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _say(found: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        console.print(harmless(sentence), soft_wrap=True)


@contextmanager
def _database() -> Iterator[Connection]:
    with transaction(engine_of(load_settings().dsn, "cli")) as connection:
        yield connection


@contextmanager
def _set(name: str) -> Iterator[tuple[Connection, SetOfGroups]]:
    """A short transaction, and the set in it: none is held while a person thinks."""
    with _database() as connection:
        yield connection, find_set(connection, name)
