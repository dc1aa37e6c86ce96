"""A page's one list of jobs: every measurement that its columns, rows, losses and epochs ask for, and nothing else."""

import pytest

from reprolib.paper.plan import (
    LOSSES,
    PROFILES,
    Amounts,
    Attack,
    Changed,
    Evaluation,
    Plan,
    Pretrained,
    SpecError,
    Trained,
    Voted,
    all_pages,
    attacks_of,
    epoch_of,
    label,
    ladder_attacks,
    load_plan,
    load_table,
    trainings,
)

LARGE = Amounts(
    data="full", train=60_000, test=10_000, pretrain=5, finetune=20, every=10, steps=100, restarts=20, seeds=3
)
TABLE06 = load_table("table06_fashion_mnist")["fmnistconv"]
STUDY = load_table("saturation")["fmnistconv"]
RESTARTS = load_table("restarts_cifarconv")["cifarconv"]
PLANS = {
    f"{profile} {page.record}": load_plan(page.table, page.network, profile)
    for profile in PROFILES
    for page in all_pages()
}
PGD = Attack(name="pgd", eps=0.3, alpha=0.01, steps=100, restarts=10)


def planned(page=TABLE06, **amounts) -> Plan:
    return Plan(page, Amounts(**LARGE.model_dump() | amounts), "custom")


def network(**fields) -> Trained:
    usual = {"architecture": "fmnistconv", "data": "fashion-mnist", "recipe": {}, "epochs": 1}
    return Trained(**usual | fields)


# --- every page of every profile --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_jobs_and_trainings_belong_together(plan):
    trained = {(str(t.training), epoch) for t, epochs in plan.trainings.values() for epoch in epochs}
    asked = [n for job in [*plan.jobs, *plan.ladder] for n in (job.evaluation.network, job.evaluation.source) if n]
    needed = {(str(t.training), t.epochs) for network in asked for t in trainings(network)}
    assert needed == trained, "every network that is asked, or trained on, is trained; and no other"
    order = list(plan.trainings)
    for training, _ in plan.trainings.values():
        if isinstance(training.parent, Trained):
            assert order.index(str(training.parent.training)) < order.index(str(training.training)), "parents first"
    contents = [str(job.content()) for job in plan.jobs]
    assert len(set(contents)) == len(contents)
    for job in plan.jobs:
        assert job.row in plan.page.rows and (job.column, job.seed) in plan.networks
        assert job.evaluation.data == plan.data and job.evaluation.size <= plan.size


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_shown_column_meets_every_row_of_it_with_every_loss(plan):
    for (column, seed), network in plan.networks.items():
        for name, row in plan.page.rows.items():
            jobs = [job for job in plan.jobs if (job.row, job.column, job.seed) == (name, column, seed)]
            at_end = [job.evaluation for job in jobs if job.evaluation.network == network and not job.evaluation.source]
            wanted = row.losses or plan.page.losses
            if column not in (row.columns or [column]) or name in plan.skipped:
                assert not jobs
            elif row.labels == "predicted" or row.bits or column in row.made_on:
                assert len(jobs) == 1 and jobs[0].evaluation.source and not at_end
            else:
                assert {(e.loss, e.decision) for e in at_end} == {
                    (loss, "last" if row.attack.name == "fgsm" else decision) for loss, decision in wanted.items()
                }


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_attacks_are_the_rows_within_the_amounts(plan):
    for job in plan.jobs:
        attack, declared = job.evaluation.attack, plan.page.rows[job.row].attack
        assert attack == declared.limited(plan.amounts.steps, plan.amounts.restarts)
        assert attack.get("steps", 0) <= plan.amounts.steps and attack.get("restarts", 0) <= plan.amounts.restarts


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_table06_trains_six_networks_from_one_parent(profile):
    plan = PLANS[f"{profile} table06_fashion_mnist"]
    undefended = plan.networks["undefended", 0]
    assert undefended.parent is None and undefended.recipe.optimizer == "adam"
    tuned = {column: network for (column, _), network in plan.networks.items() if column != "undefended"}
    assert tuned.keys() == {"7-P1", "11-P1", "7-P2", "11-P2", "no patches"}
    for column, network in tuned.items():
        assert network.parent == undefended and network.recipe.optimizer == "rmsprop"
        if column != "no patches":
            assert column == f"{network.defence.size}-P{network.defence.count}"
    assert [training for training, _ in plan.trainings.values()] == list(plan.networks.values())


