"""The manifests of docs/kubernetes.md: what Kubernetes allows, what our commands take, and what the scaler's queries count."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from sqlalchemy import Connection, Engine, text

from db.registry import read_registry
from db.roles import create_roles
from db.settings import Settings
from scheduler.local.children import GIVE_BACK_SECONDS
from tests.compose import CHECKOUT, SETTINGS, parsed
from tests.conftest import Installation, wait_until

PAGE = (CHECKOUT / "docs" / "kubernetes.md").read_text()
MANIFESTS: list[dict[str, Any]] = [
    document
    for block in re.findall(r"^```yaml[^\n]*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for document in yaml.safe_load_all(block)
]
KEDA = "keda.sh/v1alpha1"
NAMES = [f"{one['kind']} {one['metadata']['name']}" for one in MANIFESTS]
WORKLOADS = [one for one in MANIFESTS if one["kind"] in {"Deployment", "Job"}]
SCALED = [one for one in MANIFESTS if one["kind"] == "ScaledObject"]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in MANIFESTS if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for workload in WORKLOADS:
        for container in (*pod(workload)["containers"], *pod(workload).get("initContainers", ())):
            yield workload["metadata"]["name"], container


@pytest.mark.parametrize(
    "manifest", [one for one in MANIFESTS if one["apiVersion"] != KEDA], ids=lambda one: one["kind"]
)
def test_a_manifest_is_what_kubernetes_allows(manifest: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(manifest, "1.36", strict=True)


def test_a_misspelt_field_would_be_noticed() -> None:
    import kubernetes_validate

    wrong = {**named("Deployment", "api"), "spec": {**named("Deployment", "api")["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.36", strict=True)


def test_there_is_one_of_each_that_a_deployment_needs() -> None:
    kinds = {one["kind"] for one in MANIFESTS}
    assert kinds >= {"Deployment", "Service", "Job", "Secret", "PodDisruptionBudget", "NetworkPolicy", "ScaledObject"}
    assert len(NAMES) == len(set(NAMES))


def test_containers_run_our_commands_with_our_settings() -> None:
    registry = read_registry(CHECKOUT / "models.toml")
    for name, container in containers():
        asked = parsed(container["command"]).params
        for model in asked.get("models") or asked.get("names") or ():
            assert model in registry.models, name
        assert container["envFrom"] == [{"configMapRef": {"name": "bakeoff"}}], name
    given = named("ConfigMap", "bakeoff")["data"]
    files = set(named("Secret", "bakeoff")["stringData"])
    only_api = set(named("Secret", "bakeoff-api")["stringData"])
    assert set(given) | {file.upper() for file in files | only_api if file.startswith("bakeoff_")} <= SETTINGS
    for mentioned in re.findall(r"/run/secrets/bakeoff/([\w.]+)", str(given)):
        assert mentioned in files
    for _, container in containers():
        assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]}["secrets"] == given["BAKEOFF_SECRETS"]


def test_only_the_api_reads_the_key_that_opens_it() -> None:
    assert set(named("Secret", "bakeoff-api")["stringData"]) == {"bakeoff_api_first_key"}
    readers = [work["metadata"]["name"] for work in WORKLOADS if "bakeoff-api" in str(pod(work)["volumes"])]
    assert readers == ["api"]


def test_nothing_runs_as_root_or_writes_to_its_image_or_talks_to_the_cluster() -> None:
    for workload in WORKLOADS:
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert "tmp" in volumes
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_selectors_find_their_pods_and_ports_their_containers() -> None:
    labels = {w["metadata"]["name"]: w["spec"]["template"]["metadata"]["labels"] for w in WORKLOADS}
    for one in MANIFESTS:
        name, spec = one["metadata"]["name"], one.get("spec", {})
        if one["kind"] in {"Deployment", "PodDisruptionBudget"}:
            assert spec["selector"]["matchLabels"] == labels[name]
        if one["kind"] == "Service":
            assert spec["selector"] == labels[name]
            (port,) = pod(named("Deployment", name))["containers"][0]["ports"]
            assert spec["ports"][0]["targetPort"] == port["name"]
            assert str(port["containerPort"]) in pod(named("Deployment", name))["containers"][0]["command"]
        if one["kind"] == "NetworkPolicy":
            wanted = spec["podSelector"]["matchLabels"].items()
            assert any(wanted <= found.items() for found in labels.values()), name
        if one["kind"] == "PodDisruptionBudget":
            assert spec["minAvailable"] < named("Deployment", name)["spec"]["replicas"]


def test_probes_ask_what_health_py_and_the_api_answer() -> None:
    for workload in WORKLOADS:
        for container in pod(workload)["containers"]:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind, {})
                if "exec" in probe:
                    assert probe["exec"]["command"][:2] == ["python", "/opt/bakeoff/health.py"]
                    assert probe["exec"]["command"][2:] in (["alive"], ["ready"])
                elif probe:
                    assert probe["httpGet"]["path"] in {"/healthz", "/readyz"}
            if workload["kind"] == "Deployment":
                assert "readyz" not in str(container["livenessProbe"])  # a restart brings no Postgres back


def test_a_pod_gets_longer_than_a_process_takes_to_stop() -> None:
    longest = Settings.model_fields["stop_seconds"].default + GIVE_BACK_SECONDS
    for workload in WORKLOADS:
        if workload["kind"] == "Deployment":
            assert pod(workload)["terminationGracePeriodSeconds"] > longest


def test_scaled_objects_name_what_there_is() -> None:
    for scaled in SCALED:
        spec = scaled["spec"]
        target = named("Deployment", spec["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]
        assert spec["cooldownPeriod"] > Settings.model_fields["bind_wait"].default
        for trigger in spec["triggers"]:
            assert trigger["type"] == "postgresql"
            authentication = named("TriggerAuthentication", trigger["authenticationRef"]["name"])
            for reference in authentication["spec"]["secretTargetRef"]:
                assert reference["key"] in named("Secret", reference["name"])["stringData"]
            assert all(isinstance(value, str) for value in trigger["metadata"].values())


QUERIES = [trigger["metadata"]["query"] for scaled in SCALED for trigger in scaled["spec"]["triggers"]]

MODELS = """
INSERT INTO model (name, capability, backend, source, queue, status)
SELECT name, 'text-generation', 'scripted', 'none', 'model.' || name, 'active'
FROM unnest(ARRAY['smollm2-135m', 'other']) AS m (name)
"""
READY = """
WITH t AS (INSERT INTO task (request, status) VALUES ('x', 'running') RETURNING id)
INSERT INTO subtask (task_id, position, name, capability, inputs, source, priority, candidates_wanted, judge, status, options)
SELECT id, 0, 'only', :capability, '[]', 'sql', 0, 1, 'longest', :status, CAST(:options AS jsonb) FROM t RETURNING id
"""
SENT = """
INSERT INTO candidate (subtask_id, model, rank, status, message_id, sent_at, output, finished_at)
VALUES (:subtask, :model, 0, :status, gen_random_uuid(), now(), CASE WHEN :status = 'done' THEN 'x' END,
        CASE WHEN :status = 'done' THEN now() END)
