"""A stored teacher teaches what the live one does; what does not fit it is refused."""

import copy
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorWithPadding,
    RobertaConfig,
    RobertaForSequenceClassification,
    set_seed,
)

from hf_distill import DistillationArguments, DistillationTrainer
from hf_distill.objectives import list_objectives
from hf_distill.signals import SignalRequest
from hf_distill.stored import precompute as precompute_module
from hf_distill.stored.columns import keep_largest, spread_rest
from hf_distill.stored.precompute import precompute
from hf_distill.stored.teacher import StoredCollator, StoredTeacher, join_rows
from hf_distill.teachers import LiveTeacher

OBJECTIVES = ["relation:1", "logits:0.5", "labels:0.3"]
EVERYTHING = SignalRequest(
    logits=True, hidden_states=frozenset({0, 2}), projections=frozenset({3}), attention_scores=frozenset({1})
)


@pytest.fixture(scope="module")
def rows(sentences, tiny_tokenizer):
    encoded = tiny_tokenizer(sentences, truncation=True, max_length=16)
    return datasets.Dataset.from_dict({**encoded, "labels": [i % 2 for i in range(len(sentences))]})


@pytest.fixture
def left_tokenizer(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer


@pytest.fixture
def store(tmp_path, tiny_teacher, tiny_tokenizer, rows):
    """`store(**fields)`: the folder of the tiny teacher's signals."""

    def make(dataset=rows, teacher=tiny_teacher, objectives=OBJECTIVES, folder="stored", **fields):
        settings = {"processing_class": tiny_tokenizer, "dtype": "float32", **fields}
        return precompute(dataset, teacher, objectives, tmp_path / folder, **settings).folder

    return make


@pytest.fixture
def build(tmp_path, tiny_student, tiny_tokenizer):
    """`build(teacher, **arguments)`: a trainer of a fresh copy of the tiny student."""

    def make(teacher, *, student=tiny_student, tokenizer=tiny_tokenizer, trainer=None, **arguments):
        arguments = {
            "output_dir": str(tmp_path / "run"),
            "objectives": OBJECTIVES,
            "max_steps": 4,
            "per_device_train_batch_size": 8,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            "train_sampling_strategy": "sequential",
            **arguments,
        }
        return DistillationTrainer(
            model=copy.deepcopy(student),
            teacher_model=teacher,
            args=DistillationArguments(**arguments),
            processing_class=tokenizer,
            **(trainer or {}),
        )

    return make


def logs(trainer):
    return [{k: v for k, v in e.items() if "loss" in k or k == "grad_norm"} for e in trainer.state.log_history[:-1]]


def train(trainer, **options):
    trainer.train(**options)
    return logs(trainer)


def assert_same_logs(found, expected, rel):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=rel)


