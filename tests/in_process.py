"""Commands of `bakeoff` run in the process of the test: quicker than a process of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from db.settings import load_settings
from scheduler import cli

Ran = Callable[..., tuple[int, str, str]]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Runs a command as `bakeoff` does: (exit code, standard output, standard error on one line)."""
    monkeypatch.setattr(cli, "_begin", lambda: None)  # logs stay pytest's

    def ran(*arguments: str) -> tuple[int, str, str]:
        load_settings.cache_clear()
        monkeypatch.setattr(sys, "argv", ["bakeoff", *arguments])
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            load_settings.cache_clear()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(str(ended.value.code)), said.out, " ".join(said.err.split())

    return ran
