"""Wrong words, files and models of every verb: one line and status 2, never a fault of the package."""

from __future__ import annotations

import datetime
import json
import pickle
import shutil

import datasets
import pytest
import torch
from tiny_data import save_model, write_rows
from transformers import BertForSequenceClassification, BertModel, set_seed

from hf_distill.cli import main

QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 1 --save_strategy no --output_dir out".split()
TASK = ["--task", "mood", "--text_columns", "text"]
MODELS = ["--teacher_model", "encoder", "--textbook", "text.txt"]
SHAPE = ["--student_shape", "2x12:2h:20"]
TEACH = ["teach", *QUICK, *TASK, "--teacher_model", "encoder"]
DISTILL = ["distill", *QUICK, *SHAPE, *MODELS]
ADAPT = ["adapt", *QUICK, *TASK, "--student_model", "encoder"]
MTL = ["mtl", *QUICK, "--tasks", "told", "--teacher_model", "encoder"]
CORPUS = ["corpus", *TASK, "--corpus", "text.txt", "--corpus_dir", "made", "--engine", "bm25s"]
GENERAL = ["general", "--corpora", "text.txt", "--corpus_dir", "made"]
AUGMENT = ["augment", *TASK, "--masked_lm", "encoder", "--corpus_dir", "made", "--use_cpu"]
COMPARE = ["compare", *TASK, "--corpora", "text.txt", "--output_dir", "made"]
MLM = ["mlm", *QUICK, "--encoder", "encoder", "--textbook", "text.txt"]
PRECOMPUTE = ["precompute", "--use_cpu", *MODELS, "--output_dir", "made"]
GENERATE = ["generate", *QUICK, "--task", "stories", "--student_model", "encoder"]
GRID = ["grid", "--use_cpu", "--tasks", "told", "--models", "encoder", "--output_dir", "made"]
PIPELINE = ["pipeline", *TASK, "--teacher_model", "encoder", "--with_task_text", "--use_cpu", "--output_dir", "made"]
EXPORT = ["export", "--model", "classifier", "--output_dir", "made"]
BENCH = ["bench", "--teacher_model", "encoder", "--student_shapes", "2x12:2h:20", "--use_cpu", "--output_dir", "made"]
ATTENTION = ["attention", "--models", "encoder", "--text", "good film"]


class Runs:
    """What a pickle would run."""

    def __reduce__(self):
        return (open, ("pickle_was_run", "w"))


