"""The parts of a report: one evaluation each, kept as a JSON file, so that a finished one is not run again."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from db.errors import BakeoffError, UsageError
from db.registry import read_registry
from scheduler.evaluation.attack.attacks import read_attacks
from scheduler.evaluation.attack.command import Bench, evaluated, plain_entry
from scheduler.evaluation.attack.hosts import hosts_of
from scheduler.evaluation.judges.evaluation import Options, evaluated_judge, evaluated_selection, judge_entry
from scheduler.evaluation.judges.rows import find_set, read_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from db.registry import JudgeEntry
    from db.settings import Settings

    Progress = Callable[[str, int, int], None]

SELECTION, JUDGE, ATTACK = "selection", "judge", "attack"
PREFIX = "part-"
FITTED = frozenset({"priors", "temperature"})  # of a fit's card
DIGITS = 6
PLAIN = "plain"  # among the judges attacked: the language model alone, with nothing left out of what it reads


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a report is made of. `limit`: rows reported per set; `seconds`: for everything that is still to be run."""

    judges: tuple[str, ...]
    selections: tuple[str, ...]
    pairs: tuple[str, ...]
    attacked: tuple[str, ...]
    attack_files: tuple[Path, ...]
    hosts_from: tuple[str, ...]
    judge_model: str | None = None
    excluded: tuple[str, ...] = ()
    limit: int | None = None
    hosts: int = 10
    seconds: float | None = None
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """One evaluation: what is measured, of which judge, on which sets."""

    kind: Literal["selection", "judge", "attack"]
    judge: str
    sets: tuple[str, ...]
    attacks: Path | None = None

    def name(self, model: str | None) -> str:
        """What its file is called."""
        about = [self.kind, self.judge + (f"@{model}" if model else "")]
        about += [] if self.kind == SELECTION else self.sets
        about += [] if self.attacks is None else [self.attacks.stem]
        return PREFIX + re.sub(r"[^\w.@+-]+", "_", "-".join(about))


def parts_of(wanted: Wanted) -> Iterator[Part]:
    """The parts, those that cost least first."""
    for judge in wanted.judges:
        if wanted.selections:
            yield Part(kind="selection", judge=judge, sets=wanted.selections)
        for name in wanted.pairs:
            yield Part(kind="judge", judge=judge, sets=(name,))
    for judge in wanted.attacked if wanted.hosts_from else ():
        for file in wanted.attack_files:
            yield Part(kind="attack", judge=judge, sets=wanted.hosts_from, attacks=file)


def run_parts(settings: Settings, folder: Path, wanted: Wanted, progress: Progress) -> list[str]:
    """Run what is not there yet; returns a sentence for each part that could not be run."""
    missing = []
    parts = list(parts_of(wanted))
    began = time.monotonic()
    for number, part in enumerate(parts):
        name = part.name(wanted.judge_model)
        progress(name.removeprefix(PREFIX), number, len(parts))
        key = _key(part, wanted)
        if not wanted.again and _is_there(folder / f"{name}.json", key):
            continue
        left = None if wanted.seconds is None else wanted.seconds - (time.monotonic() - began)
        if left is not None and left < 1:
            missing.append(f"{name.removeprefix(PREFIX)}: not begun, the {wanted.seconds:g} seconds were over.")
            continue
        share = None if left is None else left / (len(parts) - number)
        try:
            figures = without_parameters(_run(settings, part, wanted, share))
        except BakeoffError as error:
            missing.append(f"{name.removeprefix(PREFIX)}: {error}")
            continue
        write_json(folder / f"{name}.json", {"key": key, "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                                             "figures": figures})  # fmt: skip
    return missing


def _run(settings: Settings, part: Part, wanted: Wanted, seconds: float | None) -> dict[str, Any]:
    entry = entry_of(settings, part, wanted)
    if part.kind == ATTACK:
        if part.attacks is None:
            raise UsageError("An attack needs a file of attacks.")
        sets = [read_set(find_set(name, settings.eval_data)) for name in part.sets]
        bench = Bench(
            sets=sets,
            hosts=hosts_of(sets, "report", 4),
            attacks=read_attacks(part.attacks),
            wanted=wanted.hosts,
            candidates=4,
            seconds=seconds,
        )
        return {"judge": part.judge, "sets": list(part.sets), "file": part.attacks.name} | evaluated(
            settings, entry, bench
        )
    options = Options(judge=entry, limit=wanted.limit, seconds=seconds, excluded=wanted.excluded)
    if part.kind == JUDGE:
        return {"judge": part.judge} | evaluated_judge(settings, part.sets[0], options)
    found = evaluated_selection(settings, part.sets, options)
    return {"judge": part.judge} | (found if "sets" in found else {"sets": [found]})


def without_parameters(value: Any) -> Any:
    """Figures, rounded, without what was fitted: a report may be published where the data that taught it may not."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: without_parameters(item) for key, item in value.items() if key not in FITTED}
    return [without_parameters(item) for item in value] if isinstance(value, list | tuple) else value


def entry_of(settings: Settings, part: Part, wanted: Wanted) -> JudgeEntry:
    """The judge of a part. Raises `UsageError` for one that there is not."""
    registry = read_registry(settings.registry_file)
    if part.judge != PLAIN:
        return judge_entry(registry, part.judge, wanted.judge_model)
    plain = plain_entry(registry, judge_entry(registry, "llm", wanted.judge_model), None)
    if plain is None:
        raise UsageError("There is no language model to ask plainly.")
    return plain


def _key(part: Part, wanted: Wanted) -> dict[str, Any]:
    """What a part's figures depend on beside the code; with another key it is run again."""
    key: dict[str, Any] = {"kind": part.kind, "judge": part.judge, "model": wanted.judge_model, "sets": list(part.sets)}
    if part.kind == ATTACK and part.attacks is not None:
        return key | {"attacks": part.attacks.name, "hosts": wanted.hosts}
    return key | {"limit": wanted.limit, "excluded": list(wanted.excluded)}


def _is_there(path: Path, key: dict[str, Any]) -> bool:
    found = read_part(path)
    return found is not None and found["key"] == key and not was_cut(found["figures"])


def was_cut(figures: dict[str, Any]) -> bool:
    """Whether the seconds were over before every row was asked, or the jury could learn from all: it goes on then."""
    beside = [*figures.get("sets", ()), *([figures["blind"]] if "blind" in figures else ())]
    return figures.get("cut", False) or any(was_cut(one) for one in beside if isinstance(one, dict))


def read_part(path: Path) -> dict[str, Any] | None:
    """A finished part; None where the file is missing or is no part."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"key", "finished", "figures"} <= set(found) else None


def finished_parts(folder: Path) -> dict[str, dict[str, Any]]:
    """Every finished part of a folder, by name."""
    read = ((path, read_part(path)) for path in sorted(folder.glob(f"{PREFIX}*.json")))
    return {path.stem.removeprefix(PREFIX): found for path, found in read if found is not None}


def write_json(path: Path, value: Any) -> None:
    """Write a file as a whole: who is interrupted leaves no half of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def there(names: Sequence[str], settings: Settings) -> tuple[tuple[str, ...], list[str]]:
    """Which sets are here, and a sentence for each that is not."""
    found, missing = [], []
    for name in names:
        try:
            find_set(name, settings.eval_data)
            found.append(name)
        except UsageError as error:
            missing.append(f"{name}: {error}")
    return tuple(found), missing
