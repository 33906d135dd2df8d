"""The registry: which models exist, what they can do, where their weights come from, who judges them.

`models.toml` is read and checked whole; an error names the table and the key. Names are also queue names, so they are
short and plain. A capability is a Hugging Face pipeline tag, optionally with a variant: `image-to-text/ocr`.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from db.alike import did_you_mean
from db.errors import RegistryError
from db.metadata import metadata_file, read_metadata, with_metadata
from db.sources import NoSource, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Capability = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)?$")]
MediaKind = Literal["text", "image", "audio"]


def _in_a_row(given: Any) -> Any:
    """An entry whose `judge` may be a list: the first is asked, the next where it fails."""
    if not isinstance(given, dict) or not isinstance(given.get("judge"), list | tuple):
        return given
    names = list(given["judge"])
    if not names or len(set(map(str, names))) < len(names):
        raise ValueError(f"judge = {names!r}: a list of judges names one at least, and none twice")
    return {**given, "judge": names[0], "next_judges": names[1:]}


def queue_of(model: str) -> str:
    """Name of a model's Celery queue, also where the registry does not know the model."""
    return f"model.{model}"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Strict):
    """One model of the registry. Times are seconds, memory is MiB."""

    name: Name
    capability: Capability
    backend: Name
    source: Source = NoSource()
    revision: str = ""  # of weights that change under the same source; part of the result cache's key
    priority: int = 100  # lower is chosen first by the `priority` selector
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 8  # inputs of one message, and of one batch at most
    window: Annotated[int, Field(ge=1, le=64)] = (
        2  # unfinished messages per worker of the queue: one running, one waiting
    )
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0  # a batch that takes longer is given up
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    memory_mb: Annotated[int, Field(ge=0)] = 512  # resident memory of its worker, weights included
    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    trust_remote_code: bool = False
    deterministic: bool = False
    reads: tuple[Literal["image", "audio"], ...] = ()  # files that it is shown when a judge asks it
    cache: bool | None = None  # whether equal inputs are answered from stored outputs; empty: see `caches`
    params: dict[str, Any] = {}  # handed to the backend, which checks them
    metadata: dict[str, Any] = {}  # downloads, likes, trending, benchmark scores: what selectors read

    @property
    def queue(self) -> str:
        """Name of the Celery queue, one per model."""
        return queue_of(self.name)

    @property
    def caches(self) -> bool:
        """Whether an output that is stored answers the same input again.

        Where nothing is said: if it is deterministic and its weights cannot change under the same name. A folder
        without hashes and a branch of the hub can; a `revision` of the entry keeps them apart.
        """
        if self.cache is not None:
            return self.cache
        return self.deterministic and (bool(self.revision) or self.source.pinned)

    @cached_property
    def exact_revision(self) -> str:
        """What a stored output depends on beside its input: the revision, and a hash of how the model is run."""
        run = self.model_dump(mode="json", include={"backend", "source", "dtype", "params", "trust_remote_code"})
        digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.revision}+{digest}" if self.revision else digest


class CapabilityEntry(_Strict):
    """What a capability reads and writes, how a judge is told about it, and who judges: a judge, or a list of them."""

    name: Capability
    input: MediaKind
    output: Literal["text", "labels", "vector"] = "text"
    instruction: str  # the task in one sentence, for judges and for models that take a prompt
    judge: Name
    next_judges: tuple[Name, ...] = ()  # the rest of the list: who is asked where the one before fails
    files: Annotated[int, Field(ge=1, le=64)] = 1  # attachments that one subtask may have
    candidates: Annotated[int, Field(ge=1, le=16)] | None = None  # k; empty: BAKEOFF_CANDIDATES
    selectors: tuple[str, ...] | None = None  # evaluation approaches that propose models; empty: BAKEOFF_SELECTORS

    _list = model_validator(mode="before")(_in_a_row)

    @property
    def judges(self) -> tuple[str, ...]:
        """Who judges, in the order in which they are asked."""
        return (self.judge, *self.next_judges)


