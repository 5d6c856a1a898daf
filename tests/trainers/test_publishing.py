"""What trainers give to the Hub."""

import copy
import json
import logging
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from trainings import assert_same_weights, trained
from transformers import AutoModelForSequenceClassification

from hf_distill import DistillationArguments, DistillationTrainer, MultiTeacherTrainer
from hf_distill.hub.failures import PushError
from hf_distill.settings import FineTuningArguments

STUDENT = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
CARD = {"README.md", "distillation.json"}


@pytest.fixture
def build(make_trainer, tmp_path, tiny_teacher, rows):
    """`build(**arguments)`: a trainer with a projection, an optimizer and checkpoints, none of which may be pushed."""

    def make(several=False, **arguments):
        teacher, kind, hidden = tiny_teacher, DistillationTrainer, {"objective": "hidden"}
        if several:
            teacher, kind = [tiny_teacher, copy.deepcopy(tiny_teacher)], MultiTeacherTrainer
            hidden["teacher"] = 1
        given = {"output_dir": str(tmp_path / "small"), "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
        given |= {"train_dataset": rows.select(range(16)), "objectives": ["logits", hidden]}
        return make_trainer(teacher, kind, **given | arguments)

    return make


def pushed(hub, name="anna/small", revision="main"):
    return hub.repo(name).files(revision)


@pytest.mark.parametrize("several", [False, True])
def test_only_the_plain_student_with_our_card_is_pushed(hub, build, tmp_path, several):
    trainer = trained(build(several))
    commit = trainer.push_to_hub()
    files = pushed(hub)
    assert files.keys() == STUDENT | CARD | {".gitattributes"}
    assert commit.oid == hub.repo("anna/small").branches["main"][-1]
    assert (tmp_path / "small" / "checkpoint-2" / "_objectives.safetensors").is_file()
    assert b"projection" not in files["model.safetensors"].content
    assert not any(b"hf_anna" in file.content for file in files.values())
    card = files["README.md"].content.decode()
    assert "# small" in card
    assert "**Objective `hidden" in card
    assert 'from_pretrained("anna/small")' in card
    (tmp_path / "got").mkdir()
    for name in STUDENT:
        (tmp_path / "got" / name).write_bytes(files[name].content)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "got")
    assert_same_weights(trainer.student, loaded)


def test_every_save_pushes_the_student_of_then(hub, build):
    trainer = trained(build(push_to_hub=True, hub_model_id="anna/often", hub_always_push=True))
    trainer.save_model()
    repo = hub.repo("anna/often")
    # The last save finds nothing new: the second one was of the same step.
    assert repo.titles[1:] == ["Training in progress, step 1", "Training in progress, step 2"]
    for oid in repo.branches["main"][1:]:
        assert repo.commits[oid].keys() == STUDENT | CARD | {".gitattributes"}
    first, second = (repo.commits[oid]["model.safetensors"].oid for oid in repo.branches["main"][1:])
    assert first != second


def test_with_the_strategy_end_nothing_is_pushed_before_the_end(hub, build):
    trainer = trained(build(push_to_hub=True, hub_strategy="end"))
    assert hub.repo("anna/small").titles == ["initial commit"]
    trainer.save_model()
    assert hub.repo("anna/small").titles == ["initial commit", "Model save"]


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_strategies_that_upload_checkpoints_are_refused(hub, build, strategy):
    with pytest.raises(ValueError, match=f"`--hub_strategy {strategy}` uploads .* allowed are every_save, end"):
        build(push_to_hub=True, hub_strategy=strategy)
    assert hub.requests == []


def test_name_visibility_branch_and_token_are_those_of_the_arguments(hub, build, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    where = {"hub_model_id": "bob/his", "hub_private_repo": True, "hub_revision": "trial", "hub_token": "hf_bob"}
    trainer = build(push_to_hub=True, hub_strategy="end", **where)
    trainer.push_to_hub(language="en", license="mit", commit_message="Mine")
    repo = hub.repo("bob/his")
    assert repo.private
    assert pushed(hub, "bob/his").keys() == {".gitattributes"}
    card = pushed(hub, "bob/his", "trial")["README.md"].content.decode()
    assert "license: mit" in card
    assert "hub_" not in card
    assert repo.titles[-1] == "Mine"


def test_name_visibility_branch_and_token_may_be_given_at_the_end(hub, build, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    future = build().push_to_hub(token="hf_anna", private=True, revision="trial", blocking=False)
    future.result()
    assert hub.repo("anna/small").private
    assert pushed(hub, revision="trial").keys() > STUDENT


def test_what_is_wrong_with_the_hub_shows_before_the_training(hub, build, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PushError, match="does not know the token in HF_TOKEN") as failed:
        build(push_to_hub=True, hub_private_repo=True)
    assert "Nothing was trained yet: train without `--push_to_hub`" in str(failed.value)
    assert str(failed.value).endswith(" small --private")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        build(push_to_hub=True)


def test_a_push_that_fails_in_the_middle_is_a_warning_and_one_at_the_end_an_error(hub, build, caplog, tmp_path):
    trainer = build(push_to_hub=True)
    hub.faults = lambda method, path: "drop"
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert trainer.state.global_step == 2
    assert "A push during the training failed: The Hub at" in caplog.text
    with pytest.raises(PushError, match=r"Everything is kept in .*to go on: hf-distill push"):
        trainer.save_model()
    assert {path.name for path in (tmp_path / "small").iterdir()} > STUDENT | CARD
    hub.faults = lambda method, path: None
    trainer.push_to_hub()
    assert pushed(hub).keys() > STUDENT


def test_other_processes_save_with_the_first_and_push_nothing(hub, build, monkeypatch):
    trainer = build()
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    assert trainer.push_to_hub() is None
    assert hub.requests == []


def test_without_a_teacher_it_pushes_as_trainer_does(tmp_path, monkeypatch, tiny_student):
    created = SimpleNamespace(create_repo=lambda name, **_: SimpleNamespace(repo_id=f"anna/{name}"))
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: created)
    args = DistillationArguments(str(tmp_path / "plain"), push_to_hub=True, hub_strategy="checkpoint", use_cpu=True)
    assert DistillationTrainer(tiny_student, args=args).hub_model_id == "anna/plain"


def test_a_fine_tuning_pushes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"`--push_to_hub` is not for a fine-tuning.*hf-distill push FOLDER REPO"):
        FineTuningArguments(str(tmp_path), push_to_hub=True)


def test_no_file_of_the_run_holds_the_token(build, tmp_path):
    trainer = build(hub_token="hf_secret")
    trainer.create_model_card()
    trainer.save_model()
    for path in (tmp_path / "small").iterdir():
        if path.name != "training_args.bin":  # written by the base class, never pushed
            assert b"hf_secret" not in path.read_bytes()
    facts = json.loads((tmp_path / "small" / "distillation.json").read_text())
    assert facts["settings"].keys().isdisjoint({"hub_token", "push_to_hub"})
