"""Fine-tune an encoder to write, decode and score: every task, kills, saved models, wrong inputs."""

import json
import math

import pytest
from tiny_data import save_model, write_rows
from transformers import AutoModelForMaskedLM, BertModel, set_seed

from hf_distill import EncoderForGeneration, cli
from hf_distill.commands.generate import run as generate, summary
from hf_distill.generation.predictions import PredictionFile
from hf_distill.hub.selection import select_files
from hf_distill.settings import GenerationArguments, GenerationTaskArguments, GenerationTrainingArguments
from hf_distill.tasks.catalogue.generation import GENERATION_TASKS, get_generation_task

ROWS = 9
LENGTHS = {"max_source_length": 24, "max_target_length": 6}


COLUMNS = {
    "xsum": ("document", "summary"),
    "cnn_dailymail": ("article", "highlights"),
    "dialogsum": ("dialogue", "summary"),
    "billsum": ("text", "summary"),
    "aeslc": ("email_body", "subject_line"),
    "multi_news": ("document", "summary"),
}


def row_of(name, text, number):
    """A row in the columns of a task's data set."""
    if name == "qg/squad":
        answer = text.split()[-1]
        answers = {"text": [answer], "answer_start": [text.index(answer)]}
        return {"id": str(number), "context": text, "question": " ".join(text.split()[:3]), "answers": answers}
    source, target = COLUMNS[name]
    return {source: text, target: " ".join(text.split()[:2]), "id": str(number)}


@pytest.fixture
def data(tmp_path, tiny_tokenizer, tiny_bert_config, sentences):
    """Every task's rows in a folder of its name, and `encoder`, in one folder."""
    for name in GENERATION_TASKS:
        folder = tmp_path / name.rpartition("/")[2]
        for split, start in (("train", 0), (get_generation_task(name).headline_split, 20)):
            rows = [row_of(name, text, i) for i, text in enumerate(sentences[start : start + ROWS])]
            write_rows(folder / f"{split}.jsonl", rows)
    set_seed(0)
    save_model(tmp_path / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    return tmp_path


def run(data, *, task="xsum", model="encoder", out="out", rows=None, decoding=None, **training):
    given = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 2, "save_strategy": "no"}
    given |= {"per_device_train_batch_size": 4, "logging_steps": 1, **training}
    return generate(
        GenerationTaskArguments(task, str(data), **(LENGTHS | (rows or {}))),
        GenerationArguments(str(data / model), **({"num_beams": 2, "decode_batch_size": 3} | (decoding or {}))),
        GenerationTrainingArguments(str(data / out), **given),
    )


def lines(data, out="out"):
    return [json.loads(line) for line in (data / out / "predictions.jsonl").read_text().splitlines()]


# ---- A whole run ----


def test_checkpoints_are_chosen_by_validation_where_tests_are_scored(data):
    (data / "xsum" / "test.jsonl").write_text((data / "xsum" / "train.jsonl").read_text())
    splits = {"evaluation_splits": ["test", "validation"]}
    results = run(data, rows=splits, eval_strategy="steps", eval_steps=2)
    logged = [entry["eval_loss"] for entry in results["history"] if "eval_loss" in entry]
    assert logged[0] == pytest.approx(results["losses"]["validation"])
    assert results["split"] == "test"


@pytest.mark.parametrize("name", GENERATION_TASKS)
def test_every_task_trains_two_steps_decodes_and_is_scored(name, data):
    results = run(data, task=name)
    spec = get_generation_task(name)
    split = spec.headline_split
    assert (results["steps"], results["train_rows"]) == (2, ROWS)
    assert list(results["scores"][split]) == list(spec.metrics)
    assert all(math.isfinite(score) for score in results["scores"][split].values())
    assert results["score"] == results["scores"][split][spec.headline]
    assert math.isfinite(results["losses"][split])
    assert results["decode_speed"][split]["rows"] == ROWS
    assert [line["row"] for line in lines(data)] == list(range(ROWS))
    assert results["decoding"]["length_penalty"] == spec.settings.length_penalty
    assert json.loads((data / "out" / "results.json").read_text())["score"] == results["score"]
    assert "rows" not in summary(results)
    assert f"model in {data / 'out'}" in summary(results)


