"""Figures about models that others published, in a file beside the registry: `models.metadata.json`.

`bakeoff models import` and `bakeoff models refresh` write it; selectors read it as `ModelEntry.metadata`. Its keys are
hub ids (`openai/whisper-tiny`) or names of the registry. What `models.toml` itself says of a model comes first, then
what stands here under its name, then under its hub id.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from db.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping

Number = Annotated[float, Field(allow_inf_nan=False)]


class ModelMetadata(BaseModel):
    """What is published about one model; what nobody looked up is left out.

    `scores` are as published, by `dataset/metric`. `trending` is the hub's own figure, which says who is talked about
    now.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    downloads: Annotated[int, Field(ge=0)] | None = None
    likes: Annotated[int, Field(ge=0)] | None = None
    trending: Number | None = None
    scores: dict[str, Number] = {}
    description: str | None = None
    capability: str | None = None
    license: str | None = None
    origin: str | None = None  # the file or the hub that said so
    updated: str | None = None  # when, ISO 8601

    def known(self) -> dict[str, Any]:
        """The figures that there are."""
        return self.model_dump(exclude_none=True, exclude_defaults=True)


Catalogue = dict[str, ModelMetadata]
_CATALOGUE = TypeAdapter(Catalogue)


def metadata_file(registry: Path) -> Path:
    """The file that belongs to a registry."""
    return registry.with_name(f"{registry.stem}.metadata.json")


def read_metadata(path: Path) -> Catalogue:
    """Read a metadata file; nothing where there is none. Raises `RegistryError`, which names the model and the key."""
    try:
        return _CATALOGUE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise RegistryError(f"{path}: {place}: {first['msg']}.") from None


def write_metadata(path: Path, catalogue: Catalogue) -> None:
    """Replace the file, whole or not at all. Raises `RegistryError` where it cannot be written."""
    text = json.dumps({key: catalogue[key].known() for key in sorted(catalogue)}, indent=1, ensure_ascii=False) + "\n"
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise RegistryError(
            f"{path} cannot be written ({error.strerror}); set BAKEOFF_MODELS_FILE to a registry in a folder of yours."
        ) from None


def updated(old: Catalogue, new: Catalogue) -> Catalogue:
    """What is known after some is learnt: newer figures replace older ones, what is not said again stays."""
    out = dict(old)
    for key, metadata in new.items():
        out[key] = ModelMetadata.model_validate(_over(metadata.known(), old.get(key, ModelMetadata()).known()))
    return out


def with_metadata(tables: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """The registry's tables with each model's `metadata` filled up from the catalogue."""
    models = tables.get("models")
    if not catalogue or not isinstance(models, dict):
        return tables
    return {**tables, "models": {name: _filled(name, entry, catalogue) for name, entry in models.items()}}


def hub_id(source: Any) -> str | None:
    """The hub id that a source names, as its own or as what its server runs; None where it names none."""
    if not isinstance(source, dict):
        return None
    name = source.get("hub") or source.get("model")
    return name if isinstance(name, str) and name.count("/") == 1 else None


def _filled(name: str, entry: Any, catalogue: Catalogue) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("metadata", {}), dict):
        return entry  # the registry's own check says what is wrong
    metadata = dict(entry.get("metadata", {}))
    for key in (name, hub_id(entry.get("source"))):
        if key in catalogue:
            metadata = _over(metadata, catalogue[key].known())
    return {**entry, "metadata": metadata} if metadata else entry


def _over(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the first where both say something; scores each for itself."""
    out = {**second, **first}
    scores = [one["scores"] for one in (second, first) if isinstance(one.get("scores"), dict)]
    if len(scores) == 2:
        out["scores"] = {**scores[0], **scores[1]}
    return out
