"""Checkpoints are finished or absent: what is killed or damaged is never gone on with, and never silently."""

import copy
import os
import re
import shutil
import signal
from pathlib import Path

import datasets
import pytest
import torch
from killing import in_fork, killed_at
from tiny_data import labelled_rows
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.peft import MIN_PEFT_VERSION

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    EncoderForGeneration,
    GenerationSettings,
    GenerationTrainer,
    GenerationTrainingArguments,
    MTLArguments,
    MTLTrainer,
    MultiTeacherArguments,
    MultiTeacherTrainer,
)
from hf_distill.generation.packing import SpecialIds
from hf_distill.settings import FineTuningArguments, MaskedHeadArguments
from hf_distill.storage.files import SCRATCH, DiskFullError
from hf_distill.storage.steps import LOCK, MARKER, FolderInUseError, writing_to
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec
from hf_distill.trainers import checkpoints
from hf_distill.trainers.checkpoints import damage_of_checkpoint, last_checkpoint
from hf_distill.trainers.fine_tuning.masked_lm_head import MaskedHeadTrainer
from hf_distill.trainers.fine_tuning.trainer import finetune

STEPS = 3
SETTINGS = {
    **{"max_steps": STEPS, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 4},
    **{"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"},
}
MOOD = TaskSpec(
    *("mood", ("text",), ("bad", "good")),
    metrics=("accuracy",),
    fine_tuning=FineTuningDefaults(epochs=1, learning_rate=1e-3, batch_size=4, max_length=16),
)


@pytest.fixture(scope="module")
def jobs(tiny_tokenizer, tiny_bert_config, sentences, rows):  # noqa: C901 (a job, a function)
    """Name -> `job(folder, resume, **settings)`: trains in the folder and returns the model that it trained."""
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    all_rows, rows = rows, rows.select(range(16))
    labelled = labelled_rows(sentences[:16], rows["labels"][:], MOOD.label_names)
    task = LoadedTask(MOOD, datasets.DatasetDict(train=labelled, validation=labelled), "here")
    plain = [ids[1:-1] for ids in rows["input_ids"]]
    pairs = datasets.Dataset.from_dict({"source": plain, "target": [ids[:2] for ids in plain]})

    def model(seed, cls=BertForSequenceClassification, **more):
        set_seed(seed)
        return cls(tiny_bert_config(**{**small, "hidden_dropout_prob": 0.1, **more}))

    def arguments(cls, folder, **more):
        return cls(str(folder), **{**SETTINGS, **more})

    def train(trainer, resume):
        trainer.train(resume_from_checkpoint=resume)
        trainer.save_model()
        return trainer.model

    def distillation(folder, resume, of_model=None, of_rows=None, **more):
        args = arguments(DistillationArguments, folder, objectives=["logits", "hidden"], **more)
        student = model(1, **{"hidden_size": 4, **(of_model or {})})
        learnt = rows if of_rows is None else all_rows.select(range(*of_rows.indices(len(all_rows))))
        trainer = DistillationTrainer(
            *(student, args),
            **{"train_dataset": learnt, "eval_dataset": rows, "teacher_model": model(0)},
            processing_class=tiny_tokenizer,
        )
        return train(trainer, resume)

    def several(folder, resume, **more):
        args = arguments(MultiTeacherArguments, folder, objectives=["logits"], **more)
        teachers = [model(0), model(2)]
        trainer = MultiTeacherTrainer(
            model(1), args, teacher_models=teachers, train_dataset=rows, processing_class=tiny_tokenizer
        )
        return train(trainer, resume)

    def tasks(folder, resume, of_model=None, **more):
        args, encoder = arguments(MTLArguments, folder, **more), model(0, BertModel, **(of_model or {}))
        trainer = MTLTrainer(encoder, args, tasks=[task], processing_class=tiny_tokenizer, max_length=16)
        return train(trainer, resume)

    def fine_tuning(folder, resume, of_model=None, seed_of_model=0, **more):
        args = arguments(FineTuningArguments, folder, resume_from_checkpoint=resume, **more)
        return finetune(model(seed_of_model, **(of_model or {})), task, tiny_tokenizer, args).model

    def masked_head(folder, resume, **more):
        args = arguments(MaskedHeadArguments, folder, mlm_probability=0.3, **more)
        trainer = MaskedHeadTrainer(
            *(model(0, BertForMaskedLM), args),
            **{"freeze_encoder": False, "train_dataset": rows.remove_columns("labels"), "eval_dataset": rows},
            processing_class=tiny_tokenizer,
        )
        return train(trainer, resume)

    def generation(folder, resume, **more):
        args = arguments(GenerationTrainingArguments, folder, **more)
        settings = GenerationSettings(num_beams=1, max_new_tokens=4, batch_size=4, max_source_length=16)
        ids = SpecialIds.from_tokenizer(tiny_tokenizer)
        encoder = EncoderForGeneration(model(0, BertForMaskedLM), ids, settings=settings, tokenizer=tiny_tokenizer)
        return train(GenerationTrainer(encoder, args, train_dataset=pairs), resume)

    def stock(folder, resume, **more):
        args = arguments(TrainingArguments, folder, **more)
        return train(Trainer(model(0), args, train_dataset=rows, processing_class=tiny_tokenizer), resume)

    def without_teacher(folder, resume, **more):
        args = arguments(TrainingArguments, folder, **more)
        trainer = DistillationTrainer(
            model(0), args, train_dataset=rows, eval_dataset=rows, processing_class=tiny_tokenizer
        )
        return train(trainer, resume)

    named = [distillation, several, tasks, fine_tuning, masked_head, generation, stock, without_teacher]
    return {job.__name__: job for job in named}


