"""Wrong parameters are refused before any compute, in one sentence that says which and what to do."""

import shutil
import subprocess
import sys

import pydantic
import pytest
import yaml

from reprolib import specs
from reprolib.specs import (
    Attack,
    Evaluation,
    Grid,
    Plan,
    Settings,
    SpecError,
    Training,
    load_grid,
    load_view,
    load_profile,
    settings_from,
    suggest,
)

TRAINING = {"dataset": "fashion-mnist", "model": "fmnistconv", "optimizer": "adam", "lr": 1e-3, "batch_size": 64}
PATCHED = TRAINING | {"copies": "patched", "patch_size": 7, "patch_count": 1}
PGD = {"name": "pgd", "eps": 0.3, "alpha": 0.01, "steps": 40, "restarts": 10}
IFGSM = {"name": "ifgsm", "eps": 0.3, "alpha": 0.01, "steps": 40}
NAN, INF = float("nan"), float("inf")


def refusal(record, fields) -> str:
    """The sentence with which `record` refuses `fields`; it must be one line."""
    with pytest.raises(SpecError) as caught:
        record(**fields)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_good_records_are_accepted():
    assert Training(**TRAINING).copies == "none"
    assert Training(**PATCHED).patch_size == 7
    assert Training(**TRAINING, parent=Training(**TRAINING), parent_epoch=3).parent_epoch == 3
    assert Attack(**PGD).restarts == 10
    assert Attack(**IFGSM).loss == "margin"
    assert Attack(name="fgsm", eps=0).eps == 0
    assert Attack(name="fgsm", eps=1).eps == 1
    assert Attack(name="ifgsm", eps=0.3, alpha=0, steps=0).steps == 0


@pytest.mark.parametrize("record, fields, typo, meant", [
    (Training, TRAINING, "batchsize", "batch_size"),
    (Training, TRAINING, "optimiser", "optimizer"),
    (Training, TRAINING, "learning_rate", None),
    (Attack, PGD, "restart", "restarts"),
    (Attack, PGD, "epsilon", "eps"),
    (Attack, PGD, "zzz", None),
])
def test_unknown_parameter(record, fields, typo, meant):
    message = refusal(record, fields | {typo: 1})
    assert record.__name__ in message and repr(typo) in message
    if meant:
        assert f"did you mean {meant!r}" in message
    else:
        assert all(field in message for field in record.model_fields)


@pytest.mark.parametrize("missing", TRAINING)
def test_missing_parameter_is_named(missing):
    assert f"Training.{missing}" in refusal(Training, {k: v for k, v in TRAINING.items() if k != missing})


@pytest.mark.parametrize("record, fields, name, value", [
    (Training, TRAINING, "batch_size", "64"),
    (Training, TRAINING, "batch_size", 64.0),
    (Training, TRAINING, "batch_size", 0),
    (Training, TRAINING, "batch_size", None),
    (Training, TRAINING, "train_size", 0),
    (Training, TRAINING, "train_size", True),
    (Training, TRAINING, "lr", "fast"),
    (Training, TRAINING, "lr", 0.0),
    (Training, TRAINING, "lr", -1e-3),
    (Training, TRAINING, "lr", NAN),
    (Training, TRAINING, "lr", INF),
    (Training, TRAINING, "seed", -1),
    (Training, TRAINING, "dataset", 5),
    (Training, TRAINING, "optimizer", "lion"),
    (Training, TRAINING, "copies", "patch"),
    (Training, PATCHED, "patch_size", 9),
    (Training, PATCHED, "patch_count", 3),
    (Attack, PGD, "name", "bim"),
    (Attack, PGD, "eps", -0.1),
    (Attack, PGD, "eps", 1.5),
    (Attack, PGD, "eps", 76),
    (Attack, PGD, "eps", NAN),
    (Attack, PGD, "eps", INF),
    (Attack, PGD, "eps", -INF),
    (Attack, PGD, "eps", True),
    (Attack, PGD, "alpha", -0.01),
    (Attack, PGD, "alpha", NAN),
    (Attack, PGD, "steps", -1),
    (Attack, PGD, "steps", 2.5),
    (Attack, PGD, "restarts", -1),
    (Attack, PGD, "loss", "cross-entropy"),
])
def test_wrong_value_is_named_with_its_place(record, fields, name, value):
    message = refusal(record, fields | {name: value})
    assert f"{record.__name__}.{name}" in message
    assert repr(value) in message


