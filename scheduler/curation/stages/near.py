"""Near duplicates: of records whose texts are alike in three quarters and more of their runs of words, the first stays.

Signatures are MinHash (rensa). A signature's bands are rows of Postgres, so that memory does not grow with the input;
records that share a band are compared exactly (`scheduler.curation.shingles`), so that nothing is dropped by chance.
Records are decided in the order of the input against those that stay before them: one that resembles only a record
that was itself dropped stays. With 21 bands of 6 the chance to miss a pair is 0.2 % at a likeness of .8, and below one
in a million from .9 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from db.curation_bands import add_bands, sharing_a_band
from db.curation_records import Dropped, pass_page, records_at
from scheduler.curation.options import StageOptions
from scheduler.curation.shingles import hashed, jaccard, runs_of, words_of
from scheduler.curation.stages.alone import Paged
from scheduler.curation.turns import image_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from db.curation_records import Record
    from scheduler.curation.run import Run

SEED = 1


class NearOptions(StageOptions):
    """`threshold`: from this likeness on the later one is dropped; `same_image`: only where both show the same."""

    threshold: float = Field(0.8, ge=0.3, le=1)
    same_image: bool = False
    bands: int = Field(21, ge=1, le=64)
    rows: int = Field(6, ge=1, le=32)


class Near(Paged[NearOptions]):
    """A page's bands are stored with its fates."""

    Options = NearOptions
    size = 500

    def decide(self, run: Run, page: Sequence[Record]) -> None:
        """Drop those that are like one that stays before them."""
        runs = {record.position: self._runs(record) for record in page}
        bands = self._bands(runs)
        with run.changing() as connection:
            dropped = self._decided(run, connection, page, runs, bands)
            out = {one.position for one in dropped}
            add_bands(connection, run.job.id, [one for one in bands if one[1] not in out])
            pass_page(connection, run.job.id, self.number, page, dropped)

    def _runs(self, record: Record) -> set[str]:
        turns = turns_of(record.data, self.names)
        runs = runs_of(words_of(" ".join(f"{turn.asked} {turn.answer}" for turn in turns)))
        return runs or {record.key}  # nothing is like a text without words

    def _bands(self, runs: Mapping[int, set[str]]) -> list[tuple[int, int]]:
        """(hash of band number and rows, position) of every record, in the order of the positions."""
        from rensa import RMinHash  # noqa: PLC0415 - nothing else needs it

        rows, out = self.options.rows, list[tuple[int, int]]()
        for position, own in runs.items():
            minhash = RMinHash(num_perm=self.options.bands * rows, seed=SEED)
            minhash.update(sorted(own))
            signature = minhash.digest()
            out.extend(
                (hashed(f"{band}:{signature[band * rows : (band + 1) * rows]}"), position)
                for band in range(self.options.bands)
            )
        return out

    def _decided(
        self,
        run: Run,
        connection: Connection,
        page: Sequence[Record],
        runs: Mapping[int, set[str]],
        bands: Sequence[tuple[int, int]],
    ) -> list[Dropped]:
        """Which records of a page are like one that stays before them."""
        alike: dict[int, set[int]] = {}
        for here, there in sharing_a_band(connection, run.job.id, bands):
            alike.setdefault(here, set()).add(there)
        wanted = sorted({there for others in alike.values() for there in others})
        stored = {record.position: record for record in records_at(connection, run.job.id, wanted)}
        known = {position: self._runs(record) for position, record in stored.items()} | dict(runs)
        records = stored | {record.position: record for record in page}
        shared: dict[int, list[int]] = {}  # band → records of this page that stay
        by_record: dict[int, list[int]] = {}
        for band, position in bands:
            by_record.setdefault(position, []).append(band)
        dropped = []
        for record in page:
            here = record.position
            others = alike.get(here, set()) | {one for band in by_record[here] for one in shared.get(band, ())}
            first = next((there for there in sorted(others) if self._same(records[there], record, known)), None)
            if first is None:
                for band in by_record[here]:
                    shared.setdefault(band, []).append(here)
                continue
            likeness = jaccard(known[first], known[here])
            reason = f"Its text is that of record {first} by {likeness:.3f}; from {self.options.threshold:g} it goes."
            dropped.append(Dropped(position=here, rule="near_duplicate", reason=reason))
        return dropped

    def _same(self, first: Record, second: Record, known: Mapping[int, set[str]]) -> bool:
        if self.options.same_image and image_of(first.data) != image_of(second.data):
            return False
        return jaccard(known[first.position], known[second.position]) >= self.options.threshold
