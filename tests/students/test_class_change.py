"""Students of another class than their teacher's."""

from __future__ import annotations

import pytest
import torch
import transformers
from test_students import IDS, TEACHERS, tiny_teacher

from hf_distill.capture.architectures import first_position, num_positions
from hf_distill.students.creation import create_student
from hf_distill.students.first_weights import first_weights_of

# All of them add, then normalise.
FAMILY = ["Bert", "Camembert", "DistilBert", "Electra", "Ernie", "MPNet", "Roberta", "XLMRoberta"]
PAIRS = [(one, "Bert") for one in FAMILY] + [("Bert", one) for one in FAMILY] + [("Roberta", "DistilBert")]
SAME, SMALLER = "4x32:4h:48", "2x16:4h:24"
HEADS = ["ForMaskedLM", "ForTokenClassification"]


def member(name, head, **options):
    """A teacher of the family whose configuration says nothing that another class does not know."""
    options |= {} if name == "DistilBert" else {"layer_norm_eps": 1e-12}
    teacher = tiny_teacher(name, head, **options, **({"embedding_size": 32} if name == "Electra" else {}))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        if name == "MPNet":
            teacher.mpnet.encoder.relative_attention_bias.weight.zero_()
    return teacher


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_at_full_size_every_class_computes_the_same(name, other, head):
    teacher = member(name, head)
    student = create_student(teacher, SAME, model_class=f"{other}{head}")
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "other"), [("Bert", "Bert"), ("Bert", "Roberta"), ("Roberta", "DistilBert")])
@pytest.mark.parametrize("tied", [False, True])
def test_a_head_of_its_own_matrix_stays_apart_or_gives_way_to_the_table_of_words(name, other, tied):
    teacher = member(name, "ForMaskedLM", tie_word_embeddings=False)
    student = create_student(teacher, SAME, model_class=f"{other}ForMaskedLM", tie_word_embeddings=tied)
    assert (student.get_output_embeddings().weight is student.get_input_embeddings().weight) == tied
    torch.testing.assert_close(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    if not tied:
        torch.testing.assert_close(logits(student), logits(teacher), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["Albert", "Deberta", "DebertaV2", "EuroBert", "Llama", "ModernBert", "NomicBert"])
def test_other_layers_become_layers_like_berts_by_a_fit_alone(name, tiny_tokenizer, sentences, caplog):
    teacher = tiny_teacher(name, "Model", vocab_size=len(tiny_tokenizer))
    options = {"calibration_text": sentences * 2, "tokenizer": tiny_tokenizer}
    student = create_student(teacher, SMALLER, model_class="BertModel", **options)
    assert first_weights_of(student).explained[0] > 0.1
    assert "random weights" not in caplog.text
    drawn = create_student(teacher, SMALLER, model_class="BertModel")
    assert first_weights_of(drawn) is None
    assert "by a fit to text alone (calibration_text=)" in caplog.text
    with pytest.raises(ValueError, match=r"cannot have init='teacher' \(--student_init\).*by a fit to text alone"):
        create_student(teacher, SMALLER, model_class="BertModel", init="teacher")


@pytest.mark.parametrize("other", ["Albert", "DebertaV2", "Llama", "ModernBert", "NomicBert"])
def test_a_class_of_other_layers_begins_at_random_and_says_so(other, caplog):
    student = create_student(tiny_teacher("Bert", "Model"), SMALLER, model_class=f"{other}Model")
    assert type(student) is getattr(transformers, f"{other}Model")
    assert student.config.num_hidden_layers == 2
    assert first_weights_of(student) is None
    assert "for layers like BERT's, which" in caplog.text
    with pytest.raises(ValueError, match=r"init='teacher'.*for layers like BERT's"):
        create_student(tiny_teacher("Bert", "Model"), SMALLER, model_class=f"{other}Model", init="teacher")


def test_layers_are_copied_within_one_architecture_only():
    with pytest.raises(ValueError, match=r"'roberta' cannot have init='teacher_layers'.*within one architecture"):
        create_student(tiny_teacher("Bert"), SAME, model_class="RobertaModel", init="teacher_layers")


@pytest.mark.parametrize("name", ["Bert", "Camembert", "MPNet", "Roberta"])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_positions_are_those_that_the_model_has_behind_its_padding(name, padding):
    config = getattr(transformers, f"{name}Config")(**{**TEACHERS[name], "pad_token_id": padding})
    table = getattr(transformers, f"{name}Model")(config).embeddings.position_embeddings
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    assert first_position(config) == first
    assert num_positions(config) == 40 - first


@pytest.mark.parametrize(
    ("name", "size"), [("Bert", 8), ("Bert", 16), ("Electra", 8), ("Electra", 16), ("Albert", 8), ("Albert", 16)]
)
def test_narrow_embeddings_of_any_width_keep_the_words(name, size, tiny_tokenizer, sentences):
    """Also as wide as the student itself, where there is no matrix behind them, and not as wide as the teacher's."""
    teacher = tiny_teacher(
        name, "Model", vocab_size=len(tiny_tokenizer), **({} if name == "Bert" else {"embedding_size": 12})
    )
    options = {"calibration_text": sentences * 2, "tokenizer": tiny_tokenizer}
    explained = [
        first_weights_of(create_student(teacher, SMALLER, embedding_size=each, **options)).explained[0]
        for each in (2, size)
    ]
    assert explained[1] > max(0.0, explained[0]) + 0.1


@pytest.mark.parametrize("size", [-1, 1, 17])
def test_embeddings_wider_than_the_student_are_refused(size):
    with pytest.raises(ValueError, match=rf"embedding_size={size} \(--student_embedding_size\).*width, 16"):
        create_student(tiny_teacher("Bert"), SMALLER, embedding_size=size)
