"""Rows with several choices: one pair of texts for each, whichever columns they stand in."""

import dataclasses

import pytest
from datasets import Dataset, DatasetDict, List, Value
from trainings import trained
from transformers import BertModel, set_seed

from hf_distill import MTLArguments, MTLTrainer
from hf_distill.commands.textbook import read_rows
from hf_distill.settings import FineTuningArguments, TeacherArguments, TextbookArguments
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.loading import LoadedTask, load_task
from hf_distill.tasks.rows.tokenizing import tokenize_task
from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.spec_values import FineTuningDefaults
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.task_models import add_lora, load_task_model, task_config
from hf_distill.trainers.fine_tuning.trainer import evaluate_model, finetune

QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
ROWS = [
    {"sent1": "a cat runs", "sent2": "the dog", "ending0": "sees", "ending1": "likes the cat", "label": 1},
    {"sent1": "a bird", "sent2": "the fish", "ending0": "hates the bird", "ending1": "runs", "label": 0},
]
SPEC = TaskSpec(
    "endings",
    ("sent1", "sent2"),
    ("0", "1"),
    kind="multiple_choice",
    choice_columns=("ending0", "ending1"),
)


def folder_of(tmp_path, rows, **fields):
    import yaml

    for split in ("train", "validation"):
        Dataset.from_list(rows).to_json(str(tmp_path / f"{split}.jsonl"), force_ascii=False)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({"kind": "multiple_choice", **fields}))
    return tmp_path


def test_every_choice_goes_on_from_its_beginning_beside_the_context(tiny_tokenizer):
    tokens = tokenize_task(Dataset.from_list(ROWS), SPEC, tiny_tokenizer, 32)
    expected = tiny_tokenizer(["a cat runs"] * 2, ["the dog sees", "the dog likes the cat"])
    assert tokens[0]["input_ids"] == expected["input_ids"]
    assert tokens[0]["token_type_ids"] == expected["token_type_ids"]
    assert tokens["labels"] == [1, 0]
    assert tokens["length"] == [max(map(len, row)) for row in tokens["input_ids"]]


def test_choices_may_stand_in_one_column_of_lists(tmp_path, tiny_tokenizer):
    listed = [{"context": "a cat", "options": ["runs", "sees the dog", "sleeps"], "answer": name} for name in "CA"]
    fields = {"text_columns": ["context"], "choice_columns": ["options"], "label_column": "answer"}
    task = load_task(str(folder_of(tmp_path, listed, label_names=["A", "B", "C"], **fields)))
    assert task.train.features["options"] == List(Value("string"))
    assert task.train["answer"] == [2, 0]
    tokens = tokenize_task(task.train, task.spec, tiny_tokenizer, 32)
    assert tokens[0]["input_ids"] == tiny_tokenizer(["a cat"] * 3, listed[0]["options"])["input_ids"]


def test_a_folder_needs_no_names_where_every_choice_has_its_column(tmp_path):
    fields = {"text_columns": ["sent1", "sent2"], "choice_columns": ["ending0", "ending1"]}
    task = load_task(str(folder_of(tmp_path, ROWS, **fields)))
    assert task.spec.label_names == ("0", "1")
    assert task.spec.metrics == ("accuracy",)
    assert task.train["label"] == [1, 0]


def test_another_number_of_choices_is_an_error(tmp_path):
    rows = [{"context": "a", "options": ["b", "c"], "label": "A"}, {"context": "a", "options": ["b"], "label": "B"}]
    fields = {"text_columns": ["context"], "choice_columns": ["options"], "label_names": ["A", "B"]}
    with pytest.raises(ValueError, match=r"row 1 has the choices \['b'\], the task needs 2 texts"):
        load_task(str(folder_of(tmp_path, rows, **fields)))
    with pytest.raises(ValueError, match="one choice column holds lists"):
        load_task(
            str(folder_of(tmp_path, ROWS, **(fields | {"text_columns": ["sent1"], "choice_columns": ["ending0"]})))
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choice_columns": ()}, "go together"),
        ({"kind": "text_classification"}, "go together"),
        ({"label_names": ("0", "1", "2")}, "2 `choice_columns` need as many `label_names`"),
        ({"metrics": ("f1",)}, r"allowed are \['accuracy'\]"),
        ({"text_columns": ("a", "b", "c")}, "one column .context., or two"),
    ],
)
def test_a_spec_whose_choices_do_not_fit_is_refused(fields, message):
    values = SPEC.to_dict() | {"metrics": ["accuracy"], "headline_metric": None} | fields
    with pytest.raises(ValueError, match=message):
        TaskSpec.from_dict(values)


