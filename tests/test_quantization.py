"""int8 copies of frozen models: what is rounded, what is shared, and how close their signals are."""

import copy

import pytest
import torch
import transformers
from capture_cases import CASES, SIZES
from transformers import AutoConfig, AutoModel, BertForMaskedLM

from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture
from hf_distill.teachers.int8 import int8_copy

pytest.importorskip("torchao")
KINDS = {"bert", "distilbert", "albert", "modernbert", "qwen2", "mpnet", "deberta", "deberta-v2"}


def bytes_of(model):
    """Memory of all weights, each counted once."""
    found = {}
    for tensor in model.parameters():
        names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
        for part in [getattr(tensor, name) for name in names] or [tensor]:
            found[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
    return sum(found.values())


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(4, 12, dtype=torch.long)
    mask[0, 8:] = 0
    return {"input_ids": torch.randint(3, 40, (4, 12), generator=generator), "attention_mask": mask}


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in KINDS], ids=str)
@pytest.mark.parametrize("early", [True, False], ids=["early stop", "to the end"])
def test_every_signal_is_close_to_that_of_float32(case, early, batch):
    torch.manual_seed(0)
    config = AutoConfig.for_model(case.model_type, **{**SIZES, "bos_token_id": 1, "eos_token_id": 2, **case.options})
    exact = AutoModel.from_config(config).eval().requires_grad_(False)
    layers = frozenset({1, 2} if early else {1, 2, 3})
    request = SignalRequest(
        hidden_states=layers - {max(layers)} if early else layers, projections=layers, attention_scores=layers
    )
    expected, found = (SignalCapture(model, request, early_stop=early)(**batch) for model in (exact, int8_copy(exact)))
    for layer in request.hidden_states:
        assert 0 < relative_error(found.hidden_states[layer], expected.hidden_states[layer]) < 0.02
    for layer in layers:
        for side in ("query", "key", "value"):
            one, other = (getattr(signals.projections[layer], side) for signals in (found, expected))
            assert 0 < relative_error(one, other) < 0.03, side
        assert 0 < relative_error(found.attention_scores[layer], expected.attention_scores[layer]) < 0.03


def test_the_given_model_stays_as_it_is_and_shares_what_is_not_rounded(tiny_teacher):
    before = copy.deepcopy(tiny_teacher.state_dict())
    rounded = int8_copy(tiny_teacher)
    for name, tensor in tiny_teacher.state_dict().items():
        assert torch.equal(tensor, before[name])
    own, theirs = dict(tiny_teacher.named_parameters()), dict(rounded.named_parameters())
    assert own.keys() == theirs.keys()
    other = {name for name in own if theirs[name] is not own[name]}
    assert other == {name for name in own if ".layer." in name and name.endswith("weight") and own[name].dim() == 2}


def test_a_layer_takes_a_quarter_of_the_memory_in_int8(tiny_bert_config):
    torch.manual_seed(0)
    config = tiny_bert_config(hidden_size=128, intermediate_size=512)
    model = AutoModel.from_config(config)
    rounded = int8_copy(model)
    assert bytes_of(rounded.encoder) < 0.3 * bytes_of(model.encoder)
    assert bytes_of(rounded.embeddings) == bytes_of(model.embeddings)


def test_a_decoder_tied_to_the_embeddings_stays_tied(tiny_bert_config):
    rounded = int8_copy(BertForMaskedLM(tiny_bert_config()))
    assert rounded.cls.predictions.decoder.weight is rounded.bert.embeddings.word_embeddings.weight


def test_what_cannot_be_rounded_is_refused(tiny_teacher, tiny_bert_config):
    peft = pytest.importorskip("peft")
    with torch.device("meta"):
        elsewhere = AutoModel.from_config(tiny_bert_config())
    with pytest.raises(ValueError, match=r"computes on the CPU.*weights are on \['meta'\]"):
        int8_copy(elsewhere)
    with pytest.raises(ValueError, match=r"compiled teacher.*without `torch.compile`"):
        int8_copy(torch.compile(tiny_teacher, backend="eager"))
    with pytest.raises(ValueError, match=r"adapters \(LoRA\).*merge_and_unload"):
        int8_copy(peft.get_peft_model(copy.deepcopy(tiny_teacher), peft.LoraConfig(target_modules=["query"])))


def test_adapters_that_the_model_has_added_itself_are_refused(tiny_teacher):
    peft = pytest.importorskip("peft")
    try:
        tiny_teacher.add_adapter(peft.LoraConfig(target_modules=["query"]))
    except ValueError as error:
        pytest.skip(f"peft {peft.__version__} is too old for transformers {transformers.__version__}: {error}")
    with pytest.raises(ValueError, match=r"adapters \(LoRA\)"):
        int8_copy(tiny_teacher)
