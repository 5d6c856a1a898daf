"""Students that are no transformers: the BiGRU, and any module through the adapter."""

import copy

import pytest
import torch
from torch import nn
from trainings import logged, trained
from transformers import BertForTokenClassification, set_seed

from hf_distill.capture.architectures import UnsupportedArchitectureError
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import capture_of
from hf_distill.hub.loading import load_model
from hf_distill.hub.model_card import read_facts
from hf_distill.students.plain_module import ModuleStudent, as_student
from hf_distill.students.recurrent import BiGRUConfig, BiGRUForSequenceClassification, create_bigru
from hf_distill.students.sizes import count_parameters, size_table

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.fixture
def bigru(tiny_teacher):
    return create_bigru(tiny_teacher, hidden_size=20, num_hidden_layers=2).eval()


@pytest.fixture
def build(make_trainer, tiny_teacher, rows):
    """`build(student, **arguments)`: a trainer from the tiny teacher."""
    given = {"max_steps": 6, "learning_rate": 1e-2, "train_sampling_strategy": "group_by_length"}

    def make(student, teacher=tiny_teacher, **arguments):
        return make_trainer(teacher, student=student, copies=False, train_dataset=rows, **given | arguments)

    return make


def plain_bigru(model, ids):
    """One row without padding through torch's own bidirectional GRU, layer after layer."""
    states = model.embeddings(ids[None])
    shown = [states]
    for layer in model.layers:
        both = nn.GRU(layer.forwards.input_size, layer.forwards.hidden_size, batch_first=True, bidirectional=True)
        with torch.no_grad():
            for name, parameter in layer.forwards.named_parameters():
                getattr(both, name).copy_(parameter)
                getattr(both, f"{name}_reverse").copy_(dict(layer.backwards.named_parameters())[name])
        states = both(states)[0]
        shown.append(states)
    return shown


def test_the_bigru_is_torchs_own(bigru):
    capture = capture_of(bigru, SignalRequest(logits=True, hidden_states=frozenset({0, 1, 2})))
    signals = capture(input_ids=IDS, attention_mask=MASK)
    for row, length in enumerate(MASK.sum(1).tolist()):
        expected = plain_bigru(bigru, IDS[row, :length])
        for layer, states in enumerate(expected):
            torch.testing.assert_close(signals.hidden_states[layer][row, :length], states[0])
        torch.testing.assert_close(signals.logits["logits"][row], bigru.classifier(expected[-1][0].mean(0)))


def test_padding_on_either_side_changes_nothing(bigru):
    alone = bigru(IDS[1:, :2], MASK[1:, :2]).logits
    torch.testing.assert_close(bigru(IDS, MASK).logits[1:], alone)
    left_ids, left_mask = torch.tensor([[0, 0, 9, 10]]), torch.tensor([[0, 0, 1, 1]])
    torch.testing.assert_close(bigru(left_ids, left_mask).logits, alone)


def test_it_begins_with_the_teachers_words_and_names(bigru, tiny_teacher):
    assert torch.equal(bigru.embeddings.weight, tiny_teacher.get_input_embeddings().weight)
    assert bigru.config.id2label == tiny_teacher.config.id2label
    count = count_parameters(bigru)
    assert count.embeddings == bigru.embeddings.weight.numel()
    assert count.head == sum(p.numel() for p in bigru.classifier.parameters())
    assert "| student | 2x20 |" in size_table(tiny_teacher, bigru)


def test_the_same_seed_makes_the_same_weights(bigru, tiny_teacher):
    torch.rand(3)
    again = create_bigru(tiny_teacher, hidden_size=20, num_hidden_layers=2)
    assert all(torch.equal(one, other) for one, other in zip(bigru.parameters(), again.parameters(), strict=True))


def test_it_learns_from_a_transformer_and_loads_again(build, bigru, tmp_path):
    trainer = trained(build(bigru, objectives=["logits", "labels:0.5"], max_steps=16))
    assert sum(logged(trainer)[-4:]) < sum(logged(trainer)[:4])
    trainer.save_model()
    trainer.create_model_card()
    loaded = load_model(str(tmp_path / "run"), flag="--student_model").eval()
    assert type(loaded) is BiGRUForSequenceClassification
    torch.testing.assert_close(loaded(IDS, MASK).logits, bigru.eval()(IDS, MASK).logits)
    assert read_facts(tmp_path / "run").student.num_heads is None


