"""Annotators who come at the same moment."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from db.annotations import NewGroup, add_groups, find_set, lapse
from db.engine import transaction
from scheduler.annotating.blind import next_group
from scheduler.annotating.criteria import read_criteria

pytestmark = pytest.mark.integration


def test_a_group_in_the_hands_of_another_transaction_is_given_back_later(database: Engine) -> None:
    # given a group that its annotator left, and whose row somebody is writing
    group = NewGroup(
        key="1", field="answers", input={}, items=[{"said": said, "models": []} for said in "ab"], wanted=2
    )
    with transaction(database) as connection:
        add_groups(connection, "two", read_criteria().model_dump(mode="json"), [group])
        two = find_set(connection, "two")
    with transaction(database) as connection:
        assert next_group(connection, two, "ann") is not None
    with transaction(database) as other:
        other.execute(text("SELECT FROM annotation_group FOR UPDATE"))

        # when, then nobody waits for it, who might be waited for in turn
        with transaction(database) as connection:
            connection.execute(text("SET LOCAL lock_timeout = '200ms'"))
            assert lapse(connection, two.id, "bob", 0) == 0

    # and then it is given back
    with transaction(database) as connection:
        assert lapse(connection, two.id, "bob", 0) == 1
        assert connection.execute(text("SELECT taken FROM annotation_group")).scalar_one() == 0
