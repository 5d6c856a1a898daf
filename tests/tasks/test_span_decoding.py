"""Spans are the best of all valid ones, cut from the context by their characters."""

import itertools
import math
import random

import numpy as np
import pytest

from hf_distill.tasks.rows.span_decoding import SpanPrediction, decode_spans

CONTEXT = "one two three four five six seven eight nine ten"


def windows_of(context, *, size, stride, row=0, question=2):
    """Windows as a tokenizer makes them: [CLS], a question, words of the context, [SEP]."""
    starts = [i for i, c in enumerate(context) if c != " " and (i == 0 or context[i - 1] == " ")]
    ends = [i + len(context[i:].split(" ")[0]) for i in starts]
    outside = [-1] * (1 + question)
    for first in range(0, max(1, len(starts) - size + stride), stride):
        chosen = slice(first, first + size)
        yield {
            "row": row,
            "offset_starts": [*outside, *starts[chosen], -1],
            "offset_ends": [*outside, *ends[chosen], -1],
        }


def scores_for(features, generator, *, ties=False, padding=0):
    """Random scores, (N, T); `ties` makes many equal, `padding` adds columns with scores that would win."""
    width = max(len(feature["offset_starts"]) for feature in features) + padding
    shape = (2, len(features), width)
    scores = generator.integers(0, 3, shape).astype(np.float32) if ties else generator.normal(size=shape) * 4
    for number, feature in enumerate(features):
        scores[:, number, len(feature["offset_starts"]) :] = 1000.0
    return scores[0], scores[1]


def brute_force(start, end, features, row, n_best, longest):
    """All spans of all windows of a question, sorted, the first of equal ones kept: (score, start, end)."""
    spans = []
    for number, feature in enumerate(features):
        if feature["row"] != row:
            continue
        offsets = list(zip(feature["offset_starts"], feature["offset_ends"], strict=True))
        for i, j in itertools.combinations_with_replacement(range(len(offsets)), 2):
            if j - i < longest and all(offsets[k][0] >= 0 and offsets[k][1] > offsets[k][0] for k in (i, j)):
                score = float(start[number, i]) + float(end[number, j])
                spans.append((-score, number, i, j, offsets[i][0], offsets[j][1]))
    best = {}
    for score, _, _, _, first, after in sorted(spans):
        best.setdefault((first, after), -score)
    return [(score, *span) for span, score in list(best.items())[:n_best]]


def found(prediction):
    return [(candidate.score, candidate.start, candidate.end) for candidate in prediction.candidates]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_n_best_list_equals_a_brute_force_over_all_spans(seed, ties):
    generator = np.random.default_rng(seed)
    contexts = [CONTEXT, "a bb ccc", " ".join("x" * n for n in range(1, 25))]
    features = [
        window for row, context in enumerate(contexts) for window in windows_of(context, size=6, stride=3, row=row)
    ]
    random.Random(seed).shuffle(features)
    start, end = scores_for(features, generator, ties=ties, padding=3)
    n_best, longest = int(generator.integers(1, 40)), int(generator.integers(1, 9))
    predictions = decode_spans(start, end, features, contexts, n_best=n_best, max_answer_length=longest)
    assert [prediction.row for prediction in predictions] == [0, 1, 2]
    for row, (context, prediction) in enumerate(zip(contexts, predictions, strict=True)):
        assert found(prediction) == brute_force(start, end, features, row, n_best, longest)
        assert prediction.text == prediction.candidates[0].text
        assert all(candidate.text == context[candidate.start : candidate.end] for candidate in prediction.candidates)
        assert sum(candidate.probability for candidate in prediction.candidates) == pytest.approx(1.0)


def test_answers_are_cut_by_characters_of_the_original_text():
    features = list(windows_of("Zhōng  guó, 北京", size=9, stride=9))
    start, end = (np.zeros((1, 7)) for _ in range(2))
    start[0, 3], end[0, 4] = 5.0, 5.0
    assert decode_spans(start, end, features, ["Zhōng  guó, 北京"])[0].text == "Zhōng  guó,"


