"""Workloads as a command line names them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import UsageError
from pvops_core.runs.workloads import MOST_ROUNDS, ROUNDS, WORKLOADS, Task, tasks_of, written

TASKS = st.lists(
    st.builds(Task, st.sampled_from(list(WORKLOADS)), st.integers(1, MOST_ROUNDS)), unique_by=lambda task: task.name
)


@given(TASKS)
def test_what_is_written_is_read(tasks: list[Task]) -> None:
    assert tasks_of(written(tasks)) == tuple(tasks)
    assert tasks_of(",".join(task.label for task in tasks)) == tuple(tasks)


def test_rounds_may_be_left_out() -> None:
    assert tasks_of(" fork , mmap:7") == (Task("fork", ROUNDS), Task("mmap", 7))
    assert tasks_of("") == tasks_of(" ") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("frok", "no workload 'frok'.*did you mean fork"),
        ("fork,", "no workload ''"),
        ("fork:0", "1 to 1,000,000 rounds"),
        ("fork:1000001", "1 to 1,000,000 rounds"),
        ("fork:12345678", "is not WORKLOAD:ROUNDS"),
        ("fork:x", "is not WORKLOAD:ROUNDS"),
        ("fork:-1", "is not WORKLOAD:ROUNDS"),
        ("fork:1,mmap,fork:2", "fork is named twice"),
    ],
)
def test_what_is_no_workload_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tasks_of(text)
