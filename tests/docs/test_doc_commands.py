"""Every block of every page that a reader may copy runs here as it stands: commands, statements, programs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import make_installation
from tests.docs.blocks import Block, blocks
from tests.docs.files import make_files
from tests.docs.installed import World, as_toml, free_port, registry
from tests.unit.tiny_models import bert

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

#: Pages with tests of their own.
ELSEWHERE = {"README.md", "examples/README.md", "docs/quickstart.md"}

#: What one worker holds beside those of text.
SEVERAL = ("reader-a", "reader-b", "hearer", "lonely", "whisper-small", "internvl3.5-8b-caption")


def to_run(language: str) -> list[Block]:
    return [one for one in blocks(language) if one.page not in ELSEWHERE and not one.not_run]


@pytest.fixture(scope="module")
def world(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A scheduler, a judge, the intake, planner, one worker with models of each kind, the API, and files."""
    models = as_toml(registry(bert(tmp_path_factory.mktemp("encoder"))))
    for made in make_installation(servers, tmp_path_factory.mktemp("pages"), template, models):
        folder = tmp_path_factory.mktemp("work")
        make_files(folder)
        made.work_folder = folder
        made.settings |= {
            "BAKEOFF_SETTLE_SECONDS": "1",
            "BAKEOFF_EVAL_DATA": str(folder),
            "BAKEOFF_CURATION_FOLDER": str(folder),
            "BAKEOFF_WEBHOOK_HOSTS": "hooks.example.com",
            "BAKEOFF_CALLBACKS": "shop.finished@shop",
            "BAKEOFF_BLOB_URL": str(folder / "blobs"),
        }
        made.start("intake", "worker", "--intake")
        made.start("planner", "worker", "--planner", "--integrator")
        made.start_all(["alpha", "beta", "gamma"])
        made.start("several", "worker", *SEVERAL, "--name", "several")
        made.wait_ready(8)
        running = World(made, folder, free_port())
        running.api()
        learned = made.run("preferences", "import", "labels.jsonl", "-c", "text-generation")
        assert learned.code == 0, learned.err
        for capability in ("image-to-text/ocr", "image-to-text/caption"):
            done = made.run("submit", "-c", capability, "--attach", "page.png", "--wait")
            assert done.code == 0, done.err
        yield running


@pytest.mark.parametrize("block", to_run("sh"), ids=str)
def test_a_script_of_a_page_runs(world: World, block: Block) -> None:
    world.run_script(block.text)


@pytest.mark.parametrize("block", to_run("sql"), ids=str)
def test_a_statement_of_a_page_runs(world: World, block: Block) -> None:
    for statement in filter(str.strip, block.text.split(";\n")):
        done = world.installation.run("sql", statement.strip().rstrip(";"), "--write")

        assert done.code == 0, f"{statement}\n{done.err}"


@pytest.mark.parametrize("block", to_run("python"), ids=str)
def test_a_program_of_a_page_runs(world: World, block: Block) -> None:
    program = block.text.replace("http://127.0.0.1:8000", world.url)

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=world.environment, cwd=world.folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip

    assert done.returncode == 0, f"{program}\n{done.stderr[-2000:]}"
