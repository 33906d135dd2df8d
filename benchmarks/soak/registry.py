"""The installation that is put under load: scripted models, short settings, two schedulers."""

from __future__ import annotations

from types import MappingProxyType

#: Seconds per input of each model, in the order in which the selector takes them; the last one is the spare.
MODELS = MappingProxyType({"alpha": 0.02, "beta": 0.03, "gamma": 0.04, "delta": 0.06})
JUDGE_SECONDS = 0.005
SCHEDULERS = ("scheduler-1", "scheduler-2")

#: Short, so that minutes show what takes hours otherwise.
SETTINGS = MappingProxyType(
    {
        "BAKEOFF_LEASE_SECONDS": "10",
        "BAKEOFF_LOST_AFTER": "2",
        "BAKEOFF_JUDGE_GRACE": "1",
        "BAKEOFF_HEARTBEAT_SECONDS": "1",
        "BAKEOFF_WORKER_TIMEOUT": "5",
        "BAKEOFF_RETRY_DELAY": "0.2",
        "BAKEOFF_BIND_WAIT": "10",
        "BAKEOFF_PROBE_SECONDS": "5",
        "BAKEOFF_STOP_SECONDS": "5",
        "BAKEOFF_SETTLE_SECONDS": "1",
        "BAKEOFF_INTAKE_VISIBILITY": "5",
        "BAKEOFF_START_ALLOWANCE": "5",
    }
)

_HEAD = """
[profiles.demo]
models = [{names}]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"
timeout = 10
params = {{ sleep = {judge_seconds} }}
"""

_MODEL = """
[models.{name}]
capability = "text-generation"
backend = "scripted"
priority = {priority}
timeout = 10
max_batch = {wave}
memory_mb = 64
params = {{ answer = "{name}: {{text}}", rules = [{{ match = "", sleep = {seconds} }}] }}
"""


def settings(wave: int) -> dict[str, str]:
    """The settings, for waves of at most `wave` subtasks."""
    return {**SETTINGS, "BAKEOFF_WAVE_SIZE": str(wave)}


def registry(wave: int) -> str:
    """The registry as TOML; no model takes more than a wave at once."""
    names = ", ".join(f'"{name}"' for name in MODELS)
    models = [
        _MODEL.format(name=name, priority=priority, seconds=seconds, wave=wave)
        for priority, (name, seconds) in enumerate(MODELS.items(), 1)
    ]
    return _HEAD.format(names=names, judge_seconds=JUDGE_SECONDS) + "".join(models)


def members() -> dict[str, tuple[str, ...]]:
    """Every process and its command."""
    return {
        **dict.fromkeys(SCHEDULERS, ("scheduler",)),
        "judge": ("worker", "--judge", "--name", "judge"),
        "intake": ("worker", "--intake", "--name", "intake"),
        **{name: ("worker", name, "--name", name) for name in MODELS},
    }
