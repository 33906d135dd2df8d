"""The site as `make docs` builds it: strict, whole, and without anything from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generator import __main__ as generator
from docs.generator.views import meanings
from tests.docs.blocks import ROOT

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)\"|<link[^>]*\shref=\"([^\"]+)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pages, the reference made anew beside it, and the strict build of both."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "benchmarks/results", "client", "examples", "docker"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "reference"))
    for name in ("db", "migrations", "scheduler", "tests", "worker"):
        (folder / name).symlink_to(ROOT / name)
    for file in [
        *ROOT.glob("*.md"),
        ROOT / "models.toml",
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
        ROOT / "LICENSE",
    ]:
        shutil.copy(file, folder)
    generator.write(folder / "docs" / "reference")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "site"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))

    loaded = {found[1] or found[2] for page in pages for found in LOADED.finditer(page.read_text())}
    assert len(pages) > 30
    assert not [address for address in loaded if address.startswith(("http:", "https:", "//"))]
    styles = "".join(style.read_text() for style in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(https?:)?//|@import", styles)


def test_search_has_an_index_that_a_folder_serves(site: Path) -> None:
    index = (site / "searchindex.js").read_text()

    assert index.startswith("Search.setIndex(")  # a script, not a file to fetch: it works from file://
    assert "quickstart" in index
    assert "krippendorff" in index


@pytest.mark.parametrize("name", ["cli", "http", "settings", "models", "recipe", "schema", "metrics"])
def test_each_page_of_the_reference_is_there(site: Path, name: str) -> None:
    assert "<table" in (site / "reference" / f"{name}.html").read_text()


def test_the_views_of_the_database_say_what_the_contract_says(site: Path) -> None:
    views = (site.parent / "docs" / "reference" / "schema.md").read_text().partition("## Tables")[0]

    assert re.findall(r"^### (\w+)$", views, re.MULTILINE) == sorted(meanings())
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| *(.*?) *\|$", views, re.MULTILINE)
    assert sorted(rows) == sorted(row for said in meanings().values() for row in said.items() if row[0])


def test_schema_and_metrics_come_from_a_database(site: Path) -> None:
    assert "finished_xid" in (site / "reference" / "schema.html").read_text()
    assert "bakeoff_backlog_oldest_seconds" in (site / "reference" / "metrics.html").read_text()