@pytest.mark.parametrize("record, fields, name", [
    (Training, TRAINING, "lr"), (Attack, PGD, "eps"), (Attack, PGD, "alpha"),
])
@pytest.mark.parametrize("text", ["1e-3", "1E-3"])
def test_number_that_yaml_reads_as_text(record, fields, name, text):
    message = refusal(record, fields | {name: text})
    assert f"{record.__name__}.{name}" in message and repr(text) in message and "1.0e-3" in message


@pytest.mark.parametrize("fields, word", [
    ({"name": "fgsm", "eps": 0.3, "steps": 1}, "steps"),
    ({"name": "fgsm", "eps": 0.3, "alpha": 0.3}, "alpha"),
    ({"name": "fgsm", "eps": 0.3, "restarts": 1}, "restarts"),
    ({"name": "ifgsm", "eps": 0.3}, "steps"),
    ({"name": "pgd", "eps": 0.3, "alpha": 0.01}, "steps"),
    ({"name": "pgd", "eps": 0.3, "steps": 40}, "alpha"),
    (IFGSM | {"restarts": 1}, "restarts"),
    (IFGSM | {"steps": 0}, "alpha is 0.01 with 0 steps"),
    (PGD | {"steps": 0}, "alpha is 0.01 with 0 steps"),
])
def test_attack_parameters_that_contradict_each_other(fields, word):
    assert word in refusal(Attack, fields)


@pytest.mark.parametrize("fields", [
    TRAINING | {"patch_size": 7, "patch_count": 1},
    TRAINING | {"patch_size": 7},
    TRAINING | {"copies": "unmodified", "patch_size": 7, "patch_count": 1},
    TRAINING | {"copies": "unmodified", "patch_count": 1},
    TRAINING | {"copies": "patched"},
    TRAINING | {"copies": "patched", "patch_size": 7},
    TRAINING | {"copies": "patched", "patch_count": 1},
])
def test_patch_fields_belong_to_patched_copies_alone(fields):
    message = refusal(Training, fields)
    assert "patch_size" in message and "patch_count" in message and "copies='patched'" in message


def test_parent_and_its_epoch_come_together():
    parent = Training(**TRAINING)
    assert "parent_epoch" in refusal(Training, TRAINING | {"parent": parent})
    assert "parent_epoch" in refusal(Training, TRAINING | {"parent_epoch": 3})
    assert "parent_epoch" in refusal(Training, TRAINING | {"parent": parent, "parent_epoch": 0})


@pytest.mark.parametrize("record, name", [(Training(**TRAINING), "lr"), (Attack(**PGD), "eps")])
def test_records_cannot_be_changed(record, name):
    before = record.content()
    with pytest.raises(pydantic.ValidationError):
        setattr(record, name, 0.5)
    assert record.content() == before


def test_content_tells_records_apart():
    records = [Training(**TRAINING), Training(**TRAINING, seed=1), Training(**TRAINING, copies="unmodified"),
               Training(**PATCHED), Training(**PATCHED | {"patch_size": 11}),
               Training(**TRAINING, parent=Training(**TRAINING), parent_epoch=1),
               Training(**TRAINING, parent=Training(**TRAINING), parent_epoch=2),
               Training(**TRAINING, parent=Training(**TRAINING, seed=1), parent_epoch=1)]
    contents = [record.content() for record in records]
    assert all(contents.count(content) == 1 for content in contents)
    assert Training(**TRAINING).content() == contents[0]