class JudgeEntry(_Strict):
    """A judge: a method, and the models that it asks where the method needs them: a language model, an embedder."""

    name: Name
    method: Name
    model: Name | None = None
    embedder: Name | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    params: dict[str, Any] = {}

    @property
    def asks(self) -> tuple[str, ...]:
        """Models that it needs in its process."""
        return tuple(name for name in (self.model, self.embedder) if name is not None)


class PlannerEntry(_Strict):
    """A way to split a request: a method, the language model that it asks, the model that it embeds requests with."""

    name: Name
    method: Annotated[str, Field(pattern=r"^[a-z][a-z+_-]{0,62}$")]
    model: Name | None = None
    embedder: Name | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 180.0
    params: dict[str, Any] = {}

    @property
    def asks(self) -> tuple[str, ...]:
        """Models that it needs in its process."""
        return tuple(name for name in (self.model, self.embedder) if name is not None)


class IntegratorEntry(_Strict):
    """A way to write the answer from the chosen results, and the language model that writes it."""

    name: Name
    method: Name
    model: Name | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 180.0
    params: dict[str, Any] = {}

    @property
    def asks(self) -> tuple[str, ...]:
        """Models that it needs in its process."""
        return () if self.model is None else (self.model,)


class Profile(_Strict):
    """A named choice of models for one kind of machine; `judge`, or a list of them, judges every capability there.

    `planner` and `integrator` are asked where a task names none; without them a request is one text-generation subtask,
    and its results are joined as they are.
    """

    models: list[Name]
    judge: Name | None = None
    next_judges: tuple[Name, ...] = ()
    planner: Name | None = None
    integrator: Name | None = None
    description: str = ""

    _list = model_validator(mode="before")(_in_a_row)

    @property
    def judges(self) -> tuple[str, ...]:
        """Who judges, in the order in which they are asked."""
        return () if self.judge is None else (self.judge, *self.next_judges)


