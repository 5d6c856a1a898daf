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


def task(name, *more):
    return ["teach", *QUICK, "--teacher_model", "encoder", "--task", name, *more]


CASES = [
    # Configurations, for a verb with and without a trainer.
    *([*DISTILL[:1], f"{name}.yaml", *DISTILL[1:]] for name in YAMLS if name not in ("nothing",)),
    *(
        ["corpus", f"{name}.yaml", *TASK]
        for name in ("numeric_keys", "plugins_number", "list", "latin", "deep", "date")
    ),
    *([verb, "."] for verb in ("distill", "teach", "grid")),
    ["distill", "nowhere.yaml"],
    ["distill", "empty_folder.yaml"],
    # Task files and rows.
    *(task(name) for name in TASK_FILES),
    *(
        ["mtl", *QUICK, "--tasks", name, "--teacher_model", "encoder", "--save_heads", "all"]
        for name in ("escape", "absolute")
    ),
    *(task(name, "--text_columns", "text") for name in ("mixed_labels", "deep_labels", "no_rows", "binary_rows")),
    *(task(name, "--text_columns", "text") for name in ("null_rows", "commas")),
    *(
        task(name, "--text_columns", "text")
        for name in ("latin_rows", "folder_rows", "empty_folder", "text.txt", "", "a\x00b")
    ),
    task("mood"),
    task("mood", "--text_columns", "text", "label", "text"),
    task("mood", "--text_columns", "colour"),
    task("mood", "--text_columns", "text", "--label_column", "colour"),
    task("mood", "--text_columns", "text", "--class_names", "a"),
    task("mood", "--text_columns", "text", "--class_names", "a", "a"),
    task("mood", "--text_columns", "text", "--class_names", "a", "b", "--metrics", "pearson"),
    task("mood", "--text_columns", "text", "--evaluation_splits", "../x"),
    task("mood", "--text_columns", "text", "--data_dir", "text.txt"),
    task("glue/sst2", "--data_dir", "empty_folder"),
    task("glue/sst2"),
    # Numbers.
    *(
        [*TEACH, f"--{name}", value]
        for name, value in (
            *(
                ("max_length", "0"),
                ("max_length", "1"),
                ("max_length", "2"),
                ("max_length", "-5"),
                ("max_length", "9999999"),
            ),
            *(("gradient_accumulation_steps", "0"), ("per_device_train_batch_size", "0"), ("num_train_epochs", "-1")),
            *(("per_device_train_batch_size", "-2"), ("per_device_eval_batch_size", "0"), ("learning_rate", "nan")),
            *(
                ("learning_rate", "-1"),
                ("learning_rate", "inf"),
                ("warmup_steps", "-1"),
                ("seed", "-1"),
                ("seed", "1e9"),
            ),
            *(
                ("seed", str(2**40)),
                ("max_grad_norm", "nan"),
                ("adam_beta1", "2"),
                ("adam_epsilon", "-1"),
                ("optim", "fast"),
            ),
            *(
                ("lr_scheduler_type", "up"),
                ("eval_strategy", "now"),
                ("save_strategy", "now"),
                ("logging_steps", "-1"),
            ),
            *(
                ("dataloader_num_workers", "-1"),
                ("lora_r", "0"),
                ("lora_r", "2"),
                ("lora_dropout", "7"),
                ("max_steps", "0"),
            ),
            *(
                ("max_train_samples", "0"),
                ("max_eval_samples", "-1"),
                ("train_sampling_strategy", "odd"),
                ("weight_decay", "nan"),
            ),
            *(("resume_from_checkpoint", "nowhere"), ("resume_from_checkpoint", "text.txt"), ("report_to", "nobody")),
            *(
                ("deepspeed", "nowhere.json"),
                ("fsdp", "odd"),
                ("label_smoothing_factor", "3"),
                ("accelerator_config", "{"),
            ),
            *(
                ("metric_for_best_model", "beauty"),
                ("lr_scheduler_kwargs", "[1]"),
                ("optim_args", "a"),
                ("hub_strategy", "x"),
            ),
        )
        if (name, value) not in {("lora_r", "2"), ("metric_for_best_model", "beauty"), ("max_length", "2")}
    ),
    # Models.
    *(
        ["distill", *QUICK, *SHAPE, "--teacher_model", name, "--textbook", "text.txt"]
        for name in (
            *(
                "other_shapes",
                "no_weights",
                "empty_config",
                "list_config",
                "bad_type",
                "evil",
                "cut_weights",
                "missing_keys",
            ),
            *(
                "null_config",
                "text.txt",
                "tensor.pt",
                "nowhere",
                "./nowhere",
                "me/none",
                "a b/c",
                "",
                "..",
                "a\x00b",
                "x" * 300,
            ),
            "empty_folder",
        )
    ),
    *(
        [*ADAPT[:-1], name]
        for name in (
            *("other_shapes", "evil", "empty_config", "nowhere", "cut_weights", "bad_type"),
            *("odd_padding", "odd_classes", "small_vocabulary", "odd_length"),
        )
    ),
    *(["export", "--model", name, "--output_dir", "made"] for name in ("evil", "nowhere", "encoder2", "text.txt")),
    *(
        ["bench", "--teacher_model", name, "--student_shapes", "2x12:2h:20", "--use_cpu"]
        for name in ("evil", "other_shapes")
    ),
    *(["attention", "--models", name, "--text", "x"] for name in ("evil", "empty_config", "nowhere")),
    *(["mlm", *QUICK, "--encoder", name, "--textbook", "text.txt"] for name in ("evil", "other_shapes", "nowhere")),
    *([*GENERATE[:-1], name] for name in ("evil", "bad_type", "nowhere")),
    *(
        ["augment", *TASK, "--masked_lm", name, "--use_cpu", "--corpus_dir", "made"]
        for name in ("evil", "nowhere", "encoder")
    ),
    *(
        ["grid", "--use_cpu", "--tasks", "told", "--models", name, "--output_dir", "made"]
        for name in ("evil", "nowhere")
    ),
    # Students.
    *(
        ["distill", *QUICK, *MODELS, "--student_shape", shape]
        for shape in (
            *(
                "",
                "x",
                "0x12",
                "2x0",
                "2x13:2h",
                "2x12:5h",
                "99999999x12",
                "2x12:0h:4",
                "-2x12",
                "2x12:2h:0",
                "2×12:3h:x",
            ),
        )
    ),
    *([*DISTILL, "--student_init", init] for init in ("teacher_layers",)),
    [*DISTILL, "--student_embedding_size", "9" * 30],
    [*DISTILL, "--student_model", "evil"],
    [*DISTILL, "--student_layers", "1", "99", "--student_init", "teacher_layers"],
    # Objectives.
    *(
        [*DISTILL, "--objectives", text]
        for text in (
            *(
                "",
                ":",
                "relation:",
                "relation:-1",
                "relation:nan",
                "{",
                "[]",
                "{}",
                '{"objective": 5}',
                '{"objective": []}',
            ),
            *(
                '{"objective": "relation", "weight": null}',
                '{"objective": "relation", "weight": {}}',
                "relation relation",
                "labels",
            ),
            *(
                '{"objective": "relation", "schedule": []}',
                '{"objective": "hidden", "layers": 5}',
                "{" * 900,
                "tinybert_prediction:x",
            ),
            *(
                json.dumps({"objective": "relation", name: value})
                for name, values in {
                    "relations": ("zz", ["zz"], ["qq:x"]),
                    "relation_heads": ("x", 0, -3, 7),
                    "teacher_layer": ("x", 99),
                    "student_layer": (0, 1.5, 9),
                    "layer_map": ("1:99", "odd", ":"),
                }.items()
                for value in values
            ),
        )
    ),
    *(
        [*DISTILL, flag, value]
        for flag, value in (
            *(("--mlm_probability", "2"), ("--mlm_probability", "nan"), ("--preset", "odd")),
            *(
                ("--plugins", "no_such"),
                ("--plugins", ".."),
                ("--textbook_eval_rows", "999999"),
                ("--textbook_eval_rows", "-1"),
            ),
            *(
                ("--max_textbook_rows", "0"),
                ("--text_column", "colour"),
                ("--eval_task", "nowhere"),
                ("--max_length", "1"),
            ),
            *(("--gradual_unfreezing", "2"), ("--projection_learning_rate", "nan"), ("--teacher_device", "moon")),
            *(
                ("--teacher_dtype", "float8"),
                ("--temperature", "0"),
                ("--temperature", "inf"),
                ("--fp32_matmul", "odd"),
            ),
            *(("--early_stopping_patience", "0"),),
        )
    ),
    *(
        ["distill", *QUICK, *SHAPE, "--teacher_model", "encoder", "--textbook", name]
        for name in (
            *(
                "empty.txt",
                "binary.txt",
                "bad.parquet",
                "bad.jsonl",
                "empty_folder",
                "nowhere.txt",
                "numbers.parquet",
                "",
            ),
        )
    ),
    *(
        [*DISTILL, "--objectives", json.dumps({"objective": "logits", "temperature_schedule": schedule})]
        for schedule in ("{", "odd", {"name": 5})
    ),
    # Corpora.
    *(
        [*CORPUS, flag, value]
        for flag, value in (
            *(
                ("--top_k", "0"),
                ("--top_k", "x"),
                ("--engine", "odd"),
                ("--bm25_b", "3"),
                ("--bm25_k1", "nan"),
                ("--num_proc", "0"),
            ),
            *(
                ("--corpus", "nowhere"),
                ("--corpus", "empty.txt"),
                ("--corpus", "bad.parquet"),
                ("--text_column", "colour"),
            ),
            *(
                ("--corpus_dir", "text.txt"),
                ("--num_shards", "0"),
                ("--shard", "5"),
                ("--min_words", "-1"),
                ("--language", "odd"),
            ),
        )
    ),
    *(
        [*GENERAL, flag, value]
        for flag, value in (
            *(
                ("--corpora", ""),
                ("--corpora", "nowhere"),
                ("--rows", "0"),
                ("--rows", "-1"),
                ("--unit", "page"),
                ("--seed", "-1"),
            ),
        )
    ),
    *(
        [*COMPARE, flag, value]
        for flag, value in (
            *(
                ("--corpora", "nowhere"),
                ("--top_words", "0"),
                ("--top_shares", "2"),
                ("--num_draws", "0"),
                ("--text_column", "z"),
            ),
        )
    ),
    *(
        [*AUGMENT, flag, value]
        for flag, value in (
            *(
                ("--num_samples", "0"),
                ("--replace_probability", "nan"),
                ("--embeddings", "nowhere"),
                ("--batch_tokens", "0"),
            ),
        )
    ),
    # The other verbs.
    *(
        [*PRECOMPUTE, flag, value]
        for flag, value in (
            *(
                ("--objectives", "odd"),
                ("--store_dtype", "int3"),
                ("--shard_rows", "0"),
                ("--top_k", "0"),
                ("--max_length", "1"),
            ),
        )
    ),
    *(
        [*GRID, flag, value]
        for flag, value in (
            *(("--students", "{"), ("--students", "5"), ("--students", '{"../x": {}}'), ("--students", '{"a": 5}')),
            *(
                ("--students", '{"/abs": {}}'),
                ("--students", '{"": {}}'),
                ("--models", "../x=encoder"),
                ("--fractions", "0"),
            ),
            *(
                ("--fractions", "nan"),
                (
                    "--seeds",
                    "1",
                ),
                ("--learning_rates", "nan"),
                ("--batch_sizes", "0"),
                ("--epochs", "-1"),
            ),
            *(("--distill", "[1]"), ("--tasks", "nowhere"), ("--max_eval_samples", "0")),
        )
        if (flag, value) != ("--seeds", "1")
    ),
    *(
        [*PIPELINE, flag, value]
        for flag, value in (
            *(
                ("--distill", "{"),
                ("--distill", "5"),
                ("--distill", '{"colour": 1}'),
                ("--teach", '{"max_steps": "x"}'),
            ),
            *(("--adapt", '{"output_dir": "x"}'), ("--distill", '{"objectives": 5}'), ("--textbook_source", "odd")),
            *(
                ("--preset", "odd"),
                ("--student_shape", "odd"),
                ("--teach", '{"learning_rate": [1]}'),
                ("--seed", "-1"),
            ),
            *(("--teach", '{"gradient_accumulation_steps": 0}'), ("--distill", '{"max_length": null, "x": 1}')),
        )
    ),
    *(
        [*MTL, flag, value]
        for flag, value in (
            *(("--save_heads", "odd"), ("--task_teachers", "odd"), ("--task_sampling", "odd"), ("--temperature", "0")),
            *(("--r3f_epsilon", "0"), ("--sampling_exponent", "nan"), ("--max_length", "0")),
        )
    ),
    *(
        [*GENERATE, flag, value]
        for flag, value in (
            *(
                ("--num_beams", "0"),
                ("--length_penalty", "nan"),
                ("--source_template", "{"),
                ("--source_template", "{0}"),
            ),
            *(("--target_column", "odd"), ("--metrics", "beauty"), ("--max_source_length", "1"), ("--way", "odd")),
        )
    ),
    *(
        [*EXPORT, flag, value]
        for flag, value in (("--tolerance", "nan"), ("--tolerance", "-1"), ("--task", "nowhere"))
    ),
    *(
        [*BENCH, flag, value]
        for flag, value in (
            *(
                ("--batch_sizes", "0"),
                ("--seq_lengths", "0"),
                ("--num_batches", "0"),
                ("--engines", "odd"),
                ("--student_shapes", "x"),
            ),
        )
    ),
    *(
        [*ATTENTION, flag, value]
        for flag, value in (
            *(("--layers", "99"), ("--layers", "0"), ("--heads", "99"), ("--output", "x.odd"), ("--text", "")),
        )
    ),
    *(
        ["report", *words]
        for words in (
            *(
                ["nowhere"],
                ["empty_folder"],
                ["run"],
                ["text.txt"],
                ["run", "run"],
                ["encoder"],
                ["run", "--output", "x.odd"],
            ),
        )
    ),
    *(
        ["push", *words, "--dry_run"]
        for words in (["nowhere", "me/x"], ["empty_folder", "me/x"], ["evil", "me/x"], ["", "x"])
    ),
    *(
        ["convert", "textbrewer", name]
        for name in ("nowhere.json", "list.yaml", "text.txt", "binary.yaml", "empty_folder")
    ),
    *(["info", *words] for words in (["odd"], ["tasks", "x"], ["--plugins", "no_such"])),
    ["odd"],
    # Rows of odd shapes.
    *(task(name, "--text_columns", "text") for name in ODD_ROWS),
    *(
        ["distill", *QUICK, *SHAPE, "--teacher_model", "encoder", "--textbook", f"{name}/train.parquet"]
        for name in ODD_TEXTS
    ),
    *(["corpus", *TASK, "--engine", "bm25s", "--corpus", f"{name}/train.parquet"] for name in ODD_TEXTS),
    *([*DISTILL[:-1], name] for name in ("latin.txt", "odd.csv", "me/none", "https://host/x", "run", "text.txt/x")),
    *(
        task("mood", "--text_columns", "text", *more)
        for more in (
            *(
                ["--data_dir", "nowhere"],
                ["--data_dir", "text.txt"],
                ["--label_column", "text"],
                ["--text_columns", "label"],
            ),
            *(
                ["--output_dir", "text.txt"],
                ["--output_dir", "text.txt/x"],
                ["--output_dir", ""],
                ["--output_dir", "a\x00b"],
            ),
        )
    ),
    *(["report", "run", "--output", name] for name in ("text.txt/x.html", "empty_folder", "")),
]


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
