"""The faults that happen every week, with fewer tasks: part of every test run."""

from __future__ import annotations

import pytest

# The same tests as in the full suite; here they run with this module's mark and number of tasks.
from tests.faults.test_kills import (  # noqa: F401
    test_killed_child_of_a_model_worker,
    test_killed_judge,
    test_killed_model_worker,
    test_killed_scheduler,
)
from tests.faults.test_outages import (  # noqa: F401
    test_postgres_restarted_at_once,
    test_redis_flushed,
    test_redis_killed_and_started_again,
)

pytestmark = pytest.mark.faults_smoke

TASKS = 60