# --- live = stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
def test_with_the_same_batches_training_equals_that_with_the_live_teacher_bit_for_bit(
    side, store, build, tiny_teacher, tiny_tokenizer, left_tokenizer, rows
):
    tokenizer = tiny_tokenizer if side == "right" else left_tokenizer
    live = build(tiny_teacher, tokenizer=tokenizer, trainer={"train_dataset": rows})
    stored = build(store(batch_size=8, shard_rows=8, processing_class=tokenizer), tokenizer=tokenizer)
    assert train(stored) == train(live)
    for one, two in zip(stored.student.parameters(), live.student.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(("dtype", "rel"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_in_any_batches_training_follows_the_live_teacher_within_the_precision_of_the_store(
    dtype, rel, store, build, tiny_teacher, rows
):
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_steps": 3}
    settings |= {"train_sampling_strategy": "random"}
    live = train(build(tiny_teacher, trainer={"train_dataset": rows}, **settings))
    stored = train(build(store(dtype=dtype, batch_size=5, shard_rows=23), **settings))
    assert_same_logs(stored, live, rel)


def test_every_objective_learns_the_same_from_the_store(store, build, tiny_teacher, tiny_bert_config, rows):
    student = BertForSequenceClassification(
        tiny_bert_config(num_hidden_layers=2, id2label=tiny_teacher.config.id2label)
    )
    everything = [{"objective": name} for name in list_objectives()]
    settings = {"student": student, "objectives": everything}
    live = train(build(tiny_teacher, trainer={"train_dataset": rows}, **settings))
    folder = store(objectives=everything, num_student_layers=2)
    stored = train(build(folder, dataloader_num_workers=1, **settings))
    assert {name.split("/")[1] for name in stored[0] if "/" in name} == set(list_objectives())
    assert_same_logs(stored, live, 1e-4)


def test_accumulated_batches_give_the_update_of_one_large_batch(store, build):
    folder = store()
    large = train(build(folder))
    small = train(build(folder, per_device_train_batch_size=2, gradient_accumulation_steps=4))
    assert_same_logs(small, large, 1e-4)


def test_rows_of_like_length_are_batched_together(store, build, tiny_teacher, rows):
    rows = rows.add_column("length", [len(ids) for ids in rows["input_ids"]])
    settings = {"train_sampling_strategy": "group_by_length"}
    live = train(build(tiny_teacher, trainer={"train_dataset": rows}, **settings))
    assert_same_logs(train(build(store(), **settings)), live, 1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_signal_comes_back_as_the_teacher_gave_it(side, store, tiny_tokenizer, left_tokenizer, rows):
    set_seed(0)
    # Its positions are counted from the first real token: padding on the left changes nothing.
    config = RobertaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=24, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=0, num_labels=4,
    )  # fmt: skip
    teacher = RobertaForSequenceClassification(config)
    stored = StoredTeacher(store(teacher=teacher, objectives=EVERYTHING, batch_size=7, shard_rows=20))
    chosen = [3, 60, 19, 20, 41]
    inner = DataCollatorWithPadding(tiny_tokenizer if side == "right" else left_tokenizer)
    batch = stored.collator(inner)([stored.dataset[row] for row in chosen])
    live = LiveTeacher(teacher)
    live.request(EVERYTHING)
    expected, found = live.signals(batch), stored.signals(batch)
    real = batch["attention_mask"].bool()
    assert not real.all()
    if side == "right":  # The head of RoBERTa reads the first position, which padding on the left takes from it.
        assert_close(found.logits, expected.logits)
    for layer in (0, 2):
        assert_close(found.hidden_states[layer][real], expected.hidden_states[layer][real])
    for part in ("query", "key", "value"):
        ours, theirs = (getattr(signals.projections[3], part) for signals in (found, expected))
        assert_close(ours[real], theirs[real])
    assert found.projections[3].num_heads == 4
    pairs = (real[:, :, None] & real[:, None, :])[:, None].expand(-1, 4, -1, -1)
    assert_close(found.attention_scores[1][pairs], expected.attention_scores[1][pairs])
    assert torch.equal(found.attention_mask, batch["attention_mask"])


@pytest.mark.parametrize("head", [BertForTokenClassification, BertForQuestionAnswering])
def test_heads_of_tokens_and_of_answers_are_stored_too(head, store, tiny_bert_config, rows):
    set_seed(0)
    teacher = head(tiny_bert_config(num_labels=2 if head is BertForQuestionAnswering else 4)).eval()
    stored = StoredTeacher(store(rows.remove_columns("labels"), teacher, ["logits"], batch_size=6, shard_rows=30))
    batch = stored.collator()([stored.dataset[row] for row in range(8)])
    live = LiveTeacher(teacher)
    live.request(SignalRequest(logits=True))
    real = batch["attention_mask"].bool()
    expected, found = live.signals(batch).logits, stored.signals(batch).logits
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name][real], expected[name][real])


def test_a_run_resumed_from_a_checkpoint_equals_one_that_was_not_interrupted(store, build, tmp_path):
    folder = store(dtype="float16")
    settings = {"train_sampling_strategy": "random"}
    whole = build(folder, save_strategy="steps", save_steps=2, **settings)
    expected = train(whole)
    resumed = build(folder, **settings)
    assert train(resumed, resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")) == expected
    for one, two in zip(resumed.student.parameters(), whole.student.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_checkpoint_is_refused_by_another_store(store, build, tmp_path):
    build(store(), save_strategy="steps", save_steps=2).train()
    other = build(store(dtype="float16", folder="other"))
    with pytest.raises(ValueError, match=r"stored_dtype: float32 in the checkpoint, float16 now"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


# --- what is stored -------------------------------------------------------------------------------------------------


def test_the_folder_holds_rows_signals_configuration_and_tokenizer(store, tiny_teacher, tiny_tokenizer, rows):
    stored = StoredTeacher(store(objectives=EVERYTHING, shard_rows=30))
    names = {path.name for path in Path(stored.folder).iterdir()}
    shards = {f"signals-0000{i}-of-00003.arrow" for i in range(3)}
    assert shards | {"manifest.json", "config.json", "tokenizer.json", "tokenizer_config.json"} == names
    assert stored.dataset.remove_columns(list(stored.all_columns))["input_ids"][:] == rows["input_ids"][:]
    assert stored.dataset["labels"][:] == rows["labels"][:]
    row = stored.dataset[7]
    tokens = len(rows[7]["input_ids"])
    assert (row["length"], row["attention_mask"]) == (tokens, [1] * tokens)
    sizes = {name: len(row[name]) for name in stored.all_columns}
    assert sizes == {
        "teacher_logits": 2, "teacher_hidden_states_0": tokens * 24, "teacher_hidden_states_2": tokens * 24,
        "teacher_query_3": tokens * 24, "teacher_key_3": tokens * 24, "teacher_value_3": tokens * 24,
        "teacher_attention_scores_1": tokens * tokens * 4,
    }  # fmt: skip
    assert stored.config.id2label == tiny_teacher.config.id2label
    assert stored.tokenizer().get_vocab() == tiny_tokenizer.get_vocab()
    assert stored.skeleton().num_parameters() == tiny_teacher.num_parameters()
    assert all(parameter.is_meta for parameter in stored.skeleton().parameters())


def test_text_is_tokenized_and_padded_rows_lose_their_padding(store, tiny_tokenizer, left_tokenizer, sentences, rows):
    text = datasets.Dataset.from_dict({"text": sentences})
    from_text = StoredTeacher(store(text, folder="text", max_length=16)).dataset
    for side, tokenizer in (("right", tiny_tokenizer), ("left", left_tokenizer)):
        padded = tokenizer(sentences, truncation=True, max_length=16, padding="max_length")
        padded = datasets.Dataset.from_dict({**padded, "labels": rows["labels"][:], "source": ["web"] * len(rows)})
        from_padded = StoredTeacher(store(padded, folder=side)).dataset
        assert "source" not in from_padded.column_names
        for name in ("input_ids", "attention_mask", "token_type_ids", "length"):
            assert from_padded[name][:] == from_text[name][:]
        assert from_padded["labels"][:] == rows["labels"][:]


def test_half_precision_takes_half_the_space(store):
    sizes = {}
    for dtype in ("float32", "float16", "bfloat16"):
        folder = Path(store(dtype=dtype, folder=dtype))
        sizes[dtype] = sum(path.stat().st_size for path in folder.glob("*.arrow"))
    assert sizes["float16"] == pytest.approx(sizes["bfloat16"], rel=0.01)
    assert sizes["float16"] == pytest.approx(sizes["float32"] / 2, rel=0.1)


def test_a_number_that_float16_cannot_hold_is_refused(store, tiny_teacher):
    with torch.no_grad():
        tiny_teacher.classifier.bias[1] = 1e5
    with pytest.raises(ValueError, match=r"teacher_logits holds 1e\+05.*too large for float16.*bfloat16"):
        store(dtype="float16")
    store(dtype="bfloat16", folder="wide")


# --- the largest logits only ----------------------------------------------------------------------------------------


def test_as_many_logits_as_classes_are_all_logits(store, build):
    assert train(build(store(top_k=2, folder="top"))) == train(build(store()))


def test_fewer_logits_keep_their_probabilities_and_share_the_mass_of_the_rest():
    logits = torch.randn(3, 5, 11, generator=torch.Generator().manual_seed(0)) * 3
    found = spread_rest(*keep_largest(logits, 4), 11).softmax(-1)
    expected, index = logits.softmax(-1).sort(dim=-1, descending=True)
    sorted_found = found.gather(-1, index)
    assert_close(sorted_found[..., :4], expected[..., :4])
    rest = expected[..., 4:].mean(-1, keepdim=True).expand(-1, -1, 7)
    assert_close(sorted_found[..., 4:], rest)


def test_the_largest_logits_of_every_token_are_stored(store, tiny_bert_config, rows):
    set_seed(0)
    teacher = BertForTokenClassification(tiny_bert_config(num_labels=9)).eval()
    stored = StoredTeacher(store(rows.remove_columns("labels"), teacher, ["logits"], top_k=3, dtype="float16"))
    assert len(stored.dataset[0]["teacher_logits"]) == 3 * len(rows[0]["input_ids"])
    batch = stored.collator()([stored.dataset[row] for row in range(8)])
    live = LiveTeacher(teacher)
    live.request(SignalRequest(logits=True))
    real = batch["attention_mask"].bool()
    expected, found = (s.signals(batch).logits["logits"][real].softmax(-1) for s in (live, stored))
    best, index = expected.topk(3)
    assert_close(found.gather(-1, index), best, rtol=1e-3, atol=1e-4)
    assert_close(found.sum(-1), torch.ones(len(found)))


def test_more_logits_than_classes_are_refused(store):
    with pytest.raises(ValueError, match=r"`--top_k` is 3, but the teacher's 'logits' has 2 classes"):
        store(top_k=3)


# --- killed and continued -------------------------------------------------------------------------------------------


def shards(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_killed_run_is_continued_with_the_same_bytes(store, tmp_path, monkeypatch, rows):
    settings = {"batch_size": 4, "shard_rows": 15, "dtype": "float16"}
    whole = shards(store(folder="whole", **settings))
    write = precompute_module._write_table

    def killed(path, table):
        if path.name.startswith("signals-00002"):
            path.with_name(path.name + ".tmp").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        write(path, table)

    monkeypatch.setattr(precompute_module, "_write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        store(**settings)
    monkeypatch.setattr(precompute_module, "_write_table", write)
    with pytest.raises(ValueError, match=r"not complete: 3 of 5 shards are missing.*signals-00002"):
        StoredTeacher(tmp_path / "stored")
    monkeypatch.setattr(LiveTeacher, "signals", counting(LiveTeacher.signals, seen := []))
    assert shards(store(**settings)) == whole
    assert sum(size for size in seen if size > 1) == len(rows) - 30
    seen.clear()
    assert shards(store(**settings)) == whole
    assert max(seen) == 1, "only the probes ran"


def counting(signals, seen):
    def wrapped(self, inputs):
        seen.append(len(inputs["input_ids"]))
        return signals(self, inputs)

    return wrapped


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"objectives": ["logits"]}, "request: "),
        ({"dtype": "float16"}, "dtype: float32 stored, float16 now"),
        ({"top_k": 1}, "top_k: None stored, 1 now"),
        ({"batch_size": 3}, "batch_size: 32 stored, 3 now"),
        ({"shard_rows": 7}, "shard_rows: 2048 stored, 7 now"),
        ({"teacher_dtype": "bfloat16"}, "teacher_dtype: auto stored, bfloat16 now"),
        ("teacher", "teacher_weights: "),
        ("labels", r"labels: \['negative', 'positive'\] stored, \['no', 'yes'\] now"),
        ("tokenizer", "tokenizer: "),
        ("rows", "dataset: "),
    ],
)
def test_continuing_with_other_settings_says_what_differs(change, named, store, tiny_teacher, tiny_tokenizer, rows):
    store()
    if change == "teacher":
        with torch.no_grad():
            tiny_teacher.classifier.bias.add_(1)
        change = {}
    elif change == "labels":
        tiny_teacher.config.id2label = {0: "no", 1: "yes"}
        change = {}
    elif change == "tokenizer":
        other = copy.deepcopy(tiny_tokenizer)
        other.add_tokens(["zebra"])
        change = {"processing_class": other}
    elif change == "rows":
        change = {"dataset": rows.select(range(63))}
    with pytest.raises(ValueError, match=rf"stored with other settings \(.*{named}"):
        store(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "int8"}, "`--store_dtype` is 'int8'; allowed are"),
        ({"batch_size": 0}, "`--batch_size` is 0; it must be at least 1"),
        ({"objectives": ["labels"]}, "need nothing of a teacher"),
        ({"objectives": ["relatoin"]}, "Did you mean 'relation'"),
        ({"processing_class": None}, "Give the teacher's tokenizer as `processing_class`"),
        ({"dataset": datasets.Dataset.from_dict({"input_ids": []})}, "has no rows"),
        ({"dataset": datasets.Dataset.from_dict({"sentence": ["good film"]})}, "no column 'text'"),
        ({"dataset": [{"input_ids": [2, 3]}]}, "not of list"),
    ],
)
def test_what_cannot_be_stored_is_refused(change, message, store):
    with pytest.raises(ValueError, match=message):
        store(**change)