@pytest.mark.parametrize("loss", ["margin", "logits", "probabilities"])
def test_ifgsm_and_pgd_without_restarts_are_one_loop(loss):
    ifgsm, pgd = Attack(**IFGSM, loss=loss), Attack(**PGD | {"restarts": 0}, loss=loss)
    assert ifgsm.loop() == pgd.loop()
    assert Attack(**PGD, loss=loss).loop() != pgd.loop()


def test_fgsm_is_one_whole_step_from_the_clean_image():
    assert Attack(name="fgsm", eps=0.3, loss="logits").loop() == {
        "eps": 0.3, "alpha": 0.3, "steps": 1, "restarts": 0, "loss": "logits"}
    assert Attack(name="fgsm", eps=0.3).loop() == Attack(name="ifgsm", eps=0.3, alpha=0.3, steps=1).loop()


def test_suggest():
    assert suggest("mdel", ["model", "seed"], "parameter") == "unknown parameter 'mdel'; did you mean 'model'?"
    message = suggest("qqq", ["model", "seed"], "profile")
    assert "unknown profile 'qqq'" in message and "model" in message and "seed" in message


def test_specs_can_be_read_without_torch():
    script = "import sys, reprolib.specs; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# --- settings and profiles ----------------------------------------------------------------------------------------

TABLE06 = load_grid("table06_fashion_mnist")
LARGE = Settings(profile="cpu", data="full", train_size=60_000, test_size=10_000,
                 pretrain_epochs=5, finetune_epochs=20, ablation_epochs=60, epoch_interval=10, steps=100, restarts=10)
PROFILES = ["quick", "cpu", "paper"]


