"""The registry of the fault suite: scripted models and judges that do harm where a request asks them to.

One registry serves every test, so that processes are started once: a request without a magic word is answered in
`SECONDS` per model, a request with one hits the rule of that word. What lies in `switches` fails only while the test
keeps the file of that name there.
"""

from __future__ import annotations

from pathlib import Path

SECONDS = 0.03  # of each model per input, so that 200 tasks keep every worker busy for some seconds
JUDGE_SECONDS = 0.01

#: Models that run by default, in the order in which the selector takes them.
MODELS = ("alpha", "beta", "gamma")
#: Models whose messages carry 32 inputs; each lives in the process of its namesake.
WIDE = {"alpha": "wide-alpha", "beta": "wide-beta", "gamma": "wide-gamma"}
#: What the judges do that a request may name.
JUDGES = ("raise", "garbage", "hang", "unreachable", "exit")

_TEMPLATE = """
[profiles.demo]
models = ["alpha", "beta", "gamma", "wide-alpha", "wide-beta", "wide-gamma", "thinker"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[capabilities."text-generation/wide"]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"
params = {{ sleep = {judge_seconds} }}

[models.alpha]
capability = "text-generation"
backend = "scripted"
priority = 1
timeout = 3
max_attempts = 2
memory_mb = 64

[models.alpha.params]
answer = "alpha: {{text}}"
rules = [
  {{ match = "alpha raises", fail = "raise" }},
  {{ match = "alpha hangs", fail = "hang" }},
  {{ match = "alpha holds the lock", fail = "hang-gil" }},
  {{ match = "alpha allocates", fail = "allocate" }},
  {{ match = "alpha returns nothing", fail = "nothing" }},
  {{ match = "alpha says too much", answer_mb = 50 }},
  {{ match = "", sleep = {seconds}, fail = "model", fail_while = "{switches}/alpha-is-broken" }},
]

[models.beta]
capability = "text-generation"
backend = "scripted"
priority = 2
timeout = 3
memory_mb = 64
params = {{ answer = "beta says more: {{text}}", rules = [{{ match = "", sleep = {seconds} }}] }}

[models.gamma]
capability = "text-generation"
backend = "scripted"
priority = 3
timeout = 3
memory_mb = 64
params = {{ answer = "{{text}}", rules = [{{ match = "", sleep = {seconds} }}] }}

[models.wide-alpha]
capability = "text-generation/wide"
backend = "scripted"
priority = 1
timeout = 20
max_batch = 32
memory_mb = 64

[models.wide-alpha.params]
answer = "alpha: {{text}}"
rules = [
  {{ match = "alpha exits", fail = "exit" }},
  {{ match = "alpha is slow", sleep = 8 }},
  {{ match = "", sleep = {seconds} }},
]

[models.wide-beta]
capability = "text-generation/wide"
backend = "scripted"
priority = 2
timeout = 20
max_batch = 32
memory_mb = 64
params = {{ answer = "beta says more: {{text}}", rules = [{{ match = "", sleep = {seconds} }}] }}

[models.wide-gamma]
capability = "text-generation/wide"
backend = "scripted"
priority = 3
timeout = 20
max_batch = 32
memory_mb = 64
params = {{ answer = "{{text}}", rules = [{{ match = "", sleep = {seconds} }}] }}
"""

#: A planner that makes two steps of every request, and an integrator; both take their time.
_PLANS = """
[capabilities.question-answering]
input = "text"
instruction = "Think."
judge = "longest"

[models.thinker]
capability = "question-answering"
backend = "scripted"
timeout = 3
memory_mb = 64

[models.thinker.params]
answer = "It is answered."
sleep = 0.03
rules = [
  {{ match = "Split a request", answer = '{{"steps": [{{"id": "a", "capability": "text-generation", "inputs": [{{"request": true}}]}}, {{"id": "b", "capability": "text-generation", "inputs": [{{"text": "Then:"}}, {{"output": "a"}}]}}]}}' }},
]

[planners.splits]
method = "llm"
model = "thinker"
timeout = 3

[integrators.tells]
method = "llm"
model = "thinker"
timeout = 3
"""

_JUDGE = """
[judges.{how}]
method = "scripted"
timeout = 3
params = {{ fail = "{how}", fail_on = "confuse the judge", sleep = {judge_seconds} }}

[judges.{how}-for-a-while]
method = "scripted"
timeout = 3
params = {{ fail = "{how}", fail_on = "", fail_while = "{switches}/judge-is-broken", sleep = {judge_seconds} }}
"""


def write_registry(path: Path, switches: Path) -> None:
    """Write the registry; `switches` is the folder in which a test leaves the files that make something fail."""
    values = {"seconds": SECONDS, "judge_seconds": JUDGE_SECONDS, "switches": switches}
    judges = [_JUDGE.format(how=how, **values) for how in JUDGES]
    path.write_text(_TEMPLATE.format(**values) + _PLANS.format() + "".join(judges))
