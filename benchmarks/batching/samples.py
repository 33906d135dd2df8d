"""One input, as a task and as the backend gets it, and the file by which processes hand inputs on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.media import sniff
from scheduler.submit import NewTask, Upload
from worker.backends import File, Input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.registry import CapabilityEntry


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A text, or the path of a file."""

    text: str = ""
    path: str = ""

    def as_input(self, capability: CapabilityEntry) -> Input:
        """What a worker hands to the backend; the file is in memory then."""
        files: tuple[File, ...] = ()
        if self.path:
            data = Path(self.path).read_bytes()
            files = (File(name=Path(self.path).name, media_type=sniff(data), data=data),)
        return Input(text=self.text, instruction=capability.instruction, files=files)

    def as_task(self, capability: str, source: str) -> NewTask:
        """What another system submits; a file goes along as an upload."""
        path = Path(self.path)
        uploads = [Upload(name=path.name, data=path.read_bytes())] if self.path else []
        return NewTask(request=self.text, capability=capability, source=source, attachments=uploads)


def write_samples(samples: Sequence[Sample], path: Path) -> Path:
    """Write samples where another process reads them. Returns the path."""
    path.write_text(json.dumps([asdict(sample) for sample in samples]))
    return path


def read_samples(path: Path) -> list[Sample]:
    """What `write_samples` wrote."""
    return [Sample(**item) for item in json.loads(path.read_text())]
