"""Whether this process lives, and whether it can work. Neither asks for a key, nor says anything else."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from db.engine import transaction
from db.revision import check_schema
from scheduler.api.services import Shared

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """It is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """This process lives. It asks nobody else: who restarts it because Postgres is away makes nothing better."""
    return Health()


@router.get("/readyz")
def readyz(shared: Shared) -> Health:
    """This process can take tasks: Postgres answers, and has the schema of this version or a later one."""
    with transaction(shared.engine) as connection:
        check_schema(connection)
    return Health()
