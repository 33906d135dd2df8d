"""The bands of MinHash signatures of a job's records: stored for those that stay, asked for those that come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    import psycopg


def add_bands(connection: Connection, job: UUID, bands: Iterable[tuple[int, int]]) -> None:
    """Store (hash, position) of records that stay, by COPY."""
    raw = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    with raw.cursor() as cursor, cursor.copy("COPY curation_band (job_id, hash, position) FROM STDIN") as copy:
        for value, position in bands:
            copy.write_row((str(job), value, position))


def sharing_a_band(connection: Connection, job: UUID, hashes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(record asked about, stored record) for every two that share a band; `hashes`: (hash, position)."""
    rows = connection.execute(
        text(
            """
            SELECT DISTINCT asked.position AS here, b.position AS there
            FROM unnest(CAST(:hashes AS bigint[]), CAST(:positions AS bigint[])) AS asked (hash, position)
            JOIN curation_band AS b ON b.job_id = :job AND b.hash = asked.hash AND b.position < asked.position
            ORDER BY here, there
            """
        ),
        {"job": job, "hashes": [one for one, _ in hashes], "positions": [position for _, position in hashes]},
    )
    return [(row.here, row.there) for row in rows]