def _odd_models(path, config):
    """Models with one odd field each."""
    changed = {
        "odd_padding": {"pad_token_id": 99999},
        "odd_classes": {"architectures": 5},
        "small_vocabulary": {"vocab_size": 9},
    }
    for name, fields in changed.items():
        shutil.copytree(path / "classifier", path / name)
        (path / name / "config.json").write_text(json.dumps(config | {"architectures": None} | fields))
    shutil.copytree(path / "classifier", path / "odd_length")
    settings = json.loads((path / "odd_length" / "tokenizer_config.json").read_text()) | {"model_max_length": "x"}
    (path / "odd_length" / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer, tiny_bert_config, sentences):
    """A folder with everything that can be wrong, and what is right beside it."""
    path = tmp_path_factory.mktemp("wrong")
    set_seed(0)
    save_model(path / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    save_model(path / "classifier", BertForSequenceClassification(tiny_bert_config()), tiny_tokenizer)
    broken = "other_shapes no_weights empty_config list_config bad_type evil cut_weights missing_keys null_config"
    for name in broken.split():
        shutil.copytree(path / "encoder", path / name)
    config = json.loads((path / "encoder" / "config.json").read_text())
    (path / "other_shapes" / "config.json").write_text(
        json.dumps(config | {"hidden_size": 12, "intermediate_size": 7})
    )
    for name in ("no_weights", "evil"):
        (path / name / "model.safetensors").unlink()
    with (path / "evil" / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Runs(), file, protocol=2)
    (path / "empty_config" / "config.json").write_text("{}")
    (path / "list_config" / "config.json").write_text("[1]")
    (path / "null_config" / "config.json").write_text(json.dumps(config | {"hidden_size": None}))
    (path / "bad_type" / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    (path / "cut_weights" / "model.safetensors").write_bytes(b"123")
    (path / "missing_keys" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 5}))
    torch.save({"a": 1}, path / "tensor.pt")

    _odd_models(path, config)
    (path / "text.txt").write_text("\n".join(sentences))
    (path / "empty.txt").write_text("")
    (path / "binary.txt").write_bytes(bytes(range(256)) * 4)
    (path / "latin.txt").write_bytes("é à ü\n".encode("latin-1") * 4)
    (path / "bad.parquet").write_bytes(b"no parquet")
    (path / "bad.jsonl").write_text('{"text": \n')
    (path / "odd.csv").write_text('text,label\n"a,1\nb')
    (path / "empty_folder").mkdir()
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(sentences)]
    tasks = "mood told mixed_labels deep_labels no_rows binary_rows latin_rows folder_rows wide stories".split()
    tasks += ["null_rows", "commas"]
    for name in tasks:
        (path / name).mkdir()
        for split in ("train", "validation"):
            write_rows(path / name / f"{split}.jsonl", rows)
    (path / "told" / "task.yaml").write_text("text_columns: text\n")
    stories = [{"document": text, "summary": text} for text in sentences]
    for split in ("train", "validation"):
        (path / "mixed_labels" / f"{split}.jsonl").write_text(
            '{"text": "a", "label": 0}\n{"text": "b", "label": "x"}\n'
        )
        (path / "deep_labels" / f"{split}.jsonl").write_text('{"text": "a", "label": {"x": 1}}\n')
        (path / "no_rows" / f"{split}.jsonl").write_text("")
        (path / "null_rows" / f"{split}.jsonl").write_text("null\nnull\n")
        (path / "commas" / f"{split}.jsonl").unlink()
        (path / "commas" / f"{split}.csv").write_text("text,label\nfine, very fine,1\nbad, very bad,0\n")
        (path / "binary_rows" / f"{split}.jsonl").write_bytes(bytes(range(256)))
        (path / "latin_rows" / f"{split}.jsonl").write_bytes('{"text": "é", "label": 0}\n'.encode("latin-1"))
        (path / "folder_rows" / f"{split}.jsonl").unlink()
        (path / "folder_rows" / f"{split}.jsonl").mkdir()
        write_rows(path / "stories" / f"{split}.jsonl", stories)
    (path / "stories" / "task.yaml").write_text("template: '{document}'\ntarget_column: summary\n")
    datasets.Dataset.from_dict({"text": [1, 2]}).to_parquet(path / "numbers.parquet")
    run = path / "run"
    run.mkdir()
    (run / "results.json").write_text('{"job": "distill", "history": 5}')
    for name, columns in ODD_ROWS.items():
        (path / name).mkdir()
        for split in ("train", "validation"):
            datasets.Dataset.from_dict(columns).to_parquet(path / name / f"{split}.parquet")
    for name, content in YAMLS.items():
        (path / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, content in TASK_FILES.items():
        shutil.copytree(path / "mood", path / name)
        (path / name / "task.yaml").write_text(content)
    return path


YAMLS = {
    "null_length": "max_length: null\n",
    "twice": "max_steps: 1\nmax_steps: 2\n",
    "accelerator": "accelerator_config: {odd: 1}\n",
    "scheduler": "lr_scheduler_kwargs: {a: 1}\n",
    "numeric_keys": "1: 2\n",
    "plugins_number": "plugins: 5\n",
    "plugins_list": "plugins: [1, {a: 2}]\n",
    "plugins_empty": "plugins: ['']\n",
    "list": "- a\n",
    "text": "just words\n",
    "nothing": "",
    "latin": "student_shape: é\n".encode("latin-1"),
    "binary": bytes(range(256)),
    "deep": "a: " + "[" * 500 + "\n",
    "itself": "objectives: &a [*a]\n",
    "date": "objectives: 2024-01-01\n",
    "strange": "objectives: !!bool x\n",
    "objects": "objectives: !!python/object/apply:os.system ['true']\n",
    "list_for_one": "learning_rate: [1, 2]\n",
    "mapping_for_one": "learning_rate: {a: 1}\n",
    "text_for_number": "learning_rate: fast\n",
    "nan": "learning_rate: .nan\n",
    "infinite": "learning_rate: .inf\n",
    "negative": "learning_rate: -1\n",
    "boolean": "max_steps: true\n",
    "number_for_text": "bf16: 7\n",
    "objective_number": "objectives: 5\n",
    "objective_zero": "objectives: {relation: 0}\n",
    "objective_text": "objectives: {relation: much}\n",
    "objective_unknown": "objectives: {relatoin: 1}\n",
    "objective_setting": "objectives: [{objective: relation, colour: red}]\n",
    "objective_layers": "objectives: [{objective: hidden, layers: [[1, 99]]}]\n",
    "objective_list": "objectives: [[relation]]\n",
    "schedule": "objectives: [{objective: relation, schedule: {name: warmup, share: lots}}]\n",
    "preset_number": "preset: 5\n",
}
TASK_FILES = {
    "escape": "name: ../../../escape\ntext_columns: text\n",
    "absolute": "name: /tmp/escape\ntext_columns: text\n",
    "empty_name": "name: ''\ntext_columns: text\n",
    "name_list": "name: [a]\ntext_columns: text\n",
    "columns_number": "text_columns: 5\n",
    "columns_mapping": "text_columns: {a: b}\n",
    "metrics_number": "text_columns: text\nmetrics: 7\n",
    "metrics_unknown": "text_columns: text\nmetrics: [beauty]\n",
    "kind_unknown": "text_columns: text\nkind: poem\n",
    "kind_list": "text_columns: text\nkind: [a]\n",
    "unknown_field": "text_columns: text\ncolour: red\n",
    "numeric_field": "text_columns: text\n5: red\n",
    "tuning_text": "text_columns: text\nfine_tuning: fast\n",
    "tuning_nan": "text_columns: text\nfine_tuning: {learning_rate: .nan}\n",
    "tuning_batch": "text_columns: text\nfine_tuning: {batch_size: 0}\n",
    "range_text": "text_columns: text\nlabel_names: null\nlabel_range: wide\n",
    "aliases_list": "text_columns: text\nlabel_aliases: [a]\n",
    "sources_escape": "text_columns: text\nsplit_sources: {train: ['../../x/y']}\n",
    "splits_escape": "text_columns: text\nevaluation_splits: ['../x']\n",
    "no_splits": "text_columns: text\nevaluation_splits: []\n",
    "one_label": "text_columns: text\nlabel_names: [a]\n",
    "labels_true": "text_columns: text\nlabel_names: [yes, no]\n",
    "held_out_text": "text_columns: text\nheld_out_share: some\n",
}


ODD_TEXTS = {
    "texts_null": {"text": [None, None], "label": [0, 1]},
    "texts_lists": {"text": [["a"], ["b"]], "label": [0, 1]},
    "texts_mappings": {"text": [{"a": 1}, {"a": 2}], "label": [0, 1]},
    "texts_bytes": {"text": [b"a", b"\xff"], "label": [0, 1]},
}
ODD_ROWS = ODD_TEXTS | {
    "labels_null": {"text": ["a", "b"], "label": [None, None]},
    "labels_infinite": {"text": ["a", "b"], "label": [0.5, float("inf")]},
    "labels_gap": {"text": ["a", "b"], "label": [0, 5]},
    "labels_negative": {"text": ["a", "b"], "label": [-3, -7]},
    "labels_lists": {"text": ["a", "b"], "label": [[0], [1]]},
    "labels_one": {"text": ["a", "b"], "label": ["x", "x"]},
    "labels_dates": {"text": ["a", "b"], "label": [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)]},
    "labels_large": {"text": ["a", "b"], "label": [0, 2**62]},
    "no_columns": {"colour": ["a", "b"]},
}