def sentence(action, *args, **kwargs) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(SpecError) as caught:
        action(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def changed(settings: Settings, **fields) -> Settings:
    return Settings(**settings.content() | fields)


def test_settings_default_to_the_quick_profile():
    assert load_profile("quick") == Settings()


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_names_itself(name):
    assert load_profile(name).profile == name
    assert load_profile(name).folder == name


def test_no_profile_file_is_left_out_of_these_tests():
    assert sorted(path.stem for path in (specs.PARAMS / "profiles").glob("*.yaml")) == sorted(PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("knob", [name for name in Settings.model_fields if name != "profile"])
def test_any_turned_knob_leads_to_a_folder_of_ones_own(profile, knob):
    settings = load_profile(profile)
    others = {"data": {"sample": "full", "full": "sample"}, "engine": {"reprolib": "torchattacks"}}
    value = getattr(settings, knob)
    other = others[knob][value] if knob in others else value / 2 if knob.endswith("width") else value + 1
    turned = changed(settings, **{knob: other})
    assert turned.folder == "custom"
    assert changed(turned, **{knob: value}).folder == profile


def test_another_profiles_numbers_under_a_profiles_name_are_custom():
    assert changed(load_profile("cpu"), profile="paper").folder == "custom"


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, alpha", [(10, 0.075), (25, 0.03), (50, 0.015), (99, 0.01), (75, 0.01), (1, 0.75)])
def test_fewer_steps_are_longer_steps_and_nothing_else_changes(steps, alpha):
    attack = Attack(name="pgd", eps=0.3, alpha=0.01, steps=100, restarts=10, loss="probabilities")
    limited = changed(LARGE, steps=steps).limit(attack)
    assert limited.content() == attack.content() | {"steps": steps, "alpha": pytest.approx(alpha)}
    # two and a half times across, where the paper's own step is not longer still
    assert limited.alpha * steps == pytest.approx(max(2.5 * 0.3, 0.01 * steps))


def test_fewer_restarts_change_nothing_else():
    attack = Attack(**PGD)
    for restarts in (3, 0):
        assert changed(LARGE, restarts=restarts).limit(attack).content() == attack.content() | {"restarts": restarts}


def test_limits_are_upper_limits():
    attack = Attack(**PGD)
    assert changed(LARGE, steps=1000, restarts=1000).limit(attack) == attack


@pytest.mark.parametrize("name", ["autoattack", "square"])
def test_autoattack_is_cut_short_below_100_steps_and_says_so_in_its_key(name):
    attack = Attack(name=name, eps=0.3, loss="logits")
    assert changed(LARGE, steps=100).limit(attack) == attack and "steps" not in attack.loop()
    short = changed(LARGE, steps=10).limit(attack)
    assert short.loop() == attack.loop() | {"steps": 10}
    with pytest.raises(SpecError, match="no alpha or restarts"):
        Attack(name=name, eps=0.3, loss="logits", alpha=0.1)


def test_fgsm_has_nothing_to_limit():
    attack = Attack(name="fgsm", eps=0.3, loss="logits")
    assert changed(LARGE, steps=1, restarts=0).limit(attack) == attack


@pytest.mark.parametrize("dataset", ["fashion-mnist", "cifar-10", "imagenet-subset"])
def test_the_papers_attacks_are_untouched_at_the_papers_numbers(dataset):
    attacks = specs.attacks_of(dataset)
    assert attacks and all(load_profile("paper").limit(attack) == attack for attack in attacks.values())


# --- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_plan_of_table06_trains_six_networks_from_one_parent(profile):
    plan = Plan(TABLE06, load_profile(profile))
    undefended, epoch = plan.networks["undefended"]
    assert undefended.parent is None and undefended.copies == "none" and undefended.optimizer == "adam"
    fine_tuned = {name: spec for name, (spec, _) in plan.networks.items() if name != "undefended"}
    assert fine_tuned.keys() == {"7-P1", "11-P1", "7-P2", "11-P2", "no patches"}
    for name, spec in fine_tuned.items():
        assert (spec.parent, spec.parent_epoch) == (undefended, epoch)
        assert spec.optimizer == "rmsprop"
        if name != "no patches":
            assert spec.copies == "patched" and name == f"{spec.patch_size}-P{spec.patch_count}"
    assert [spec for spec, _ in plan.trainings] == [spec for spec, _ in plan.networks.values()]
    assert len({str(spec.content()) for spec, _ in plan.trainings}) == 6


def test_the_control_differs_from_a_patched_network_in_the_copies_alone():
    networks = Plan(TABLE06, LARGE).networks
    control, patched = networks["no patches"], networks["7-P1"]
    assert control[0].copies == "unmodified" and control[1] == patched[1]
    of_the_copies = {"copies", "patch_size", "patch_count"}
    assert control[0].model_dump(exclude=of_the_copies) == patched[0].model_dump(exclude=of_the_copies)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_job_attacks_a_checkpoint_that_is_trained(profile):
    plan = Plan(TABLE06, load_profile(profile))
    trained = [(spec, epoch) for spec, epochs in plan.trainings for epoch in epochs]
    jobs = [*plan.jobs, *plan.epoch_jobs, *plan.ensemble_jobs]
    attacked = [(job.evaluation.training, job.evaluation.epoch) for job in jobs]
    assert all(checkpoint in trained for checkpoint in attacked)
    assert all(checkpoint in attacked for checkpoint in trained)
    assert all(job.evaluation.training == plan.networks[job.column][0] for job in jobs)
    for some in (plan.jobs, plan.epoch_jobs, plan.ensemble_jobs):
        assert len({str(job.content()) for job in some}) == len(some)


def test_every_column_meets_every_attack_with_every_loss_under_both_rules():
    plan = Plan(TABLE06, LARGE)
    for column, (_, epoch) in plan.networks.items():
        for attack in TABLE06.attacks:
            for loss in TABLE06.losses:
                jobs = [job.evaluation for job in plan.jobs if (job.column, job.attack) == (column, attack)
                        and (job.evaluation.epoch, job.evaluation.attack.loss) == (epoch, loss)]
                assert {(job.decision, job.size) for job in jobs} == {("last", 10_000)}  # tells both rules' answers
            shown = [job.evaluation for job in plan.jobs if (job.column, job.attack) == (column, attack)
                     and job.evaluation.source]
            assert [(job.source, job.attack.loss, job.size) for job in shown] == (
                [] if column == "undefended" else [(plan.pretraining, "logits", 10_000)])


def test_number_of_jobs_of_table06():
    """Three losses per network and attack, and transfer to five; two columns under two attacks along 6 epochs."""
    plan = Plan(TABLE06, LARGE)
    assert len(plan.jobs) == 6 * 4 * 3 + 5 * 4 and len(plan.epoch_jobs) == 2 * 6 * 2 * 3
    assert len(plan.ensemble_jobs) == 3 * 3


def test_table_9_takes_the_tables_networks_under_autoattack_with_both_outputs_and_square():
    plan = Plan(TABLE06, changed(LARGE, autoattack_size=1000))
    for column in ("undefended", "7-P1", "no patches"):
        found = [job.evaluation for job in plan.ensemble_jobs if job.column == column]
        assert [(job.attack.name, job.attack.loss) for job in found] == [
            ("autoattack", "logits"), ("autoattack", "probabilities"), ("square", "logits")]
        assert all((job.training, job.epoch) == plan.networks[column] for job in found)
        assert {(job.attack.eps, job.size, job.decision) for job in found} == {(0.3, 1000, "any")}
    assert {job.evaluation.size for job in Plan(TABLE06, changed(LARGE, autoattack_size=10**6)).ensemble_jobs} == {10_000}


@pytest.mark.parametrize("name, shows", [
    ("table09_autoattack", "ensemble_jobs"), ("table09_vgg16", "ensemble_jobs"), ("table09_resnet50", "ensemble_jobs"),
    ("table11_epochs", "epoch_jobs"), ("table11_vgg16", "epoch_jobs")])
def test_tables_about_other_tables_networks(name, shows):
    view = load_view(name)
    plans = view.plans(LARGE)
    assert list(plans) == view.grids and set(view.grids) <= set(specs.grid_names()) and name in specs.view_names()
    assert all(view.jobs(plan) == getattr(plan, shows) and view.jobs(plan) for plan in plans.values())


def test_a_column_may_be_fine_tuned_by_another_recipe():
    recipe = TABLE06.finetuning.content() | {"optimizer": "adam", "label_smoothing": 0.1}
    columns = {name: column.content() for name, column in TABLE06.columns.items()} | {
        "other": {"copies": "patched", "patch_size": 7, "patch_count": 1, "finetuning": recipe}}
    plan = Plan(Grid(**TABLE06.content() | {"columns": columns}), LARGE)
    other, usual = plan.networks["other"][0], plan.networks["7-P1"][0]
    assert (other.optimizer, other.label_smoothing) == ("adam", 0.1) and other.parent == usual.parent
    assert other.model_copy(update={"optimizer": "rmsprop", "label_smoothing": 0.0}) == usual


def rules(jobs: list, attack: str) -> set:
    """(loss, decision rule, images) of an attack's jobs."""
    return {(job.evaluation.attack.loss, job.evaluation.decision, job.evaluation.size) for job in jobs
            if job.attack == attack}


@pytest.mark.parametrize("grid, which", [("table06_fashion_mnist", "epoch_jobs"), ("saturation", "jobs"),
                                         ("saturation", "epoch_jobs"), ("saturation", "sweep_jobs")])
def test_curves_spare_the_last_iterate_where_it_costs_every_step(grid, which):
    jobs = getattr(Plan(load_grid(grid), changed(LARGE, test_size=100)), which)
    cheap = {("probabilities", "last", 100)}
    for attack in {job.attack for job in jobs} - {"FGSM"}:
        assert rules(jobs, attack) == cheap | {("margin", "any", 100), ("logits", "any", 100)}
    assert rules(jobs, "FGSM") in (set(), {(loss, "last", 100) for loss in specs.LOSSES})


@pytest.mark.parametrize("last, interval, epochs", [
    (60, 10, [10, 20, 30, 40, 50, 60]), (60, 7, [7, 14, 21, 28, 35, 42, 49, 56]), (2, 1, [1, 2]), (5, 10, []),
])
def test_epochs_of_the_ablation(last, interval, epochs):
    plan = Plan(TABLE06, changed(LARGE, ablation_epochs=last, epoch_interval=interval))
    assert plan.ablation_epochs() == epochs
    wanted = dict(zip(plan.networks, (wanted for _, wanted in plan.trainings), strict=True))
    for column in TABLE06.ablation_columns:
        assert wanted[column] == sorted({*epochs, 20})
        on_the_way = {(job.evaluation.epoch, job.attack) for job in plan.epoch_jobs if job.column == column}
        assert on_the_way == {(epoch, attack) for epoch in epochs for attack in TABLE06.ablation_attacks}
    for column in wanted.keys() - {*TABLE06.ablation_columns, "undefended"}:
        assert wanted[column] == [20]
    assert wanted["undefended"] == [5]


def test_a_plan_takes_no_more_images_than_there_are():
    whole = Plan(TABLE06, changed(LARGE, train_size=10**6, test_size=10**6))
    assert (whole.train_size, whole.test_size) == (None, 10_000)
    assert whole.pretraining == Plan(TABLE06, LARGE).pretraining, "60 000 of 60 000 images are all of them"
    sample = Plan(TABLE06, changed(LARGE, data="sample"))
    assert (sample.dataset, sample.train_size, sample.test_size) == ("fashion-mnist-sample", None, 1000)
    part = Plan(TABLE06, changed(LARGE, train_size=500, test_size=50))
    assert (part.train_size, part.test_size) == (500, 50)
    assert {job.evaluation.size for job in part.jobs} == {50}


def test_settings_reach_trainings_and_attacks():
    plan = Plan(TABLE06, changed(LARGE, seed=7, steps=20, restarts=3))
    assert {spec.seed for spec, _ in plan.trainings} == {7} == {job.evaluation.seed for job in plan.jobs}
    pgd = {job.evaluation.attack.model_copy(update={"loss": "margin"}) for job in plan.jobs if job.attack == "PGD-v2"}
    assert [(a.steps, a.restarts, a.alpha) for a in pgd] == [(20, 3, 0.0375)]


def test_with_torchattacks_as_the_engine_a_plan_asks_for_what_it_can_do_and_nothing_else():
    plan = Plan(TABLE06, changed(LARGE, engine="torchattacks"))
    found = {(job.evaluation.engine, job.evaluation.attack.loss, job.evaluation.decision, job.evaluation.size)
             for job in plan.jobs}
    assert found == {("torchattacks", "logits", "last", 10_000)}
    assert {(job.column, job.attack) for job in plan.jobs} == {(c, a) for c in TABLE06.columns for a in TABLE06.attacks}
    assert plan.trainings == Plan(TABLE06, LARGE).trainings


@pytest.mark.parametrize("loss, decision", [("margin", "last"), ("probabilities", "last"), ("logits", "any")])
def test_what_torchattacks_cannot_do(loss, decision):
    fields = {"training": Training(**TRAINING), "epoch": 1, "attack": Attack(**PGD, loss=loss), "size": 10,
              "decision": decision}
    assert Evaluation(**fields).engine == "reprolib"
    message = refusal(Evaluation, fields | {"engine": "torchattacks"})
    assert repr(loss) in message and repr(decision) in message and "choose engine 'reprolib'" in message


@pytest.mark.parametrize("dataset", ["imagenet-subset"])
def test_data_set_without_a_sample(dataset):
    message = sentence(Plan, TABLE06.model_copy(update={"dataset": dataset}), Settings())
    assert dataset in message and "sample" in message and "set data to 'full'" in message


# --- a notebook's variables, and files with mistakes --------------------------------------------------------------


def test_settings_from_a_notebooks_variables():
    names = {"__name__": "__main__", "_": 3, "In": ["restarts = 3"], "Out": {}, "exit": print, "os": shutil,
             "restarts": 3, "steps": 20, "answer": 42, "title": "Table 6"}
    assert settings_from(names) == changed(Settings(), restarts=3, steps=20)
    assert settings_from({}) == Settings()


def test_what_a_notebook_has_no_variable_for_is_as_in_its_profile():
    assert settings_from({"profile": "cpu"}) == load_profile("cpu")
    assert settings_from({"profile": "cpu", "seed": 4}) == changed(load_profile("cpu"), seed=4)


@pytest.mark.parametrize("typo, meant", [
    ("restart", "restarts"), ("test_sise", "test_size"), ("finetune_epoch", "finetune_epochs"), ("engin", "engine"),
    ("Steps", "steps"), ("profil", "profile"), ("autoatack_size", "autoattack_size"),
])
def test_misspelt_variable(typo, meant):
    message = sentence(settings_from, {"steps": 5, typo: 3})
    assert repr(typo) in message and f"did you mean {meant!r}" in message


@pytest.mark.parametrize("name, value", [
    ("steps", "10"), ("steps", 0), ("restarts", -1), ("test_size", 1.5), ("data", "all"), ("engine", "foolbox"),
    ("profile", "qiuck"), ("seed", None),
])
def test_wrong_value_of_a_variable(name, value):
    message = sentence(settings_from, {name: value})
    assert f"Settings.{name}" in message and repr(value) in message


def test_unknown_profile_and_table():
    assert "'qiuck'; did you mean 'quick'" in sentence(load_profile, "qiuck")
    message = sentence(load_profile, "zzz")
    assert all(name in message for name in PROFILES)
    assert "did you mean 'table06_fashion_mnist'" in sentence(load_grid, "table6_fashion_mnist")


@pytest.fixture
def params(monkeypatch, tmp_path):
    """A copy of params/ to make mistakes in: params(kind, **fields) changes Table 6's grid or the quick profile."""
    shutil.copytree(specs.PARAMS, tmp_path / "params")
    monkeypatch.setattr(specs, "PARAMS", tmp_path / "params")

    def change(path: str, **fields):
        file = tmp_path / "params" / path
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | fields))

    change.folder = tmp_path / "params"
    return change


