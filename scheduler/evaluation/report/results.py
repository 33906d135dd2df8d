"""What a report says beside its figures: when, with which code, which models and which data."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.errors import UsageError
from db.registry import read_registry
from scheduler.evaluation.judges.rows import find_set, read_set

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from db.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
GIT_WITHIN = 10.0


def results_of(settings: Settings, parts: Mapping[str, dict[str, Any]], missing: Sequence[str]) -> dict[str, Any]:
    """The document of a report, as JSON has it."""
    sets = sorted({name for part in parts.values() for name in part["key"]["sets"]})
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "models": models_of(settings, parts),
        "sets": [about for name in sets if (about := about_set(settings, name)) is not None],
        "missing": list(missing),
        "parts": dict(parts),
    }


def commit() -> str | None:
    """The commit of the code, with a `+` where files were changed since; None outside of a checkout."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    said = []
    for arguments in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        done = subprocess.run(  # noqa: S603 - fixed arguments
            [git, "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=GIT_WITHIN, check=False
        )
        if done.returncode:
            return None
        said.append(done.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def models_of(settings: Settings, parts: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every language model that was asked: its identity holds the hash of its weights."""
    known = read_registry(settings.registry_file).models
    found = sorted({identity for part in parts.values() for identity in _identities(part["figures"])})
    out = []
    for identity in found:
        entry = known.get(identity.partition("@")[0])
        hashes = getattr(entry.source, "sha256", {}) if entry is not None else {}
        out.append({"identity": identity, "source": str(entry.source) if entry else "", "sha256": dict(hashes)})
    return out


def _identities(figures: Any) -> Iterator[str]:
    if isinstance(figures, dict):
        if isinstance(figures.get("judge_model"), str):
            yield figures["judge_model"]
        for value in figures.values():
            yield from _identities(value)
    elif isinstance(figures, list):
        for value in figures:
            yield from _identities(value)


def about_set(settings: Settings, name: str) -> dict[str, Any] | None:
    """How large a set is, and the hash of its file; None where it is gone."""
    try:
        path = find_set(name, settings.eval_data)
        read = read_set(path)
    except UsageError:
        return None
    return {
        "set": read.name,
        "rows": len(read.rows),
        "groups": len({row.group for row in read.rows}),
        "answers": max(len(row.answers) for row in read.rows),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "note": read.kind.note,
    }