def test_texts_are_those_that_the_saved_model_writes(data):
    run(data)
    model = EncoderForGeneration.from_pretrained(data / "out")
    rows = [json.loads(line) for line in (data / "xsum" / "validation.jsonl").read_text().splitlines()]
    assert model.generate_texts([row["document"] for row in rows]) == [line["prediction"] for line in lines(data)]
    assert [line["references"] for line in lines(data)] == [[row["summary"]] for row in rows]
    assert model.settings.num_beams == 2
    AutoModelForMaskedLM.from_pretrained(data / "out")
    # A push takes along what such a folder needs, and no texts of the data set.
    pushed = {file.path for file in select_files(data / "out").files}
    assert {"encoder_generation.json", "model.safetensors", "tokenizer.json"} <= pushed
    assert "predictions.jsonl" not in pushed
    assert {"README.md", "distillation.json"} <= pushed
    card = (data / "out" / "README.md").read_text(encoding="utf-8")
    assert 'EncoderForGeneration.from_pretrained("out")' in card
    assert "| xsum | validation | rouge2 |" in card
    assert str(data) not in card


def test_a_saved_model_is_scored_again_as_after_its_training(data):
    first = run(data, decoding={"length_penalty": 0.5, "way": "shift"})
    again = run(data, model="out", out="again", rows={"max_source_length": None, "max_target_length": None},
                decoding={"eval_only": True, "num_beams": None})  # fmt: skip
    assert "steps" not in again
    assert again["decoding"] == first["decoding"]
    assert again["settings"] == {"way": "shift", **LENGTHS}
    assert again["scores"] == first["scores"]
    assert again["losses"] == pytest.approx(first["losses"])
    assert [line["prediction"] for line in lines(data)] == [line["prediction"] for line in lines(data, "again")]
    greedy = run(data, model="out", out="greedy", decoding={"eval_only": True, "num_beams": 1})
    assert greedy["decoding"]["num_beams"] == 1


def test_several_splits_are_written_into_one_file(data):
    results = run(data, rows={"evaluation_splits": ["validation", "train"], "max_eval_samples": 4})
    assert [(line["split"], line["row"]) for line in lines(data)] == [
        (split, row) for split in ("validation", "train") for row in range(4)
    ]
    assert set(results["scores"]) == set(results["losses"]) == {"validation", "train"}


def test_an_empty_source_and_an_empty_target_are_scored(data):
    rows = [{"document": "", "summary": "the cat"}, {"document": "the cat sees", "summary": ""}]
    write_rows(data / "xsum" / "validation.jsonl", rows)
    results = run(data)
    assert len(lines(data)) == 2
    assert all(math.isfinite(score) for score in results["scores"]["validation"].values())


def test_a_model_with_too_few_positions_gets_more(data):
    results = run(data, rows={"max_source_length": 90})
    assert results["settings"]["max_source_length"] == 90
    assert EncoderForGeneration.from_pretrained(data / "out").max_length == 96


# ---- Kills ----


def test_a_killed_decoding_goes_on_behind_its_last_batch(data, monkeypatch):
    values = {"save_strategy": "steps", "save_steps": 2, "resume_from_checkpoint": "last"}
    whole = run(data, out="whole", **values)
    append, written = PredictionFile.append, []

    def append_once(self, batch):
        if written:
            with self.path.open("a") as stream:
                stream.write('{"number": 5, "predic')
            raise KeyboardInterrupt
        written.extend(number for number, _ in batch)
        append(self, batch)

    monkeypatch.setattr(PredictionFile, "append", append_once)
    with pytest.raises(KeyboardInterrupt):
        run(data, **values)
    assert len(written) == 3
    monkeypatch.setattr(PredictionFile, "append", append)
    resumed = run(data, **values)
    assert resumed["decode_speed"]["validation"]["rows"] == ROWS - 3
    assert lines(data) == lines(data, "whole")
    assert resumed["scores"] == whole["scores"]
    assert run(data, **values)["decode_speed"]["validation"]["rows"] == 0