def test_one_of_several_processes_is_refused(store, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process, but there are 2"):
        store()


def test_the_depth_of_the_student_decides_which_layers_a_map_asks_for(store):
    objectives = [{"objective": "relation", "layer_map": "uniform"}]
    shallow = StoredTeacher(store(objectives=objectives, num_student_layers=1))
    assert shallow.stored_request.projections == {3}
    deep = StoredTeacher(store(objectives=objectives, folder="deep"))
    assert deep.stored_request.projections == {1, 2, 3}


# --- what fits and what does not ------------------------------------------------------------------------------------


@pytest.mark.parametrize("remove", [True, False])
def test_unused_columns_go_and_stored_ones_stay(remove, store, build, rows):
    folder = store(rows.add_column("origin", list(range(len(rows)))), objectives=EVERYTHING)
    trainer = build(folder, objectives=["relation", "logits"], remove_unused_columns=remove)
    batch = next(iter(trainer.get_train_dataloader()))
    wanted = {"teacher_logits", "teacher_query_3", "teacher_key_3", "teacher_value_3"}
    inputs = {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert batch.keys() == wanted | inputs | (set() if remove else {"length", "origin"})


def test_rows_may_be_chosen_shuffled_and_split(store, build):
    stored = StoredTeacher(store())
    parts = stored.dataset.shuffle(seed=1).train_test_split(test_size=16, seed=0)
    data = {"train_dataset": parts["train"].filter(lambda row: row["labels"] == 1), "eval_dataset": parts["test"]}
    trainer = build(stored, trainer=data)
    trainer.train()
    live = build(stored, trainer={"eval_dataset": parts["test"].with_format(None)})
    live.model.load_state_dict(trainer.model.state_dict())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(live.evaluate()["eval_loss"], rel=1e-6)


def test_rows_without_signals_are_refused(store, build, rows):
    folder = store()
    with pytest.raises(ValueError, match=r"`train_dataset` has no stored signals.*Leave `train_dataset` out"):
        build(folder, trainer={"train_dataset": rows})
    with pytest.raises(ValueError, match=r"`eval_dataset\['more'\]` has no stored signals"):
        build(folder, trainer={"eval_dataset": {"more": rows}})


def test_masks_that_the_teacher_did_not_see_are_refused(store, build):
    with pytest.raises(ValueError, match=r"`--mlm_probability` is 0.2, but .* saw no masks"):
        build(store(), mlm_probability=0.2)


def test_rows_whose_tokens_changed_are_refused(store, build):
    stored = StoredTeacher(store())
    cut = stored.dataset.map(lambda row: {k: row[k][:4] for k in ("input_ids", "attention_mask", "token_type_ids")})
    with pytest.raises(ValueError, match=r"Row 0 of a batch has 4 tokens, but 'teacher_query_3' was stored for"):
        build(stored, trainer={"train_dataset": cut}).train()


def test_signals_that_were_not_stored_are_refused(store, build):
    folder = store(objectives=["relation"])
    with pytest.raises(ValueError, match=r"need logits of the teacher, which .* does not hold.*Run precompute"):
        build(folder, objectives=["logits"])
    with pytest.raises(ValueError, match=r"need projections of layers \[1\]"):
        build(folder, objectives=["relation"], teacher_layer="1")


def test_another_tokenizer_is_refused(store, build, tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["zebra"])
    with pytest.raises(ValueError, match=r"tokenizers differ.*'zebra': None against"):
        build(store(), tokenizer=other)


def test_without_a_tokenizer_that_of_the_store_is_taken(store, build, tiny_tokenizer):
    assert build(store(), tokenizer=None).processing_class.get_vocab() == tiny_tokenizer.get_vocab()


def test_a_student_with_another_vocabulary_is_refused(store, build, tiny_student, tiny_tokenizer):
    tiny_student.resize_token_embeddings(len(tiny_tokenizer) + 1)
    with pytest.raises(ValueError, match="The teacher's vocabulary has"):
        build(store())


def test_labels_in_another_order_are_put_into_the_students(store, build, tiny_student):
    folder = store()
    swapped = copy.deepcopy(tiny_student)
    swapped.config.id2label = {0: "positive", 1: "negative"}
    batch = next(iter(build(folder).get_train_dataloader()))
    expected = build(folder)._teacher_signals(batch).logits["logits"]
    found = build(folder, student=swapped)._teacher_signals(batch).logits["logits"]
    assert torch.equal(found, expected.flip(-1))
    swapped.config.id2label = {0: "cat", 1: "dog"}
    with pytest.raises(ValueError, match=r"different labels: \['negative', 'positive'\] against \['cat', 'dog'\]"):
        build(folder, student=swapped)


def test_a_batch_without_signals_is_refused(store, rows):
    stored = StoredTeacher(store())
    batch = DataCollatorWithPadding(stored.tokenizer())([rows[0]])
    with pytest.raises(ValueError, match=r"A batch lacks the stored signals \['teacher_logits'"):
        stored.signals(batch)


def test_several_stored_teachers_of_the_same_rows_stand_side_by_side(store, tiny_teacher, rows):
    folder = store(folder="one")
    with torch.no_grad():
        tiny_teacher.classifier.bias.add_(1)
    one, two = StoredTeacher(folder), StoredTeacher(store(folder="two", objectives=["logits"]), name="second")
    joined = join_rows([one, two])
    batch = StoredCollator([one, two], DataCollatorWithPadding(one.tokenizer()))([joined[3], joined[9]])
    assert_close(two.signals(batch).logits["logits"], one.signals(batch).logits["logits"] + 1)
    assert isinstance(joined[0]["second_logits"], np.ndarray)
    with pytest.raises(ValueError, match=r"two have|Two stored teachers have the columns \['teacher_logits'\]"):
        join_rows([one, StoredTeacher(two.folder)])
    fewer = StoredTeacher(store(rows.select(range(9)), folder="three"), name="third")
    with pytest.raises(ValueError, match=r"\(64 rows\) and .* \(9 rows\) were stored for different rows"):
        join_rows([one, fewer])