def test_the_control_differs_from_a_patched_network_in_the_defence_alone():
    networks = planned().networks
    control, patched = networks["no patches", 0], networks["7-P1", 0]
    assert control.defence != patched.defence
    assert control.model_dump(exclude={"defence"}) == patched.model_dump(exclude={"defence"})


def test_a_column_may_have_a_parent_and_a_recipe_of_its_own():
    plan = PLANS["cpu table03_vgg16"]
    strong, tuned, usual = (plan.networks[c, 0] for c in ("strong parent", "7-P1 of the strong", "7-P1"))
    assert tuned.parent == strong != usual.parent == plan.networks["undefended", 0]
    assert tuned.recipe == usual.recipe and tuned.defence == usual.defence
    assert (strong.recipe.optimizer, strong.recipe.cycle) == ("sgd", 20), "a cycle is no longer than the training"
    study = planned(STUDY)
    smoothed, usual = (study.networks[c, 0] for c in ("7-P1, label smoothing", "7-P1"))
    assert (smoothed.recipe.optimizer, smoothed.recipe.label_smoothing) == ("rmsprop", 0.1)
    assert smoothed.parent == usual.parent


def test_amounts_reach_networks():
    plan = planned(seed=7, pretrain=3, finetune=4, train=500)
    for (column, _), network in plan.networks.items():
        assert (network.seed, network.train) == (7, 500)
        assert network.epochs == (3 if column == "undefended" else 4)


@pytest.mark.parametrize("record, width", [("table03_vgg16", 0.25), ("table03_resnet20", 1.0),
                                           ("restarts_cifarconv", 1.0), ("table06_fashion_mnist", 1.0)])  # fmt: skip
def test_only_scalable_networks_have_a_width(record, width):
    page = next(page for page in all_pages() if page.record == record)
    expected = width if record != "table03_resnet20" else planned(page, width=0.25).networks["7-P1", 0].width
    assert {network.width for network in planned(page, width=0.25).networks.values()} == {expected}


def test_columns_with_seeds_stand_side_by_side():
    plan = planned(STUDY, seeds=2, seed=10)
    assert [seed for column, seed in plan.networks if column == "7-P1"] == [0, 1]
    assert [seed for column, seed in plan.networks if column == "7-P1, Adam"] == [0], "which has one"
    for column, seed in plan.networks:
        network = plan.networks[column, seed]
        assert network.seed == 10 + seed and (network.parent is None or network.parent.seed == 10 + seed)
    assert {seed for _, seed in planned(STUDY, seeds=99).networks} == {0, 1, 2}, "no more than the column says"
    assert (label("7-P1", 0), label("7-P1", 2)) == ("7-P1", "7-P1, seed 2")


def test_a_plan_takes_no_more_images_than_there_are():
    whole = planned(train=10**6, test=10**6)
    assert whole.size == 10_000 and whole.networks["undefended", 0].train is None
    assert whole.networks == planned(train=60_000).networks, "60 000 of 60 000 images are all of them"
    sample = planned(data="sample")
    assert (sample.data, sample.networks["undefended", 0].train, sample.size) == ("fashion-mnist-sample", None, 1000)
    assert {job.evaluation.size for job in planned(test=50).jobs} == {50}


def test_a_data_set_without_a_sample():
    page = TABLE06.model_copy(update={"dataset": "fashion-mnist-sample"})
    with pytest.raises(SpecError, match="no embedded sample of fashion-mnist-sample; set data to 'full'"):
        planned(page, data="sample")
    with pytest.raises(SpecError, match="no smaller size of fashion-mnist; set data to 'full'"):
        planned(data="small")


@pytest.mark.parametrize("profile, kind, dataset", [
    ("quick", Trained, "fashion-mnist-sample-rgb"),
    ("cpu", Trained, "imagenet-subset-128"),
    ("paper", Pretrained, "imagenet-subset"),
])  # fmt: skip
def test_published_weights_are_for_whole_networks_and_real_pictures(profile, kind, dataset):
    plan = load_plan("table07", "vgg16-imagenet", profile)
    tuned = plan.networks["7-P1", 0]
    assert type(plan.networks["undefended", 0]) is type(tuned.parent) is kind
    assert tuned.data == plan.data == dataset and plan.info.shape[1] == {"quick": 32, "cpu": 128, "paper": 224}[profile]


