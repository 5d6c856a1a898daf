"""Rows of every kind of data set, read alike in training, evaluation and prediction, in their order."""

import copy
import random

import datasets
import numpy as np
import pytest
import torch
from torch.testing import assert_close
from trainings import assert_same_weights, trained
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorWithPadding,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    set_seed,
)

from hf_distill.teachers.stored.precompute import precompute
from hf_distill.trainers.distillation import evaluation

COUNT = 16


@pytest.fixture(scope="module")
def texts(sentences):
    return sentences[:COUNT]


@pytest.fixture(scope="module")
def make_model(tiny_bert_config):
    """`make_model(class, large=..., **config)`: a teacher, or a student of two layers."""
    made = {}

    def make(model_class=BertForSequenceClassification, large=False, **config):
        key = (model_class, large, str(config))
        if key not in made:
            set_seed(0 if large else 1)
            sizes = {} if large else {"hidden_size": 12, "num_hidden_layers": 2}
            made[key] = model_class(tiny_bert_config(**sizes, **config)).eval()
        return copy.deepcopy(made[key])

    return make


@pytest.fixture
def build(make_trainer, make_model):
    """`build(class, config, arguments, **trainer)`: a trainer of a tiny student with a tiny teacher."""
    given = {"objectives": ["logits"], "max_steps": 2, "max_length": 32, "learning_rate": 1e-3}
    given |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    given["train_sampling_strategy"] = "group_by_length"

    def make(model_class=BertForSequenceClassification, config=None, arguments=None, model=None, **trainer):
        config = config or {}
        student = model or make_model(model_class, **config)
        teacher = trainer.pop("teacher_model", make_model(model_class, large=True, **config))
        return make_trainer(teacher, student=student, copies=False, trainer=trainer, **given | (arguments or {}))

    return make


class Lazy(torch.utils.data.Dataset):
    """Rows that are made when they are asked for, without end for who does not ask for their number."""

    def __init__(self, rows):
        self.rows = rows
        self.made = 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.made += 1
        return dict(self.rows[index % len(self.rows)])


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


KINDS = {
    "Dataset": lambda rows: datasets.Dataset.from_list(rows),
    "shuffled Dataset": lambda rows: datasets.Dataset.from_list(rows[::-1]).select(range(len(rows) - 1, -1, -1)),
    "with_format": lambda rows: datasets.Dataset.from_list(rows).with_format("torch"),
    "pandas": lambda rows: datasets.Dataset.from_list(rows).with_format("pandas"),
    "with_transform": lambda rows: datasets.Dataset.from_list(rows).with_transform(lambda batch: batch),
    "IterableDataset": lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    "unknown columns": lambda rows: datasets.IterableDataset.from_generator(lambda: iter(rows)),
    "list": list,
    "map-style": Lazy,
    "torch stream": Stream,
}


# ---- Order ----


@pytest.mark.parametrize(
    ("kind", "form"), [*((kind, "text") for kind in KINDS), ("Dataset", "tokens"), ("list", "tokens")]
)
def test_predictions_keep_the_order_of_the_rows(build, texts, tiny_tokenizer, kind, form):
    rows = [{"text": text} if form == "text" else dict(tiny_tokenizer(text)) for text in texts]
    trainer = build(train_dataset=datasets.Dataset.from_dict({"text": texts}))
    found = trainer.predict(KINDS[kind](rows))
    expected = trainer.student.eval()(**tiny_tokenizer(list(texts), padding=True, return_tensors="pt")).logits
    assert_close(torch.tensor(found.predictions), expected.detach())
    assert found.label_ids is None


@pytest.mark.parametrize("strategy", ["group_by_length", "random", "sequential"])
@pytest.mark.parametrize("distils", [True, False])
def test_the_order_of_the_training_is_not_that_of_the_evaluation(build, texts, tiny_tokenizer, strategy, distils):
    rows = datasets.Dataset.from_dict({**tiny_tokenizer(list(texts)), "labels": list(range(COUNT))})
    seen = []

    def keep(prediction):
        seen.append(prediction.label_ids.tolist())
        return {}

    without = {} if distils else {"teacher_model": None}
    trainer = build(
        config={"num_labels": COUNT}, compute_metrics=keep, eval_dataset={"one": rows, "two": rows}, **without,
        arguments={"train_sampling_strategy": strategy, **({} if distils else {"objectives": None})},
    )  # fmt: skip
    trainer.evaluate()
    assert trainer.predict(rows).label_ids.tolist() == list(range(COUNT))
    assert seen == [list(range(COUNT))] * 3


