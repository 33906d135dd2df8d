"""Pages of the site that stand elsewhere in the repository: README, changelog, the pages beside docker/ and examples/.

They are copied to docs/repository when the site is built, with their links turned to where they lie then.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
#: file of the repository → page of the site
PAGES = {
    "README.md": "readme",
    "CHANGELOG.md": "changelog",
    "SECURITY.md": "security",
    "docker/README.md": "containers",
    "client/README.md": "client",
    "examples/README.md": "examples",
}
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def turned(text: str, origin: Path, target: Path) -> str:
    """A page's text with its relative links changed from the folder `origin` to the folder `target`."""
    return LINK.sub(lambda found: f"{found[1]}{_turned(found[2], origin, target)}{found[3]}", text)


def _turned(link: str, origin: Path, target: Path) -> str:
    if "://" in link or link.startswith(("mailto:", "/")):
        return link
    file = (origin / link).resolve()
    page = PAGES.get(os.path.relpath(file, ROOT))
    wanted = file if page is None else DOCS / "repository" / f"{page}.md"
    return os.path.relpath(wanted, target)


def write(folder: Path) -> None:
    """Copy those pages that exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        if (file := ROOT / name).is_file():
            (folder / f"{page}.md").write_text(turned(file.read_text(), file.parent, folder))