class Registry(_Strict):
    """Everything `models.toml` says, checked."""

    models: dict[str, ModelEntry]
    capabilities: dict[str, CapabilityEntry]
    judges: dict[str, JudgeEntry]
    planners: dict[str, PlannerEntry] = {}
    integrators: dict[str, IntegratorEntry] = {}
    profiles: dict[str, Profile] = {}
    asked_only: frozenset[str] = frozenset()  # models that are here for a judge, planner or integrator: no candidates
    planner: Name | None = None  # of the profile that this registry is restricted to
    integrator: Name | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Registry:
        for place, table, name in self._references():
            if name not in getattr(self, table):
                raise ValueError(f"{place} = {name!r} has no table [{table}]")
        return self

    def _references(self) -> Iterator[tuple[str, str, str]]:
        """(where it stands, table that it names, name) of every name of another entry."""
        for name, model in self.models.items():
            yield f"models.{name}.capability", "capabilities", model.capability
        for name, capability in self.capabilities.items():
            yield from ((f"capabilities.{name}.judge", "judges", judge) for judge in capability.judges)
        for name, judge in self.judges.items():
            yield from ((f"judges.{name}: the model", "models", model) for model in judge.asks)
        for kind, entries in (("planners", self.planners), ("integrators", self.integrators)):
            for name, entry in entries.items():
                yield from ((f"{kind}.{name}: the model", "models", model) for model in entry.asks)
        for name, profile in self.profiles.items():
            yield from ((f"profiles.{name}.models", "models", model) for model in profile.models)
            yield from ((f"profiles.{name}.judge", "judges", judge) for judge in profile.judges)
            for key in ("planner", "integrator"):
                if (wanted := getattr(profile, key)) is not None:
                    yield f"profiles.{name}.{key}", f"{key}s", wanted

    @cached_property
    def queues(self) -> dict[str, str]:
        """Queue of each model."""
        return {name: model.queue for name, model in self.models.items()}

    def candidates_for(self, capability: str) -> list[ModelEntry]:
        """The models that may be asked to do it."""
        return [
            model
            for model in self.models.values()
            if model.capability == capability and model.name not in self.asked_only
        ]

    @cached_property
    def served(self) -> set[str]:
        """Capabilities that some model does."""
        return {model.capability for model in self.models.values() if model.name not in self.asked_only}

    def profile(self, name: str) -> Profile:
        """Profile by name; raises `RegistryError` with the names there are."""
        try:
            return self.profiles[name]
        except KeyError:
            known = ", ".join(sorted(self.profiles)) or "none"
            hint = did_you_mean(name, self.profiles)
            raise RegistryError(f"No profile {name!r} in the registry; there are: {known}.{hint}") from None

    def model(self, name: str) -> ModelEntry:
        """Model by name; raises `RegistryError` with the names there are."""
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models)) or "none"
            hint = did_you_mean(name, self.models)
            raise RegistryError(f"No model {name!r} in the registry; there are: {known}.{hint}") from None

    def judges_in_use(self) -> set[str]:
        """Judges of the capabilities that a model serves."""
        return {judge for name in self.served for judge in self.capabilities[name].judges}

    def asked_by_judges(self) -> set[str]:
        """Models that the judges of the served capabilities ask."""
        return {model for name in self.judges_in_use() for model in self.judges[name].asks}

    def restricted_to(self, profile: str) -> Registry:
        """The same registry with the models of one profile, and those that its judges, planner and integrator ask.

        Its judges judge every capability but those in which one would judge the words of the very model that it asks
        against others': a likelihood prefers its own. There it is left out, and where nobody is left the capability's
        own judges stay. Capabilities that nobody serves stay known, so that an error can name them.
        """
        chosen = self.profile(profile)
        capabilities = {
            name: entry.model_copy(update={"judge": fair[0], "next_judges": tuple(fair[1:])})
            if (fair := [judge for judge in chosen.judges if not self._partial(chosen, judge, name)])
            else entry
            for name, entry in self.capabilities.items()
        }
        served = {self.models[name].capability for name in chosen.models}
        asked = {model for name in served for judge in capabilities[name].judges for model in self.judges[judge].asks}
        if chosen.planner is not None:
            asked |= set(self.planners[chosen.planner].asks)
        if chosen.integrator is not None:
            asked |= set(self.integrators[chosen.integrator].asks)
        models = {name: entry for name, entry in self.models.items() if name in chosen.models or name in asked}
        return Registry.model_construct(
            models=models,
            capabilities=capabilities,
            judges={name: entry for name, entry in self.judges.items() if set(entry.asks) <= set(models)},
            planners={name: entry for name, entry in self.planners.items() if set(entry.asks) <= set(models)},
            integrators={name: entry for name, entry in self.integrators.items() if set(entry.asks) <= set(models)},
            profiles={profile: chosen},
            asked_only=frozenset(models) - set(chosen.models),
            planner=chosen.planner,
            integrator=chosen.integrator,
        )

    def _partial(self, profile: Profile, judge: str, capability: str) -> bool:
        """Whether one of the profile's judges asks one of the capability's candidates, of which there are others."""
        asked = self.judges[judge].model
        rivals = [name for name in profile.models if self.models[name].capability == capability]
        return asked in rivals and len(rivals) > 1


def read_registry(path: Path) -> Registry:
    """Read and check a registry file, with the figures that were imported beside it (`db.metadata`).

    Raises `RegistryError`, which names the table and key at fault.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError:
        raise RegistryError(f"No registry at {path}; set BAKEOFF_MODELS_FILE, or run where models.toml is.") from None
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{path} is not TOML: {error}.") from None
    return parse_registry(with_metadata(tables, read_metadata(metadata_file(path))), str(path))


def parse_registry(tables: dict[str, Any], origin: str = "registry") -> Registry:
    """Check tables already read. Raises `RegistryError`."""
    try:
        named = {
            section: {name: {"name": name, **entry} for name, entry in tables.get(section, {}).items()}
            for section in ("models", "capabilities", "judges", "planners", "integrators")
        }
        return Registry.model_validate({**tables, **named})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        given = "" if isinstance(first.get("input"), dict) else f" (given: {first.get('input')!r})"
        raise RegistryError(f"{origin}: {place}: {first['msg']}{given}.") from None
    except (AttributeError, TypeError):
        raise RegistryError(
            f"{origin}: every entry of models, capabilities, judges, planners and integrators is a table."
        ) from None