BAD_FOLDERS = "mixed_labels deep_labels no_rows binary_rows null_rows commas latin_rows folder_rows".split()
BAD_MODELS = "other_shapes evil empty_config nowhere cut_weights bad_type".split()


def task(name, *more):
    return ["teach", *QUICK, "--teacher_model", "encoder", "--task", name, *more]


def ends(words, values):
    """The words with one more, which is each of the values in turn; a text has them between blanks."""
    return [[*words, value] for value in (values.split() if isinstance(values, str) else values)]


def each(words, **flags):
    """The words with each flag in turn, set to each of its values in turn."""
    return [case for flag, values in flags.items() for case in ends([*words, f"--{flag}"], values)]


def with_objectives(*values):
    """A distillation with each of these objectives."""
    return each(DISTILL, objectives=[value if isinstance(value, str) else json.dumps(value) for value in values])


MOOD = task("mood", "--text_columns", "text")
CASES = [
    # Configurations, for a verb with and without a trainer.
    *([*DISTILL[:1], f"{name}.yaml", *DISTILL[1:]] for name in YAMLS if name != "nothing"),
    *(["corpus", f"{name}.yaml", *TASK] for name in "numeric_keys plugins_number list latin deep date".split()),
    *([verb, "."] for verb in ("distill", "teach", "grid")),
    *ends(["distill"], "nowhere.yaml empty_folder.yaml"),
    # Task files and rows.
    *(task(name) for name in TASK_FILES),
    *(
        ["mtl", *QUICK, "--tasks", name, "--teacher_model", "encoder", "--save_heads", "all"]
        for name in ("escape", "absolute")
    ),
    *(task(name, "--text_columns", "text") for name in ODD_ROWS),
    *(task(name, "--text_columns", "text") for name in (*BAD_FOLDERS, "empty_folder", "text.txt", "", "a\x00b")),
    task("mood"),
    task("mood", "--text_columns", "text", "label", "text"),
    task("mood", "--text_columns", "colour"),
    *each(
        MOOD, label_column="colour text", text_columns="label", evaluation_splits="../x", class_names="a",
        data_dir="text.txt nowhere", output_dir=["text.txt", "text.txt/x", "", "a\x00b"],
    ),
    [*MOOD, "--class_names", "a", "a"],
    [*MOOD, "--class_names", "a", "b", "--metrics", "pearson"],
    task("glue/sst2", "--data_dir", "empty_folder"),
    task("glue/sst2"),
    # Settings of a training.
    *each(
        TEACH, max_length="0 1 -5 9999999", max_steps="0", num_train_epochs="-1", gradient_accumulation_steps="0",
        per_device_train_batch_size="0 -2", per_device_eval_batch_size="0", learning_rate="nan -1 inf",
        warmup_steps="-1", seed=f"-1 1e9 {2**40}", max_grad_norm="nan", adam_beta1="2", adam_epsilon="-1",
        weight_decay="nan", optim="fast", optim_args="a", lr_scheduler_type="up", lr_scheduler_kwargs="[1]",
        label_smoothing_factor="3", lora_r="0", lora_dropout="7", max_train_samples="0", max_eval_samples="-1",
        train_sampling_strategy="odd", eval_strategy="now", save_strategy="now", logging_steps="-1",
        dataloader_num_workers="-1", resume_from_checkpoint="nowhere text.txt", report_to="nobody",
        deepspeed="nowhere.json", fsdp="odd", accelerator_config="{", hub_strategy="x",
    ),
    # Models.
    *(
        ["distill", *QUICK, *SHAPE, "--teacher_model", name, "--textbook", "text.txt"]
        for name in (*BAD_MODELS, *"no_weights list_config missing_keys null_config text.txt tensor.pt".split())
    ),
    *(
        ["distill", *QUICK, *SHAPE, "--teacher_model", name, "--textbook", "text.txt"]
        for name in ("./nowhere", "me/none", "a b/c", "", "..", "a\x00b", "x" * 300, "empty_folder")
    ),
    *ends(ADAPT[:-1], [*BAD_MODELS, "odd_padding", "odd_classes", "small_vocabulary", "odd_length"]),
    *(["export", "--model", name, "--output_dir", "made"] for name in "evil nowhere encoder2 text.txt".split()),
    *(
        ["bench", "--teacher_model", name, "--student_shapes", "2x12:2h:20", "--use_cpu"]
        for name in ("evil", "other_shapes")
    ),
    *(["attention", "--models", name, "--text", "x"] for name in ("evil", "empty_config", "nowhere")),
    *(["mlm", *QUICK, "--encoder", name, "--textbook", "text.txt"] for name in ("evil", "other_shapes", "nowhere")),
    *ends(GENERATE[:-1], "evil bad_type nowhere"),
    *(
        ["augment", *TASK, "--masked_lm", name, "--use_cpu", "--corpus_dir", "made"]
        for name in ("evil", "nowhere", "encoder")
    ),
    *(
        ["grid", "--use_cpu", "--tasks", "told", "--models", name, "--output_dir", "made"]
        for name in ("evil", "nowhere")
    ),
    # Students.
    *ends(
        ["distill", *QUICK, *MODELS, "--student_shape"],
        ["", *"x 0x12 2x0 2x13:2h 2x12:5h 99999999x12 2x12:0h:4 -2x12 2x12:2h:0 2×12:3h:x".split()],
    ),
    *each(DISTILL, student_init="teacher_layers", student_embedding_size="9" * 30, student_model="evil"),
    [*DISTILL, "--student_layers", "1", "99", "--student_init", "teacher_layers"],
    # Objectives.
    *with_objectives("", "relation relation", *": relation: relation:-1 relation:nan { [] {} labels".split()),
    *with_objectives("{" * 900, "tinybert_prediction:x", '{"objective": 5}', '{"objective": []}'),
    *with_objectives({"objective": "hidden", "layers": 5}),
    *with_objectives(
        *(
            {"objective": "relation", name: value}
            for name, values in {
                "weight": (None, {}),
                "schedule": ([],),
                "relations": ("zz", ["zz"], ["qq:x"]),
                "relation_heads": ("x", 0, -3, 7),
                "teacher_layer": ("x", 99),
                "student_layer": (0, 1.5, 9),
                "layer_map": ("1:99", "odd", ":"),
            }.items()
            for value in values
        ),
        *({"objective": "logits", "temperature_schedule": schedule} for schedule in ("{", "odd", {"name": 5})),
    ),
    *each(
        DISTILL, mlm_probability="2 nan", preset="odd", plugins="no_such ..", textbook_eval_rows="999999 -1",
        max_textbook_rows="0", text_column="colour", eval_task="nowhere", max_length="1", gradual_unfreezing="2",
        projection_learning_rate="nan", teacher_device="moon", teacher_dtype="float8", temperature="0 inf",
        fp32_matmul="odd", early_stopping_patience="0",
    ),
    *ends(DISTILL[:-1], "empty.txt binary.txt bad.parquet bad.jsonl empty_folder nowhere.txt numbers.parquet"),
    *ends(DISTILL[:-1], ["", *"latin.txt odd.csv me/none https://host/x run text.txt/x".split()]),
    *ends(DISTILL[:-1], [f"{name}/train.parquet" for name in ODD_TEXTS]),
    # Corpora.
    *each(
        CORPUS, top_k="0 x", engine="odd", bm25_b="3", bm25_k1="nan", num_proc="0", text_column="colour",
        corpus="nowhere empty.txt bad.parquet", corpus_dir="text.txt", num_shards="0", shard="5", min_words="-1",
        language="odd",
    ),
    *(["corpus", *TASK, "--engine", "bm25s", "--corpus", f"{name}/train.parquet"] for name in ODD_TEXTS),
    *each(GENERAL, corpora=["", "nowhere"], rows="0 -1", unit="page", seed="-1"),
    *each(COMPARE, corpora="nowhere", top_words="0", top_shares="2", num_draws="0", text_column="z"),
    *each(AUGMENT, num_samples="0", replace_probability="nan", embeddings="nowhere", batch_tokens="0"),
    # The other verbs.
    *each(PRECOMPUTE, objectives="odd", store_dtype="int3", shard_rows="0", top_k="0", max_length="1"),
    *each(
        GRID, students=["{", "5", '{"../x": {}}', '{"a": 5}', '{"/abs": {}}', '{"": {}}'], models="../x=encoder",
        fractions="0 nan", learning_rates="nan", batch_sizes="0", epochs="-1", distill="[1]", tasks="nowhere",
        max_eval_samples="0",
    ),
    *each(
        PIPELINE, distill=["{", "5", '{"colour": 1}', '{"objectives": 5}', '{"max_length": null, "x": 1}'],
        teach=['{"max_steps": "x"}', '{"learning_rate": [1]}', '{"gradient_accumulation_steps": 0}'],
        adapt=['{"output_dir": "x"}'], textbook_source="odd", preset="odd", student_shape="odd", seed="-1",
    ),
    *each(
        MTL, save_heads="odd", task_teachers="odd", task_sampling="odd", temperature="0", r3f_epsilon="0",
        sampling_exponent="nan", max_length="0",
    ),
    *each(
        GENERATE, num_beams="0", length_penalty="nan", source_template="{ {0}", target_column="odd", metrics="beauty",
        max_source_length="1", way="odd",
    ),
    *each(EXPORT, tolerance="nan -1", task="nowhere"),
    *each(BENCH, batch_sizes="0", seq_lengths="0", num_batches="0", engines="odd", student_shapes="x"),
    *each(ATTENTION, layers="99 0", heads="99", output="x.odd", text=[""]),
    *ends(["report"], "nowhere empty_folder run text.txt encoder"),
    ["report", "run", "run"],
    *ends(["report", "run", "--output"], ["x.odd", "text.txt/x.html", "empty_folder", ""]),
    *(["push", folder, "me/x", "--dry_run"] for folder in ("nowhere", "empty_folder", "evil")),
    ["push", "", "x", "--dry_run"],
    *ends(["convert", "textbrewer"], "nowhere.json list.yaml text.txt binary.yaml empty_folder"),
    *(["info", *words] for words in (["odd"], ["tasks", "x"], ["--plugins", "no_such"])),
    ["odd"],
]  # fmt: skip


def name_of(words):
    return " ".join(words)[:90].replace("\x00", "0")


@pytest.mark.parametrize("words", CASES, ids=name_of)
def test_a_wrong_input_ends_with_one_line(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr().err
    assert status == 2, said[-2000:]
    assert "Traceback" not in said
    assert "fault of hf_distill" not in said
    assert said.strip().splitlines()[-1].startswith("hf-distill") or words == ["odd"]
    assert not (folder / "pickle_was_run").exists()
