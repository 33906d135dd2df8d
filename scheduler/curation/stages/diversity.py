"""Diversity: of what is left, a budget of records that lie as far from each other as can be (k-center, greedy).

Embeddings come from ordinary tasks. The first centre is the first record by key, as good as drawn; each further one is
the record farthest from all centres, so that the radius is at most twice the best possible. Everything that is left is
held in memory here, 1.5 KB a record.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import Field

from db.curation_records import Dropped, Scored, decide, entered, records_at
from db.curation_tasks import outcomes_of
from db.errors import BacklogFull, BakeoffError
from scheduler.curation.options import StageOptions
from scheduler.curation.stages.asking import PAGE, Ask, Asking, failed, latest_of, of_one
from scheduler.curation.turns import turns_of
from scheduler.waiting import POLL_SECONDS, Notices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.curation_records import Record
    from db.curation_tasks import Outcome
    from scheduler.curation.run import Run

RULE = "not_diverse"


class DiversityOptions(StageOptions):
    """`budget`: records that pass at most; or `keep`, as a share of those that came."""

    capability: str = "feature-extraction"
    models: tuple[str, ...] = Field((), max_length=1)
    budget: int | None = Field(None, ge=1)
    keep: float = Field(0.5, gt=0, le=1)


class Diversity(Asking[DiversityOptions]):
    """Embeds questions and chooses among them."""

    Options = DiversityOptions

    def asks(self, record: Record) -> list[Ask]:
        """One task: all questions of the record together."""
        text = "\n".join(turn.asked for turn in turns_of(record.data, self.names))
        return [Ask(turn=0, request=text, capability=self.options.capability, options=of_one(self.options.models))]

    def settle(self, record: Record, outcomes: Sequence[Outcome]) -> Scored | Dropped:
        """Whether there is a vector."""
        winner = outcomes[0].winner
        if winner is None or not isinstance(winner.detail.get("vector"), list):
            return failed(record, outcomes[0], "vector")
        return Scored(position=record.position, found={"embedded": True})

    def close(self, run: Run) -> None:
        """Choose the centres among all records that came this far, those of earlier input too."""
        with run.reading() as connection:
            records = entered(connection, run.job.id, self.number, "embedded", RULE)
        if not records:
            return
        vectors = self._vectors(run, [position for position, _ in records])
        budget = self.options.budget or max(1, -(-len(records) * int(self.options.keep * 1_000_000) // 1_000_000))
        chosen, nearest = k_center(vectors, min(budget, len(records)))
        centres = {records[place][0]: rank for rank, place in enumerate(chosen, start=1)}
        dropped = [
            Dropped(
                position=position,
                rule=RULE,
                reason=f"It lies {distance:.4f} from the nearest of {len(chosen)} chosen records.",
            )
            for (position, _), distance in zip(records, nearest, strict=True)
            if position not in centres
        ]
        with run.changing() as connection:
            decide(connection, run.job.id, self.number, RULE, list(centres), dropped)

    def _vectors(self, run: Run, positions: Sequence[int]) -> Any:
        import numpy as np  # noqa: PLC0415 - heavy, and needed here only

        rows: list[Any] = []
        with Notices(run.settings.dsn) as notices:
            for start in range(0, len(positions), PAGE):
                page = positions[start : start + PAGE]
                while (said := self._said(run, page)) is None:
                    notices.doze(POLL_SECONDS)
                rows += [np.asarray(vector, dtype=np.float32) for vector in said]
        return np.stack(rows)

    def _said(self, run: Run, positions: Sequence[int]) -> list[list[float]] | None:
        """The vectors of a page; None while tasks that were pruned since they were read are asked anew.

        Raises `BakeoffError` where a model has none any more.
        """
        bases = {position: self.key(position, 0) for position in positions}
        with run.changing() as connection:
            latest = latest_of(connection, run.job.source, list(bases.values()))
            outcomes = outcomes_of(connection, run.job.source, [key for key, _ in latest.values()])
            records = records_at(connection, run.job.id, [one for one in positions if bases[one] not in latest])
        with suppress(BacklogFull):  # what finds no room now is asked at the next look
            self._submit(run, [self._task(run, bases[one.position], ask) for one in records for ask in self.asks(one)])
        found = [outcomes[latest[base][0]] for base in bases.values() if base in latest and latest[base][0] in outcomes]
        if len(found) < len(positions):
            return None
        vectors = [said_by(outcome) for outcome in found]
        if missing := [position for position, vector in zip(positions, vectors, strict=True) if not vector]:
            raise BakeoffError(
                f"Stage {self.name}: the task with the vector of record {missing[0]} was pruned, and no model has it "
                "any more. Run everything under another name."
            )
        return vectors


def said_by(outcome: Outcome) -> list[float]:
    """The vector of a task; empty where it has none."""
    winner = outcome.winner
    vector: list[float] = [] if winner is None else winner.detail.get("vector", [])
    return vector


def k_center(vectors: Any, budget: int) -> tuple[list[int], list[float]]:
    """Greedy k-center from row 0 by cosine distance: the rows chosen, and every row's distance to the nearest of them.

    Equal distances go to the earlier row, so that the same rows give the same choice.
    """
    import numpy as np  # noqa: PLC0415 - heavy, and needed here only

    unit = vectors.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    nearest = np.round(1 - unit @ unit[0], 9)
    chosen = [0]
    while len(chosen) < budget:
        nearest[chosen[-1]] = -1.0  # never again
        place = int(np.argmax(nearest))
        chosen.append(place)
        nearest = np.minimum(nearest, np.round(1 - unit @ unit[place], 9))
    nearest[chosen] = 0.0
    return chosen, [float(one) for one in nearest]
