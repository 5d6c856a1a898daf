"""Questions about a context: what is accepted, windows and where the answer lies in them, scores over windows."""

import numpy as np
import pytest
from datasets import Dataset

from hf_distill.tasks import get_task, load_task, tokenize_task
from hf_distill.tasks.rows.predictions import score_answers
from hf_distill.tasks.rows.questions import encode_questions, normalise_questions, window_stride
from hf_distill.tasks.spec import TaskSpec

SPEC = TaskSpec(
    "facts", ("question", "context"), None, label_column="answers", kind="question_answering",
    metrics=("f1", "exact_match"),
)  # fmt: skip
CONTEXT = "the cat sees a bird and the dog finds a fish by the river and the boat takes the old page"


def row(question, answer, context=CONTEXT, start=None):
    start = context.index(answer) if start is None else start
    return {"question": question, "context": context, "answers": {"text": [answer], "answer_start": [start]}}


ROWS = [row("what finds the dog", "a fish"), row("what takes the boat", "the old page"), row("it sees", "a bird")]


@pytest.fixture
def rows():
    """Three questions, normalised."""
    return normalise_questions(Dataset.from_list(ROWS), SPEC, split="train")


def gold_outputs(tokens):
    """Scores that point to the labels of every window that holds the answer, and nowhere in the others."""
    width = max(tokens["length"])
    sides = []
    for name in ("start_positions", "end_positions"):
        scores = np.zeros((len(tokens), width))
        for number, place in enumerate(tokens[name]):
            scores[number, place] = 10.0 if place else 0.0
        sides.append(scores)
    return sides


def test_windows_cover_the_context_and_hold_the_answer(rows, tiny_tokenizer):
    tokens = tokenize_task(rows, SPEC, tiny_tokenizer, 16, doc_stride=4)
    assert len(tokens) > len(rows)
    seen = {number: set() for number in range(len(rows))}
    for window in tokens:
        context = rows[window["row"]]["context"]
        places = zip(window["offset_starts"], window["offset_ends"], strict=True)
        seen[window["row"]] |= {c for a, b in places if a >= 0 for c in range(a, b)}
        if window["start_positions"]:
            first, last = window["start_positions"], window["end_positions"]
            found = context[window["offset_starts"][first] : window["offset_ends"][last]]
            assert found == rows[window["row"]]["answers"]["text"][0]
        else:
            assert window["end_positions"] == 0
    letters = {place for place, letter in enumerate(CONTEXT) if letter != " "}
    assert all(covered == letters for covered in seen.values())
    assert {window["row"] for window in tokens if window["start_positions"]} == {0, 1, 2}


def test_an_answer_that_a_window_cuts_is_not_in_it(tiny_tokenizer):
    long_answer = row("it sees", "cat sees a bird and the dog finds a fish by")
    batch = {name: [value] for name, value in long_answer.items()}
    encoded = encode_questions(batch, [0], SPEC, tiny_tokenizer, 12, 2)
    assert len(encoded["row"]) > 2
    assert set(encoded["start_positions"]) == set(encoded["end_positions"]) == {0}


def test_right_scores_give_the_answers_whatever_the_windows(rows, tiny_tokenizer):
    for length, stride in ((64, None), (16, 4), (18, 0)):
        tokens = tokenize_task(rows, SPEC, tiny_tokenizer, length, doc_stride=stride)
        for part in (tokens, tokens.select(list(reversed(range(len(tokens)))))):
            assert score_answers(SPEC, rows, part, *gold_outputs(part)) == {"f1": 1.0, "exact_match": 1.0}


def test_a_long_question_leaves_half_of_the_window(tiny_tokenizer):
    batch = {"question": ["the cat " * 40], "context": [CONTEXT], "answers": [ROWS[0]["answers"]]}
    encoded = encode_questions(batch, [0], SPEC, tiny_tokenizer, 20, 2)
    for starts in encoded["offset_starts"]:
        assert sum(start >= 0 for start in starts) >= 3
    assert max(encoded["length"]) <= 20


def test_training_rows_with_a_misplaced_answer_are_left_out_and_others_kept(caplog):
    rows = Dataset.from_list([*ROWS, row("where", "the river", start=3)])
    assert len(normalise_questions(rows, SPEC, split="train")) == 3
    assert len(normalise_questions(rows, SPEC, split="validation")) == 4


def test_a_question_without_an_answer_stays_and_points_to_the_first_token(tiny_tokenizer):
    nothing = {**ROWS[0], "answers": {"text": [], "answer_start": []}}
    rows = normalise_questions(Dataset.from_list([ROWS[1], nothing]), SPEC, split="train")
    tokens = tokenize_task(rows, SPEC, tiny_tokenizer, 64)
    assert tokens[1]["start_positions"] == tokens[1]["end_positions"] == 0


def test_answers_of_another_form_are_refused():
    rows = Dataset.from_list([{"question": "q", "context": "c", "answers": "c"}])
    with pytest.raises(ValueError, match="'answers' must hold lists `text` and `answer_start`"):
        normalise_questions(rows, SPEC, split="train")


@pytest.mark.parametrize("stride", [-1, 200])
def test_a_stride_without_room_for_new_tokens_is_refused(stride):
    with pytest.raises(ValueError, match=r"`--doc_stride` is .*; with `--max_length` 128"):
        window_stride(SPEC, 128, stride, 3)


def test_the_tasks_stride_gives_way_to_short_windows():
    assert window_stride(get_task("squad"), 384, None, 3) == 128
    assert window_stride(get_task("squad"), 128, None, 3) < 64


def test_a_task_of_answers_has_no_classes():
    with pytest.raises(ValueError, match="question answering has no classes"):
        TaskSpec("x", ("question", "context"), ("a", "b"), kind="question_answering", metrics=("f1",))
    with pytest.raises(ValueError, match="two columns, question and context"):
        TaskSpec("x", ("question",), None, kind="question_answering", metrics=("f1",))


def test_a_folder_of_the_user_is_read(tmp_path):
    for split in ("train", "validation"):
        Dataset.from_list(ROWS).to_json(tmp_path / f"{split}.jsonl")
    (tmp_path / "task.yaml").write_text("kind: question_answering\ntext_columns: [question, context]\n")
    task = load_task(str(tmp_path))
    assert (task.spec.label_column, task.spec.headline) == ("answers", "f1")
    assert task.train[0]["answers"] == {"text": ["a fish"], "answer_start": [CONTEXT.index("a fish")]}


def test_answers_that_are_null_are_none_and_said_to_be(caplog):
    rows = [{**ROWS[0], "answers": None}, ROWS[1]]
    found = normalise_questions(Dataset.from_list(rows), SPEC, split="train")
    assert found["answers"][:] == [{"text": [], "answer_start": []}, ROWS[1]["answers"]]
    assert "1 rows of split 'train' have no 'answers' (null)" in caplog.text
    none = normalise_questions(Dataset.from_list([rows[0]] * 2), SPEC, split="validation")
    assert none["answers"][:] == [{"text": [], "answer_start": []}] * 2
    half = Dataset.from_list([{**ROWS[0], "answers": {"text": ["a fish"], "answer_start": None}}, ROWS[1]])
    with pytest.raises(ValueError, match=r"'answers' must hold an `answer_start` for every `text`, but row 0 has"):
        normalise_questions(half, SPEC, split="train")