def test_probabilities_are_the_softmax_of_the_scores_of_the_list():
    features = list(windows_of("one two", size=2, stride=2, question=0))
    start, end = np.array([[0.0, 1.0, 2.0, 0.0]]), np.array([[0.0, 0.5, 0.25, 0.0]])
    prediction = decode_spans(start, end, features, ["one two"])[0]
    assert found(prediction) == [(2.25, 4, 7), (1.5, 0, 3), (1.25, 0, 7)]
    weights = [math.exp(score) for score in (2.25, 1.5, 1.25)]
    shares = [candidate.probability for candidate in prediction.candidates]
    assert shares == pytest.approx([weight / sum(weights) for weight in weights])
    assert prediction.null_score is None
    assert prediction.null_score_difference is None
    assert prediction.no_answer_probability == 0.0
    assert prediction.answer() == "two"


def test_an_end_before_the_best_start_does_not_hide_the_best_valid_span():
    """The pairs of the top scores are invalid here, which a list of top starts and ends would not survive."""
    features = list(windows_of(CONTEXT, size=10, stride=10, question=0))
    start, end = (np.zeros((1, 12)) for _ in range(2))
    start[0, 6:11], end[0, 1:6] = 9.0, 9.0
    start[0, 2] = 0.5
    best = decode_spans(start, end, features, [CONTEXT], n_best=2, max_answer_length=3)[0]
    assert found(best)[0] == (9.5, 4, 7)


def test_ties_go_to_the_earlier_window_then_the_earlier_start_then_the_shorter_span():
    features = list(windows_of("one two three", size=2, stride=1, question=0))
    zeros = np.zeros((2, 4))
    prediction = decode_spans(zeros, zeros, features, ["one two three"])[0]
    assert [candidate.text for candidate in prediction.candidates] == ["one", "one two", "two", "two three", "three"]


def test_a_span_of_two_windows_counts_once_with_its_best_score():
    features = list(windows_of("one two three", size=2, stride=1, question=0))
    start, end = np.zeros((2, 4)), np.zeros((2, 4))
    start[0, 2], start[1, 1] = 3.0, 4.0
    prediction = decode_spans(start, end, features, ["one two three"])[0]
    assert [candidate.score for candidate in prediction.candidates if candidate.text == "two"] == [4.0]


def test_tokens_of_one_character_leave_the_list_full():
    """Byte-level tokenizers give the bytes of one character the same offsets."""
    context = "北京市"
    feature = {"row": 0, "offset_starts": [-1, 0, 0, 0, 1, 1, 1, 2], "offset_ends": [-1, 1, 1, 1, 2, 2, 2, 3]}
    start, end = np.zeros((1, 8)), np.zeros((1, 8))
    start[0, 1:4], end[0, 1:4] = 5.0, 5.0
    prediction = decode_spans(start, end, [feature], [context], n_best=4)[0]
    assert found(prediction) == brute_force(start, end, [feature], 0, 4, 30)
    assert [candidate.text for candidate in prediction.candidates] == ["北", "北京", "北京市", "京"]


def test_tokens_without_characters_neither_start_nor_end_a_span():
    feature = {"row": 0, "offset_starts": [-1, 0, 3, 4], "offset_ends": [-1, 3, 3, 7]}
    start, end = np.array([[9.0, 0.0, 9.0, 1.0]]), np.array([[9.0, 0.0, 9.0, 1.0]])
    prediction = decode_spans(start, end, [feature], ["one two"])[0]
    assert [candidate.text for candidate in prediction.candidates] == ["two", "one two", "one"]


def test_half_precision_scores_are_added_without_loss():
    feature = {"row": 0, "offset_starts": [0, 4], "offset_ends": [3, 7]}
    start, end = np.array([[2048.0, 2048.0]], np.float16), np.array([[0.5, 1.0]], np.float16)
    assert decode_spans(start, end, [feature], ["one two"])[0].candidates[0].score == 2049.0


