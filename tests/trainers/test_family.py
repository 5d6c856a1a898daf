"""Several students in one pass of a teacher: each is the student of its own training, and the teacher runs once."""

import _thread
import signal

import pytest
import torch
from datasets import Dataset
from transformers import BertForSequenceClassification, TrainerCallback, set_seed

from hf_distill import LiveTeacher, MultiTeacherTrainer, StoredTeacher, precompute, train_family
from hf_distill.trainers.distillation import family as module
from hf_distill.trainers.distillation.fitting import begins_with_fit

NAMES = ("deep", "flat")
OBJECTIVES = {"deep": ["relation"], "flat": ["logits", {"objective": "hidden", "layers": [[1, 2]]}]}
LABELS = {"id2label": {0: "negative", 1: "positive"}}


@pytest.fixture
def students(tiny_bert_config):
    """Two students with dropout, each of which draws other random numbers."""
    noise = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}
    shapes = {"deep": {"hidden_size": 12, "num_hidden_layers": 2}, "flat": {"num_hidden_layers": 1}}
    set_seed(1)
    made = {name: tiny_bert_config(**shape, **noise, **LABELS) for name, shape in shapes.items()}
    return {name: BertForSequenceClassification(config) for name, config in made.items()}


@pytest.fixture
def make(make_trainer, students, sentences, tiny_teacher, tmp_path):
    """`make(run, alone=False, **settings)`: the trainers of both students, which write to folders of the run.

    Those that are alone are trained, each before the next one is made. `of` has settings of one of them.
    """
    rows = Dataset.from_dict({"text": sentences})

    def both(run, teacher=tiny_teacher, objectives=OBJECTIVES, of=None, *, alone=False, **settings):
        made = []
        for name in NAMES:
            given = {
                "student": students[name],
                "train_dataset": rows,
                "objectives": objectives[name],
                "output_dir": str(tmp_path / run / name),
                "trainer": {"eval_dataset": rows.select(range(8))},
            }
            made.append(make_trainer(teacher, **given | settings | (of or {}).get(name, {})))
            if alone:
                made[-1].train()
        return made

    return both


@pytest.fixture
def passes(tiny_teacher):
    """The number of passes of the teacher, in a list of one."""
    counted = [0]
    tiny_teacher.register_forward_pre_hook(lambda *_: counted.__setitem__(0, counted[0] + 1))
    return counted


def log_of(trainer):
    timed = ("_runtime", "_per_second")
    return [{k: v for k, v in entry.items() if not k.endswith(timed)} for entry in trainer.state.log_history]


def assert_same(family, alone):
    for one, other in zip(family, alone, strict=True):
        theirs = other.student.state_dict()
        assert all(torch.equal(values, theirs[name]) for name, values in one.student.state_dict().items())
        assert log_of(one) == log_of(other)
        assert one.manifest() == other.manifest()