@pytest.mark.parametrize(
    "other",
    [{"decoding": {"length_penalty": 2.0}}, {"rows": {"max_eval_samples": 5}}, {"seed": 1, "max_steps": 3}],
    ids=["settings", "rows", "weights"],
)
def test_texts_of_another_model_settings_or_rows_are_not_taken(other, data):
    run(data)
    again = run(data, **other)
    assert again["decode_speed"]["validation"]["rows"] == len(lines(data))


def test_a_killed_training_goes_on_to_the_same_end(data):
    values = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 3, "max_steps": 4}
    whole = run(data, out="whole", **values)
    part = str(data / "whole" / "checkpoint-2")
    resumed = run(data, out="resumed", **values, resume_from_checkpoint=part)
    assert resumed["steps"] == 4
    assert resumed["losses"] == whole["losses"]
    assert lines(data, "resumed") == lines(data, "whole")


# ---- Wrong inputs ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "xsun"], "`--task` 'xsun' is neither a generation task nor a folder"),
        (["--student_model", "nowhere"], "`--student_model`: cannot load 'nowhere'"),
        (["--tokenizer_name", "nowhere"], "`--tokenizer_name`: cannot load 'nowhere'"),
        (["--metrics", "accuracy"], "`--metrics` has ['accuracy']"),
        (["--source_template", "{text}"], "lacks columns ['text']"),
        (["--target_column", "title"], "lacks columns ['title']"),
        (["--evaluation_splits", "dev"], "lacks ['dev']"),
        (["--max_source_length", "2"], "`--max_source_length` is 2; it must be at least 3"),
        (["--max_target_length", "1"], "`--max_target_length` is 1; it must be at least 2"),
        (["--num_beams", "0"], "`--num_beams` is 0; it must be at least 1"),
        (["--min_new_tokens", "6"], "`min_new_tokens` is 6"),
        (["--ngram_ignore", "zzz"], "`--ngram_ignore` has ['zzz']"),
        (["--label_smoothing_factor", "1"], "`--label_smoothing_factor` is 1.0"),
        (["--load_best_model_at_end", "--metric_for_best_model", "bleu"], "`--metric_for_best_model` is 'bleu'"),
    ],
)
def test_wrong_words_end_in_one_line(words, message, data, capsys):
    given = ["--task", "xsum", "--data_dir", str(data), "--student_model", str(data / "encoder"), "--use_cpu"]
    given += ["--max_source_length", "24", "--max_target_length", "6", "--output_dir", str(data / "out")]
    assert cli.main(["generate", *given, "--save_strategy", "no", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("hf-distill generate: ")
    assert message in line
    assert not (data / "out" / "results.json").exists()


def test_without_a_student_there_is_nothing_to_train(data):
    with pytest.raises(ValueError, match="`--student_model` is missing"):
        generate(
            GenerationTaskArguments("xsum", str(data)),
            GenerationArguments(),
            GenerationTrainingArguments(str(data / "out"), use_cpu=True, report_to="none"),
        )


def test_a_missing_scorer_is_known_before_the_training(data, monkeypatch):
    import hf_distill.tasks.metrics.text_scores as scores

    def refuse(*args, **kwargs):
        raise ImportError("pip install 'hf_distill[generation]'")

    monkeypatch.setattr(scores, "require", refuse)
    with pytest.raises(ImportError, match="generation"):
        run(data)
    assert not (data / "out").exists()


def test_a_checkpoint_of_another_way_is_refused(data):
    values = {"save_strategy": "steps", "save_steps": 2}
    run(data, **values)
    part = str(data / "out" / "checkpoint-2")
    with pytest.raises(ValueError, match="was trained with `--way` 'pseudo', and `--way` is 'shift'"):
        run(data, out="other", decoding={"way": "shift"}, **values, resume_from_checkpoint=part)
