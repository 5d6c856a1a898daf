"""Generation tasks: what a source is made of, what is cut, what is left out, how texts are scored."""

from pathlib import Path

import pytest
from datasets import Dataset
from tiny_data import write_rows

from hf_distill.tasks.catalogue.generation import GENERATION_TASKS, GenerationSpec, get_generation_task
from hf_distill.tasks.metrics.text_scores import score_generated
from hf_distill.tasks.rows.generation import load_generation_task, tokenize_generation

SUMMARY = {"template": "{text}", "target_column": "short"}


def write(folder, **splits):
    for split, rows in splits.items():
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def question(context, answer, number=0, start=None):
    answers = {"text": [answer], "answer_start": [context.index(answer) if start is None else start]}
    return {"id": str(number), "title": "t", "context": context, "question": "what is it", "answers": answers}


def own(folder, train, validation=None, **fields):
    write(folder / "mine", train=train, validation=validation or train)
    return load_generation_task(str(folder / "mine"), **{**SUMMARY, **fields})


# ---- Specs ----


def test_a_template_names_its_columns_and_parts():
    spec = GenerationSpec("mine", "{title}: {text}{separator}{answer} {title}", "question")
    assert spec.parts == ("{title}: {text}", "{answer} {title}")
    assert spec.text_columns == ("title", "text", "answer")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"template": "plain"}, "`--source_template` 'plain' has a part without a column"),
        ({"template": "{text}{separator}"}, "has a part without a column"),
        ({"template": "{text"}, "cannot be read"),
        ({"metrics": ["accuracy"]}, r"`--metrics` has \['accuracy'\]; allowed are \['bleu', 'meteor'"),
        ({"metrics": []}, "`--metrics` has no entry"),
        ({"evaluation_splits": []}, "`--evaluation_splits` is empty"),
        ({"colour": "red"}, r"no fields \['colour'\]"),
        ({"template": ""}, r"needs the fields \['template'\]: give `--source_template`"),
        ({"settings": {"beams": 3}}, r"`settings` has no fields \['beams'\]"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        GenerationSpec.from_dict({"name": "mine", **SUMMARY, **fields})


def test_settings_of_a_task_file_may_be_texts():
    settings = {"learning_rate": "1e-5", "num_beams": 2, "ngram_ignore": [".", ","]}
    spec = GenerationSpec.from_dict({"name": "mine", **SUMMARY, "settings": settings})
    assert spec.settings.learning_rate == 1e-5
    assert spec.settings.ngram_ignore == (".", ",")
    assert spec.settings.source == "the user's task file"


def test_shallow_models_learn_as_the_papers_six_layers_do():
    settings = get_generation_task("qg/squad").settings
    assert settings.fine_tuning(6).learning_rate == 8e-5
    assert settings.fine_tuning(12).learning_rate == 3e-5
    assert get_generation_task("xsum").settings.fine_tuning(6).epochs == 50


@pytest.mark.parametrize("name", GENERATION_TASKS)
def test_the_page_has_the_settings_of_every_task(name):
    own = get_generation_task(name).settings
    page = (Path(__file__).parents[2] / "docs" / "generate.md").read_text(encoding="utf-8")
    [row] = [line for line in page.partition("## Two ways")[2].splitlines() if line.startswith(f"| `{name}`")]
    cells = [cell.strip() for cell in row.split("|")[2:]]
    assert cells[:2] == [str(own.batch_size), f"{own.max_source_length} + {own.max_target_length}"]
    assert cells[4:6] == [str(own.num_beams), f"{own.length_penalty:g}"]
    if not cells[2].startswith("as"):
        rates = [
            f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
            for value in (own.learning_rate, own.shallow_learning_rate)
        ]
        assert cells[2] == " / ".join(rates)
        assert cells[3] == " / ".join(dict.fromkeys(f"{value:g}" for value in (own.epochs, own.shallow_epochs)))


def test_an_unknown_task_is_named_with_those_that_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"`--task` 'xsun' is neither .* Did you mean 'xsum'\?"):
        load_generation_task("xsun", tmp_path)


