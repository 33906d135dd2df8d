"""The floors: db <- worker <- scheduler, and no torch where no model runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "db": {"worker", "scheduler", "benchmarks"},
    "worker": {"scheduler", "benchmarks"},
    "scheduler": {"benchmarks"},
}


def imported_by(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_a_floor_imports_only_what_lies_below(floor: str) -> None:
    for path in (ROOT / floor).rglob("*.py"):
        above = imported_by(path) & FORBIDDEN[floor]
        assert not above, f"{path.relative_to(ROOT)} imports {above}"


@pytest.mark.parametrize(
    "module", ["db.schema", "worker.app", "worker.run", "scheduler.loop", "scheduler.cli", "scheduler.local.up"]
)
def test_no_heavy_library_is_imported(module: str) -> None:
    heavy = "{'torch', 'transformers', 'onnxruntime', 'numpy', 'cv2'}"
    script = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
