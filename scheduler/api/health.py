"""Whether this process lives, and whether it can work. Neither asks for a key, nor says anything else."""

from __future__ import annotations

from functools import cache
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from db import migrate
from db.engine import transaction
from scheduler.api.problems import ApiError
from scheduler.api.services import Shared

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """It is well."""

    status: Literal["ok"] = "ok"


class OldSchema(ApiError):
    """The database has another schema than this version wants."""

    status, code = 503, "schema"


@router.get("/healthz")
async def healthz() -> Health:
    """This process lives. It asks nobody else: who restarts it because Postgres is away makes nothing better."""
    return Health()


@router.get("/readyz")
def readyz(shared: Shared) -> Health:
    """This process can take tasks: Postgres answers, and has the schema of this version or a later one."""
    with transaction(shared.engine) as connection:
        revision = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar() or ""
    if revision < _head():
        raise OldSchema(
            f"The database has schema {revision or 'none'}, this version wants {_head()}; run `bakeoff db upgrade`.",
            {"Retry-After": "60"},
        )
    return Health()


@cache
def _head() -> str:
    return migrate.head() or ""