# ---- Rows ----


OFFICIAL = {
    "qg/squad": (question("the cat sees a bird", "bird"), ["the cat sees a bird", "bird"], "what is it"),
    "xsum": ({"document": "long", "summary": "short", "id": "1"}, ["long"], "short"),
    "cnn_dailymail": ({"article": "long", "highlights": "short", "id": "1"}, ["long"], "short"),
    "dialogsum": ({"dialogue": "long", "summary": "short", "id": "1", "topic": "t"}, ["long"], "short"),
    "billsum": ({"text": "long", "summary": "short", "title": "t"}, ["long"], "short"),
    "aeslc": ({"email_body": "long", "subject_line": "short"}, ["long"], "short"),
    "multi_news": ({"document": "long", "summary": "short"}, ["long"], "short"),
}


@pytest.mark.parametrize("name", GENERATION_TASKS)
def test_every_task_loads_from_its_official_columns(name, tmp_path):
    row, parts, target = OFFICIAL[name]
    splits = ("train", get_generation_task(name).headline_split)
    write(tmp_path / name.rpartition("/")[2], **{split: [row] for split in splits})
    task = load_generation_task(name, tmp_path)
    for split in splits:
        assert task.dataset[split]["parts"][:] == [parts]
        assert task.dataset[split]["references"][:] == [[target]]


def test_the_answer_is_found_where_its_row_says(tmp_path):
    context = "the bird and the bird"
    rows = [question(context, "bird", start=start) for start in (4, 17, 3, -1)]
    rows.append({"context": context, "answer": "cat", "question": "what is it"})
    write(tmp_path / "squad", train=rows[:4], validation=[question(context, "fish", start=0)])
    task = load_generation_task("qg/squad", tmp_path)
    # A start that does not fit its text is not believed; an answer that is nowhere keeps nothing.
    assert task.train["kept_start"][:] == [4, 17, 4, 4]
    assert task.train["kept_end"][:] == [8, 21, 8, 8]
    assert task.split("validation")["kept_start"][:] == [-1]


def test_answers_may_stand_in_a_column_of_their_own(tmp_path):
    row = {"context": "the cat sees a bird", "answer": "bird", "question": "what is it"}
    write(tmp_path / "squad", train=[row], validation=[row])
    task = load_generation_task("qg/squad", tmp_path)
    assert task.train["parts"][:] == [["the cat sees a bird", "bird"]]
    assert task.train["kept_start"][:] == [15]


def test_questions_without_an_answer_are_left_out(tmp_path):
    rows = [question("the cat", "cat"), question("the cat", "cat")]
    rows[1]["answers"] = {"text": [], "answer_start": []}
    write(tmp_path / "squad", train=rows, validation=rows)
    task = load_generation_task("qg/squad", tmp_path)
    assert (len(task.train), len(task.split("validation"))) == (1, 1)


def test_training_rows_without_source_or_target_are_left_out_and_others_stay(tmp_path):
    rows = [
        {"text": "the cat", "short": "cat"},
        {"text": " ", "short": "cat"},
        {"text": "the cat", "short": ""},
        {"text": None, "short": "cat"},
    ]
    task = own(tmp_path, rows, rows[:3])
    assert task.train["parts"][:] == [["the cat"]]
    assert task.split("validation")["references"][:] == [["cat"], ["cat"], [""]]


def test_a_missing_text_in_an_evaluation_split_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"Split 'validation' of task 'mine': 1 rows have no text in \['short'\]"):
        own(tmp_path, [{"text": "a", "short": "b"}], [{"text": "a", "short": "b"}, {"text": "a", "short": None}])


def test_a_split_without_a_usable_row_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'train' of task 'mine' has no row with source and target"):
        own(tmp_path, [{"text": "", "short": "b"}])


def test_missing_columns_are_named_with_those_that_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"lacks columns \['document'\]; found \['text', 'short'\]. Name those"):
        own(tmp_path, [{"text": "a", "short": "b"}], template="{document}")


