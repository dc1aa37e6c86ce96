"""A simulated batch: chains, forks and splits whose times are worked out by hand, and bounds that every batch keeps."""

import random

import pytest

from reprolib.paper.run import schedule
from reprolib.paper.run.schedule import START, Task


def training(name: str, seconds: float, *waits: str) -> Task:
    return Task(name, "training", seconds, waits)


FORK = [training("a", 10), training("b", 20, "a"), training("c", 5, "a"), Task("page", "page", 1, ("b", "c"))]


def test_a_fork_by_hand():
    assert schedule.earliest(FORK) == {"a": 0, "b": 10, "c": 10, "page": 30}
    assert [task.name for task in schedule.critical_path(FORK)] == ["a", "b", "page"]
    assert schedule.simulate(FORK, 1) == (36, 0)
    seconds, idle = schedule.simulate(FORK, 2)
    assert seconds == 31 and idle == pytest.approx(1 - 36 / 62)


def test_what_has_the_longest_way_to_go_begins_first():
    """Begun last, the chain would end after 14."""
    some = [training("short 1", 4), training("short 2", 4), training("a", 5), training("b", 5, "a")]
    assert schedule.simulate(some, 2).seconds == 10


@pytest.mark.parametrize("seed", range(5))
def test_no_batch_is_quicker_than_its_work_or_its_critical_path_nor_slower_than_both(seed):
    """The upper bound is Graham's (1969), for any list schedule."""
    drawn, some = random.Random(seed), []
    for number in range(60):
        waits = drawn.sample([task.name for task in some], min(len(some), drawn.randrange(3)))
        some.append(training(str(number), drawn.uniform(1, 50), *waits))
    work, longest = sum(task.seconds for task in some), sum(task.seconds for task in schedule.critical_path(some))
    for gpus in (1, 2, 7, 100):
        seconds, idle = schedule.simulate(some, gpus)
        assert max(work / gpus, longest) <= seconds * (1 + 1e-9)
        assert seconds <= work / gpus + (1 - 1 / gpus) * longest + 1e-6
        assert work == pytest.approx(seconds * gpus * (1 - idle))
    assert schedule.simulate(some, 1000).seconds == pytest.approx(longest)


def test_split_keeps_the_work_but_for_the_starts_and_what_waits_for_all_of_it():
    long = Task("e", "evaluation", START + 100, ("a",))
    found = schedule.split([training("a", 500), long, Task("page", "page", 1, ("e", "a"))], "evaluation", 30)
    parts = [task for task in found if task.kind == "evaluation"]
    assert [task.seconds for task in parts] == [START + 25] * 4 and {task.waits for task in parts} == {("a",)}
    assert found[-1].waits == (*(task.name for task in parts), "a") and found[0].seconds == 500
    assert schedule.split(FORK, "evaluation", 1) == FORK
    doubled = schedule.scaled(FORK, {"training": 2.0})
    assert [task.seconds for task in doubled] == [20, 40, 10, 1]


def test_fewer_than_one_gpu():
    with pytest.raises(ValueError, match="gpus is 0; expected 1 or more"):
        schedule.simulate(FORK, 0)


def test_the_tasks_of_a_page_are_its_batchs_jobs_from_an_empty_store(monkeypatch):
    monkeypatch.setenv("REPROLIB_OFFLINE", "1")
    found = schedule.tasks("paper", "table11_epochs")
    names = [task.name for task in found]
    assert len(names) == len(set(names)) and found[-1].name == "table11_epochs" and found[-1].kind == "page"
    assert {task.kind for task in found} == {"training", "evaluation", "page"} or len(found) < 4
    for place, task in enumerate(found):
        assert set(task.waits) <= set(names[:place]), "an order that can be followed"
    assert len(found[-1].waits) == len(found) - 1
    stored = schedule.stored_bytes("paper", "table11_epochs")
    assert stored["checkpoints"] > 1e6 and stored["adversarial images"] == 0
