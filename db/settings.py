"""Settings: environment variables `BAKEOFF_*`, each with its unit, its default and what follows from it.

`bakeoff config` prints them, secrets masked. They are checked together when a process starts: a worker whose lease or
limits do not fit refuses to start with a sentence (`SettingsError`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_cache_dir
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from db.errors import SettingsError, Unreachable
from db.instance import Instance, read_instance, running
from db.registry import Registry, read_registry
from db.secrets import VARIABLE as SECRETS
from db.secrets import check_said_once, joined, secret_files, secret_folders

HOME_NAME = ".bakeoff"
DEFAULT_PROFILE = "demo"

DEVICE = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def find_home() -> Path:
    """The nearest `.bakeoff` folder in this folder or above it, as git looks for `.git`; else one in this folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / HOME_NAME).is_dir():
            return folder / HOME_NAME
    return here / HOME_NAME


def find_models_file() -> Path:
    """`models.toml` of this folder, else of the checkout, else the one that the wheel brought."""
    package = Path(__file__).resolve().parent
    places = (Path.cwd() / "models.toml", package.parent / "models.toml", package / "models.toml")
    return next((place for place in places if place.is_file()), places[0])


@dataclass(frozen=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and how often it lets a probe through (seconds)."""

    failures: int
    probe_seconds: float


class Settings(BaseSettings):
    """One value object, made once per process by `load_settings`."""

    model_config = SettingsConfigDict(env_prefix="BAKEOFF_", frozen=True, extra="ignore")

    # Where things are
    home: Path = Field(default_factory=find_home, description="Folder of the servers, logs and blobs of `bakeoff up`.")
    cache: Path = Field(
        default_factory=lambda: Path(user_cache_dir("bakeoff")),
        description="Weights fetched and converted, shared by every home of this user.",
    )
    database_url: SecretStr | None = Field(None, description="postgresql://...; empty: the running `bakeoff up`.")
    redis_url: SecretStr | None = Field(None, description="redis://... or rediss://; empty: the running `bakeoff up`.")
    database_password: SecretStr | None = Field(
        None, description="Goes into a BAKEOFF_DATABASE_URL that has none; for secrets that come as files."
    )
    redis_password: SecretStr | None = Field(None, description="The same for BAKEOFF_REDIS_URL.")
    prepared_statements: bool = Field(
        default=True, description="Let Postgres keep statements' plans; `false` behind a pgbouncer older than 1.22."
    )
    blob_url: str | None = Field(None, description="fsspec URL of the attachments; empty: `blobs` in the home folder.")
    models_file: Path | None = Field(
        None, description="The registry; empty: that of the running `bakeoff up`, else the nearest models.toml."
    )
    profile: str | None = Field(
        None, description="Which models of the registry are run; empty: those of the running `bakeoff up`, else demo."
    )
    eval_data: Path | None = Field(
        None, description="Folder of evaluation sets, for `bakeoff evaluate` and tests; nothing else reads it."
    )

    # Choosing and sending
    candidates: Annotated[int, Field(ge=1, le=16)] = Field(3, description="Models per subtask (k).")
    selectors: Annotated[tuple[str, ...], NoDecode] = Field(
        ("downloads", "likes", "trending"),
        description="Who proposes models where neither task nor capability says: the registry's figures, by default.",
    )
    max_candidates: Annotated[int, Field(ge=1, le=64)] = Field(8, description="Most models one subtask may try.")
    wave_size: Annotated[int, Field(ge=1, le=1024)] = Field(
        32, description="Subtasks that leave together at most; a wave never waits to be filled."
    )
    wave_seconds: Seconds = Field(
        30.0, description="A wave is cut so that no model needs longer for it, by its measured seconds per input."
    )
    cache_max_bytes: Annotated[int, Field(ge=0)] = Field(
        10_000_000, description="Larger inputs are not answered from stored outputs: they hardly ever come twice."
    )
    settle_seconds: Annotated[float, Field(ge=0)] = Field(
        20.0, description="After its start a scheduler waits this long for all models before it goes on with fewer."
    )
    poll_seconds: Seconds = Field(1.0, description="Longest wait of a scheduler between two looks, NOTIFY or not.")
    bind_wait: Seconds = Field(
        120.0, description="A candidate whose model cannot be had this long is bound to another model, or given up."
    )
    stored_plans: Annotated[int, Field(ge=0, le=5000)] = Field(
        0,
        description="How many of the latest plans that worked here planners look up beside the packaged examples. "
        "They hold callers' words: leave it 0 where sources must not see each other's.",
    )
    thinking_window: Annotated[int, Field(ge=1, le=10_000)] = Field(
        8, description="Messages on the planners' queue and on the integrators', per live worker of it."
    )
    judge_window: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64,
        description="Messages on the judges' queue above which no new wave leaves: an absent judge fills no Redis.",
    )
    breaker_failures: Count = Field(
        5, description="Calls of a model (or judge) that fail in a row before it is suspended; bad inputs do not count."
    )
    probe_seconds: Seconds = Field(60.0, description="How often a suspended model or judge gets a wave of one.")
    deadline_grace: Seconds = Field(
        30.0, description="How long after its deadline a subtask that has its quorum may wait for a judge."
    )

    # Leases and limits; see `_limits_fit`
    lease_seconds: Seconds = Field(60.0, description="A claim is void this long after its last renewal.")
    message_limit: Seconds = Field(600.0, description="Longest run of one message; its worker's child is killed then.")
    start_allowance: Seconds = Field(120.0, description="Time a message may wait for a model to load, on top.")
    visibility_timeout: Seconds = Field(3600.0, description="Redis redelivers a message unacknowledged this long.")
    result_expires: Seconds = Field(7200.0, description="How long Redis keeps the counter of a chord.")
    judge_grace: Annotated[float, Field(ge=0)] = Field(
        5.0, description="The reconciler judges only what its chord has left unjudged this long."
    )
    lost_after: Seconds = Field(5.0, description="A message unclaimed on an empty, idle queue this long is lost.")
    retry_delay: Seconds = Field(2.0, description="First delay of a retry; doubles each time, with jitter.")
    worker_timeout: Seconds = Field(30.0, description="A worker without a heartbeat this long is not alive.")
    heartbeat_seconds: Seconds = Field(5.0, description="How often a worker says that it is alive.")
    publish_timeout: Seconds = Field(2.0, description="Longest wait for Redis when a message is sent.")
    stop_seconds: Seconds = Field(
        20.0, description="A worker asked to stop lets its batch finish this long, then gives it back, uncharged."
    )
    stall_seconds: Seconds = Field(
        120.0, description="A ready, idle worker that starts nothing this long while its queue holds messages exits."
    )
    intake_visibility: Seconds = Field(
        60.0, description="A `bakeoff.submit` whose intake worker was killed is delivered again after this long."
    )
    memory_factor: Annotated[float, Field(ge=1)] = Field(
        3.0, description="A model process is killed above this many times its registry `memory_mb`, and 512 MB."
    )

    # What one source, one request may hold
    max_backlog: Count = Field(
        100_000, description="Open tasks per source; `submit` is refused above it, rows inserted with SQL wait."
    )
    max_bulk: Count = Field(10_000, description="Tasks of one bulk submission: they are one statement, held in memory.")
    max_subtasks: Annotated[int, Field(ge=1, le=256)] = Field(32, description="Subtasks of one task's plan.")
    max_request_chars: Count = Field(100_000, description="Longer requests are refused: no packaged model reads more.")
    max_attachment_bytes: Count = Field(50_000_000, description="Per file; a worker holds a batch of them in memory.")
    max_image_pixels: Count = Field(50_000_000, description="Larger pictures are refused; A4 at 600 dpi has 35e6.")
    max_audio_seconds: Seconds = Field(7200.0, description="Longer sound is refused; two hours decoded are 460 MB.")
    max_attachments: Count = Field(16, description="Files per task.")
    max_options_bytes: Count = Field(20_000, description="Size of a task's `options` as JSON.")
    max_output_chars: Count = Field(200_000, description="A longer output is an error of the model, not stored.")

    # The HTTP API (`bakeoff api`)
    api_host: str = Field("127.0.0.1", description="Address it listens on; others than loopback need a key first.")
    api_first_key: SecretStr | None = Field(
        None, description="A key with the scope admin that `bakeoff api` stores at its start where none was ever made."
    )
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port it listens on.")
    api_workers: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Processes that share the port.")
    api_threads: Annotated[int, Field(ge=1, le=200)] = Field(
        16, description="Threads per process, each with a connection to Postgres while it works."
    )
    api_max_requests: Count = Field(
        1000, description="Requests that one process holds at once, streams included; 503 with Retry-After above it."
    )
    api_max_body_bytes: Count = Field(20_000_000, description="Largest JSON body; files have a limit of their own.")
    api_rate: Annotated[float, Field(ge=0)] = Field(
        100.0, description="Requests per second of one key in one process; 429 with Retry-After above it; 0: no limit."
    )
    api_max_per_key: Count = Field(200, description="Of those, requests of one key; 429 with Retry-After above it.")
    api_receive_seconds: Seconds = Field(
        30.0, description="Longest silence within a body that is sent, and time for it on top of one kB a second."
    )
    api_keep_alive: Seconds = Field(15.0, description="A stream that has nothing to say sends a comment this often.")
    api_stream_seconds: Seconds = Field(
        900.0, description="A stream of events ends after this long, its client resumes; so revoked keys lose it."
    )
    api_chat_timeout: Seconds = Field(300.0, description="Longest wait of a chat completion for its verdict.")
    api_metrics: Literal["key", "loopback", "open"] = Field(
        "key", description="Who may read /metrics: keys with the scope read, this machine without a key, or everybody."
    )

    curation_folder: Path | None = Field(
        None, description="Folder that recipes sent over HTTP may read files of, and nothing else; empty: none may."
    )

    callbacks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="What `bakeoff.submit` may name as a callback: Celery task and queue, shop.finished@shop."
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts that webhooks may be posted to: hooks.example.com, or .example.com for all under it."
    )
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Private networks that their names may lead to all the same, such as 10.1.0.0/16."
    )
    webhook_retry_delay: Seconds = Field(
        5.0, description="First delay of a webhook that did not arrive; four times longer each time, ten attempts."
    )

    # The process
    flower_password: SecretStr | None = Field(None, description="Of user bakeoff of `bakeoff flower`.")
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="CPU threads per model process; empty: cores divided by the workers that `up` starts."
    )
    device: Annotated[str, Field(pattern=DEVICE)] = Field(
        "auto", description="`auto`, `cpu`, `cuda:0` ...: where this worker's models run."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_content: bool = Field(
        default=False, description="Let logs quote callers and models, where an error does; for hunting a fault."
    )
    log_format: Literal["auto", "text", "json"] = Field("auto", description="`auto`: text on a terminal, else JSON.")

    @field_validator("selectors", "callbacks", "webhook_hosts", "webhook_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`downloads,likes` in the environment."""
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("curation_folder", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """An empty variable opens no folder, least of all the one that a process happens to be in."""
        return None if value == "" else value

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        return value

    @model_validator(mode="after")
    def _passwords_are_said_once(self) -> Settings:
        check_said_once("BAKEOFF_DATABASE", self.database_url, self.database_password)
        check_said_once("BAKEOFF_REDIS", self.redis_url, self.redis_password)
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Settings:
        if self.message_limit >= self.visibility_timeout:
            raise ValueError(
                f"BAKEOFF_MESSAGE_LIMIT ({self.message_limit:g} s) must be below BAKEOFF_VISIBILITY_TIMEOUT "
                f"({self.visibility_timeout:g} s), or Redis delivers a running message again"
            )
        if self.visibility_timeout >= self.result_expires:
            raise ValueError(
                f"BAKEOFF_VISIBILITY_TIMEOUT ({self.visibility_timeout:g} s) must be below BAKEOFF_RESULT_EXPIRES "
                f"({self.result_expires:g} s), or a chord's counter goes before its last message"
            )
        if self.heartbeat_seconds * 2 >= self.worker_timeout:
            raise ValueError(
                f"BAKEOFF_WORKER_TIMEOUT ({self.worker_timeout:g} s) must be over twice BAKEOFF_HEARTBEAT_SECONDS "
                f"({self.heartbeat_seconds:g} s), or one late heartbeat makes a worker dead"
            )
        if self.lost_after <= self.publish_timeout * 0.5:
            raise ValueError(
                f"BAKEOFF_LOST_AFTER ({self.lost_after:g} s) must be over half of BAKEOFF_PUBLISH_TIMEOUT "
                f"({self.publish_timeout:g} s), or a message that is still being sent is taken for lost"
            )
        if self.intake_visibility >= self.visibility_timeout:
            raise ValueError(
                f"BAKEOFF_INTAKE_VISIBILITY ({self.intake_visibility:g} s) must be below BAKEOFF_VISIBILITY_TIMEOUT "
                f"({self.visibility_timeout:g} s); storing a task takes no longer"
            )
        if self.candidates > self.max_candidates:
            raise ValueError(
                f"BAKEOFF_CANDIDATES ({self.candidates}) is over BAKEOFF_MAX_CANDIDATES ({self.max_candidates})"
            )
        return self

    def selectors_for(self, capability: str, *said: Sequence[str] | None) -> tuple[str, ...]:
        """Who proposes models: the first of those `said` that says anything, else the capability, else the setting."""
        entry = self.registry.capabilities.get(capability)
        return tuple(next(filter(None, (*said, entry.selectors if entry else None)), self.selectors))

    @property
    def breaker(self) -> BreakerRules:
        """When a model or judge is suspended."""
        return BreakerRules(failures=self.breaker_failures, probe_seconds=self.probe_seconds)

    @cached_property
    def registry(self) -> Registry:
        """The registry, read once, with the models of this profile only."""
        return self.registry_of(self.active_profile)

    def registry_of(self, profile: str) -> Registry:
        """The registry with the models of another profile."""
        return read_registry(self.registry_file).restricted_to(profile)

    @cached_property
    def registry_file(self) -> Path:
        """Where the registry is read from."""
        if self.models_file is not None:
            return self.models_file
        instance = self._instance
        return Path(instance.models_file) if instance and instance.models_file else find_models_file()

    @cached_property
    def active_profile(self) -> str:
        """The profile that is run."""
        return self.profile or (self._instance.profile if self._instance else "") or DEFAULT_PROFILE

    @property
    def dsn(self) -> str:
        """URL of Postgres, secrets included. Raises `Unreachable` where none is set and nothing runs here."""
        if self.database_url is not None:
            return joined(self.database_url, self.database_password)
        return self._of_the_running_instance("database_url", "BAKEOFF_DATABASE_URL")

    @property
    def broker(self) -> str:
        """URL of Redis, secrets included. Raises `Unreachable` where none is set and nothing runs here."""
        if self.redis_url is None:
            return self._of_the_running_instance("redis_url", "BAKEOFF_REDIS_URL")
        url = joined(self.redis_url, self.redis_password)
        if url.startswith("rediss://") and "ssl_cert_reqs" not in url:  # Celery insists that it is said
            url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
        return url

    @property
    def blobs(self) -> str:
        """fsspec URL of the blob store."""
        return self.blob_url or (self._instance.blob_url if self._instance else "") or str(self.home / "blobs")

    @cached_property
    def _instance(self) -> Instance | None:
        """What the `bakeoff up` of this home says of itself, or None where none runs."""
        instance = read_instance(self.home)
        return instance if instance is not None and running(instance) else None

    def _of_the_running_instance(self, field: str, variable: str) -> str:
        if self._instance is None:
            raise Unreachable(
                f"Nothing runs in {self.home}. Start it with `bakeoff up`, or set BAKEOFF_HOME to the folder of a "
                f"running one, or {variable} to a server of yours."
            )
        return str(getattr(self._instance, field))

    def environment(self) -> dict[str, str]:
        """What a child process needs to see the same settings: the fields that differ from a fresh default."""
        out = {}
        for name in self.model_fields_set:
            value = getattr(self, name)
            if value is not None:
                text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                out[f"BAKEOFF_{name.upper()}"] = ",".join(value) if isinstance(value, tuple) else text
        return out


def unknown_variables() -> list[str]:
    """`BAKEOFF_*` variables, and files of secrets, that no setting reads: usually a spelling mistake."""
    known = {f"BAKEOFF_{name.upper()}" for name in Settings.model_fields} | {"BAKEOFF_WORKER", SECRETS}
    known |= {"BAKEOFF_URL", "BAKEOFF_API_KEY"}  # the client's
    given = {*os.environ, *(name.upper() for name in secret_files())}
    return sorted(name for name in given if name.startswith("BAKEOFF_") and name not in known)


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """The settings of this process. Raises `SettingsError`, which names the variable and what it holds."""
    try:
        return Settings(_secrets_dir=secret_folders() or None)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(str(first["msg"]).removeprefix("Value error, ") + ".") from None
        name = f"BAKEOFF_{str(first['loc'][0]).upper()}"
        secret = "SecretStr" in str(Settings.model_fields[str(first["loc"][0])].annotation)
        given = "***" if secret or name.endswith("_URL") else repr(first.get("input"))
        raise SettingsError(f"{name}={given}: {first['msg']}.") from None
