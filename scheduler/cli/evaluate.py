"""`bakeoff evaluate`: which planners, selectors, judges are worth their cost, on data with known answers."""

from __future__ import annotations

import typer

from scheduler.evaluation.ablation.command import ablation_command
from scheduler.evaluation.attack.command import attack_command
from scheduler.evaluation.curation.command import curation_command
from scheduler.evaluation.judges.command import judge_command, selection_command
from scheduler.evaluation.pipeline.command import pipeline_command
from scheduler.evaluation.planner.command import planner_command
from scheduler.evaluation.report.command import report_command
from scheduler.evaluation.selectors.command import selectors_command


def register(app: typer.Typer) -> None:
    """Add the commands."""
    evaluate = typer.Typer(help="What planners, selectors and judges are worth.", no_args_is_help=True)
    evaluate.command("planner")(planner_command)
    evaluate.command("selectors")(selectors_command)
    evaluate.command("ablation")(ablation_command)
    evaluate.command("pipeline")(pipeline_command)
    evaluate.command("judge")(judge_command)
    evaluate.command("selection")(selection_command)
    evaluate.command("attack")(attack_command)
    evaluate.command("curation")(curation_command)
    evaluate.command("report")(report_command)
    app.add_typer(evaluate, name="evaluate")