@pytest.mark.parametrize("lora_r", [None, 2])
def test_a_model_learns_to_choose_and_is_scored_after_loading(lora_r, tiny_bert_config, tiny_tokenizer, tmp_path):
    rows = [row for row in ROWS for _ in range(4)]
    write = tmp_path / "rows"
    write.mkdir()
    task = load_task(
        str(folder_of(write, rows, text_columns=["sent1", "sent2"], choice_columns=["ending0", "ending1"]))
    )
    model = head_of(task.spec).auto_class.from_config(task_config(tiny_bert_config(), task.spec))
    teacher = TeacherArguments(
        teacher_model="made here", lora_r=lora_r, lora_target_modules=lora_r and ["query", "value"]
    )
    args = FineTuningArguments(
        str(tmp_path / "out"),
        max_steps=30,
        learning_rate=1e-2,
        per_device_train_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    result = finetune(add_lora(model, teacher, task.spec), task, tiny_tokenizer, args, max_length=32)
    assert result.score == 1.0
    loaded = load_task_model(str(tmp_path / "out"), task.spec, flag="--teacher_model")
    assert type(loaded).__name__ == "BertForMultipleChoice"
    again = evaluate_model(loaded, task, tiny_tokenizer, max_length=32)
    assert again["validation"]["accuracy"] == 1.0
    assert again["validation"]["loss"] == pytest.approx(result.scores["validation"]["loss"], abs=1e-5)


def test_swag_has_the_columns_of_the_hub():
    swag = get_task("swag")
    assert swag.choice_columns == ("ending0", "ending1", "ending2", "ending3")
    assert (swag.kind, swag.num_labels, swag.problem_type) == ("multiple_choice", 4, None)


@pytest.mark.slow
def test_choices_train_beside_other_tasks_on_one_encoder(tiny_bert_config, tiny_tokenizer, tmp_path):
    settings = FineTuningDefaults(max_length=32)
    moods = TaskSpec("mood", ("text",), ("bad", "good"), fine_tuning=settings)
    texts = [{"text": text, "label": label} for text, label in (("a good film", 1), ("a bad film", 0))]
    tasks = [
        LoadedTask(spec, DatasetDict(train=Dataset.from_list(rows), validation=Dataset.from_list(rows)), "here")
        for spec, rows in ((moods, texts * 8), (dataclasses.replace(SPEC, fine_tuning=settings), ROWS * 8))
    ]
    set_seed(0)
    args = MTLArguments(
        str(tmp_path), max_steps=40, learning_rate=1e-2, per_device_train_batch_size=4, save_strategy="no", **QUIET
    )
    trainer = trained(MTLTrainer(BertModel(tiny_bert_config()), args, tasks=tasks, processing_class=tiny_tokenizer))
    scores = trainer.scores()
    assert scores["endings"]["validation"]["accuracy"] == scores["mood"]["validation"]["accuracy"] == 1.0


def test_a_student_cannot_be_distilled_on_choices(tmp_path):
    folder = folder_of(tmp_path, ROWS, text_columns=["sent1", "sent2"], choice_columns=["ending0", "ending1"])
    with pytest.raises(ValueError, match=r"multiple choice .* rows are several texts each"):
        read_rows(TextbookArguments(textbook=[str(folder)]), "text")