GRID, QUICK = "tables/table06_fashion_mnist.yaml", "profiles/quick.yaml"


@pytest.mark.parametrize("fields, words", [
    ({"attacks": ["PGD-v1", "PGDv2"]}, ["table06_fashion_mnist", "'PGDv2'", "did you mean 'PGD-v"]),
    ({"ablation_attacks": ["FSGM"]}, ["'FSGM'", "did you mean 'FGSM'"]),
    ({"attacks": ["FGSM-v1"]}, ["'FGSM-v1'", "did you mean 'FGSM'"]),  # it is CIFAR-10's
    ({"ablation_columns": ["7P1"]}, ["column", "'7P1'", "did you mean '7-P1'"]),
    ({"ensemble": {"eps": 0.3, "claims": "T9", "columns": {"7P1": None}}}, ["column", "'7P1'", "did you mean '7-P1'"]),
    ({"colums": {}}, ["'colums'", "did you mean 'columns'"]),
    ({"dataset": "fashion-minst"}, ["Grid.dataset", "fashion-mnist", "'fashion-minst'"]),
    ({"losses": ["margn"]}, ["Grid.losses", "margin", "'margn'"]),
    ({"columns": {"a": {"copies": "patch"}}}, ["Grid.columns.a", "copies", "'patch'"]),
    ({"pretraining": {"optimizer": "adam", "lr": "1e-3", "batch_size": 128}}, ["pretraining", "lr", "'1e-3'", "1.0e"]),
    ({"finetuning": {"optimiser": "adam"}}, ["finetuning", "optimi"]),
])
def test_mistake_in_a_grid(params, fields, words):
    load_grid("table06_fashion_mnist")
    params(GRID, **fields)
    message = sentence(load_grid, "table06_fashion_mnist")
    assert all(word in message for word in words), message


