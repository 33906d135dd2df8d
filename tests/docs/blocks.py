"""The fenced blocks of all pages, as they stand there.

A block that a reader may copy is run: `sh` against a running installation, `sql` in its database, `python` as a program of
its own; `toml`, `json` and `yaml` are read by what reads them. What is shown only is `text`. A block that cannot run here
says why behind its language, which no page shows:

    ```sh not run: needs two machines

`TASK`, `SUBTASK` and other stand-ins are filled in (`tests.docs.installed.STAND_INS`), files that pages name are there
(`tests.docs.files`), and models that a page writes into a table answer as a script says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=ticks)[ ]*$", re.MULTILINE | re.DOTALL)
NOT_RUN = "not run:"
#: Shown, not run: what something prints, drawings, files of tools that are not ours.
SHOWN = {"text", "console", "mermaid", "dockerfile", "ini", "nginx", "http"}
RUN = {"sh", "sql", "python", "toml", "json", "yaml"}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block: where it stands, its language, and why it is not run, where it says so."""

    page: str
    line: int
    language: str
    not_run: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that people read, but those that are made when the site is built."""
    made = (ROOT / "docs" / "reference", ROOT / "docs" / "repository")
    inside = [path for path in (ROOT / "docs").rglob("*.md") if not path.is_relative_to(made[0])]
    inside = [path for path in inside if not path.is_relative_to(made[1])]
    names = ("README.md", "CHANGELOG.md", "SECURITY.md", "docker/README.md", "client/README.md", "examples/README.md")
    return sorted(inside) + [ROOT / name for name in names if (ROOT / name).is_file()]


def blocks(*languages: str) -> list[Block]:
    """The blocks of these languages, or all, of every page."""
    return [block for page in pages() for block in blocks_of(page) if not languages or block.language in languages]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of one page. Directives of the site (`{toctree}`) are none."""
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        if not language.startswith("{"):
            found.append(
                Block(
                    page=str(page.relative_to(ROOT)),
                    line=text.count("\n", 0, match.start()) + 1,
                    language=language,
                    not_run=rest.partition(NOT_RUN)[2].strip() if rest.startswith(NOT_RUN) else "",
                    text=match["text"],
                )
            )
    return found
