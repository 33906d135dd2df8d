"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scheduler.evaluation.report.sections import Table, sections_of

TEMPLATE = "page.html.j2"


def page_of(results: dict[str, Any]) -> str:
    """The page that shows these results."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = Table(
        columns=("set", "rows", "groups", "answers to a row", "sha256", "note"),
        rows=tuple(
            (one["set"], str(one["rows"]), str(one["groups"]), str(one["answers"]), one["sha256"], one["note"])
            for one in results["sets"]
        ),
    )
    template = environment.get_template(TEMPLATE)
    return template.render(results=results, sections=sections_of(results["parts"]), data=data)