def test_column_that_lacks_its_patch_is_refused_by_the_plan(params):
    params(GRID, columns={"undefended": {"copies": "none"}, "7-P1": {"copies": "patched", "patch_size": 7}},
           ablation_columns=[], ensemble=None)
    assert "patch_count" in sentence(Plan, load_grid("table06_fashion_mnist"), Settings())


@pytest.mark.parametrize("fields, words", [
    ({"restart": 2}, ["'restart'", "did you mean 'restarts'"]),
    ({"steps": "1e1"}, ["Settings.steps", "'1e1'"]),
    ({"test_size": 0}, ["Settings.test_size", "0"]),
])
def test_mistake_in_a_profile(params, fields, words):
    params(QUICK, **fields)
    message = sentence(load_profile, "quick")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("text, word", [
    ("", "mapping"), ("- steps\n- 10\n", "mapping"), ("steps: [1\nseed: 2\n", "YAML"),
])
def test_profile_that_is_no_list_of_names_and_values(params, text, word):
    (params.folder / QUICK).write_text(text)
    message = sentence(load_profile, "quick")
    assert "quick.yaml" in message and word in message


def test_grids_and_records_are_equal_when_read_again():
    assert load_grid("table06_fashion_mnist") == TABLE06 == Grid(**TABLE06.content())


