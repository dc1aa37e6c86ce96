"""Which steps of a batch go together: made-up steps, with the seconds that they are thought to take."""

from dataclasses import replace
from pathlib import Path

from reprolib.paper.run.parcels import ROOM, SHORT, Parcel, Step, left_to_pages, pack


def training(name: str, seconds: float, *asks: str, done: bool = False) -> Step:
    return Step("table", "network", name, Path(name), done, seconds, asks, (1, 2))


def evaluations(count: int, seconds: float, *asks: str) -> list[Step]:
    names = [f"{'+'.join(asks)}-{seconds}-{i}" for i in range(count)]
    return [Step("table", "network", name, Path(name), False, seconds, asks) for name in names]


def names(parcel: Parcel) -> list[str]:
    return [step.name for step in parcel.steps]


LONG = [training("parent", 9 * ROOM), training("child", 9 * ROOM, "parent")]


def test_short_evaluations_of_a_long_training_share_processes_and_long_ones_are_alone():
    short, long = evaluations(200, ROOM / 50, "child"), evaluations(3, 2 * ROOM, "child")
    parcels = pack([*LONG, *short[:100], *long, *short[100:]])
    assert parcels.keys() == {step.name for step in (*LONG, *short, *long)}
    for step in (*LONG, *long):
        assert names(parcels[step.name]) == [step.name]
    of_short = {parcels[step.name] for step in short}
    assert len(of_short) == 4
    assert all(parcel.waits == {parcels["parent"], parcels["child"]} for parcel in of_short)


def test_nothing_waits_for_a_network_that_it_does_not_ask():
    asked = evaluations(5, 1, "parent"), evaluations(5, 1, "child"), evaluations(5, 1, "parent", "child")
    parcels = pack([*LONG, *asked[2], *asked[0], *asked[1]])
    assert {parcels["parent"]} == set().union(*(parcels[step.name].waits for step in asked[0]))
    assert len({parcels[step.name] for steps in asked[1:] for step in steps}) == 1, "who asks a child waits for both"


def test_short_trainings_go_with_what_is_asked_of_them_and_families_apart():
    family = [training("a", 3), training("b", 2, "a"), *evaluations(4, 0.1, "b"), *evaluations(4, 0.1, "a", "b")]
    other = [training("c", 3), *evaluations(4, 0.1, "c")]
    parcels = pack([*family, *other, training("long", 100)])
    assert names(parcels["a"]) == [step.name for step in family]
    assert names(parcels["c"]) == [step.name for step in other]


def test_what_is_done_changes_no_parcel_and_is_not_asked_for_again():
    steps = [*LONG, *evaluations(50, 2, "child")]
    before = pack(steps)
    after = pack([replace(step, done=i % 2 == 0) for i, step in enumerate(steps)])
    assert {name: names(parcel) for name, parcel in before.items()} == {n: names(p) for n, p in after.items()}
    parcel = after[steps[-1].name]
    missing = [step.word for step in parcel.steps if not step.done]
    assert parcel.command.split() == ["run", *missing] and len(missing) < len(parcel.steps)
    assert parcel.file == [step.file for step in parcel.steps if not step.done][-1]


def test_no_parcel_waits_in_a_circle_and_its_steps_can_be_taken_in_its_order():
    trainings = [training("a", 1)] + [training(f"b{i}", i, "a") for i in range(1, 9)]
    asked = [step for each in trainings[1:] for step in evaluations(7, 0.7, each.name, "a")]
    parcels = pack([*trainings, *asked])
    for step in (*trainings, *asked):
        parcel = parcels[step.name]
        assert parcel not in parcel.waits
        for name in step.asks:
            here = names(parcel)
            assert parcels[name] in parcel.waits or here.index(name) < here.index(step.name)


def left(steps: list[Step], *pages: list[Step]) -> list[str]:
    """The steps that are left to these pages, of which each asks for the given ones."""
    parcels = pack(steps)
    found = left_to_pages(parcels.values(), [{parcels[step.name] for step in page} for page in pages])
    return sorted(name for name, parcel in parcels.items() if parcel in found)


def test_what_one_page_asks_for_and_is_short_is_left_to_it():
    short, long = [training("short", SHORT / 2)], [training("long", SHORT)]
    assert left(short + long, short, long) == ["short"]
    assert left(short + long, short + long, short) == [], "two pages would do it twice"
    assert left(short + long, long) == [], "no page asks for it, so some parcel does"


def test_a_short_training_is_left_to_its_page_only_with_all_that_goes_on_from_it():
    family = [training("a", 3), training("b", 3), *evaluations(3, 1, "a", "b")]
    assert left(family, family) == sorted(step.name for step in family)
    family[-1] = replace(family[-1], seconds=SHORT)
    assert left(family, family) == []


def test_what_is_left_to_a_page_stays_so_while_a_batch_runs():
    steps = [training("a", 3), *evaluations(3, 1, "a")]
    assert left(steps, steps) == left([replace(steps[0], done=True), *steps[1:]], steps)