def test_voted_changed_and_pre_trained_columns():
    table = {
        "undefended": {"recipe": "adam"},
        "weights": {"weights": "some.pth"},
        "EMPIR": {"members": [
            {"recipe": "adam", "defence": {"name": "quantised", "weight_bits": 2, "activation_bits": 2}},
            {"recipe": "adam"},
        ]},
        "smoothed": {"change": {"name": "high_frequency", "rho": 0.5}, "of": "7-P1"},
        "7-P1": {"parent": "undefended", "recipe": "adam", "defence": {"name": "patched", "size": 7, "count": 1}},
        "tuned weights": {"parent": "weights", "recipe": "adam"},
    }  # fmt: skip
    page = type(TABLE06)(**TABLE06.content() | {"columns": table, "claims": [], "transfer_from": "weights"})
    plan = planned(page)
    voted, changed = plan.networks["EMPIR", 0], plan.networks["smoothed", 0]
    assert isinstance(voted, Voted) and voted.members[1] == plan.networks["undefended", 0]
    assert isinstance(changed, Changed) and changed.network == plan.networks["7-P1", 0]
    assert plan.networks["tuned weights", 0].parent == plan.networks["weights", 0]
    assert plan.networks["tuned weights", 0].epochs == plan.amounts.finetune
    assert [epoch_of(n) for n in (changed, plan.networks["7-P1", 0], voted, plan.networks["weights", 0])] == [
        20, 20, None, None,
    ]  # fmt: skip
    needed = [training for training, _ in plan.trainings.values()]
    assert len(needed) == 4 and plan.networks["7-P1", 0] in needed and voted.members[0] in needed
    assert {job.column for job in plan.jobs} == set(table)
    shown = {job.column for job in plan.jobs if job.evaluation.source}
    assert shown == set(table) - {"weights"}, "a pre-trained network may be the source of a transfer attack"


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_number_of_jobs_of_table06():
    """Three losses per network and attack, one for the first start alone, and transfer to five."""
    assert len(planned().jobs) == 6 * (4 * 3 + 1) + 5 * 4
    assert len(planned().ladder) == 3 * 9


def test_transfer_attacks_are_the_sources_last_iterates_by_cross_entropy():
    plan = planned()
    undefended = plan.networks["undefended", 0]
    shown = [job for job in plan.jobs if job.evaluation.source]
    assert {job.row for job in shown} == {"PGD-v1", "PGD-v2", "FGSM", "IFGSM"}, (
        "and not for a row that counts fewer runs"
    )
    assert {job.column for job in shown} == {column for column, _ in plan.networks} - {"undefended"}
    for job in shown:
        made = job.evaluation.crafting()
        assert made.network == undefended and made.source is None and (made.loss, made.decision) == ("logits", "last")
        assert made.attack == job.evaluation.attack


EMPIR = {
    "M1": {"recipe": "adam", "defence": {"name": "quantised", "weight_bits": 4, "activation_bits": 2}},
    "M2": {"recipe": "adam", "defence": {"name": "quantised", "weight_bits": 2, "activation_bits": 2}},
    "M3": {"recipe": "adam"},
    "EMPIR": {"members": ["M1", "M2", "M3"], "seeds": 2},
    "EMPIR, soft": {"members": ["M1", "M2", "M3"], "voting": "soft"},
}


def empir(**rows) -> Plan:
    fields = {"columns": EMPIR, "shown": ["M3", "EMPIR"], "claims": [], "rows": rows, "transfer_from": "M1"}
    return planned(type(TABLE06)(**TABLE06.content() | fields))


def test_attacked_as_empir_did_it():
    """Without true labels, on the averaged probabilities, or on the member of full precision; on a single network, its
    own. One evaluation, whatever the page's losses, and none on the transfer's source."""
    plan = empir(
        FGSM={"attack": {"name": "fgsm", "eps": 0.1}, "labels": "predicted", "made_on": {"EMPIR": "EMPIR, soft"}},
        BIM={"attack": {"name": "fgsm", "eps": 0.1}, "labels": "predicted", "made_on": {"EMPIR": "M3"}},
    )
    found = {(job.row, job.column, job.seed): job.evaluation for job in plan.jobs}
    assert len(found) == len(plan.jobs) == 2 * 3
    for (_, column, seed), asked in found.items():
        assert asked.network == plan.networks[column, seed]
        assert (asked.labels, asked.loss, asked.decision) == ("predicted", "logits", "last")
        made = asked.crafting()
        assert (made.labels, made.source) == ("predicted", None)
    for seed in (0, 1):
        vote = plan.networks["EMPIR", seed]
        assert vote.voting == "hard" and [one.seed for one in vote.members] == [seed] * 3
        assert found["FGSM", "EMPIR", seed].source == Voted(members=vote.members, voting="soft")
        assert found["BIM", "EMPIR", seed].source == vote.members[2]
    assert found["FGSM", "M3", 0].source == plan.networks["M3", 0]