"""


def subtask(
    connection: Connection, status: str = "ready", *, capability: str = "text-generation", models: str = "[]"
) -> Any:
    options = f'{{"models": {models}}}'
    values = {"capability": capability, "status": status, "options": options}
    return connection.execute(text(READY), values).scalar_one()


def waiting(connection: Connection, model: str = "smollm2-135m") -> int:
    query = QUERIES[0].replace("smollm2-135m", model)
    return int(connection.execute(text(query.replace("::", "\\:\\:"))).scalar_one())


@pytest.mark.integration
def test_the_queries_count_what_waits_for_a_model_that_nobody_serves_too(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text(MODELS))
        assert waiting(connection) == 0
        for _ in range(3):
            subtask(connection)
        subtask(connection, models='["other"]')
        subtask(connection, capability="image-to-text/ocr")
        assert (waiting(connection), waiting(connection, "other")) == (3, 4)

        for status in ("sent", "done"):
            running = subtask(connection, "running")
            connection.execute(text(SENT), {"subtask": running, "model": "smollm2-135m", "status": status})
        assert (waiting(connection), waiting(connection, "other")) == (4, 4)
        judge = int(connection.execute(text(QUERIES[1].replace("::", "\\:\\:"))).scalar_one())
        assert judge == 1

        for status, expected in (("draining", 1), ("suspended", 2), ("paused", 0)):
            connection.execute(
                text("UPDATE model SET status = :s, reason = 'why' WHERE name = 'smollm2-135m'"), {"s": status}
            )
            assert waiting(connection) == expected, status


@pytest.mark.integration
def test_the_reading_role_may_ask(database: Engine) -> None:
    with database.begin() as connection:
        _, read = create_roles(connection)
        connection.execute(text(f'SET LOCAL ROLE "{read}"'))
        for query in QUERIES:
            assert connection.execute(text(query.replace("::", "\\:\\:"))).scalar_one() == 0


@pytest.mark.integration
def test_planners_and_integrators_have_a_row_of_their_own(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("INSERT INTO task (request, status) VALUES ('a', 'planning'), ('b', 'planning')"))

        rows = connection.execute(text("SELECT queue, waiting, running FROM backlog WHERE model IS NULL")).all()

        assert {tuple(row) for row in rows} == {("judge", 0, 0), ("planner", 2, 0), ("integrator", 0, 0)}


@pytest.mark.integration
@pytest.mark.deploy
@pytest.mark.timeout(600)
def test_a_capability_that_sleeps_is_woken_and_one_model_of_it_takes_everything(installation: Installation) -> None:
    def waiting_for() -> dict[str, int]:
        rows = installation.query("SELECT model, waiting FROM backlog WHERE model IN ('alpha', 'beta', 'gamma')")
        return {row.model: row.waiting for row in rows}

    installation.start("scheduler", "scheduler")
    installation.query(
        "INSERT INTO task (request, capability) VALUES ('a', 'text-generation'), ('b', 'text-generation')"
    )
    wait_until(lambda: waiting_for() == {"alpha": 2, "beta": 2, "gamma": 2}, 60, installation.logs)

    installation.start("beta", "worker", "beta", "--judge")
    done = "SELECT count(*) AS n FROM task WHERE status = 'done'"
    wait_until(lambda: installation.query(done)[0].n == 2, 60, installation.logs)

    assert waiting_for() == {"alpha": 0, "beta": 0, "gamma": 0}
    assert [row.model for row in installation.query("SELECT model FROM candidate")] == ["beta", "beta"]