# --- the grids of CIFAR-10 ----------------------------------------------------------------------------------------


CIFAR = ["figure03_optimizer", "restarts_cifarconv", "table03_resnet20", "table03_resnet50", "table03_vgg16"]


@pytest.mark.parametrize("name", CIFAR)
@pytest.mark.parametrize("profile", ["quick", "cpu", "paper"])
def test_knobs_stand_for_others(name, profile):
    settings = load_profile(profile)
    plan = Plan(load_grid(name), settings)
    training, epoch = plan.networks["7-P1" if "7-P1" in plan.networks else "Adam"]
    full_scale = name == "restarts_cifarconv"  # the small network is fine-tuned for as long as Fashion-MNIST's
    assert epoch == (settings.finetune_epochs if full_scale else settings.cifar_epochs)
    assert training.parent_epoch == settings.cifar_pretrain_epochs
    assert plan.test_size == (settings.test_size if full_scale else settings.cifar_test_size)
    width = {"table03_resnet20": 1.0, "restarts_cifarconv": 1.0, "table03_resnet50": settings.resnet_width}
    assert training.width == training.parent.width == width.get(name, settings.width)
    assert training.dataset == ("fashion-mnist-sample-rgb" if profile == "quick" else "cifar-10")


def test_a_knob_that_is_no_setting(params):
    params(GRID, knobs={"finetune_epochs": "cifar_epoch"})
    assert "did you mean 'cifar_epochs'" in sentence(load_grid, "table06_fashion_mnist")