def test_a_resumed_run_continues_bit_for_bit(build, bigru):
    whole = trained(build(copy.deepcopy(bigru), objectives=["logits"], save_strategy="steps", save_steps=3))
    resumed = trained(build(copy.deepcopy(bigru), objectives=["logits"]), f"{whole.args.output_dir}/checkpoint-3")
    assert logged(resumed) == logged(whole)


def test_tokens_are_labelled_too(build, tiny_bert_config):
    set_seed(0)
    teacher = BertForTokenClassification(tiny_bert_config(num_labels=3)).eval()
    student = create_bigru(teacher, hidden_size=20)
    assert student(IDS, MASK).logits.shape == (2, 4, 3)
    trainer = trained(build(student, teacher, objectives=["logits"]))
    assert logged(trainer)[-1] < logged(trainer)[0]


def test_its_loss_is_the_tasks_own(bigru):
    gold = torch.tensor([1, 0])
    output = bigru(IDS, MASK, labels=gold)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, gold))


@pytest.mark.parametrize("objective", ["relation", "minilm"])
def test_what_needs_attention_says_so(build, bigru, objective):
    with pytest.raises(UnsupportedArchitectureError, match=r"BiGRU.*has no attention.*logits and hidden states can"):
        build(bigru, objectives=[objective])


def test_a_layer_that_is_not_there_is_refused(bigru):
    with pytest.raises(ValueError, match=r"layers \[3\] do not exist.*layers 0 \(embeddings\) to 2"):
        capture_of(bigru, SignalRequest(hidden_states=frozenset({3})))


def test_odd_widths_and_other_heads_are_refused(tiny_teacher):
    with pytest.raises(ValueError, match="`hidden_size` is 21; two directions"):
        BiGRUConfig(hidden_size=21)
    with pytest.raises(ValueError, match="head for sequences or tokens, the teacher is BertModel"):
        create_bigru(tiny_teacher.base_model)


class BagOfWords(nn.Module):
    """The mean of word vectors, classified."""

    def __init__(self, vocab_size):
        super().__init__()
        self.words = nn.EmbeddingBag(vocab_size, 8, padding_idx=0)
        self.out = nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        return self.out(self.words(input_ids))


def test_any_module_learns_and_loads_again(build, tiny_teacher, tmp_path):
    set_seed(0)
    module = BagOfWords(tiny_teacher.config.vocab_size)
    trainer = build(as_student(module, tiny_teacher), objectives=["logits"], max_steps=30, learning_rate=0.1)
    before = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] < before
    trainer.save_model()
    trainer.create_model_card()
    fresh = BagOfWords(tiny_teacher.config.vocab_size)
    loaded = ModuleStudent.from_pretrained(tmp_path / "run", module=fresh)
    torch.testing.assert_close(loaded(IDS, MASK).logits, module(IDS, MASK))
    assert loaded.config.id2label == tiny_teacher.config.id2label


def test_a_module_may_show_hidden_states():
    class Showing(BagOfWords):
        def forward(self, input_ids, attention_mask):
            states = nn.functional.embedding(input_ids, self.words.weight)
            return {"logits": self.out(states.mean(1)), "hidden_states": (states, states + 1)}

    student = as_student(Showing(30), vocab_size=30, hidden_size=8, num_hidden_layers=1)
    signals = capture_of(student, SignalRequest(hidden_states=frozenset({1})))(input_ids=IDS, attention_mask=MASK)
    assert signals.hidden_states[1].shape == (2, 4, 8)
    assert signals.logits == {}
    lying = as_student(Showing(30), vocab_size=30, hidden_size=8, num_hidden_layers=2)
    with pytest.raises(RuntimeError, match=r"must return 3 `hidden_states`.*returned 2"):
        capture_of(lying, SignalRequest(hidden_states=frozenset({1})))(input_ids=IDS)


def test_what_a_module_must_return_is_said():
    class Wrong(BagOfWords):
        def forward(self, input_ids, attention_mask):
            return (1, 2)

    with pytest.raises(TypeError, match="Wrong must return its logits"):
        as_student(Wrong(30), vocab_size=30)(IDS)
    with pytest.raises(ValueError, match="give the `teacher`, or the `vocab_size`"):
        as_student(Wrong(30))
