"""Rows that teach an encoder to write, and who sees whom in them."""

import pytest
import torch

from hf_distill.generation.packing import IGNORED, KEPT, RANDOM, SpecialIds, attention_bias, pack

CLS, SEP, MASK, PAD = 2, 3, 4, 0
IDS = SpecialIds(begin=CLS, separator=SEP, mask=MASK, pad=PAD, vocabulary_size=50)
LENGTHS = {"max_source_length": 10, "max_target_length": 5}


def seen(batch, row=0):
    """The (query, key) pairs of a row in which the query sees the key."""
    return (batch["attention_mask"][row, 0] == 0).nonzero().tolist()


def test_a_pseudo_masked_row_has_the_source_the_target_and_a_mask_per_predicted_token():
    batch = pack("pseudo", [[11, 12]], [[21, 22]], IDS, **LENGTHS)
    assert batch["input_ids"].tolist() == [[CLS, 11, 12, SEP, 21, 22, MASK, MASK, MASK]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 4, 5, 6]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[*[IGNORED] * 6, 21, 22, SEP]]


def test_a_mask_sees_the_source_the_true_tokens_before_it_and_itself():
    batch = pack("pseudo", [[11]], [[21, 22]], IDS, **LENGTHS)
    source, first, second, masks = [0, 1, 2], 3, 4, [5, 6, 7]
    expected = [[query, key] for query in source for key in source]
    expected += [[first, key] for key in [*source, first]]
    expected += [[second, key] for key in [*source, first, second]]
    expected += [[masks[0], key] for key in [*source, masks[0]]]
    expected += [[masks[1], key] for key in [*source, first, masks[1]]]
    expected += [[masks[2], key] for key in [*source, first, second, masks[2]]]
    assert seen(batch) == expected


def test_in_a_shifted_row_each_token_predicts_the_next_beginning_with_the_separator():
    batch = pack("shift", [[11, 12]], [[21, 22]], IDS, **LENGTHS)
    assert batch["input_ids"].tolist() == [[CLS, 11, 12, SEP, 21, 22]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, IGNORED, 21, 22, SEP]]
    assert all(key <= max(query, 3) for query, key in seen(batch))
    assert [3, 4] not in seen(batch)
    assert [4, 3] in seen(batch)
    assert [4, 5] not in seen(batch)


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_the_mask_is_a_float_that_is_added(way):
    mask = pack(way, [[11, 12]], [[21]], IDS, **LENGTHS)["attention_mask"]
    assert mask.dtype == torch.float32
    assert mask.shape[1] == 1
    assert set(mask.unique().tolist()) == {0.0, torch.finfo(torch.float32).min}


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_a_padded_row_is_the_row_alone(way):
    pair = pack(way, [[11], [12, 13, 14]], [[21, 22], [23]], IDS, **LENGTHS)
    alone = pack(way, [[11]], [[21, 22]], IDS, **LENGTHS)
    length = alone["input_ids"].shape[1]
    for name in ("input_ids", "position_ids", "token_type_ids", "labels"):
        assert pair[name][0, :length].tolist() == alone[name][0].tolist(), name
    assert torch.equal(pair["attention_mask"][0, :, :length, :length], alone["attention_mask"][0])
    assert pair["input_ids"][0, length:].eq(PAD).all()
    fills = range(length, pair["input_ids"].shape[1])
    assert [pair_seen for pair_seen in seen(pair) if pair_seen[0] in fills or pair_seen[1] in fills] == [
        [fill, fill] for fill in fills
    ]


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_long_sources_and_targets_are_cut_and_keep_their_separators(way):
    batch = pack(way, [[11] * 20], [[21] * 20], IDS, max_source_length=6, max_target_length=3)
    tokens, labels = batch["input_ids"][0].tolist(), batch["labels"][0]
    assert tokens[:6] == [CLS, 11, 11, 11, 11, SEP]
    assert labels[labels != IGNORED].tolist() == [21, 21, SEP]
    assert batch["position_ids"].max() < 6 + 3


