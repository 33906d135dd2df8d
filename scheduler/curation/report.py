"""The report of a job as one HTML page: funnel, scores, samples of what was kept and dropped, with reasons.

No script, no network, no clock; pictures are inline SVG, and every text of a record is escaped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from db.curation import read_job
from db.curation_report import funnel, histograms, samples
from db.engine import engine_of, transaction
from db.errors import BakeoffError
from scheduler.curation.found import changed_answers
from scheduler.curation.recipe import parse_recipe
from scheduler.curation.run import ASKED, SECONDS
from scheduler.curation.turns import Unreadable, turns_of
from worker.cleaning import clean_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.curation import Job
    from db.settings import Settings
    from scheduler.curation.recipe import Recipe

BINS = 24
SAMPLES = 5  # of what was kept, and of what each rule dropped
LONGEST = 600  # characters of a text that is shown

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def write_report(settings: Settings, name: str, file: Path) -> None:
    """Write the page. Raises `NotFound`, `BakeoffError` where the file cannot be written."""
    with transaction(engine_of(settings.dsn, "curate")) as connection:
        page = report_of(connection, read_job(connection, name))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BakeoffError(f"Cannot write {file}: {error.strerror}.") from None


def report_of(connection: Connection, job: Job) -> str:
    """The page of a job, as far as it is."""
    recipe = parse_recipe(job.recipe, f"the recipe of {job.name}")
    stages = funnel(connection, job.id, recipe.stages)
    found = histograms(connection, job.id, BINS)
    scores = [(name, found[name]) for name in recipe.stages if name in found]
    shown = [_sample(row, recipe) for row in samples(connection, job.id, SAMPLES)]
    page = _ENVIRONMENT.get_template("report.html.j2").render(
        job=job,
        stages=stages,
        most=max(1, *(one["came"] for one in stages)),
        kept=stages[-1]["passed"],
        scores=scores,
        kept_samples=[one for one in shown if one["fate"] == "kept"],
        dropped_samples=[one for one in shown if one["fate"] == "dropped"],
        recipe=json.dumps(recipe.shown, indent=2, ensure_ascii=False),
        notes=json.dumps(notes_of(job), indent=2, ensure_ascii=False, sort_keys=True),
    )
    return clean_text(page)  # a record may have been dropped for half surrogates, which no file takes


def notes_of(job: Job) -> dict[str, Any]:
    """What stages said beside their records, without the seconds that they took and whom they asked."""
    return {key: value for key, value in job.counts.items() if key not in {SECONDS, ASKED}}


def _sample(row: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A record as the page shows it."""
    try:
        turns = [(_cut(one.question), _cut(one.answer)) for one in turns_of(row["data"], recipe.input)]
    except Unreadable:
        turns = [(_cut(json.dumps(row["data"], ensure_ascii=False)), "")]
    new = changed_answers(row["found"], len(recipe.stages))
    return {
        **{key: row[key] for key in ("position", "type", "fate", "rule", "reason")},
        "stage": recipe.stages[row["stage"]] if row["stage"] < len(recipe.stages) else "",
        "scores": {name: round(score, 4) for name, score in sorted(row["scores"].items())},
        "turns": turns,
        "answers": [_cut(one) for one in new] if new else [],
        "rewrite_faults": [one for one in row["found"].get("rewrite_faults", ()) if one],
        "reviews": sorted(row["found"].get("reviews", {}).items()),
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
