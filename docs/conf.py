"""How `make docs` builds the site: nothing comes from elsewhere, and search works from a folder, without a server."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs.generator import outside  # noqa: E402 - Sphinx runs this file from anywhere

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Bakeoff"
release = version = installed_version("bakeoff")
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"Bakeoff {release}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
exclude_patterns = ["generator", "results"]
myst_heading_anchors = 4
nitpicky = True


def _turn_links(_: Sphinx, page: str, source: list[str]) -> None:
    """Links of a page to files that are pages of the site, too."""
    folder = (DOCS / page).parent
    source[0] = outside.turned(source[0], folder, folder)


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    outside.write(DOCS / "repository")
    app.connect("source-read", _turn_links)
