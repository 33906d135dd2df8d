"""The container files against each other and against the commands; no Docker engine is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from db.registry import read_registry
from db.settings import Settings
from scheduler.local.children import children_of

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKER = CHECKOUT / "docker"
COMPOSE_TEXT = (DOCKER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def subcommand(command: list[str]) -> tuple[str, ...]:
    """`bakeoff models pull --profile demo` is the command `models pull`."""
    words = command[1:3] if command[1] in {"db", "models"} else command[1:2]
    return tuple(words)


BAKEOFF_COMMANDS = sorted({subcommand(s["command"]) for s in OURS.values() if s["command"][0] == "bakeoff"})


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    unreachable = {
        "BAKEOFF_DATABASE_URL": "postgresql://nobody:x@127.0.0.1:1/none",
        "BAKEOFF_REDIS_URL": "redis://:x@127.0.0.1:1/0",
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=CHECKOUT,
        env={**os.environ, **unreachable, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


@cache
def help_of(command: tuple[str, ...]) -> str:
    done = run("-m", "scheduler.cli", *command, "--help", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", BAKEOFF_COMMANDS, ids=" ".join)
def test_every_command_of_a_container_exists(command: tuple[str, ...]) -> None:
    assert f" {' '.join(command)} " in help_of(command)


def test_every_option_of_a_container_exists() -> None:
    for service in OURS.values():
        command = service["command"]
        if command[0] == "bakeoff":
            assert all(word in help_of(subcommand(command)) for word in command if word.startswith("--")), command


def test_flower_starts_with_these_options() -> None:
    command = SERVICES["flower"]["command"]
    assert command[:3] == ["celery", "--app=worker.app", "flower"]
    given = {option[2:].split("=")[0] for option in command[3:]}
    known = run("-c", "import flower.options as f; print(*f.options._options)").stdout
    assert given <= set(known.replace("-", "_").split())


def test_flower_asks_for_a_password_and_changes_nothing() -> None:
    flower = SERVICES["flower"]
    assert flower["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?")
    assert "--read_only=True" in flower["command"]
    assert all(port.startswith("127.0.0.1:") for port in flower["ports"])


def test_every_service_of_ours_runs_a_command_of_ours() -> None:
    for name, service in OURS.items():
        assert service["command"][0] in {"bakeoff", "celery"}, name


def test_one_service_per_process_that_up_would_start_for_the_demo() -> None:
    specs = children_of(read_registry(CHECKOUT / "models.toml"), "demo")
    wanted = {spec.command[2:] for spec in specs}
    found = {tuple(s["command"][1:]) for s in OURS.values() if not s.get("profiles") and s["restart"] != "no"}
    assert wanted == found - {tuple(SERVICES["flower"]["command"][1:])}


def test_dependencies_exist_and_are_waited_for() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, name
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[needed]["healthcheck"], needed
            else:
                assert how["condition"] == "service_completed_successfully", name
                assert SERVICES[needed]["restart"] == "no", needed


def test_build_targets_exist_and_stages_copy_from_stages() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert {service["build"]["target"] for service in OURS.values()} == {"cpu", "cuda"} <= stages
    assert set(re.findall(r"--from=(\S+)", DOCKERFILE)) <= stages
    for service in OURS.values():
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["image"] == f"bakeoff:{service['build']['target']}"


def test_what_the_build_copies_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for source in {word for line in copied for word in line.split()} - {"."}:
        assert (CHECKOUT / source).exists(), source
        assert source in kept, source
    for source in kept:
        assert (CHECKOUT / source).exists(), source


def test_images_are_pinned() -> None:
    images = [s["image"] for s in SERVICES.values() if "build" not in s]
    images += [base for base in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) if ":" in base]
    assert len(images) == 3
    for image in images:
        assert re.search(r":\d+\.\d+", image), image
    assert ":latest" not in COMPOSE_TEXT + DOCKERFILE


def test_no_secret_stands_in_the_files() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|AUTH|SECRET|_URL$", key):
                assert "${" in value, (name, key)
                assert ":?" in value, (name, key)
    example = (DOCKER / ".env.example").read_text()
    for line in example.splitlines():
        if re.match(r"(POSTGRES_PASSWORD|REDIS_PASSWORD|FLOWER_BASIC_AUTH)", line):
            assert line.endswith("="), line
    wanted = set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT))
    assert wanted == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_nothing_of_ours_runs_as_root_or_writes_to_its_image() -> None:
    last_user = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert last_user == "10001:10001"
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["stop_grace_period"], name


def test_docker_waits_longer_than_a_worker_takes_to_stop() -> None:
    for name, service in OURS.items():
        assert seconds(service["stop_grace_period"]) > Settings.model_fields["stop_seconds"].default + 5, name


def test_the_broker_forgets_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "requirepass" in command


def test_every_volume_and_network_is_declared() -> None:
    for service in SERVICES.values():
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])


def test_a_gpu_is_asked_for_only_behind_its_profile() -> None:
    with_gpu = [name for name, s in SERVICES.items() if "reservations" in s.get("deploy", {}).get("resources", {})]
    assert with_gpu == ["worker-gpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize(("question", "code"), [("", 1), ("alive", 1), ("flower", 1), ("nonsense", 2)])
def test_health_says_what_is_wrong(question: str, code: int) -> None:
    done = run("docker/health.py", *([question] if question else []), PYTHONPATH=str(CHECKOUT))
    assert done.returncode == code
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
