"""Wrong parameters are refused before any compute, in one sentence that says which and what to do."""

import subprocess
import sys

import pydantic
import pytest

from reprolib.specs import Attack, SpecError, Training, suggest

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
    (Training, TRAINING, "optimizer", "sgd"),
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
