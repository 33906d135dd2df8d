"""`bakeoff evaluate selection --queue`: the figures of stored verdicts are those of the direct run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from db.registry import JudgeEntry
from db.settings import Settings
from scheduler.evaluation.judges.evaluation import Options, evaluated_selection
from tests.unit.judge_sets import sums, written

pytestmark = pytest.mark.integration

#: What a run takes, and who counts the calls: they differ by how it was run.
OF_THE_RUN = {"seconds", "queue", "calls"}


def figures(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in OF_THE_RUN}


def test_a_jury_in_the_queue_chooses_as_it_does_directly(tmp_path: Path) -> None:
    # given sums that a jury learns on four folds each, one of whose texts stands in two rows with other answers
    rows = sums(40)
    rows[3]["instruction"] = rows[5]["instruction"]
    settings, file = Settings(), str(written(tmp_path, rows))
    jury = JudgeEntry(name="jury", method="jury")

    # when
    direct, queued = (
        evaluated_selection(settings, [file], Options(judge=jury, names="known", queue=queue, split="folds"))
        for queue in (False, True)
    )

    # then
    assert direct["support"] == queued["support"] == 40
    assert figures(queued) == figures(direct)
    assert queued["fitted"][0]["groups"] > 20
