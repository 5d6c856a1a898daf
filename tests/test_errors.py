"""What a user gets wrong ends in one line that names the value, what is allowed and the flag: never in a traceback."""

from __future__ import annotations

import json
import shutil

import datasets
import pytest
import yaml
from transformers import BertForSequenceClassification, BertModel, set_seed

from hf_distill.cli import main
from hf_distill.hub.loading import load_model, load_tokenizer

QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 1 --save_strategy no --output_dir out".split()
SHAPE = ["--student_shape", "2x12:2h:20"]
DISTILL = ["distill", *QUICK, *SHAPE]
TASK = ["--task", "mood", "--text_columns", "text"]
MODELS = ["--teacher_model", "encoder", "--textbook", "text.txt"]
CORPUS = ["corpus", *TASK, "--corpus_dir", "made"]
TEACH = ["teach", *QUICK, "--teacher_model", "encoder"]


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_tokenizer, tiny_bert_config, sentences):
    """A folder with everything that can be wrong, and what is right beside it."""
    monkeypatch.chdir(tmp_path)
    set_seed(0)
    BertModel(tiny_bert_config()).save_pretrained("encoder")
    tiny_tokenizer.save_pretrained("encoder")
    BertModel(tiny_bert_config()).save_pretrained("no_tokenizer")
    BertForSequenceClassification(tiny_bert_config()).save_pretrained("classifier")
    tiny_tokenizer.save_pretrained("classifier")
    for name in ("cut_weights", "bad_config", "bad_tokenizer", "other_words"):
        shutil.copytree("encoder", name)
    (tmp_path / "cut_weights" / "model.safetensors").write_bytes(b"123")
    (tmp_path / "bad_config" / "config.json").write_text("{")
    (tmp_path / "bad_tokenizer" / "tokenizer.json").write_text("{}")
    tokenizer = json.loads((tmp_path / "other_words" / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    names = [name for name in words if not name.startswith("[")]
    words[names[0]], words[names[1]] = words[names[1]], words[names[0]]
    (tmp_path / "other_words" / "tokenizer.json").write_text(json.dumps(tokenizer))

    (tmp_path / "text.txt").write_text("\n".join(sentences))
    (tmp_path / "long.txt").write_text("\n".join(" ".join(sentences) for _ in range(4)))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text("\n\n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "bad.jsonl").write_text('{"text": \n')
    datasets.Dataset.from_dict({"text": [1, 2]}).to_parquet("numbers.parquet")
    datasets.Dataset.from_dict({"text": ["a"]}).select([]).to_parquet("no_rows.parquet")
    for name in ("mood", "empty_mood", "odd_mood"):
        (tmp_path / name).mkdir()
        rows = [{"text": text, "label": i % 2} for i, text in enumerate(sentences)]
        lines = "" if name == "empty_mood" else "".join(json.dumps(row) + "\n" for row in rows)
        for split in ("train", "validation"):
            (tmp_path / name / f"{split}.jsonl").write_text(lines)
    (tmp_path / "odd_mood" / "task.yaml").write_text("text_columns: [text\n")
    (tmp_path / "bad.yaml").write_text("a: [1\nb: {")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "two.yaml").write_text("teacher_model: [one, two]\n")
    (tmp_path / "no_plugin.yaml").write_text("plugins: no_such_module\n")
    return tmp_path


def of(teacher="encoder", textbook="text.txt", *more):
    return [*DISTILL, "--teacher_model", teacher, "--textbook", textbook, *more]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # Models.
        (of("./nowhere"), "`--teacher_model`: cannot load './nowhere' from a local folder or the Hub: there is no"),
        (
            of("me/teacher"),
            "cannot load 'me/teacher' from a local folder or the Hub: there is no such folder, and HF_HUB",
        ),
        (
            of("cut_weights"),
            "from a local folder or the Hub: 'cut_weights/model.safetensors' is damaged or cut short",
        ),
        (of("bad_config"), "`--teacher_model`: cannot load 'bad_config'"),
        (of("bad_tokenizer"), "`--teacher_model`: the tokenizer of 'bad_tokenizer' cannot be read"),
        (of("no_tokenizer"), "`--teacher_model`: 'no_tokenizer' has no tokenizer files"),
        (
            ["adapt", *QUICK, *TASK, "--student_model", "cut_weights"],
            "`--student_model`: cannot load 'cut_weights'",
        ),
        (["export", "--model", "cut_weights"], "`--model`: cannot load 'cut_weights'"),
        (["augment", *TASK, "--masked_lm", "cut_weights"], "`--masked_lm`: cannot load"),
        (["mlm", *QUICK, "--encoder", "nowhere", "--textbook", "text.txt"], "`--encoder`: cannot load 'nowhere'"),
        (["push", "cut_weights", "me/x", "--dry_run"], "'cut_weights/model.safetensors' is damaged"),
        # Teacher and student.
        (["distill", *QUICK, *MODELS, "--student_model", "other_words"], "Teacher and student tokenizers differ"),
        (
            of("encoder", "long.txt", "--max_length", "128"),
            "row 0 has 128 tokens, but the student has 64 positions. Give at most `--max_length 64`",
        ),
        (["distill", *QUICK, *MODELS, "--student_shape", "0x12"], "num_layers=0 (--student_shape)"),
        (
            ["distill", *QUICK, *MODELS, "--student_shape", "2x13:4h"],
            "do not divide the hidden size 13 (--student_shape)",
        ),
        # Text.
        (of("encoder", "empty.txt"), "`--textbook`: ['empty.txt'] are empty"),
        (of("encoder", "blank.txt"), "`--textbook` 'blank.txt' has no text: each of its 2 rows is empty"),
        (of("encoder", "no_rows.parquet"), "`--textbook`: ['no_rows.parquet'] hold no rows"),
        (of("encoder", "binary.txt"), "`--textbook`: ['binary.txt'] cannot be read as text: 'utf-8' codec"),
        (of("encoder", "bad.parquet"), "`--textbook`: ['bad.parquet'] cannot be read as parquet: Parquet magic"),
        (of("encoder", "bad.jsonl"), "`--textbook`: ['bad.jsonl'] cannot be read as json"),
        ([*CORPUS, "--corpus", "empty.txt"], "`--corpus`: ['empty.txt'] are empty"),
        ([*CORPUS, "--corpus", "binary.txt"], "`--corpus`: ['binary.txt'] cannot be read as text"),
        ([*CORPUS, "--corpus", "blank.txt"], "No row of the general corpus can be used"),
        (
            [*CORPUS, "--corpus", "numbers.parquet"],
            "The column 'text' (--text_column) of the general corpus holds Value(",
        ),
        # Tasks.
        (
            [*TEACH, "--task", "empty_mood", "--text_columns", "text"],
            "train.jsonl'] are empty",
        ),
        (
            [*TEACH, "--task", "odd_mood"],
            "odd_mood/task.yaml' cannot be read as YAML, it may be cut short: while parsing",
        ),
        ([*TEACH, "--task", "nothing"], "`--task` 'nothing' is neither a registered task nor a folder"),
        # Files and flags.
        (["distill", "bad.yaml"], "'bad.yaml' cannot be read as YAML, it may be cut short: while parsing"),
        (["distill", "bad.json"], "'bad.json' cannot be read as JSON, it may be cut short: Expecting"),
        (["distill", "two.yaml", *QUICK], "'two.yaml': `teacher_model` is ['one', 'two']; it takes one value"),
        (["distill", "no_plugin.yaml"], "`--plugins` has 'no_such_module'"),
        (of("encodre"), "of the Hub there is only its cache. Did you mean 'encoder'?"),
        (of("encoder", "texts.txt"), "is neither a file nor a folder, and the Hub does not give it"),
        (of("encoder", "texts.txt"), "Did you mean 'text.txt'?"),
        (
            of("encoder", "text.txt", "--batch_size", "8"),
            "per_device_eval_batch_size or --per_device_train_batch_size?",
        ),
        (of("encoder", "text.txt", "--objectives", "logits"), "Without a head leave `logits` out of `--objectives`"),
        (
            ["distill", "text.txt"],
            "'text.txt' stands before every flag, but is no configuration file (.yaml, .yml, .json)",
        ),
        (
            ["predict", "classifier", "--text", "text.txt", "--text_column", "txt", "--max_length", "16"],
            "`--text` 'text.txt' has no column 'txt'",
        ),
        (
            ["push", "encoder", "me/my model", "--dry_run"],
            "`--repo` 'me/my model' is not a valid name of a repository",
        ),
        (
            ["pipeline", *TASK, "--teacher_model", "encoder", "--num_train_epochs", "3"],
            "Settings of its trainings are in `--teach`, `--distill` and `--adapt`",
        ),
        (
            ["pipeline", *TASK, "--teacher_model", "encoder", "--text_column", "words", "--output_dir", "all"],
            "`--text_column words` is the column of `--corpus`, which is not given; those of the task are",
        ),
        (["distill", "--textbok", "text.txt"], "Unknown words ['--textbok', 'text.txt']. Did you mean --textbook?"),
        (of("encoder", "text.txt", "--output_dir", "text.txt"), "`--output_dir` is 'text.txt', which is a file"),
        ([*CORPUS, "--index_dir", "text.txt/a/b"], "`--index_dir` is 'text.txt/a/b', but 'text.txt' is a file; name"),
        (["convert", "textbrewer", "a.json", "--output", "."], "`--output` is '.', which is a folder; name a file"),
        (
            ["convert", "textbrewer", "a.json", "--output", "text.txt/a"],
            "but 'text.txt' is a file; name another place",
        ),
        ([*CORPUS[:-1], "text.txt", "--corpus", "text.txt"], "`--corpus_dir` is 'text.txt', which is a file"),
        (["convert", "textbrewer", "binary.txt"], "'binary.txt' cannot be read as text in UTF-8"),
    ],
)
def test_it_ends_with_one_line_that_says_what_was_wrong(here, capsys, words, message):
    assert main(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"hf-distill {words[0]}: ")
    assert message in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (of("encoder", "text.txt", "--student_init", "magic"), "`--student_init` is 'magic'; allowed are teacher"),
        (of("encoder", "text.txt", "--student_init", "teachr"), "random. Did you mean 'teacher'?"),
        (of("encoder", "text.txt", "--learning_rate", "fast"), "`--learning_rate` is 'fast'; it must be a number."),
        (of("encoder", "text.txt", "--max_steps", "1.5"), "`--max_steps` is '1.5'; it must be a whole number."),
        (of("encoder", "text.txt", "--max_steps"), "`--max_steps` has no value."),
        (of("encoder", "text.txt", "--preset"), "`--preset` has no value."),
        (of("encoder", "text.txt", "--bf16", "maybe"), "`--bf16`: 'maybe' is neither true nor false."),
        (["export"], "`--model` is missing. Hub id or local folder of the model; it can also be given as the first "),
        (["adapt"], "`--student_model` is missing. Hub id or local folder of the student."),
    ],
)
def test_words_that_no_flag_can_have_end_with_one_line_and_the_same_status(here, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_rows_that_fit_train_whatever_the_length_that_was_asked_for(here):
    assert main(of("encoder", "text.txt", "--max_length", "128")) == 0


def test_one_word_in_a_file_stands_for_a_list_of_one(here):
    values = {"objectives": "relation", "teacher_model": "encoder", "textbook": "text.txt"}
    (here / "distil.yaml").write_text(yaml.safe_dump(values))
    assert main(["distill", "distil.yaml", *QUICK, *SHAPE]) == 0


def test_the_same_errors_are_raised_in_python(here):
    with pytest.raises(OSError, match="`--teacher_model`: cannot load 'cut_weights'"):
        load_model("cut_weights", flag="--teacher_model")
    with pytest.raises(OSError, match=r"`--model`: cannot load '\./nowhere' .* there is no such folder"):
        load_tokenizer("./nowhere", flag="--model")
