"""The Chromium of this machine, for pictures and for the tests of pages: Playwright drives it, and downloads none."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"No Chromium: set BAKEOFF_BROWSER to one, or put {', '.join(NAMES)} on the PATH."


def browser_path() -> str | None:
    """BAKEOFF_BROWSER, else the first on the PATH."""
    return os.environ.get("BAKEOFF_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def browser_arguments() -> list[str]:
    """What it is started with: it talks to nobody of its own accord, and as root it cannot have a sandbox."""
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking"]
    return [*quiet, "--no-sandbox"] if os.geteuid() == 0 else quiet
