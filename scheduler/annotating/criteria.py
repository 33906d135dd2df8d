"""The criteria that annotators score by: a versioned file, whose content a set keeps for good."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from db.errors import InvalidRequest

PACKAGED = Path(__file__).parent / "criteria-1.toml"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Words = Annotated[str, Field(min_length=1, max_length=500)]


class Criterion(BaseModel):
    """One question to an annotator; `low` and `high` are what 0 and 1 stand for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    asks: Words
    low: Words
    high: Words


class Criteria(BaseModel):
    """A list of criteria under a version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1, max_length=20)]

    @field_validator("criteria")
    @classmethod
    def _named_once(cls, value: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
        names = [criterion.name for criterion in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} stands there twice")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the file."""
        return tuple(criterion.name for criterion in self.criteria)


def read_criteria(path: Path | None = None) -> Criteria:
    """The criteria of a file, by default the packaged ones. Raises `InvalidRequest` with what is wrong."""
    path = path or PACKAGED
    try:
        read: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"Cannot read {path}: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{path} is not TOML: {error}.") from None
    try:
        return Criteria.model_validate(read)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InvalidRequest(f"{path}: {place} = {first.get('input')!r}: {first['msg']}.") from None