@pytest.mark.parametrize(("way", "tokens"), [("pseudo", [CLS, SEP, MASK]), ("shift", [CLS, SEP])])
def test_an_empty_pair_still_predicts_the_end(way, tokens):
    batch = pack(way, [[]], [[]], IDS, **LENGTHS)
    assert batch["input_ids"].tolist() == [tokens]
    assert batch["labels"][0, -1] == SEP


def test_noise_keeps_a_tenth_of_the_masks_true_and_makes_a_tenth_random():
    target = [20 + i % 20 for i in range(400)]
    options = {"max_source_length": 10, "max_target_length": 500}
    clean = pack("pseudo", [[11]] * 20, [target] * 20, IDS, **options)
    noisy = pack("pseudo", [[11]] * 20, [target] * 20, IDS, **options, noise=torch.Generator().manual_seed(0))
    learnt = clean["labels"] != IGNORED
    assert torch.equal(clean["input_ids"][~learnt], noisy["input_ids"][~learnt])
    tokens, labels = noisy["input_ids"][learnt], clean["labels"][learnt]
    by_chance = RANDOM / IDS.vocabulary_size
    assert (tokens == labels).float().mean().item() == pytest.approx(KEPT + by_chance, abs=0.015)
    assert (tokens == MASK).float().mean().item() == pytest.approx(1 - KEPT - RANDOM + by_chance, abs=0.015)


def test_noise_is_that_of_its_generator():
    def draw(seed):
        noise = torch.Generator().manual_seed(seed)
        return pack("pseudo", [[11]], [[*range(20, 50)]], IDS, max_source_length=5, max_target_length=40, noise=noise)

    assert torch.equal(draw(1)["input_ids"], draw(1)["input_ids"])
    assert not torch.equal(draw(1)["input_ids"], draw(2)["input_ids"])


def test_the_bias_has_the_smallest_number_of_its_type():
    bias = attention_bias(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), torch.bfloat16)
    assert bias.tolist() == [[[[0.0, torch.finfo(torch.bfloat16).min], [0.0, 0.0]]]]


def test_special_ids_come_from_the_tokenizer(tiny_tokenizer):
    assert SpecialIds.from_tokenizer(tiny_tokenizer) == SpecialIds(CLS, SEP, MASK, PAD, len(tiny_tokenizer))


def test_a_vocabulary_with_gaps_ends_behind_its_last_token():
    class Tokenizer:
        cls_token_id, sep_token_id, mask_token_id, pad_token_id = 1, 2, 3, 0

        def get_vocab(self):
            return {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3, "far": 9}

    assert SpecialIds.from_tokenizer(Tokenizer()).vocabulary_size == 10


def test_a_tokenizer_without_a_mask_is_refused():
    class Tokenizer:
        cls_token_id, sep_token_id, pad_token_id = 1, 2, 3

    with pytest.raises(ValueError, match=r"Tokenizer has no mask_token: generation needs"):
        SpecialIds.from_tokenizer(Tokenizer())


@pytest.mark.parametrize(
    ("way", "sources", "lengths", "message"),
    [
        ("causal", [[11]], LENGTHS, "`way` is 'causal', but must be one of pseudo, shift"),
        ("pseudo", [[11], [12]], LENGTHS, "2 sources but 1 targets"),
        ("shift", [[11]], {**LENGTHS, "max_source_length": 2}, "`max_source_length` is 2, but must be at least 3"),
        ("shift", [[11]], {**LENGTHS, "max_target_length": 0}, "`max_target_length` is 0, but must be at least 1"),
    ],
)
def test_what_cannot_be_packed_is_refused(way, sources, lengths, message):
    with pytest.raises(ValueError, match=message):
        pack(way, sources, [[21]], IDS, **lengths)