def content(model):
    """The weights as bytes, which a fork can hand over."""
    return {name: tensor.detach().numpy().tobytes() for name, tensor in model.state_dict().items()}


KILLED = ("distillation", "several", "tasks", "fine_tuning", "masked_head", "generation")


@pytest.mark.parametrize("name", KILLED)
def test_kills_in_the_middle_of_checkpoints_end_in_the_same_weights(name, jobs, tmp_path, one_thread):
    job, place = jobs[name], KILLED.index(name)
    whole = in_fork(lambda: content(job(tmp_path / "whole", "last")))
    folder, killed = tmp_path / "killed", 0

    def limited():
        return content(job(folder, "last", save_total_limit=1))

    # Other operations for every job; the later ones lie in the second checkpoint that a run writes.
    for operation in (2 + 2 * place, 15 + 3 * place, 34 + 4 * place, 58 + 5 * place):
        status = in_fork(lambda op=operation: killed_at(folder, op, limited))
        if status == -signal.SIGKILL:
            killed += 1
        else:
            assert status == whole
    assert killed >= 3
    # The last one goes on from the last step of all, as a run does that was killed behind it.
    assert in_fork(lambda: (limited(), limited())) == (whole, whole)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == [f"checkpoint-{STEPS}"]
    assert not (folder / LOCK).exists()
    assert not list(folder.rglob(f"{SCRATCH}*"))
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(jobs, tmp_path_factory):
    """A distillation with its three checkpoints, and what came out."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, content(jobs["distillation"](folder, None))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def said(warnings_of):
    return warnings_of(checkpoints)


FILES = (
    *("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"),
    *("config.json", "_distillation.json", "_objectives.safetensors", MARKER),
)


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3]),
    "flipped": _flip,
    "of another step": lambda path: shutil.copy(path.parents[1] / "checkpoint-1" / path.name, path),
}
# The marker alone is gone: the checkpoint is judged as one that a plain `Trainer` wrote, and it is whole.
WITHOUT_MARKER = ("missing", MARKER)


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_damaged_checkpoints_the_file_is_named_and_the_last_whole_one_is_taken(damage, run, said):
    last = run / "checkpoint-3"
    for name in FILES:
        path, before = last / name, (last / name).read_bytes()
        DAMAGES[damage](path)
        if (damage, name) == WITHOUT_MARKER:
            assert damage_of_checkpoint(last) is None
        elif not path.is_file() or path.read_bytes() != before:
            reason = damage_of_checkpoint(last)
            # By a marker that is not its own, other files are wrong.
            assert reason is not None
            assert "\n" not in reason
            assert str(last if name == MARKER else path) in reason
            assert last_checkpoint(run) == str(run / "checkpoint-2")
            assert "checkpoint-3' is incomplete and is skipped" in said.pop()
        path.write_bytes(before)
    assert damage_of_checkpoint(last) is None
    assert not said


@pytest.mark.parametrize("damage", ["missing", "empty", "cut short"])
def test_of_checkpoints_that_a_plain_trainer_wrote_the_damaged_file_is_named(damage, jobs, tmp_path, said):
    jobs["stock"](tmp_path, None, max_steps=2)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"):
        path, before = tmp_path / "checkpoint-2" / name, (tmp_path / "checkpoint-2" / name).read_bytes()
        DAMAGES[damage](path)
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
        assert name == "model.safetensors" if "has no weights" in said[-1] else str(path) in said[-1]
        path.write_bytes(before)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_a_damaged_checkpoint_that_is_named_is_one_line(run, jobs):
    DAMAGES["cut short"](run / "checkpoint-3" / "optimizer.pt")
    with pytest.raises(
        ValueError, match=r"--resume_from_checkpoint.*checkpoint-3/optimizer.pt' is damaged or cut"
    ) as caught:
        jobs["distillation"](run, str(run / "checkpoint-3"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="there is no folder"):
        jobs["distillation"](run, str(run / "checkpoint-9"))


@pytest.mark.parametrize("asked", ["last", "True", True])
def test_the_run_goes_on_from_the_last_whole_one(asked, run, jobs, trained, said):
    (run / "checkpoint-3" / MARKER).write_text('{"finished": false}')
    (run / "checkpoint-12").mkdir()
    (run / "checkpoint-x").mkdir()
    assert content(jobs["distillation"](run, asked)) == trained[1]
    assert ["checkpoint-12" in said[0], "was not finished" in said[1], len(said)] == [True, True, 2]
    assert damage_of_checkpoint(run / "checkpoint-3") is None


def test_where_none_is_whole_last_begins_anew_and_true_is_an_error(run, jobs, trained, said):
    for step in (1, 2, 3):
        (run / f"checkpoint-{step}" / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        jobs["distillation"](run, True)
    assert content(jobs["distillation"](run, "last")) == trained[1]
    assert "from the beginning" in said[-1]


def test_other_settings_are_named(run, jobs, said):
    jobs["distillation"](run, "last", seed=7)
    assert len(said) == 1
    assert "(seed: 42 in the checkpoint, 7 now)" in said[0]


def test_a_checkpoint_without_the_state_of_the_optimizer_is_said(jobs, said, tmp_path):
    jobs["distillation"](tmp_path / "light", None, save_only_model=True)
    jobs["distillation"](tmp_path / "light", "last", save_only_model=True)
    assert len(said) == 1
    assert "has no state of the optimizer (`--save_only_model`)" in said[0]


def test_other_rows_of_the_same_number_are_named(run, jobs, said):
    jobs["distillation"](run, "last", of_rows=slice(8, 24))
    assert len(said) == 1
    assert "(content_of_train_rows: " in said[0]


def test_other_first_weights_are_named(jobs, tmp_path, said):
    jobs["fine_tuning"](tmp_path, None, max_steps=1)
    jobs["fine_tuning"](tmp_path, "last", max_steps=1)
    assert not said
    jobs["fine_tuning"](tmp_path, "last", max_steps=1, seed_of_model=5)
    assert "(first_weights: " in said[0]


def test_settings_of_tasks_are_named_too(jobs, tmp_path, said):
    jobs["tasks"](tmp_path, None, max_steps=1)
    jobs["tasks"](tmp_path, "last", max_steps=1, temperature=2.0, r3f_lambda=0.5)
    assert "(r3f_lambda: 0.0 in the checkpoint, 0.5 now; temperature: 1.0 in the checkpoint, 2.0 now)" in said[0]


@pytest.mark.parametrize("name", ["distillation", "tasks", "fine_tuning"])
def test_a_model_of_another_shape_is_refused_with_the_size(name, jobs, tmp_path):
    jobs[name](tmp_path, None, max_steps=1)
    with pytest.raises(ValueError, match=r"another shape \(num_hidden_layers: 2 in the checkpoint, 3 now\)") as caught:
        jobs[name](tmp_path, "last", of_model={"num_hidden_layers": 3})
    assert "\n" not in str(caught.value)


def test_a_run_that_began_later_is_gone_on_with(run, jobs, trained, tmp_path):
    """Checkpoints of an earlier run have more steps."""
    whole = content(jobs["distillation"](tmp_path / "whole", None, seed=7))
    jobs["distillation"](run, None, seed=7, save_steps=2)
    shutil.rmtree(run / "checkpoint-3")
    shutil.copytree(trained[0] / "checkpoint-3", run / "checkpoint-3")
    assert last_checkpoint(run) == str(run / "checkpoint-2")
    assert content(jobs["distillation"](run, "last", seed=7, save_total_limit=1)) == whole
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-3"]


def test_of_checkpoints_beyond_the_limit_halves_and_those_of_earlier_runs_go_first(run, jobs):
    (run / "checkpoint-12").mkdir()
    jobs["distillation"](run, None, max_steps=1, save_total_limit=2)
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-3"]
    assert last_checkpoint(run) == str(run / "checkpoint-1")


BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss"}


@pytest.fixture
def worse_and_worse(monkeypatch):
    """Lets every evaluation be worse than the one before."""
    loop = DistillationTrainer.evaluation_loop

    def measure(self, *given, **more):
        output = loop(self, *given, **more)
        output.metrics["eval_loss"] = float(self.state.global_step)
        return output

    monkeypatch.setattr(DistillationTrainer, "evaluation_loop", measure)


@pytest.mark.usefixtures("worse_and_worse")
def test_the_best_checkpoint_is_found_where_the_folder_has_moved_to(jobs, tmp_path):
    best = content(jobs["distillation"](tmp_path / "run", None, **BEST))
    (tmp_path / "run").rename(tmp_path / "moved")
    assert content(jobs["distillation"](tmp_path / "moved", "last", **BEST)) == best
    # Of a copy its own one is taken.
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoint-3")
    DAMAGES["flipped"](tmp_path / "moved" / "checkpoint-1" / "model.safetensors")
    assert content(jobs["distillation"](tmp_path / "copy", "last", **BEST, save_total_limit=1)) == best
    assert [path.name for path in (tmp_path / "copy").glob("checkpoint-*")] == ["checkpoint-1"]


@pytest.mark.usefixtures("worse_and_worse")
def test_a_best_checkpoint_that_is_gone_is_said_and_another_one_is_chosen(jobs, tmp_path, said):
    jobs["distillation"](tmp_path, None, **BEST)
    for step in (1, 3):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    found = content(jobs["distillation"](tmp_path, "last", **BEST))
    assert "checkpoint-1' is gone: the best is chosen among those from here on" in said[-1]
    assert found == content(jobs["distillation"](tmp_path / "plain", None))


@pytest.mark.usefixtures("worse_and_worse")
def test_early_stopping_goes_on_counting_and_a_training_that_it_ended_stays_ended(jobs, tmp_path):
    patient = {**BEST, "early_stopping_patience": 2, "max_steps": 6}
    whole = content(jobs["distillation"](tmp_path / "run", None, **patient))
    assert last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-3")
    assert content(jobs["distillation"](tmp_path / "run", "last", **patient)) == whole
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    assert content(jobs["distillation"](tmp_path / "run", "last", **patient)) == whole
    assert last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-3")


def test_a_callback_that_joins_a_resumed_run_is_written_into_its_checkpoints(run, jobs):
    shutil.rmtree(run / "checkpoint-3")
    jobs["distillation"](run, "last", **BEST, early_stopping_patience=9)
    assert "EarlyStoppingCallback" in (run / "checkpoint-3" / "trainer_state.json").read_text()


def test_weights_that_were_saved_anew_in_other_files_are_taken(run):
    weights = run / "checkpoint-3" / "model.safetensors"
    shutil.copy(weights, weights.with_name("model-00001-of-00001.safetensors"))
    weights.unlink()
    assert damage_of_checkpoint(weights.parent) is None
    DAMAGES["cut short"](weights.with_name("model-00001-of-00001.safetensors"))
    assert "model.safetensors' is missing" in damage_of_checkpoint(weights.parent)


def test_a_damaged_best_checkpoint_is_not_loaded(jobs, tmp_path, monkeypatch):
    def damaging(self, best):
        DAMAGES["flipped"](Path(best, "model.safetensors"))
        check(self, best)

    check = checkpoints.Checkpoints.check_best
    monkeypatch.setattr(checkpoints.Checkpoints, "check_best", damaging)
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 2}
    with pytest.raises(ValueError, match=r"best checkpoint cannot be loaded: .*model.safetensors' is damaged"):
        jobs["distillation"](tmp_path, None, **best)


def test_without_a_teacher_checkpoints_are_those_of_a_plain_trainer(jobs, tmp_path):
    names = ("stock", "without_teacher")
    stock, ours = (content(jobs[name](tmp_path / name, None, save_total_limit=2)) for name in names)
    assert stock == ours
    # Each goes on from the other's.
    for name, other in (("without_teacher", "stock"), ("stock", "without_teacher")):
        assert content(jobs[name](tmp_path / f"{name}_resumed", str(tmp_path / other / "checkpoint-2"))) == stock
    files = [{p.name for p in (tmp_path / name / "checkpoint-3").iterdir()} for name in names]
    assert files[1] == files[0]
    limits = [
        torch.load(tmp_path / name / "checkpoint-3" / "training_args.bin", weights_only=False).save_total_limit
        for name in names
    ]
    assert limits == [2, 2]
    assert sorted(os.listdir(tmp_path / "without_teacher")) == sorted(os.listdir(tmp_path / "stock"))


@pytest.mark.parametrize("name", KILLED)
def test_a_full_disk_is_one_line_and_leaves_whole_checkpoints(name, jobs, tmp_path, monkeypatch, one_thread):
    def full(content, path, *rest, **options):
        if "checkpoint-2" in str(path):
            Path(path).write_bytes(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
        return save(content, path, *rest, **options)

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFullError, match=r"The disk is full: .* could not be written to") as caught:
        jobs[name](tmp_path, None)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert damage_of_checkpoint(tmp_path / "checkpoint-1") is None


def test_two_runs_on_one_folder(jobs, tmp_path):
    with writing_to(tmp_path / "run"), pytest.raises(AssertionError, match=f"process {os.getpid()} on"):
        in_fork(lambda: jobs["distillation"](tmp_path / "run", None))
    assert issubclass(FolderInUseError, OSError)


def test_the_folder_of_teacher_or_student_is_no_output(tiny_bert_config, tiny_tokenizer, tmp_path):
    BertForSequenceClassification(tiny_bert_config(num_hidden_layers=1)).save_pretrained(tmp_path / "teacher")
    (tmp_path / "link").symlink_to(tmp_path / "teacher")
    before = (tmp_path / "teacher" / "model.safetensors").read_bytes()
    rows = datasets.Dataset.from_dict(dict(tiny_tokenizer(["good film"] * 4)))
    for output in ("teacher", "link", "teacher/inside", "x/../teacher"):
        args = DistillationArguments(str(tmp_path / output), objectives=["logits"], **SETTINGS)
        trainer = DistillationTrainer(
            BertForSequenceClassification(tiny_bert_config(num_hidden_layers=1)),
            args,
            teacher_model=str(tmp_path / "teacher"),
            train_dataset=rows,
        )
        with pytest.raises(ValueError, match=re.escape(f"`--output_dir` {str(tmp_path / output)!r}")):
            trainer.train()
    assert (tmp_path / "teacher" / "model.safetensors").read_bytes() == before
    files = sorted(path.name for path in (tmp_path / "teacher").rglob("*") if path.is_file())
    assert files == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["default", "other"])
def test_an_adapter_that_transformers_added_is_gone_on_with(build, tiny_student, tmp_path, name, said):
    """`Trainer` itself cannot load the checkpoints that it writes of such a model."""
    peft = pytest.importorskip("peft", minversion=MIN_PEFT_VERSION)

    def trainer(**more):
        set_seed(1)
        student = copy.deepcopy(tiny_student)
        student.add_adapter(peft.LoraConfig(target_modules=["query"], modules_to_save=["classifier"]), name)
        given = {"objectives": ["logits"], "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2}
        return build(student=student, copies=False, output_dir=str(tmp_path / "run"), **given | more)

    def weights(trained):
        return {key: values.clone() for key, values in trained.student.get_adapter_state_dict().items()}

    whole = trainer()
    begun = weights(whole)
    whole.train()
    ended = weights(whole)
    assert not any(torch.equal(begun[key], ended[key]) for key in ended if "lora_B" in key or "classifier" in key)
    again = trainer()
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert all(torch.equal(ended[key], values) for key, values in weights(again).items())
    assert not [message for message in said if "is saved" in message]

    other = copy.deepcopy(tiny_student)
    other.add_adapter(peft.LoraConfig(r=2, target_modules=["query"]), name)
    other.classifier.requires_grad_(True)
    with pytest.raises(
        ValueError, match=rf"adapter_model.safetensors' does not fit the model's adapter '{name}': bert"
    ):
        build(student=other, copies=False, objectives=["logits"], output_dir=str(tmp_path / "run")).train("last")
    build(student=other, copies=False, objectives=["logits"], output_dir=str(tmp_path / "other"), max_steps=1).train()
    beside = f"'classifier.weight' are trained, but of a model with `add_adapter` its adapter '{name}'"
    assert any(beside in message for message in said)
