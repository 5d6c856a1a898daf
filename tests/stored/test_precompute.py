"""What is stored of a teacher, and how a killed run goes on."""

import copy
import os
from pathlib import Path

import datasets
import pytest
import torch
from killing import in_fork
from stored_cases import EVERYTHING, train
from torch.testing import assert_close
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    set_seed,
)

from hf_distill.capture.signals import SignalRequest
from hf_distill.storage import steps
from hf_distill.storage.steps import writing_to
from hf_distill.teachers.base import LiveTeacher
from hf_distill.teachers.stored import manifest as manifest_module, precompute as precompute_module
from hf_distill.teachers.stored.columns import keep_largest, spread_rest
from hf_distill.teachers.stored.teacher import StoredTeacher


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


def test_no_questions_of_a_head_with_several_labels_are_left_out(store, tiny_bert_config, rows):
    config = tiny_bert_config(num_labels=3, problem_type="multi_label_classification")
    given = (rows.remove_columns("labels").select(range(8)), BertForSequenceClassification(config).eval(), ["logits"])
    with pytest.raises(ValueError, match=r"`--top_k` keeps the largest classes of one.*several labels a row"):
        store(*given, top_k=2)
    assert StoredTeacher(store(*given, top_k=3)).manifest["top_k"] == 3


def shards(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_killed_run_is_continued_with_the_same_bytes(store, tmp_path, monkeypatch, rows):
    settings = {"batch_size": 4, "shard_rows": 15, "dtype": "float16"}
    whole = shards(store(folder="whole", **settings))
    write = precompute_module._write_table

    def killed(path, table):
        if path.name.startswith("signals-00002"):
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


def test_a_model_and_a_stored_teacher_do_not_share_a_folder(store, build, tiny_teacher, tmp_path):
    tiny_teacher.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"holds a model \(model.safetensors\), whose configuration would be lost"):
        store(folder="model")
    teacher = StoredTeacher(store())
    store(folder="other")
    with pytest.raises(ValueError, match=r"`--output_dir` '.*other' holds a stored teacher"):
        build(teacher, output_dir=str(tmp_path / "other")).train()


def test_two_calls_on_one_folder(store, tmp_path):
    with writing_to(tmp_path / "stored"), pytest.raises(AssertionError, match=f"process {os.getpid()} on"):
        in_fork(store)


def changed(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("harm", [changed, lambda data: data[: len(data) // 2], lambda data: b""])
def test_a_damaged_shard_is_not_trained_on_and_is_made_anew(store, monkeypatch, harm, rows, caplog):
    settings = {"batch_size": 4, "shard_rows": 30}
    folder = store(**settings)
    whole = shards(folder)
    shard = Path(folder, "signals-00001-of-00003.arrow")
    shard.write_bytes(harm(whole[shard.name]))
    with pytest.raises(ValueError, match=r"is damaged: 1 of 3 shards are not what was written.*signals-00001.*anew"):
        StoredTeacher(folder)
    monkeypatch.setattr(LiveTeacher, "signals", counting(LiveTeacher.signals, seen := []))
    assert shards(store(**settings)) == whole
    assert sum(size for size in seen if size > 1) == 30
    assert "signals-00001-of-00003.arrow is not what was written: it is made anew" in caplog.text
    assert len(StoredTeacher(folder).dataset) == len(rows)


def test_a_shard_is_read_once_in_a_process_to_be_compared(store, monkeypatch):
    folder = store()
    StoredTeacher(folder)
    read = []
    monkeypatch.setattr(steps, "checksum_of", read.append)
    StoredTeacher(folder)
    assert read == []


def test_a_shard_without_a_checksum_is_made_anew(store):
    settings = {"shard_rows": 30}
    whole = shards(folder := store(**settings))
    manifest = manifest_module.read_manifest(folder)
    del manifest[manifest_module.SHARDS]["signals-00002-of-00003.arrow"]
    manifest_module.write_manifest(Path(folder), manifest)
    with pytest.raises(ValueError, match="is damaged: 1 of 3"):
        StoredTeacher(folder)
    assert shards(store(**settings)) == whole


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


def test_what_another_process_made_is_kept(store, tmp_path, monkeypatch):
    """A process notes its shards in a file of its own; the next call has them in the manifest, whoever makes it."""
    settings = {"batch_size": 4, "shard_rows": 15}
    whole = shards(store(folder="whole", **settings))
    gather = manifest_module.gather_notes
    monkeypatch.setattr(precompute_module, "gather_notes", lambda folder: None)
    folder = Path(store(**settings))
    assert (folder / "shards-of-process-0.json").is_file()
    assert len(StoredTeacher(folder).dataset) == 64
    (folder / "shards-of-process-0.json").rename(folder / "shards-of-process-3.json")
    monkeypatch.setattr(precompute_module, "gather_notes", gather)
    monkeypatch.setattr(LiveTeacher, "signals", counting(LiveTeacher.signals, seen := []))
    assert shards(store(**settings)) == whole
    assert max(seen) == 1, "only the probes ran"


def test_the_depth_of_the_student_decides_which_layers_a_map_asks_for(store):
    objectives = [{"objective": "relation", "layer_map": "uniform"}]
    shallow = StoredTeacher(store(objectives=objectives, num_student_layers=1))
    assert shallow.stored_request.projections == {3}
    deep = StoredTeacher(store(objectives=objectives, folder="deep"))
    assert deep.stored_request.projections == {1, 2, 3}
