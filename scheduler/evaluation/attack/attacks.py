"""Hostile answers by family: what is put around a losing answer, or in its place. JSON lines: id, family, text.

`{output}` in a text stands for the losing answer and `{request}` for the caller's words; a text without `{output}`
replaces the answer. A file of one's own keeps families from whoever writes the defence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from db.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

OURS = Path(__file__).parent / "attacks.jsonl"
#: Families that the writers of the defence had not seen when it was measured. Whoever reads them to improve the defence
#: has to write others.
HELD_OUT = Path(__file__).parent / "held_out.jsonl"
PACKAGED = {"known": OURS, "held-out": HELD_OUT}


def attack_file(given: str) -> Path:
    """A file of attacks: one of ours by its name, or a path."""
    return PACKAGED.get(given, Path(given))


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One hostile text."""

    id: str
    family: str
    text: str

    def on(self, output: str, request: str) -> str:
        """The losing answer with the attack."""
        parts = self.text.replace("{request}", request).split("{output}")
        return output.join(parts)


def read_attacks(path: Path, families: Collection[str] = (), without: Collection[str] = ()) -> list[Attack]:
    """The attacks of a file, of these families only and without those. Raises `UsageError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"--attacks = {str(path)!r} cannot be read ({error.strerror}).") from None
    attacks = [_attack(path, number, line) for number, line in enumerate(lines, 1)]
    there = {attack.family for attack in attacks}
    unknown = sorted({*families, *without} - there)
    if unknown:
        raise UsageError(f"--families names {', '.join(unknown)}; there are: {', '.join(sorted(there))}.")
    kept = [one for one in attacks if (not families or one.family in families) and one.family not in without]
    if not kept:
        raise UsageError("--families and --without leave no attack.")
    return kept


def _attack(path: Path, number: int, line: str) -> Attack:
    try:
        read = json.loads(line)
        return Attack(id=str(read["id"]), family=str(read["family"]), text=str(read["text"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}, line {number}: no attack with id, family, text ({error!r}).") from None