def test_a_row_may_have_its_images_from_another_column_with_true_labels():
    plan = empir(FGSM={"attack": {"name": "fgsm", "eps": 0.1}, "made_on": {"EMPIR": "M3"}})
    made = [job.evaluation for job in plan.jobs if job.column == "EMPIR"]
    assert [(one.source, one.labels) for one in made] == [(plan.networks["EMPIR", seed].members[2], "true")
                                                          for seed in (0, 1)]  # fmt: skip
    own = [job.evaluation for job in plan.jobs if job.column == "M3" and not job.evaluation.source]
    assert {one.loss for one in own} == set(LOSSES), "other columns are attacked as ever"


def test_predicted_labels_without_a_source_are_refused():
    """What is judged by true labels would be an attack that has seen them."""
    fields = {"network": network(), "attack": PGD, "loss": "logits", "decision": "last", "data": "x", "size": 1}
    with pytest.raises(SpecError, match="labels are 'predicted' without a source"):
        Evaluation(**fields, labels="predicted")
    assert "labels" not in Evaluation(**fields, source=network()).content(), "and old evaluations keep their content"


def test_one_attack_of_20_restarts_answers_for_fewer():
    plan = planned(RESTARTS)
    of = {name: {str(job.evaluation.content()) for job in plan.jobs if job.row == name and not job.evaluation.source}
          for name in plan.page.rows}  # fmt: skip
    assert of["PGD-v2, 5 restarts"] == of["PGD-v2, 10 restarts"] == of["PGD-v2, 20 restarts"]
    assert of["PGD-v2, first start only"] < of["PGD-v2, 20 restarts"]
    assert of["PGD-v2, 5 restarts"].isdisjoint(of["PGD-v1, 5 restarts"])
    assert [plan.page.rows[f"PGD-v2, {runs} restarts"].runs for runs in (5, 10)] == [5, 10]


@pytest.mark.parametrize("last, every, epochs", [
    (60, 10, [10, 20, 30, 40, 50, 60]), (60, 7, [7, 14, 21, 28, 35, 42, 49, 56, 60]), (2, 1, [1, 2]), (5, 10, [5]),
])  # fmt: skip
def test_epochs_at_which_a_page_looks(last, every, epochs):
    page = load_table("table11")["fmnistconv"]
    plan = planned(page, finetune=last, every=every)
    for column in ("7-P1", "no patches"):
        looked = [job.epoch for job in plan.jobs if job.column == column and job.row == "FGSM"]
        assert sorted(set(looked)) == epochs
    looks = {tuple(sorted(at)) for training, at in plan.trainings.values() if training.parent}
    assert looks == {tuple(epochs)}
    assert planned(finetune=last, every=every).looks(planned(finetune=last).networks["7-P1", 0])[0].epochs == last


def test_a_row_may_be_shown_at_the_end_alone():
    plan = planned(STUDY, finetune=30, every=10)
    radius = {job.epoch for job in plan.jobs if job.row == "IFGSM, eps 0.1" and job.column == "7-P1"}
    along = {job.epoch for job in plan.jobs if job.row == "IFGSM" and job.column == "7-P1"}
    assert (radius, along) == ({30}, {10, 20, 30})
    assert {job.column for job in plan.jobs if job.row == "IFGSM, eps 0.1"} == {"undefended", "7-P1", "no patches"}


@pytest.mark.parametrize("page", [STUDY, load_table("table11")["fmnistconv"]], ids=lambda page: page.record)
def test_curves_spare_the_last_iterate_where_it_costs_every_step(page):
    for job in planned(page).jobs:
        e = job.evaluation
        assert e.decision == ("last" if e.loss == "probabilities" or e.attack.name == "fgsm" else "any")


def test_amounts_reach_attacks():
    plan = planned(seed=7, steps=20, restarts=3)
    assert {job.evaluation.seed for job in [*plan.jobs, *plan.ladder]} == {7}
    (pgd,) = {str(job.evaluation.attack.content()) for job in plan.jobs if job.row == "PGD-v2"}
    assert pgd == str({"name": "pgd", "eps": 0.3, "alpha": 0.0375, "steps": 20, "restarts": 3})