def test_one_attack_of_20_restarts_answers_for_fewer():
    grid = load_grid("restarts_cifarconv")
    assert grid.rows_of("PGD-v2") == {f"PGD-v2, {count} restarts": count for count in (5, 10, 20)}
    assert grid.rows() == [f"PGD-v{version}, {count} restarts" for version in (1, 2) for count in (5, 10, 20)]
    jobs = Plan(grid, load_profile("cpu")).jobs
    assert {(job.attack, job.evaluation.attack.eps, job.evaluation.attack.restarts) for job in jobs} == {
        ("PGD-v1", 0.1, 20), ("PGD-v2", 0.03, 20)}
    assert load_grid("table03_vgg16").rows_of("PGD-v2") == {"PGD-v2": None}
    assert load_grid("table03_vgg16").attack("PGD-v2").restarts == 10


def test_a_column_may_have_a_parent_of_its_own():
    plan = Plan(load_grid("table03_vgg16"), load_profile("cpu"))
    (strong, _), (tuned, _) = plan.networks["strong parent"], plan.networks["7-P1 of the strong"]
    assert tuned.parent == strong != plan.pretraining == plan.networks["7-P1"][0].parent
    assert (strong.optimizer, strong.cycle, strong.target) == ("sgd", 20, None)  # no longer than the profile's epochs
    assert (tuned.optimizer, tuned.cycle) == (plan.networks["7-P1"][0].optimizer, None)