class AtStep(TrainerCallback):
    """Does something after one step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.act(control)


def fail(control):
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        ({}, 4),
        ({"gradient_accumulation_steps": 2, "train_sampling_strategy": "group_by_length"}, 8),
        ({"train_sampling_strategy": "random", "max_steps": 10}, 10),
        ({"max_tokens_per_batch": 64, "train_sampling_strategy": "group_by_length"}, 4),
        ({"eval_strategy": "steps", "eval_steps": 2, "eval_agreement": True, "bf16": True}, 6),
    ],
    ids=["plain", "accumulation", "two epochs", "budget", "evaluation"],
)
def test_every_student_is_that_of_its_own_training_and_the_teacher_runs_once_a_batch(make, passes, settings, batches):
    alone = make("alone", **settings, alone=True)
    family = make("family", **settings)
    passes[0] = 0
    outputs = train_family(family)
    assert passes[0] == batches
    assert_same(family, alone)
    assert [output.global_step for output in outputs] == [trainer.state.global_step for trainer in alone]


def test_projections_begin_with_the_fit_of_a_training_alone(make):
    objectives = {"deep": [{"objective": "hidden", "layers": [[2, 3]]}], "flat": ["logits"]}
    alone = make("alone", objectives=objectives, alone=True)
    family = make("family", objectives=objectives)
    assert begins_with_fit(family[0].model)
    train_family(family)
    assert_same(family, alone)


def test_afterwards_every_teacher_is_as_before(make, passes):
    family = make("family")
    before = [trainer.teacher.signals for trainer in family]
    train_family(family)
    assert [trainer.teacher.signals for trainer in family] == before
    passes[0] = 0
    family[1].evaluate()
    assert passes[0] == 1


def test_one_source_of_signals_serves_all(make, tiny_teacher, passes):
    alone = make("alone", alone=True)
    family = make("family", LiveTeacher(tiny_teacher))
    passes[0] = 0
    train_family(family)
    assert passes[0] == 4
    assert_same(family, alone)


def test_several_teachers_are_shared_one_by_one(make, tiny_teacher, tiny_bert_config, passes):
    set_seed(3)
    other = BertForSequenceClassification(tiny_bert_config(num_hidden_layers=1, **LABELS))
    objectives = {"deep": ["logits"], "flat": [{"objective": "relation", "teacher": 0}]}
    settings = {"teacher": [tiny_teacher, other], "objectives": objectives, "trainer_class": MultiTeacherTrainer}
    alone = make("alone", **settings, alone=True)
    family = make("family", **settings)
    passes[0] = 0
    train_family(family)
    assert passes[0] == 4
    assert_same(family, alone)


def test_a_stored_teacher_has_no_pass_to_share(make, tiny_teacher, tiny_tokenizer, sentences, tmp_path):
    rows = Dataset.from_dict(dict(tiny_tokenizer(sentences[:32])))
    folder = precompute(
        rows, tiny_teacher, ["relation", "logits"], tmp_path / "stored", processing_class=tiny_tokenizer
    ).folder
    stored = StoredTeacher(folder)
    settings = {
        "objectives": {"deep": ["relation"], "flat": ["logits"]}, "train_dataset": stored.dataset, "trainer": {},
    }  # fmt: skip
    alone = make("alone", folder, **settings, alone=True)
    family = make("family", folder, **settings)
    train_family(family)
    assert_same(family, alone)


def test_a_family_that_failed_goes_on_from_what_each_student_has(make, passes):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    whole = make("whole", **settings)
    train_family(whole)
    broken = make("family", **settings)
    broken[1].add_callback(AtStep(4, fail))
    with pytest.raises(OSError, match="the disk is gone"):
        train_family(broken)
    reached = [trainer.state.global_step for trainer in broken]
    assert reached == [4, 4], "the other one ends at its next step"
    again = make("family", **settings)
    passes[0] = 0
    train_family(again, "last")
    assert passes[0] == 4, "one student is two steps behind the other, and runs alone until they meet"
    for one, other in zip(again, whole, strict=True):
        theirs = other.student.state_dict()
        assert all(torch.equal(values, theirs[name]) for name, values in one.student.state_dict().items())


@pytest.fixture
def interruptible():
    """The handler of Python, also where the tests were started in the background, without one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_ends_the_family(interruptible):
    def train():
        while True:
            turns.give_way()

    def interrupted():
        _thread.interrupt_main()
        train()

    turns = module._Turns([train, interrupted], [lambda: 0, lambda: 0], torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        turns.run()


def test_a_student_that_ends_early_leaves_the_others_as_they_are(make, passes, capsys):
    alone = make("alone", alone=True)
    family = make("family", disable_tqdm=False)
    family[1].add_callback(AtStep(2, lambda control: setattr(control, "should_training_stop", True)))
    passes[0] = 0
    train_family(family)
    assert passes[0] == 4
    assert_same(family[:1], alone[:1])
    assert family[1].state.global_step == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "'loss'" in line]
    assert [[name for name in NAMES if f"{{'student': '{name}', 'loss'" in line] for line in lines[4 + 4 :]] == [
        ["deep"], ["flat"], ["deep"], ["flat"], ["deep"], ["deep"],
    ]  # fmt: skip


def test_other_batches_are_right_and_a_warning_says_that_they_cost(make, passes, sentences, warnings_of):
    own = {"flat": {"train_dataset": Dataset.from_dict({"text": sentences[::-1]})}}
    alone = make("alone", of=own, alone=True)
    family = make("family", of=own)
    said = warnings_of(module)
    passes[0] = 0
    train_family(family)
    assert passes[0] == 8
    assert_same(family, alone)
    assert ["the same rows" in line for line in said] == [True]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"per_device_train_batch_size": 4}, "same batches .* `--per_device_train_batch_size` is 8 for 'deep' and 4"),
        ({"seed": 1}, "`--data_seed` is 42 for 'deep' and 1 for 'flat'"),
        ({"report_to": "wandb"}, "`--report_to wandb`: .*allowed are tensorboard and none"),
        ({"output_dir": "deep"}, "`--output_dir` of its own"),
        ({"teacher": "other"}, "have different teachers"),
        ({"student": "other"}, "have different labels"),
    ],
)
def test_what_a_family_cannot_share_is_refused(make, tiny_bert_config, of, message, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: True)
    set_seed(5)
    made = {
        "output_dir": lambda: str(tmp_path / "family" / "deep"),
        "teacher": lambda: BertForSequenceClassification(tiny_bert_config(**LABELS)),
        "student": lambda: BertForSequenceClassification(tiny_bert_config(num_labels=2, hidden_size=12)),
    }
    of = {name: made.get(name, lambda value=value: value)() for name, value in of.items()}
    objectives = {"deep": ["relation"], "flat": ["relation"]}
    if "report_to" in of:
        family = make("family", objectives=objectives)
        family[1].args.report_to = ["wandb"]
    else:
        teacher = of.pop("teacher", None)
        family = make("family", objectives=objectives, of={"flat": of})
        if teacher is not None:
            family[1] = make("other", teacher, objectives=objectives)[1]
    with pytest.raises(ValueError, match=message):
        train_family(family)


def test_a_family_needs_teachers_and_no_folder_of_a_checkpoint(make, make_trainer, tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        train_family([])
    with pytest.raises(ValueError, match=r"`--resume_from_checkpoint` is 'x'.*give last"):
        train_family(make("family"), "x")
    lonely = make_trainer(None, objectives=["labels"])
    with pytest.raises(ValueError, match="'run' has no teacher"):
        train_family([lonely])
