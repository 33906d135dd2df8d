"""The wheel that the Dockerfile builds, from what enters the build, in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.compose import CHECKOUT, DOCKER
from tests.conftest import _own_database

pytestmark = [pytest.mark.integration, pytest.mark.deploy, pytest.mark.timeout(1200)]

PACKAGES = ("db", "worker", "scheduler", "migrations")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as in the image: `pip install --no-deps .` on the files that the .dockerignore lets through."""
    context, out = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("wheel")
    for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines():
        if not line.startswith("!"):
            continue
        source, target = CHECKOUT / line[1:], context / line[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            shutil.copy(source, target)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out, context], check=True)
    (built,) = out.glob("bakeoff-*.whl")
    return built


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = set(ZipFile(wheel).namelist())

    wanted = {
        str(file.relative_to(CHECKOUT))
        for package in PACKAGES
        for file in (CHECKOUT / package).rglob("*")
        if file.is_file()
        and not any(part.startswith((".", "__pycache__")) for part in file.parts[len(CHECKOUT.parts) :])
    }
    assert {name for name in wanted if name.endswith((".j2", ".css", ".toml", ".mako"))}
    assert wanted - held == set()
    assert "db/models.toml" in held
    assert {name.split("/")[0] for name in held if ".dist-info/" not in name} == set(PACKAGES)


def test_it_works_where_nothing_else_of_this_checkout_is(wheel: Path, servers: tuple[str, str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # those of this environment
    install = ["-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--force-reinstall", wheel]
    subprocess.run([sys.executable, *install], check=True)

    def run(*command: str | Path, database: str = "") -> str:
        environment = {"PATH": f"{tmp_path}/env/bin:/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "200"}
        if database:
            environment["BAKEOFF_DATABASE_URL"] = database
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(site) in run(python, "-c", "import scheduler; print(scheduler.__file__)")
    assert "worker" in run("bakeoff", "--help")
    with _own_database(servers[0]) as database:
        assert "The schema is at" in run("bakeoff", "db", "upgrade", database=database)
        assert "rapidocr" in run("bakeoff", "models", "--json", database=database)
