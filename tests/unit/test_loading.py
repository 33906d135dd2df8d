"""When a child that does not get ready is called broken."""

from __future__ import annotations

from worker.loading import Loading


def test_a_child_that_is_ready_in_time_is_no_problem() -> None:
    loading = Loading(120)
    assert loading.wants_to_know(0, [1])

    assert loading.problem(50, ready=True) is None
    assert not loading.wants_to_know(51, [1])


def test_what_the_child_before_said_is_not_believed() -> None:
    loading = Loading(120)
    loading.wants_to_know(0, [1])
    loading.problem(50, ready=True)
    assert loading.wants_to_know(60, [2])

    assert loading.problem(61, ready=True) is None  # the row of the child that was killed
    assert loading.wants_to_know(62, [2])
    assert "over 120 s" in str(loading.problem(181, ready=False))


def test_one_lost_child_is_forgiven_and_two_are_not() -> None:
    loading = Loading(120)
    loading.wants_to_know(0, [1])
    loading.wants_to_know(1, [2])
    assert loading.problem(1, ready=False) is None

    loading.wants_to_know(2, [3])

    assert "2 model processes in a row" in str(loading.problem(2, ready=False))


def test_losses_of_children_that_were_ready_do_not_count() -> None:
    loading = Loading(120)
    for pid in range(1, 6):
        loading.wants_to_know(100 * pid, [pid])
        assert loading.problem(100 * pid + 50, ready=True) is None


def test_a_child_that_got_ready_ends_the_row() -> None:
    loading = Loading(120)
    for pid in (1, 2, 3):
        loading.wants_to_know(pid, [pid])
    loading.problem(50, ready=True)

    loading.wants_to_know(60, [4])
    assert loading.problem(60, ready=False) is None


def test_loading_has_its_time() -> None:
    loading = Loading(120)
    loading.wants_to_know(0, [1])
    assert loading.problem(119, ready=False) is None

    assert "over 120 s" in str(loading.problem(121, ready=False))


def test_no_child_yet_is_nothing_to_ask_about() -> None:
    assert not Loading(120).wants_to_know(0, [])
