"""A batch brings along what the host knows of it, and models with it give the very numbers that they give without."""

import copy
import pickle

import pytest
import torch
from transformers import BertModel, GPT2Config, GPT2Model, ModernBertConfig, ModernBertModel

from hf_distill.capture import transformer
from hf_distill.capture.batch import (
    Batch,
    KnowingCollator,
    facts_of,
    has_padding,
    on_host,
    reading,
    shown_cells,
    shown_places,
    take_rows,
)
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture

PADDED = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
FULL = torch.ones(3, 5, dtype=torch.long)


def arrived(**values):
    """A batch as a loader hands it to a trainer."""
    return KnowingCollator(lambda rows: values)([]).to("cpu")


def test_facts_are_those_of_the_numbers():
    labels = torch.tensor([[-100, 3, 0], [1, -100, -1]])
    batch = arrived(
        attention_mask=PADDED,
        teacher0_attention_mask=FULL,
        labels=labels,
        teacher_id=torch.tensor([2, 0, 2]),
        name="as it is",
        scores=torch.ones(3),
    )
    assert facts_of(batch["attention_mask"]).has_padding
    assert facts_of(batch["teacher0_attention_mask"]).has_padding is False
    assert facts_of(batch["labels"]).num_shown == 3
    assert facts_of(batch["teacher_id"]).counts == {0: 1, 2: 2}
    assert batch["name"] == "as it is"
    assert facts_of(batch["scores"]).has_padding is None
    assert on_host(batch["scores"]) is batch["scores"]
    assert facts_of(batch["scores"]).on_host is None


def test_facts_travel_from_workers_and_through_pinned_memory():
    made = KnowingCollator(lambda rows: {"attention_mask": PADDED})([])
    for one in (pickle.loads(pickle.dumps(made)), copy.copy(made), Batch(made)):
        one.update({"attention_mask": one["attention_mask"].clone()})
        assert facts_of(one.to("cpu")["attention_mask"]).has_padding


def test_a_tensor_that_was_changed_is_not_known():
    mask = arrived(attention_mask=FULL.clone())["attention_mask"]
    assert facts_of(mask).has_padding is False
    mask[0, -1] = 0
    assert facts_of(mask).has_padding is None
    assert facts_of(mask.clone()).has_padding is None


def test_what_is_no_batch_of_names_stays_as_it_is():
    assert KnowingCollator(lambda rows: (1, 2))([]) == (1, 2)
    assert KnowingCollator(lambda rows: {1: 2})([]) == {1: 2}


def test_rows_of_a_batch_have_no_padding_that_it_has_not():
    rows = torch.tensor([2])
    assert facts_of(take_rows(arrived(attention_mask=FULL)["attention_mask"], rows)).has_padding is False
    # It may have some, for all that is known.
    assert facts_of(take_rows(arrived(attention_mask=PADDED)["attention_mask"], rows)).has_padding is True


@pytest.mark.parametrize("known", [True, False])
def test_places_of_labels(known):
    labels = torch.tensor([[-100, 3, 0], [1, -100, -1]])
    labels = arrived(labels=labels)["labels"] if known else labels
    assert shown_places(labels).tolist() == [1, 2, 3]
    rows, columns = shown_cells(labels)
    assert (rows.tolist(), columns.tolist()) == ([0, 0, 1], [1, 2, 0])
    nothing = arrived(labels=torch.full((2, 3), -100))["labels"]
    assert shown_places(nothing).tolist() == []


MODELS = {
    "bert": lambda config: BertModel(config()),
    "modernbert": lambda config: ModernBertModel(
        ModernBertConfig(
            vocab_size=100, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
            local_attention=2, global_attn_every_n_layers=2, pad_token_id=0, cls_token_id=1, sep_token_id=2,
        )
    ),
    "gpt2": lambda config: GPT2Model(GPT2Config(vocab_size=100, n_embd=24, n_layer=2, n_head=4, n_positions=32)),
}  # fmt: skip


@pytest.mark.parametrize("mask", [PADDED, FULL], ids=["padded", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_same_numbers_and_asks_nothing(name, mask, tiny_bert_config, monkeypatch):
    torch.manual_seed(0)
    model = MODELS[name](tiny_bert_config).eval()
    model.set_attn_implementation("sdpa")
    ids = torch.arange(5, 20).reshape(3, 5)
    expected = model(input_ids=ids, attention_mask=mask.clone()).last_hidden_state
    batch = arrived(input_ids=ids, attention_mask=mask)
    capture = SignalCapture(model, SignalRequest(hidden_states=frozenset({2})))
    asked = []

    original = torch.Tensor.all
    monkeypatch.setattr(torch.Tensor, "all", lambda self, *args, **kwargs: (asked.append(1), original(self))[1])
    found = capture.run(**batch)[0].hidden_states[2]
    with reading(batch["attention_mask"]):
        direct = model(**batch).last_hidden_state
    assert not asked
    torch.testing.assert_close(direct, expected, rtol=0, atol=0)
    assert found.shape == expected.shape


def test_a_mask_of_ones_own_is_read(tiny_bert_config):
    """Only the tensor that came with the batch is known, whatever its shape."""
    torch.manual_seed(0)
    model = BertModel(tiny_bert_config()).eval()
    ids = torch.arange(5, 20).reshape(3, 5)
    batch = arrived(input_ids=ids, attention_mask=FULL)
    capture = SignalCapture(model, SignalRequest(hidden_states=frozenset({3})))
    own = capture(input_ids=batch["input_ids"], attention_mask=PADDED).hidden_states[3]
    torch.testing.assert_close(own, capture(input_ids=ids, attention_mask=PADDED).hidden_states[3], rtol=0, atol=0)
    assert not torch.allclose(own, capture(**batch).hidden_states[3])


def test_outside_of_a_pass_nothing_is_known():
    mask = arrived(attention_mask=FULL)["attention_mask"]
    assert has_padding(FULL.bool()) is None
    with reading(mask):
        assert has_padding(FULL.bool()) is False
        assert has_padding(FULL[:, :3]) is None
        with reading(None):
            assert has_padding(FULL) is None
    assert has_padding(FULL) is None
    with reading(arrived(attention_mask=FULL[:, None])["attention_mask"]):  # choices
        assert has_padding(FULL) is False


def test_the_mask_is_that_of_transformers():
    sizes = {"batch_size": 3, "q_length": 5, "kv_length": 5, "mask_function": lambda b, h, q, k: k >= 0}
    sizes |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": True, "device": torch.device("cpu")}
    for mask in (PADDED, FULL):
        expected = transformer.sdpa_mask(**sizes, attention_mask=mask.bool())
        with reading(arrived(attention_mask=mask)["attention_mask"]):
            found = transformer.known_mask(**sizes, attention_mask=mask.bool())
        assert (found is None) == (expected is None) == (mask is FULL)
        assert found is None or torch.equal(found, expected)
