"""Links of the pages lead somewhere: files that exist, headings that are there. Addresses elsewhere are only read."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.blocks import FENCE, ROOT, pages

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
MADE = "docs/reference/"  # pages that `make docs` writes; Sphinx checks what leads there


def prose(path: Path) -> str:
    """A page without its code."""
    return CODE.sub("", FENCE.sub("", path.read_text()))


def links(path: Path) -> list[str]:
    return LINK.findall(prose(path))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as the site and repository hosts make them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", path.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").lower()
        base = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        name, number = base, 0
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.add(name)
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    broken = [
        link for link in links(page) if "://" not in link and not link.startswith("mailto:") and not leads(page, link)
    ]

    assert not broken


def leads(page: Path, link: str) -> bool:
    place, _, anchor = link.partition("#")
    target = (page.parent / place).resolve() if place else page
    if not target.is_relative_to(ROOT):
        return False
    if str(target.relative_to(ROOT)).startswith(MADE):
        return target.suffix == ".md"
    return target.exists() and (not anchor or anchor in anchors(target))


def test_links_to_elsewhere_are_addresses() -> None:
    found = {link for page in pages() for link in links(page) if "://" in link}

    wrong = [link for link in found if urlsplit(link).scheme != "https" or "." not in (urlsplit(link).hostname or "")]
    assert not wrong, "a page that people read links over https"


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    readme = ROOT / "README.md"

    assert leads(readme, "docs/api.md#keys")
    assert not leads(readme, "docs/api.md#no-such-heading")
    assert not leads(readme, "docs/no-such-page.md")
    assert not leads(readme, "../elsewhere.md")
