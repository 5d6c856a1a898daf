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


def brute_force(start, end, features, row, longest):
    """The first of the best spans of all windows of a question: (score, start, end)."""
    spans = []
    for number, feature in enumerate(features):
        if feature["row"] != row:
            continue
        offsets = list(zip(feature["offset_starts"], feature["offset_ends"], strict=True))
        for i, j in itertools.combinations_with_replacement(range(len(offsets)), 2):
            if j - i < longest and all(offsets[k][0] >= 0 and offsets[k][1] > offsets[k][0] for k in (i, j)):
                score = float(start[number, i]) + float(end[number, j])
                spans.append((-score, number, i, j, offsets[i][0], offsets[j][1]))
    score, *_, first, after = min(spans)
    return -score, first, after


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_best_span_is_that_of_a_brute_force_over_all(seed, ties):
    generator = np.random.default_rng(seed)
    contexts = [CONTEXT, "a bb ccc", " ".join("x" * n for n in range(1, 25))]
    features = [
        window for row, context in enumerate(contexts) for window in windows_of(context, size=6, stride=3, row=row)
    ]
    random.Random(seed).shuffle(features)
    start, end = scores_for(features, generator, ties=ties, padding=3)
    longest = int(generator.integers(1, 9))
    predictions = decode_spans(start, end, features, contexts, max_answer_length=longest)
    assert [prediction.row for prediction in predictions] == [0, 1, 2]
    for row, (context, prediction) in enumerate(zip(contexts, predictions, strict=True)):
        assert prediction.span == brute_force(start, end, features, row, longest)
        assert prediction.text == context[prediction.span.start : prediction.span.end]
        assert prediction.null_score_difference is None


def test_answers_are_cut_by_characters_of_the_original_text():
    features = list(windows_of("Zhōng  guó, 北京", size=9, stride=9))
    start, end = (np.zeros((1, 7)) for _ in range(2))
    start[0, 3], end[0, 4] = 5.0, 5.0
    assert decode_spans(start, end, features, ["Zhōng  guó, 北京"])[0].text == "Zhōng  guó,"


def test_an_end_before_the_best_start_does_not_hide_the_best_valid_span():
    """The pairs of the top scores are invalid here: the best start and the best end are not enough."""
    features = list(windows_of(CONTEXT, size=10, stride=10, question=0))
    start, end = (np.zeros((1, 12)) for _ in range(2))
    start[0, 6:11], end[0, 1:6] = 9.0, 9.0
    start[0, 2] = 0.5
    assert decode_spans(start, end, features, [CONTEXT], max_answer_length=3)[0].span == (9.5, 4, 7)


def test_ties_go_to_the_earlier_window_then_the_earlier_start_then_the_shorter_span():
    features = list(windows_of("one two three", size=2, stride=1, question=0))
    zeros = np.zeros((2, 4))
    assert decode_spans(zeros, zeros, features, ["one two three"])[0].text == "one"
    later = np.zeros((2, 4))
    later[:, 2] = 1.0
    assert decode_spans(later, zeros, features, ["one two three"])[0].text == "two"
    assert decode_spans(zeros, later, features, ["one two three"])[0].text == "one two"


def test_tokens_of_one_character_are_one_place():
    """Byte-level tokenizers give the bytes of one character the same offsets."""
    context = "北京市"
    feature = {"row": 0, "offset_starts": [-1, 0, 0, 0, 1, 1, 1, 2], "offset_ends": [-1, 1, 1, 1, 2, 2, 2, 3]}
    start, end = np.zeros((1, 8)), np.zeros((1, 8))
    start[0, 1:4], end[0, 1:4] = 5.0, 5.0
    prediction = decode_spans(start, end, [feature], [context])[0]
    assert (prediction.text, prediction.span) == ("北", brute_force(start, end, [feature], 0, 30))


def test_tokens_without_characters_neither_start_nor_end_a_span():
    feature = {"row": 0, "offset_starts": [-1, 0, 3, 4], "offset_ends": [-1, 3, 3, 7]}
    start, end = np.array([[9.0, 0.0, 9.0, 1.0]]), np.array([[9.0, 0.0, 9.0, 1.0]])
    assert decode_spans(start, end, [feature], ["one two"])[0].span == (2.0, 4, 7)


def test_half_precision_scores_are_added_without_loss():
    feature = {"row": 0, "offset_starts": [0, 4], "offset_ends": [3, 7]}
    start, end = np.array([[2048.0, 2048.0]], np.float16), np.array([[0.5, 1.0]], np.float16)
    assert decode_spans(start, end, [feature], ["one two"])[0].span.score == 2049.0


@pytest.mark.parametrize("seed", range(10))
def test_the_null_score_is_the_least_cls_score_of_the_windows(seed):
    generator = np.random.default_rng(seed)
    features = list(windows_of(CONTEXT, size=4, stride=2))
    start, end = scores_for(features, generator)
    plain = decode_spans(start, end, features, [CONTEXT])[0]
    prediction = decode_spans(start, end, features, [CONTEXT], with_null=True)[0]
    null = min(float(s[0] + e[0]) for s, e in zip(start, end, strict=True))
    assert prediction.null_score_difference == pytest.approx(null - plain.span.score)
    assert prediction.text == plain.text, "the best span stays known"


def test_a_context_without_tokens_has_no_answer():
    feature = {"row": 0, "offset_starts": [-1, -1], "offset_ends": [-1, -1]}
    zeros = np.zeros((1, 2))
    assert decode_spans(zeros, zeros, [feature], [""]) == [SpanPrediction(0, "", None)]
    assert decode_spans(zeros, zeros, [feature], [""], with_null=True) == [SpanPrediction(0, "", None, math.inf)]


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
    with pytest.raises(ValueError, match="`max_answer_length` must be at least 1, got -1"):
        decode_spans(zeros, zeros, [feature], ["one"], max_answer_length=-1)
