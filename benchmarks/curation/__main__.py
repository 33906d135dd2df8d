"""python -m benchmarks.curation: planted faults found again, peak memory, records per second of each stage.

Starts a Postgres of its own; no model is asked unless `--ask` says how many records a scripted reward model scores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from benchmarks.curation.generator import CLEAN, EXACT, LEAK, NEAR, check, write
from db.engine import engine_of, transaction
from scheduler.local.cluster import Cluster

if TYPE_CHECKING:
    from benchmarks.curation.generator import Planted

ROOT = Path(__file__).resolve().parents[2]
THRESHOLD = 0.8
RECIPE = """
name = "scale-{count}"
stages = ["validate", "exact", "near", "leakage"{more}]
[input]
file = "{records}"
[near]
threshold = {threshold}
[leakage]
sets = ["{items}"]
"""
REGISTRY = """
[profiles.demo]
models = ["rewarder"]
[capabilities."text-classification/question-reward"]
input = "text"
instruction = "Score the question."
judge = "number"
candidates = 1
[judges.number]
method = "scripted"
[models.rewarder]
capability = "text-classification/question-reward"
backend = "scripted"
max_batch = 64
params = { answer = "{number}" }
"""
DUPLICATES = ("exact_duplicate", "near_duplicate")


def main() -> None:
    """Run every size, print the figures, write them where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16_000, 158_000])
    parser.add_argument("--ask", type=int, default=0, help="so many records more, scored by a scripted model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bakeoff-curation-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres runs as somebody else where we are root
        cluster = Cluster(folder, REGISTRY, {})
        try:
            cluster.start_servers()
            runs = [measured(cluster, count, options.seed) for count in options.sizes]
            if options.ask:
                cluster.add("scheduler", "scheduler")
                cluster.add("worker", "worker", "rewarder", "--judge")
                cluster.wait_ready()
                runs.append(measured(cluster, options.ask, options.seed + 1, ask=True))
        finally:
            cluster.stop()
    found = {"runs": runs, "memory_ratio": round(runs[len(options.sizes) - 1]["peak_mb"] / runs[0]["peak_mb"], 3)}
    said = json.dumps(found, indent=2)
    sys.stdout.write(said + "\n")
    if options.out:
        options.out.write_text(said + "\n", encoding="utf-8")


def measured(cluster: Cluster, count: int, seed: int, *, ask: bool = False) -> dict[str, Any]:
    """One size: generated, checked, curated in a process of its own, compared with what was planted."""
    records, items, planted = write(count, cluster.folder, seed)
    greatest = check(records, planted, THRESHOLD)
    recipe = cluster.folder / f"recipe-{count}.toml"
    more = ', "questions"' if ask else ""
    recipe.write_text(
        RECIPE.format(count=count, records=records, items=items, threshold=THRESHOLD, more=more), encoding="utf-8"
    )
    started = time.monotonic()
    peak = _run(cluster, recipe)
    seconds = time.monotonic() - started
    job, fates = _stored(cluster, f"scale-{count}")
    came = {"load": count, **{one: sum(1 for stage, _ in fates if stage >= n) for n, one in enumerate(job["stages"])}}
    return {
        "records": count,
        "megabytes": round(records.stat().st_size / 1e6, 1),
        "greatest_unplanted_likeness": round(greatest, 4),
        "peak_mb": round(peak, 1),
        "seconds": round(seconds, 1),
        "stages": {
            name: {"records": came[name], "seconds": took, "per_second": round(came[name] / max(took, 1e-3))}
            for name, took in job["seconds"].items()
        },
        **compared(planted, fates),
    }


def compared(planted: list[Planted], fates: list[tuple[int, str | None]]) -> dict[str, Any]:
    """Recall by kind and level, precision by rule."""
    groups: dict[str, list[bool]] = defaultdict(list)
    by_rule: dict[str, list[bool]] = defaultdict(list)
    for one in planted:
        rule = fates[one.position][1]
        right = rules_of(one)
        groups[group_of(one)].append(rule in right if right else rule is None)
        if rule is not None and rule != "below_cut":
            by_rule["duplicates" if rule in DUPLICATES else "leak" if rule == "leak" else "noise"].append(rule in right)
    recall = {name: {"n": len(found), "share": round(sum(found) / len(found), 4)} for name, found in groups.items()}
    precision = {name: {"n": len(found), "share": round(sum(found) / len(found), 4)} for name, found in by_rule.items()}
    return {"as_it_should_be": dict(sorted(recall.items())), "precision": precision}


def rules_of(one: Planted) -> set[str]:
    """Rules that are right to drop it; none for what should stay, or what no rule knows."""
    if one.kind == EXACT or (one.kind == NEAR and (one.level or 0) >= THRESHOLD):
        return set(DUPLICATES)
    if one.kind.startswith(("noise", "unknown")):
        return {"schema", "length", "placeholder", "noise_term", "repetition", "characters"}
    return {LEAK} if one.kind == LEAK else set()


def group_of(one: Planted) -> str:
    """The kind, and the level in steps."""
    if one.kind == NEAR:
        level = one.level or 0
        steps = (0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
        step = next((step for step in steps if level >= step), 0.4)
        return f"near {step:g}" + ("" if level >= THRESHOLD else " (stays)")
    if one.kind == LEAK:
        return f"leak of {one.level:g}"
    return f"{one.kind} (stays)" if one.kind == CLEAN else one.kind


def _run(cluster: Cluster, recipe: Path) -> float:
    """Curate in a child; returns its peak resident memory in MB."""
    environment = {**os.environ, **cluster.settings().environment(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduler.cli", "curate", "run", str(recipe), "--json"],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _high_water(process.pid))
        time.sleep(0.05)  # a process leaves no high-water mark behind: it is read while it runs
    if process.returncode:
        raise RuntimeError(f"the run of {recipe.name} ended with {process.returncode}")
    return peak


def _high_water(pid: int) -> float:
    """The most resident memory of a process since it became this program: `getrusage` counts what forked it, too."""
    try:
        said = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in said.splitlines() if line.startswith("VmHWM")), 0.0)


def _stored(cluster: Cluster, name: str) -> tuple[dict[str, Any], list[tuple[int, str | None]]]:
    with transaction(engine_of(cluster.postgres.url, "benchmark")) as connection:
        job = connection.execute(
            text("SELECT id, recipe -> 'stages' AS stages, counts -> 'seconds' AS seconds FROM curation_job "
                 "WHERE name = :name"), {"name": name},
        ).one()  # fmt: skip
        rows = connection.execute(
            text("SELECT stage, rule FROM curation_record WHERE job_id = :job ORDER BY position"), {"job": job.id}
        )
        return {"stages": job.stages, "seconds": job.seconds}, [(row.stage, row.rule) for row in rows]


if __name__ == "__main__":
    main()