@pytest.mark.parametrize("seed", range(10))
def test_the_null_score_is_the_least_cls_score_of_the_windows(seed):
    generator = np.random.default_rng(seed)
    features = list(windows_of(CONTEXT, size=4, stride=2))
    start, end = scores_for(features, generator)
    plain = decode_spans(start, end, features, [CONTEXT], n_best=5)[0]
    prediction = decode_spans(start, end, features, [CONTEXT], n_best=5, with_null=True)[0]
    null = min(float(s[0] + e[0]) for s, e in zip(start, end, strict=True))
    assert prediction.null_score == pytest.approx(null)
    assert prediction.null_score_difference == pytest.approx(null - plain.candidates[0].score)
    assert prediction.text == plain.text, "the best span stays known"
    with_null = sorted([*found(plain), (null, 0, 0)], key=lambda entry: -entry[0])
    assert [entry[0] for entry in found(prediction)] == pytest.approx([entry[0] for entry in with_null])
    assert sum(candidate.probability for candidate in prediction.candidates) == pytest.approx(1.0)
    assert prediction.no_answer_probability == pytest.approx(1 / (1 + math.exp(-prediction.null_score_difference)))


def test_nothing_is_answered_above_the_threshold():
    prediction = SpanPrediction(0, "two", (), null_score=3.0, null_score_difference=0.5)
    assert prediction.answer() == ""
    assert prediction.answer(null_threshold=0.5) == "two"
    assert SpanPrediction(0, "two", (), 3.0, 0.0).answer() == "two"


def test_a_context_without_tokens_has_no_answer():
    feature = {"row": 0, "offset_starts": [-1, -1], "offset_ends": [-1, -1]}
    zeros = np.zeros((1, 2))
    assert decode_spans(zeros, zeros, [feature], [""]) == [SpanPrediction(0, "", ())]
    prediction = decode_spans(zeros, zeros, [feature], [""], with_null=True)[0]
    assert (prediction.answer(1e9), prediction.null_score_difference) == ("", math.inf)
    assert prediction.no_answer_probability == 1.0
    assert found(prediction) == [(0.0, 0, 0)]


def test_padding_does_not_change_the_answers():
    features = list(windows_of(CONTEXT, size=4, stride=2))
    start, end = scores_for(features, np.random.default_rng(0))
    padded = [np.pad(scores, ((0, 0), (0, 7)), constant_values=np.nan) for scores in (start, end)]
    plain = decode_spans(start, end, features, [CONTEXT], with_null=True)
    assert decode_spans(*padded, features, [CONTEXT], with_null=True) == plain


def test_what_does_not_fit_is_an_error():
    feature = {"row": 0, "offset_starts": [-1, 0], "offset_ends": [-1, 3]}
    zeros = np.zeros((1, 2))
    with pytest.raises(ValueError, match="for 2 windows"):
        decode_spans(zeros, zeros, [feature, feature], ["one"])
    with pytest.raises(ValueError, match=r"Start scores \(1, 2\) and end scores \(1, 3\)"):
        decode_spans(zeros, np.zeros((1, 3)), [feature], ["one"])
    with pytest.raises(ValueError, match="Window 0 has 2 starts and 2 ends of tokens for 1 scores"):
        decode_spans(zeros[:, :1], zeros[:, :1], [feature], ["one"])
    with pytest.raises(ValueError, match="row 1, but there are 1 contexts"):
        decode_spans(zeros, zeros, [feature | {"row": 1}], ["one"])
    with pytest.raises(ValueError, match="1 of 2 contexts have no window, the first is row 1"):
        decode_spans(zeros, zeros, [feature], ["one", "two"])
    with pytest.raises(ValueError, match="window 0 are not finite: the training diverged"):
        decode_spans(zeros * np.nan, zeros, [feature], ["one"])
    with pytest.raises(ValueError, match="`n_best` must be at least 1, got 0"):
        decode_spans(zeros, zeros, [feature], ["one"], n_best=0)
    with pytest.raises(ValueError, match="`max_answer_length` must be at least 1, got -1"):
        decode_spans(zeros, zeros, [feature], ["one"], max_answer_length=-1)