def test_workers_that_persist_read_the_rows_that_are_asked_for(build, texts):
    rows = datasets.Dataset.from_dict({"text": texts, "label": [0, 1] * (COUNT // 2)})
    trainer = build(
        train_dataset=rows, eval_dataset=rows, compute_metrics=lambda found: {"rows": len(found.label_ids)},
        arguments={"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    )  # fmt: skip
    counts = [trainer.evaluate(part)["eval_rows"] for part in (None, rows.select(range(5)), None)]
    assert counts == [COUNT, 5, COUNT]


# ---- Text, labels, lengths: the same everywhere ----


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_every_kind_trains_and_is_evaluated(build, texts, kind):
    rows = [{"text": text, "label": index % 2} for index, text in enumerate(texts)]
    trainer = build(
        arguments={"objectives": ["logits", "labels"], "max_steps": 1},
        train_dataset=KINDS[kind](rows),
        compute_metrics=lambda prediction: {"labels": float(prediction.label_ids.sum())},
    )
    trainer.train()
    metrics = trainer.evaluate(KINDS[kind](rows))
    assert metrics["eval_labels"] == COUNT / 2
    expected = trainer.evaluate(datasets.Dataset.from_list(rows))
    assert metrics["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["labels", "label", "label_ids"])
def test_a_label_survives_tokenization_under_its_usual_names(build, texts, name):
    rows = datasets.Dataset.from_dict({"text": texts, name: [0, 1] * (COUNT // 2)})
    trainer = trained(build(arguments={"objectives": ["labels"]}, train_dataset=rows, teacher_model=None))
    assert set(trainer.predict(rows).label_ids.tolist()) == {0, 1}


def test_names_of_classes_are_labels_and_other_texts_are_not(build, texts, caplog):
    config = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    rows = datasets.Dataset.from_dict({"text": texts, "label": ["good", "bad"] * (COUNT // 2)})
    trainer = build(config=config, train_dataset=rows)
    assert trainer.predict(rows).label_ids.tolist() == [1, 0] * (COUNT // 2)
    others = datasets.Dataset.from_dict({"text": texts, "label": ["news", "sport"] * (COUNT // 2)})
    assert trainer.predict(others).label_ids is None
    assert "The column 'label' holds 'news'" in caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["news", "sport"], "holds 'news', but .* wants one class a row as label; its names are"),
        ([[0, 1], [1, 1]], r"holds \[0, 1\], but .* set `config.problem_type` to 'multi_label_classification'"),
        ([0.5, 0.0], "holds 0.5, but .* set `config.problem_type` to 'regression'"),
        ([0, 7], "has the class 7, but .* has 2 outputs"),
    ],
)
def test_labels_of_another_head_are_refused_where_they_are_needed(build, texts, labels, message):
    rows = datasets.Dataset.from_dict({"text": texts, "label": labels * (COUNT // 2)})
    build(train_dataset=rows).train()
    with pytest.raises(ValueError, match=message):
        build(train_dataset=rows, arguments={"objectives": ["labels"]}, teacher_model=None).train()


def test_own_names_of_labels_are_respected(build, texts):
    rows = datasets.Dataset.from_dict({"text": texts, "mood": [0, 1] * (COUNT // 2)})
    arguments = {"label_names": ["mood"], "objectives": ["logits", "labels"]}
    trainer = trained(build(arguments=arguments, train_dataset=rows))
    assert trainer.predict(rows).label_ids.tolist() == [0, 1] * (COUNT // 2)


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
@pytest.mark.parametrize("form", ["text", "tokens"])
def test_several_answers_a_row_are_no_labels_of_tokens(build, texts, tiny_tokenizer, problem, form):
    answers = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]] * (COUNT // 2)
    columns = {"text": texts} if form == "text" else tiny_tokenizer(list(texts))
    rows = datasets.Dataset.from_dict({**columns, "labels": answers})
    trainer = build(
        config={"num_labels": 3, "problem_type": problem}, train_dataset=rows,
        arguments={"objectives": ["logits", "labels"]},
    )  # fmt: skip
    trainer.train()
    assert trainer.student.config.problem_type == "multi_label_classification"
    found = trainer.predict(rows)
    assert found.label_ids.tolist() == answers
    logits = torch.tensor(found.predictions)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(answers))
    assert trainer.evaluate(rows)["eval_loss/labels/hard"] == pytest.approx(loss.item(), rel=1e-5)


def test_values_stay_values(build, texts):
    values = [index / 7 for index in range(COUNT)]
    rows = datasets.Dataset.from_dict({"text": texts, "label": values})
    trainer = build(config={"num_labels": 1}, train_dataset=rows, arguments={"objectives": ["logits", "labels"]})
    trainer.train()
    np.testing.assert_allclose(trainer.predict(rows).label_ids, values, rtol=1e-6)


@pytest.mark.parametrize("name", ["labels", "label", "label_ids"])
def test_labels_of_tokens_are_padded_whatever_the_training_rows_are(build, texts, tiny_tokenizer, name):
    encoded = tiny_tokenizer(list(texts))
    tags = [[place % 2 for place in range(len(ids))] for ids in encoded["input_ids"]]
    rows = datasets.Dataset.from_dict({**encoded, name: tags})
    trainer = trained(build(BertForTokenClassification, train_dataset=datasets.Dataset.from_dict({"text": texts})))
    found = trainer.predict(rows).label_ids
    for row, expected in zip(found, tags, strict=True):
        assert row[: len(expected)].tolist() == expected
        assert (row[len(expected) :] == -100).all()


def test_labels_of_words_do_not_fit_tokens(build, texts):
    rows = datasets.Dataset.from_dict({"text": texts, "labels": [[0] * 2 for _ in texts]})
    with pytest.raises(ValueError, match="a row has 2 labels and"):
        build(BertForTokenClassification, train_dataset=rows).train()


def test_positions_of_answers_and_choices(build, texts, tiny_tokenizer):
    encoded = tiny_tokenizer(list(texts))
    spans = {"start_positions": [1] * COUNT, "end_positions": [2] * COUNT}
    rows = datasets.Dataset.from_dict({**encoded, **spans})
    trainer = build(BertForQuestionAnswering, train_dataset=rows, arguments={"objectives": ["logits", "labels"]})
    trainer.train()
    assert [part.tolist() for part in trainer.predict(rows).label_ids] == [[1] * COUNT, [2] * COUNT]
    pairs = {name: [[one, one] for one in values] for name, values in encoded.items()}
    rows = datasets.Dataset.from_dict({**pairs, "label": [0, 1] * (COUNT // 2)})
    trainer = trained(build(BertForMultipleChoice, train_dataset=rows, arguments={"objectives": ["logits", "labels"]}))
    found = trainer.predict(rows)
    assert (found.predictions.shape, found.label_ids.tolist()) == ((COUNT, 2), [0, 1] * (COUNT // 2))
    with pytest.raises(ValueError, match=r"\['relation'\] compare layers, but a head of multiple choice"):
        build(BertForMultipleChoice, train_dataset=rows, arguments={"objectives": ["relation"]})


def test_a_class_a_row_is_no_label_of_a_masked_language_model(build, texts):
    rows = datasets.Dataset.from_dict({"text": texts, "label": [0, 1] * (COUNT // 2)})
    build(BertForMaskedLM, train_dataset=rows, arguments={"objectives": ["relation"]}).train()
    masked = build(BertForMaskedLM, train_dataset=rows, arguments={"objectives": ["labels"], "mlm_probability": 0.5})
    masked.train()
    assert masked.state.log_history[0]["loss"] > 1, "the masked words are the labels"


def test_hidden_labels_among_others_do_not_count(build, texts):
    rows = datasets.Dataset.from_dict({"text": texts, "label": [0, None] * (COUNT // 2)})
    trainer = trained(build(train_dataset=rows, arguments={"objectives": ["labels"]}, teacher_model=None))
    half = trainer.evaluate(rows.select(range(0, COUNT, 2)))["eval_loss"]
    assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(half, rel=1e-5)


def test_rows_without_labels_give_the_terms_that_need_none(build, texts):
    labelled = datasets.Dataset.from_dict({"text": texts, "labels": [0, 1] * (COUNT // 2)})
    objectives = ["logits", "labels", {"objective": "logits", "name": "shown", "positions": "labels"}]
    trainer = build(train_dataset=labelled, arguments={"objectives": objectives})
    bare = labelled.remove_columns("labels")
    assert trainer.predict(bare).predictions.shape == (COUNT, 2)
    metrics = trainer.evaluate(bare)
    terms = {name for name in metrics if name.startswith("eval_loss/")}
    assert terms == {"eval_loss/logits/soft"}
    assert metrics["eval_loss"] == metrics["eval_loss/logits/soft"]
    with pytest.raises(ValueError, match="needs the column 'labels'"):
        build(train_dataset=bare, arguments={"objectives": ["labels"]}, teacher_model=None).train()


def test_only_the_student_reads_what_it_predicts(build, texts, tmp_path, tiny_tokenizer, make_model):
    rows = datasets.Dataset.from_dict({"text": texts, "labels": [0, 1] * (COUNT // 2)})
    folder = str(tmp_path / "stored")
    precompute(rows, make_model(large=True), ["logits"], folder, processing_class=tiny_tokenizer)
    trainer = build(teacher_model=folder, arguments={"objectives": ["logits", "labels"]}, processing_class=None)
    trainer.train()
    found = trainer.predict(rows)
    assert_close(torch.tensor(found.predictions), torch.tensor(trainer.predict(trainer.train_dataset).predictions))
    assert "test_loss/labels/hard" in found.metrics
    assert "test_loss/logits/soft" not in found.metrics
    with pytest.raises(ValueError, match="`eval_dataset` has no stored signals"):
        trainer.evaluate(rows)


# ---- Over-long rows ----


@pytest.mark.parametrize("kind", ["Dataset", "shuffled Dataset", "with_format", "list"])
def test_rows_beyond_the_positions_are_found_before_a_pass(build, texts, tiny_tokenizer, kind):
    rows = [dict(tiny_tokenizer(text)) for text in texts]
    rows[5] = {name: values[:1] * 70 for name, values in rows[5].items()}
    trainer = build()
    for read in (trainer.evaluate, trainer.predict):
        with pytest.raises(ValueError, match="row 5 has 70 tokens, but the student has 64 positions"):
            read(KINDS[kind](rows))
    with pytest.raises(ValueError, match="`train_dataset`: row 5 has 70 tokens"):
        build(train_dataset=KINDS[kind](rows))


@pytest.mark.parametrize("wrap", [lambda ids: ids, lambda ids: [ids]], ids=["tokens", "candidates"])
def test_tokens_of_another_vocabulary_are_found_before_a_pass(build, texts, tiny_tokenizer, wrap):
    rows = [{name: wrap(values) for name, values in tiny_tokenizer(text).items()} for text in texts]
    assert build(train_dataset=datasets.Dataset.from_list(rows))
    rows[5]["input_ids"] = wrap([2, len(tiny_tokenizer), 3])
    rows[5]["attention_mask"] = wrap([1, 1, 1])
    with pytest.raises(ValueError, match=f"`train_dataset` has the token {len(tiny_tokenizer)}, but the student has"):
        build(train_dataset=datasets.Dataset.from_list(rows))


@pytest.mark.parametrize("kind", ["with_transform", "map-style", "torch stream"])
def test_rows_that_are_made_late_are_found_in_their_batch(build, texts, tiny_tokenizer, kind):
    rows = [{"input_ids": [5] * 70, "attention_mask": [1] * 70} for _ in texts]
    with pytest.raises(ValueError, match="A batch is 70 tokens wide, but the student has 64 positions"):
        build(train_dataset=KINDS[kind](rows)).train()


def test_models_without_a_table_of_positions_read_any_length(build, tiny_tokenizer):
    def relative(width):
        config = DebertaV2Config(
            vocab_size=len(tiny_tokenizer), hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=16, position_biased_input=False, relative_attention=True,
            position_buckets=8, pos_att_type=["p2c", "c2p"], type_vocab_size=0,
        )  # fmt: skip
        return DebertaV2ForSequenceClassification(config)

    rows = datasets.Dataset.from_dict({"input_ids": [[5] * 40] * 4, "attention_mask": [[1] * 40] * 4})
    trainer = trained(build(model=relative(8), teacher_model=relative(16), train_dataset=rows))
    assert trainer.state.global_step == trainer.state.max_steps


# ---- Data sets by mistake, collators of one's own ----


@pytest.mark.parametrize(
    ("row", "shown"),
    [(None, "None"), (["two", "words"], r"\['two', 'words'\] \(list\)"), (7, r"7 \(int\)"), (float("nan"), "nan")],
)
@pytest.mark.parametrize("lazy", [True, False])
def test_what_is_no_text_is_named_with_column_and_row(build, texts, row, shown, lazy):
    rows = [{"text": text} for text in texts]
    rows[3] = {"text": row}
    data = Lazy(rows) if lazy else datasets.IterableDataset.from_generator(lambda: iter(rows))
    with pytest.raises(ValueError, match=rf"The column 'text' must hold a text in every row, but row \d+ has {shown}"):
        build(train_dataset=data, arguments={"train_sampling_strategy": "sequential"}).train()


def test_a_list_of_texts_is_text_and_other_rows_are_refused(build, texts, tiny_tokenizer, caplog):
    trainer = build(train_dataset=list(texts))
    assert trainer.train_dataset["length"][:] == [len(ids) for ids in tiny_tokenizer(list(texts))["input_ids"]]
    trainer.train()
    assert not caplog.records
    with pytest.raises(ValueError, match="'text' must hold a text in every row, but row 1 has 7"):
        trainer.predict([{"text": "good"}, {"text": 7}])
    with pytest.raises(
        ValueError, match=r"A row must be a mapping of columns, .* or a text, but one is of type tuple"
    ):
        build(train_dataset=[(1, 2)] * 4).train()


def test_a_data_set_of_words_is_refused_at_once(build, texts):
    rows = datasets.Dataset.from_dict({"text": [text.split() for text in texts]})
    with pytest.raises(ValueError, match=r"'text'.*row 0 has"):
        build(train_dataset=rows)


def test_splits_and_empty_sets_are_named(build, texts):
    rows = datasets.Dataset.from_dict({"text": texts})
    both = datasets.DatasetDict({"train": rows, "test": rows})
    with pytest.raises(ValueError, match=r"`train_dataset` is a DatasetDict .*`train_dataset=dataset\['train'\]`"):
        build(train_dataset=both)
    trainer = build(train_dataset=rows, eval_dataset=both)
    assert "eval_test_loss" in trainer.evaluate()
    with pytest.raises(ValueError, match=r"`test_dataset` is a DatasetDict .*`test_dataset=dataset\['test'\]`"):
        trainer.predict(both)
    with pytest.raises(ValueError, match="`eval_dataset` has no rows"):
        trainer.evaluate(rows.select([]))
    with pytest.raises(ValueError, match="`train_dataset` has no rows"):
        build(train_dataset=[])
    with pytest.raises(ValueError, match=r"no column 'text' to tokenize .*it has \['sentence'\]"):
        trainer.predict(rows.rename_column("text", "sentence"))


def test_tokens_beside_their_text_are_the_tokens(build, texts, tiny_tokenizer):
    encoded = tiny_tokenizer(list(texts))
    rows = datasets.Dataset.from_dict({"text": ["other"] * COUNT, **encoded, "note": ["x"] * COUNT})
    tokens = datasets.Dataset.from_dict(dict(encoded))
    trainer = trained(build(train_dataset=rows))
    assert_close(trainer.predict(rows).predictions, trainer.predict(tokens).predictions)
    assert_close(trainer.predict(list(rows)).predictions, trainer.predict(tokens).predictions)


@pytest.mark.parametrize("removes", [True, False])
@pytest.mark.parametrize("kind", ["Dataset", "list", "with_transform", "IterableDataset"])
def test_a_collator_that_reads_text_gets_the_text(build, texts, tiny_tokenizer, kind, removes):
    seen = []

    def collate(rows):
        seen.extend(row["text"] for row in rows)
        return tiny_tokenizer([row["text"].upper() for row in rows], padding=True, return_tensors="pt")

    rows = KINDS[kind]([{"text": text} for text in texts])
    trainer = build(train_dataset=rows, data_collator=collate, arguments={"remove_unused_columns": removes})
    torch.manual_seed(3), random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3), random.seed(3)
    seen.clear()
    trainer.predict(rows)
    assert seen == list(texts)
    assert (torch.rand(1), random.random()) == expected
    trainer.train()


@pytest.mark.parametrize("own", [True, False])
def test_a_collator_that_pads_tokens_gets_tokens(build, texts, tiny_tokenizer, own):
    padding = DataCollatorWithPadding(tiny_tokenizer)
    collator = (lambda rows: padding(rows)) if own else padding
    rows = datasets.Dataset.from_dict({"text": texts, "label": [0, 1] * (COUNT // 2)})
    trainer = build(train_dataset=rows, data_collator=collator, arguments={"objectives": ["logits", "labels"]})
    trainer.train()
    assert trainer.predict(rows).label_ids.tolist() == [0, 1] * (COUNT // 2)


# ---- Two segments, one segment ----


def test_segments_go_to_the_side_that_knows_them(build, texts, tiny_tokenizer):
    config = RobertaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=66, type_vocab_size=1, num_labels=2,
    )  # fmt: skip
    teacher = RobertaForSequenceClassification(config).eval()
    rows = datasets.Dataset.from_dict({"text": texts, "text_pair": texts[::-1]})
    trainer = trained(build(teacher_model=teacher, train_dataset=rows))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert batch["token_type_ids"].max() == 1
    told = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert_close(trainer.teacher.signals(batch).logits["logits"], told)
    build(model=RobertaForSequenceClassification(config), train_dataset=rows).train()


# ---- Rows of like length ----


@pytest.mark.parametrize("lengths", ["size", "none", "list", "map-style"])
def test_a_run_resumed_in_a_later_epoch_goes_on_bit_for_bit(build, texts, tiny_tokenizer, tmp_path, lengths):
    rows = datasets.Dataset.from_dict(dict(tiny_tokenizer(list(texts))))
    if lengths == "size":
        rows = rows.add_column(lengths, [len(ids) for ids in rows["input_ids"]])
    rows = KINDS[lengths](list(rows)) if lengths in KINDS else rows
    arguments = {"max_steps": 12, "save_strategy": "steps", "save_steps": 9, "length_column_name": lengths}
    whole = trained(build(train_dataset=rows, arguments=arguments))
    resumed = build(train_dataset=rows, arguments={**arguments, "save_strategy": "no"})
    resumed.train(str(tmp_path / "run" / "checkpoint-9"))
    assert_same_weights(whole.student, resumed.student)


def test_what_is_no_data_set_is_named_with_what_to_give(build, texts):
    pandas = pytest.importorskip("pandas")
    for given, message in (
        ("rows.csv", r"is 'rows.csv', which is no data set; give its rows, such as `load_dataset\('rows.csv'"),
        (({"text": text} for text in texts), "is a generator, which can be read once; give a list"),
        (pandas.DataFrame({"text": texts}), r"is a DataFrame of pandas; give `Dataset.from_pandas\("),
    ):
        with pytest.raises(ValueError, match=f"`train_dataset` {message}"):
            build(train_dataset=given).train()


def test_metrics_that_cannot_be_computed_are_said(build, texts, warnings_of):
    said = warnings_of(evaluation)
    rows = [{"text": text} for text in texts]
    assert "eval_x" not in build(train_dataset=rows, eval_dataset=rows, compute_metrics=lambda _: {"x": 1}).evaluate()
    assert said == ["`compute_metrics` is not called: the evaluation rows have no labels."]
