"""What a judge has of a subtask's files: the files themselves where its model can see or hear them, else what models
said of them in the same task, else nothing; and which of these it was goes into the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.states import Seen

if TYPE_CHECKING:
    from worker.backends import File


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a model said of a file: `what` it is (a transcript, a caption, text read in it)."""

    what: Seen
    text: str


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One file of a subtask. `kind` is image or audio, or file where it is neither; `file` only where it is shown."""

    kind: str
    file: File | None = None
    said: tuple[Said, ...] = ()

    @property
    def seen(self) -> Seen:
        """What the judge has of it."""
        if self.file is not None:
            return Seen.AUDIO if self.kind == "audio" else Seen.IMAGE
        return self.said[0].what if self.said else Seen.UNSEEN


@dataclass(frozen=True, kw_only=True)
class Exhibits:
    """The files of a subtask, in the order of its inputs."""

    items: tuple[Exhibit, ...]

    @property
    def files(self) -> tuple[File, ...]:
        """Those that are shown."""
        return tuple(item.file for item in self.items if item.file is not None)

    @property
    def seen(self) -> Seen:
        """What the judge has of all of them: one that it has nothing of is what counts."""
        all_seen = [item.seen for item in self.items]
        return Seen.UNSEEN if Seen.UNSEEN in all_seen else all_seen[0]