def test_with_torchattacks_a_plan_asks_for_what_it_can_do():
    plan = planned(engine="torchattacks")
    asked = {(e.engine, e.loss, e.decision, e.size) for e in (job.evaluation for job in plan.jobs)}
    assert asked == {("torchattacks", "logits", "last", 10_000)}
    assert {(job.column, job.row) for job in plan.jobs} == {(c, r) for c in TABLE06.columns for r in TABLE06.rows}
    assert plan.networks == planned().networks
    assert {job.evaluation.engine for job in plan.ladder} == {"reprolib"}


def test_what_torchattacks_has_not_is_reprolibs_in_any_case():
    page = load_table("table09")["fmnistconv"]
    assert planned(page, engine="torchattacks").jobs == planned(page).jobs


# --- the sanity ladder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_ladder_is_climbed_on_the_undefended_network_by_pgd_of_the_largest_radius(plan):
    pgds = [attack for attack in attacks_of(plan.page.dataset).values() if attack.name == "pgd"]
    assert {job.evaluation.loss for job in plan.ladder} == set(LOSSES)
    for job in plan.ladder:
        e = job.evaluation
        assert (e.decision, e.size) == ("any", min(100, plan.size))
        if not isinstance(e.network, Pretrained):
            assert e.network.parent is None and e.network.seed == plan.amounts.seed
        if job.row == "full":
            assert e.attack.get("eps") == max(attack.get("eps") for attack in pgds)
            assert e.attack.get("restarts") == min(2, plan.amounts.restarts)


def test_the_ladders_rungs_differ_in_one_thing_each():
    rungs = ladder_attacks(PGD)
    changed = {
        name: {k for k, v in attack.content().items() if v != PGD.content()[k]} for name, attack in rungs.items()
    }
    assert changed == {
        "clean": {"eps", "alpha", "steps", "restarts"}, "full": set(), "eps 0": {"eps"},
        "a quarter of eps": {"eps", "alpha"}, "half of eps": {"eps", "alpha"}, "a tenth of the steps": {"steps"},
        "half of the steps": {"steps"}, "one step": {"alpha", "steps", "restarts"}, "one restart": {"restarts"},
    }  # fmt: skip
    assert (rungs["a tenth of the steps"].get("steps"), rungs["half of the steps"].get("steps")) == (10, 50)
    assert rungs["one step"].content() == {"name": "pgd", "eps": 0.3, "alpha": 0.3, "steps": 1, "restarts": 0}
    assert ladder_attacks(PGD.but(steps=3))["a tenth of the steps"].get("steps") == 1, "some step is made"


# --- an evaluation that cannot be -------------------------------------------------------------------------------------


def refusal(**fields) -> str:
    usual = {
        "network": network(),
        "attack": PGD,
        "loss": "logits",
        "decision": "last",
        "data": "fashion-mnist",
        "size": 5,
    }
    assert Evaluation(**usual).engine == "reprolib"
    with pytest.raises(SpecError) as caught:
        Evaluation(**usual | fields)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("fields, words", [
    ({"loss": "cross-entropy"}, ["Evaluation.loss", "cross-entropy"]),
    ({"decision": "all"}, ["Evaluation.decision", "all"]),
    ({"size": 0}, ["Evaluation.size", "0"]),
    ({"engine": "torchattacks", "loss": "margin"}, ["torchattacks", "'margin'", "choose engine 'reprolib'"]),
    ({"engine": "torchattacks", "loss": "probabilities"}, ["'probabilities'", "choose engine 'reprolib'"]),
    ({"engine": "torchattacks", "decision": "any"}, ["'any'", "choose engine 'reprolib'"]),
    ({"engine": "foolbox"}, ["Evaluation.engine", "foolbox"]),
    ({"source": network(seed=1), "decision": "any"}, ["decision is 'last'"]),
    ({"source": network(seed=1), "engine": "torchattacks"}, ["engine 'reprolib'"]),
    ({"attack": Attack(name="autoattack", eps=0.3)}, ["AutoAttack judges every iterate"]),
    ({"attack": Attack(name="autoattack", eps=0.3), "engine": "torchattacks"}, ["'any'"]),
    ({"attack": Attack(name="square", eps=0.3), "decision": "any", "loss": "margin"}, ["margin", "probabilities"]),
])  # fmt: skip
def test_an_evaluation_that_cannot_be(fields, words):
    message = refusal(**fields)
    assert all(word in message for word in words), message
