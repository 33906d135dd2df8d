"""Client of Bakeoff's HTTP API: `Client` blocks, `AsyncClient` is awaited; both have the same methods.

```python
from bakeoff_client import Client

with Client() as bakeoff:  # BAKEOFF_URL, BAKEOFF_API_KEY
    task = bakeoff.submit("Name the capital of France.", capability="text-generation")
    print(bakeoff.wait(task, timeout=120).check())
```
"""

from __future__ import annotations

from bakeoff_client.clients import AsyncClient, Client
from bakeoff_client.errors import (
    BadSignature,
    BakeoffError,
    Conflict,
    Fault,
    FieldError,
    Invalid,
    NotFound,
    Refused,
    TaskFailed,
    Unauthorized,
    Unreachable,
    WaitTimedOut,
)
from bakeoff_client.operations import NewTask
from bakeoff_client.records import (
    Accepted,
    Board,
    Cancelled,
    Candidate,
    Ended,
    File,
    Model,
    Outcome,
    Preferred,
    Problem,
    Progress,
    Result,
    Standing,
    Subtask,
    Task,
    Verdict,
)
from bakeoff_client.webhooks import WebhookEvent, verify_webhook

__all__ = [
    "Accepted",
    "AsyncClient",
    "BadSignature",
    "BakeoffError",
    "Board",
    "Cancelled",
    "Candidate",
    "Client",
    "Conflict",
    "Ended",
    "Fault",
    "FieldError",
    "File",
    "Invalid",
    "Model",
    "NewTask",
    "NotFound",
    "Outcome",
    "Preferred",
    "Problem",
    "Progress",
    "Refused",
    "Result",
    "Standing",
    "Subtask",
    "Task",
    "TaskFailed",
    "Unauthorized",
    "Unreachable",
    "Verdict",
    "WaitTimedOut",
    "WebhookEvent",
    "verify_webhook",
]