def test_missing_splits_are_named(tmp_path):
    write(tmp_path / "mine", train=[{"text": "a", "short": "b"}])
    with pytest.raises(FileNotFoundError, match=r"lacks \['validation'\]"):
        load_generation_task(str(tmp_path / "mine"), **SUMMARY)


def test_a_folder_is_described_by_its_file_and_flags_win(tmp_path):
    write(tmp_path / "mine", train=[{"text": "a", "short": "b", "other": "c"}])
    (tmp_path / "mine" / "task.yaml").write_text(
        "template: '{text}'\ntarget_column: short\nevaluation_splits: [train]\nmetrics: [rougeL]\n"
    )
    task = load_generation_task(str(tmp_path / "mine"), target_column="other")
    assert task.spec.metrics == ("rougeL",)
    assert task.dataset["train"]["references"][:] == [["c"]]


def test_a_folder_may_have_any_name_beside_its_data_dir(tmp_path):
    write(tmp_path / "mine", train=[{"text": "a", "short": "b"}], validation=[{"text": "a", "short": "b"}])
    task = load_generation_task("titles", tmp_path / "mine", **SUMMARY)
    assert task.spec.name == "mine"
    assert len(task.train) == 1


def test_a_folder_that_nothing_describes_asks_for_the_flags(tmp_path):
    write(tmp_path / "mine", train=[{"text": "a", "short": "b"}])
    with pytest.raises(ValueError, match=r"give `--source_template` .* and `--target_column`"):
        load_generation_task(str(tmp_path / "mine"))


def test_references_of_one_source_are_one_row_of_an_evaluation(tmp_path):
    rows = [{"dialogue": text, "summary": short} for text, short in (("a", "1"), ("b", "2"), ("a", "3"))]
    write(tmp_path / "dialogsum", train=rows, validation=rows)
    task = load_generation_task("dialogsum", tmp_path)
    assert len(task.train) == 3
    assert task.split("validation")["references"][:] == [["1", "3"], ["2"]]


def test_rows_may_hold_lists_of_references(tmp_path):
    task = own(tmp_path, [{"text": "a", "short": ["b", "c"]}])
    assert task.train["references"][:] == [["b", "c"]]


def test_a_part_of_the_rows_is_drawn(tmp_path):
    task = own(tmp_path, [{"text": str(number), "short": "b"} for number in range(8)])
    part = task.subset(3, 2, seed=1)
    assert (len(part.train), len(part.split("validation"))) == (3, 2)
    assert part.train["parts"][:] == task.subset(3, 2, seed=1).train["parts"][:]


# ---- Tokens ----


def tokens(tokenizer, parts, kept=(-1, -1), reference="the cat", source=12, target=6):
    rows = Dataset.from_dict(
        {"parts": [parts], "kept_start": [kept[0]], "kept_end": [kept[1]], "references": [[reference]]}
    )
    [row] = tokenize_generation(rows, tokenizer, max_source_length=source, max_target_length=target)
    return row


def words(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


def test_parts_are_joined_by_the_separator_and_nothing_stands_around_them(tiny_tokenizer):
    row = tokens(tiny_tokenizer, ["the cat sees", "bird"])
    assert words(tiny_tokenizer, row["source"]) == ["the", "cat", "sees", "[SEP]", "bird"]
    assert words(tiny_tokenizer, row["target"]) == ["the", "cat"]
    # With those around them: [CLS] source [SEP] target [SEP].
    assert row["length"] == 5 + 2 + 3


def test_what_is_cut_is_counted_on_both_sides(tiny_tokenizer, caplog):
    tokens(tiny_tokenizer, ["the cat sees", "bird"], source=8, target=4)
    assert not caplog.messages
    tokens(tiny_tokenizer, ["the cat sees", "bird"], source=7, target=2)
    assert caplog.messages == [
        f"1 of 1 {side}s have {length} tokens or more; longer ones are cut off (`--max_{side}_length`)."
        for side, length in (("source", 7), ("target", 2))
    ]


@pytest.mark.parametrize("place", [0, 3, 10, 17, 19])
def test_a_long_passage_is_cut_around_its_answer(place, tiny_tokenizer):
    passage = ["the"] * 20
    passage[place] = "bird"
    text = " ".join(passage)
    start = text.index("bird")
    row = tokens(tiny_tokenizer, [text, "bird"], (start, start + 4))
    found = words(tiny_tokenizer, row["source"])
    assert len(found) == 10
    assert found[-2:] == ["[SEP]", "bird"]
    assert "bird" in found[:8]


def test_an_answer_longer_than_the_room_keeps_its_middle_and_half_of_the_room(tiny_tokenizer):
    passage = " ".join(["cat"] * 5 + ["bird"] * 12 + ["dog"] * 5)
    start, answer = passage.index("bird"), " ".join(["bird"] * 12)
    row = tokens(tiny_tokenizer, [passage, answer], (start, start + len(answer)))
    assert words(tiny_tokenizer, row["source"]) == ["bird"] * 5 + ["[SEP]"] + ["bird"] * 4


def test_without_an_answer_the_end_is_cut(tiny_tokenizer):
    row = tokens(tiny_tokenizer, [" ".join(["cat"] * 9 + ["dog"] * 9)])
    assert words(tiny_tokenizer, row["source"]) == ["cat"] * 9 + ["dog"]


def test_a_long_target_loses_its_end(tiny_tokenizer):
    row = tokens(tiny_tokenizer, ["cat"], reference="cat dog bird fish sun moon star")
    assert words(tiny_tokenizer, row["target"]) == ["cat", "dog", "bird", "fish", "sun"]


def test_empty_sources_and_targets_have_no_tokens(tiny_tokenizer):
    row = tokens(tiny_tokenizer, [""], reference="")
    assert (row["source"], row["target"], row["length"]) == ([], [], 3)


@pytest.mark.parametrize(("lengths", "flag"), [((2, 6), "max_source_length"), ((12, 1), "max_target_length")])
def test_lengths_without_room_for_text_are_refused(lengths, flag, tiny_tokenizer):
    with pytest.raises(ValueError, match=f"`--{flag}` is"):
        tokens(tiny_tokenizer, ["cat"], source=lengths[0], target=lengths[1])


# ---- Scores ----


def test_equal_texts_score_one_however_their_pieces_are_put_together():
    spec = get_generation_task("qg/squad")
    found = score_generated(spec, ["what is john ' s first car ?"], [["What is John's first car?"]])
    assert list(found) == list(spec.metrics)
    assert found["bleu"] == pytest.approx(1)
    assert found["rougeL"] == pytest.approx(1)
    assert found["meteor"] > 0.99


def test_an_empty_prediction_scores_nothing():
    found = score_generated(get_generation_task("xsum"), [""], [["the cat sees a bird"]])
    assert set(found.values()) == {0.0}


def test_the_best_of_several_references_counts():
    spec = get_generation_task("dialogsum")
    alone = score_generated(spec, ["the cat sees a bird"], [["a dog sleeps"]])
    several = score_generated(spec, ["the cat sees a bird"], [["a dog sleeps", "the cat sees a bird"]])
    assert several["rouge1"] == pytest.approx(1)
    assert alone["rouge1"] < 0.5


def test_sentences_of_a_summary_are_compared_one_by_one():
    spec = GenerationSpec("mine", "{text}", "short", metrics=("rougeLsum", "rougeL"))
    found = score_generated(
        spec, ["the cat sees a bird. the dog sleeps."], [["the dog sleeps.\nthe cat sees a bird."]]
    )
    assert found["rougeLsum"] == pytest.approx(1)
    assert found["rougeL"] < 1


def test_chinese_is_scored_by_characters():
    spec = GenerationSpec("mine", "{text}", "short", metrics=("bleu", "meteor", "rougeL"), language="zh")
    found = score_generated(spec, ["猫看见一只鸟"], [["猫看见一只鸟"]])
    assert found["bleu"] == pytest.approx(1)
    assert found["rougeL"] == pytest.approx(1)
